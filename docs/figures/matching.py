"""Five found boxes and three meant ones, what each pair costs, and the pairs of least cost beside the greedy ones."""

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

import numpyvit as nv
from numpyvit import functional as F

from .style import BLUE, INK, ORANGE, bare, panels, signed

MEANT = np.array([[0.30, 0.50, 0.26, 0.40], [0.52, 0.50, 0.26, 0.40], [0.82, 0.30, 0.20, 0.24]])
FOUND = np.array(
    [
        (0.425, 0.48, 0.26, 0.40),
        (0.62, 0.54, 0.28, 0.38),
        (0.80, 0.34, 0.22, 0.22),
        (0.20, 0.80, 0.20, 0.20),
        (0.86, 0.75, 0.16, 0.20),
    ]
)


def draw() -> Figure:
    logits = np.zeros((1, len(FOUND), 2))
    outputs = {"pred_logits": logits, "pred_boxes": FOUND[None]}
    target = {"labels": np.zeros(len(MEANT), int), "boxes": MEANT}
    [(queries, boxes)] = nv.losses.match(outputs, [target])
    giou = F.generalized_iou(F.box_cxcywh_to_xyxy(FOUND)[:, None], F.box_cxcywh_to_xyxy(MEANT))
    costs = -0.5 + 5 * abs(FOUND[:, None] - MEANT).sum(-1) - 2 * giou  # every class has the probability 0.5
    best, greedy = list(zip(queries, boxes)), _greedy(costs)

    figure, ((left, right),) = panels(8.4, 3.5, 1, 2, width_ratios=[5, 4])
    for j, box in enumerate(MEANT):
        _box(left, box, "ABC"[j], BLUE, {"facecolor": BLUE, "alpha": 0.18})
    for q, box in enumerate(FOUND):
        _box(left, box, q, ORANGE, {"fill": False, "edgecolor": ORANGE, "lw": 1.8})
    left.set(xlim=(0, 1), ylim=(1, 0), title="boxes A, B, C (filled) and queries 0 to 4")
    left.set(xticks=[], yticks=[])
    left.spines[:].set_color("#bbbbbb")
    left.spines[:].set_visible(True)

    right.imshow(costs, "Greys", vmin=costs.min(), vmax=2.5 * costs.max(), aspect="auto")
    for (q, j), cost in np.ndenumerate(costs):
        right.text(j, q, signed(cost, ".2f"), ha="center", va="center")
    for q, j in best:
        right.add_patch(Rectangle((j - 0.44, q - 0.42), 0.88, 0.84, fill=False, edgecolor=INK, lw=2.2))
    for q, j in greedy:
        right.plot(j - 0.34, q - 0.28, "o", color=ORANGE, ms=7)
    sums = [sum(costs[pair] for pair in pairs) for pairs in (best, greedy)]
    shown = [signed(total, ".2f") for total in sums]
    right.set_title(f"costs; framed the best pairs, {shown[0]} in all,\nwith a dot the greedy ones, {shown[1]}")
    bare(right)
    right.set_xticks(range(3), ["A", "B", "C"])
    right.set_yticks(range(5), [f"query {q}" for q in range(5)])
    right.tick_params(length=0)
    return figure


def _greedy(costs):
    """The cheapest pair, then the cheapest of what is left, and so on."""
    left, pairs = costs.copy(), []
    for _ in range(costs.shape[1]):
        q, j = np.unravel_index(left.argmin(), left.shape)
        pairs.append((int(q), int(j)))
        left[q], left[:, j] = np.inf, np.inf
    return pairs


def _box(axes, box, name, color, look):
    cx, cy, width, height = box
    axes.add_patch(Rectangle((cx - width / 2, cy - height / 2), width, height, **look))
    axes.text(
        cx - width / 2 + 0.015, cy - height / 2 + 0.01, name, color=color, va="top", fontsize=11, fontweight="bold"
    )
