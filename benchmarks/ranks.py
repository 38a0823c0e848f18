"""What several ranks cost and save: a model of a step's time, and the same measured on this machine.

python -m benchmarks.ranks                                   the table of docs/ranks.md
mpirun -n 2 python -m benchmarks.ranks --measure             ranks of one thread against threads of one rank
"""

import argparse
import statistics
import time
from dataclasses import dataclass

import numpyvit as nv
from numpyvit.backend import ALONE
from numpyvit.training import connect

from .work import CONFIGS, images, numpyvit_model

NETWORKS = {  # bytes a second, seconds a message costs its sender
    "10 Gbit/s Ethernet": (1.25e9, 20e-6),
    "25 Gbit/s Ethernet": (3.125e9, 20e-6),
    "InfiniBand, 200 Gbit/s": (25e9, 2e-6),
}
RANKS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)
CASES = ("vit_tiny-b16", "28px-p4-d64-L6")  # of benchmarks.work


@dataclass(frozen=True)
class Step:
    """A step as the model of time sees it.

    parameters, outputs: numbers of the gradient, and of what the model returns for an image. images: in a batch.
    image_flop: of an image, forward and backward. flops: of a rank a second. update: bytes a second of the optimizer.
    """

    parameters: int = 86_567_656  # vit_base_patch16_224
    outputs: int = 1000
    images: int = 4096
    image_flop: float = 3 * 2 * 17.564e9
    flops: float = 1e12
    update: float = 20e9

    def seconds(self, ranks: int, bandwidth: float, latency: float) -> tuple[float, float]:
        """-> (work, waiting for the network) of a step."""
        work = self.images * self.image_flop / (ranks * self.flops) + 28 * self.parameters / self.update
        others = ranks - 1
        gradient, outputs = 4 * self.parameters / ranks, 4 * self.outputs * self.images / ranks
        return work, others * (2 * (latency + gradient / bandwidth) + latency + outputs / bandwidth)


def table(step: Step) -> str:
    """Seconds a step and efficiency, the speed over that of so many single ranks, for each network."""
    lines = ["| ranks | images each | work | " + " | ".join(NETWORKS) + " |"]
    lines.append("|---|---|---|" + "---|" * len(NETWORKS))
    alone = sum(step.seconds(1, 1.0, 0.0))
    for ranks in RANKS:
        work = step.seconds(ranks, 1.0, 0.0)[0]
        cells = [f"{sum(step.seconds(ranks, *of)):.2f} s, {alone / ranks / sum(step.seconds(ranks, *of)):.0%}"
                 for of in NETWORKS.values()]  # fmt: skip
        lines.append(f"| {ranks} | {step.images // ranks} | {work:.2f} s | {' | '.join(cells)} |")
    return "\n".join(lines)


def measure(group, name: str, rounds: int, steps: int) -> None:
    """Steps on all ranks with a thread each, and on one rank with as many threads, in turn."""
    times, waits, (x, labels) = {"ranks": [], "threads": []}, [], images(CONFIGS[name])
    models = {kind: numpyvit_model(CONFIGS[name]) for kind in times}
    made = {"ranks": (group, 1), "threads": (ALONE, group.size)}
    runs = {
        kind: nv.TrainStep(models[kind], nv.optim.AdamW(models[kind]), group=of, threads=threads)
        for kind, (of, threads) in made.items()
    }
    waited = Waiting(group)
    for i in range(rounds + 1):  # the first is for warming up
        for kind, step in runs.items():
            group.barrier()
            waited.seconds = 0.0
            start = time.perf_counter()
            if kind == "ranks" or group.leads:
                for _ in range(steps):
                    step(x, labels)
            seconds = (time.perf_counter() - start) / steps
            if i:
                times[kind].append(seconds)
                waits += [waited.seconds / steps / seconds] * (kind == "ranks")
    if group.leads:
        median = {kind: statistics.median(found) for kind, found in times.items()}
        ratios = [a / b for a, b in zip(times["threads"], times["ranks"])]
        print(
            f"{name}: {group.size} ranks {median['ranks'] * 1e3:.1f} ms, {group.size} threads "
            f"{median['threads'] * 1e3:.1f} ms, speed of ranks {statistics.median(ratios):.2f} of that of threads "
            f"({min(ratios):.2f} to {max(ratios):.2f}); {statistics.median(waits):.1%} of a step in exchanges"
        )


class Waiting:
    """Counts the seconds that a group spends in exchanges."""

    def __init__(self, group):
        self.seconds = 0.0
        for name in ("gather", "swap"):
            setattr(group, name, self._timed(getattr(group, name)))

    def _timed(self, function):
        def timed(*args):
            start = time.perf_counter()
            try:
                return function(*args)
            finally:
                self.seconds += time.perf_counter() - start

        return timed


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--measure", action="store_true", help="measure on this machine, under mpirun")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--steps", type=int, default=3, help="of a round")
    args = parser.parse_args()
    if not args.measure:
        print(table(Step()))
        return
    nv.tune_process()
    group = connect()
    for name in CASES:
        measure(group, name, args.rounds, args.steps)


if __name__ == "__main__":
    main()
