"""Live comparison of ResNet with torchvision: random weights and statistics, every stage, forward and backward."""

import importlib.util

import numpy as np
import pytest

import numpyvit as nv
from numpyvit.models import ResNet

_NEEDED = ("torch", "torchvision")
pytestmark = [
    pytest.mark.parity,
    pytest.mark.filterwarnings("ignore"),  # theirs, not ours
    pytest.mark.skipif(any(importlib.util.find_spec(n) is None for n in _NEEDED), reason=f"needs {', '.join(_NEEDED)}"),
]
_DC5 = (False, False, True)


def theirs(torch, name, **options):
    """torchvision's model in evaluation, with values in every statistic that show."""
    from torchvision import models

    module = models.get_model(name, weights=None, **options).eval()
    with torch.no_grad():
        for key, tensor in module.state_dict().items():
            if "running" in key or ("bn" in key and "num" not in key):
                tensor.uniform_(0.5, 1.0)
    return module


def pair(torch, name, dtype, **options):
    module = theirs(torch, name, **options).to(getattr(torch, dtype))
    model = nv.create_model(name, dtype=dtype, **options)
    model.load_state_dict({key: tensor.numpy() for key, tensor in module.state_dict().items()})
    return model, module


def stages_of(module, x):
    """What torchvision's model gives after each stage, and its logits."""
    x, found = module.maxpool(module.relu(module.bn1(module.conv1(x)))), []
    for stage in (module.layer1, module.layer2, module.layer3, module.layer4):
        x = stage(x)
        found.append(x)
    return found, module.fc(x.mean((2, 3)))


def off(a, b):
    return float(np.abs(a - b).max() / np.abs(b).max())


@pytest.mark.parametrize("dtype, tolerance", [("float64", 1e-10), ("float32", 1e-5)])
@pytest.mark.parametrize(
    "name, options",
    [
        ("resnet18", {"num_classes": 7}),
        ("resnet34", {"num_classes": 7}),
        ("resnet50", {"num_classes": 7}),
        ("resnet50", {"num_classes": 7, "replace_stride_with_dilation": _DC5}),
        ("resnet50", {"num_classes": 7, "replace_stride_with_dilation": (True, False, True)}),
    ],
    ids=["18", "34", "50", "50-dc5", "50-dilated-twice"],
)
def test_every_stage_the_logits_and_every_gradient(torch, name, options, dtype, tolerance):
    model, module = pair(torch, name, dtype, **options)
    rng = np.random.default_rng(0)
    # few pixels: in float32 one of a million inputs of a ReLU rounds to the other side of 0, where its gradient differs
    x = rng.standard_normal((1, 3, 33, 47)).astype(dtype)
    images = torch.from_numpy(x).requires_grad_()
    expected, logits = stages_of(module, images)
    for found, stage in zip(model.pyramid(x), expected, strict=True):
        assert found.dtype == dtype and off(found, stage.detach().numpy()) < tolerance
    assert off(model(x), logits.detach().numpy()) < tolerance

    dy = rng.standard_normal(logits.shape).astype(dtype)
    logits.backward(torch.from_numpy(dy))
    tape = nv.Tape(model)
    model.forward(x, tape)
    assert off(model.backward(dy, tape), images.grad.numpy()) < tolerance
    trained = {
        key: p.grad.numpy() for key, p in module.named_parameters() if "bn" not in key and "downsample.1" not in key
    }
    gradients = tape.gradients()
    assert gradients.keys() == trained.keys()
    assert {
        key: off(gradients[key], trained[key]) for key in trained if off(gradients[key], trained[key]) > tolerance
    } == {}


def test_gradients_wanted_at_every_stage_add_up(torch):
    model, module = pair(torch, "resnet18", "float64", num_classes=7)
    rng = np.random.default_rng(0)
    x = rng.standard_normal((2, 3, 64, 96))
    images = torch.from_numpy(x).requires_grad_()
    expected, _ = stages_of(module, images)
    dlevels = [rng.standard_normal(level.shape) for level in expected]
    torch.autograd.backward(expected, [torch.from_numpy(dlevel) for dlevel in dlevels])
    tape = nv.Tape(model)
    model.pyramid(x, tape)
    assert off(model.pyramid_backward(dlevels, tape), images.grad.numpy()) < 1e-10
    gradients = tape.gradients()
    for key, parameter in module.named_parameters():
        if "conv" in key:
            assert off(gradients[key], parameter.grad.numpy()) < 1e-10


def test_group_norm_as_norm_layer(torch):
    from functools import partial

    module = theirs(torch, "resnet18", num_classes=7, norm_layer=partial(torch.nn.GroupNorm, 8)).double()
    model = nv.create_model("resnet18", num_classes=7, norm_layer=partial(nv.layers.GroupNorm, 8), dtype="float64")
    model.load_state_dict({key: tensor.numpy() for key, tensor in module.state_dict().items()})
    x = np.random.default_rng(0).standard_normal((2, 3, 64, 64))
    assert off(model(x), module(torch.from_numpy(x)).detach().numpy()) < 1e-10


@pytest.mark.parametrize("name", ["resnet18", "resnet34", "resnet50", "resnet101"])
def test_names_shapes_and_first_weights(torch, name):
    from torchvision import models

    with torch.device("meta"):
        module = models.get_model(name)
    expected = {
        key: tuple(t.shape) for key, t in module.state_dict().items() if not key.endswith("num_batches_tracked")
    }
    state = nv.create_model(name).state_dict()
    assert {key: array.shape for key, array in state.items()} == expected
    model = models.get_model("resnet18")
    for key, tensor in model.state_dict().items():
        if name == "resnet18" and "conv" in key:
            assert state[key].std() == pytest.approx(float(tensor.std()), rel=0.05)


def test_preparation_is_that_of_torchvisions_first_weights(torch):
    from torchvision import models

    for name in nv.list_models("resnet*"):
        theirs = models.get_model_weights(name)["IMAGENET1K_V1"].transforms()
        ours = nv.create_model(name).pretrained_cfg
        assert (list(ours["mean"]), list(ours["std"])) == (list(theirs.mean), list(theirs.std))
        assert ours["interpolation"] == theirs.interpolation.value
        assert ours["crop_pct"] == theirs.crop_size[0] / theirs.resize_size[0]


@pytest.mark.parametrize(
    "shape, options",
    [
        ((6, 5, 3, 1, 1, 1), {}),
        ((6, 5, 1, 2, 0, 1), {}),
        ((6, 5, 7, 2, 3, 1), {}),
        ((6, 5, 3, 1, 2, 2), {"bias": False}),
        ((6, 5, (3, 5), (1, 2), (0, 4), (2, 1)), {}),
        ((6, 5, 2, 3, 5, 1), {}),
    ],
    ids=str,
)
def test_conv2d(torch, shape, options):
    compare(torch, nv.layers.Conv2d(*shape, **options, dtype="float64"), torch.nn.Conv2d(*shape, **options))


@pytest.mark.parametrize("shape", [(3, 2, 1), (2,), ((2, 3), (1, 2), (1, 0))], ids=str)
def test_max_pool_of_many_equal_pixels(torch, shape):
    compare(torch, nv.layers.MaxPool2d(*shape), torch.nn.MaxPool2d(*shape))


def test_group_norm(torch):
    compare(torch, nv.layers.GroupNorm(2, 6, dtype="float64"), torch.nn.GroupNorm(2, 6))


def compare(torch, ours, module):
    """Output, the gradient of the input and of every parameter, for images of small whole numbers, in float64."""
    rng = np.random.default_rng(0)
    nv.testing.randomize(ours)
    module.double().load_state_dict({key: torch.from_numpy(array) for key, array in ours.state_dict().items()})
    x = rng.integers(-3, 4, (3, 6, 13, 17)).astype("float64")
    images, tape = torch.from_numpy(x).requires_grad_(), nv.Tape(ours)
    expected, found = module(images), ours.forward(x, tape)
    np.testing.assert_allclose(found, expected.detach().numpy(), rtol=0, atol=1e-12)
    dy = rng.standard_normal(found.shape)
    expected.backward(torch.from_numpy(dy))
    np.testing.assert_allclose(ours.backward(dy, tape), images.grad.numpy(), rtol=0, atol=1e-12)
    for key, parameter in module.named_parameters():
        np.testing.assert_allclose(tape.gradients()[key], parameter.grad.numpy(), rtol=0, atol=1e-11)


def test_published_weights_load_from_a_file(torch, tmp_path):
    module = theirs(torch, "resnet18")
    torch.save(module.state_dict(), tmp_path / "resnet18.pth")
    model = nv.create_model("resnet18", pretrained=tmp_path / "resnet18.pth")
    assert isinstance(model, ResNet)
    x = np.random.default_rng(0).standard_normal((1, 3, 64, 64)).astype("float32")
    assert off(model(x), module(torch.from_numpy(x)).detach().numpy()) < 1e-5


@pytest.mark.skipif(importlib.util.find_spec("transformers") is None, reason="needs transformers")
@pytest.mark.parametrize("name, kind", [("resnet18", "basic"), ("resnet50", "bottleneck")])
def test_weights_of_hugging_face(torch, tmp_path, name, kind):
    from transformers import ResNetConfig, ResNetForImageClassification

    basic = {"depths": [2, 2, 2, 2], "hidden_sizes": [64, 128, 256, 512]} if kind == "basic" else {}
    module = ResNetForImageClassification(ResNetConfig(layer_type=kind, num_labels=7, **basic)).eval()
    with torch.no_grad():
        for key, tensor in module.state_dict().items():
            if "normalization" in key and "num" not in key:
                tensor.uniform_(0.5, 1.0)
    torch.save(module.state_dict(), tmp_path / "model.pth")
    model = nv.create_model(name, pretrained=tmp_path / "model.pth", num_classes=7)
    x = np.random.default_rng(0).standard_normal((1, 3, 64, 64)).astype("float32")
    assert off(model(x), module(torch.from_numpy(x)).logits.detach().numpy()) < 1e-5
