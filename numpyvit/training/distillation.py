"""DeiT's way to learn from another model   (Touvron et al. 2020, arXiv:2012.12877, §3)."""

from functools import partial

from .. import losses
from ..core import Layer
from ..errors import ConfigError
from .classification import Classification
from .evaluation import check_images, known_classes
from .inference import infer


class Distillation(Classification):
    """Classification by a model made with distilled=True, whose second head learns what a teacher says.

    teacher: a model of the same classes. It is given the augmented images, normalized as for the student.
    kind:    "hard", the teacher's most likely class as the label, or "soft", its logits over the temperature tau.
    alpha:   share of the teacher in the loss.
    """

    def __init__(
        self, teacher: Layer, kind: str = "hard", alpha: float = 0.5, tau: float = 1.0, label_smoothing: float = 0.0
    ):
        if kind not in ("hard", "soft"):
            raise ConfigError(f"distillation must be 'hard' or 'soft', got {kind!r}")
        super().__init__(label_smoothing)
        self.teacher, self.kind, self.alpha, self.tau = teacher, kind, alpha, tau
        if kind == "hard":
            self.loss_of_pair = partial(losses.hard_distillation, alpha=alpha, label_smoothing=label_smoothing)
        else:
            self.loss_of_pair = partial(losses.soft_distillation, alpha=alpha, tau=tau, label_smoothing=label_smoothing)

    def config(self):
        return {**super().config(), "kind": self.kind, "alpha": self.alpha, "tau": self.tau}

    def check(self, model, dataset):
        super().check(model, dataset)
        if not getattr(model, "distilled", False):
            raise ConfigError(
                "distillation needs a student with a second head; take a distilled preset or distilled=True"
            )
        check_images(self.teacher, dataset)
        if self.teacher.num_classes != model.num_classes:
            raise ConfigError(
                f"the teacher has {self.teacher.num_classes} outputs, the student {model.num_classes}; "
                "take a teacher of the same classes"
            )
        names = known_classes(self.teacher)
        if names is not None and names != list(dataset.classes):
            raise ConfigError(
                f"the teacher's classes ({', '.join(map(str, names[:5]))}, …) are not those of the data "
                f"({', '.join(map(str, dataset.classes[:5]))}, …); take a teacher of the same classes in the same order"
            )

    def batch(self, model, inputs, labels, rng, threads=None):
        """-> inputs, (labels, the teacher's logits)."""
        return inputs, (labels, infer(self.teacher, inputs, threads))

    def loss(self, outputs, targets):
        return self.loss_of_pair(outputs, *targets)

    def score(self, outputs, targets):
        return super().score(outputs, targets[0])
