"""Boxes with classes: what a detector is trained for."""

import time
from collections.abc import Mapping, Sequence

import numpy as np

from .. import losses, viz
from ..backend import Array, to_host
from ..data.detection import normalize_padded, own_sizes, pad
from ..data.detection_folder import fitted_size
from ..data.images import look_at, read_image
from ..data.loader import Loader
from ..errors import ConfigError, DataError
from ..functional import softmax
from ..metrics import best_classes, flatten_detections, score_by_class, score_detections, to_pixels
from ..models import class_names
from .evaluation import check_images, check_number_of_classes, module_and_dtype, over_batches
from .inference import infer
from .nested import each, to_device
from .task import Result, Task

_BATCH = 32  # images at a time in evaluation: padded to one size, they take more memory than those of a classifier
_SAMPLES = 12  # images of a set that are drawn
_SIDES = ("left", "top", "right", "bottom")
_LIKELY = 1e-3  # the least probability of a class that counts where every class of a query does
_NO_OBJECT = 10.0  # the weight of all queries that find nothing: 100 of 0.1
_DRAWN = 0.5  # the least score of a box that is drawn


class Detection(Task):
    """The set loss of DETR (see losses.detection), scored by COCO's figures.

    A model that takes denoising queries is given `groups` copies of the boxes with label_noise and box_noise (see
    losses.denoising_queries); groups=0 leaves them out.
    no_object: weight of "no object" in the loss; None follows from the number of queries, so that all of them together
               weigh what the paper's 100 do with its 0.1: with fewer and 0.1, several queries find one object.

    The loss of training is that of every decoder layer and of denoising queries, the loss of `evaluate` that of the
    last layer. Its terms "ce", "bbox" and "giou" are of the last layer in both, so they can be compared.
    """

    best = ("AP", True)
    curves = {
        "loss: training of every layer, validation of the last": ("loss",),
        "terms of the loss of the last layer": ("ce", "bbox", "giou"),
        "average precision": ("AP", "AP50"),
    }
    shares = ("AP", "AP50", "AP75", "AP_small", "AP_medium", "AP_large")
    shares_evaluation = True
    results, columns, draws_results = "boxes", ("class", "index", "score", *_SIDES), True
    per_image = True

    def __init__(
        self,
        groups: int = 5,
        label_noise: float = 0.2,
        box_noise: float = 0.4,
        no_object: float | None = None,
    ):
        self.groups, self.label_noise, self.box_noise, self.no_object = groups, label_noise, box_noise, no_object

    def config(self):
        return {**super().config(), **vars(self)}

    def check(self, model, dataset):
        if getattr(model, "kind", None) != "detection":
            raise ConfigError(
                f"the data has boxes, which a {type(model).__name__} does not find; "
                "take a detector, such as detr_micro_64"
            )
        check_images(model, dataset)
        check_number_of_classes(model, dataset)

    def most(self, labels):
        """The most boxes of an image, from which the number of denoising queries follows."""
        return max((len(target["labels"]) for target in labels), default=0)

    def batch(self, model, inputs, labels, rng, threads=None, most=None):
        """-> (images, mask) or (images, mask, denoising queries), targets."""
        if not (self.groups and model.takes_denoising):
            return inputs, labels
        queries = losses.denoising_queries(
            labels, model.num_classes, rng, self.groups, self.label_noise, self.box_noise, most
        )
        return (*inputs, to_device(queries, module_and_dtype(model)[0])), labels

    def loss(self, outputs, targets):
        no_object = self.no_object
        if no_object is None:
            no_object = min(1.0, _NO_OBJECT / outputs["pred_logits"].shape[1])
        value, gradient, parts = losses.detection(outputs, targets, return_parts=True, no_object=no_object)
        return value, gradient, {name: parts[name] for name in ("ce", "bbox", "giou")}

    def evaluate(
        self,
        model,
        dataset,
        *,
        threads=None,
        batch_size=_BATCH,
        per_class=False,
        per_image=False,
        progress=False,
        group=None,
    ):
        """The loss of the last layer with its terms, and COCO's figures, with per_class also those of each class.

        per_image: also "per_image", what was found and what is true, see metrics.flatten_detections.
        """
        self.check(model, dataset)
        xp, dtype = module_and_dtype(model)

        def look(inputs, targets):
            outputs = each(to_host, infer(model, to_device(inputs, xp), threads))
            value, _, parts = self.loss(outputs, targets)
            sums = np.multiply((value, *parts.values()), len(targets))
            return sums, detections(outputs, [target["size"] for target in targets], model.scores_every_class)

        start = time.perf_counter()
        looks = over_batches(look, Loader(dataset, min(batch_size, _BATCH), dtype=dtype), group, progress)
        found, true = [one for _, of_batch in looks for one in of_batch], dataset.targets(np.arange(len(dataset)))
        seconds, count = time.perf_counter() - start, len(dataset)
        sums = np.sum([of_batch for of_batch, _ in looks], axis=0)
        figures = {
            **dict(zip(("loss", "ce", "bbox", "giou"), (sums / count).tolist())),
            **score_detections(found, true),
            "images": count,
            "seconds": seconds,
            "images_per_second": count / seconds,
        }
        if per_class:
            by_class = score_by_class(found, true)
            figures["per_class"] = [{"class": dataset.classes[label], **own} for label, own in by_class.items()]
        if per_image:
            figures["per_image"] = flatten_detections(found, true)
        return figures

    def report(self, model, figures):
        shown = {name: figures[name] for name in ("AP", "AP50", "AP75", "loss") if figures[name] is not None}
        line = f"{self.describe(shown)} on {figures['images']:,} images, {figures['images_per_second']:.0f} img/s"
        return line + _table(figures["per_class"]) if "per_class" in figures else line

    def draw(self, model, dataset, path):
        """The first images of a set with found and true boxes."""
        rows = np.arange(min(_SAMPLES, len(dataset)))
        (images, mask), targets = dataset.batch(rows), dataset.targets(rows)
        xp, dtype = module_and_dtype(model)
        outputs = each(to_host, infer(model, to_device(dataset.prepare((images, mask), dtype), xp)))
        found = detections(outputs, [target["size"] for target in targets])
        own = [image[:, :height, :width] for image, (height, width) in zip(images, own_sizes(mask))]
        sizes = [target["size"] for target in targets]
        viz.draw_boxes(own, path, dataset.classes, found=found, true=targets, sizes=sizes, least=_DRAWN)

    # -- images of one's own

    def read(self, model, path):
        """-> (pixels, (height, width) of the stored image)."""
        size = look_at([path])[0]
        if isinstance(size, str):
            raise DataError(size)
        return read_image(path, fitted_size(size, model.data_size), model.input_shape[0], interpolation="squash"), size

    def predict(self, model, images, *, threads=None, top=None, run=None):
        pixels, sizes = zip(*images)
        xp, _ = module_and_dtype(model)
        how = model.preprocessing
        x = to_device(normalize_padded(*pad(pixels), how.mean, how.std), xp)
        outputs = each(to_host, infer(model, x, threads) if run is None else run(x))
        names = class_names(model)
        return [_results(found, names, top) for found in detections(outputs, sizes)]

    def draw_result(self, model, image, results, path):
        pixels, size = image
        found = {
            "scores": [result["score"] for result in results],
            "labels": [result["index"] for result in results],
            "boxes": [[result[side] for side in _SIDES] for result in results],
        }
        viz.draw_boxes([pixels], path, class_names(model), found=[found], sizes=[size], least=_DRAWN, tile_size=800)

    def show_result(self, result: Result) -> str:
        return "{score:7.2%}  {class}  {left:.0f},{top:.0f} to {right:.0f},{bottom:.0f}".format(**result)


def detections(outputs: Mapping[str, Array], sizes: Sequence[tuple[int, int]], every_class: bool = False) -> list:
    """What a detector found, an entry a query: [{"scores": (Q,), "labels": (Q,), "boxes": (Q, 4)}, …].

    The label is the class of highest probability, "no object" aside, and the score its probability; with every_class
    there is an entry for each class of a query that is likely by a thousandth. Boxes are left, top, right, bottom in
    pixels of images of `sizes`, [(height, width), …].
    """
    if every_class:
        found = zip(softmax(outputs["pred_logits"])[..., :-1], outputs["pred_boxes"], sizes)
        return [_of_every_class(*image) for image in found]
    labels, scores = best_classes(outputs["pred_logits"])
    return [
        {"scores": of_image, "labels": label, "boxes": to_pixels(boxes, size)}
        for of_image, label, boxes, size in zip(scores, labels, outputs["pred_boxes"], sizes)
    ]


def _of_every_class(p, boxes, size):
    query, label = np.nonzero(p >= _LIKELY)
    return {"scores": p[query, label], "labels": label, "boxes": to_pixels(boxes[query], size)}


def _table(rows):
    """The figures of each class, a line each."""
    width = max(len("class"), *(len(row["class"]) for row in rows))
    lines = [f"\n\n{'class':{width}}   boxes       AP     AP50     AP75"]
    for row in rows:
        figures = "  ".join("   none" if row[name] is None else f"{row[name]:7.2%}" for name in ("AP", "AP50", "AP75"))
        lines.append(f"{row['class']:{width}}  {row['boxes']:6,}  {figures}")
    return "\n".join(lines)


def _results(found, names, top) -> list[Result]:
    """The boxes that score enough, best first, as people read them."""
    order = [i for i in np.argsort(-found["scores"], kind="stable") if found["scores"][i] >= _DRAWN]
    return [
        {
            "class": names[found["labels"][i]],
            "index": int(found["labels"][i]),
            "score": float(found["scores"][i]),
            **dict(zip(_SIDES, found["boxes"][i].round(2).tolist())),
        }
        for i in order[:top]
    ]
