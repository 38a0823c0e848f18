"""Everything that is to be known of a machine with a GPU, in parts that fit into short loans of one:

    python -m benchmarks.gpu [--part tests|step|inference|digits|cifar ...] [--minutes 9] [--out DIR] [--data-dir DIR]

What is finished is kept in DIR/results.json and not done again, so the same command goes on where the last one stopped;
a training run that was stopped goes on too. DIR/results.md holds all figures beside their bars. PyTorch, where it is
installed, is measured in turn with numpyvit, each in a process of its own; without it only numpyvit is measured.

On a bare machine:  pip install -e '.[cuda13,test]' torch    (cuda12 for a driver before 580)
"""

import argparse
import importlib.util
import json
import pathlib
import sys
import time

from .gpu_report import markdown

PARTS = ("tests", "step", "inference", "digits", "cifar")
_NEEDED = ("numpy", "scipy", "PIL", "matplotlib", "tqdm", "safetensors", "threadpoolctl", "jinja2", "pytest")
_LEAST = 60  # seconds that must be left for another unit to begin


class Clock:
    """The seconds that are left."""

    def __init__(self, minutes):
        self._end = time.monotonic() + 60 * minutes

    @property
    def left(self):
        return self._end - time.monotonic()


class Results:
    """{part: {unit: figures}} in a file that is written after each unit."""

    def __init__(self, folder):
        self.folder, self._file = folder, folder / "results.json"
        self.found = json.loads(self._file.read_text()) if self._file.exists() else {}

    def has(self, part, unit):
        return unit in self.found.get(part, {})

    def add(self, part, unit, figures):
        from numpyvit.files.atomic import write_atomically

        self.found.setdefault(part, {})[unit] = figures
        write_atomically(self._file, json.dumps(self.found, indent=2).encode())
        write_atomically(self.folder / "results.md", markdown(self.found).encode())


def missing_packages(device):
    """What must be installed first, else None."""
    needed = [*_NEEDED, "cupy"] if device == "cuda" else _NEEDED
    missing = [name for name in needed if not importlib.util.find_spec(name)]
    return f"not installed: {', '.join(missing)}; pip install -e '.[cuda13,test]'" if missing else None


def parse(argv):
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.gpu", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--part", nargs="*", choices=PARTS, default=PARTS, help="default: all, in this order")
    parser.add_argument("--units", nargs="*", help="of these parts, such as vit-b64-tf32; default: all")
    parser.add_argument("--engines", nargs="*", help="of step and inference; default: all that are installed")
    parser.add_argument("--minutes", type=float, default=9, help="stop after so many (default: 9)")
    parser.add_argument("--rounds", type=int, default=12, help="turns of each engine (default: 12)")
    parser.add_argument("--again", action="store_true", help="also what is finished")
    parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path("runs/gpu"), metavar="DIR")
    parser.add_argument("--data-dir", metavar="DIR", help="where CIFAR-10 lies; without it the part cifar is left out")
    parser.add_argument("--device", choices=("cuda", "stand_in"), default="cuda", help=argparse.SUPPRESS)
    return parser.parse_args(argv)


def main(argv=None):
    args = parse(argv)
    missing = missing_packages(args.device)
    if missing:
        sys.exit(missing)
    from .gpu_parts import UNITS, WORK, this_machine

    args.out.mkdir(parents=True, exist_ok=True)
    results, clock, unfinished = Results(args.out), Clock(args.minutes), []
    results.add("machine", "this", this_machine(args.device))
    for part in args.part:
        if part == "cifar" and not args.data_dir:
            print("cifar is left out: name the folder of CIFAR-10 with --data-dir")
            continue
        for unit in args.units or UNITS[part]:
            if results.has(part, unit) and not args.again:
                continue
            print(f"{part} {unit}", flush=True)
            figures = WORK[part](unit, args, clock) if clock.left > _LEAST else None
            if figures is None:
                unfinished.append(f"{part} {unit}")
            else:
                results.add(part, unit, figures)
    print(markdown(results.found))
    if unfinished:
        print(f"The time is over. The same command goes on with {', '.join(unfinished)}.")


if __name__ == "__main__":
    main()
