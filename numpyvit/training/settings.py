"""The settings of a training run, one line each.

The options of `numpyvit train`, the arguments of `fit`, the keys of config.json and the recipes follow from `Settings`.
"""

import difflib
import math
import numbers
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any

from ..errors import ConfigError


@dataclass(frozen=True)
class Kind:
    """What a value may be: a test, words for it, and how the command line reads it (None: it does not)."""

    allows: Callable
    expected: str
    parse: Callable | None = str
    metavar: str = "TEXT"
    choices: tuple = ()


def _is_int(value):
    return isinstance(value, numbers.Integral) and not isinstance(value, bool)


def _is_number(value):
    return isinstance(value, numbers.Real) and not isinstance(value, bool) and math.isfinite(value)


def is_list(value: object, allowed: Callable[[object], bool]) -> bool:
    return isinstance(value, (list, tuple)) and all(map(allowed, value))


def optional(kind: Kind) -> Kind:
    expected = f"{kind.expected} or None"
    return replace(kind, allows=lambda value: value is None or kind.allows(value), expected=expected)


def one_of(*choices: str) -> Kind:
    expected = ", ".join(map(repr, choices[:-1])) + f" or {choices[-1]!r}"
    return Kind(lambda value: value in choices, expected, choices=choices)


COUNT = Kind(lambda value: _is_int(value) and value >= 1, "an int of at least 1", int, "N")
NATURAL = Kind(lambda value: _is_int(value) and value >= 0, "an int that is not negative", int, "N")
RATE = Kind(lambda value: _is_number(value) and value >= 0, "a finite number that is not negative", float, "X")
ABOVE_ZERO = Kind(lambda value: _is_number(value) and value > 0, "a number above 0", float, "X")
SHARE = Kind(lambda value: _is_number(value) and 0 <= value <= 1, "a number in 0..1", float, "X")
BELOW_ONE = Kind(lambda value: _is_number(value) and 0 <= value < 1, "a number in 0..1, 1 left out,", float, "X")
FACTOR = Kind(lambda value: _is_number(value) and 0 < value <= 1, "a number in 0..1, 0 left out,", float, "X")
NUMBERS = Kind(lambda value: is_list(value, _is_number), "a list of numbers")
TEXT = Kind(lambda value: isinstance(value, str), "text")
OBJECT = Kind(lambda value: isinstance(value, dict), "an object")
PATTERNS = Kind(lambda value: is_list(value, TEXT.allows), "a list of patterns such as 'blocks.*'", metavar="PATTERN")
AUGMENTATION = Kind(
    lambda value: isinstance(value, dict) or is_list(value, callable),
    "an object such as {'flip': 0.5}, or functions",
    None,
)


def setting(default: object, kind: Kind, help: str, resumable: bool = False) -> Any:
    """A field of Settings. resumable: whether a run that is resumed may change it."""
    return field(default=default, metadata={"kind": kind, "help": help, "resumable": resumable})


@dataclass(frozen=True)
class Settings:
    """How a model is trained. Errors: ConfigError naming the setting that cannot be used."""

    epochs: int = setting(20, COUNT, "passes over the training set", resumable=True)
    steps: int | None = setting(
        None, optional(COUNT), "stop after this number of updates, if that comes first", resumable=True
    )
    batch_size: int = setting(128, COUNT, "images in an update")
    shards: int = setting(8, COUNT, "most pieces of a batch; no more threads and ranks than pieces have work")
    optimizer: str = setting("adamw", one_of("adamw", "sgd"), "the rule of the updates")
    momentum: float = setting(0.9, BELOW_ONE, "of sgd")
    lr: float = setting(1e-3, RATE, "learning rate")
    weight_decay: float = setting(0.05, RATE, "of all weights but biases, norms, tokens and positions")
    schedule: str = setting("constant", one_of("constant", "cosine", "step"), "of the learning rate after its warm-up")
    warmup_steps: int = setting(200, NATURAL, "updates over which the learning rate rises linearly")
    label_smoothing: float = setting(0.0, SHARE, "share of each label that is spread over all classes")
    clip_norm: float | None = setting(1.0, optional(ABOVE_ZERO), "bound on the global norm of the gradients")
    ema_decay: float | None = setting(
        0.998, optional(BELOW_ONE), "of the weights' moving average, which is what is validated and saved; 0 is off"
    )
    precision: str = setting(
        "float32", one_of("float32", "tf32", "bf16"), "of products on a GPU, whose sums are float32 in each"
    )
    val_fraction: float = setting(
        0.1,
        BELOW_ONE,
        "share of the training set, class by class, that is held out to choose the best weights, where no validation "
        "set is given; 0 holds none out, and the best weights are the last",
    )
    seed: int = setting(0, NATURAL, "of weights, validation part, order, augmentation and dropout")
    freeze: tuple = setting((), PATTERNS, 'parameters that stay as they are, e.g. "[!h]*": all but the head')
    layer_decay: float | None = setting(None, optional(FACTOR), "factor by which each lower block learns slower")
    augment: dict | tuple = setting((), AUGMENTATION, "changes of the training images")  # noqa: RUF009

    def __post_init__(self):
        check_settings(vars(self))


KINDS = {setting.name: setting.metadata["kind"] for setting in fields(Settings)}


def check_settings(values: Mapping, kinds: Mapping[str, Kind] = KINDS) -> None:
    """Errors: ConfigError naming the first value of an unknown name, or that cannot be used."""
    for name, value in values.items():
        if name not in kinds:
            near = difflib.get_close_matches(name, kinds, n=1)
            raise ConfigError(
                f"there is no setting {name!r}; "
                + (f"did you mean {near[0]}?" if near else f"there are {', '.join(kinds)}")
            )
        if not kinds[name].allows(value):
            raise ConfigError(f"{name} must be {kinds[name].expected}, got {value!r:.80}")


def free_on_resume(settings: Settings) -> tuple[str, ...]:
    """The names of settings in which a resumed run may differ: its length, where its schedule has no planned end."""
    if settings.schedule != "constant":
        return ()
    return tuple(setting.name for setting in fields(Settings) if setting.metadata["resumable"])


def as_config(settings: Settings) -> dict:
    """The settings for config.json; functions are kept as their names."""
    config = dict(vars(settings))
    if not isinstance(settings.augment, dict):
        config["augment"] = [
            getattr(function, "__qualname__", type(function).__name__) for function in settings.augment
        ]
    return config


def list_settings(separator: str) -> str:
    """Name and help of each setting, for docstrings."""
    return separator.join(f"{setting.name + ':':<16}{setting.metadata['help']}" for setting in fields(Settings))
