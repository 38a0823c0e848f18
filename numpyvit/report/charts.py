"""Line charts: where everything lies. How it looks is said by the templates."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

WIDTH, HEIGHT = 400, 250
_LEFT, _TOP, _RIGHT, _BOTTOM = 54, 12, 388, 206  # the frame
_POINTS = 400  # of a line; more cannot be told apart
_DOTTED = 40  # lines of no more points show each of them


@dataclass(frozen=True)
class Line:
    """Points (x, y) to be joined; y may be None, where the line breaks. color: a number of the theme's colors."""

    name: str
    points: Sequence[tuple[float, float | None]]
    color: int = 0
    dashed: bool = False


@dataclass(frozen=True)
class Bar:
    left: float
    right: float
    top: float
    title: str


@dataclass
class Chart:
    """A chart in pixels of a WIDTH × HEIGHT picture.

    lines: [(name, color, dashed, [the points of each unbroken piece as SVG has them], [(x, y, title)])].
    """

    title: str
    x_label: str
    x_ticks: list[tuple[float, str]]
    y_ticks: list[tuple[float, str]]
    lines: list[tuple] = field(default_factory=list)
    bars: list[tuple[float, float, float, float, str]] = field(default_factory=list)
    mark: tuple[float, str] | None = None
    frame: tuple[int, int, int, int] = (_LEFT, _TOP, _RIGHT, _BOTTOM)
    size: tuple[int, int] = (WIDTH, HEIGHT)


def line_chart(
    title: str,
    lines: Sequence[Line],
    *,
    x_label: str = "epoch",
    share: bool = False,
    x_share: bool = False,
    x_range: tuple[float, float] | None = None,
    y_range: tuple[float, float] | None = None,
    bars: Sequence[Bar] = (),
    mark: tuple[float, str] | None = None,
) -> Chart | None:
    """A chart of lines and bars, None where there is nothing to draw.

    share, x_share: y, or x, is in 0..1 and shown in percent. x_range, y_range: default what the points need.
    mark: (x, name) of a vertical line.
    """
    places = [(x, y) for line in lines for x, y in line.points if y is not None]
    places += [(bar.right, bar.top) for bar in bars]
    if not places:
        return None
    xs, ys = zip(*places)
    x_low, x_high = x_range or _widened(min(xs), max(xs), 0)
    y_low, y_high = y_range or _widened(min(ys), max(ys), 0.05)
    across = lambda x: round(_LEFT + (x - x_low) / (x_high - x_low) * (_RIGHT - _LEFT), 1)  # noqa: E731
    down = lambda y: round(_BOTTOM - (y - y_low) / (y_high - y_low) * (_BOTTOM - _TOP), 1)  # noqa: E731
    chart = Chart(
        title,
        x_label,
        [(across(x), text) for x, text in _ticks(x_low, x_high, x_share, integer=x_range is None)],
        [(down(y), text) for y, text in _ticks(y_low, y_high, share)],
        mark=None if mark is None else (across(mark[0]), mark[1]),
    )
    for line in lines:
        pieces = [[(across(x), down(y)) for x, y in piece] for piece in _pieces(_thinned(line.points))]
        joined = [" ".join(f"{x:g},{y:g}" for x, y in piece) for piece in pieces]
        dots = [
            (across(x), down(y), f"{line.name}, {x_label} {x:g}: {format_value(y, share)}")
            for x, y in (line.points if len(line.points) <= _DOTTED and not bars else ())
            if y is not None
        ]
        chart.lines.append((line.name, line.color, line.dashed, joined, dots))
    for bar in bars:
        left, right, top = across(bar.left), across(bar.right), down(bar.top)
        chart.bars.append((left + 0.5, top, max(0.5, right - left - 1), round(_BOTTOM - top, 1), bar.title))
    return chart


def format_value(value: float | None, share: bool = False) -> str:
    """A figure as people read it."""
    if value is None or math.isnan(value):
        return "–"
    return f"{value:.2%}" if share else f"{value:.4g}"


def _widened(low, high, margin):
    """A range with some room at its ends; of a single value, one around it."""
    if low == high:
        return low - (abs(low) / 2 or 0.5), high + (abs(high) / 2 or 0.5)
    return low - margin * (high - low), high + margin * (high - low)


def _ticks(low, high, share=False, integer=False):
    """[(value, text), …] of round values in a range."""
    from matplotlib.ticker import MaxNLocator

    scale = 100 if share else 1
    values = MaxNLocator(5, integer=integer, steps=[1, 2, 2.5, 5, 10], min_n_ticks=1).tick_values(
        low * scale, high * scale
    )
    step = values[1] - values[0]
    decimals = next(d for d in range(20) if abs(step * 10**d - round(step * 10**d)) < 1e-6)
    room = step * 1e-6
    inside = [value for value in values if low * scale - room <= value <= high * scale + room]
    return [(value / scale, f"{value:.{decimals}f}{'%' if share else ''}".replace("-", "−")) for value in inside]


def _thinned(points):
    """Every so-manieth point, and the last."""
    step = -(-len(points) // _POINTS)
    return [*points[: -1 : step or 1], *points[-1:]]


def _pieces(points):
    """The runs of points without a gap."""
    pieces = [[]]
    for x, y in points:
        if y is None:
            pieces.append([])
        else:
            pieces[-1].append((x, y))
    return [piece for piece in pieces if piece]
