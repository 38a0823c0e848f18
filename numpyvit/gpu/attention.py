"""Attention that reads queries, keys and values where they lie, such as in a packed (B, N, 3, H, d), and needs no
copies of heads. Scores are kept, as backward wants them; with a bias or dropout on the probabilities the formula runs.
"""

from collections.abc import Sequence

from ..backend import Array, array_module
from .program import THREADS, blocks, launch, struct
from .table import device_kernel, served

# as in cuda/attention.cu
_SIDE, _SLICE, _KEYS, _DEPTHS = 16, 32, 5, 4
_FEW = _SIDE  # queries, for which a tile has 16 rows instead of 80


@device_kernel
def attention(
    q: Array, k: Array, v: Array, scale: float, bias: Array | None = None, keep: Array | None = None
) -> tuple[Array, Array]:
    if bias is not None or keep is not None or not _are_heads(q, k, v):
        return NotImplemented
    xp, (B, H, N, d), M = array_module(q), q.shape, k.shape[2]
    out = xp.empty((B, N, H, d), dtype=q.dtype).transpose(0, 2, 1, 3)  # so that join_heads moves nothing
    p = xp.empty((B, H, N, M), dtype=q.dtype)
    sizes, rows = _sizes(q, k, v, out), _tile_rows(N)
    name = f"attention_{rows}"
    launch(name, (B * H * blocks(N, _SIDE * rows),), (THREADS,), q, k, v, out, p, sizes, float(scale), **_shared(rows))
    return out, p


@device_kernel
def attention_backward(
    dout: Array,
    q: Array,
    k: Array,
    v: Array,
    p: Array,
    scale: float,
    keep: Array | None = None,
    out: Sequence[Array] | None = None,
) -> tuple[Array, Array, Array, Array]:
    if keep is not None or not _are_heads(dout, q, k, v) or not served(p):
        return NotImplemented
    dq, dk, dv = _packed_like(q, k) if out is None else out
    if not _are_heads(dq, dk, dv):
        return NotImplemented
    xp, (B, H, N, _), M = array_module(q), q.shape, k.shape[2]
    ds = xp.empty(p.shape, dtype=p.dtype)
    sizes, rows, scale = _sizes(q, k, v, dout), _tile_rows(N), float(scale)
    grid, arguments = (B * H * blocks(N, _SIDE * rows),), (dout, k, v, p, dq, ds, sizes, _strides(dq), scale)
    launch(f"attention_backward_{rows}", grid, (THREADS,), *arguments, **_shared(rows))
    grid, arguments = (B * H * blocks(M, _SIDE * _KEYS), 2), (dout, q, p, ds, dk, dv, sizes)
    arguments = (*arguments, _strides(dk), _strides(dv), scale)
    launch("attention_backward_keys", grid, (THREADS,), *arguments, **_shared(_KEYS))
    return dq, dk, dv, ds


def _packed_like(q, k):
    """Room for dq, dk and dv in one (B, N, 3, H, d), or where there are fewer queries dq apart."""
    xp, (B, H, N, d), M = array_module(q), q.shape, k.shape[2]
    if N == M:
        return tuple(xp.empty((B, N, 3, H, d), dtype=q.dtype).transpose(2, 0, 3, 1, 4))
    return (
        xp.empty((B, N, H, d), dtype=q.dtype).transpose(0, 2, 1, 3),
        *xp.empty((B, M, 2, H, d), dtype=q.dtype).transpose(2, 0, 3, 1, 4),
    )


def _are_heads(*arrays):
    """Whether kernels can read these (B, H, N, d), of which the numbers of a token must lie together."""
    return all(
        array.ndim == 4 and array.dtype.char == "f" and 0 < array.size < 2**31 and array.strides[3] == 4
        for array in arrays
    )


def _tile_rows(queries):
    return 1 if queries <= _FEW else _KEYS


def _shared(rows):
    """Of a slice of a product's operands, see `product`: the widest tile has as many columns as keys."""
    return {"shared_floats": _SLICE * ((_SIDE * rows + 1) + (_SIDE * max(_KEYS, _DEPTHS) + 1))}


def _sizes(q, k, v, out):
    (_, H, N, d), M = q.shape, k.shape[2]
    places = {name: _distances(array) for name, array in (("q", q), ("k", k), ("v", v), ("out", out))}
    return struct(heads=H, queries=N, keys=M, depth=d, **places)


def _strides(array):
    return struct(strides=_distances(array))


def _distances(array):
    """Of images, heads and tokens in memory, in numbers: what the kernels call Strides."""
    return tuple(stride // 4 for stride in array.strides[:3])
