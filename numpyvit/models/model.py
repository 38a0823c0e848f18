"""What every model answers about itself."""

from ..core import Layer
from ..data.preprocessing import Preprocessing

IMAGENET = Preprocessing((0.485, 0.456, 0.406), (0.229, 0.224, 0.225), crop_pct=0.9)  # its mean and standard deviation


class Model(Layer):
    """A layer that takes images.

    pretrained_cfg: how images are prepared for it, under timm's names, and "classes", the names of its classes or None.

    `input_shape` and `takes` are those of `patch_embed`; a model without one answers itself.
    """

    @property
    def input_shape(self) -> tuple[int, int, int]:
        """(C, H, W) of the images that it was made for."""
        return self.patch_embed.input_shape

    def takes(self, image_shape: tuple[int, int, int]) -> bool:
        """Whether it takes images of shape (C, H, W)."""
        return self.patch_embed.takes(image_shape)

    @property
    def preprocessing(self) -> Preprocessing:
        """How images are prepared for it, as pretrained_cfg says."""
        return Preprocessing.of(getattr(self, "pretrained_cfg", {})).for_channels(self.input_shape[0])


def class_names(model: Layer) -> list[str]:
    """The names of a model's classes: those of its checkpoint, else numbers."""
    known = list(getattr(model, "pretrained_cfg", {}).get("classes") or [])
    return known + [f"class {i}" for i in range(len(known), model.num_classes)]
