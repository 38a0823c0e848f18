"""`numpyvit train`: the settings from recipe, resumed run and options; train; say where the results are."""

import pathlib
import shlex

from ..errors import ConfigError, RunError
from .arguments import above_zero, add_verb, count, natural, rate

_TRAIN_EXAMPLES = """examples:
  numpyvit train                                             the digits inside the package, under two minutes
  numpyvit train --data mnist --data-dir ~/mnist --epochs 5
  numpyvit train --data pictures/ --epochs 50                pictures/train/<class>/*.png, pictures/val/<class>/*.png
  numpyvit train --resume --out runs/digits-vit_micro_patch2_8
"""


def add(verbs):
    verb = add_verb(verbs, "train", run, "Train a model on a data set or a folder of pictures.", _TRAIN_EXAMPLES)
    option = verb.add_argument
    option(
        "--data", metavar="NAME|FOLDER", help="digits (default), mnist, fashion-mnist, cifar10, cifar100, or a folder"
    )
    option(
        "--data-dir", metavar="DIR", help="where the files lie (default: NUMPYVIT_DATA, else a cache that is filled)"
    )
    option("--model", metavar="NAME", help="a preset of `numpyvit models` (default: one that suits the data)")
    option(
        "--img-size",
        type=count,
        metavar="N",
        help="size to which a folder's pictures are brought (default: the model's)",
    )
    option(
        "--epochs", type=count, metavar="N", help="default: 30 for digits, 5 for mnist, 10 for fashion-mnist, else 20"
    )
    option("--steps", type=count, metavar="N", help="stop after so many updates, if that comes first")
    option("--batch-size", type=count, metavar="N", help="default: 64 for digits and mnist, else 128")
    option(
        "--lr",
        type=rate,
        metavar="X",
        help="learning rate (default: 0.002 for digits, 0.003 for mnist, 0.001 for photographs)",
    )
    option("--weight-decay", type=rate, metavar="X", help="default: 0.05")
    option("--schedule", choices=("constant", "cosine", "step"), help="of the learning rate (default: constant)")
    option("--warmup-steps", type=natural, metavar="N", help="default: 200; 100 for digits")
    option("--label-smoothing", type=rate, metavar="X", help="default: 0")
    option("--clip-norm", type=above_zero, metavar="X", help="bound on the global norm of the gradients (default: 1)")
    option(
        "--ema-decay", type=rate, metavar="X", help="of the weights' moving average; 0 is off (default: 0.99 to 0.999)"
    )
    option("--drop-rate", type=rate, metavar="X", help="dropout (default: 0)")
    option("--drop-path-rate", type=rate, metavar="X", help="stochastic depth (default: 0)")
    option("--no-augment", action="store_true", help="leave the pictures as they are")
    option("--seed", type=natural, metavar="N", help="of weights, order, augmentation and dropout (default: 0)")
    option("--out", metavar="DIR", help="run directory (default: runs/DATA-MODEL, numbered where it exists)")
    option("--resume", action="store_true", help="go on from the state in the run directory, bit for bit")
    option("--device", choices=("cpu", "cuda"), default="cpu", help="default: cpu")
    option("--threads", type=count, metavar="N", help="default: all processors; the weights do not depend on it")
    option(
        "--grad-checkpointing",
        action="store_true",
        help="keep less for backward and compute it again: less memory, more time, the same result",
    )
    option("--pretrained", metavar="PATH", help="begin with the weights of a checkpoint")
    option(
        "--freeze",
        action="append",
        metavar="PATTERN",
        help='leave parameters as they are, e.g. "[!h]*": all but the head',
    )
    option(
        "--layer-decay", type=above_zero, metavar="X", help="factor by which lower blocks learn slower (default: none)"
    )
    return verb


def run(args):
    from .. import data, recipes
    from ..models import create_model
    from ..train import fit

    settings = _train_settings(args)
    out = settings.pop("out")
    options = settings.pop("options")
    train_set, val_set = data.load(
        settings["data"], settings["data_dir"], img_size=options.get("img_size"), in_chans=options.get("in_chans", 3)
    )
    options |= {
        "img_size": list(train_set.image_shape[1:]),
        "in_chans": train_set.image_shape[0],
        "num_classes": len(train_set.classes),
    }
    begun = args.resume and (out / "state.safetensors").exists()  # then the state holds the weights
    pretrained = None if begun else settings["pretrained"]
    model = create_model(
        settings.pop("model"),
        pretrained,
        seed=settings["seed"],
        device=args.device,
        grad_checkpointing=args.grad_checkpointing,
        **options,
    )
    if settings["preparation"] is None and settings["pretrained"] and recipes.is_folder(settings["data"]):
        wanted = ("mean", "std", "crop_pct", "interpolation")  # pictures are prepared as those of the weights were
        settings["preparation"] = {key: model.pretrained_cfg[key] for key in wanted}
    if settings["preparation"]:
        train_set, val_set = (part.prepared(settings["preparation"]) for part in (train_set, val_set))
    keys = ("data", "data_dir", "augment", "pretrained", "preparation")
    config = {key: settings.pop(key) for key in keys}
    print(
        f"{config['data']}: {len(train_set):,} pictures to train on, {len(val_set):,} to test; "
        f"{model._recipe['model']} with {model.num_parameters():,} parameters -> {out}"
    )
    records = fit(
        model,
        train_set,
        val_set,
        **settings,
        augment=recipes.augmentation(config["augment"]),
        out=out,
        resume=args.resume,
        threads=args.threads,
        config=config,
    )
    _report(out, records, config)


def _report(out, records, config):
    best = max(records, key=lambda record: record["val_accuracy"])
    data_dir = f" --data-dir {shlex.quote(str(config['data_dir']))}" if config["data_dir"] else ""
    print(
        f"\ntest accuracy  {records[-1]['val_accuracy']:.2%} (best {best['val_accuracy']:.2%}, epoch {best['epoch']})"
    )
    print(f"checkpoint     {out / 'last.safetensors'} (best: {out / 'best.safetensors'})")
    print(f"curves         {out / 'curves.png'}")
    print(f"next           numpyvit evaluate --checkpoint {shlex.quote(str(out / 'best.safetensors'))}{data_dir}")


def _train_settings(args):
    """The recipe of the data, under the stored settings of a resumed run, under what the user typed."""
    from .. import recipes
    from ..models import VARIANTS
    from ..run_directory import config_to_resume

    stored = {}
    if args.resume:
        out = pathlib.Path(args.out) if args.out else _latest_run()
        stored = config_to_resume(out)
    data = args.data or stored.get("data", "digits")
    names = ("model", "epochs", "steps", "batch_size", "lr", "weight_decay", "schedule", "warmup_steps")
    names += ("label_smoothing", "clip_norm", "ema_decay", "seed", "data_dir", "pretrained")
    names += ("freeze", "layer_decay")
    typed = {name: getattr(args, name) for name in names if getattr(args, name) is not None}
    stored_options = stored.pop("options", {})
    settings = {
        "data_dir": None,
        "pretrained": None,
        "preparation": None,
        **recipes.recipe(data),
        **stored,
        **typed,
        "data": data,
    }
    if args.no_augment:
        settings["augment"] = {}
    settings["options"] = dict(stored_options)
    for option in ("drop_rate", "drop_path_rate"):
        if getattr(args, option) is not None:
            settings["options"][option] = getattr(args, option)
    if args.img_size and not recipes.is_folder(data):
        raise ConfigError(f"--img-size is for folders of pictures; those of {data} have a size of their own")
    if recipes.is_folder(data):
        own = VARIANTS[settings["model"]].options if settings["model"] in VARIANTS else {}
        size = args.img_size or settings["options"].get("img_size") or own.get("img_size", 224)
        settings["options"]["img_size"] = (size, size) if isinstance(size, int) else tuple(size)
        settings["options"]["in_chans"] = own.get("in_chans", 3)
    settings["out"] = out if args.resume else _new_run(args.out, data, settings["model"])
    return settings


def _new_run(out, data, model):
    if out:
        return pathlib.Path(out)
    name = f"{pathlib.Path(data).name or 'pictures'}-{model}"
    numbers = [""] + [f"-{i}" for i in range(2, 10_000)]
    return next(path for n in numbers if not (path := pathlib.Path("runs", name + n)).exists())


def _latest_run():
    runs = sorted(pathlib.Path("runs").glob("*/config.json"), key=lambda path: path.stat().st_mtime)
    if not runs:
        raise RunError("there is no run under runs/ to resume; name its directory with --out")
    return runs[-1].parent
