"""Live comparison of Swin with timm, torchvision and transformers: their own random weights, forward and backward."""

import importlib.util

import numpy as np
import pytest

import numpyvit as nv
from numpyvit.weights.swin import resize_table, to_timm

_NEEDED = ("torch", "torchvision", "timm", "transformers")
pytestmark = [
    pytest.mark.parity,
    pytest.mark.filterwarnings("ignore"),  # theirs, not ours
    pytest.mark.skipif(any(importlib.util.find_spec(n) is None for n in _NEEDED), reason=f"needs {', '.join(_NEEDED)}"),
]


def arrays_of(module):
    return {name: tensor.detach().numpy() for name, tensor in module.state_dict().items()}


def randomized(module):
    """With values in every parameter that show: biases are 0 and norms 1 at first, position biases small."""
    import torch

    with torch.no_grad():
        for name, parameter in module.named_parameters():
            if parameter.ndim == 1 or "bias_table" in name:
                parameter.add_(torch.randn_like(parameter) * 0.3)
    return module.eval()


def off(a, b):
    return float(np.abs(a - b).max() / max(np.abs(b).max(), 1e-30))


def compare(ours, theirs, x, rename=lambda gradients: gradients, logits_of=lambda y: y):
    """Logits, the gradient of the images and that of every parameter, in float64, to 1e-10 of the largest value."""
    import torch

    theirs.zero_grad()
    images = torch.from_numpy(x).requires_grad_()
    y_theirs = logits_of(theirs.double()(images))
    dy = np.random.default_rng(1).standard_normal(y_theirs.shape)
    y_theirs.backward(torch.from_numpy(dy))
    tape = nv.Tape(ours)
    assert off(ours.forward(x, tape), y_theirs.detach().numpy()) <= 1e-10
    assert off(ours.backward(dy, tape), images.grad.numpy()) <= 1e-10
    expected = rename({name: parameter.grad.numpy() for name, parameter in theirs.named_parameters()})
    assert expected.keys() == tape.gradients().keys()
    largest = max(np.abs(gradient).max() for gradient in expected.values())
    for name, gradient in tape.gradients().items():
        scale = max(np.abs(expected[name]).max(), 1e-4 * largest)  # a key's bias has exactly 0
        assert np.abs(gradient - expected[name]).max() <= 1e-10 * scale, name


SMALL = dict(img_size=56, num_classes=7, embed_dim=24, depths=(2, 2, 2), num_heads=(2, 3, 4), drop_path_rate=0.0)
OPTIONS = {
    "shifted": {},
    "without_classes": dict(num_classes=0),
    "non_square": dict(img_size=(56, 84)),
    "other_window": dict(window_size=3),
    "window_of_two_sides": dict(window_size=(7, 2)),
    "window_for_each_stage": dict(window_size=((7, 5), (7, 7), (3, 4))),
    "padded": dict(window_size=4),
    "padded_non_square": dict(img_size=(60, 92), window_size=5),
    "odd_grids": dict(img_size=(52, 68), patch_size=4),
    "window_that_shrinks": dict(window_size=10),
    "window_that_shrinks_along_one_axis": dict(img_size=(40, 88), window_size=10),
    "always_partition": dict(window_size=10, always_partition=True),
    "head_dim": dict(head_dim=5),
    "mlp_ratio_for_each_stage": dict(mlp_ratio=(2.0, 3.0, 1.5)),
    "without_qkv_bias": dict(qkv_bias=False),
    "patch_2": dict(patch_size=2, img_size=28),
    "one_channel": dict(in_chans=1),
    "depth_of_one_stage": dict(depths=(3,), num_heads=(3,)),
}


@pytest.mark.parametrize("name", OPTIONS)
def test_options_equal_timms_forward_and_backward(torch, name):
    from timm.models.swin_transformer import SwinTransformer

    options = {**SMALL, **OPTIONS[name]}
    theirs = randomized(SwinTransformer(**options))
    ours = nv.SwinTransformer(**options, dtype="float64")
    ours.load_state_dict(arrays_of(theirs))
    size = np.broadcast_to(options["img_size"], 2)
    x = np.random.default_rng(0).standard_normal((2, options.get("in_chans", 3), *size))
    compare(ours, theirs, x)


@pytest.mark.parametrize("size", [(56, 56), (64, 48), (44, 100)])
def test_images_of_another_size_than_the_models_equal_timms(torch, size):
    from timm.models.swin_transformer import SwinTransformer

    options = {**SMALL, "window_size": 5}
    theirs = randomized(SwinTransformer(**options, strict_img_size=False))
    x = np.random.default_rng(0).standard_normal((2, 3, *size))
    for option in (dict(strict_img_size=False), dict(dynamic_img_size=True)):
        ours = nv.SwinTransformer(**options, **option, dtype="float64")
        ours.load_state_dict(arrays_of(theirs))
        compare(ours, theirs, x)


@pytest.mark.parametrize("options", [{}, dict(img_size=(60, 92), window_size=5)], ids=str)
def test_the_pyramid_equals_timms_features_only_with_a_gradient_at_every_stage(torch, options):
    import timm

    options = {**SMALL, **options}
    theirs = randomized(timm.create_model("swin_tiny_patch4_window7_224", features_only=True, **options)).double()
    ours = nv.SwinTransformer(**options, dtype="float64")
    renamed = {name.replace("layers_", "layers."): array for name, array in arrays_of(theirs).items()}
    ours.load_state_dict(renamed, strict=False)
    x = np.random.default_rng(0).standard_normal((2, 3, *np.broadcast_to(options["img_size"], 2)))
    images, tape = torch.from_numpy(x).requires_grad_(), nv.Tape(ours)
    expected, found = theirs(images), ours.pyramid(x, tape)
    dlevels = [np.random.default_rng(i).standard_normal(level.shape) for i, level in enumerate(found)]
    for level, theirs_level in zip(found, expected, strict=True):
        assert off(level, theirs_level.detach().numpy().transpose(0, 3, 1, 2)) <= 1e-10
    torch.autograd.backward(expected, [torch.from_numpy(d.transpose(0, 2, 3, 1).copy()) for d in dlevels])
    assert off(ours.pyramid_backward(dlevels, tape), images.grad.numpy()) <= 1e-10
    gradients = {n.replace("layers_", "layers."): p.grad.numpy() for n, p in theirs.named_parameters()}
    assert set(gradients) == {name for name in tape.gradients() if not name.startswith(("norm.", "head."))}
    largest = max(np.abs(gradient).max() for gradient in gradients.values())
    for name, gradient in gradients.items():
        scale = max(np.abs(gradient).max(), 1e-4 * largest)  # a key's bias has exactly 0
        assert np.abs(tape.gradients()[name] - gradient).max() <= 1e-10 * scale, name


# ---- weights of other libraries -------------------------------------------------------------------------------------


def torchvisions(torch, img_size, window):
    import torchvision

    model = torchvision.models.SwinTransformer([4, 4], 24, [2, 2, 2], [2, 3, 4], [window] * 2, num_classes=7)
    return randomized(model)


def hugging_faces(torch, img_size, window):
    import transformers

    config = transformers.SwinConfig(
        image_size=img_size, embed_dim=24, depths=[2, 2, 2], num_heads=[2, 3, 4], window_size=window, num_labels=7
    )
    return randomized(transformers.SwinForImageClassification(config))


def microsofts_names(arrays):
    """timm's names as Microsoft has them: mergings end a stage, the head is bare, and buffers are saved."""
    renamed = {}
    for name, array in arrays.items():
        head, _, rest = name.partition(".downsample.")
        if rest:
            name = f"layers.{int(head.split('.')[1]) - 1}.downsample.{rest}"
        renamed[name.replace("head.fc.", "head.")] = array
        if name.endswith("relative_position_bias_table"):
            renamed[name.replace("bias_table", "index")] = np.zeros((49, 49), np.int64)
            renamed[name.replace("attn.relative_position_bias_table", "attn_mask")] = np.zeros((4, 49, 49), np.float32)
    return renamed


_SIZES = [(112, 7), ((128, 192), 4), (56, 3), (64, 3), ((72, 88), 4), ((52, 84), 3)]


@pytest.mark.parametrize(
    "make, img_size, window",
    [(make, *size) for make in (torchvisions, hugging_faces) for size in _SIZES]
    # Hugging Face unshifts both axes where one is a single window, and its table does not fit a window that shrinks
    + [(torchvisions, size, window) for size, window in (((112, 168), 7), (56, 7), ((68, 52), 5))],
)
def test_their_files_give_torchvisions_and_hugging_faces_results(torch, tmp_path, make, img_size, window):
    """Also where windows do not divide the maps: both pad before the shift."""
    theirs = make(torch, img_size, window)
    torch.save(theirs.state_dict(), tmp_path / "w.pth")
    arrays, _, origin = nv.weights.read_checkpoint(tmp_path / "w.pth")
    options = {**SMALL, "img_size": img_size, "window_size": window, "pad_first": True}
    ours = nv.SwinTransformer(**options, dtype="float64")
    assert origin == "swin"
    ours.load_state_dict(arrays)
    x = np.random.default_rng(0).standard_normal((2, 3, *np.broadcast_to(img_size, 2)))
    compare(ours, theirs, x, to_timm, lambda y: getattr(y, "logits", y))


def test_hugging_faces_saved_files_have_yet_other_names(torch, tmp_path):
    theirs = hugging_faces(torch, 56, 7)
    theirs.save_pretrained(tmp_path)
    arrays, _, origin = nv.weights.read_checkpoint(tmp_path / "model.safetensors")
    expected = to_timm(arrays_of(theirs))
    assert origin == "swin" and arrays.keys() == expected.keys()
    assert all(np.array_equal(arrays[name], expected[name]) for name in expected)


def test_microsofts_files_are_timms_under_other_names(torch, tmp_path):
    import timm

    theirs = timm.create_model("swin_tiny_patch4_window7_224", num_classes=7)
    arrays = arrays_of(theirs)
    official = {name: torch.from_numpy(array.copy()) for name, array in microsofts_names(arrays).items()}
    torch.save({"model": official}, tmp_path / "w.pth")
    found, _, origin = nv.weights.read_checkpoint(tmp_path / "w.pth")
    assert origin == "swin" and found.keys() == arrays.keys()
    assert all(np.array_equal(found[name], arrays[name]) for name in arrays)
    filtered = timm.models.swin_transformer.checkpoint_filter_fn({"model": official}, theirs)
    assert filtered.keys() == found.keys()


@pytest.mark.parametrize("window", [4, (5, 9), 12])
def test_another_window_resizes_the_table_as_microsofts_code_does(torch, window):
    table = torch.randn(13 * 13, 3, dtype=torch.float64)
    h, w = np.broadcast_to(window, 2)
    size = (2 * int(h) - 1, 2 * int(w) - 1)
    grid = table.T.reshape(1, 3, 13, 13)
    expected = torch.nn.functional.interpolate(grid, size=size, mode="bicubic").reshape(3, -1).T.numpy()
    assert off(resize_table(table.numpy(), (int(h), int(w))), expected) <= 1e-12


# ---- presets and training -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [n for n in nv.list_models("swin*") if "_224" in n or "_384" in n])
def test_presets_equal_timms_in_float32(torch, tmp_path, name):
    import timm

    theirs = timm.create_model(name).eval()
    np.savez(tmp_path / "w.npz", **arrays_of(theirs))
    ours = nv.create_model(name, pretrained=tmp_path / "w.npz")
    assert ours.state_dict().keys() == theirs.state_dict().keys()
    x = np.random.default_rng(0).standard_normal((1, 3, *ours.patch_embed.img_size)).astype(np.float32)
    with torch.no_grad():
        assert np.abs(ours(x) - theirs(torch.from_numpy(x)).numpy()).max() <= 1e-5


def test_the_preparation_of_images_is_timms(torch):
    import timm

    for name in nv.list_models("swin*_224") + nv.list_models("swin*_384"):
        expected, cfg = (
            timm.data.resolve_data_config(model=timm.create_model(name)),
            nv.create_model(name).pretrained_cfg,
        )
        for key in ("mean", "std", "crop_pct", "interpolation"):
            assert cfg[key] == expected[key], (name, key)


def test_ten_steps_of_training_equal_timms(torch):
    from timm.models.swin_transformer import SwinTransformer

    theirs = SwinTransformer(**SMALL).train()
    ours = nv.SwinTransformer(**SMALL)
    ours.load_state_dict(arrays_of(theirs))
    unchanged = theirs.no_weight_decay()
    decayed = [p for n, p in theirs.named_parameters() if p.ndim > 1 and n not in unchanged]
    others = [p for n, p in theirs.named_parameters() if p.ndim <= 1 or n in unchanged]
    groups = [{"params": decayed, "weight_decay": 0.05}, {"params": others, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=1e-4)
    step = nv.TrainStep(ours, nv.optim.AdamW(ours, lr=1e-4, weight_decay=0.05))
    rng = np.random.default_rng(0)
    x, labels = rng.standard_normal((8, 3, 56, 56)).astype(np.float32), rng.integers(0, 7, 8)
    for _ in range(10):
        optimizer.zero_grad()
        expected = torch.nn.functional.cross_entropy(theirs(torch.from_numpy(x)), torch.from_numpy(labels))
        expected.backward()
        optimizer.step()
        assert abs(float(step(x, labels)) - expected.item()) <= 1e-5
