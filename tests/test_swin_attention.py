"""What Swin looks at: the attention of its windows, stitched together to maps over the image."""

import numpy as np
import pytest
from PIL import Image

import numpyvit as nv
from numpyvit import functional as F
from numpyvit import viz
from numpyvit.cli import main
from numpyvit.errors import ConfigError, NonFiniteError
from numpyvit.layers import SwinBlock
from numpyvit.testing import randomize, stand_in

SIZES = dict(img_size=16, patch_size=2, in_chans=3, num_classes=3, embed_dim=8, depths=(2, 2), num_heads=(2, 4))


def kept_by(block, x):
    """What the block's attention pushed onto the tape in a pass."""
    tape = nv.Tape(block, record_all=True)
    block.forward(x, tape)
    return dict(tape.residuals())[block.attn]


def everywhere(block, x):
    """The same attention without windows: between all tokens of the padded map, with a mask.   (heads, H·W, H·W)"""
    (H, W), (h, w), heads = x.shape[1:3], block.window_size, block.attn.num_heads
    size = np.array([H + -H % h, W + -W % w])
    place = np.stack(np.meshgrid(*map(np.arange, size), indexing="ij"), -1).reshape(-1, 2)
    real = (place < (H, W)).all(-1)
    tokens = np.zeros((len(place), x.shape[3]))
    tokens[real] = block.norm1(x)[0].reshape(H * W, -1)
    rolled = (place - block.shift_size) % (size if block.pad_first else (H, W))
    rolled = rolled if block.pad_first else np.where(real[:, None], rolled, place)
    start = np.where(np.array(block.shift_size) > 0, size - block.shift_size, size)
    group = np.concatenate([rolled // (h, w), rolled >= start], 1)  # the window, and the side it came from
    window = (group[:, None, :2] == group[None, :, :2]).all(-1)
    apart = window & (group[:, None] != group[None]).any(-1)
    table = block.attn.relative_position_bias_table.data
    delta = np.clip(rolled[:, None] - rolled, (1 - h, 1 - w), (h - 1, w - 1)) + (h - 1, w - 1)
    bias = table[delta[..., 0] * (2 * w - 1) + delta[..., 1]].transpose(2, 0, 1)
    q, k, _ = block.attn.qkv(tokens).reshape(len(place), 3, heads, -1).transpose(1, 2, 0, 3)
    scores = q @ k.swapaxes(1, 2) * block.attn.scale + bias + np.where(window, np.where(apart, -100, 0), -np.inf)
    return F.softmax(scores)[:, real][:, :, real]


@pytest.mark.parametrize(
    "size, options",
    [
        ((8, 8), dict(window_size=4)),
        ((8, 8), dict(window_size=4, shift_size=2)),
        ((6, 9), dict(window_size=(2, 3), shift_size=(1, 1))),
        ((7, 6), dict(window_size=4, shift_size=2)),
        ((7, 6), dict(window_size=4, shift_size=2, pad_first=True)),
        ((5, 10), dict(window_size=(4, 3), shift_size=(0, 1))),
        ((3, 3), dict(window_size=4, shift_size=2, always_partition=True)),
    ],
    ids=str,
)
def test_maps_equal_attention_over_the_whole_grid_with_a_mask(rng, size, options):
    block = randomize(SwinBlock(8, size, 2, **options, dtype="float64"), seed=2)
    x = rng.standard_normal((1, *size, 8))
    kept, expected = kept_by(block, x), everywhere(block, x)
    N = np.prod(block.window_size)
    for token in np.ndindex(size):
        row = block.attention_on_map(kept, size, token)[0]
        wanted = expected[:, token[0] * size[1] + token[1]].reshape(2, *size)
        np.testing.assert_allclose(row / N, wanted, atol=1e-12)
        assert not row[wanted == 0].any()  # exactly 0 outside the window
        if not any(side % w for side, w in zip(size, block.window_size)):
            np.testing.assert_allclose(row.sum((1, 2)), N)  # 1 over the window's tokens; padding takes its share
            assert np.count_nonzero(row) == 2 * N
    received = block.attention_on_map(kept, size)[0]
    np.testing.assert_allclose(received, expected.sum(1).reshape(2, *size), atol=1e-12)


def test_every_image_of_a_batch_has_its_maps(rng):
    block, x = (
        randomize(SwinBlock(8, 6, 2, window_size=3, shift_size=1, dtype="float64")),
        rng.standard_normal((3, 6, 6, 8)),
    )
    maps = block.attention_on_map(kept_by(block, x), (6, 6))
    assert maps.shape == (3, 2, 6, 6)
    for image, alone in zip(maps, x):
        np.testing.assert_allclose(image, block.attention_on_map(kept_by(block, alone[None]), (6, 6))[0])


@pytest.mark.parametrize("img_size, window", [((16, 16), 4), ((14, 22), 3)])
def test_the_grids_of_a_model_get_coarser_and_a_patch_stays_where_it_is(rng, img_size, window):
    options = dict(img_size=img_size, window_size=window, pad_first=True, dtype="float64")
    model = randomize(nv.SwinTransformer(**SIZES | options))
    image, sizes = rng.standard_normal((3, *img_size)), {}
    for patch in (None, (0, 0), (6, 7)):
        grids = viz.attention_grids(model, image, patch)
        sizes[patch] = [grid.shape for grid in grids]
        for grid, step in zip(grids, (1, 1, 2, 2)):
            if patch:
                rows, columns = np.nonzero(grid.mean(0) > 1e-30)  # beyond the mask stands e⁻¹⁰⁰
                assert grid[:, patch[0] // step, patch[1] // step].all()  # in its own window
                assert np.ptp(rows) < window and np.ptp(columns) < window
            else:
                assert grid.all() and grid.mean() == pytest.approx(1, abs=0.35)
    H, W = img_size[0] // 2, img_size[1] // 2
    assert sizes[None] == [(2, H, W)] * 2 + [(4, -(-H // 2), -(-W // 2))] * 2
    assert sizes[None] == sizes[0, 0] == sizes[6, 7]


def test_the_maps_are_those_of_the_pass_that_is_recomputed_and_of_images_of_any_size(rng):
    model = nv.SwinTransformer(**SIZES, window_size=4, dynamic_img_size=True, dtype="float64")
    image = rng.standard_normal((3, 12, 20))
    expected = viz.attention_grids(model, image)
    assert [grid.shape for grid in expected] == [(2, 6, 10)] * 2 + [(4, 3, 5)] * 2
    model.set_grad_checkpointing()
    model.freeze("patch_embed*", "layers.0*")
    assert all(map(np.array_equal, viz.attention_grids(model, image), expected))


def test_maps_and_pyramid_are_the_same_on_a_device(rng):
    model = nv.SwinTransformer(**SIZES, window_size=4)
    x = rng.standard_normal((1, 3, 16, 16)).astype(np.float32)
    expected = [*viz.attention_grids(model, x), *viz.attention_grids(model, x, (3, 6))]
    levels, tape = model.pyramid(x), nv.Tape(model)
    dx = model.pyramid_backward(model.pyramid(x, tape), tape)
    model.to(stand_in)
    x, tape = stand_in.asarray(x), nv.Tape(model)
    found = [*viz.attention_grids(model, x), *viz.attention_grids(model, x, (3, 6))]
    found += map(stand_in.asnumpy, model.pyramid(x))
    found.append(stand_in.asnumpy(model.pyramid_backward(model.pyramid(x, tape), tape)))
    for a, b in zip(found, [*expected, *levels, dx], strict=True):
        np.testing.assert_allclose(a, b, atol=1e-4)


def test_bad_patches_and_weights_are_explained(rng):
    model, image = nv.SwinTransformer(**SIZES, window_size=4), rng.standard_normal((3, 16, 16)).astype(np.float32)
    with pytest.raises(ConfigError, match="outside the grid of 8 rows and 8 columns"):
        viz.attention_grids(model, image, (8, 0))
    with pytest.raises(ConfigError, match=r"head 3 .* 0\.\.1"):
        viz.draw_attention_map(model, image, np.zeros((3, 16, 16), np.uint8), "never.png", layer=0, head=3)
    model.layers[0].blocks[0].attn.qkv.weight.data[:] = np.nan
    with pytest.raises(NonFiniteError, match="weights"):
        viz.attention_grids(model, image)


@pytest.fixture(scope="module")
def photo(tmp_path_factory):
    folder = tmp_path_factory.mktemp("swin")
    pixels = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(folder / "photo.png")
    nv.weights.save_checkpoint(folder / "w.safetensors", nv.create_model("swin_micro_patch2_window4_32"))
    return folder / "photo.png"


def attention(photo, *args):
    return main(["attention", *map(str, (photo, "--checkpoint", photo.parent / "w.safetensors", *args))])


def test_the_command_draws_the_sheet_and_single_maps(photo, tmp_path, capsys):
    drawings = set()
    for args in (
        (),
        ("--layer", 1),
        ("--layer", 1, "--head", 1),
        ("--head", 4),
        ("--patch", 3, 9),
        ("--layer", 4, "--patch", 3, 9),
    ):
        assert attention(photo, "--out", tmp_path / "map.png", *args) == 0
        drawings.add((tmp_path / "map.png").read_bytes())
    assert len(drawings) == 6
    with Image.open(tmp_path / "map.png") as sheet:
        assert sheet.size[0] > 800
    for args, message in (
        (("--layer", 9), "--layer 9: the model has 8"),
        (("--layer", 1, "--head", 2), "--head 2: block 1 has 1"),
        (("--patch", 17, 1), "--patch 17 1: the image has 16 rows"),
        (("--class-index", 3), "class token of a ViT alone"),
    ):
        assert attention(photo, "--out", tmp_path / "map.png", *args) == 2
        assert message in capsys.readouterr().err


def test_the_command_writes_the_numbers_that_are_drawn(photo, tmp_path, capsys):
    def written(*args):
        assert attention(photo, "--out", tmp_path / "maps.npy", *args) == 0
        return np.load(tmp_path / "maps.npy")

    assert written("--layer", 1).shape == (1, 16, 16) and written("--layer", 3).shape == (2, 8, 8)
    heads = written("--layer", 8)
    assert heads.shape == (4, 4, 4) and heads.mean() == pytest.approx(1, abs=1e-5)
    assert np.array_equal(written("--head", 2), heads[1])
    row = written("--layer", 2, "--patch", 5, 5)  # of a shifted window
    assert np.array_equal(np.argwhere(row[0])[[0, -1]], [[2, 2], [5, 5]]) and row.sum() == pytest.approx(16, abs=1e-4)
    assert attention(photo, "--out", tmp_path / "maps.npy") == 2
    assert "choose one with --layer" in capsys.readouterr().err
