"""How an estimator's model is trained: weighted labels, and an end where the validation does not become better."""

import numpy as np

from .. import losses
from ..backend import to_module
from ..data.loader import Loader
from ..training.classification import Classification
from ..training.evaluation import module_and_dtype
from ..training.inference import infer
from ..training.loop import Trainer
from ..training.records import best_record


class WeightedClassification(Classification):
    """Cross-entropy in which image i counts wᵢ-fold:   L = −1/B Σᵢ wᵢ Σₖ tᵢₖ log pᵢₖ. Targets are (labels, weights)."""

    per_image, shares_evaluation = False, False

    def loss(self, outputs, targets):
        labels, weights = targets
        B, K = outputs.shape
        shares = np.full((B, K), self.label_smoothing / K, outputs.dtype)
        shares[np.arange(B), labels] += 1 - self.label_smoothing
        return losses.cross_entropy(outputs, shares * weights[:, None])

    def score(self, outputs, targets):
        labels, weights = targets
        return {"right": weights[outputs.argmax(-1) == labels].sum(), "weight": weights.sum()}

    def summary(self, sums, count):
        return {"accuracy": float(sums["right"]) / float(sums["weight"])}

    def evaluate(self, model, dataset, *, threads=None, batch_size=256):
        """The weighted loss, without label smoothing, and the weighted accuracy."""
        xp, dtype = module_and_dtype(model)
        loss, right = 0.0, 0.0
        for images, (labels, weights) in Loader(dataset, batch_size, dtype=dtype).epoch():
            logits = infer(model, to_module(images, xp), threads)
            loss += float(WeightedClassification().loss(logits, (labels, weights))[0]) * len(labels)
            right += float(self.score(logits, (labels, weights))["right"])
        total = float(dataset.weights.sum())
        return {"loss": loss / total, "accuracy": right / total}


class PatientTrainer(Trainer):
    """A Trainer that ends after `patience` epochs without a better validation, with the best weights.

    Without a validation set it trains all epochs and keeps the last weights.
    """

    patience = 10
    _best = None  # the best record and its weights

    def run(self):
        super().run()
        if self._best is not None:
            self.model.load_state_dict(self._best[1])
        return self.records

    def _finish_epoch(self):
        super()._finish_epoch()
        if self.val is not None and best_record(self.records, self.task.best) is self.records[-1]:
            self._best = self.records[-1], self.model.state_dict()

    def _finished(self):
        late = self._best is not None and len(self.records) - self._best[0]["epoch"] >= self.patience
        return late or super()._finished()
