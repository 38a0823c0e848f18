"""A Vision Transformer as one of scikit-learn's classifiers."""

from dataclasses import replace
from typing import Self

import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils import check_random_state
from sklearn.utils.multiclass import check_classification_targets, unique_labels
from sklearn.utils.validation import _check_sample_weight, check_is_fitted, validate_data

from .. import functional as F
from ..backend import as_array
from ..data.loader import Loader
from ..errors import ConfigError
from ..layers.checks import check_counts
from ..models import create_model
from ..optim import AdamW
from ..training.augmentation import augmentation
from ..training.inference import infer
from ..training.parts import hold_out
from ..training.recipes import recipe
from ..training.step import TrainStep
from .images import WeightedImages, as_images, as_rows, check_layout, images_of, layout
from .sizes import model_options
from .training import PatientTrainer, WeightedClassification

_BATCH = 256  # images in a pass of inference


class ViTClassifier(ClassifierMixin, BaseEstimator):
    """A small Vision Transformer, trained from scratch.

    X is (n, features), (n, H, W), (n, H, W, C) or (n, C, H, W) with 1 or 3 channels, of any real type and range: pixels
    are standardized channel by channel. Arrays of PyTorch, JAX and others are converted, see backend.as_array.

    image_shape:  of one image, (H, W), (H, W, C) or (C, H, W). None: as X has it; rows of features are taken for
                  square gray images where their length is a square, else for one line of pixels.
    patch_size, embed_dim, depth: of the model; None: they follow from the images. Images whose sides the patches do not
                  divide are padded.
    epochs:       passes over the images, as the learning rate falls along a cosine.
    batch_size:   None: it follows from the number of images.
    augment:      "auto": slight rotation, shift and scaling for images of at least 8×8 pixels; otherwise the setting of
                  numpyvit.fit, such as {"flip": 0.5}; None for none.
    early_stopping: hold `validation_fraction` out of the images, class by class, stop after `patience` epochs in which
                  its accuracy did not rise, and keep the best weights.
    warm_start:   go on from the weights of the last fit.
    random_state: an int makes the result repeatable, on any number of threads.
    threads:      None: all processors.
    verbose:      print a line an epoch.

    Attributes: classes_, n_features_in_, n_iter_ (epochs), history_ (a record an epoch), model_ (the numpyvit model),
    image_shape_ (of one image, as X had it), scaling_ (mean and std of the channels).

    An image that is given twice counts as one of weight 2, and the order of the images does not change the result.
    """

    def __init__(
        self,
        image_shape: tuple[int, ...] | None = None,
        *,
        patch_size: int | tuple[int, int] | None = None,
        embed_dim: int | None = None,
        depth: int | None = None,
        epochs: int = 40,
        batch_size: int | None = None,
        lr: float = 2e-3,
        weight_decay: float = 0.05,
        label_smoothing: float = 0.0,
        augment: str | dict | None = "auto",
        early_stopping: bool = False,
        validation_fraction: float = 0.1,
        patience: int = 10,
        warm_start: bool = False,
        random_state: int | np.random.RandomState | None = None,
        threads: int | None = None,
        verbose: bool = False,
    ):
        self.image_shape = image_shape
        self.patch_size = patch_size
        self.embed_dim = embed_dim
        self.depth = depth
        self.epochs = epochs
        self.batch_size = batch_size
        self.lr = lr
        self.weight_decay = weight_decay
        self.label_smoothing = label_smoothing
        self.augment = augment
        self.early_stopping = early_stopping
        self.validation_fraction = validation_fraction
        self.patience = patience
        self.warm_start = warm_start
        self.random_state = random_state
        self.threads = threads
        self.verbose = verbose

    # -- training

    def fit(self, X, y, sample_weight=None) -> Self:
        """Train on images X and labels y (n,) of any kind, numbers or text.

        sample_weight: (n,), how often each image counts.
        """
        going_on = self.warm_start and hasattr(self, "model_")
        images, y, weights = self._checked(X, y, sample_weight, reset=not going_on)
        classes = unique_labels(y)
        if going_on and not np.array_equal(classes, self.classes_):
            raise ConfigError(
                f"warm_start goes on with the classes {self.classes_}, y has {classes}; fit again without it"
            )
        self.classes_ = classes
        data, seed = self._set(images, y, weights), self._seed()
        if not going_on:
            self._create(data, seed)
        data = replace(data, scaling=self.scaling_, weights=data.weights / data.weights.mean())
        settings, val = self._settings(data, seed), None
        if self.early_stopping:
            check_counts(patience=self.patience)
            data, val = hold_out(data, settings.val_fraction, settings.seed)
        task, augment = WeightedClassification(settings.label_smoothing), augmentation(settings.augment)
        trainer = PatientTrainer(
            self.model_, data, val, None, task, settings, augment, {}, self.threads, self.verbose, save_every=0
        )
        trainer.patience = self.patience
        self.history_ = trainer.run()
        self.n_iter_ = len(self.history_)
        self._step = None
        return self

    def partial_fit(self, X, y, classes=None, sample_weight=None) -> Self:
        """One pass over some of the images, at a constant learning rate. Their weights are factors of the loss.

        classes: all that will ever come, at the first call. The first images tell the mean and deviation of the pixels.
        """
        first = not hasattr(self, "model_")
        images, y, weights = self._checked(X, y, sample_weight, reset=first)
        if first and classes is None:
            raise ConfigError("the first call of partial_fit needs classes, all that will ever come")
        known = np.unique(classes) if first else self.classes_
        new = np.setdiff1d(y if classes is None else np.append(y, classes), known)
        if len(new):
            raise ConfigError(f"y or classes hold {new}, which are none of the classes {known} of the first call")
        self.classes_ = known
        data = self._set(images, y, weights)
        if first:
            self._create(data, self._seed())
        data = replace(data, scaling=self.scaling_)
        settings = self._settings(data, 0)
        if getattr(self, "_step", None) is None:
            optimizer = AdamW(self.model_, lr=settings.lr, weight_decay=settings.weight_decay)
            loss = WeightedClassification(settings.label_smoothing).loss
            self._step = TrainStep(self.model_, optimizer, loss, self.threads, clip_norm=settings.clip_norm)
        augment = augmentation(settings.augment)
        for inputs, targets in Loader(data, settings.batch_size, shuffle=True, augment=augment).epoch(self._step.steps):
            self._step(inputs, targets)
        self.n_iter_ = getattr(self, "n_iter_", 0) + 1
        return self

    # -- prediction

    def predict_proba(self, X) -> np.ndarray:
        """(n, classes) float32, in the order of classes_."""
        check_is_fitted(self)
        X = as_images(X)
        images = self._images(X, self._validated(X, reset=False))
        parts = [
            F.softmax(infer(self.model_, self.scaling_(images[start : start + _BATCH]), self.threads))
            for start in range(0, len(images), _BATCH)
        ]
        return np.concatenate(parts)

    def predict(self, X) -> np.ndarray:
        """(n,), the most probable class of each image."""
        probabilities = self.predict_proba(X)
        return self.classes_[probabilities.argmax(1)]

    # -- inside

    def _validated(self, X, y="no_validation", reset=True):
        return validate_data(self, as_rows(X), y, reset=reset)

    def _images(self, X, rows):
        """Checked rows as (N, C, H, W)."""
        check_layout(X.shape, self.image_shape_)
        return images_of(rows, self.image_shape_)

    def _checked(self, X, y, sample_weight, reset):
        """-> images, labels and weights that fit each other."""
        X = as_images(X)
        rows, y = self._validated(X, as_array(y), reset)
        check_classification_targets(y)
        weights = _check_sample_weight(as_array(sample_weight), rows, ensure_non_negative=True)
        if not weights.sum() > 0:
            raise ConfigError("sample_weight is 0 for all images; give some of them a weight above 0")
        if reset:
            self.image_shape_ = layout(X.shape, self.image_shape)
        return self._images(X, rows), y, weights

    def _set(self, images, y, weights):
        labels = np.searchsorted(self.classes_, y)
        return WeightedImages(images, labels, weights, tuple(map(str, self.classes_))).merged()

    def _create(self, data, seed):
        """A new model for such images, and their mean and deviation."""
        options = model_options(data.images.shape[1:], self.patch_size, self.embed_dim, self.depth)
        self.model_ = create_model("vit_micro_patch2_8", num_classes=len(self.classes_), seed=seed, **options)
        self.scaling_ = data.measured(options["img_size"])
        self._step = None

    def _seed(self):
        return int(check_random_state(self.random_state).randint(np.iinfo(np.int32).max))

    def _settings(self, data, seed):
        """The recipe for a number of images, with what the user says."""
        batch_size = self.batch_size
        if batch_size is None:  # overhead bounds it below, the number of updates above
            batch_size = min(64, max(32, recipe(None, len(data)).batch_size))
        return replace(
            recipe(None, len(data), batch_size=batch_size),
            epochs=self.epochs,
            schedule="cosine",
            ema_decay=None,
            lr=self.lr,
            weight_decay=self.weight_decay,
            label_smoothing=self.label_smoothing,
            val_fraction=self.validation_fraction,
            augment=self._augmentation(data.images.shape[2:]),
            seed=seed,
        )

    def _augmentation(self, size):
        if self.augment != "auto":
            return self.augment or {}
        if min(size) < 8:
            return {}
        return {"affine": {"degrees": 10, "shift": min(size) / 16, "scale": 0.1}}
