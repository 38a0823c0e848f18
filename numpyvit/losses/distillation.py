"""DeiT's two ways of learning from a teacher   (Touvron et al. 2020, arXiv:2012.12877, §3)."""

from .. import functional as F
from ..backend import Array, array_module
from ..errors import ConfigError, ShapeError
from .classification import cross_entropy


def hard_distillation(
    logits: tuple[Array, Array], targets: Array, teacher_logits: Array, alpha: float = 0.5, label_smoothing: float = 0.0
) -> tuple[Array, tuple[Array, Array]]:
    """L = (1 − α) CE(class head, targets) + α CE(distillation head, argmax of the teacher)   (DeiT, arXiv:2012.12877).

    logits: the pair that a distilled model returns on a tape; the gradient is a pair too.
    """
    logits, logits_dist = _pair(logits)
    alpha = _share(alpha)
    loss, gradient = cross_entropy(logits, targets, label_smoothing)
    loss_dist, gradient_dist = cross_entropy(logits_dist, teacher_logits.argmax(-1))
    return (1 - alpha) * loss + alpha * loss_dist, ((1 - alpha) * gradient, alpha * gradient_dist)


def soft_distillation(
    logits: tuple[Array, Array],
    targets: Array,
    teacher_logits: Array,
    alpha: float = 0.5,
    tau: float = 1.0,
    label_smoothing: float = 0.0,
) -> tuple[Array, tuple[Array, Array]]:
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


def _share(alpha):
    if not 0 <= alpha <= 1:
        raise ConfigError(f"alpha is the share of the distillation loss and must lie in 0..1, got {alpha}")
    return float(alpha)


def _pair(logits):
    if not isinstance(logits, tuple) or len(logits) != 2:
        raise ConfigError("distillation needs the pair of logits of a model made with distilled=True, on a tape")
    return logits
