"""Losses. Each returns (value, gradient by the logits), averaged over the batch.

Shapes: B batch, K classes; logits (B, K). A distilled model's pair of logits is taken where noted.
The value is a scalar of the logits' dtype that stays on their device; read it with float(value).
"""

from . import functional as F
from .backend import array_module, on_host
from .errors import ConfigError, InputError, ShapeError


def cross_entropy(logits, targets, label_smoothing=0.0, weight=None):
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
    log_p = F.log_softmax(logits)
    loss = -(target * log_p).sum() / total
    gradient = xp.exp(log_p) * target.sum(-1, keepdims=True) - target
    return loss, gradient / total


def mse(prediction, target):
    """L = mean (prediction − target)² over all elements,   dL = 2 (prediction − target) / their number."""
    target = array_module(prediction).asarray(target, dtype=prediction.dtype)
    if tuple(prediction.shape) != tuple(target.shape):
        raise ShapeError(f"the target has shape {target.shape}, the prediction {prediction.shape}; they must be equal")
    if prediction.size == 0:
        raise InputError("mse of an empty batch")
    difference = prediction - target
    return (difference * difference).mean(), difference * (2 / difference.size)


def hard_distillation(logits, targets, teacher_logits, alpha=0.5, label_smoothing=0.0):
    """L = (1 − α) CE(class head, targets) + α CE(distillation head, argmax of the teacher)   (DeiT, arXiv:2012.12877).

    logits: the pair that a distilled model returns on a tape; the gradient is a pair too.
    """
    logits, logits_dist = _pair(logits)
    alpha = _share(alpha)
    loss, gradient = cross_entropy(logits, targets, label_smoothing)
    loss_dist, gradient_dist = cross_entropy(logits_dist, teacher_logits.argmax(-1))
    return (1 - alpha) * loss + alpha * loss_dist, ((1 - alpha) * gradient, alpha * gradient_dist)


def soft_distillation(logits, targets, teacher_logits, alpha=0.5, tau=1.0, label_smoothing=0.0):
    """L = (1 − α) CE(class head, targets) + α τ²/(B K) Σ q log(q/p),   q, p = softmax of teacher and student over τ.

    dL/dlogits_dist = α τ (p − q) / (B K). The sum is divided by the number of elements, as in DeiT's source.
    """
    if tau <= 0:
        raise ConfigError(f"tau is a temperature and must be above 0, got {tau}")
    logits, logits_dist = _pair(logits)
    alpha, tau = _share(alpha), float(tau)
    teacher_logits = teacher_logits.astype(logits_dist.dtype)
    xp = array_module(logits)
    if logits_dist.shape != teacher_logits.shape:
        raise ShapeError(f"the teacher's logits have shape {teacher_logits.shape}, the student's {logits_dist.shape}")
    loss, gradient = cross_entropy(logits, targets, label_smoothing)
    log_p, log_q = F.log_softmax(logits_dist / tau), F.log_softmax(teacher_logits / tau)
    q = xp.exp(log_q)
    loss_dist = (q * (log_q - log_p)).sum() * (tau * tau / q.size)
    gradient_dist = (xp.exp(log_p) - q) * (alpha * tau / q.size)
    return (1 - alpha) * loss + alpha * loss_dist, ((1 - alpha) * gradient, gradient_dist)


def accuracy(logits, targets):
    """The share of rows whose largest logit is the label's (or the soft target's largest class)."""
    logits = sum(logits) if isinstance(logits, tuple) else logits
    labels = targets.argmax(-1) if targets.ndim == 2 else targets
    return (logits.argmax(-1) == labels).mean()


def _mean_over_heads(loss, heads):
    values, gradients = zip(*map(loss, heads))
    return sum(values) / len(heads), tuple(gradient / len(heads) for gradient in gradients)


def _share(alpha):
    if not 0 <= alpha <= 1:
        raise ConfigError(f"alpha is the share of the distillation loss and must lie in 0..1, got {alpha}")
    return float(alpha)


def _pair(logits):
    if not isinstance(logits, tuple) or len(logits) != 2:
        raise ConfigError("distillation needs the pair of logits of a model made with distilled=True, on a tape")
    return logits


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
