"""Inference on threads: shards of the batch, or of the tokens where there is one image."""

import threading

import numpy as np

from .core import FORGET, Forget, own_forward
from .layers import GELU, Attention, Block, Dropout, Identity, LayerNorm, LayerScale, Linear, Mlp, ReLU, Tanh
from .models import VisionTransformer
from .step import MAX_SHARDS, shared_workers, split, split_batch

_MIN_TOKENS = 96  # a product with fewer rows spends its time rearranging the weights


def infer(model, x, threads=None):
    """model(x) on threads: the logits of a batch, nothing kept, nothing dropped out.

    x:       a batch of images; on a GPU the model is called as it is.
    threads: default all processors that this process may use; the result does not depend on it.
    """
    workers = shared_workers(threads)
    if not isinstance(x, np.ndarray) or x.ndim == 0 or len(x) == 0:
        return model(x)
    if len(x) > 1 or not _works_by_tokens(model):
        return np.concatenate(workers.map(lambda shard: model(x[shard]), split_batch(x, least=1)))
    (x,) = workers.map(model.embed, [x], [FORGET])
    shards = split(x.shape[1], min(MAX_SHARDS, x.shape[1] // _MIN_TOKENS))
    pooled, team = model.num_pooled_tokens, _Team(len(shards), workers.threads)

    def encode(place):
        """The tokens of this shard that the head reads: the class token is in the first, so the others have none."""
        tokens = None if pooled is None else pooled if place == 0 else 0
        with team.running:
            return model.encode(_features_first(x[:, shards[place]]), _Member(team, place), tokens)

    x = np.concatenate(workers.together(encode, len(shards), team.barrier.abort), axis=1)
    (logits,) = workers.map(model.classify, [x], [FORGET])
    return logits


def _works_by_tokens(model):
    """Whether each layer in the blocks is known to work token by token, or to gather what it needs of the others.

    A layer with a forward of its own may mix tokens in other ways; then the image is not divided.
    """
    if not isinstance(model, VisionTransformer):
        return False
    layers = [layer for block in model.blocks for _, layer in block.named_layers()]
    own = type(model).forward, type(model).encode
    return own == (VisionTransformer.forward, VisionTransformer.encode) and all(
        own_forward(layer) in _BY_TOKENS and (not isinstance(layer, Attention) or layer.by_tokens()) for layer in layers
    )


_KINDS = (Attention, Block, Dropout, GELU, Identity, LayerNorm, LayerScale, Linear, Mlp, ReLU, Tanh)
_BY_TOKENS = {kind.forward for kind in _KINDS}


def _features_first(x):
    """The same (B, N, D), in memory (B, D, N): a product with few rows is then a fifth faster.

    BLAS need not rearrange an operand, and the layers keep the order that they find.
    """
    return np.ascontiguousarray(x.transpose(0, 2, 1)).transpose(0, 2, 1)


class _Team:
    """Passes that hold some tokens each and show each other their keys and values; `threads` of them run at a time."""

    def __init__(self, size, threads):
        self.barrier, self.running = threading.Barrier(size), threading.Semaphore(threads)
        self.boards = [None] * size, [None] * size

    def meet(self):
        """Wait until all are here."""
        self.running.release()
        try:
            self.barrier.wait()
        finally:
            self.running.acquire()


class _Member(Forget):
    """The tape of one of them, which keeps nothing."""

    def __init__(self, team, place):
        super().__init__()
        self.team, self.place, self.meetings = team, place, 0

    def gather(self, *arrays):
        board = self.team.boards[self.meetings % 2]  # in turn: who is early must not overwrite what others still read
        self.meetings += 1
        board[self.place] = arrays
        self.team.meet()
        return tuple(np.concatenate(parts, axis=-2) for parts in zip(*board))
