"""What every model answers about itself."""

from ..core import Layer
from ..data.preprocessing import Preprocessing
from ..weights.adapt import fit_channels
from .summary import summary

IMAGENET = Preprocessing((0.485, 0.456, 0.406), (0.229, 0.224, 0.225), crop_pct=0.9)  # its mean and standard deviation


class Model(Layer):
    """A layer that takes images.

    pretrained_cfg: how images are prepared for it, under timm's names, and "classes", the names of its classes or None.
    kind:           what it is for: "classification" or "detection", as of data sets.
    image_weight:   the name of the weight that meets the images, (D, C, …).
    class_layers:   the names of the layers with a row for each class.
    other_classes:  how many rows those have beyond, such as a detector's "no object".
    distilled:      whether it has a second head that learns from a teacher; on a tape it then gives a pair of logits.
    has_class_token: whether the first token stands for the whole image.

    `input_shape`, `takes` and `grid_for` are those of `patch_embed`; a model without one answers itself.
    """

    kind = "classification"
    image_weight = "patch_embed.proj.weight"
    class_layers = ("head", "head_dist")
    other_classes = 0
    distilled = False
    has_class_token = False

    @property
    def input_shape(self) -> tuple[int, int, int]:
        """(C, H, W) of the images that it was made for."""
        return self.patch_embed.input_shape

    @property
    def data_size(self) -> int | tuple[int, int]:
        """The img_size that data for it is loaded with: (height, width), or the length of the shorter side."""
        return self.input_shape[1:]

    def takes(self, image_shape: tuple[int, int, int]) -> bool:
        """Whether it takes images of shape (C, H, W)."""
        return self.patch_embed.takes(image_shape)

    def grid_for(self, image_size: tuple[int, int]) -> tuple[int, int]:
        """(rows, columns) of patches in images of (height, width)."""
        return self.patch_embed.grid_for(image_size)

    @property
    def preprocessing(self) -> Preprocessing:
        """How images are prepared for it, as pretrained_cfg says."""
        return Preprocessing.of(getattr(self, "pretrained_cfg", {})).for_channels(self.input_shape[0])

    def multiply_adds(self, input_shape: tuple[int, int, int] | None = None) -> int:
        """Multiplications with an addition for one image, see summary."""
        return summary(self, input_shape).multiply_adds

    def adapt_weights(self, arrays: dict, origin: str) -> None:
        """Change weights that were read from a file, in place, so that they fit this model; heads are dropped before.

        arrays: under this model's names; origin: the library that they are from, see weights.read_checkpoint.
        Here: another number of channels.
        """
        fit_channels(arrays, self.image_weight, dict(self.named_parameters())[self.image_weight].data.shape)


def class_names(model: Layer) -> list[str]:
    """The names of a model's classes: those of its checkpoint, else numbers."""
    known = list(getattr(model, "pretrained_cfg", {}).get("classes") or [])
    return known + [f"class {i}" for i in range(len(known), model.num_classes)]
