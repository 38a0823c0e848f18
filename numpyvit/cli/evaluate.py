"""`numpyvit evaluate`: loss and accuracy of a checkpoint."""

import sys

from ..errors import CheckpointError
from .arguments import add_checkpoint, add_verb, count
from .checkpoint import load_model


def add(verbs):
    verb = add_verb(
        verbs,
        "evaluate",
        run,
        "Loss, top-1 and top-5 accuracy of a checkpoint. Classes are matched by name, ImageNet's by WordNet id too.",
        "examples:\n  numpyvit evaluate --checkpoint runs/digits-vit_micro_patch2_8/best.safetensors\n"
        "  numpyvit evaluate --data imagenet/val --model vit_tiny_patch16_224 --checkpoint vit_tiny_patch16_224.npz\n",
    )
    add_checkpoint(verb)
    verb.add_argument(
        "--data",
        metavar="NAME|FOLDER",
        help="a data set's name, or a folder: its val/, else its test/, else its own folders, one for each class "
        "(default: the test set of its training)",
    )
    verb.add_argument("--data-dir", metavar="DIR", help="where the files lie")
    verb.add_argument("--batch-size", type=count, default=256, metavar="N", help="default: 256")
    verb.add_argument("--per-class", action="store_true", help="a line for each class as well")
    verb.add_argument("--json", action="store_true", help="print one JSON object instead")
    return verb


def run(args):
    from ..data import prepared_for
    from ..files.atomic import to_json
    from ..training.evaluation import check_images, evaluate, known_classes

    model, notes = load_model(args)
    data = args.data or notes.get("data")
    if data is None:
        raise CheckpointError(f"{args.checkpoint}: does not say what it was trained on; name the data with --data")
    if known_classes(model) is None:
        print("numpyvit: note: the weights do not name their classes; labels are taken by number", file=sys.stderr)
    test = _load(args, data, model)
    check_images(model, test)  # before its figures are taken for images of this kind
    if test.name == "folder" or model.pretrained_cfg["classes"]:  # else the set's own figures suit it better
        test = prepared_for(test, model.preprocessing)
    scores = evaluate(model, test, batch_size=args.batch_size, threads=args.threads, per_class=args.per_class)
    if args.json:
        print(to_json({"data": str(data), **scores}))
        return
    top5 = f", top-5 {scores['top5_accuracy']:.2%}" if model.num_classes > 5 else ""
    print(
        f"{data}: accuracy {scores['accuracy']:.2%}{top5}, loss {scores['loss']:.4f} on {scores['images']:,} images, "
        f"{scores['images_per_second']:.0f} img/s"
    )
    if args.per_class:
        _print_classes(scores["per_class"])


def _load(args, data, model):
    """The set to look at. A folder that is typed is taken as it is; without one, it is the test set of its training."""
    from ..data import load_test
    from ..training.parts import load_parts

    in_chans, *img_size = model.input_shape
    options = {"img_size": tuple(img_size), "in_chans": in_chans}
    if args.data is None:
        return load_parts(data, args.data_dir, **options)[2]
    return load_test(data, args.data_dir, **options)


def _print_classes(rows):
    names = [
        f"{row['class']}" + (f" ({row['model_class']})" if row["model_class"] != row["class"] else "") for row in rows
    ]
    width = max(len("class"), *map(len, names))
    print(f"\n{'class':{width}}  images    top-1    top-5  most often mistaken for")
    for name, row in zip(names, rows):
        print(
            f"{name:{width}}  {row['images']:6,}  {row['accuracy']:7.2%}  {row['top5_accuracy']:7.2%}  "
            f"{row['mistaken_for'] or ''}".rstrip()
        )
