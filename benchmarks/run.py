"""Time and memory against PyTorch and ONNX Runtime:

    python -m benchmarks.run [step|infer|layer|memory|accuracy|import] [--rounds N] [--json FILE]
    python -m benchmarks.run --profile 32px-p4-d192-L6

Every engine works in a process of its own; they take turns of a quarter of a second, each begun with a run that does
not count, and ratios are taken of the medians of one such run. Processes are started three times, since one and
the same program may run a third slower or faster in another process. Engines that are not installed are left out.
"""

import argparse
import importlib.metadata
import importlib.util
import itertools
import json
import os
import platform
import statistics
import subprocess
import sys
import time

from .floor import gemm_limit
from .work import CONFIGS, LAYERS

STEPS = ["28px-p7-d64-L4", "28px-p4-d64-L6", "32px-p4-d192-L6", "vit_tiny-b8"]
INFERENCES = ["vit_tiny-b1", "vit_tiny-b16", "vit_base-b1"]
OWN = ("numpyvit", "numpyvit-fast")  # with NumPy's kernels, and with the compiled ones
EAGER = ("torch", "torch-sdpa")  # the ratio is to the faster of these
_SESSIONS, _TURN_MS = 3, 250
_PAUSE = 0.05  # seconds, for the threads of the engine before to stop waiting for work in a loop


class Worker:
    """A process of benchmarks.work, or of another module that takes the same."""

    def __init__(self, kind, config, engine, threads, module="benchmarks.work", log=None):
        command = [sys.executable, "-W", "ignore", "-m", module, kind, config, engine, str(threads)]
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log or subprocess.DEVNULL, text=True
        )
        self.repeats, self.times = 1, []

    def turn(self):
        time.sleep(_PAUSE)
        print(self.repeats, file=self.process.stdin, flush=True)
        self.times = [float(ms) for ms in self.process.stdout.readline().split()]
        if not self.times:
            raise RuntimeError("an engine stopped")
        return self.times

    def warm_up(self):
        for _ in range(3):
            self.turn()
        self.repeats = max(1, min(100, round(_TURN_MS / self.times[0])))
        self.turn()

    def finish(self):
        """Peak memory in MiB."""
        self.process.stdin.close()
        return float(self.process.stdout.read())


def engines(kind):
    """The engines that are installed and do that kind of work."""
    names = list(OWN if importlib.util.find_spec("numba") else OWN[:1])
    if importlib.util.find_spec("torch"):
        names += EAGER
        if kind in ("step", "infer"):
            names.append("torch-compile")
        if kind == "infer" and importlib.util.find_spec("onnxruntime") and importlib.util.find_spec("onnx"):
            names.append("onnxruntime")
    return names


def interleave(kind, config, names, threads, rounds, module="benchmarks.work", sessions=_SESSIONS, log=None):
    """{engine: {"median", "minimum" in ms, "peak_mib", "runs"}} of one run with all engines in turn.

    threads: of each engine, or what else the module takes there. log: a file for what the processes say on stderr.
    """
    times, peaks = {name: [] for name in names}, {name: [] for name in names}
    for session in range(sessions):
        workers = {name: Worker(kind, config, name, threads, module, log) for name in names if times[name] is not None}
        for name, worker in list(workers.items()):
            try:
                worker.warm_up()
            except RuntimeError:
                print(f"  {name} does not run here", file=sys.stderr)
                times[name] = None
                del workers[name]
        for _ in range(rounds * session // sessions, rounds * (session + 1) // sessions):
            for name, worker in workers.items():
                times[name] += worker.turn()
        for name, worker in workers.items():
            peaks[name].append(worker.finish())
    return {
        name: {
            "median": statistics.median(found),
            "minimum": min(found),
            "peak_mib": statistics.median(peaks[name]),
            "runs": len(found),
        }
        for name, found in times.items()
        if found
    }


def table(kind, configs, threads, rounds):
    """Time each configuration on all engines, print a Markdown table, and return the figures.

    Two ratios are those of NumPy's kernels and of the compiled ones.
    """
    names, rows = engines(kind), {}
    used = 1 if kind == "layer" else threads
    print(f"\n{kind}, float32, {used} threads, {rounds} rounds in turn; ms: median (minimum)\n")
    print(f"| {kind} | " + " | ".join(names) + " | ratio to eager | peak memory, ratio | share of GEMM limit |")
    print("|---" * (len(names) + 4) + "|")
    for config in configs:
        found = rows[config] = interleave(kind, config, names, threads, rounds)
        cells = [f"{found[n]['median']:.3g} ({found[n]['minimum']:.3g})" if n in found else "–" for n in names]
        ours, others = [found[name] for name in OWN if name in found], [found[name] for name in EAGER if name in found]
        for own, key in itertools.product(ours if others else (), ("median", "minimum", "peak_mib")):
            own[f"{key}_ratio"] = own[key] / min(other[key] for other in others)
        cells.append(_joined(f"**{own['median_ratio']:.2f}** ({own['minimum_ratio']:.2f})" for own in ours if others))
        cells.append(_joined(f"{own['peak_mib_ratio']:.2f}" for own in ours if others))
        for own in ours if kind in ("step", "infer") else ():
            own["gemm_limit"] = gemm_limit(kind, config, threads) / own["median"]
        cells.append(_joined(f"{own['gemm_limit']:.2f}" for own in ours if "gemm_limit" in own))
        print(f"| {config} | " + " | ".join(cells) + " |", flush=True)
    return rows


def _joined(cells):
    return "; ".join(cells) or "–"


def memory_table(threads):
    """Peak memory over the process at rest: inference, a step, and a step with checkpointed blocks; and their times."""
    config, rows = "vit_tiny-b16", {}
    code = (
        "import statistics, time, numpyvit; from benchmarks.work import numpyvit_work, peak_memory as peak;"
        f"work = numpyvit_work({{kind!r}}, {config!r}, {threads}); before = peak(); times = []\n"
        "for _ in range(5): start = time.perf_counter(); work(); times.append(time.perf_counter() - start)\n"
        "print(peak() - before, statistics.median(times))"
    )
    print(f"\nmemory, {config}, {threads} threads\n")
    print("| work | peak above the process at rest, MiB | seconds |\n|---|---|---|")
    for kind in ("infer", "forward", "step", "checkpointed-step"):
        mib, seconds = map(float, _python(code.format(kind=kind)).split())
        rows[kind] = {"mib": mib, "seconds": seconds}
        print(f"| {kind} | {mib:.0f} | {seconds:.2f} |", flush=True)
    return rows


def accuracy_table(rounds, data_dir):
    """Seconds until the accuracy on the test images is reached, the same recipe and batches on both engines."""
    rows = {}
    names = ["numpyvit"] + (["torch"] if importlib.util.find_spec("torch") else [])
    print(
        "\naccuracy: seconds of training until the test accuracy is reached\n\n| data | accuracy | engine | seconds |"
    )
    print("|---|---|---|---|")
    for data, goal in (("digits", 0.97), ("mnist", 0.986)):
        if data == "mnist" and data_dir is None:
            continue
        for seed in range(rounds):
            for name in names:
                command = [sys.executable, "-m", "benchmarks.accuracy", name, data, str(goal), str(seed)]
                command += [data_dir] if data_dir else []
                seconds = float(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
                rows.setdefault(data, {}).setdefault(name, []).append(seconds)
        for name, seconds in rows[data].items():
            all_of_them = ", ".join(f"{s:.1f}" for s in seconds)
            print(f"| {data} | {goal:.1%} | {name} | {statistics.median(seconds):.1f} ({all_of_them}) |", flush=True)
        if len(names) > 1:
            print(f"| {data} | | ratio | {_ratio(rows[data]):.2f} |", flush=True)
    return rows


def _ratio(found):
    return statistics.median(found["numpyvit"]) / statistics.median(found["torch"])


def import_table(rounds):
    times = {"numpy": [], "numpyvit": []}
    for _ in range(rounds):
        for name, found in times.items():
            code = f"import time; t = time.perf_counter(); import {name}; print(time.perf_counter() - t)"
            found.append(1e3 * float(_python(code)))
    rows = {name: statistics.median(found) for name, found in times.items()}
    ratio = rows["numpyvit"] / rows["numpy"]
    print(f"\nimport numpyvit {rows['numpyvit']:.0f} ms, numpy {rows['numpy']:.0f} ms: {ratio:.2f}")
    return rows


def _python(code):
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout


def machine(threads):
    """What the figures depend on."""
    found = {"processor": _processor(), "cpus": os.cpu_count(), "threads": threads, "python": platform.python_version()}
    for name in ("numpy", "numpyvit", "torch", "onnxruntime"):
        if importlib.util.find_spec(name):
            found[name] = importlib.metadata.version(name)
    return found


def _processor():
    try:
        with open("/proc/cpuinfo") as file:
            return next(line.split(":")[1].strip() for line in file if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def main():
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.run", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    kinds = ("step", "infer", "layer", "memory", "accuracy", "import")
    parser.add_argument("what", nargs="*", help="default: all but accuracy, which trains for minutes")
    parser.add_argument("--configs", nargs="*", choices=CONFIGS, help="of step and infer; default: the README's rows")
    parser.add_argument("--rounds", type=int, default=12, help="turns of each engine (default: 12)")
    parser.add_argument("--seeds", type=int, default=3, help="of accuracy (default: 3)")
    parser.add_argument("--data-dir", metavar="DIR", help="of accuracy: where MNIST lies; without it digits alone")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--json", metavar="FILE", help="write all figures there, with machine and versions")
    parser.add_argument("--profile", choices=CONFIGS, help="time of a step by layer and the share of GEMM, one thread")
    args = parser.parse_args()
    for what in args.what:
        if what not in kinds:
            parser.error(f"unknown benchmark {what!r}; there are {', '.join(kinds)}")
    if args.profile:
        from .profile import profile

        return profile(args.profile)
    results = {"machine": machine(args.threads)}
    for what in args.what or [kind for kind in kinds if kind != "accuracy"]:
        results[what] = {
            "step": lambda: table("step", args.configs or STEPS, args.threads, args.rounds),
            "infer": lambda: table("infer", args.configs or INFERENCES, args.threads, args.rounds),
            "layer": lambda: table("layer", LAYERS, args.threads, args.rounds),
            "memory": lambda: memory_table(args.threads),
            "accuracy": lambda: accuracy_table(args.seeds, args.data_dir),
            "import": lambda: import_table(args.rounds),
        }[what]()
        if args.json:
            with open(args.json, "w") as file:
                json.dump(results, file, indent=2)


if __name__ == "__main__":
    main()
