"""One class for each image."""

from .. import losses
from ..metrics import accuracy
from .evaluation import check_images, check_number_of_classes


class Classification:
    """Cross-entropy with labels (B,), or with soft targets (B, K) as an augmentation may make them.

    label_smoothing: the share of each label that is spread over all classes. class_weights: (K,), a factor for each.
    """

    def __init__(self, label_smoothing: float = 0.0, class_weights=None):
        self.label_smoothing, self.class_weights = label_smoothing, class_weights

    def check(self, model, dataset):
        check_images(model, dataset)
        check_number_of_classes(model, dataset)

    def targets(self, inputs, labels, threads=None):
        return labels

    def loss(self, outputs, targets):
        return losses.cross_entropy(outputs, targets, self.label_smoothing, self.class_weights)

    def score(self, outputs, targets):
        return {"right": accuracy(outputs, targets).astype("float64") * len(targets)}

    def summary(self, sums, count):
        return {"accuracy": float(sums["right"]) / count}
