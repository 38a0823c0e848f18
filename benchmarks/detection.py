"""Detection against PyTorch: a training step of the small presets, one large image through DETR, a convolution.

    python -m benchmarks.detection [step|infer|conv] [--rounds N] [--threads N]

Both engines work in processes of their own and take turns, as in benchmarks.run.
"""

import argparse
import os

from .detection_work import BATCH, STEPS
from .run import interleave

WORK = {
    "step": (tuple(STEPS), f"training step of {BATCH} images with denoising queries"),
    "infer": (("detr_resnet50",), "inference of one image of 800x1066"),
    "conv": (("64-64-3x3",), "Conv2d of 8 maps of 56x56, forward and backward, one thread"),
}
_ENGINES = ("numpyvit", "torch")


def table(kind, threads, rounds, sessions):
    configs, title = WORK[kind]
    print(f"\n{title}, float32, {threads} threads; ms: median (minimum)\n")
    print("| | numpyvit | torch | ratio of time | ratio of peak memory |\n|---|---|---|---|---|")
    for config in configs:
        found = interleave(kind, config, _ENGINES, threads, rounds, "benchmarks.detection_work", sessions)
        cells = [f"{found[name]['median']:.3g} ({found[name]['minimum']:.3g})" for name in _ENGINES]
        ours, theirs = (found[name] for name in _ENGINES)
        time, least, memory = (ours[key] / theirs[key] for key in ("median", "minimum", "peak_mib"))
        peaks = f"{ours['peak_mib']:.0f} / {theirs['peak_mib']:.0f} MiB"
        print(f"| {config} | {' | '.join(cells)} | **{time:.2f}** ({least:.2f}) | {memory:.2f} ({peaks}) |", flush=True)


def main():
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.detection", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", nargs="*", choices=WORK, default=list(WORK), help="default: all")
    parser.add_argument("--rounds", type=int, default=12, help="turns of each engine (default: 12)")
    parser.add_argument("--sessions", type=int, default=3, help="how often both are started (default: 3)")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    args = parser.parse_args()
    for kind in args.what:
        table(kind, 1 if kind == "conv" else args.threads, args.rounds, args.sessions)


if __name__ == "__main__":
    main()
