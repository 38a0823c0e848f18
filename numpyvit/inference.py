"""Inference on threads: shards of the batch, or the products of a single image."""

import numpy as np

from .backend import blas_threads, shared_workers
from .step import split_batch


def infer(model, x, threads=None):
    """model(x) on threads: the logits of a batch, nothing kept, nothing dropped out.

    x:       a batch of images; on a GPU the model is called as it is.
    threads: default all processors that this process may use. The result does not depend on it, the last digits of a
             single image aside: it cannot be divided, so BLAS shares its products among the threads.
    """
    workers = shared_workers(threads)
    if not isinstance(x, np.ndarray) or x.ndim == 0 or len(x) == 0:
        return model(x)
    if len(x) == 1:
        with blas_threads(workers.threads):
            return model(x)
    return np.concatenate(workers.map(lambda shard: model(x[shard]), split_batch(x, model, least=1)))
