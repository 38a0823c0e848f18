"""What a detector stands on: the last map of a ResNet, or of a few convolutions that are trained from nothing."""

from ..core import FORGET, Layer, Seed, make_rng
from ..errors import ConfigError
from ..layers import Conv2d, GroupNorm, ReLU, Sequence
from . import resnet
from .resnet_sizes import convolutions, map_size, products


class Backbone(Layer):
    """The last map of a classifier or of convolutions: (B, C, H, W) -> (B, C', h, w)."""

    def __init__(self, body: Layer):
        self.body = body

    def forward(self, x, tape=FORGET):
        return self.body.features(x, tape)

    def backward(self, dy, tape):
        return self.body.features_backward(dy, tape)


class ConvStem(Sequence):
    """Convolutions of stride 2, each with GroupNorm and ReLU: a light backbone, to be trained from nothing."""

    image_weight = "0.weight"

    def __init__(self, widths: tuple[int, ...], in_chans: int = 3, *, dtype: str = "float32", seed: Seed = 0):
        layers, rng = [], make_rng(seed)
        for before, width in zip((in_chans, *widths), widths):
            layers += [Conv2d(before, width, 3, 2, 1, bias=False, dtype=dtype, seed=rng)]
            layers += [GroupNorm(8, width, dtype=dtype), ReLU()]
        super().__init__(layers)
        self.num_features = widths[-1]

    features, features_backward = Sequence.forward, Sequence.backward

    def parameter_depth(self, name: str) -> int:
        """i for the i-th convolution and its norm."""
        return int(name.split(".")[0]) // 3


def make_body(backbone: str | tuple[int, ...], in_chans: int, dilation: bool, **made) -> Layer:
    """A ResNet by its name, with stem and first stage frozen as in the official code, or a ConvStem of some widths."""
    if not isinstance(backbone, str):
        return ConvStem(tuple(backbone), in_chans, **made)
    if backbone not in resnet.VARIANTS:
        raise ConfigError(
            f"backbone must be one of {', '.join(resnet.VARIANTS)}, or widths of convolutions, got {backbone!r}"
        )
    kind, options, _ = resnet.VARIANTS[backbone]
    dilated = dict(replace_stride_with_dilation=(False, False, dilation))
    return kind(**options, **dilated, num_classes=0, in_chans=in_chans, **made).freeze("conv1*", "layer1*")


def count_body(backbone: str | tuple[int, ...], in_chans: int) -> tuple[int, int]:
    """-> the channels of what make_body makes, and its parameters."""
    if not isinstance(backbone, str):
        return backbone[-1], sum(9 * a * b + 2 * b for a, b in zip((in_chans, *backbone), backbone))
    _, options, _ = resnet.VARIANTS[backbone]
    channels = 512 * options["block"].expansion
    return channels, resnet.count_parameters(**options, num_classes=0, in_chans=in_chans)


def body_map(
    backbone: str | tuple[int, ...], in_chans: int, image_size: tuple[int, int], dilation: bool
) -> tuple[int, tuple[int, int]]:
    """-> the multiply-adds of what make_body makes, for one image, and the (rows, columns) of its map."""
    if not isinstance(backbone, str):
        found = [(9 * a * b, i) for i, (a, b) in enumerate(zip((in_chans, *backbone), backbone), 1)]
    else:
        _, options, _ = resnet.VARIANTS[backbone]
        found = convolutions(**options, in_chans=in_chans, width=64, dilated=(False, False, dilation))
    return products(found, image_size), map_size(image_size, found[-1][1])
