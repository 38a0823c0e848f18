"""Whether a model is right as often as it says: of the answers it gives 90%, nine in ten should be right.

Source: C. Guo et al., On Calibration of Modern Neural Networks, 2017, arXiv:1706.04599, §2.
"""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Reliability:
    """A reliability diagram: the images in bins of equal width, by the probability of the predicted class.

    edges:      (M+1,) from 0 to 1. Bin m holds the probabilities above edges[m], up to and with edges[m+1].
    counts:     (M,) images.
    accuracy:   (M,) the share of right answers; NaN in an empty bin.
    confidence: (M,) the mean probability; NaN in an empty bin.
    """

    edges: np.ndarray
    counts: np.ndarray
    accuracy: np.ndarray
    confidence: np.ndarray

    @property
    def error(self) -> float:
        """The expected calibration error   Σₘ nₘ/N |accuracyₘ − confidenceₘ|; NaN without images (eq. 3)."""
        full = self.counts > 0
        gaps = np.abs(self.accuracy - self.confidence)[full]
        return float(self.counts[full] @ gaps / self.counts.sum()) if full.any() else float("nan")


def reliability(probability: np.ndarray, right: np.ndarray, bins: int = 15) -> Reliability:
    """The reliability diagram of N answers.

    probability: (N,) of the predicted class; right: (N,) whether that is the image's class. bins: M.
    """
    edges = np.linspace(0, 1, bins + 1)
    places = np.clip(np.searchsorted(edges, probability, side="left") - 1, 0, bins - 1)
    counts = np.bincount(places, minlength=bins)
    sums = [np.bincount(places, np.asarray(values, np.float64), bins) for values in (right, probability)]
    means = [np.divide(total, counts, out=np.full(bins, np.nan), where=counts > 0) for total in sums]
    return Reliability(edges, counts, *means)
