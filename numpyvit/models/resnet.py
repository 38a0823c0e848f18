"""ResNet (He et al. 2015, arXiv:1512.03385) in torchvision's form, with batch norms that are not trained.

Shapes: B batch, C channels, H×W pixels, K classes; stage s, 1 to 4, has maps of (H/2^(s+1), W/2^(s+1)), rounded up.
"""

from collections.abc import Callable, Mapping

import numpy as np

from ..backend import array_module
from ..core import FORGET, Layer, Seed, as_dtype, make_rng
from ..data.preprocessing import Preprocessing
from ..errors import ConfigError
from ..layers import BasicBlock, Bottleneck, FrozenBatchNorm2d, Sequence, Stem
from ..layers.checks import check_counts
from ..layers.heads import linear_or_identity
from ..layers.patches import pair
from ..weights.renaming import without_counts
from .model import IMAGENET, Model
from .resnet_sizes import count_multiply_adds, count_parameters


class ResNet(Model):
    """A stem, four stages of residual blocks, the mean over all pixels and a linear head.

    block:       BasicBlock or Bottleneck; depths: how many of them in each stage.
    width:       channels of the first stage's blocks; each stage has twice those of the one before.
    num_classes: 0 leaves the head out; the model then returns the mean of the last map.
    img_size:    what images are resized to by default; images of any size are taken.
    replace_stride_with_dilation: of stages 2 to 4, which keep their resolution and spread their 3×3 kernels instead;
                 (False, False, True) is DETR's DC5. BasicBlocks cannot, as in torchvision.
    norm_layer:  called as norm_layer(channels, dtype=…). The default has published statistics to load and is not
                 trained; to train from nothing, take for example functools.partial(GroupNorm, 32).

    x: (B, in_chans, H, W) floating point -> logits (B, K). Names and initial values of convolutions are torchvision's.
    """

    image_weight = "conv1.weight"
    class_layers = ("fc",)
    count_parameters = staticmethod(count_parameters)
    count_multiply_adds = staticmethod(count_multiply_adds)

    def __init__(
        self,
        block: type = Bottleneck,
        depths: tuple[int, int, int, int] = (3, 4, 6, 3),
        num_classes: int = 1000,
        in_chans: int = 3,
        width: int = 64,
        img_size: int | tuple[int, int] = 224,
        replace_stride_with_dilation: tuple[bool, bool, bool] = (False, False, False),
        norm_layer: Callable[..., Layer] = FrozenBatchNorm2d,
        *,
        dtype: str = "float32",
        seed: Seed = 0,
    ):
        if len(depths) != 4 or len(replace_stride_with_dilation) != 3:
            raise ConfigError(
                f"a ResNet has four stages, of which the last three may be dilated; got depths={depths!r} and "
                f"replace_stride_with_dilation={replace_stride_with_dilation!r}"
            )
        check_counts(0, num_classes=num_classes)
        check_counts(in_chans=in_chans, width=width, **{f"depths[{i}]": depth for i, depth in enumerate(depths)})
        if block is BasicBlock and any(replace_stride_with_dilation):
            raise ConfigError("replace_stride_with_dilation needs Bottleneck blocks; ResNet-18 and 34 have none")
        self.img_size, made = pair(img_size, "img_size"), dict(dtype=as_dtype(dtype), seed=make_rng(seed))
        self.stem = Stem(in_chans, width, norm_layer, **made)
        channels, dilation = width, 1

        def stage(number):
            nonlocal channels, dilation
            inner, stride, first_dilation = width * 2**number, 1 if number == 0 else 2, dilation
            if number and replace_stride_with_dilation[number - 1]:
                stride, dilation = 1, 2 * dilation
            blocks = []
            for i in range(depths[number]):
                options = (stride, first_dilation) if i == 0 else (1, dilation)
                blocks.append(block(channels, inner, *options, norm_layer, **made))
                channels = inner * block.expansion
            return Sequence(blocks)

        self.layer1, self.layer2, self.layer3, self.layer4 = map(stage, range(4))
        self.num_classes, self.num_features = num_classes, channels
        self.fc = linear_or_identity(channels, num_classes, made["dtype"], made["seed"])
        self.set_paths()

    def forward(self, x, tape=FORGET):
        """(B, C, H, W) -> logits (B, K)."""
        x = self.features(x, tape)
        tape.push(self, x.shape)
        return self.fc.forward(x.mean((2, 3)), tape)

    def backward(self, dy, tape):
        """Each pixel of the last map gets its share of the mean's gradient."""
        dmean = self.fc.backward(dy, tape)
        (shape,) = tape.pop(self)
        dx = array_module(dy).empty(shape, dtype=dy.dtype)
        dx[...] = (dmean / (shape[2] * shape[3]))[:, :, None, None]
        return self.features_backward(dx, tape)

    def features(self, x, tape=FORGET):
        """(B, C, H, W) -> the map after the last stage: (B, num_features, H/32, W/32)."""
        return self.pyramid(x, tape)[-1]

    def features_backward(self, dy, tape):
        """The gradient of what `features` returned -> the gradient of the images, or None where nobody wants it."""
        return self.pyramid_backward([None, None, None, dy], tape)

    def pyramid(self, x, tape=FORGET, stages=4):
        """The map after each stage, or after the first `stages`: what a detector's neck or a segmentation stands on.

        (B, C, H, W) -> list of (B, channels, rows, columns).
        """
        return Sequence(self.stages).outputs(self.stem.forward(x, tape.at(self.stem)), tape, stages)

    def pyramid_backward(self, dlevels, tape):
        """The gradients of what `pyramid` returned -> that of the images, as for features_backward.

        They add up at each stage. One may be None where a map was not used, but not the last.
        """
        dx = Sequence(self.stages).outputs_backward(dlevels, tape)
        return None if dx is None or not tape.reaches(self.stem) else self.stem.backward(dx, tape)

    @property
    def stages(self) -> list[Sequence]:
        """layer1 to layer4, each a Sequence of blocks."""
        return [self.layer1, self.layer2, self.layer3, self.layer4]

    @property
    def input_shape(self) -> tuple[int, int, int]:
        """(C, H, W) of the images that it was made for."""
        return self.conv1.weight.data.shape[1], *self.img_size

    def takes(self, image_shape: tuple[int, int, int]) -> bool:
        """Whether it takes images of shape (C, H, W): of any size."""
        return image_shape[0] == self.input_shape[0]

    def parameter_depth(self, name: str) -> int:
        """0 for the stem, i + 1 for the i-th block of all stages, one more for the head."""
        before = [sum(map(len, self.stages[:i])) for i in range(5)]
        part, *rest = name.split(".")
        if not part.startswith("layer"):
            return 0 if part in ("conv1", "bn1") else before[4] + 1
        return 1 + before[int(part.removeprefix("layer")) - 1] + int(rest[0])

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Let each block keep only its input for backward and run forward again there (see core.Recompute)."""
        for stage in self.stages:
            stage.set_recompute(enable)

    def load_state_dict(self, mapping: Mapping[str, np.ndarray], strict: bool = True) -> tuple[list[str], list[str]]:
        """As for every layer; how many batches a batch norm has seen, which torchvision's files hold, is left out."""
        return super().load_state_dict(without_counts(mapping), strict)


_PREPROCESSING = Preprocessing(IMAGENET.mean, IMAGENET.std, "bilinear", 224 / 256)  # of torchvision's first weights


def _resnet(block, *depths):
    return ResNet, dict(block=block, depths=depths), _PREPROCESSING


# name: class, options and preprocessing, torchvision's
VARIANTS = {
    "resnet18": _resnet(BasicBlock, 2, 2, 2, 2),
    "resnet34": _resnet(BasicBlock, 3, 4, 6, 3),
    "resnet50": _resnet(Bottleneck, 3, 4, 6, 3),
    "resnet101": _resnet(Bottleneck, 3, 4, 23, 3),
}
