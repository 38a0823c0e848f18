"""`numpyvit models`: the presets."""

from argparse import ArgumentParser, Namespace

from ..errors import ConfigError
from .arguments import Verbs, add_verb


def add(verbs: Verbs) -> ArgumentParser:
    verb = add_verb(
        verbs,
        "models",
        run,
        "The presets and their sizes; of a single one, its layers as well.",
        'examples:\n  numpyvit models "deit*"\n  numpyvit models swin_tiny_patch4_window7_224\n',
    )
    verb.add_argument("pattern", nargs="?", default="*", help='name, or shell pattern such as "deit*" (default: all)')
    return verb


def run(args: Namespace) -> None:
    from ..models import create_model, list_models, summary

    names = list_models(args.pattern)
    if not names:
        raise ConfigError(f"no model matches {args.pattern!r}; `numpyvit models` lists them all")
    rows = [("model", "parameters", "multiply-adds", "image", "built of"), *map(_row, names)]
    widths = [max(map(len, column)) for column in zip(*rows)]
    for row in rows:
        print("  ".join(f"{text:{side}{width}}" for text, side, width in zip(row, "<>>><", widths)).rstrip())
    if args.pattern in names:
        print(f"\n{summary(create_model(args.pattern))}")


def _row(name):
    from ..models import count_multiply_adds, count_parameters, preset_options, rounded

    options = preset_options(name)
    built = ", ".join(f"{word} {_shown(options[option])}" for option, word in _PARTS.items() if option in options)
    image, products = _shown(options.get("img_size", "-")), rounded(count_multiply_adds(name))
    return name, f"{count_parameters(name):,}", products, image, built or "-"


# an option of some family, and what it is called here
_PARTS = {
    "patch_size": "patch",
    "window_size": "window",
    "backbone": "backbone",
    "embed_dim": "width",
    "hidden_dim": "width",
    "depth": "depth",
    "depths": "depth",
    "enc_layers": "encoder",
    "dec_layers": "decoder",
    "num_heads": "heads",
    "nheads": "heads",
    "num_queries": "queries",
}


def _shown(value):
    return "-".join(map(str, value)) if isinstance(value, tuple) else getattr(value, "__name__", str(value))
