"""`write_report`: a run as one HTML file."""

import base64
import hashlib
import json
import os
import pathlib
from typing import Any

from .. import __version__
from ..core import Layer
from ..data.loader import ImageSet
from ..errors import NumpyvitError
from ..files.atomic import write_atomically
from . import classification, detection
from .charts import Line, format_value, line_chart
from .command import train_command
from .run import Run, read_run

_KINDS = {"classes": classification, "boxes": detection}  # by the results that a task gives
_PARTS = {"train": ("training", True), "val": ("validation", False)}  # name, whether its line is dashed
_ROWS = 500  # epochs of the table


def write_report(
    run: Run | str | os.PathLike,
    dataset: ImageSet | None = None,
    model: Layer | None = None,
    path: str | os.PathLike | None = None,
) -> pathlib.Path:
    """Write a run's report, one HTML file that needs no other and no network. -> its path.

    run:     a run directory.
    dataset: the test set, for images; None, or a set that is not that of the run, leaves them out and says so.
    model:   with the best weights, for attention maps; None leaves them out.
    path:    of the file; default report.html in the run directory.
    Errors: RunError where there is no run, or the file cannot be written.
    """
    run = run if isinstance(run, Run) else read_run(run)
    path = pathlib.Path(path or run.path / "report.html")
    remarks = list(run.remarks)
    of_task = _of_task(run, dataset, model, remarks)
    page = render(
        "report.html.j2",
        title=_title(run),
        subtitle=_subtitle(run),
        run=run,
        remarks=remarks,
        cards=_cards(run, model) + of_task.pop("cards", []),
        curves=curves(run),
        records=_table(run),
        test_figures=_test_figures(run),
        command=train_command(run.config),
        settings=[(name, shown(value)) for name, value in sorted(run.config.items())],
        **of_task,
    )
    write_atomically(path, page)
    return path


def render(template: str, **values) -> bytes:
    """A page from its template: what is in it is escaped, and the browser is told to load nothing."""
    import jinja2

    loader = jinja2.PackageLoader("numpyvit.report")
    surroundings = jinja2.Environment(
        loader=loader, autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    surroundings.filters |= {"figure": format_value, "duration": duration}
    script = loader.get_source(surroundings, "theme.js")[0].rstrip("\n")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    page = surroundings.get_template(template).render(script=script, digest=digest, version=__version__, **values)
    return page.encode("utf-8", "replace")  # a file's name may hold what is not a character


def curves(run: Run) -> list:
    """A chart for each panel of the run's task, of training (dashed) and validation."""
    best = run.best
    charts = []
    for title, names in run.panels.items():
        lines = [
            Line(f"{words} {name}", [(r["epoch"], r.get(f"{part}_{name}")) for r in run.records], color, dashed)
            for color, name in enumerate(names)
            for part, (words, dashed) in _PARTS.items()
        ]
        lines = [line for line in lines if any(y is not None for _, y in line.points)]
        mark = None if best is None else (best["epoch"], f"best epoch, {best['epoch']}")
        charts.append(line_chart(title.capitalize(), lines, share=set(names) <= set(run.task.shares), mark=mark))
    return [chart for chart in charts if chart is not None]


def shown(value: Any) -> str:
    """A setting as people read it."""
    if value is None or value == [] or value == {}:
        return "none"
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def duration(seconds: float) -> str:
    """Seconds as people say them:   3 min 20 s."""
    if seconds < 60:
        return f"{seconds:.3g} s"
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02} min" if hours else f"{minutes} min {seconds:02} s"


def _title(run):
    model, data = run.config.get("model"), run.config.get("data")
    if not isinstance(model, str) or not isinstance(data, str):
        return run.name
    return f"{model} on {os.path.basename(os.path.normpath(data))}"


def _subtitle(run):
    images = (run.result.get("best") or {}).get("images")
    return f"{run.name}, tested on {images:,} images" if isinstance(images, int) else run.name


def _test_figures(run):
    """[(name, of the best weights, of the last ones), …]."""
    best, last = (run.result.get(which) or {} for which in ("best", "last"))
    show = lambda name, figures: run.task.show(name, figures.get(name))  # noqa: E731
    names = [name for name in best if name not in ("images", "epoch")]
    return [(name.replace("_", " "), show(name, best), show(name, last)) for name in names]


def _cards(run, model):
    """[(what, figure, more), …], the headline."""
    figure, cards = run.task.best[0], []
    best, last = (run.result.get(which) or {} for which in ("best", "last"))
    if figure in best:
        more = f"weights of epoch {best.get('epoch')}"
        if last.get("epoch") != best.get("epoch"):
            more += f"; the last: {run.task.show(figure, last.get(figure))}"
        cards.append((f"Test {figure}", run.task.show(figure, best[figure]), more))
    if run.best is not None:
        value = run.task.show(figure, run.best[f"val_{figure}"])
        cards.append((f"Validation {figure}", value, f"the best, epoch {run.best['epoch']}"))
    if run.records:
        epochs = run.config.get("epochs")
        cards.append(("Epochs", f"{run.records[-1]['epoch']:,}", f"of {epochs} planned"))
        rate = run.images_per_second
        cards.append(("Training time", duration(run.seconds), f"{rate:,.0f} images/s" if rate else ""))
    if model is not None:
        cards.append(("Parameters", f"{model.num_parameters():,}", str(run.config.get("model", ""))))
    return cards


def _of_task(run, dataset, model, remarks):
    """What the template of a kind of results is given. What fails is left out with a remark."""
    nothing = {"kind": None, "sections": {}}
    if run.predictions is None:
        return nothing
    said, notes = run.predictions
    kind = _KINDS.get(notes.get("results"))
    if kind is None:
        remarks.append("The task is of a kind of its own, so only curves and figures are shown.")
        return nothing
    classes = list(map(str, notes.get("classes", [])))
    try:
        of_task = {"kind": kind.TEMPLATE, "figures": kind.figures(said, classes), "images": {}}
    except Exception as error:  # arrays of another form, by another version or another hand
        remarks.append(
            f"What the model says of the test images cannot be understood ({type(error).__name__}: {error})."
        )
        return nothing
    of_task["cards"] = of_task["figures"].pop("cards")
    of_task["sections"] = dict(kind.SECTIONS)
    if dataset is None:
        remarks.append("The test images are not at hand, so none are shown.")
        return of_task
    reason = None
    for with_model in (None,) if model is None else (model, None):
        try:
            of_task["images"] = kind.images(said, classes, dataset, with_model)
            break
        except Exception as error:  # a file that is gone, a model of an odd form: the rest of the report stands
            reason = _reason(error)
    if reason is not None:
        remarks.append(f"{'No attention is' if of_task['images'] else 'No images are'} shown: {reason}.")
    of_task["sections"] |= {id: name for id, name in kind.OF_IMAGES.items() if of_task["images"].get(id)}
    return of_task


def _reason(error):
    return str(error) if isinstance(error, (NumpyvitError, ValueError)) else f"{type(error).__name__}: {error}"


def _table(run):
    """-> the names of what the epochs recorded, and rows of text; of very many epochs some are left out."""
    names = [name for name in dict.fromkeys(n for record in run.records for n in record) if name != "epoch"]
    step = -(-len(run.records) // _ROWS) or 1
    kept = run.records[::step] if step == 1 else [*run.records[:-1:step], run.records[-1]]
    shares = {f"{part}_{name}" for part in _PARTS for name in run.task.shares}
    rows = [(record["epoch"], [format_value(record.get(n), n in shares) for n in names]) for record in kept]
    return {"names": [name.replace("_", " ") for name in names], "rows": rows}
