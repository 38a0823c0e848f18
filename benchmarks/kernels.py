"""What each kernel gains over the formula that it stands in for:

    python -m benchmarks.kernels [NAME ...] [--rounds N]

Arguments are those of a block of vit_tiny on 64 small images and on one large one, each side's as its own products lay
them out; those of a convolution are of ResNet's first stage, on an eighth of the images. Formula and kernel take turns
on one thread, each begun with a run that does not count. Counted is the thread's own time, which other work on the
machine disturbs least. Gains are medians of the turns' ratios, in brackets the ratio of the minima.
"""

import argparse
import functools
import itertools
import statistics
import time

import numpy as np

import numpyvit as nv
from numpyvit import functional as F
from numpyvit.kernels import SETS

_WIDTH, _HIDDEN, _HEADS = 192, 768, 3
_BATCHES = {"64 images": (64, 65), "1 image": (1, 197)}  # images and tokens
_TURN = 0.02  # seconds


@functools.lru_cache(maxsize=len(SETS))
def calls(chosen, images, tokens, dtype):
    """The arguments of each kernel as a block calls it, made with the chosen set."""
    rng = np.random.default_rng(0)

    def normal(*shape):
        return rng.standard_normal(shape).astype(dtype)

    def product(width):
        return F.linear(normal(images, tokens, _WIDTH), normal(width, _WIDTH) * _WIDTH**-0.5)

    with nv.kernels(chosen):
        x, dy, hidden, scale = product(_WIDTH), product(_WIDTH), product(_HIDDEN), (_WIDTH // _HEADS) ** -0.5
        weight, bias = normal(_WIDTH), normal(_WIDTH)
        _, xhat, rstd = F.layer_norm(x, weight, bias, 1e-6)
        (q, k, v), (dout,) = F.split_heads(product(3 * _WIDTH), 3, _HEADS), F.split_heads(dy, 1, _HEADS)
        _, p = F.attention(q, k, v, scale)
    weights = tuple(np.abs(normal(4, 131_072)))  # θ, g, m and v of a chunk
    maps, places = (max(1, images // 8), 64, 56, 56), ((1, 1), (1, 1), (1, 1))  # of ResNet's first stage
    return {
        "adamw_": (*weights, 3, 1e-3, (0.9, 0.999), 1e-8, 0.05),
        "conv2d": (normal(*maps), normal(64, 64, 3, 3), None, *places),
        "conv2d_weight_gradient": (normal(*maps), normal(*maps), (3, 3), *places),
        "linear": (x, normal(_HIDDEN, _WIDTH), normal(_HIDDEN)),
        "sum_over_rows": (hidden,),
        "softmax_": (p.copy(),),  # again and again of what it gave, which takes as long
        "gelu": (hidden,),
        "gelu_with_slope": (hidden,),
        "attention": (q, k, v, scale),
        "attention_backward": (dout, q, k, v, p, scale),
        "group_norm": (normal(*maps), normal(64), normal(64), 8, 1e-5),
        "group_norm_backward": (normal(*maps), normal(64), normal(*maps), np.abs(normal(maps[0], 8, 1))),
        "standardize": (x, 1e-6),
        "layer_norm": (x, weight, bias, 1e-6),
        "layer_norm_backward": (dy, weight, xhat, rstd),
    }


def compare(name, chosen, kernel, batch, dtype, rounds):
    """-> milliseconds of a run in each turn of the formula, and of the kernel."""
    sides = {"plain": getattr(F, name).plain, chosen: kernel.function}
    times = {side: [] for side in sides}
    for _ in range(rounds):
        for side, function in sides.items():
            arguments = calls(side, *_BATCHES[batch], dtype)[name]
            with nv.kernels(side):
                times[side].append(_turn(function, arguments))
    return times["plain"], times[chosen]


def _turn(function, arguments):
    """Milliseconds of a run, the mean of as many as a turn holds."""
    function(*arguments)
    start, runs, spent = time.thread_time(), 0, 0.0
    while spent < _TURN:
        function(*arguments)
        runs, spent = runs + 1, time.thread_time() - start
    return spent / runs * 1e3


def table(names, rounds):
    """Print a Markdown row for each kernel, dtype and batch."""
    print(f"\nkernels, one thread, {rounds} rounds in turn; ms: median (minimum)\n")
    print("| kernel | set | dtype | batch | formula | kernel | gain | gain in the code |\n" + "|---" * 8 + "|")
    kernels = [(key, chosen, kernel) for chosen, kernels in SETS.items() for key, kernel in kernels.items()]
    for batch, dtype, ((name, module, char), chosen, kernel) in itertools.product(_BATCHES, "fd", kernels):
        if module is np and char == dtype and name in names:
            formula, own = compare(name, chosen, kernel, batch, dtype, rounds)
            gain, least = statistics.median(map(np.divide, formula, own)), min(formula) / min(own)
            cells = [name, chosen, np.dtype(dtype).name, batch, _ms(formula), _ms(own)]
            print(f"| {' | '.join(cells)} | **{gain:.2f}** ({least:.2f}) | {kernel.gain:.2g} |", flush=True)


def _ms(times):
    return f"{statistics.median(times):.3g} ({min(times):.3g})"


def main():
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.kernels", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    known = {name for kernels in SETS.values() for name, *_ in kernels}
    parser.add_argument("name", nargs="*", help="kernels to time (default: all)")
    parser.add_argument("--rounds", type=int, default=12, help="turns of each side (default: 12)")
    args = parser.parse_args()
    for name in args.name:
        if name not in known:
            parser.error(f"unknown kernel {name!r}; there are {', '.join(sorted(known))}")
    nv.tune_process()
    nv.backend.shared_workers(1).map(table, [args.name or known], [args.rounds])  # BLAS on one thread as well


if __name__ == "__main__":
    main()
