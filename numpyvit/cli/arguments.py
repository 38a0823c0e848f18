"""What several verbs' options share."""

import argparse
import math


def add_verb(verbs, name, run, text, example):
    verb = verbs.add_parser(
        name, help=text, description=text, epilog=example, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    verb.set_defaults(run=run)
    return verb


def count(text):
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, got {value}")
    return value


def natural(text):
    value = int(text)
    if value < 0:
        raise argparse.ArgumentTypeError(f"must not be negative, got {value}")
    return value


def rate(text):
    value = float(text)
    if not 0 <= value < math.inf:
        raise argparse.ArgumentTypeError(f"must be finite and not negative, got {value}")
    return value


def above_zero(text):
    value = rate(text)
    if value == 0:
        raise argparse.ArgumentTypeError("must be above 0")
    return value


def add_checkpoint(verb):
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
