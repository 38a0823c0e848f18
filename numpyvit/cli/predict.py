"""`numpyvit predict`: what a model finds in images, each printed as soon as it is known."""

import csv
import functools
import io
import itertools
import json
import os
import pathlib
import sys
from argparse import ArgumentParser, Namespace
from concurrent.futures import ThreadPoolExecutor

from ..errors import ConfigError, DataError
from .arguments import Verbs, add_checkpoint, add_verb, count
from .checkpoint import load_model
from .ranks import add_ranks

_BATCH = 8  # images in memory at a time: enough for all threads, few enough to see results at once


def add(verbs: Verbs) -> ArgumentParser:
    verb = add_verb(
        verbs,
        "predict",
        run,
        "The most probable classes of images, with probabilities, or a detector's boxes with classes and scores, drawn "
        "into the images. Files that cannot be read are reported at the end.",
        "examples:\n  numpyvit predict seven.png --checkpoint runs/digits-vit_micro_patch2_8/best.safetensors\n"
        "  numpyvit predict photos/ --csv out.csv --model vit_tiny_patch16_224 --checkpoint vit_tiny_patch16_224.npz\n"
        "  numpyvit predict cells.jpg --checkpoint runs/cells-detr_mini_160 --out drawn\n",
    )
    verb.add_argument(
        "images", nargs="+", metavar="IMAGE|FOLDER", help="image files, and folders with such at any depth"
    )
    add_checkpoint(verb)
    add_ranks(verb)
    verb.add_argument(
        "--top",
        type=count,
        metavar="N",
        help="how many results to show (default: 5 classes, all boxes of a score of .5)",
    )
    verb.add_argument(
        "--out",
        metavar="DIR",
        help="where images with boxes drawn into them go (default: predictions/; nowhere with --json or --csv)",
    )
    form = verb.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="a JSON object a line for each image")
    form.add_argument(
        "--csv",
        nargs="?",
        const="-",
        metavar="FILE",
        help="comma-separated, a row for each result, into a file; without a name, or with -, as they are found",
    )
    return verb


def run(args: Namespace) -> int | None:
    from ..training.predictor import prepared
    from ..training.task import task_for

    _check_table(args.csv)
    model, _ = load_model(args)
    if model.num_classes == 0:
        raise ConfigError(f"{args.checkpoint}: the model has no classes to predict, only features")
    task = task_for(model)
    plain, group = not args.json and args.csv is None, args.group
    _check_out(args.out, task)
    out = (args.out or ("predictions" if plain else None)) if task.draws_results else None
    files, unreadable = group.from_first(_files(args.images) if group.leads else None)
    places = _places(files, out) if out is not None else {}
    form, shown = _form(args, task, files), 0
    watched = not (plain and sys.stdout.isatty())
    calls = prepared(model, group.threads(args.threads)) if len(files) > _BATCH else None
    for read in _batches(functools.partial(_read, task, model), files, group, watched):
        for found, errors in group.gather(_look(args, task, model, calls, read, places)):
            for path, results in found:
                form.show(path, results)
            shown += len(found)
            unreadable += errors
        sys.stdout.flush()
    if group.leads:
        form.close()
    return _report(args.images, unreadable, shown)


def _check_table(name):
    """Errors: ConfigError where --csv would write over an image, as of `predict --csv photo.png`, or nowhere."""
    from ..data.images import ENDINGS

    if name is not None and not pathlib.Path(name).parent.is_dir():
        raise ConfigError(f"--csv {name}: there is no folder {pathlib.Path(name).parent}; make it first")
    if name is not None and (name.lower().endswith(ENDINGS) or os.path.isdir(name)):
        raise ConfigError(f"--csv {name}: is not the name of a table; name images before the options, or give --csv -")


def _check_out(name, task):
    """Errors: ConfigError where nothing would be drawn to --out, or where no folder can be made of it."""
    if name is not None and not task.draws_results:
        raise ConfigError(f"--out {name}: only boxes are drawn into images, and the model finds none; leave it out")
    if name is not None and os.path.exists(name) and not os.path.isdir(name):
        raise ConfigError(f"--out {name}: is no folder; name another")


def _files(names):
    """-> the files that are named, and the images in the folders that are; the errors of unreadable folders."""
    from ..data.class_folders import image_files

    files, errors = [], []
    for name in names:
        try:
            files += map(str, image_files(name)) if os.path.isdir(name) else [name]
        except DataError as error:
            errors.append(str(error))
    return files, errors


def _read(task, model, path):
    """-> (path, image as the task takes it, or the error)."""
    try:
        return path, task.read(model, path)
    except DataError as error:
        return path, error


def _batches(read, files, group, watched):
    """[read(path), …] of a few files at a time, decoded on threads; ranks take turns, and the last may get none.

    watched: with a bar on a terminal.
    """
    from ..data.progress import counted

    starts = range(0, len(files), _BATCH * group.size)
    with ThreadPoolExecutor(group.processors) as pool:
        for start in counted(starts, len(starts), "batches of images", watched):
            own = start + _BATCH * group.rank
            yield list(pool.map(read, files[own : own + _BATCH]))


def _report(names, unreadable, shown):
    """Say which files could not be read. -> the exit code."""
    if not unreadable and not shown:
        raise DataError(f"{', '.join(names)}: no images in there; name image files or folders that hold some")
    for error in unreadable:
        print(f"numpyvit: error: {error}", file=sys.stderr)
    if unreadable and shown:
        total = len(unreadable) + shown
        print(f"numpyvit: error: {len(unreadable)} of {total} images could not be read", file=sys.stderr)
    return 1 if unreadable else 0


def _look(args, task, model, calls, read, places):
    """-> [(path, what is found)] of what could be read, drawn to its place, and the errors of the others."""
    errors = [str(image) for _, image in read if isinstance(image, DataError)]
    read = [(path, image) for path, image in read if not isinstance(image, DataError)]
    if not read:
        return [], errors
    paths, images = zip(*read)
    threads, top = args.group.threads(args.threads), args.top or task.top
    found = task.predict(model, list(images), threads=threads, top=top, run=calls)
    for path, image, results in zip(paths, images, found):
        if path in places:
            places[path].parent.mkdir(parents=True, exist_ok=True)
            task.draw_result(model, image, results, places[path])
    return list(zip(paths, found)), errors


def _places(files, out):
    """{file: out/NAME.png}; where files in several folders have one name, the later ones get a number behind it."""
    places, taken = {}, set()
    for path in files:
        stem = pathlib.Path(path).stem
        numbered = itertools.chain([stem], (f"{stem}-{number}" for number in itertools.count(2)))
        if path not in places:
            name = next(name for name in numbered if name.lower() not in taken)
            taken.add(name.lower())
            places[path] = pathlib.Path(out, f"{name}.png")
    return places


# ---- how results are shown ------------------------------------------------------------------------------------------


def _form(args, task, files):
    if args.json:
        return _Json(task)
    if args.csv is not None:
        return _Csv(task, args.csv)
    return _Lines(task) if len(files) == 1 else _Table(task, files)


class _Lines:
    """The name of an image, and a line for each result. Other forms have the same two methods."""

    def __init__(self, task):
        self.task = task

    def show(self, path, results):
        from ..data.paths import shown

        print(shown(path))
        for result in results:
            print(f"  {self.task.show_result(result)}")

    def close(self):
        """Nothing is left to do."""


class _Table(_Lines):
    """A line for each result, the first of an image with its name before it."""

    def __init__(self, task, files):
        from ..data.paths import shown

        super().__init__(task)
        self.shown, self.width = shown, max((len(shown(path)) for path in files), default=0)

    def show(self, path, results):
        lines = [self.task.show_result(result) for result in results] or ["nothing"]
        for name, line in zip(itertools.chain([self.shown(path)], itertools.repeat("")), lines):
            print(f"{name:{self.width}}  {line}")


class _Json(_Lines):
    def show(self, path, results):
        print(json.dumps({"image": path, self.task.results: results}))


class _Csv(_Lines):
    """A row for each result, on standard output for the name "-", else in a file that is written at the end."""

    def __init__(self, task, name):
        super().__init__(task)
        self.name, self.text, self.rows = name, sys.stdout if name == "-" else io.StringIO(newline=""), None

    def show(self, path, results):
        if self.rows is None:
            self.rows = csv.writer(self.text, lineterminator="\n")
            self.rows.writerow(("image", "rank", *self.task.columns))
        for rank, result in enumerate(results, 1):
            self.rows.writerow([path, rank, *(_cell(result[name]) for name in self.task.columns)])

    def close(self):
        from ..files.atomic import write_atomically

        if self.rows is not None and self.name != "-":
            write_atomically(self.name, self.text.getvalue().encode("utf-8", "backslashreplace"))


def _cell(value):
    return f"{value:.6g}" if isinstance(value, float) else value
