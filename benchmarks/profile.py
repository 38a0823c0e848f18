"""Where a training step's time goes, on one thread:   python -m benchmarks.run --profile CONFIG"""

import contextlib
import functools
import time

import numpy as np

import numpyvit as nv
from numpyvit import functional as F

from .work import CONFIGS, images, numpyvit_model

_STEPS = 5


class Clock:
    """Seconds spent in functions, those of the functions they call not counted twice."""

    def __init__(self):
        self.own, self.calls, self._inner = {}, {}, []

    def timed(self, name, function):
        @functools.wraps(function)  # the model asks a layer's forward what it takes
        def call(*args, **options):
            start = time.perf_counter()
            self._inner.append(0.0)
            try:
                return function(*args, **options)
            finally:
                spent = time.perf_counter() - start
                self.own[name] = self.own.get(name, 0.0) + spent - self._inner.pop()
                self.calls[name] = self.calls.get(name, 0) + 1
                if self._inner:
                    self._inner[-1] += spent

        return call


@contextlib.contextmanager
def replaced(clock, owner, attributes):
    """While open, functions of a module or object report to the clock. attributes: {attribute: name shown}."""
    before = {attribute: vars(owner).get(attribute) for attribute in attributes}
    for attribute, name in attributes.items():
        setattr(owner, attribute, clock.timed(name, getattr(owner, attribute)))
    try:
        yield
    finally:
        for attribute, function in before.items():
            if function is None:
                delattr(owner, attribute)
            else:
                setattr(owner, attribute, function)


def profile(name):
    """Print two tables of one configuration's step: by layer, and by function with the share of GEMM."""
    nv.tune_process()
    model, (x, y) = numpyvit_model(CONFIGS[name]), images(CONFIGS[name])
    step = nv.TrainStep(model, nv.optim.AdamW(model, lr=1e-3), threads=1)
    for _ in range(3):
        step(x, y)
    layers, functions = Clock(), Clock()
    with contextlib.ExitStack() as open_:
        for _, layer in model.named_layers():
            kind = type(layer).__name__
            shown = {"forward": f"{kind} forward", "backward": f"{kind} backward"}
            open_.enter_context(replaced(layers, layer, shown))
        total = _run(layers, step, x, y)
    _print(f"{name}: a step of {total * 1e3:.1f} ms on one thread, by layer", layers, total)
    names = [name for name in F.__all__ if name != "matmul"]
    with replaced(functions, F, dict(zip(names, names))), replaced(functions, np, {"matmul": "matmul"}):
        total = _run(functions, step, x, y)
    _print(f"{name}: a step of {total * 1e3:.1f} ms on one thread, by function", functions, total)
    print(f"\nGEMM (matmul): {functions.own['matmul'] / _STEPS / total:.0%} of the step")


def _run(clock, step, x, y):
    """Seconds a step; what no layer or function accounts for goes to 'the rest'."""
    run = clock.timed("the rest: loss, update, sums", lambda: step(x, y))
    start = time.perf_counter()
    for _ in range(_STEPS):
        run()
    return (time.perf_counter() - start) / _STEPS


def _print(title, clock, total):
    print(f"\n{title}\n\n| | ms | share | calls |\n|---|---|---|---|")
    for name, seconds in sorted(clock.own.items(), key=lambda item: -item[1]):
        share = seconds / _STEPS / total
        if share >= 0.002:
            print(f"| {name} | {seconds / _STEPS * 1e3:.2f} | {share:.1%} | {clock.calls[name] // _STEPS} |")
