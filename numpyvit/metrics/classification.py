"""How well logits fit labels: top-1, top-5, class by class, and which classes are mixed up."""

import numpy as np

from ..backend import Array


def label_ranks(logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """How many classes lie above each label's: (B,), 0 where the model is right, below k where the top k hold it.

    logits: (B, K); labels: (B,). Of equal logits the first lies above, as argmax has it. With NaN no label is right.
    """
    own = np.take_along_axis(logits, labels[:, None], axis=1)
    earlier = np.arange(logits.shape[1]) < labels[:, None]
    return (~(logits <= own) | ((logits == own) & earlier)).sum(1)


def top_k(ranks: np.ndarray, k: int) -> float:
    """The share of labels among the k most probable classes. ranks: see label_ranks."""
    return float((ranks < k).mean())


def class_figures(labels: np.ndarray, ranks: np.ndarray, predicted: np.ndarray) -> dict[int, dict]:
    """{label: {"images", "accuracy", "top5_accuracy", "mistaken_for"}} for each label that occurs.

    predicted: (N,) the most probable class of each image. "mistaken_for" is the class that a label's images are most
    often wrongly taken for, or None.
    """
    figures = {}
    for label in np.unique(labels):
        here = labels == label
        wrong = predicted[here & (ranks > 0)]
        figures[int(label)] = {
            "images": int(here.sum()),
            "accuracy": top_k(ranks[here], 1),
            "top5_accuracy": top_k(ranks[here], 5),
            "mistaken_for": int(np.bincount(wrong).argmax()) if len(wrong) else None,
        }
    return figures


def confusion_matrix(labels: np.ndarray, predicted: np.ndarray, classes: int) -> np.ndarray:
    """(K, K) int64: in row i and column j how many images of class i the model takes for class j.

        Cᵢⱼ = Σₙ [label n = i] [predicted n = j]

    labels, predicted: (N,) integers in 0..K−1. classes: K.
    """
    places = np.asarray(labels, np.int64) * classes + predicted
    return np.bincount(places, minlength=classes * classes).reshape(classes, classes)


def precision_recall_f1(confusion: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Precision, recall and F1 of each class, (K,) each, from a confusion matrix C.

        precisionₖ = Cₖₖ / Σᵢ Cᵢₖ      recallₖ = Cₖₖ / Σⱼ Cₖⱼ      F1ₖ = 2 Cₖₖ / (Σᵢ Cᵢₖ + Σⱼ Cₖⱼ)

    The first is the share of right answers among the images that were taken for the class, the second among those that
    are of the class, and the third the harmonic mean of both   (van Rijsbergen 1979, Information Retrieval, ch. 7).
    NaN where a class is never predicted, or does not occur.
    """
    right, taken, are = np.diag(confusion), confusion.sum(0), confusion.sum(1)
    return tuple(_shares(*pair) for pair in ((right, taken), (right, are), (2 * right, taken + are)))


def _shares(part, whole):
    return np.divide(part, whole, out=np.full(len(whole), np.nan), where=whole > 0)


def accuracy(logits: Array | tuple[Array, ...], targets: Array) -> Array:
    """The share of rows whose largest logit is the label's (or the soft target's largest class)."""
    logits = sum(logits) if isinstance(logits, tuple) else logits
    labels = targets.argmax(-1) if targets.ndim == 2 else targets
    return (logits.argmax(-1) == labels).mean()
