"""Left: p, t and the gradient of the logits. Right: the loss and its gradient over the logit of the label."""

import numpy as np
from matplotlib.figure import Figure

import numpyvit as nv
from numpyvit import functional as F

from .style import BLUE, GRAY, ORANGE, panels

CLASSES = 5


def draw() -> Figure:
    figure, ((left, right),) = panels(8.4, 3.2, 1, 2)
    logits, label = np.array([[1.2, -0.3, 2.0, 0.4, -1.0]]), 0
    _, gradient = nv.losses.cross_entropy(logits, [label])
    place = np.arange(CLASSES)
    for shift, values, color, name in (
        (-0.27, F.softmax(logits)[0], BLUE, "p"),
        (0, np.eye(CLASSES)[label], GRAY, "t"),
        (0.27, gradient[0], ORANGE, "dz = p − t"),
    ):
        left.bar(place + shift, values, 0.25, color=color, label=name)
    left.axhline(0, color=GRAY, lw=0.8)
    left.set(title="one image, label 0: dz sums to 0", xlabel="class", xticks=place)
    left.legend(frameon=False)

    z = np.linspace(-6, 8, 141)
    rows = np.zeros((len(z), CLASSES))
    rows[:, label] = z
    losses = -F.log_softmax(rows)[:, label]
    right.plot(z, losses, color=BLUE, label="loss −log p")
    right.plot(z, F.softmax(rows)[:, label] - 1, color=ORANGE, label="its slope p − 1")
    right.axhline(0, color=GRAY, lw=0.8)
    right.set(title="slope −1 where the model is very wrong, 0 where right", xlabel="logit of the label, the others 0")
    right.legend(frameon=False)
    return figure
