"""The command that makes a run again."""

import shlex

from ..training import recipes
from ..training.settings import KINDS, PATTERNS

_BY_SIZE = ("batch_size", "warmup_steps", "ema_decay")  # of a folder, they follow from how many images it holds
_BESIDE = ("data_dir", "pretrained", "teacher", "distillation")


def train_command(config: dict) -> str | None:
    """`numpyvit train …` with every setting that its recipe does not have; None of a run that a program made.

    config: of config.json.
    """
    data, model = config.get("data"), config.get("model")
    if not isinstance(data, str) or not isinstance(model, str):
        return None
    words = ["--data", data, *([] if model == recipes.default_model(data) else ["--model", model])]
    recipe = recipes.recipe(data, 1, bool(config.get("pretrained")), 1, _kind(config))
    for name, kind in KINDS.items():
        value = config.get(name)
        typed = kind.parse is not None and value is not None
        if typed and (_plain(value) != _plain(getattr(recipe, name)) or (recipes.is_folder(data) and name in _BY_SIZE)):
            words += _option(name, value, kind)
    for name in _BESIDE:
        if config.get(name) is not None:
            words += _option(name, config[name])
    options = config.get("options") or {}
    for name in ("drop_rate", "drop_path_rate"):
        if options.get(name):
            words += _option(name, options[name])
    if recipes.is_folder(data) and options.get("img_size"):
        size = options["img_size"]
        words += _option("img_size", size[0] if isinstance(size, list) else size)
    if config.get("augment") == {} and recipe.augment:
        words.append("--no-augment")
    return shlex.join(["numpyvit", "train", *map(str, words)])


def _kind(config):
    task = config.get("task")
    return "detection" if isinstance(task, dict) and task.get("name") == "Detection" else "classification"


def _option(name, value, kind=None):
    option = "--" + name.replace("_", "-")
    if kind is PATTERNS:
        return [word for pattern in value for word in (option, pattern)]
    return [option, value]


def _plain(value):
    return list(value) if isinstance(value, (tuple, list)) else value
