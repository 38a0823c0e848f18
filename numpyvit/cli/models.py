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
    print(f"{'model':34s} {'parameters':>12s}  image  patch  width     depth        heads")
    for name in names:
        print(_line(name))
    if args.pattern in names:
        print(f"\n{summary(create_model(args.pattern))}")


def _line(name):
    from ..models import count_parameters, preset_options

    options = preset_options(name)
    image, patch, width = (options.get(key, "") for key in ("img_size", "patch_size", "embed_dim"))
    depth, heads = _by_stage(options.get("depths", options.get("depth", ""))), _by_stage(options.get("num_heads", ""))
    return f"{name:34s} {count_parameters(name):12,d}  {image:>5}  {patch:>5}  {width:>5}  {depth:>8s}  {heads:>11s}"


def _by_stage(value):
    return "-".join(map(str, value)) if isinstance(value, tuple) else str(value)
