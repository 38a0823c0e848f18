"""Swin: windows, shifts, masks, position bias, merging, the model and its weights."""

import warnings

import numpy as np
import pytest

import numpyvit as nv
from numpyvit import functional as F
from numpyvit.errors import CheckpointError, ConfigError, ShapeError
from numpyvit.layers import PatchMerging, SwinBlock, WindowAttention
from numpyvit.models import count_parameters
from numpyvit.testing import randomize
from numpyvit.weights.swin import resize_table, to_timm

TINY = dict(img_size=16, patch_size=2, in_chans=2, num_classes=3, embed_dim=8, depths=(2, 2), num_heads=(2, 4))
TINY |= dict(window_size=4, mlp_ratio=2.0)


def tiny(**options):
    return nv.SwinTransformer(**{**TINY, **options})


# ---- windows --------------------------------------------------------------------------------------------------------


def test_windows_hold_their_tokens_row_by_row():
    x = np.arange(4 * 6).reshape(1, 4, 6, 1)
    windows = F.to_windows(x, (2, 3))[..., 0]
    assert windows.tolist() == [
        [0, 1, 2, 6, 7, 8],
        [3, 4, 5, 9, 10, 11],
        [12, 13, 14, 18, 19, 20],
        [15, 16, 17, 21, 22, 23],
    ]


def test_a_shift_brings_the_upper_left_tokens_to_the_lower_right():
    x = np.arange(16).reshape(1, 4, 4, 1)
    windows = F.to_windows(x, (2, 2), (1, 1))[..., 0]
    assert windows.tolist() == [[5, 6, 9, 10], [7, 4, 11, 8], [13, 14, 1, 2], [15, 12, 3, 0]]


@pytest.mark.parametrize("window", [(2, 3), (3, 3), (4, 5), (7, 7), (1, 1)])
@pytest.mark.parametrize("shift", [(0, 0), (1, 2), (0, 1)])
@pytest.mark.parametrize("pad_first", [False, True])
def test_from_windows_is_the_inverse_of_to_windows_and_its_adjoint(rng, window, shift, pad_first):
    x = rng.standard_normal((2, 4, 6, 3))
    windows = F.to_windows(x, window, shift, pad_first)
    assert np.array_equal(F.from_windows(windows, window, shift, (4, 6), pad_first), x)
    dy = rng.standard_normal(windows.shape)
    adjoint = F.from_windows(dy, window, shift, (4, 6), pad_first)
    np.testing.assert_allclose((windows * dy).sum(), (x * adjoint).sum())


def test_padding_is_zero_and_lies_behind_the_shifted_map_or_before_the_shift():
    x = np.arange(1, 4).reshape(1, 1, 3, 1)
    assert F.to_windows(x, (1, 4), (0, 1))[..., 0].tolist() == [[2, 3, 1, 0]]
    assert F.to_windows(x, (1, 4), (0, 1), pad_first=True)[..., 0].tolist() == [[2, 3, 0, 1]]


@pytest.mark.parametrize(
    "size, window, shift", [((4, 6), (2, 3), (1, 1)), ((5, 4), (4, 4), (2, 0)), ((8, 8), (4, 4), (2, 1))]
)
def test_the_mask_parts_what_the_shift_brought_from_the_other_side(size, window, shift):
    """Two tokens of a shifted window may look at each other where their unshifted places are as far apart as there."""
    H, W = F.windows.padded_size(size, window)
    place = np.stack(np.meshgrid(np.arange(H), np.arange(W), indexing="ij"), -1)[None]
    windows = F.to_windows(place, window, shift)  # n, N, 2: where each token came from
    near = (np.abs(windows[:, :, None] - windows[:, None]) < window).all(-1)
    mask = F.shift_mask(size, window, shift)
    assert mask.shape == (*near.shape[:1], 1, *near.shape[1:])
    assert np.array_equal(mask[:, 0], np.where(near, 0, -100))
    assert F.shift_mask(size, window, (0, 0)) is None


@pytest.mark.parametrize("window", [(1, 1), (2, 3), (4, 4)])
def test_the_position_bias_is_looked_up_by_distance_and_its_gradient_adds_up_there(rng, window):
    h, w = window
    table = rng.standard_normal(((2 * h - 1) * (2 * w - 1), 3))
    rows, columns = map(F.relative_positions, window)
    places = [(i, j) for i in range(h) for j in range(w)]
    index = np.array([[(i - k + h - 1) * (2 * w - 1) + j - m + w - 1 for k, m in places] for i, j in places])
    assert np.array_equal(F.relative_bias(table, rows, columns), table[index].transpose(2, 0, 1))
    dbias, expected = rng.standard_normal((3, h * w, h * w)), np.zeros_like(table)
    np.add.at(expected, index, dbias.transpose(1, 2, 0))
    np.testing.assert_allclose(F.relative_bias_backward(dbias, rows, columns), expected, atol=1e-12)


def test_patches_merge_column_by_column(rng):
    x = rng.standard_normal((2, 4, 6, 3))
    expected = np.concatenate([x[:, i::2, j::2] for j in (0, 1) for i in (0, 1)], axis=-1)
    assert np.array_equal(F.merge_patches(x), expected)
    assert np.array_equal(F.merge_patches_backward(expected, (4, 6)), x)
    odd = F.merge_patches(x[:, :3, :5])
    assert odd.shape == (2, 2, 3, 12) and not odd[:, -1, :, 3:6].any() and not odd[:, :, -1, 6:].any()
    assert np.array_equal(F.merge_patches_backward(odd, (3, 5)), x[:, :3, :5])


# ---- layers ---------------------------------------------------------------------------------------------------------


def seen(block, token, size=(8, 8)):
    """Which tokens of the output change with one token of the input."""
    x = np.random.default_rng(0).standard_normal((1, *size, 8))
    changed = x.copy()
    changed[0][token][0] += 1
    return np.abs(block(changed) - block(x)).max(-1)[0] > 1e-9


def test_a_token_is_seen_in_its_window_alone():
    block = randomize(SwinBlock(8, 8, 2, window_size=4, dtype="float64"))
    expected = np.zeros((8, 8), bool)
    expected[4:, :4] = True
    assert np.array_equal(seen(block, (5, 1)), expected)


def test_a_shifted_window_reaches_across_the_borders_and_not_around_the_map():
    block = randomize(SwinBlock(8, 8, 2, window_size=4, shift_size=2, dtype="float64"))
    middle, corner = np.zeros((2, 8, 8), bool)
    middle[2:6, 2:6] = True
    corner[:2, :2] = True  # its window holds all four corners of the map
    assert np.array_equal(seen(block, (4, 3)), middle)
    assert np.array_equal(seen(block, (0, 1)), corner)


def test_attention_is_the_formula(rng):
    layer = randomize(WindowAttention(6, 2, window_size=2, dtype="float64"))
    x, (q, k, v) = rng.standard_normal((3, 4, 6)), np.zeros((3, 3, 2, 4, 3))
    packed = x @ layer.qkv.weight.data.T + layer.qkv.bias.data
    for part, target in enumerate((q, k, v)):
        for head in range(2):
            target[:, head] = packed[..., 6 * part + 3 * head : 6 * part + 3 * head + 3]
    table, places = layer.relative_position_bias_table.data, [(0, 0), (0, 1), (1, 0), (1, 1)]
    bias = np.array([[table[(i - k + 1) * 3 + j - m + 1] for k, m in places] for i, j in places]).transpose(2, 0, 1)
    out = F.softmax(q @ k.swapaxes(-1, -2) / np.sqrt(3) + bias) @ v
    expected = out.transpose(0, 2, 1, 3).reshape(3, 4, 6) @ layer.proj.weight.data.T + layer.proj.bias.data
    np.testing.assert_allclose(layer(x), expected, atol=1e-12)


def test_windows_shrink_to_the_map_and_one_window_is_not_shifted():
    sizes = {
        (8, 12): ((7, 7), (3, 3)),
        (7, 12): ((7, 7), (0, 3)),
        (5, 12): ((5, 7), (0, 3)),
        (4, 4): ((4, 4), (0, 0)),
    }
    for resolution, (window, shift) in sizes.items():
        block = SwinBlock(8, resolution, 2, window_size=7, shift_size=3)
        assert (block.window_size, block.shift_size) == (window, shift)
        whole = SwinBlock(8, resolution, 2, window_size=7, shift_size=3, always_partition=True)
        assert (whole.window_size, whole.shift_size) == ((7, 7), (3, 3))
        padded = SwinBlock(8, resolution, 2, window_size=7, shift_size=3, pad_first=True)
        assert (padded.window_size, padded.shift_size) == ((7, 7), shift)


def test_the_probabilities_of_all_windows_can_be_read_from_the_tape(rng):
    """One row of them, put back on the map, tells what one token looks at."""
    block = SwinBlock(8, 8, 2, window_size=4, shift_size=2, dtype="float64")
    tape = nv.Tape(block, record_all=True)
    block.forward(rng.standard_normal((1, 8, 8, 8)), tape)
    (p,) = (layer.probabilities(kept) for layer, kept in tape.residuals() if isinstance(layer, WindowAttention))
    assert p.shape == (4, 2, 16, 16)
    np.testing.assert_allclose(p.sum(-1), 1)
    row = np.where(np.arange(4)[:, None] == 0, p[:, 0, 5], 0)[..., None]  # the first window's sixth token, head 0
    on_map = F.from_windows(row, block.window_size, block.shift_size, (8, 8))[0, ..., 0]
    assert (on_map[2:6, 2:6] > 0).all() and on_map.sum() == pytest.approx(1)


@pytest.mark.parametrize(
    "layer, x, message",
    [
        (WindowAttention(8, 2, window_size=2), (3, 5, 8), r"expected \(windows, 4, 8\)"),
        (SwinBlock(8, 4, 2, window_size=2), (3, 16, 8), r"expected \(batch, rows, columns, 8\)"),
        (SwinBlock(8, 4, 2, window_size=2), (3, 4, 4, 9), r"expected \(..., 8\)"),
        (PatchMerging(8), (3, 16, 8), r"expected \(batch, rows, columns, 8\)"),
    ],
)
def test_arrays_of_the_wrong_shape_are_refused(layer, x, message):
    with pytest.raises(ShapeError, match=message):
        layer(np.zeros(x, np.float32))


def test_merged_patches_have_twice_the_channels_unless_told(rng):
    x = rng.standard_normal((2, 4, 4, 8))
    assert PatchMerging(8)(x).shape == (2, 2, 2, 16) and PatchMerging(8, 5)(x).shape == (2, 2, 2, 5)


# ---- the model ------------------------------------------------------------------------------------------------------

PUBLISHED = {
    "swin_tiny_patch4_window7_224": 28_288_354,
    "swin_small_patch4_window7_224": 49_606_258,
    "swin_base_patch4_window7_224": 87_768_224,
    "swin_base_patch4_window12_384": 87_903_584,
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_presets_have_the_published_number_of_parameters(name):
    assert count_parameters(name) == PUBLISHED[name]


def test_the_small_presets_have_about_half_a_million_and_seven_million_parameters():
    assert count_parameters("swin_micro_patch2_window4_32") == 460_572
    assert count_parameters("swin_mini_patch2_window4_32") == 7_048_612


def test_names_and_shapes_are_timms():
    shapes = {name: array.shape for name, array in tiny(img_size=8, depths=(1, 1)).state_dict().items()}
    block = {
        "norm1.weight": (8,), "norm1.bias": (8,), "attn.relative_position_bias_table": (49, 2),
        "attn.qkv.weight": (24, 8), "attn.qkv.bias": (24,), "attn.proj.weight": (8, 8), "attn.proj.bias": (8,),
        "norm2.weight": (8,), "norm2.bias": (8,), "mlp.fc1.weight": (16, 8), "mlp.fc1.bias": (16,),
        "mlp.fc2.weight": (8, 16), "mlp.fc2.bias": (8,),
    }  # fmt: skip
    first = {name: shape for name, shape in shapes.items() if name.startswith("layers.0.")}
    assert first == {f"layers.0.blocks.0.{name}": shape for name, shape in block.items()}
    rest = {name: shape for name, shape in shapes.items() if not name.startswith(("layers.0.", "layers.1.blocks"))}
    assert rest == {
        "patch_embed.proj.weight": (8, 2, 2, 2), "patch_embed.proj.bias": (8,),
        "patch_embed.norm.weight": (8,), "patch_embed.norm.bias": (8,),
        "layers.1.downsample.norm.weight": (32,), "layers.1.downsample.norm.bias": (32,),
        "layers.1.downsample.reduction.weight": (16, 32),
        "norm.weight": (16,), "norm.bias": (16,), "head.fc.weight": (3, 16), "head.fc.bias": (3,),
    }  # fmt: skip
    assert shapes["layers.1.blocks.0.attn.relative_position_bias_table"] == (9, 4)  # its map has 2×2 tokens


def test_defaults_are_timms():
    model = nv.SwinTransformer(num_classes=0)
    assert [len(stage.blocks) for stage in model.layers] == [2, 2, 6, 2]
    assert model.num_features == 768 and model.patch_embed.grid_size == (56, 56)
    assert all(layer.eps == 1e-5 for _, layer in model.named_layers() if isinstance(layer, nv.layers.LayerNorm))
    rates = [block.drop_path2.p for stage in model.layers for block in stage.blocks]
    np.testing.assert_allclose(rates, np.linspace(0, 0.1, 12))
    shifts = [[block.shift_size for block in stage.blocks] for stage in model.layers]
    assert shifts == [[(0, 0), (3, 3)]] * 2 + [[(0, 0), (3, 3)] * 3] + [[(0, 0), (0, 0)]]
    tables = [p for name, p in model.named_parameters() if name.endswith("bias_table")]
    assert not any(table.decay for table in tables)
    values = np.concatenate([table.data.reshape(-1) for table in tables])
    assert abs(values.std() - 0.02) < 5e-4 and abs(values.mean()) < 1e-3


def test_options_reach_every_block():
    def blocks(**options):
        model = tiny(depths=(1, 2), **options)
        return [block for stage in model.layers for block in stage.blocks]

    assert [block.window_size for block in blocks(window_size=((2, 4), 3))] == [(2, 4), (3, 3), (3, 3)]
    assert blocks(window_size=(4, 2))[2].shift_size == (0, 1)  # half the window, along an axis of more than one
    assert all(block.window_size == (9, 9) for block in blocks(window_size=9, always_partition=True))
    assert all(block.window_size == (9, 9) and block.pad_first for block in blocks(window_size=9, pad_first=True))
    assert all(block.attn.qkv.bias is None for block in blocks(qkv_bias=False))
    assert [block.mlp.fc1.weight.data.shape[0] for block in blocks(mlp_ratio=(1.5, 3))] == [12, 48, 48]
    assert [block.attn.qkv.weight.data.shape[0] for block in blocks(head_dim=(3, 5))] == [18, 60, 60]
    for block in blocks(drop_rate=0.1, proj_drop_rate=0.2, attn_drop_rate=0.3):
        drops = (block.attn.attn_drop, block.attn.proj_drop, block.mlp.drop1, block.mlp.drop2)
        assert [drop.p for drop in drops] == [0.3, 0.2, 0.2, 0.2]
    assert tiny(drop_rate=0.1).head.drop.p == 0.1


def test_the_narrow_presets_start_with_matrices_of_deviation_one_over_the_root_of_their_inputs():
    model = nv.create_model("swin_mini_patch2_window4_32")
    for name in ("layers.0.blocks.0.attn.qkv", "layers.1.blocks.2.mlp.fc2", "layers.2.downsample.reduction"):
        weight = model.state_dict()[f"{name}.weight"]
        assert weight.std() * np.sqrt(weight.shape[1]) == pytest.approx(1, rel=0.03)


def test_images_of_any_size_that_the_patches_divide_are_taken_at_build_time_and_in_the_call(rng):
    for size in ((16, 16), (10, 14), (2, 30)):
        x = rng.standard_normal((2, 2, *size)).astype(np.float32)
        assert tiny(img_size=size)(x).shape == (2, 3)
        assert tiny(dynamic_img_size=True)(x).shape == (2, 3)
        assert tiny(strict_img_size=False)(x).shape == (2, 3)
        if size != (16, 16):
            with pytest.raises(ShapeError, match=r"expected \(batch, 2, 16, 16\)"):
                tiny()(x)


def test_features_are_the_last_map_and_have_a_backward(rng):
    model, x = randomize(tiny(dtype="float64", img_size=32)), rng.standard_normal((2, 2, 32, 32))
    tape, whole = nv.Tape(model), nv.Tape(model)
    features = model.features(x, tape)
    assert features.shape == (2, 8, 8, 16)
    np.testing.assert_allclose(model.head(model.norm(features)), model.forward(x, whole))
    dy = rng.standard_normal((2, 3))
    dx = model.backward(dy, whole)
    head = nv.Tape(model)
    model.head.forward(model.norm.forward(features, head), head)
    dfeatures = model.norm.backward(model.head.backward(dy, head), head)
    np.testing.assert_allclose(model.features_backward(dfeatures, tape), dx)
    assert tape.pending == 0
    np.testing.assert_allclose(tape.flat + head.flat, whole.flat, atol=1e-14)


def test_the_pyramid_halves_the_map_and_doubles_the_width(rng):
    model = nv.create_model("swin_micro_patch2_window4_32", dtype="float64")
    x = rng.standard_normal((2, 3, 32, 32))
    assert [level.shape for level in model.forward_intermediates(x)] == [(2, 32, 16, 16), (2, 64, 8, 8), (2, 128, 4, 4)]
    first, last = model.forward_intermediates(x, [0, -1], norm=True)
    assert first.shape == (2, 32, 16, 16)
    np.testing.assert_allclose(last, model.forward_features(x).transpose(0, 3, 1, 2))
    np.testing.assert_allclose(model.head(model.forward_features(x)), model(x))
    with pytest.raises(ConfigError, match=r"stages 0\.\.2"):
        model.forward_intermediates(x, [3])


def test_every_parameter_is_trained(rng):
    model, x = tiny(dtype="float64", img_size=32), rng.standard_normal((4, 2, 32, 32))
    tape = nv.Tape(model)
    model.backward(rng.standard_normal(model.forward(x, tape).shape), tape)
    assert all(np.abs(gradient).max() > 0 for gradient in tape.gradients().values())


@pytest.mark.parametrize(
    "patterns, trained",
    [
        (["patch_embed*", "layers*", "norm*"], ["head"]),
        (["patch_embed*", "layers.0.*"], ["layers.1", "layers.1.downsample", "layers.1.blocks.0", "norm", "head"]),
        (["patch_embed*", "layers.0.*", "layers.1.downsample*"], ["layers.1", "layers.1.blocks.0", "norm", "head"]),
    ],
)
def test_frozen_stages_keep_nothing_and_the_rest_keeps_its_gradient(rng, patterns, trained):
    model, x = tiny(dtype="float64", depths=(1, 1)), rng.standard_normal((3, 2, 16, 16))
    whole = nv.Tape(model, seed=1)
    y = model.forward(x, whole)
    model.backward(y, whole)
    model.freeze(*patterns)
    tape = nv.Tape(model, seed=1, input_gradient=False)
    assert np.array_equal(model.forward(x, tape), y)
    parts = dict(model.named_layers())
    names = ["layers.0", "layers.1", "layers.1.downsample", "layers.1.blocks.0", "norm", "head"]
    assert [name for name in names if tape.reaches(parts[name])] == trained
    kept = {id(layer) for layer, _ in tape.residuals()}
    assert not any(id(layer) in kept for _, layer in parts["layers.0"].named_layers())
    assert model.backward(y, tape) is None and tape.pending == 0
    for name, gradient in tape.gradients().items():
        assert np.array_equal(gradient, whole.gradients()[name])


def test_recomputation_gives_the_same_gradients_with_fewer_residuals(rng):
    x, found = rng.standard_normal((4, 2, 16, 16)).astype(np.float32), []
    for enable in (False, True):
        model = tiny(depths=(2, 4), proj_drop_rate=0.1, drop_path_rate=0.3)
        model.set_grad_checkpointing(enable)
        tape = nv.Tape(model, seed=1)
        logits = model.forward(x, tape)
        found.append((len(tape.residuals()), logits, model.backward(np.ones_like(logits), tape), tape.flat))
    (many, *expected), (few, *again) = found
    assert few < many / 3
    assert all(np.array_equal(a, b) for a, b in zip(expected, again))


def test_training_is_bit_equal_on_any_number_of_threads_and_learns(rng):
    x = rng.standard_normal((24, 2, 16, 16)).astype(np.float32)
    labels, losses = rng.integers(0, 3, 24), []
    for threads in (1, 2):
        model = tiny(depths=(1, 2), seed=3)
        step = nv.TrainStep(model, nv.optim.AdamW(model, lr=3e-3), threads=threads)
        losses.append([float(step(x, labels)) for _ in range(40)])
    assert losses[0] == losses[1]
    assert losses[0][-1] < losses[0][0] / 2


def test_formulas_and_kernels_agree(rng):
    model, x = nv.create_model("swin_micro_patch2_window4_32"), rng.standard_normal((3, 3, 32, 32)).astype(np.float32)
    fast = model(x)
    with nv.plain():
        np.testing.assert_allclose(model(x), fast, atol=1e-5)


@pytest.mark.parametrize(
    "options, message",
    [
        (dict(num_heads=(2, 3)), "width 16 must be divisible by num_heads=3"),
        (dict(num_heads=(2, 4, 8)), "num_heads must have one value for each of the 2 stages"),
        (dict(window_size=(4, 4, 4)), "window_size must have one value for each of the 2 stages"),
        (dict(window_size=0), "window_size must be a positive int"),
        (dict(depths=()), "depths must be a list"),
        (dict(depths=(2, 0)), "depths must be an int of at least 1"),
        (dict(img_size=15), "divisible by patch_size"),
        (dict(mlp_ratio=0), "at least one hidden unit"),
        (dict(drop_path_rate=1.5), r"0\.\.1"),
    ],
)
def test_bad_options_are_explained(options, message):
    with pytest.raises(ConfigError, match=message):
        tiny(**options)


# ---- weights --------------------------------------------------------------------------------------------------------


def to_microsofts(name):
    head, _, rest = name.partition(".downsample.")
    if rest:
        name = f"layers.{int(head.split('.')[1]) - 1}.downsample.{rest}"
    return name.replace("head.fc.", "head.")


def to_torchvisions(name):
    for old, new in (
        ("patch_embed.proj", "features.0.0"), ("patch_embed.norm", "features.0.2"), ("layers.0.blocks", "features.1"),
        ("layers.1.downsample", "features.2"), ("layers.1.blocks", "features.3"), ("mlp.fc1", "mlp.0"),
        ("mlp.fc2", "mlp.3"), ("head.fc", "head"),
    ):  # fmt: skip
        name = name.replace(old, new)
    return name


def to_hugging_faces(name):
    name = to_microsofts(name).replace("head.", "classifier.")
    for old, new in (
        ("patch_embed.proj", "embeddings.patch_embeddings.projection"), ("patch_embed.norm", "embeddings.norm"),
        ("layers.", "encoder.layers."), ("norm1", "layernorm_before"), ("norm2", "layernorm_after"),
        ("attn.proj", "attention.output.dense"), ("attn.", "attention.self."), ("mlp.fc1", "intermediate.dense"),
        ("mlp.fc2", "output.dense"),
    ):  # fmt: skip
        name = name.replace(old, new)
    name = name.replace("norm.", "layernorm.") if name.startswith("norm.") else name
    return name if name.startswith("classifier") else f"swin.{name}"


@pytest.mark.parametrize("rename", [to_microsofts, to_torchvisions, to_hugging_faces, lambda name: name])
def test_other_libraries_names_become_timms(rename):
    model = randomize(tiny())
    expected, theirs = model.state_dict(), {}
    for name, array in expected.items():
        new = rename(name)
        if ".qkv." in new and rename is to_hugging_faces:
            for part, piece in zip(("query", "key", "value"), np.split(array, 3)):
                theirs[new.replace("qkv", part)] = piece
        else:
            theirs[new] = array
        if name.endswith("bias_table"):
            theirs[new.replace("bias_table", "index")] = np.zeros((16, 16))
            theirs[new.rsplit(".", 2)[0] + ".attn_mask"] = np.zeros((4, 16, 16))
    found = to_timm(theirs)
    assert found.keys() == expected.keys()
    assert all(np.array_equal(found[name], expected[name]) for name in expected)


def test_a_file_without_its_keys_is_refused():
    with pytest.raises(CheckpointError, match=r"attn\.qkv\.weight.*only q, v"):
        to_timm(
            {f"encoder.layers.0.blocks.0.attention.self.{part}.weight": np.ones((2, 2)) for part in ("query", "value")}
        )


def test_a_checkpoint_comes_back_and_is_written_under_timms_names(tmp_path, rng):
    model = nv.create_model("swin_micro_patch2_window4_32", seed=5)
    nv.weights.save_checkpoint(tmp_path / "w.safetensors", model)
    again = nv.create_model("swin_micro_patch2_window4_32", pretrained=tmp_path / "w.safetensors")
    x = rng.standard_normal((2, 3, 32, 32)).astype(np.float32)
    assert np.array_equal(model(x), again(x))
    tensors, _ = nv.weights.load_tensors(tmp_path / "w.safetensors")
    assert tensors.keys() == model.state_dict().keys()


def test_weights_fit_other_windows_image_sizes_channels_and_classes(tmp_path, rng):
    source = nv.create_model("swin_micro_patch2_window4_32", seed=5)
    nv.weights.save_checkpoint(tmp_path / "w.safetensors", source)
    file, table = tmp_path / "w.safetensors", "layers.1.blocks.0.attn.relative_position_bias_table"
    for options, size in (
        (dict(window_size=8), (32, 32)),
        (dict(img_size=(16, 48)), (16, 48)),
        (dict(in_chans=1), (32, 32)),
    ):
        model = nv.create_model("swin_micro_patch2_window4_32", pretrained=file, **options)
        assert np.isfinite(model(rng.standard_normal((1, options.get("in_chans", 3), *size)).astype(np.float32))).all()
    wide = nv.create_model("swin_micro_patch2_window4_32", pretrained=file, window_size=8).state_dict()[table]
    np.testing.assert_allclose(wide, resize_table(source.state_dict()[table], (8, 8)))
    with pytest.warns(nv.weights.Notice, match="head for 10 classes was dropped"):
        model = nv.create_model("swin_micro_patch2_window4_32", pretrained=file, num_classes=4)
    assert np.array_equal(model.state_dict()[table], source.state_dict()[table])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        nv.create_model("swin_micro_patch2_window4_32", pretrained=file, num_classes=0)


def test_a_head_of_a_thousand_classes_has_imagenets_names(tmp_path):
    nv.weights.save_checkpoint(
        tmp_path / "w.safetensors", nv.create_model("swin_micro_patch2_window4_32", num_classes=1000)
    )
    model = nv.create_model("swin_micro_patch2_window4_32", num_classes=1000, pretrained=tmp_path / "w.safetensors")
    assert nv.models.class_names(model)[285] == "Egyptian cat"


def test_a_resized_table_keeps_the_distance_of_zero_in_its_middle():
    table = np.zeros((49, 2))
    table[24] = 1
    wide = resize_table(table, (6, 8)).reshape(11, 15, 2)
    assert np.unravel_index(wide[..., 0].argmax(), (11, 15)) == (5, 7)
    np.testing.assert_allclose(wide, wide[::-1, ::-1])
    assert wide.min() < 0  # a cubic kernel swings below
    assert resize_table(table, (4, 4)) is table
    with pytest.raises(CheckpointError, match="not that of a square window"):
        resize_table(np.zeros((15, 2)), (4, 4))


@pytest.mark.parametrize(
    "options",
    [{}, {"img_size": (32, 64)}, {"window_size": (4, 2)}, {"mlp_ratio": (1, 2, 3)}, {"patch_size": (2, 4)}],
    ids=str,
)
def test_parameters_are_counted_for_every_size(options):
    name = "swin_micro_patch2_window4_32"
    assert nv.models.count_parameters(name, **options) == nv.create_model(name, **options).num_parameters()


def test_lower_blocks_of_all_stages_learn_slower():
    factors = nv.optim.layer_decay(nv.create_model("swin_micro_patch2_window4_32"), 0.5)
    assert factors["patch_embed.proj.weight"] == 0.5**9 and factors["layers.0.blocks.0.norm1.weight"] == 0.5**8
    assert factors["layers.1.downsample.norm.weight"] == factors["layers.1.blocks.0.norm1.bias"] == 0.5**6
    assert factors["layers.2.blocks.1.attn.qkv.weight"] == 0.5 and "head.fc.weight" not in factors
