"""Inference on threads: shards of the batch, or the products of a single image."""

import numpy as np

from ..backend import as_array, blas_threads, on_host, shared_workers
from ..core import Layer
from . import shards
from .nested import Nested, first_array, join, take
from .shards import Sharding


def infer(model: Layer, x: Nested, threads: int | None = None, sharding: Sharding | None = None) -> Nested:
    """model(x) on threads: the outputs for a batch, nothing kept, nothing dropped out.

    x:       a batch of images, also of another library (see backend.as_array), or a nesting such as (images, mask);
             on a GPU the model is called as it is.
    threads: default all processors that this process may use. The result does not depend on it, the last digits of a
             single image aside: it cannot be divided, so BLAS shares its products among the threads.
    """
    x = as_array(x)
    workers, images = shared_workers(threads), first_array(x)
    if not isinstance(images, np.ndarray) or images.ndim == 0 or len(images) == 0 or not on_host(images):
        return model(x)
    if len(images) == 1:
        with blas_threads(workers.threads):
            return model(x)
    parts = (sharding or shards.DEFAULT).split(x, model, least=1)
    return join(workers.map(lambda part: model(take(x, part)), parts))
