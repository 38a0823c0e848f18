"""`numpyvit convert`: weights of any common origin as safetensors."""

import pathlib

from ..errors import ConfigError, RunError
from .arguments import add_verb


def add(verbs):
    verb = add_verb(
        verbs,
        "convert",
        run,
        "Write weights of any common origin as safetensors under timm's names.",
        "example:\n  numpyvit convert vit_b_16.pth vit_base_patch16_224.safetensors\n",
    )
    verb.add_argument("source", metavar="IN", help=".safetensors, .npz, .pth, .pt or .bin")
    verb.add_argument("target", metavar="OUT", help="a .safetensors file that does not exist yet")
    return verb


def run(args):
    from ..weights.checkpoint import read_checkpoint, save_tensors

    target = pathlib.Path(args.target)
    if target.suffix != ".safetensors":
        raise ConfigError(f"{target}: what is written is safetensors; give OUT that ending")
    if target.exists():
        raise RunError(f"{target}: exists already; choose another name or remove it")
    arrays, notes, origin = read_checkpoint(args.source)
    save_tensors(target, arrays, notes)
    count = sum(array.size for array in arrays.values())
    print(f"{target}: {len(arrays)} arrays, {count:,} numbers, from {origin}'s names")
