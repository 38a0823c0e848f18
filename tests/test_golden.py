"""Against numbers that PyTorch and timm wrote (tests/reference/make_golden.py): features, gradients, ten losses."""

import pathlib

import numpy as np
import pytest
from golden_cases import BASE, CASES, MODERN

import numpyvit as nv


@pytest.fixture(params=CASES)
def golden(request):
    path = pathlib.Path(__file__).parent / "golden" / f"{request.param}.npz"
    with np.load(path) as file:
        arrays = dict(file)
    model_class = nv.ModernVisionTransformer if request.param in MODERN else nv.VisionTransformer
    model = model_class(**{**BASE, **CASES[request.param]}, dtype="float64")
    model.load_state_dict({n.removeprefix("weight/"): a for n, a in arrays.items() if n.startswith("weight/")})
    return model, arrays


def smoothed(logits, labels):
    return nv.losses.cross_entropy(logits, labels, label_smoothing=0.1)


def test_logits_features_and_gradients(golden):
    model, arrays = golden
    tape = nv.Tape(model)
    logits = model.forward(arrays["x"], tape)
    heads = logits if isinstance(logits, tuple) else (logits,)
    for i, head in enumerate(heads):
        np.testing.assert_allclose(head, arrays[f"logits/{i}"], rtol=1e-11, atol=1e-12)
    np.testing.assert_allclose(model.forward_features(arrays["x"]), arrays["features"], rtol=1e-11, atol=1e-12)
    model.backward(smoothed(logits, arrays["labels"])[1], tape)
    for name, gradient in tape.gradients().items():
        np.testing.assert_allclose(gradient, arrays[f"gradient/{name}"], rtol=1e-9, atol=1e-11, err_msg=name)


def test_ten_steps_of_adamw(golden):
    model, arrays = golden
    step = nv.TrainStep(model, nv.optim.AdamW(model, lr=1e-2, weight_decay=0.1), loss=smoothed)
    losses = [step(arrays["x"], arrays["labels"]) for _ in range(10)]
    np.testing.assert_allclose(losses, arrays["losses"], rtol=1e-9)
