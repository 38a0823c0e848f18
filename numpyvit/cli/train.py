"""`numpyvit train`: the settings from recipe, resumed run and options; train; say where the results are."""

import json
import pathlib
import shlex
from argparse import ArgumentParser, Namespace

from ..errors import ConfigError, RunError
from ..training import recipes
from ..training.settings import KINDS, Settings, free_on_resume
from .arguments import Verbs, add_settings, add_verb, count, natural, rate
from .checkpoint import load_model_of
from .ranks import add_ranks
from .streams import tolerant_stdout

_OF_THE_COMMAND = ("data_dir", "pretrained", "preparation", "teacher", "distillation")  # kept beside the settings
_TRAIN_EXAMPLES = """examples:
  numpyvit train                                             the digits inside the package, half a minute
  numpyvit train --data mnist --data-dir ~/mnist --epochs 5
  numpyvit train --data images/ --epochs 50                  images/train/<class>/*.png, images/val/<class>/*.png
  numpyvit train --data images.csv                           path,label[,split] of each image
  numpyvit train --data shapes                               drawn shapes, to be found with their boxes
  numpyvit train --data cells/ --epochs 100                  a folder in Pascal VOC's or COCO's form: boxes are learned
  numpyvit train --resume --out runs/digits-vit_micro_patch2_8
"""


def add(verbs: Verbs) -> ArgumentParser:
    verb = add_verb(verbs, "train", run, "Train a model on a data set or a folder of images.", _TRAIN_EXAMPLES)
    option = verb.add_argument
    option(
        "--data",
        metavar="NAME|FOLDER|FILE.csv",
        help="digits (default), mnist, fashion-mnist, cifar10, cifar100, shapes, a folder, with one for each class or "
        "in the form of Pascal VOC or COCO, or a CSV with the columns path, label and maybe split. Of train/, val/ and "
        "test/, val/ is for validation and test/ for the test; with train/ and one of them, that is for the test, and "
        "a part of train/ is held out for validation",
    )
    option(
        "--data-dir", metavar="DIR", help="where the files lie (default: NUMPYVIT_DATA, else a cache that is filled)"
    )
    option("--model", metavar="NAME", help="a preset of `numpyvit models` (default: one that suits the data)")
    option(
        "--img-size",
        type=count,
        metavar="N",
        help="size to which a folder's images are brought (default: the model's)",
    )
    add_settings(verb)
    option("--drop-rate", type=rate, metavar="X", help="dropout (default: the model's)")
    option("--drop-path-rate", type=rate, metavar="X", help="stochastic depth (default: the model's)")
    option("--skip-bad", action="store_true", help="leave images of a folder out that cannot be read, with a note")
    option(
        "--cache-mb",
        type=natural,
        default=512,  # data.cache.CACHE_MB, without importing NumPy for --help
        metavar="N",
        help="MiB of decoded images that are kept in memory; 0 decodes them again in each epoch (default: 512)",
    )
    option("--quiet", action="store_true", help="say nothing but notes and errors")
    option("--no-augment", action="store_true", help="leave the images as they are")
    option("--out", metavar="DIR", help="run directory (default: runs/DATA-MODEL, numbered where it exists)")
    option("--resume", action="store_true", help="go on from the state in the run directory, bit for bit")
    option("--device", choices=("cpu", "cuda"), default="cpu", help="default: cpu")
    option("--threads", type=count, metavar="N", help="default: all processors; the weights do not depend on it")
    add_ranks(verb)
    option(
        "--accumulate",
        type=count,
        default=1,
        metavar="N",
        help="work on a batch in N parts, one after another: less memory, more time, the same result (default: 1)",
    )
    option(
        "--grad-checkpointing",
        action="store_true",
        help="keep less for backward and compute it again: less memory, more time, the same result",
    )
    option("--tensorboard", action="store_true", help="write the curves to RUN/tensorboard too, epoch by epoch")
    option("--pretrained", metavar="PATH", help="begin with the weights of a checkpoint")
    option("--teacher", metavar="CHECKPOINT", help="a trained model from which one made to be distilled learns too")
    option(
        "--distillation",
        choices=("hard", "soft"),
        help="what the teacher gives: its most likely class or its logits (default: hard with --teacher)",
    )
    return verb


def run(args: Namespace) -> None:
    with tolerant_stdout():
        _train(args)


def _train(args):
    from ..backend import device_module
    from ..gpu.device import describe
    from ..report import EventFiles, write_report
    from ..training.fit import fit
    from ..training.run_writer import noted
    from ..training.task import task_for

    group = args.group
    stored, out = group.from_first(_stored_settings(args) if group.leads else None)
    out = pathlib.Path(out)
    on_epoch = EventFiles(out) if args.tensorboard else None
    typed = _typed_settings(args, stored, out)
    options = {**stored.pop("options", {}), **typed.pop("options")}
    stored.pop("task", None)  # fit compares it
    reading = {"skip_bad": args.skip_bad, "cache_mb": args.cache_mb}
    parts = group.leader_first(lambda: _load({**stored, **typed}, options, **reading))
    settings = {**dict.fromkeys(_OF_THE_COMMAND), **_recipe({**stored, **typed}, typed, parts[0]), **stored, **typed}
    model = _make_model(args, settings, options, parts[0], begun=args.resume and (out / "state.safetensors").exists())
    train_set, val_set, test_set = _prepared(parts, settings, model)
    config = {key: settings.pop(key) for key in ("data", *_OF_THE_COMMAND)}
    task = _distillation(config, settings, args.device)
    say = print if not args.quiet else lambda text: None
    if args.device == "cuda":
        say(f"GPU: {describe(device_module('cuda'))}")
    say(
        f"{config['data']}: {len(train_set):,} images to train on{_validation(val_set, settings['val_fraction'])}, "
        f"{len(test_set):,} to test; "
        f"{model.build_config['model']} with {model.num_parameters():,} parameters -> {out}"
    )
    fit(
        model,
        train_set,
        val_set,
        **settings,
        test=test_set,
        task=task,
        out=out,
        resume=args.resume,
        threads=args.threads,
        progress=not args.quiet,
        config=config,
        on_epoch=on_epoch if group.leads else None,
        group=group,
        accumulate=args.accumulate,
    )
    if not group.leads:
        return
    with noted("report.html"):
        write_report(out, test_set, load_model_of(out, args.device))
    chosen = val_set is not None or settings["val_fraction"] > 0
    result = json.loads((out / "result.json").read_bytes())
    say(_report(out, result, task or task_for(train_set), chosen, config))


def _load(settings, options, **reading):
    """-> the training, validation and test set."""
    from ..training.parts import load_parts

    return load_parts(
        settings["data"],
        settings.get("data_dir"),
        img_size=options.get("img_size"),
        in_chans=options.get("in_chans", 3),
        **reading,
    )


def _recipe(settings, typed, train_set):
    """The settings that suit the data where none are said."""
    from ..training.task import kind_of

    pretrained = bool(settings.get("pretrained"))
    return vars(
        recipes.recipe(settings["data"], len(train_set), pretrained, typed.get("batch_size"), kind_of(train_set))
    )


def _make_model(args, settings, options, train_set, begun):
    """The model for the data, with pretrained weights unless the state of a run that has begun will give it others."""
    from ..models import create_model

    options |= {
        "img_size": train_set.img_size,
        "in_chans": train_set.image_shape[0],
        "num_classes": len(train_set.classes),
    }
    return create_model(
        settings.pop("model"),
        None if begun else settings["pretrained"],
        seed=settings["seed"],
        device=args.device,
        grad_checkpointing=args.grad_checkpointing,
        **options,
    )


def _prepared(parts, settings, model):
    """The sets, their images prepared as those of the weights were that the model begins with."""
    from ..data import Preprocessing, prepared_for

    if settings["preparation"] is None and settings["pretrained"] and recipes.is_folder(settings["data"]):
        settings["preparation"] = model.preprocessing.as_dict()
    if not settings["preparation"]:
        return parts
    preprocessing = Preprocessing.of(settings["preparation"])
    return [None if part is None else prepared_for(part, preprocessing) for part in parts]


def _distillation(config, settings, device):
    """The task of a run with a teacher, else None."""
    if config["teacher"] is None:
        return None
    from ..training import Distillation

    teacher = load_model_of(config["teacher"], device)
    config["label_smoothing"] = settings.pop("label_smoothing")
    return Distillation(teacher, config["distillation"], label_smoothing=config["label_smoothing"])


def _validation(val_set, fraction):
    if val_set is not None:
        return f", {len(val_set):,} to validate"
    return f", {fraction:.0%} of them held out to validate" if fraction else ""


def _report(out, result, task, chosen, config):
    figure = task.best[0]
    last, best = (task.show(figure, result[which][figure]) for which in ("last", "best"))
    of_best = f"best on validation: {best}, epoch {result['best']['epoch']}" if chosen else "best is last"
    data_dir = f" --data-dir {shlex.quote(str(config['data_dir']))}" if config["data_dir"] else ""
    return (
        f"\n{'test ' + figure:<13}  {last} ({of_best})\n"
        f"checkpoint     {out / 'last.safetensors'} (best: {out / 'best.safetensors'})\n"
        f"report         {out / 'report.html'}\n"
        f"curves         {out / 'curves.png'}\n"
        f"next           numpyvit evaluate --checkpoint {shlex.quote(str(out / 'best.safetensors'))}{data_dir}"
    )


def _stored_settings(args):
    """-> what config.json of a resumed run holds, checked, else nothing; and the run directory."""
    from ..training.run_directory import config_to_resume
    from ..training.stored_settings import check_stored

    if not args.resume:
        data = args.data or "digits"
        return {}, str(_new_run(args.out, data, args.model or recipes.default_model(data)))
    out = pathlib.Path(args.out) if args.out else _latest_run()
    stored = config_to_resume(out)
    check_stored(stored, out / "config.json")
    return stored, str(out)


def _typed_settings(args, stored, out):
    """The settings of the command line, checked before any data is read, also against those of a resumed run."""
    from ..models import VARIANTS, preset_options
    from ..training.run_directory import check_same_run

    names = [*KINDS, "model", "data_dir", "pretrained", "teacher", "distillation"]
    typed = {name: getattr(args, name) for name in names if getattr(args, name, None) is not None}
    typed["data"] = args.data or stored.get("data", "digits")
    typed["model"] = args.model or stored.get("model") or recipes.default_model(typed["data"])
    if "teacher" in typed:
        typed.setdefault("distillation", "hard")
    elif "distillation" in typed and not stored.get("teacher"):
        raise ConfigError("--distillation needs a teacher; name its checkpoint with --teacher")
    if args.no_augment:
        typed["augment"] = {}
    typed["options"] = {
        name: getattr(args, name) for name in ("drop_rate", "drop_path_rate") if getattr(args, name) is not None
    }
    folder = recipes.is_folder(typed["data"])
    if args.img_size and not folder:
        raise ConfigError(f"--img-size is for folders of images; those of {typed['data']} have a size of their own")
    if args.img_size:
        typed["options"]["img_size"] = _data_size(typed["data"], args.img_size)
    if stored:
        options = {**stored.get("options", {}), **typed["options"]}
        free = free_on_resume(Settings(**{name: stored[name] for name in KINDS}))
        check_same_run(out, {**stored, **typed, "options": options}, stored, free)
    elif folder:
        own = preset_options(typed["model"]) if typed["model"] in VARIANTS else {"img_size": 224, "in_chans": 3}
        common = {"img_size": _data_size(typed["data"], own["img_size"]), "in_chans": own["in_chans"]}
        typed["options"] = {**common, **typed["options"]}
    return typed


def _data_size(data, side):
    """The img_size of a folder's images: a square, or the shorter side of those with boxes, which keep their shape."""
    from ..data import has_boxes

    return side if has_boxes(data) else [side, side]


def _new_run(out, data, model):
    if out:
        return pathlib.Path(out)
    name = f"{pathlib.Path(data).name.removesuffix('.csv') or 'images'}-{model}"
    numbers = [""] + [f"-{i}" for i in range(2, 10_000)]
    return next(path for n in numbers if not (path := pathlib.Path("runs", name + n)).exists())


def _latest_run():
    runs = sorted(pathlib.Path("runs").glob("*/config.json"), key=lambda path: path.stat().st_mtime)
    if not runs:
        raise RunError("there is no run under runs/ to resume; name its directory with --out")
    return runs[-1].parent
