"""`numpyvit evaluate`: loss and score of a checkpoint."""

import sys
from argparse import ArgumentParser, Namespace

from ..errors import CheckpointError, ConfigError
from .arguments import Verbs, add_checkpoint, add_verb, count
from .checkpoint import load_model
from .ranks import add_ranks


def add(verbs: Verbs) -> ArgumentParser:
    verb = add_verb(
        verbs,
        "evaluate",
        run,
        "Loss, top-1 and top-5 accuracy of a checkpoint, or a detector's average precision. Classes are matched by "
        "name, ImageNet's by WordNet id too.",
        "examples:\n  numpyvit evaluate --checkpoint runs/digits-vit_micro_patch2_8/best.safetensors\n"
        "  numpyvit evaluate --data imagenet/val --model vit_tiny_patch16_224 --checkpoint vit_tiny_patch16_224.npz\n",
    )
    add_checkpoint(verb)
    add_ranks(verb)
    verb.add_argument(
        "--data",
        metavar="NAME|FOLDER|FILE.csv",
        help="a data set's name, or a folder: its val/, else its test/, else its own folders, one for each class; or a "
        "CSV with the columns path, label and maybe split (default: the test set of its training)",
    )
    verb.add_argument("--data-dir", metavar="DIR", help="where the files lie")
    verb.add_argument(
        "--class-map",
        metavar="FILE",
        help="which class of the model is meant by one of the data: a JSON object of names, or a CSV with the columns "
        "folder and class (default: that of the same name or WordNet id)",
    )
    verb.add_argument("--skip-bad", action="store_true", help="leave images out that cannot be read, with a note")
    verb.add_argument("--batch-size", type=count, default=256, metavar="N", help="default: 256")
    verb.add_argument("--per-class", action="store_true", help="a line for each class as well")
    verb.add_argument("--json", action="store_true", help="print one JSON object instead")
    return verb


def run(args: Namespace) -> None:
    from ..data import prepared_for
    from ..files.atomic import to_json
    from ..training.class_names import read_class_map
    from ..training.evaluation import check_images, evaluate_task, known_classes
    from ..training.task import task_for

    class_map = read_class_map(args.class_map) if args.class_map else None
    model, notes = load_model(args)
    data = args.data or notes.get("data")
    if data is None:
        raise CheckpointError(f"{args.checkpoint}: does not say what it was trained on; name the data with --data")
    if known_classes(model) is None:
        print("numpyvit: note: the weights do not name their classes; labels are taken by number", file=sys.stderr)
    test = args.group.leader_first(lambda: _load(args, data, model))
    check_images(model, test)  # before its figures are taken for images of this kind
    if test.name == "folder" or model.pretrained_cfg["classes"]:  # else the set's own figures suit it better
        test = prepared_for(test, model.preprocessing)
    task, options = task_for(test), {"per_class": args.per_class, "progress": True}
    if class_map is not None:
        if test.kind != "classification":
            raise ConfigError("--class-map is for images of one class each, these have boxes; leave it out")
        options["class_map"] = class_map
    options |= {"batch_size": args.batch_size, "threads": args.threads}
    scores = evaluate_task(task, model, test, args.group, **options)
    print(to_json({"data": str(data), **scores}) if args.json else f"{data}: {task.report(model, scores)}")


def _load(args, data, model):
    """The set to look at. A folder that is typed is taken as it is; without one, it is the test set of its training."""
    from ..data import load_test
    from ..training.evaluation import known_classes
    from ..training.parts import load_parts

    options = {"img_size": model.data_size, "in_chans": model.input_shape[0], "skip_bad": args.skip_bad, "cache_mb": 0}
    if args.data is None:
        return load_parts(data, args.data_dir, **options)[2]
    return load_test(data, args.data_dir, classes=known_classes(model), **options)
