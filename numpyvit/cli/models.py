"""`numpyvit models`: the presets."""

from ..errors import ConfigError
from .arguments import add_verb


def add(verbs):
    verb = add_verb(verbs, "models", run, "The presets and their sizes.", 'example:\n  numpyvit models "deit*"\n')
    verb.add_argument("pattern", nargs="?", default="*", help='shell pattern such as "deit*" (default: all)')
    return verb


def run(args):
    from ..models import count_parameters, list_models, preset_options

    names = list_models(args.pattern)
    if not names:
        raise ConfigError(f"no model matches {args.pattern!r}; `numpyvit models` lists them all")
    print(f"{'model':34s} {'parameters':>12s}  image  patch  width     depth        heads")
    for name in names:
        options = preset_options(name)
        image, patch, width = (options.get(key, "") for key in ("img_size", "patch_size", "embed_dim"))
        depth = _by_stage(options.get("depths", options.get("depth", "")))
        heads = _by_stage(options.get("num_heads", ""))
        print(
            f"{name:34s} {count_parameters(name):12,d}  {image:>5}  {patch:>5}  {width:>5}  {depth:>8s}  {heads:>11s}"
        )


def _by_stage(value):
    return "-".join(map(str, value)) if isinstance(value, tuple) else str(value)
