"""Cross-entropy, and the mean squared error.

Shapes: B batch, K classes; logits (B, K).
"""

from .. import functional as F
from ..backend import Array, array_module, on_host
from ..errors import ConfigError, InputError, ShapeError


def cross_entropy(
    logits: Array | tuple[Array, ...], targets: Array, label_smoothing: float = 0.0, weight: Array | None = None
) -> tuple:
    """L = −1/Z Σᵢ Σₖ wₖ tᵢₖ log pᵢₖ,   p = softmax(logits),   t = (1 − ε) target + ε/K.

    dL/dlogitsᵢₖ = (pᵢₖ Σⱼ wⱼ tᵢⱼ − wₖ tᵢₖ) / Z.

    targets:         class indices (B,), or soft targets (B, K).
    label_smoothing: ε (Szegedy et al. 2015, arXiv:1512.00567, §7).
    weight:          (K,), one factor a class. Z is Σᵢ w of the label for indices, B for soft targets, as in PyTorch.
    A pair of logits gives the mean of the two losses and a pair of gradients.
    Errors: InputError for labels outside 0..K−1 or an empty batch, ShapeError for targets of another shape.
    """
    if isinstance(logits, tuple):
        return _mean_over_heads(lambda head: cross_entropy(head, targets, label_smoothing, weight), logits)
    xp, (B, K) = array_module(logits), _logits_shape(logits)
    label_smoothing = float(label_smoothing)
    if not 0 <= label_smoothing <= 1:
        raise ConfigError(f"label_smoothing must lie in 0..1, got {label_smoothing}")
    target, soft = _as_distribution(targets, logits)
    if label_smoothing:
        target = target * (1 - label_smoothing) + label_smoothing / K
    total = B
    if weight is not None:
        weight = xp.asarray(weight, dtype=logits.dtype)
        if weight.shape != (K,):
            raise ShapeError(f"weight has shape {weight.shape}, expected one number for each of the {K} classes")
        total = B if soft else weight[xp.asarray(targets)].sum()
        if on_host(weight) and not total > 0:
            raise InputError("the weights of all labels in the batch are 0, so their mean is not defined")
        target = target * weight
    return F.softmax_cross_entropy(logits, target, total)


def mse(prediction: Array, target: Array) -> tuple[Array, Array]:
    """L = mean (prediction − target)² over all elements,   dL = 2 (prediction − target) / their number."""
    target = array_module(prediction).asarray(target, dtype=prediction.dtype)
    if tuple(prediction.shape) != tuple(target.shape):
        raise ShapeError(f"the target has shape {target.shape}, the prediction {prediction.shape}; they must be equal")
    if prediction.size == 0:
        raise InputError("mse of an empty batch")
    difference = prediction - target
    return (difference * difference).mean(), difference * (2 / difference.size)


def _mean_over_heads(loss, heads):
    values, gradients = zip(*map(loss, heads))
    return sum(values) / len(heads), tuple(gradient / len(heads) for gradient in gradients)


def _logits_shape(logits):
    if logits.ndim != 2:
        raise ShapeError(f"logits have shape {logits.shape}, expected (batch, classes)")
    if logits.shape[0] == 0 or logits.shape[1] == 0:
        raise InputError(f"cross_entropy of an empty batch (logits of shape {logits.shape})")
    return logits.shape


def _as_distribution(targets, logits):
    """-> targets as an array (B, K) of the logits' dtype, and whether they were soft."""
    xp, (B, K) = array_module(logits), logits.shape
    targets = targets if hasattr(targets, "dtype") else xp.asarray(targets)
    if targets.shape == (B, K) and targets.dtype.kind == "f":
        if on_host(targets) and not (targets >= 0).all():
            raise InputError("soft targets hold NaN or negative shares; each row must be a distribution")
        return targets.astype(logits.dtype), True
    if targets.shape != (B,) or targets.dtype.kind not in "iu":
        raise ShapeError(
            f"targets of shape {targets.shape} and type {targets.dtype} do not fit logits of shape {(B, K)}; "
            f"expected class indices of shape ({B},) or soft floating-point targets of shape ({B}, {K})"
        )
    if on_host(targets) and not (targets.min() >= 0 and targets.max() < K):  # on a device the look would stall the step
        outside = targets[(targets < 0) | (targets >= K)][0]
        raise InputError(f"label {outside} lies outside the classes 0..{K - 1}; check num_classes and the labels")
    one_hot = xp.zeros((B, K), dtype=logits.dtype)
    one_hot[xp.arange(B), targets] = 1
    return one_hot, False
