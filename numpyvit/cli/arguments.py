"""What several verbs' options share."""

import argparse
from argparse import ArgumentParser, Namespace
from collections.abc import Callable
from dataclasses import fields
from typing import Any

from ..training.recipes import describe_default
from ..training.settings import COUNT, NATURAL, PATTERNS, RATE, Kind, Settings

Verbs = argparse._SubParsersAction  # what add_subparsers returns; it has no public name


def add_verb(
    verbs: Verbs, name: str, run: Callable[[Namespace], int | None], text: str, example: str
) -> ArgumentParser:
    verb = verbs.add_parser(
        name, help=text, description=text, epilog=example, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    verb.set_defaults(run=run)
    return verb


def reader(kind: Kind) -> Callable[[str], Any]:
    """The type of an option whose values are of a kind of the settings."""

    def read(text: str) -> Any:
        try:
            value = kind.parse(text)
        except ValueError:
            value = text
        if not kind.allows(value):
            raise argparse.ArgumentTypeError(f"must be {kind.expected}, got {text}")
        return value

    return read


count, natural, rate = reader(COUNT), reader(NATURAL), reader(RATE)


def add_settings(verb: ArgumentParser) -> None:
    """An option for each setting of a training run that text can give."""
    for setting in fields(Settings):
        kind = setting.metadata["kind"]
        if kind.parse is None:
            continue
        if kind.choices:
            form = {"choices": kind.choices}
        elif kind is PATTERNS:
            form = {"action": "append", "metavar": kind.metavar}
        else:
            form = {"type": reader(kind), "metavar": kind.metavar}
        text = f"{setting.metadata['help']} (default: {describe_default(setting.name)})"
        verb.add_argument("--" + setting.name.replace("_", "-"), help=text, **form)


def add_checkpoint(verb: ArgumentParser) -> None:
    verb.add_argument(
        "--checkpoint",
        "--pretrained",
        required=True,
        metavar="FILE",
        help="weights that `numpyvit train` wrote, or published ones (then with --model)",
    )
    verb.add_argument("--model", metavar="NAME", help="the preset, where the file does not name it")
    verb.add_argument("--device", choices=("cpu", "cuda"), default="cpu", help="default: cpu")
    verb.add_argument("--threads", type=count, metavar="N", help="default: all processors")
