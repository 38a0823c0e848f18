"""How well logits fit labels: top-1, top-5, and class by class."""

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


def accuracy(logits: Array | tuple[Array, ...], targets: Array) -> Array:
    """The share of rows whose largest logit is the label's (or the soft target's largest class)."""
    logits = sum(logits) if isinstance(logits, tuple) else logits
    labels = targets.argmax(-1) if targets.ndim == 2 else targets
    return (logits.argmax(-1) == labels).mean()
