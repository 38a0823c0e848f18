"""Time and memory against PyTorch:   python -m benchmarks.run [step|infer|memory|import] [--rounds N] [--json FILE]

Every engine works in a process of its own; they take turns, one piece of work at a time, and ratios are taken of the
medians of one such run. Engines that are not installed are left out.
"""

import argparse
import importlib.metadata
import importlib.util
import json
import os
import platform
import statistics
import subprocess
import sys

from .work import CONFIGS

STEPS = ["28px-p7-d64-L4", "28px-p4-d64-L6", "32px-p4-d192-L6", "vit_tiny-b8"]
INFERENCES = ["vit_tiny-b1", "vit_tiny-b16", "vit_base-b1"]


class Worker:
    def __init__(self, kind, config, engine, threads):
        command = [sys.executable, "-m", "benchmarks.work", kind, config, engine, str(threads)]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.times = []

    def turn(self):
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        self.times.append(float(self.process.stdout.readline()))

    def finish(self):
        """Peak memory in MiB."""
        self.process.stdin.close()
        return float(self.process.stdout.read())


def engines():
    return ["numpyvit"] + (["torch", "torch-sdpa"] if importlib.util.find_spec("torch") else [])


def interleave(kind, config, names, threads, rounds, warm_up=3):
    """{engine: {"median", "minimum" in ms, "peak_mib"}} of one run with all engines in turn."""
    workers = {name: Worker(kind, config, name, threads) for name in names}
    for _ in range(warm_up + rounds):
        for worker in workers.values():
            worker.turn()
    return {
        name: {
            "median": statistics.median(worker.times[warm_up:]),
            "minimum": min(worker.times[warm_up:]),
            "peak_mib": worker.finish(),
        }
        for name, worker in workers.items()
    }


def table(kind, configs, threads, rounds):
    rows = {}
    print(f"{kind}, float32, {threads} threads, {rounds} rounds in turn; ms median (minimum)")
    for config in configs:
        found = rows[config] = interleave(kind, config, engines(), threads, rounds)
        cells = [f"{name} {r['median']:.1f} ({r['minimum']:.1f})" for name, r in found.items()]
        others = [r for name, r in found.items() if name != "numpyvit"]
        if others:
            ours = found["numpyvit"]
            ratio = ours["median"] / min(r["median"] for r in others)
            least = ours["minimum"] / min(r["minimum"] for r in others)
            memory = ours["peak_mib"] / min(r["peak_mib"] for r in others)
            cells.append(f"ratio to the faster {ratio:.2f} ({least:.2f}), peak memory {memory:.2f}")
        print(f"{config:18s} " + "   ".join(cells), flush=True)
    return rows


def memory_table(threads):
    """Peak memory over the process at rest: inference against a training forward, which keeps its residuals."""
    config, rows = "vit_tiny-b16", {}
    code = (
        "import resource, numpyvit; from benchmarks.work import numpyvit_work, CONFIGS;"
        "peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024;"
        f"work = numpyvit_work({{kind!r}}, CONFIGS[{config!r}], {threads});"
        "before = peak(); work(); print(peak() - before)"
    )
    for kind in ("infer", "forward"):
        result = subprocess.run(
            [sys.executable, "-c", code.format(kind=kind)], capture_output=True, text=True, check=True
        )
        rows[kind] = float(result.stdout)
    ratio = rows["forward"] / rows["infer"]
    print(f"{config}: inference {rows['infer']:.0f} MiB, training forward {rows['forward']:.0f} MiB, 1/{ratio:.1f}")
    return rows


def _python(code):
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout


def import_table(rounds):
    times = {"numpy": [], "numpyvit": []}
    for _ in range(rounds):
        for name, found in times.items():
            code = f"import time; t = time.perf_counter(); import {name}; print(time.perf_counter() - t)"
            found.append(1e3 * float(_python(code)))
    rows = {name: statistics.median(found) for name, found in times.items()}
    ratio = rows["numpyvit"] / rows["numpy"]
    print(f"import numpyvit {rows['numpyvit']:.0f} ms, numpy {rows['numpy']:.0f} ms: {ratio:.2f}")
    return rows


def main():
    parser = argparse.ArgumentParser(prog="python -m benchmarks.run", description=__doc__.split("\n")[0])
    parser.add_argument("what", nargs="*", default=["step", "infer", "memory", "import"])
    parser.add_argument("--configs", nargs="*", choices=CONFIGS, help="default: the rows of the README")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--json", metavar="FILE", help="write all figures there, with machine and versions")
    args = parser.parse_args()
    results = {"machine": platform.processor() or platform.machine(), "cpus": os.cpu_count(), "threads": args.threads}
    for name in ("numpy", "torch"):
        if importlib.util.find_spec(name):
            results[name] = importlib.metadata.version(name)
    if "step" in args.what:
        results["step"] = table("step", args.configs or STEPS, args.threads, args.rounds)
    if "infer" in args.what:
        results["infer"] = table("infer", args.configs or INFERENCES, args.threads, args.rounds)
    if "memory" in args.what:
        results["memory"] = memory_table(args.threads)
    if "import" in args.what:
        results["import"] = import_table(args.rounds)
    if args.json:
        with open(args.json, "w") as file:
            json.dump(results, file, indent=2)


if __name__ == "__main__":
    main()
