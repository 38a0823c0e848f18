"""`numpyvit report`: a run as one HTML file."""

import warnings
from argparse import ArgumentParser, Namespace

from ..errors import NumpyvitError
from .arguments import Verbs, add_verb
from .checkpoint import load_model_of


def add(verbs: Verbs) -> ArgumentParser:
    verb = add_verb(
        verbs,
        "report",
        run,
        "Write a run's report again, as `numpyvit train` does at its end: one HTML file with the figures, curves, "
        "mistakes and settings, which needs no other file and no network.",
        "examples:\n  numpyvit report runs/digits-vit_micro_patch2_8\n"
        "  numpyvit report runs/mnist-vit_micro_patch4_28 --data-dir ~/mnist --out mnist.html\n",
    )
    verb.add_argument("run_directory", metavar="RUN", help="a directory that `numpyvit train` wrote")
    verb.add_argument("--out", metavar="FILE", help="default: RUN/report.html")
    verb.add_argument(
        "--data-dir", metavar="DIR", help="where the data lies now, its files or the folder (default: as in training)"
    )
    verb.add_argument("--device", choices=("cpu", "cuda"), default="cpu", help="for attention maps; default: cpu")
    return verb


def run(args: Namespace) -> int | None:
    from ..report import read_run, write_report

    found = read_run(args.run_directory)
    print(write_report(found, *_model_and_data(found, args), args.out))


def _model_and_data(found, args):
    """-> the test set and the model with the best weights, None for what is not to be had, with a note."""
    dataset = model = None
    if found.predictions is not None:
        try:
            model = load_model_of(found.path, args.device)
            dataset = _test_set(found.config, args.data_dir, model)
        except (NumpyvitError, OSError, KeyError, TypeError) as error:
            warnings.warn(
                f"the report is without {'images' if model else 'attention and images'}: {error}", stacklevel=2
            )
    return dataset, model


def _test_set(config, data_dir, model):
    """The test set of a run's training; nothing is downloaded."""
    from ..data import has_boxes, has_classes, prepared_for
    from ..training.parts import load_parts
    from ..training.recipes import is_folder

    data = config["data"]
    if data_dir is not None and is_folder(data):  # or a CSV: it has been moved
        data = data_dir
    options = {"img_size": model.data_size, "in_chans": model.input_shape[0], "skip_bad": True}
    if not (has_boxes(data) or has_classes(data)):
        options["allow_download"] = False
    return prepared_for(load_parts(data, data_dir or config.get("data_dir"), **options)[2], model.preprocessing)
