"""A toy of detection's form: inputs (images, mask), outputs in dicts, targets in a list, a figure that is a median."""

import numpy as np
from PIL import Image

from numpyvit.core import FORGET, Layer
from numpyvit.layers import Linear
from numpyvit.metrics import top_k
from numpyvit.training import Task
from numpyvit.training.inference import infer

QUERIES, CLASSES = 2, 3


class Squares:
    """Images (1, 8, 8) with up to two boxes each; the rightmost column is padding."""

    kind, name = "squares", "squares"
    classes, mean, std, image_shape = ("dark", "light"), (0.5,), (0.25,), (1, 8, 8)

    def __init__(self, count, seed=0):
        rng = np.random.default_rng(seed)
        self.images = rng.integers(0, 60, (count, 1, 8, 8)).astype(np.uint8)
        self.found = []
        for image in self.images:
            boxes = rng.integers(0, 5, (rng.integers(0, QUERIES + 1), 2))
            labels = rng.integers(0, 2, len(boxes))
            for (y, x), label in zip(boxes, labels):
                image[0, y : y + 3, x : x + 3] = 120 + 120 * label
            centers = (boxes[:, ::-1] + 1.5) / 8
            self.found.append((labels, np.concatenate([centers, np.full_like(centers, 3 / 8)], 1).astype(np.float32)))

    def __len__(self):
        return len(self.images)

    def batch(self, indices):
        mask = np.zeros((len(indices), 8, 8), bool)
        mask[:, :, 7] = True
        return self.images[indices], mask

    def targets(self, indices):
        return [{"labels": self.found[i][0], "boxes": self.found[i][1], "file": f"{i}.png"} for i in indices]

    def prepare(self, inputs, dtype):
        images, mask = inputs
        return ((images / 255 - 0.5) / 0.25 * ~mask[:, None]).astype(dtype), mask

    def take(self, indices):
        part = Squares(0)
        part.images, part.found = self.images[indices], [self.found[i] for i in np.arange(len(self))[indices]]
        return part


class Detector(Layer):
    """Two linear layers; the outputs of the first are the auxiliary ones. noise (B, 8, 8) is for training only."""

    def __init__(self, *, dtype="float32", seed=0):
        width = QUERIES * (CLASSES + 4)
        self.first = Linear(64, width, dtype=dtype, seed=seed)
        self.second = Linear(width, width, dtype=dtype, seed=seed + 1)
        for layer in (self.first, self.second):
            layer.weight.data[...] *= 5

    def forward(self, inputs, tape=FORGET):
        images, mask, *noise = inputs
        x = images[:, 0] * ~mask
        x = x + noise[0] if noise else x
        hidden = self.first.forward(x.reshape(len(x), 64), tape)
        return {**_split(self.second.forward(hidden, tape)), "aux_outputs": [_split(hidden)]}

    def backward(self, dout, tape):
        dhidden = self.second.backward(_joined(dout), tape) + _joined(dout["aux_outputs"][0])
        self.first.backward(dhidden, tape)


def _split(x):
    x = x.reshape(len(x), QUERIES, CLASSES + 4)
    return {"pred_logits": x[..., :CLASSES], "pred_boxes": x[..., CLASSES:]}


def _joined(out):
    x = np.concatenate([out["pred_logits"], out["pred_boxes"]], -1)
    return x.reshape(len(x), -1)


def _loss(out, targets):
    """Query i learns the image's box i, by squared errors, divided by the number of boxes in the batch."""
    boxes = max(1, sum(len(target["boxes"]) for target in targets))
    dlogits, dboxes = (np.zeros_like(out[name]) for name in ("pred_logits", "pred_boxes"))
    for i, target in enumerate(targets):
        n = len(target["labels"])
        wanted = np.eye(CLASSES, dtype=dlogits.dtype)[[*target["labels"], *[CLASSES - 1] * (QUERIES - n)]]
        dlogits[i] = out["pred_logits"][i] - wanted
        dboxes[i, :n] = out["pred_boxes"][i, :n] - target["boxes"]
    ce, bbox = ((d * d).sum() / (2 * boxes) for d in (dlogits, dboxes))
    return ce, bbox, {"pred_logits": dlogits / boxes, "pred_boxes": dboxes / boxes}


class ToyDetection(Task):
    best = ("median_error", False)
    curves = {"loss": ("loss",), "parts": ("ce", "bbox"), "median error": ("median_error", "hit")}
    shares = ("hit",)

    def batch(self, model, inputs, labels, rng, threads=None):
        images = inputs[0]
        return (*inputs, 0.1 * rng.standard_normal((len(images), 8, 8)).astype(images.dtype)), labels

    def loss(self, outputs, targets):
        ce, bbox, gradient = _loss(outputs, targets)
        ce_0, bbox_0, aux = _loss(outputs["aux_outputs"][0], targets)
        return ce + bbox + ce_0 + bbox_0, {**gradient, "aux_outputs": [aux]}, {"ce": ce, "bbox": bbox}

    def evaluate(self, model, dataset, *, threads=None, batch_size=256):
        every = np.arange(len(dataset))
        outputs = infer(model, dataset.prepare(dataset.batch(every), np.float32), threads)
        targets = dataset.targets(every)
        loss, _, parts = self.loss(outputs, targets)
        error = np.concatenate(
            [np.abs(found[: len(t["boxes"])] - t["boxes"]).max(-1) for found, t in zip(outputs["pred_boxes"], targets)]
        )
        figures = {"loss": loss, **parts, "median_error": np.median(error), "hit": top_k(error, 0.1)}
        return {name: float(value) for name, value in figures.items()} | {"images": len(dataset)}

    def draw(self, model, dataset, path):
        boxes = model(dataset.prepare(dataset.batch([0]), np.float32))["pred_boxes"]
        Image.fromarray((255 * boxes[0].clip(0, 1)).astype(np.uint8)).save(path)
