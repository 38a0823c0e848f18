"""`numpyvit predict`: what a model finds in images, each printed as soon as it is known."""

import csv
import itertools
import json
import os
import pathlib
import sys

from ..errors import ConfigError, DataError
from .arguments import add_checkpoint, add_verb, count
from .checkpoint import load_model
from .ranks import add_ranks

_BATCH = 8  # images in memory at a time: enough for all threads, few enough to see results at once


def add(verbs):
    verb = add_verb(
        verbs,
        "predict",
        run,
        "The most probable classes of images, with probabilities, or a detector's boxes with classes and scores, drawn "
        "into the images. Files that cannot be read are reported at the end.",
        "examples:\n  numpyvit predict seven.png --checkpoint runs/digits-vit_micro_patch2_8/best.safetensors\n"
        "  numpyvit predict photos/ --csv --model vit_tiny_patch16_224 --checkpoint vit_tiny_patch16_224.npz\n"
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
    form.add_argument(
        "--json", action="store_const", const=_json, dest="form", help="a JSON object a line for each image"
    )
    form.add_argument(
        "--csv", action="store_const", const=_csv, dest="form", help="comma-separated, a row for each result"
    )
    verb.set_defaults(form=_text)
    return verb


def run(args):
    from ..training.task import task_for

    model, _ = load_model(args)
    if model.num_classes == 0:
        raise ConfigError(f"{args.checkpoint}: the model has no classes to predict, only features")
    task = task_for(model)
    out = (args.out or ("predictions" if args.form is _text else None)) if task.draws_results else None
    unreadable, shown, group = [], 0, args.group
    batches = _batched(_files(args.images), _BATCH)
    for turn in _batched(batches, group.size):  # a batch for each rank
        own = turn[group.rank] if group.rank < len(turn) else []
        for found, errors in group.gather(_look(args, task, model, own, out)):
            if args.form is _csv and found and not shown:
                print(",".join(("image", "rank", *task.columns)))
            for path, results in found:
                args.form(task, path, results)
            shown += len(found)
            unreadable += errors
        sys.stdout.flush()
    if not unreadable and not shown:
        raise DataError(f"{', '.join(args.images)}: no images in there; name image files or folders that hold some")
    for error in unreadable:
        print(f"numpyvit: error: {error}", file=sys.stderr)
    if unreadable and shown:
        total = len(unreadable) + shown
        print(f"numpyvit: error: {len(unreadable)} of {total} images could not be read", file=sys.stderr)
    return 1 if unreadable else 0


def _files(names):
    """The files that are named, and those with an image's ending in the folders that are, in order."""
    from ..data.images import ENDINGS

    for name in names:
        if not os.path.isdir(name):
            yield name
        for folder, inner, files in os.walk(name):
            inner.sort()
            for file in sorted(files):
                if file.lower().endswith(ENDINGS) and not file.startswith("."):
                    yield os.path.join(folder, file)


def _batched(items, size):
    """Lists of so many items, of which the last may be shorter."""
    items = iter(items)
    while batch := list(itertools.islice(items, size)):
        yield batch


def _look(args, task, model, paths, out):
    """-> [(path, what is found)] of the files that can be read, drawn to `out`, and the errors of the others."""
    read, errors = [], []
    for path in paths:
        try:
            read.append((path, task.read(model, path)))
        except DataError as error:
            errors.append(str(error))
    if not read:
        return [], errors
    paths, images = zip(*read)
    found = task.predict(model, list(images), threads=args.group.threads(args.threads), top=args.top or task.top)
    if out is not None:
        for path, image, results in zip(paths, images, found):
            _draw(task, model, image, results, path, out)
    return list(zip(paths, found)), errors


def _draw(task, model, image, results, path, out):
    """The results in their image, as out/NAME.png."""
    file = pathlib.Path(out, pathlib.Path(path).stem + ".png")
    file.parent.mkdir(parents=True, exist_ok=True)
    task.draw_result(model, image, results, file)


# ---- how a result is shown ------------------------------------------------------------------------------------------


def _text(task, path, results):
    print(path)
    for result in results:
        print(f"  {task.show_result(result)}")


def _json(task, path, results):
    print(json.dumps({"image": path, task.results: results}))


def _csv(task, path, results):
    rows = csv.writer(sys.stdout, lineterminator="\n")
    for rank, result in enumerate(results, 1):
        rows.writerow([path, rank, *(_cell(result[name]) for name in task.columns)])


def _cell(value):
    return f"{value:.6g}" if isinstance(value, float) else value
