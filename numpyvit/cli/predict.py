"""`numpyvit predict`: the most probable classes of images, each printed as soon as it is known."""

import csv
import itertools
import json
import os
import sys

from ..errors import ConfigError, DataError
from .arguments import add_checkpoint, add_verb, count
from .checkpoint import as_input_of, load_model, prepare_image

_BATCH = 8  # images in memory at a time: enough for all threads, few enough to see results at once


def add(verbs):
    verb = add_verb(
        verbs,
        "predict",
        run,
        "The most probable classes of images, with probabilities. Files that cannot be read are reported at the end.",
        "examples:\n  numpyvit predict seven.png --checkpoint runs/digits-vit_micro_patch2_8/best.safetensors\n"
        "  numpyvit predict photos/ --csv --model vit_tiny_patch16_224 --checkpoint vit_tiny_patch16_224.npz\n",
    )
    verb.add_argument(
        "images", nargs="+", metavar="IMAGE|FOLDER", help="image files, and folders with such at any depth"
    )
    add_checkpoint(verb)
    verb.add_argument("--top", type=count, default=5, metavar="N", help="how many classes to show (default: 5)")
    form = verb.add_mutually_exclusive_group()
    form.add_argument(
        "--json", action="store_const", const=_json, dest="form", help="a JSON object a line for each image"
    )
    form.add_argument(
        "--csv", action="store_const", const=_csv, dest="form", help="comma-separated, a row for each class"
    )
    verb.set_defaults(form=_text)
    return verb


def run(args):
    model, _ = load_model(args)
    if model.num_classes == 0:
        raise ConfigError(f"{args.checkpoint}: the model has no classes to predict, only features")
    if args.form is _csv:
        print("image,rank,class,index,probability")
    unreadable, shown = [], 0
    images = _read(model, _files(args.images), unreadable)
    while batch := list(itertools.islice(images, _BATCH)):
        for path, classes in _predict(model, batch, args):
            args.form(path, classes)
            shown += 1
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


def _read(model, paths, unreadable):
    """(path, image as the model takes it) one by one; the errors of the others go into `unreadable`."""
    for path in paths:
        try:
            yield path, prepare_image(model, path)[1]
        except DataError as error:
            unreadable.append(error)


def _predict(model, batch, args):
    """-> (path, the most probable classes as dicts) for each (path, image)."""
    import numpy as np

    from ..backend import to_host
    from ..functional import softmax
    from ..models import class_names
    from ..training.inference import infer

    paths, images = zip(*batch)
    probabilities = softmax(to_host(infer(model, as_input_of(model, np.stack(images)), args.threads)))
    names = class_names(model)
    for path, p in zip(paths, probabilities):
        best = np.argsort(-p)[: args.top].tolist()
        yield path, [{"class": names[k], "index": k, "probability": float(p[k])} for k in best]


# ---- how a result is shown ------------------------------------------------------------------------------------------


def _text(path, classes):
    print(path)
    for found in classes:
        print(f"  {found['probability']:7.2%}  {found['class']}")


def _json(path, classes):
    print(json.dumps({"image": path, "classes": classes}))


def _csv(path, classes):
    rows = csv.writer(sys.stdout, lineterminator="\n")
    for rank, found in enumerate(classes, 1):
        rows.writerow([path, rank, found["class"], found["index"], f"{found['probability']:.6g}"])
