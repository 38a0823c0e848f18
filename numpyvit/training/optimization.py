"""From the settings to an optimizer and a schedule of its learning rate."""

from collections.abc import Callable

from ..core import Layer
from ..optim import SGD, AdamW, Optimizer, constant_schedule, cosine_schedule, layer_decay, step_schedule
from .settings import Settings


def make_optimizer(model: Layer, settings: Settings) -> Optimizer:
    factors = layer_decay(model, settings.layer_decay) if settings.layer_decay else None
    common = {"lr": settings.lr, "weight_decay": settings.weight_decay, "lr_scale": factors}
    if settings.optimizer == "sgd":
        return SGD(model, momentum=settings.momentum, **common)
    return AdamW(model, **common)


def make_schedule(settings: Settings, total_steps: int) -> Callable[[int], float]:
    lr, warmup = settings.lr, settings.warmup_steps
    if settings.schedule == "cosine":
        return cosine_schedule(lr, total_steps, warmup)
    if settings.schedule == "constant":
        return constant_schedule(lr, warmup)
    if settings.schedule == "step":
        return step_schedule(lr, max(1, int(total_steps * 0.6)), 0.1, warmup)
