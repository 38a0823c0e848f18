"""Several runs beside each other: what was set otherwise, and what came of it."""

import os
import pathlib
from collections.abc import Sequence

from ..files.atomic import write_atomically
from .charts import Line, line_chart
from .page import duration, render, shown
from .run import Run

_PLACES = ("data_dir",)


def compare_runs(runs: Sequence[Run]) -> dict:
    """{"runs": names, "settings": {name: a value a run}, "figures": {name: a value a run}}.

    settings: those in which the runs differ; None where a run does not have one. Those within others are named
    "augment.crop". figures: epochs, the best validation and its epoch, the test of the best and the last weights,
    seconds of training, images a second.
    """
    configs = [dict(_settings(run.config)) for run in runs]
    names = sorted({name for config in configs for name in config} - set(_PLACES))
    settings = {name: [config.get(name) for config in configs] for name in names}
    figures = [_figures(run) for run in runs]
    return {
        "runs": _names(runs),
        "settings": {name: values for name, values in settings.items() if any(v != values[0] for v in values)},
        "figures": {
            name: [of_run.get(name) for of_run in figures] for name in dict.fromkeys(n for f in figures for n in f)
        },
    }


def table(runs: Sequence[Run]) -> list[tuple[str, list[str]]]:
    """[(what, a text a run), …] of compare_runs, as people read it."""
    compared = compare_runs(runs)
    rows = [(name, [shown(value) for value in values]) for name, values in compared["settings"].items()]
    shares = {share for run in runs for share in run.task.shares}
    for name, values in compared["figures"].items():
        rows.append((name, [_show(name, value, shares) for value in values]))
    return rows


def write_comparison(runs: Sequence[Run], path: str | os.PathLike) -> pathlib.Path:
    """Write the comparison as one HTML file with the curves of all runs over each other. -> its path."""
    path, compared = pathlib.Path(path), compare_runs(runs)
    rows, split = table(runs), len(compared["settings"])
    page = render(
        "compare.html.j2",
        title=f"{len(runs)} runs",
        names=compared["runs"],
        settings=rows[:split],
        figures=rows[split:],
        curves=_curves(runs, compared["runs"]),
    )
    write_atomically(path, page)
    return path


def _settings(config, before=""):
    """(name, value) of each, also of those within others."""
    for name, value in config.items():
        if isinstance(value, dict):
            yield from _settings(value, f"{before}{name}.")
        elif value != []:  # nothing is set, as without it
            yield before + name, value


def _names(runs):
    """The directories' names, or their paths where two have the same."""
    names = [run.name for run in runs]
    return names if len(set(names)) == len(names) else [str(run.path) for run in runs]


def _figures(run):
    best = run.task.best[0]
    found = {"epochs": run.records[-1]["epoch"] if run.records else 0}
    if run.best is not None:
        found |= {f"validation {best}": run.best[f"val_{best}"], "best epoch": run.best["epoch"]}
    for which in ("best", "last"):
        if best in (run.result.get(which) or {}):
            found[f"test {best}, {which} weights"] = run.result[which][best]
    seconds = run.seconds if run.records else None
    return {**found, "seconds of training": seconds, "images per second": run.images_per_second}


def _show(name, value, shares):
    if value is None:
        return "–"
    if name == "seconds of training":
        return duration(value)
    if name in ("epochs", "best epoch", "images per second"):
        return f"{value:,.0f}"
    return f"{value:.2%}" if any(share in name.replace(",", "").split() for share in shares) else f"{value:.4f}"


def _curves(runs, names):
    """A chart for each figure of the validation, or of the training where a run has no other, a line a run."""
    wanted = dict.fromkeys(figure for run in runs for panel in run.panels.values() for figure in panel)
    charts = []
    for figure in wanted:
        for part, words in (("val", "validation"), ("train", "training")):
            lines = [
                Line(name, [(record["epoch"], record.get(f"{part}_{figure}")) for record in run.records], color)
                for color, (run, name) in enumerate(zip(runs, names))
            ]
            lines = [line for line in lines if any(y is not None for _, y in line.points)]
            share = any(figure in run.task.shares for run in runs)
            charts.append(line_chart(f"{words.capitalize()} {figure}", lines, share=share))
    return [chart for chart in charts if chart is not None]
