"""Live comparison of the detector with boxes as queries with PyTorch: outputs, every part of the loss, gradients."""

import importlib.util
import sys
from pathlib import Path

import pytest
from compare_with_torch import (
    CLASSES,
    arrays_of,
    assert_close,
    compare_gradients,
    padded_batch,
    randomized,
    some_targets,
    tensors,
)

import numpyvit as nv

sys.path.insert(0, str(Path(__file__).parent / "reference"))

pytestmark = [
    pytest.mark.parity,
    pytest.mark.filterwarnings("ignore"),  # theirs, not ours
    pytest.mark.skipif(importlib.util.find_spec("torch") is None, reason="needs torch"),
]

QUERIES = 7
SIZES = dict(hidden_dim=32, nheads=4, enc_layers=2, dec_layers=3, dim_feedforward=48, temperature=20.0)


def both(torch, groups, dtype):
    import torch_anchor_detr
    from torch_backbones import convolutions

    body, channels = convolutions((8, 16, 16))
    theirs = torch_anchor_detr.AnchorDETR(body, channels, CLASSES, QUERIES, groups=groups, **SIZES)
    theirs = randomized(torch, theirs).to(getattr(torch, dtype))
    options = dict(SIZES, backbone=(8, 16, 16), num_queries=QUERIES, groups=groups)
    ours = nv.create_model("detr_micro_64", num_classes=CLASSES, dtype=dtype, **options)
    ours.load_state_dict(arrays_of(theirs))
    return ours, theirs.train()


def compare_outputs(found, expected, tolerance, seen=None):
    """Of every decoder layer; seen (B, Q): which queries are to be compared."""
    assert found.keys() == expected.keys()
    for layer, theirs in zip([found, *found["aux_outputs"]], [expected, *expected["aux_outputs"]], strict=True):
        for name in ("pred_logits", "pred_boxes"):
            some = slice(None) if seen is None else seen
            assert_close(layer[name][some], theirs[name].detach().numpy()[some], tolerance, name)


@pytest.mark.parametrize("dtype, tolerance", [("float64", 1e-10), ("float32", 1e-4)])
@pytest.mark.parametrize("groups, copies", [(1, 0), (1, 3), (2, 0), (3, 2)])
def test_outputs_losses_and_gradients_equal_pytorchs(torch, groups, copies, dtype, tolerance):
    """With groups of queries, with denoising queries, with both and with neither; an image has no boxes."""
    import torch_anchor_detr

    ours, theirs = both(torch, groups, dtype)
    (images, mask), targets = padded_batch(), some_targets()
    images = images.astype(dtype)
    queries = nv.losses.denoising_queries(targets, CLASSES, 0, copies) if copies else None
    tape = nv.Tape(ours)
    out = ours.forward((images, mask, queries), tape)
    loss, dout, parts = nv.losses.detection(out, targets, return_parts=True)
    dimages = ours.backward(dout, tape)

    x = torch.from_numpy(images).requires_grad_()
    their_queries = queries and {name: torch.from_numpy(array) for name, array in queries.items()}
    if queries:
        their_queries["boxes"] = their_queries["boxes"].to(x.dtype)
    their_out = theirs(x, torch.from_numpy(mask), their_queries)
    their_loss, their_parts = torch_anchor_detr.set_loss(their_out, tensors(torch, targets, x.dtype))
    their_loss.backward()

    extra = {name: (out.pop(name, None), their_out.pop(name, None)) for name in ("groups", "denoising")}
    compare_outputs(out, their_out, tolerance)
    if groups > 1:
        for found, expected in zip(*extra["groups"], strict=True):
            compare_outputs(found, expected, tolerance)
    if copies:  # what becomes of padding, nobody sees
        compare_outputs(*extra["denoising"], tolerance, queries["targets"].reshape(len(images), -1) >= 0)
    assert parts.keys() == their_parts.keys()
    for name, value in parts.items():
        assert abs(float(value) - float(their_parts[name])) <= tolerance * max(abs(float(their_parts[name])), 1), name
    assert abs(float(loss) - float(their_loss)) <= tolerance * abs(float(their_loss))
    compare_gradients(tape, theirs, tolerance)
    assert_close(dimages, x.grad, tolerance, "images")


def test_without_a_tape_the_first_group_answers_as_in_pytorch(torch):
    ours, theirs = both(torch, 2, "float64")
    images, mask = padded_batch()
    with torch.no_grad():
        expected = theirs.eval()(torch.from_numpy(images), torch.from_numpy(mask))
    out = ours((images, mask))
    assert out["pred_boxes"].shape == (3, QUERIES, 4)
    for name in ("pred_logits", "pred_boxes"):
        assert_close(out[name], expected[name], 1e-10, name)


@pytest.mark.parametrize("name", ["detr_micro_64", "detr_mini_160"])
def test_the_small_presets_have_the_parameters_of_the_reference(torch, name):
    import torch_anchor_detr
    from torch_backbones import convolutions

    ours = nv.create_model(name, seed=0)
    layers = ours.transformer
    body, channels = convolutions(tuple(len(layer.weight.data) for layer in ours.backbone[0].body[::3]))
    theirs = torch_anchor_detr.AnchorDETR(
        body,
        channels,
        ours.num_classes,
        ours.num_queries,
        ours.transformer.decoder.norm.weight.data.size,
        4,
        enc_layers=len(layers.encoder.layers),
        dec_layers=len(layers.decoder.layers),
        dim_feedforward=len(layers.decoder.layers[0].feed_forward.linear1.bias.data),
    )
    expected = {name: tuple(array.shape) for name, array in theirs.state_dict().items()}
    assert {name: array.shape for name, array in ours.state_dict().items()} == expected
