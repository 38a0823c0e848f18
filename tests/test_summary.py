"""The table of a model's layers: shapes, parameters and multiply-adds as counted by hand."""

import numpy as np
import pytest
from conftest import TINY

import numpyvit as nv
from numpyvit import cli
from numpyvit.errors import ConfigError, ShapeError
from numpyvit.layers import Block, Linear, Sequence
from numpyvit.testing.cases import LAYERS, MODELS


def vit_by_hand(N, prefix, D, depth, patch_values, outputs):
    """Of a ViT with N patches: the embedding, the blocks with q kᵀ and p v, the heads."""
    T = N + prefix
    return N * patch_values * D + depth * (12 * T * D * D + 2 * T * T * D) + D * outputs


def swin_by_hand(side, C, depths, window, outputs):
    """Of a Swin whose windows divide its maps."""
    total = side * side * 48 * C
    for stage, depth in enumerate(depths):
        if stage:
            side, C = side // 2, 2 * C
            total += side * side * 2 * C * C  # the merging: 4 (C/2) values to C
        total += depth * side * side * (12 * C * C + 2 * window * window * C)
    return total + C * outputs


@pytest.mark.parametrize(
    "name, published, by_hand",
    [
        ("vit_tiny_patch16_224", 1.254e9, vit_by_hand(196, 1, 192, 12, 768, 1000)),
        ("deit_tiny_distilled_patch16_224", 1.261e9, vit_by_hand(196, 2, 192, 12, 768, 2000)),
        ("swin_tiny_patch4_window7_224", 4.491e9, swin_by_hand(56, 96, (2, 2, 6, 2), 7, 1000)),
    ],
)
def test_multiply_adds_are_the_published_ones_attention_included(name, published, by_hand):
    model = nv.create_model(name)
    assert model.multiply_adds() == by_hand
    assert by_hand == pytest.approx(published, rel=5e-4)


def test_the_table_lists_layers_with_all_that_is_inside(capsys):
    table = nv.summary(nv.VisionTransformer(**TINY), depth=3)
    rows = {row.name: row for row in table.rows}
    assert rows["patch_embed.proj"].output_shape == (1, 4, 8) and rows["blocks.1"].output_shape == (1, 5, 8)
    assert rows["head"].output_shape == (1, 3) and rows["head"].parameters == 27 and rows["head"].multiply_adds == 24
    assert rows["blocks"].parameters == rows["blocks.0"].parameters + rows["blocks.1"].parameters
    assert rows["blocks.0.attn"].multiply_adds == 4 * 5 * 8 * 8 + 2 * 5 * 5 * 8
    outermost = [row for row in table.rows if row.level == 0]
    assert sum(row.parameters for row in outermost) == table.parameters == nv.VisionTransformer(**TINY).num_parameters()
    assert sum(row.multiply_adds for row in outermost) == table.multiply_adds
    assert "dropout" not in str(table).lower()
    assert len(nv.summary(nv.VisionTransformer(**TINY), depth=1).rows) == len(outermost)


def test_it_prints_in_columns_with_totals():
    model = nv.VisionTransformer(**TINY)
    lines = str(nv.summary(model)).splitlines()
    assert lines[0].split() == ["layer", "output", "shape", "parameters", "multiply-adds"]
    assert any(line.split() == ["head", "Linear", "1×3", "27", "24"] for line in lines)
    assert f"{model.num_parameters():,}" in lines[-3] and lines[-1].startswith("image of 1×8×8: ")
    nested = {
        line.split()[0]: len(line) - len(line.lstrip()) for line in str(nv.summary(model, depth=3)).splitlines()[2:-3]
    }
    assert [nested[name] for name in ("blocks", "blocks.1", "blocks.1.attn")] == [0, 2, 4]
    assert "frozen" not in lines[-1]
    model.freeze("head.*")
    assert str(nv.summary(model)).endswith("27 of them frozen")


@pytest.mark.parametrize("case", MODELS, ids=lambda case: case.name)
def test_looking_changes_nothing(case):
    model = case.layer()
    before, attributes = model.state_dict(), {id(layer): dict(vars(layer)) for _, layer in model.named_layers()}
    nv.summary(model, case.shape[1:])
    assert attributes == {id(layer): dict(vars(layer)) for _, layer in model.named_layers()}
    assert all(np.array_equal(before[name], array) for name, array in model.state_dict().items())


def test_recomputation_and_type_change_no_count():
    counts = {
        nv.create_model("vit_micro_patch2_8", dtype=dtype, grad_checkpointing=recompute).multiply_adds()
        for dtype in ("float32", "float64")
        for recompute in (False, True)
    }
    assert counts == {vit_by_hand(16, 1, 64, 4, 4, 10) - 4 * 4 * 17 * 64 * 64}  # its MLPs have half the width


def test_images_of_other_sizes_are_counted_where_the_model_takes_them():
    model = nv.ModernVisionTransformer(**TINY, dynamic_img_size=True)
    assert model.multiply_adds((1, 16, 8)) == vit_by_hand(8, 1, 8, 2, 16, 3)
    with pytest.raises(ShapeError, match="patch_embed"):
        nv.summary(nv.VisionTransformer(**TINY), (1, 16, 8))


def test_a_single_layer_is_counted_for_a_shape_that_is_given():
    assert nv.summary(Linear(4, 5), (3, 4)).multiply_adds == 60
    shared = Block(8, 2)
    assert nv.summary(Sequence([shared, shared]), (5, 8)).multiply_adds == 2 * nv.summary(shared, (5, 8)).multiply_adds
    with pytest.raises(ConfigError, match="Linear has no input_shape"):
        nv.summary(Linear(4, 5))


def test_every_layer_with_a_matrix_of_weights_counts_its_products():
    for case in [*LAYERS, *MODELS]:
        for _, part in case.layer().named_layers():
            weight = vars(part).get("weight")
            if isinstance(weight, nv.Parameter) and weight.data.ndim > 1:
                assert type(part).own_multiply_adds is not nv.Layer.own_multiply_adds, type(part).__name__


def test_the_command_prints_it_for_a_single_preset(capsys):
    assert cli.main(["models", "vit_micro_patch2_8"]) == 0
    printed = capsys.readouterr().out
    assert printed.startswith("model ") and str(nv.summary(nv.create_model("vit_micro_patch2_8"))) in printed
    assert cli.main(["models", "vit_micro*"]) == 0
    assert "output shape" not in capsys.readouterr().out
