"""Live comparison with PyTorch: logits and every gradient, in float64, over random options."""

import importlib.util
import pathlib
import sys
from functools import partial

import numpy as np
import pytest

import numpyvit as nv
from numpyvit.layers import GELU, GELUTanh, LayerNorm, ReLU
from numpyvit.testing import randomize

pytestmark = [
    pytest.mark.parity,
    pytest.mark.skipif(importlib.util.find_spec("torch") is None, reason="PyTorch is not installed"),
]
sys.path.insert(0, str(pathlib.Path(__file__).parent / "reference"))


def random_options(seed):
    rng = np.random.default_rng(seed)
    pick = lambda *values: values[rng.integers(len(values))]  # noqa: E731
    patch = (pick(2, 3, 4), pick(2, 4))
    heads = pick(1, 2, 4)
    options = dict(
        img_size=(patch[0] * pick(1, 2, 3), patch[1] * pick(2, 3)),
        patch_size=patch,
        in_chans=pick(1, 2, 3, 5),
        num_classes=pick(2, 3, 7),
        embed_dim=heads * pick(3, 4, 8),
        depth=pick(1, 2, 3),
        num_heads=heads,
        mlp_ratio=pick(1.0, 2.5, 4.0),
        qkv_bias=pick(True, False),
        qk_scale=pick(None, None, 0.3),
        representation_size=pick(None, 5),
        distilled=pick(False, False, True),
    )
    if not options["distilled"]:
        options["global_pool"] = pick("token", "avg")
    return options, pick("gelu", "gelu_tanh", "relu"), pick(1e-6, 1e-5, 1e-3), rng


@pytest.mark.parametrize("seed", range(20))
def test_logits_and_all_gradients_equal_pytorchs(seed):
    import torch
    from torch_vit import TorchViT

    options, act, eps, rng = random_options(seed)
    acts = {
        "gelu": (GELU, torch.nn.GELU()),
        "gelu_tanh": (GELUTanh, torch.nn.GELU("tanh")),
        "relu": (ReLU, torch.nn.ReLU()),
    }
    ours, theirs = acts[act]
    model = nv.VisionTransformer(**options, act_layer=ours, norm_layer=partial(LayerNorm, eps=eps), dtype="float64")
    randomize(model, seed)
    reference = TorchViT(**options, act=theirs, eps=eps).double()
    reference.load_state_dict({name: torch.from_numpy(a) for name, a in model.state_dict().items()}, strict=True)

    x = rng.standard_normal((3, options["in_chans"], *options["img_size"]))
    x_torch = torch.from_numpy(x).requires_grad_()
    tape = nv.Tape(model)
    y, y_torch = model.forward(x, tape), reference(x_torch)
    if not isinstance(y, tuple):
        y, y_torch = (y,), (y_torch,)
    dy = [rng.standard_normal(part.shape) for part in y]
    dx = model.backward(tuple(dy) if len(dy) == 2 else dy[0], tape)
    torch.autograd.backward(y_torch, [torch.from_numpy(part) for part in dy])

    pairs = {f"logits {i}": (a, b.detach().numpy()) for i, (a, b) in enumerate(zip(y, y_torch))}
    pairs["images"] = dx, x_torch.grad.numpy()
    gradients = {name: p.grad.numpy() for name, p in reference.named_parameters()}
    assert gradients.keys() == tape.gradients().keys()
    pairs |= {name: (gradient, gradients[name]) for name, gradient in tape.gradients().items()}
    largest = max(np.abs(b).max() for _, b in pairs.values())
    for name, (a, b) in pairs.items():
        error = np.abs(a - b).max() / max(np.abs(b).max(), 1e-4 * largest)  # the floor is for keys' biases, exactly 0
        assert error <= 1e-10, f"{name} differs by {error:.1e}"


@pytest.mark.parametrize("make", ["adamw", "sgd"])
def test_optimizers_equal_pytorchs(make):
    import torch

    rng = np.random.default_rng(0)
    layer = nv.layers.Linear(6, 5, dtype="float64")
    weight = torch.nn.Parameter(torch.from_numpy(layer.weight.data.copy()))
    if make == "adamw":
        ours = nv.optim.AdamW(layer, lr=0.02, weight_decay=0.1)
        theirs = torch.optim.AdamW([weight], lr=0.02, weight_decay=0.1)
    else:
        ours = nv.optim.SGD(layer, lr=0.02, momentum=0.9, nesterov=True, weight_decay=0.1)
        theirs = torch.optim.SGD([weight], lr=0.02, momentum=0.9, nesterov=True, weight_decay=0.1)
    for _ in range(10):
        tape = nv.Tape(layer)
        gradient = rng.standard_normal((5, 6))
        tape.add(layer.weight, gradient)
        ours.step(tape)
        weight.grad = torch.from_numpy(gradient)
        theirs.step()
    np.testing.assert_allclose(layer.weight.data, weight.detach().numpy(), rtol=1e-12)


@pytest.mark.parametrize("soft", [False, True])
@pytest.mark.parametrize("weighted", [False, True])
def test_cross_entropy_equals_pytorchs(soft, weighted):
    import torch

    rng = np.random.default_rng(0)
    logits, labels = rng.standard_normal((6, 4)), rng.integers(0, 4, 6)
    targets = rng.dirichlet(np.ones(4), 6) if soft else labels
    weight = rng.random(4) if weighted else None
    z = torch.from_numpy(logits).requires_grad_()
    expected = torch.nn.functional.cross_entropy(
        z, torch.from_numpy(targets), torch.from_numpy(weight) if weighted else None, label_smoothing=0.1
    )
    expected.backward()
    loss, gradient = nv.losses.cross_entropy(logits, targets, 0.1, weight)
    assert loss == pytest.approx(expected.item(), rel=1e-12)
    np.testing.assert_allclose(gradient, z.grad.numpy(), rtol=1e-10, atol=1e-14)
