"""A model with what a server asks of it."""

import base64
import io
import os
from typing import Any, BinaryIO

import numpy as np

from ..errors import ConfigError
from ..metrics import to_pixels
from ..models import Model, class_names
from ..training.evaluation import module_and_dtype
from ..training.nested import to_device
from ..training.predictor import prepared
from ..training.task import task_for
from ..viz import attends_to_all, attention_of_heads, attention_windows, rollout_windows

_SMALL = 64  # pixels of a side, up to which an image is sent without loss
_QUALITY = 92  # of JPEG


class Served:
    """A model, how images are read for it, what it finds in them and what it looks at.

    notes: what its checkpoint says of it. threads: for inference. A benchmark puts another library's model behind the
    same server by a subclass with another `predict`.
    """

    def __init__(self, model: Model, notes: dict | None = None, threads: int | None = None):
        if model.num_classes == 0:
            raise ConfigError("the model has no classes to predict, only features; serve another checkpoint")
        self.model, self.notes, self.run = model, notes or {}, prepared(model, threads)
        self.task = task_for(model)
        self._looked = None  # the last image, and what each layer looked at

    def info(self) -> dict:
        """What the page and clients may know of it."""
        layers = self.model.cross_attention_layers or self.model.attention_layers
        return {
            "model": self.model.build_config.get("model", type(self.model).__name__),
            "kind": self.model.kind,
            "classes": class_names(self.model),
            "input_shape": list(self.model.input_shape),
            "attention": {"layers": len(layers), "rollout": attends_to_all(self.model)} if layers else None,
            "epoch": self.notes.get("epoch"),
        }

    def read(self, source: str | os.PathLike | BinaryIO) -> Any:
        """An image file as `predict` and `look` take it. Errors: DataError."""
        return self.task.read(self.model, source)

    def predict(self, requests: list) -> list:
        """[(image, at most so many results or None), …] -> [what is found in it, for people and for JSON, …]."""
        images, tops = zip(*requests)
        tops = [top or self.task.top for top in tops]
        most = None if None in tops else max(tops)
        found = self.task.predict(self.model, list(images), top=most, run=self.run)
        return [{self.task.results: results[:top]} for results, top in zip(found, tops)]

    def look(self, requests: list) -> list:
        """[(image, layer, head, rollout), …] -> [what the model looks at, for JSON, …]; see docs/serve.md.

        layer, head: counted from 1; None: the last layer, all heads. Errors: ConfigError where there are none such.
        One thread at a time may call this: all layers of the last image are kept for the next question.
        """
        return [self._look(*request) for request in requests]

    def _look(self, image, layer, head, rollout):
        layers = self._layers(image)
        if rollout and not self.model.cross_attention_layers:
            return {"layer": None, "head": None, **_windows(rollout_windows(layers))}
        layer = _place("layer", len(layers) if layer is None else layer, len(layers))
        if head is not None:
            own = self.model.cross_attention_layers or self.model.attention_layers
            _place("head", head, own[layer].num_heads)
        heads = slice(None) if head is None else slice(head - 1, head)
        shown = {"layer": layer + 1, "head": head}
        if self.model.cross_attention_layers:
            return {**shown, **self._queries(*layers[layer], heads, _stored_size(image, self.pixels(image)))}
        return {**shown, **_windows(layers[layer], heads)}

    def _layers(self, image):
        """What each layer looks at in an image."""
        pixels = self.pixels(image)
        if self._looked is None or not np.array_equal(self._looked[0], pixels):
            x = to_device(self.model.preprocessing.normalize(pixels[None]), module_and_dtype(self.model)[0])
            look = attention_of_heads if self.model.cross_attention_layers else attention_windows
            self._looked = pixels, look(self.model, x)
        return self._looked[1]

    def _queries(self, found, maps, heads, size):
        """What the queries look at whose boxes were found, with their boxes in pixels of the stored image."""
        chosen, names = found.best(maps.shape[1]), class_names(self.model)
        edges = to_pixels(found.boxes[chosen], size).round(2).tolist()
        queries = [
            {
                "query": query + 1,
                "class": names[found.labels[query]],
                "index": int(found.labels[query]),
                "score": float(found.scores[query]),
                **dict(zip(("left", "top", "right", "bottom"), box)),
            }
            for query, box in zip(chosen, edges)
        ]
        return {"grid": list(maps.shape[2:]), "queries": queries, **_packed(maps[heads][:, chosen])}

    def pixels(self, image: Any) -> np.ndarray:
        """(C, H, W) uint8, the image as the model sees it."""
        return image[0] if isinstance(image, tuple) else image

    def picture(self, image: Any) -> dict:
        """The image as the model sees it, as a data URL for a page, and the size of the stored one."""
        from PIL import Image

        pixels = self.pixels(image)
        form = "PNG" if max(pixels.shape[1:]) <= _SMALL else "JPEG"
        shown = Image.fromarray(pixels[0] if len(pixels) == 1 else pixels.transpose(1, 2, 0))
        shown.save(buffer := io.BytesIO(), form, **({"quality": _QUALITY} if form == "JPEG" else {}))
        url = f"data:image/{form.lower()};base64,{base64.b64encode(buffer.getvalue()).decode()}"
        height, width = _stored_size(image, pixels)
        return {"url": url, "width": width, "height": height}


def _stored_size(image, pixels):
    """(height, width) in which boxes are counted; the pixels' own where the task keeps no other."""
    return image[1] if isinstance(image, tuple) else pixels.shape[1:]


def _place(kind, number, count):
    """A number counted from 1 -> from 0."""
    if not 1 <= number <= count:
        raise ConfigError(f"{kind} {number}: there are {count}, counted from 1")
    return number - 1


def _windows(attention, heads=slice(None)):
    return {
        "grid": list(attention.grid),
        "tokens": attention.tokens.tolist(),
        **_packed(attention.probabilities[heads]),
    }


def _packed(values):
    """Numbers in 0..1 as base64 of 16-bit integers, little-endian, 65535 for 1."""
    numbers = np.rint(np.clip(values, 0, 1) * 65535).astype("<u2")
    return {"shape": list(numbers.shape), "values": base64.b64encode(numbers.tobytes()).decode()}
