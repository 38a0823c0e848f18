"""The command line. Each verb is a thin function over the library; its imports wait until it is called."""

import argparse
import math
import pathlib
import shlex
import sys
import warnings

from . import __version__
from .errors import CheckpointError, ConfigError, NumpyvitError, RunError


def main(argv=None):
    """Run one verb. Returns the exit code: 0, 1 for a failure, 2 for bad usage, 130 after Ctrl-C."""
    from .train import Interrupted

    parser = build_parser()
    args = parser.parse_args(argv)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("always", UserWarning)
            warnings.showwarning = _show_warning
            return args.run(args) or 0
    except Interrupted as stop:
        print(f"\nnumpyvit: {stop}", file=sys.stderr)
        return 130
    except KeyboardInterrupt:
        print("\nnumpyvit: stopped", file=sys.stderr)
        return 130
    except (NumpyvitError, MemoryError) as error:
        if args.debug:
            raise
        print(f"numpyvit: error: {error or type(error).__name__}", file=sys.stderr)
        return 2 if isinstance(error, ConfigError) else 1


def _show_warning(message, category, filename, lineno, file=None, line=None):
    print(f"numpyvit: note: {message}", file=sys.stderr)


def build_parser():
    parser = argparse.ArgumentParser(
        prog="numpyvit",
        description="Vision Transformers in pure NumPy: train, evaluate, look.",
        epilog="Begin with: numpyvit train",
    )
    parser.add_argument("--version", action="version", version=f"numpyvit {__version__}")
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")
    for add in (_add_train, _add_evaluate, _add_predict, _add_attention, _add_convert, _add_models, _add_gradcheck):
        verb = add(verbs)
        verb.add_argument("--debug", action="store_true", help="show the traceback of a failure")
    return parser


def _verb(verbs, name, run, text, example):
    verb = verbs.add_parser(
        name, help=text, description=text, epilog=example, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    verb.set_defaults(run=run)
    return verb


def _count(text):
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, got {value}")
    return value


def _natural(text):
    value = int(text)
    if value < 0:
        raise argparse.ArgumentTypeError(f"must not be negative, got {value}")
    return value


def _rate(text):
    value = float(text)
    if not 0 <= value < math.inf:
        raise argparse.ArgumentTypeError(f"must be finite and not negative, got {value}")
    return value


def _above_zero(text):
    value = _rate(text)
    if value == 0:
        raise argparse.ArgumentTypeError("must be above 0")
    return value


# ---- train ----------------------------------------------------------------------------------------------------------

_TRAIN_EXAMPLES = """examples:
  numpyvit train                                             the digits inside the package, under two minutes
  numpyvit train --data mnist --data-dir ~/mnist --epochs 5
  numpyvit train --data pictures/ --epochs 50                pictures/train/<class>/*.png, pictures/val/<class>/*.png
  numpyvit train --resume --out runs/digits-vit_micro_patch2_8
"""


def _add_train(verbs):
    verb = _verb(verbs, "train", train, "Train a model on a data set or a folder of pictures.", _TRAIN_EXAMPLES)
    add = verb.add_argument
    add("--data", metavar="NAME|FOLDER", help="digits (default), mnist, fashion-mnist, cifar10, cifar100, or a folder")
    add("--data-dir", metavar="DIR", help="where the files lie (default: NUMPYVIT_DATA, else a cache that is filled)")
    add("--model", metavar="NAME", help="a preset of `numpyvit models` (default: one that suits the data)")
    add(
        "--img-size",
        type=_count,
        metavar="N",
        help="size to which a folder's pictures are brought (default: the model's)",
    )
    add("--epochs", type=_count, metavar="N", help="default: 30 for digits, 5 for mnist, 10 for fashion-mnist, else 20")
    add("--steps", type=_count, metavar="N", help="stop after so many updates, if that comes first")
    add("--batch-size", type=_count, metavar="N", help="default: 64 for digits and mnist, else 128")
    add(
        "--lr",
        type=_rate,
        metavar="X",
        help="learning rate (default: 0.002 for digits, 0.003 for mnist, 0.001 for photographs)",
    )
    add("--weight-decay", type=_rate, metavar="X", help="default: 0.05")
    add("--schedule", choices=("constant", "cosine", "step"), help="of the learning rate (default: constant)")
    add("--warmup-steps", type=_natural, metavar="N", help="default: 200; 100 for digits")
    add("--label-smoothing", type=_rate, metavar="X", help="default: 0")
    add("--clip-norm", type=_above_zero, metavar="X", help="bound on the global norm of the gradients (default: 1)")
    add(
        "--ema-decay", type=_rate, metavar="X", help="of the weights' moving average; 0 is off (default: 0.99 to 0.999)"
    )
    add("--drop-rate", type=_rate, metavar="X", help="dropout (default: 0)")
    add("--drop-path-rate", type=_rate, metavar="X", help="stochastic depth (default: 0)")
    add("--no-augment", action="store_true", help="leave the pictures as they are")
    add("--seed", type=_natural, metavar="N", help="of weights, order, augmentation and dropout (default: 0)")
    add("--out", metavar="DIR", help="run directory (default: runs/DATA-MODEL, numbered where it exists)")
    add("--resume", action="store_true", help="go on from the state in the run directory, bit for bit")
    add("--device", choices=("cpu", "cuda"), default="cpu", help="default: cpu")
    add("--threads", type=_count, metavar="N", help="default: all processors; the result does not depend on it")
    add(
        "--grad-checkpointing",
        action="store_true",
        help="keep less for backward and compute it again: less memory, more time, the same result",
    )
    add("--pretrained", metavar="PATH", help="begin with the weights of a checkpoint")
    add(
        "--freeze",
        action="append",
        metavar="PATTERN",
        help='leave parameters as they are, e.g. "[!h]*": all but the head',
    )
    add(
        "--layer-decay", type=_above_zero, metavar="X", help="factor by which lower blocks learn slower (default: none)"
    )
    return verb


def train(args):
    from . import data, recipes
    from .models import create_model
    from .train import fit

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
    from . import recipes
    from .models import VARIANTS
    from .run_directory import config_to_resume

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


# ---- evaluate and predict -------------------------------------------------------------------------------------------


def _add_checkpoint(verb):
    verb.add_argument(
        "--checkpoint",
        "--pretrained",
        required=True,
        metavar="FILE",
        help="weights that `numpyvit train` wrote, or published ones (then with --model)",
    )
    verb.add_argument("--model", metavar="NAME", help="the preset, where the file does not name it")
    verb.add_argument("--device", choices=("cpu", "cuda"), default="cpu", help="default: cpu")
    verb.add_argument("--threads", type=_count, metavar="N", help="default: all processors")


def _load_model(args, **overrides):
    """-> the model of a checkpoint with its weights, and the checkpoint's notes."""
    from .io import read_checkpoint
    from .models import create_model
    from .pretrained import put_weights

    arrays, notes, origin = read_checkpoint(args.checkpoint)
    recipe = notes.get("recipe", {})
    name = args.model or recipe.get("model")
    if name is None:
        raise CheckpointError(f"{args.checkpoint}: does not say which model it belongs to; name it with --model")
    if recipe.get("unsaved"):
        raise CheckpointError(
            f"{args.checkpoint}: its model was made with {', '.join(recipe['unsaved'])}, which a file cannot hold; "
            "make it in a script and use load_state_dict"
        )
    model = create_model(name, **{**recipe.get("options", {}), **overrides})
    put_weights(model, arrays, notes, origin, args.checkpoint)
    return model.to(args.device), notes


def _prepare_picture(model, path):
    """-> a picture as the model sees it: (C, H, W) uint8, and normed (C, H, W) floating point."""
    from .data import normalize, read_picture

    embed, cfg = model.patch_embed, model.pretrained_cfg
    in_chans = embed.proj.weight.data.shape[1]
    picture = read_picture(path, embed.img_size, in_chans, cfg["crop_pct"], cfg["interpolation"])
    return picture, normalize(picture, cfg["mean"], cfg["std"])


def _to_home(model, x):
    """x where the model's parameters are."""
    from .backend import array_module, to_module

    return to_module(x, array_module(model.patch_embed.proj.weight.data))


def _add_evaluate(verbs):
    verb = _verb(
        verbs,
        "evaluate",
        evaluate,
        "Loss and accuracy of a checkpoint on the test part of a data set.",
        "example:\n  numpyvit evaluate --checkpoint runs/digits-vit_micro_patch2_8/best.safetensors\n",
    )
    _add_checkpoint(verb)
    verb.add_argument("--data", metavar="NAME|FOLDER", help="default: what it was trained on")
    verb.add_argument("--data-dir", metavar="DIR", help="where the files lie")
    verb.add_argument("--batch-size", type=_count, default=256, metavar="N", help="default: 256")
    return verb


def evaluate(args):
    from . import data as datasets
    from .train import evaluate as measure

    model, notes = _load_model(args)
    data = args.data or notes.get("data")
    if data is None:
        raise CheckpointError(f"{args.checkpoint}: does not say what it was trained on; name the data with --data")
    embed = model.patch_embed
    _, test = datasets.load(data, args.data_dir, img_size=embed.img_size, in_chans=embed.proj.weight.data.shape[1])
    test = datasets.prepared_for(test, model.pretrained_cfg)
    scores = measure(model, test, batch_size=args.batch_size, threads=args.threads)
    print(
        f"{data}: accuracy {scores['accuracy']:.2%}, loss {scores['loss']:.4f} on {scores['images']:,} pictures, "
        f"{scores['images_per_second']:.0f} img/s"
    )


def _add_predict(verbs):
    verb = _verb(
        verbs,
        "predict",
        predict,
        "The likeliest classes of pictures, with probabilities.",
        "examples:\n  numpyvit predict seven.png --checkpoint runs/digits-vit_micro_patch2_8/best.safetensors\n"
        "  numpyvit predict cat.jpg --model vit_tiny_patch16_224 --checkpoint vit_tiny_patch16_224.npz\n",
    )
    verb.add_argument("pictures", nargs="+", metavar="PICTURE", help="picture files")
    _add_checkpoint(verb)
    verb.add_argument("--top", type=_count, default=5, metavar="K", help="how many classes to show (default: 5)")
    return verb


def predict(args):
    import numpy as np

    from .backend import to_host
    from .functional import softmax
    from .inference import infer
    from .models import class_names

    model, _ = _load_model(args)
    x = _to_home(model, np.stack([_prepare_picture(model, picture)[1] for picture in args.pictures]))
    probabilities = softmax(to_host(infer(model, x, args.threads)))
    classes = class_names(model)
    for picture, p in zip(args.pictures, probabilities):
        print(picture)
        for k in np.argsort(-p)[: args.top]:
            print(f"  {p[k]:7.2%}  {classes[k]}")


def _add_attention(verbs):
    verb = _verb(
        verbs,
        "attention",
        attention,
        "Draw what a model looks at in a picture: rollout, gradient-weighted attention, every head and block.",
        "example:\n  numpyvit attention cat.jpg --model vit_tiny_patch16_224 --checkpoint vit_tiny_patch16_224.npz\n"
        "      --out attention.png\n",
    )
    verb.add_argument("picture", metavar="PICTURE", help="a picture file")
    _add_checkpoint(verb)
    verb.add_argument("--out", default="attention.png", metavar="FILE.png", help="default: attention.png")
    verb.add_argument("--img-size", type=_count, metavar="N", help="default: the model's; another one shows finer maps")
    verb.add_argument("--class-index", type=_natural, metavar="K", help="of the gradient (default: the likeliest)")
    return verb


def attention(args):
    from .models import class_names
    from .viz import draw_attention

    model, _ = _load_model(args, **({"img_size": args.img_size} if args.img_size else {}))
    picture, x = _prepare_picture(model, args.picture)
    x = _to_home(model, x[None])
    index = args.class_index if args.class_index is not None else int(model(x)[0].argmax())
    names = class_names(model)
    title = f"{pathlib.Path(args.picture).name}: {names[index]}" if index < len(names) else ""
    draw_attention(model, x, picture, args.out, title, index)
    print(f"{args.out}: {title}")


def _add_convert(verbs):
    verb = _verb(
        verbs,
        "convert",
        convert,
        "Write weights of any common origin as safetensors under timm's names.",
        "example:\n  numpyvit convert vit_b_16.pth vit_base_patch16_224.safetensors\n",
    )
    verb.add_argument("source", metavar="IN", help=".safetensors, .npz, .pth, .pt or .bin")
    verb.add_argument("target", metavar="OUT", help="a .safetensors file that does not exist yet")
    return verb


def convert(args):
    from .io import read_checkpoint, save_tensors

    target = pathlib.Path(args.target)
    if target.suffix != ".safetensors":
        raise ConfigError(f"{target}: what is written is safetensors; give OUT that ending")
    if target.exists():
        raise RunError(f"{target}: exists already; choose another name or remove it")
    arrays, notes, origin = read_checkpoint(args.source)
    save_tensors(target, arrays, notes)
    count = sum(array.size for array in arrays.values())
    print(f"{target}: {len(arrays)} arrays, {count:,} numbers, from {origin}'s names")


# ---- models and gradcheck -------------------------------------------------------------------------------------------


def _add_models(verbs):
    verb = _verb(verbs, "models", models, "The presets and their sizes.", 'example:\n  numpyvit models "deit*"\n')
    verb.add_argument("pattern", nargs="?", default="*", help='shell pattern such as "deit*" (default: all)')
    return verb


def models(args):
    from .models import VARIANTS, count_parameters, list_models

    names = list_models(args.pattern)
    if not names:
        raise ConfigError(f"no model matches {args.pattern!r}; `numpyvit models` lists them all")
    print(f"{'model':34s} {'parameters':>12s}  image  patch  width  depth  heads")
    for name in names:
        v = VARIANTS[name].options
        print(
            f"{name:34s} {count_parameters(name):12,d}  {v['img_size']:5d}  {v['patch_size']:5d}  "
            f"{v['embed_dim']:5d}  {v['depth']:5d}  {v['num_heads']:5d}"
        )


def _add_gradcheck(verbs):
    verb = _verb(
        verbs,
        "gradcheck",
        gradcheck,
        "Compare every layer's backward, and one model of each kind, with finite differences in float64.",
        "example:\n  numpyvit gradcheck\n  numpyvit gradcheck Attention\n",
    )
    verb.add_argument("pattern", nargs="?", default="", help="only cases whose name contains this")
    return verb


def gradcheck(args):
    from .errors import GradientError
    from .testing import gradcheck as check
    from .testing.cases import LAYERS, MODELS

    cases = [case for case in LAYERS + MODELS if args.pattern.lower() in case.name.lower()]
    if not cases:
        raise ConfigError(f"no layer or model is named like {args.pattern!r}; `numpyvit gradcheck` checks all")
    failures = 0
    print(f"{'layer':36s} arrays  worst error  allowed  verdict")
    for case in cases:
        seed = 0 if case.dropout else None
        try:
            errors = check(case.layer("float64"), case.x("float64"), seed=seed, rtol=case.rtol)
            print(f"{case.name:36s} {len(errors):6d}  {max(errors.values()):11.1e}  {case.rtol:7.0e}  ok")
        except GradientError as error:
            failures += 1
            print(f"{case.name:36s} FAILED: {error}")
    print(f"{len(cases) - failures} of {len(cases)} hold")
    return 1 if failures else 0
