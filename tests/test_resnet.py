"""ResNet: sizes, stages, freezing as a detector does, and weights as torchvision writes them."""

from functools import partial

import numpy as np
import pytest

import numpyvit as nv
from numpyvit.errors import CheckpointError, ConfigError, ShapeError, TapeError
from numpyvit.layers import BasicBlock, Bottleneck, GroupNorm, Sequence
from numpyvit.models import ResNet, count_parameters
from numpyvit.testing import randomize

DC5 = (False, False, True)
FROZEN = ("conv1.*", "layer1.*")  # as DETR does


def tiny(block=Bottleneck, depths=(1, 2, 1, 1), dtype="float64", seed=0, **options):
    """A narrow ResNet with values in every statistic that show."""
    model = ResNet(block, depths, **{"num_classes": 5, "width": 4, **options}, dtype=dtype, seed=seed)
    rng = np.random.default_rng(3)
    for _, buffer in model.named_buffers():
        buffer.data[...] = rng.uniform(0.3, 1, buffer.data.shape)
    return model


def images(rng, *shape):
    return rng.standard_normal(shape or (2, 3, 64, 96))


# torchvision's counts hold two numbers for each channel of a batch norm, which are no parameters here
@pytest.mark.parametrize(
    "name, published, channels",
    [
        ("resnet18", 11_689_512, 4_800),
        ("resnet34", 21_797_672, 8_512),
        ("resnet50", 25_557_032, 26_560),
        ("resnet101", 44_549_160, 52_672),
    ],
)
def test_parameters_are_those_published_without_the_norms(name, published, channels):
    model = nv.create_model(name)
    assert model.num_parameters() == count_parameters(name) == published - 2 * channels
    assert sum(buffer.data.size for _, buffer in model.named_buffers()) == 4 * channels
    assert sum(array.size for array in model.state_dict().values()) == published + 2 * channels


def test_as_a_trunk_a_resnet50_has_as_many_trained_parameters_as_detrs():
    model = nv.create_model("resnet50", num_classes=0)
    assert model.num_parameters() == 23_454_912
    frozen = sum(p.data.size for _, p in model.freeze(*FROZEN).named_parameters() if not p.trainable)
    assert frozen == 41_524_768 - 41_302_368  # of detr_resnet50: all, and those that are trained


def test_names_are_torchvisions():
    state = tiny().state_dict()
    for name in (
        "conv1.weight",
        "bn1.running_var",
        "layer1.0.downsample.0.weight",
        "layer1.0.downsample.1.running_mean",
    ):
        assert name in state
    for name in ("layer2.1.conv3.weight", "layer2.1.bn3.bias", "layer4.0.conv2.weight", "fc.weight", "fc.bias"):
        assert name in state
    assert "layer2.1.downsample.0.weight" not in state and not any("stem" in name for name in state)
    assert state["layer1.0.conv2.weight"].shape == (4, 4, 3, 3) and state["layer4.0.conv3.weight"].shape == (
        128,
        32,
        1,
        1,
    )


def test_how_many_batches_a_norm_has_seen_is_left_out():
    model = tiny()
    state = {**model.state_dict(), "bn1.num_batches_tracked": np.array(7)}
    assert model.load_state_dict(state) == ([], [])
    with pytest.raises(CheckpointError, match=r"unexpected bn2\.weight"):
        model.load_state_dict({**state, "bn2.weight": np.ones(4)})


@pytest.mark.parametrize(
    "options, sizes",
    [
        ({}, [(16, 24), (8, 12), (4, 6), (2, 3)]),
        ({"replace_stride_with_dilation": DC5}, [(16, 24), (8, 12), (4, 6), (4, 6)]),
        ({"replace_stride_with_dilation": (True, False, True)}, [(16, 24), (16, 24), (8, 12), (8, 12)]),
    ],
)
def test_stages_halve_the_map_and_dilated_ones_do_not(rng, options, sizes):
    model = tiny(**options)
    levels = model.pyramid(images(rng))
    assert [level.shape for level in levels] == [(2, 16 * 2**i, *size) for i, size in enumerate(sizes)]
    assert np.array_equal(model.features(images(np.random.default_rng(1234))), levels[-1])
    assert len(model.pyramid(images(rng), stages=2)) == 2


def test_dilation_widens_what_a_pixel_sees():
    """In the stage after the first dilated block its kernels lie twice as far apart, as in torchvision."""
    model = tiny(depths=(1, 1, 2, 2), replace_stride_with_dilation=(False, True, True))
    found = [(block.conv2.stride, block.conv2.dilation) for stage in model.stages for block in stage]
    assert found[2:] == [((1, 1), (1, 1)), ((1, 1), (2, 2)), ((1, 1), (2, 2)), ((1, 1), (4, 4))]


def test_images_of_any_size_are_taken_and_maps_rounded_up(rng):
    model = tiny()
    assert [level.shape[2:] for level in model.pyramid(images(rng, 1, 3, 33, 70))] == [(9, 18), (5, 9), (3, 5), (2, 3)]
    assert model(images(rng, 1, 3, 1, 1)).shape == (1, 5)
    assert model.takes((3, 33, 70)) and not model.takes((1, 33, 70)) and model.input_shape == (3, 224, 224)


@pytest.mark.parametrize("block", [BasicBlock, Bottleneck])
def test_a_block_adds_its_branch_to_its_shortcut(rng, block):
    """With the norms as layers of their own, not as part of the products."""

    def relu(x):
        return np.maximum(x, 0)

    for stage in tiny(block).stages[:2]:
        for part in stage:
            x = images(rng, 2, part.conv1.weight.data.shape[1], 7, 6)
            y = relu(part.bn1(part.conv1(x)))
            y = part.bn2(part.conv2(y))
            y = part.bn3(part.conv3(relu(y))) if block is Bottleneck else y
            short = part.downsample[1](part.downsample[0](x)) if isinstance(part.downsample, Sequence) else x
            np.testing.assert_allclose(part(x), relu(y + short), atol=1e-12)


def test_without_a_head_the_mean_of_the_last_map_is_returned(rng):
    model, x = tiny(num_classes=0), images(rng)
    np.testing.assert_allclose(model(x), model.features(x).mean((2, 3)))
    assert model.num_features == 128


@pytest.mark.parametrize("block", [BasicBlock, Bottleneck])
def test_frozen_stages_keep_nothing_and_get_no_backward_and_the_others_learn_the_same(rng, block):
    model, x = tiny(block), images(rng)
    dy, whole = rng.standard_normal((2, 5)), nv.Tape(model)
    model.forward(x, whole)
    model.backward(dy, whole)
    expected = whole.gradients()
    model.freeze(*FROZEN)
    tape = nv.Tape(model, input_gradient=False)
    model.forward(x, tape)
    assert not [layer.path for layer, _ in tape.residuals() if "layer1" in layer.path or "stem" in layer.path]
    assert model.backward(dy, tape) is None and tape.pending == 0
    assert tape.gradients().keys() == {name for name in expected if not name.startswith(("conv1", "layer1"))}
    for name, gradient in tape.gradients().items():
        np.testing.assert_allclose(gradient, expected[name], rtol=1e-12, atol=1e-14)


def test_a_stage_without_a_gradient_of_its_own_passes_on_that_of_the_next(rng):
    model, x = tiny(), images(rng)
    tape, sums = nv.Tape(model), nv.Tape(model)
    dlevels = [rng.standard_normal(level.shape) for level in model.pyramid(x, tape)]
    dx = model.pyramid_backward([dlevels[0], None, None, dlevels[3]], tape)
    total = 0
    for wanted in (0, 3):  # backward is linear: one stage after the other gives the sum
        model.pyramid(x, sums, stages=wanted + 1)
        total = total + model.pyramid_backward([None] * wanted + [dlevels[wanted]], sums)
    np.testing.assert_allclose(dx, total, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(tape.flat, sums.flat, rtol=1e-9, atol=1e-11)


def test_recomputed_blocks_give_the_same_gradients_bit_for_bit(rng):
    model, x, dy = tiny(), images(rng), rng.standard_normal((2, 5))
    kept = nv.Tape(model)
    model.forward(x, kept)
    dx, pending = model.backward(dy, kept), kept.pending
    model.set_grad_checkpointing()
    tape = nv.Tape(model)
    model.forward(x, tape)
    assert sum(isinstance(layer, nv.Recompute) for layer, _ in tape.residuals()) == 5
    assert np.array_equal(model.backward(dy, tape), dx) and np.array_equal(tape.flat, kept.flat) and pending == 0


def test_one_step_moves_every_parameter_and_no_statistic(rng):
    model = randomize(tiny(dtype="float32"), std=0.1)
    before = model.state_dict()
    step = nv.TrainStep(model, nv.optim.AdamW(model, lr=1e-2))
    assert np.isfinite(step(images(rng, 4, 3, 64, 64).astype(np.float32), np.arange(4)))
    trained = dict(model.named_parameters())
    for name, array in model.state_dict().items():
        assert np.array_equal(array, before[name]) == (name not in trained), name


def test_with_group_norm_it_learns_from_nothing(rng):
    model = ResNet(BasicBlock, (1, 1, 1, 1), 2, 1, 8, 32, norm_layer=partial(GroupNorm, 4))
    assert not dict(model.named_buffers())
    x, labels = rng.standard_normal((16, 1, 32, 32)).astype(np.float32), np.arange(16) % 2
    x[labels == 1, :, 8:24, 8:24] += 1
    step = nv.TrainStep(model, nv.optim.AdamW(model, lr=3e-3))
    losses = [step(x, labels) for _ in range(12)]
    assert losses[-1] < 0.1 * losses[0]


def test_convolutions_start_normal_with_the_deviation_of_their_outputs():
    model = nv.create_model("resnet18")
    for conv in (model.conv1, model.layer3[1].conv2, model.layer4[0].downsample[0]):
        out, _, *kernel = conv.weight.data.shape
        assert abs(conv.weight.data.std() / (2 / (out * np.prod(kernel))) ** 0.5 - 1) < 0.02
        assert abs(conv.weight.data.mean()) < 0.05 * conv.weight.data.std() and conv.bias is None


def test_parameters_lie_at_the_depth_of_their_block():
    model = tiny(depths=(1, 2, 1, 1))
    names = (
        "conv1.weight",
        "layer1.0.conv1.weight",
        "layer2.1.conv3.weight",
        "layer4.0.downsample.0.weight",
        "fc.bias",
    )
    assert [model.parameter_depth(name) for name in names] == [0, 1, 3, 5, 6]


def test_options_of_the_presets():
    model = nv.create_model("resnet50", num_classes=3, in_chans=1, img_size=64, replace_stride_with_dilation=DC5)
    assert model.input_shape == (1, 64, 64) and model.fc.weight.data.shape == (3, 2048)
    assert model.pretrained_cfg["mean"] == (0.5,)
    assert count_parameters("resnet50", num_classes=3, in_chans=1) == model.num_parameters()
    prepared = nv.create_model("resnet18").pretrained_cfg
    assert prepared["interpolation"] == "bilinear" and prepared["crop_pct"] == 0.875


@pytest.mark.parametrize(
    "call, error, message",
    [
        (lambda: tiny(BasicBlock, replace_stride_with_dilation=DC5), ConfigError, "needs Bottleneck blocks"),
        (lambda: tiny(depths=(1, 1, 1)), ConfigError, r"four stages.*depths=\(1, 1, 1\)"),
        (lambda: tiny(depths=(1, 0, 1, 1)), ConfigError, r"depths\[1\] must be an int of at least 1, got 0"),
        (lambda: tiny(num_classes=-1), ConfigError, "num_classes must be an int of at least 0, got -1"),
        (lambda: tiny(in_chans=0), ConfigError, "in_chans must be an int of at least 1"),
        (lambda: tiny().pyramid(np.ones((2, 3, 64, 64)), stages=5), ConfigError, "got count=5, expected 1..4"),
        (lambda: tiny().pyramid_backward([None], nv.Tape(tiny())), TapeError, "no gradient for the last output"),
        (lambda: tiny()(np.ones((2, 1, 64, 64))), ShapeError, r"conv1 \(Conv2d\): got .*expected \(batch, 3,"),
    ],
)
def test_errors_say_what_was_given_and_what_was_expected(call, error, message):
    with pytest.raises(error, match=message):
        call()
