"""Left: the length of steps without the correction of bias. Right: what both kinds of decay leave of two weights."""

import numpy as np
from matplotlib.figure import Figure

import numpyvit as nv

from .style import BLUE, ORANGE, panels

LR, DECAY, STEPS = 4e-3, 0.3, 600
SIZES = np.array([3.0, 0.3])  # of the gradients of two weights


def draw() -> Figure:
    figure, ((left, right),) = panels(8.4, 3.2, 1, 2)
    t = np.arange(1, 6000)
    left.semilogx(t, (1 - 0.9**t) / np.sqrt(1 - 0.999**t), color=ORANGE, label="m / (√v + ε)")
    left.semilogx(t, np.ones(len(t)), color=BLUE, label="m̂ / (√v̂ + ε)")
    left.set(
        title="length of a step in learning rates,\nwhere the gradient is always the same", xlabel="step t", ylim=(0, 7)
    )
    left.legend(frameon=False)

    for decoupled, color in ((True, BLUE), (False, ORANGE)):
        for weight, style in zip(_decay(decoupled).T, ("-", "--")):
            right.plot(weight, style, color=color)
    right.text(STEPS, 0.94, f"λθ in a gradient of size {SIZES[0]:g}", color=ORANGE, ha="right")
    right.text(STEPS, 0.63, "AdamW, both sizes", color=BLUE, ha="right")
    right.text(0, 0.22, f"λθ in a gradient of size {SIZES[1]:g}", color=ORANGE)
    right.set(title="what decay leaves of two weights\nwhose gradients go up and down", xlabel="step t", ylim=(0, 1.05))
    return figure


def _decay(decoupled):
    """Two weights, 1 at first, under gradients that go up and down -> their values after each step (STEPS, 2)."""
    layer, x = nv.layers.Linear(1, 2, bias=False, dtype="float64"), np.ones((1, 1))
    layer.weight.data[...] = 1
    optimizer = nv.optim.AdamW(layer, lr=LR, weight_decay=DECAY if decoupled else 0.0)
    tape, found = nv.Tape(layer), []
    for t in range(STEPS):
        noise = SIZES * (-1) ** t  # up and down: it leaves the weights where they are
        layer.forward(x, tape)
        layer.backward(noise[None] + (0 if decoupled else DECAY * layer.weight.data.T), tape)
        optimizer.step(tape)
        tape.zero()
        found.append(layer.weight.data[:, 0].copy())
    return np.array(found)
