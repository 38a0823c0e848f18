"""nv.Predictor against PyTorch eager and ONNX Runtime on the exported file, and its memory:

    python -m benchmarks.predictor [NAME ...] [--rounds N] [--sessions N] [--threads N]

Every engine works in a process of its own and takes turns with the others, as in benchmarks.run.
"""

import argparse
import os
import tracemalloc

from .predictor_work import ENGINES, NAMES, model_and_images
from .run import EAGER, OWN, interleave


def table(names, engines, threads, rounds, sessions):
    """Print a Markdown row for each; ratios are of medians, in brackets of minima: NumPy's kernels; compiled ones."""
    print(f"\nPredictor, float32, {threads} threads, {rounds} rounds in turn; ms: median (minimum)\n")
    print("| model | " + " | ".join(engines) + " | ratio to eager | ratio to ONNX Runtime |")
    print("|---" * (len(engines) + 3) + "|")
    for name in names:
        found = interleave("infer", name, engines, threads, rounds, "benchmarks.predictor_work", sessions)
        cells = [f"{found[engine]['median']:.3g} ({found[engine]['minimum']:.3g})" for engine in engines]
        cells += [_ratios(found, EAGER), _ratios(found, ["onnxruntime"])]
        print(f"| {name} | {' | '.join(cells)} |", flush=True)


def _ratios(found, others):
    others = [found[other] for other in others if other in found]

    def ratio(own, key):
        return found[own][key] / min(other[key] for other in others)

    ours = [own for own in OWN if own in found] if others else []
    return "; ".join(f"**{ratio(own, 'median'):.2f}** ({ratio(own, 'minimum'):.2f})" for own in ours) or "–"


def memory(name, threads):
    """Print the peak of all arrays in the process, the images and the model it was made of aside, over the weights."""
    import numpyvit as nv

    model, x = model_and_images(name)
    weights, predictor = sum(p.data.nbytes for _, p in model.named_parameters()), None
    del model
    tracemalloc.start()
    predictor = nv.Predictor(model_and_images(name)[0], threads)
    tracemalloc.reset_peak()
    predictor(x)
    peak = tracemalloc.get_traced_memory()[1] - x.nbytes
    print(f"\nmemory, {name}: weights {weights / 2**20:.0f} MiB, peak {peak / 2**20:.0f} MiB, {peak / weights:.3f}")


def main():
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.predictor", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", nargs="*", choices=[*NAMES, "memory"], default=[*NAMES, "memory"], help="default: all")
    parser.add_argument("--engines", nargs="+", choices=ENGINES, default=list(ENGINES), help="default: all")
    parser.add_argument("--rounds", type=int, default=12, help="turns of each engine (default: 12)")
    parser.add_argument("--sessions", type=int, default=3, help="how often all are started (default: 3)")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    args = parser.parse_args()
    if names := [name for name in args.names if name != "memory"]:
        table(names, args.engines, args.threads, args.rounds, args.sessions)
    if "memory" in args.names:
        memory("vit_base-b1", args.threads)


if __name__ == "__main__":
    main()
