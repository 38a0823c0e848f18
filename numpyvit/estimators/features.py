"""What a trained model sees in images, as one of scikit-learn's transformers."""

from typing import Self

import numpy as np
from PIL import Image
from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.utils.validation import check_is_fitted

from ..data.dataset import Dataset
from ..data.images import fit_image
from ..errors import ShapeError
from ..models import create_model
from ..training.inference import infer
from .images import as_images, as_rows, check_layout, images_of, layout


class ViTFeatures(ClassNamePrefixFeaturesOutMixin, TransformerMixin, BaseEstimator):
    """The pooled features of a model with published weights, in front of a classifier of scikit-learn's.

    X is as for ViTClassifier, uint8 or floating point in 0..1, or a list of Pillow's images of one size. Images are
    resized, cropped and normalized as the weights want them.

    model:       a preset's name, see numpyvit.list_models.
    pretrained:  path of a checkpoint, see numpyvit.create_model; None leaves the initial weights, drawn from 0.
    image_shape: of one image where X is (n, features), see ViTClassifier.
    batch_size:  images in a pass; threads: None: all processors.

    Nothing is learned from X: fit loads the weights. Attributes: model_, image_shape_.
    """

    def __init__(
        self,
        model: str = "vit_tiny_patch16_224",
        pretrained: str | None = None,
        *,
        image_shape: tuple[int, ...] | None = None,
        batch_size: int = 32,
        threads: int | None = None,
    ):
        self.model = model
        self.pretrained = pretrained
        self.image_shape = image_shape
        self.batch_size = batch_size
        self.threads = threads

    def fit(self, X, y=None) -> Self:
        """Load the model."""
        X = self._images(X)
        self.image_shape_ = layout(X.shape, self.image_shape)
        self.n_features_in_ = as_rows(X).shape[1]
        self.model_ = create_model(self.model, pretrained=self.pretrained, num_classes=0)
        self._n_features_out = self.model_.num_features
        return self

    def transform(self, X) -> np.ndarray:
        """(n, width) float32."""
        check_is_fitted(self)
        X = self._images(X)
        check_layout(X.shape, self.image_shape_)
        pixels = Dataset.from_arrays(images_of(as_rows(X), self.image_shape_), np.zeros(len(X), int)).images
        parts = [self._features(pixels[i : i + self.batch_size]) for i in range(0, len(pixels), self.batch_size)]
        return np.concatenate(parts)

    def _images(self, X):
        X = np.asarray(as_images(X))
        if X.ndim < 2:
            raise ShapeError(f"X has the shape {X.shape}, expected rows of features or images, one for each sample")
        return X

    def _features(self, pixels):
        """(B, C, H, W) uint8 -> (B, width)."""
        channels, *size = self.model_.input_shape
        how = self.model_.preprocessing
        images = [Image.fromarray(image[0] if len(image) == 1 else image.transpose(1, 2, 0)) for image in pixels]
        fitted = [fit_image(image, size, channels, how.crop_pct, how.interpolation) for image in images]
        return infer(self.model_, how.normalize(np.stack(fitted)), self.threads)
