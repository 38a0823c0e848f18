"""nv.Predictor: as the model, made ready once."""

import gc
import weakref

import numpy as np
import pytest
from conftest import call_in_threads, tiny

import numpyvit as nv
from numpyvit.errors import ConfigError, ShapeError
from numpyvit.models import VisionTransformer
from numpyvit.testing.cases import MODELS
from numpyvit.training.nested import arrays, join

pytestmark = pytest.mark.usefixtures("little_work_is_shared")


def _model(case, dtype="float32"):
    """With norms and statistics as after training, not ones and zeros."""
    model = case.layer(dtype)
    return getattr(model, "detector", model)


def _check(found, expected, tolerance):
    """Differences relative to the largest number of each output."""
    for y, z in zip(arrays(found), arrays(expected), strict=True):
        assert y.shape == z.shape and y.dtype == z.dtype
        np.testing.assert_allclose(y, z, rtol=0, atol=tolerance * np.abs(z).max())


@pytest.mark.parametrize("case", MODELS, ids=lambda case: case.name)
def test_a_predictor_gives_what_its_model_gives(case):
    model, x = _model(case, "float64"), case.x("float64", 5)
    predictor = nv.Predictor(model, threads=2)
    expected = model(x)
    _check(predictor(x), expected, 1e-12)
    _check(join([predictor(x[i : i + 1]) for i in range(5)]), expected, 1e-12)


def _as_after_training(model):
    """Norms, LayerScale and statistics that are not ones and zeros."""
    rng = np.random.default_rng(0)
    for name, array in [*model.named_parameters(), *model.saved_buffers()]:
        if array.data.ndim == 1:
            positive = name.endswith(("weight", "gamma", "running_var"))
            array.data[...] = rng.uniform(0.3, 1.7, array.data.shape) - (0 if positive else 1)
    return model


FAMILIES = {
    "vit_micro_patch7_28": {},
    "vit_micro_patch4_32": dict(representation_size=32),
    "vit_tiny_patch16_224": dict(img_size=64),
    "deit_tiny_distilled_patch16_224": dict(img_size=64),
    "deit3_small_patch16_224": dict(img_size=64, depth=4),
    "vit_small_patch14_dinov2": dict(img_size=56, depth=4),
    "vit_small_patch14_reg4_dinov2": dict(img_size=56, depth=4, num_classes=9, dynamic_img_size=True),
    "swin_micro_patch2_window4_32": {},
    "resnet18": dict(img_size=64),
    "detr_micro_64": {},
}


@pytest.mark.parametrize("name", FAMILIES)
def test_in_float32_it_is_off_by_the_last_digits_alone(name, rng):
    model = _as_after_training(nv.create_model(name, **FAMILIES[name]))
    x = rng.standard_normal((3, *model.input_shape), np.float32)
    _check(nv.Predictor(model)(x), model(x), 1e-6)
