"""The parts of benchmarks.gpu: functions of a unit that give its figures, or None where the time did not suffice."""

import importlib.util
import json
import re
import subprocess
import sys

from numpyvit.gpu.device import describe

from .gpu_work import REPEATS, namespace
from .run import interleave, machine

_SAVING = 20  # seconds that a training run is given to save its state
_TRAINING = {
    "digits": ["--data", "digits"],
    # 2.7M parameters; rate, schedule and length suit each other
    "cifar": [
        *("--data", "cifar10", "--model", "vit_mini_patch4_32", "--epochs", "300", "--batch-size", "512"),
        *("--lr", "2e-3", "--schedule", "cosine", "--warmup-steps", "1000", "--label-smoothing", "0.1"),
        *("--drop-path-rate", "0.1", "--ema-decay", "0.999", "--precision", "bf16"),
    ],
}
_SHORT = ["--epochs", "1"]  # to try a part out without a GPU


def run_tests(unit, args, clock):
    """The suite's tests for a GPU."""
    chosen = ["-m", "gpu"] if args.device == "cuda" else ["tests/test_launches.py"]
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *chosen]
    try:
        result = subprocess.run(command, capture_output=True, text=True, timeout=clock.left)
    except subprocess.TimeoutExpired:
        return None
    (args.out / "pytest.txt").write_text(result.stdout + result.stderr)
    failures = re.findall(r"^(?:FAILED|ERROR) (\S+)", result.stdout, re.M)
    last_line = (result.stdout.strip() or result.stderr.strip()).splitlines()[-1]
    return {"exit_code": result.returncode, "failures": failures, "last_line": last_line}


def time_steps(unit, args, clock):
    """A step on every engine, in milliseconds."""
    return _in_turn("step", unit, args)


def time_inference(unit, args, clock):
    """The inference of a batch on every engine, in milliseconds."""
    return _in_turn("infer", unit, args)


def _in_turn(kind, unit, args):
    config, _, precision = unit.rpartition("-")
    where = f"{args.device}:{precision}"
    with open(args.out / f"{kind}-{unit}.log", "w") as log:
        found = interleave(
            kind, config, args.engines or _engines(), where, args.rounds, "benchmarks.gpu_work", sessions=1, log=log
        )
    return {
        engine: {"median": figures["median"] / REPEATS, "minimum": figures["minimum"] / REPEATS}
        for engine, figures in found.items()
    }


def _engines():
    own = ["numpyvit", "numpyvit-eager"]
    if importlib.util.find_spec("torch"):
        return [*own, "torch-eager", "torch-graph", "torch-compile"]
    print("  PyTorch is not installed, so only numpyvit is measured; pip install torch")
    return own


def train(unit, args, clock):
    """A training run, stopped when the time is over; the next call goes on with it."""
    out, log = args.out / unit, args.out / f"{unit}.log"
    options = ["--resume"] if (out / "state.safetensors").exists() else _TRAINING[unit]
    options = [*options, "--device", "cuda"] if args.device == "cuda" else [*options, *_SHORT]
    if unit == "cifar":
        options += ["--data-dir", args.data_dir]
    with open(log, "a") as file:
        process = subprocess.Popen(
            [sys.executable, "-m", "numpyvit", "train", *options, "--out", str(out)], stdout=file, stderr=file
        )
        try:
            process.wait(timeout=max(1, clock.left - _SAVING))
        except subprocess.TimeoutExpired:
            process.terminate()
            process.wait()
            return None
    if process.returncode:
        return {"exit_code": process.returncode, "last_line": (log.read_text().splitlines() or [""])[-1]}
    result, config = (json.loads((out / name).read_text()) for name in ("result.json", "config.json"))
    records = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    return {
        "exit_code": 0,
        "accuracy": result["best"]["accuracy"],
        "minutes": sum(record["seconds"] for record in records) / 60,
        "epochs": len(records),
        "images_per_second": records[-1]["images_per_second"],
        "precision": config["precision"],
    }


def this_machine(device):
    """What the figures depend on."""
    return {**machine(1), "gpu": describe(namespace(device))}


def _units(configs, precisions):
    return [f"{config}-{precision}" for precision in precisions for config in configs]


WORK = {"tests": run_tests, "step": time_steps, "inference": time_inference, "digits": train, "cifar": train}
UNITS = {
    "tests": ["gpu"],
    "step": _units(("vit-b64", "vit-b128", "vit-b512"), ("tf32", "bf16", "float32")),
    "inference": _units(("vit_base-b1", "vit_base-b64"), ("tf32", "bf16", "float32")),
    "digits": ["digits"],
    "cifar": ["cifar"],
}
