"""Live comparison of DETR with PyTorch: outputs, matching, every part of the loss, the gradient of every parameter."""

import importlib.util
import sys
from pathlib import Path

import numpy as np
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
from numpyvit.models.detr import DETR

sys.path.insert(0, str(Path(__file__).parent / "reference"))

_NEEDED = ("torch", "torchvision", "transformers")
pytestmark = [
    pytest.mark.parity,
    pytest.mark.filterwarnings("ignore"),  # theirs, not ours
    pytest.mark.skipif(any(importlib.util.find_spec(n) is None for n in _NEEDED), reason=f"needs {', '.join(_NEEDED)}"),
]

SIZES = dict(hidden_dim=32, nheads=4, enc_layers=2, dec_layers=2, dim_feedforward=48)
QUERIES = 7


OPTIONS = {
    "post-norm": {},
    "pre-norm": dict(pre_norm=True),
    "learned positions and other depths": dict(position_embedding="learned", enc_layers=1, dec_layers=3),
    "without auxiliary losses": dict(aux_loss=False, enc_layers=0, dec_layers=3),
}
BACKBONES = {"convolutions": ((8, 16, 16), False), "resnet18": ("resnet18", False), "dc5": ("resnet50", True)}
CASES = [("convolutions", name) for name in OPTIONS] + [("resnet18", "post-norm"), ("dc5", "pre-norm")]


@pytest.mark.parametrize("dtype, tolerance", [("float64", 1e-10), ("float32", 1e-4)])
@pytest.mark.parametrize("backbone, name", CASES, ids=[" ".join(case) for case in CASES])
def test_outputs_losses_and_gradients_equal_pytorchs(torch, backbone, name, dtype, tolerance):
    import torch_detr
    from torch_backbones import convolutions, residuals

    kind, dilation = BACKBONES[backbone]
    body, channels = residuals(kind, dilation) if isinstance(kind, str) else convolutions(kind)
    options = {**SIZES, **OPTIONS[name]}
    theirs = randomized(torch, torch_detr.DETR(body, channels, CLASSES, QUERIES, **options)).to(getattr(torch, dtype))
    ours = DETR(CLASSES, QUERIES, kind, dilation=dilation, dropout=0.0, dtype=dtype, **options)
    ours.load_state_dict(arrays_of(theirs))

    images, mask = padded_batch()
    images, targets = images.astype(dtype), some_targets()
    tape = nv.Tape(ours)
    out = ours.forward((images, mask), tape)
    loss, dout, parts = nv.losses.detection(out, targets, return_parts=True)
    dimages = ours.backward(dout, tape)

    x = torch.from_numpy(images).requires_grad_()
    their_out = theirs(x, torch.from_numpy(mask))
    their_targets = tensors(torch, targets, x.dtype)
    their_loss, their_parts = torch_detr.set_loss(their_out, their_targets)
    their_loss.backward()

    assert out.keys() == their_out.keys()
    for layer, expected in zip([out, *out.get("aux_outputs", [])], [their_out, *their_out.get("aux_outputs", [])]):
        for key in ("pred_logits", "pred_boxes"):
            assert_close(layer[key], expected[key], tolerance, key)
    for found, expected in zip(nv.losses.match(out, targets), torch_detr.match(their_out, their_targets), strict=True):
        assert np.array_equal(found, expected)
    assert parts.keys() == their_parts.keys()
    for key, value in parts.items():
        assert abs(float(value) - float(their_parts[key])) <= tolerance * max(abs(float(their_parts[key])), 1), key
    assert abs(float(loss) - float(their_loss)) <= tolerance * abs(float(their_loss))
    # In float32 some input of a ResNet's many ReLUs rounds to the other side of 0, which changes gradients below it by
    # more than rounding; float64 holds them to 1e-10.
    kinks = dtype == "float32" and isinstance(kind, str)
    compare_gradients(tape, theirs, tolerance, ("backbone.0.body.",) if kinks else ())
    if x.grad is not None and dimages is not None and not kinks:
        assert_close(dimages, x.grad, tolerance, "images")


# ---- Hugging Face ---------------------------------------------------------------------------------------------------


def hugging_faces(torch, **options):
    """A DETR on a ResNet-50 of theirs with random weights.

    Without auxiliary losses: with them it feeds the normalized output of a layer to the next, unlike DETR's own code.
    """
    from transformers import DetrConfig, DetrForObjectDetection, ResNetConfig

    sizes = dict(d_model=32, encoder_layers=2, decoder_layers=2, encoder_ffn_dim=48, decoder_ffn_dim=48)
    config = DetrConfig(
        backbone_config=ResNetConfig(out_features=["stage4"]),
        use_timm_backbone=False,
        use_pretrained_backbone=False,
        num_labels=CLASSES,
        num_queries=QUERIES,
        encoder_attention_heads=4,
        decoder_attention_heads=4,
        dropout=0.0,
        auxiliary_loss=False,
        **{**sizes, **options},
    )
    return randomized(torch, DetrForObjectDetection(config).requires_grad_())


@pytest.mark.parametrize("position", ["sine", "learned"])
def test_hugging_faces_file_gives_its_outputs_losses_and_gradients(torch, tmp_path, position):
    from numpyvit.weights.detr import to_official

    theirs = hugging_faces(torch, position_embedding_type=position).double()
    torch.save(theirs.state_dict(), tmp_path / "w.pth")
    options = dict(SIZES, position_embedding=position, dropout=0.0, aux_loss=False)
    ours = DETR(CLASSES, QUERIES, "resnet50", dtype="float64", **options)
    arrays, _, origin = nv.weights.read_checkpoint(tmp_path / "w.pth")
    assert origin == "detr"
    ours.load_state_dict(arrays)
    images, mask = padded_batch()
    targets = some_targets()
    tape = nv.Tape(ours)
    out = ours.forward((images, mask), tape)
    loss, dout, parts = nv.losses.detection(out, targets, return_parts=True)
    ours.backward(dout, tape)

    labels = [{"class_labels": t["labels"], "boxes": t["boxes"]} for t in tensors(torch, targets, torch.float64)]
    pixel_mask = torch.from_numpy((~mask).astype(np.int64))
    torch.set_default_dtype(torch.float64)  # of the weights of the classes in its loss
    try:
        found = theirs(torch.from_numpy(images), pixel_mask, labels=labels)
    finally:
        torch.set_default_dtype(torch.float32)
    found.loss.backward()
    assert_close(out["pred_logits"], found.logits, 1e-10, "logits")
    assert_close(out["pred_boxes"], found.pred_boxes, 1e-10, "boxes")
    for key, value in parts.items():
        assert abs(value - float(found.loss_dict[f"loss_{key}"])) <= 1e-10, key
    assert abs(loss - float(found.loss)) <= 1e-10 * loss
    expected = to_official({name: p.grad.numpy() for name, p in theirs.named_parameters() if p.grad is not None})
    frozen = ("backbone.0.body.conv1", "backbone.0.body.layer1")
    expected = {name: gradient for name, gradient in expected.items() if not name.startswith(frozen)}
    assert tape.gradients().keys() <= expected.keys()
    largest = max(np.abs(gradient).max() for gradient in expected.values())
    for name, gradient in tape.gradients().items():
        assert_close(gradient, expected[name], 1e-10, name, 1e-4 * largest)


def test_hugging_faces_saved_files_are_read(torch, tmp_path):
    """What save_pretrained writes has yet other names."""
    theirs = hugging_faces(torch)
    theirs.save_pretrained(tmp_path)
    ours = DETR(CLASSES, QUERIES, "resnet50", dropout=0.0, **SIZES)
    nv.weights.load_pretrained(ours, tmp_path / "model.safetensors")
    images, mask = padded_batch()
    images = images.astype(np.float32)
    with torch.no_grad():
        found = theirs(torch.from_numpy(images), torch.from_numpy((~mask).astype(np.int64)))
    assert_close(ours((images, mask))["pred_logits"], found.logits, 1e-4, "logits")


@pytest.mark.parametrize("shape", [(64, 96), (799, 333), (795, 1066), (100, 130)])
@pytest.mark.parametrize("size", [(25, 34), (2, 3), (25, 11), (13, 17)])
def test_the_mask_is_resized_as_pytorch_does(torch, shape, size):
    from numpyvit.models.detr import resize_mask

    mask = np.random.default_rng(0).random((2, *shape)) < 0.5
    expected = torch.nn.functional.interpolate(torch.from_numpy(mask)[None].float(), size=size)[0].bool()
    assert np.array_equal(resize_mask(mask, size), expected.numpy())


@pytest.mark.parametrize("masked", [False, True])
def test_attention_equals_pytorchs(torch, masked):
    theirs = randomized(torch, torch.nn.MultiheadAttention(16, 4, batch_first=True)).double()
    ours = nv.layers.MultiheadAttention(16, 4, dtype="float64")
    ours.load_state_dict(arrays_of(theirs))
    rng = np.random.default_rng(0)
    q, k, v, dy = (rng.standard_normal((2, n, 16)) for n in (3, 5, 5, 3))
    padding, order = np.array([[False] * 5, [False, False, True, True, False]]), np.triu(np.ones((3, 5), bool), 2)
    masks = dict(key_padding_mask=padding, attn_mask=order) if masked else {}
    tape = nv.Tape(ours)
    y = ours.forward(q, k, v, tape, **masks)
    gradients = ours.backward(dy, tape)
    inputs = [torch.from_numpy(x).requires_grad_() for x in (q, k, v)]
    expected, _ = theirs(*inputs, **{name: torch.from_numpy(mask) for name, mask in masks.items()})
    expected.backward(torch.from_numpy(dy))
    assert_close(y, expected, 1e-10, "output")
    for found, x in zip(gradients, inputs):
        assert_close(found, x.grad, 1e-10, "input")
    compare_gradients(tape, theirs, 1e-10)


def test_the_gradient_of_giou_equals_pytorchs_also_at_equal_sides(torch):
    import torch_detr

    rng = np.random.default_rng(0)
    low, size = rng.uniform(0, 0.5, (50, 2)), rng.uniform(0.1, 0.5, (50, 2))
    a = np.concatenate([low, low + size], -1)
    b = a + rng.uniform(-0.05, 0.05, a.shape) * (rng.random(a.shape) < 0.5)  # half of the sides are equal
    x = torch.from_numpy(a).requires_grad_()
    expected = torch_detr.generalized_iou(x, torch.from_numpy(b)).diagonal()
    expected.sum().backward()
    assert_close(nv.functional.generalized_iou(a, b), expected, 1e-12, "value")
    assert_close(nv.functional.generalized_iou_backward(np.ones(50), a, b), x.grad, 1e-12, "gradient")
