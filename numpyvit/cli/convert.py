"""`numpyvit convert`: weights of any common origin as safetensors, or with their model as ONNX."""

import pathlib
from argparse import ArgumentParser, Namespace

from ..errors import ConfigError, RunError
from .arguments import Verbs, add_verb


def add(verbs: Verbs) -> ArgumentParser:
    verb = add_verb(
        verbs,
        "convert",
        run,
        "Write weights of any common origin as safetensors under timm's names, or with their model as ONNX.",
        "examples:\n  numpyvit convert vit_b_16.pth vit_base_patch16_224.safetensors\n"
        "  numpyvit convert runs/mine/best.safetensors model.onnx --with-preprocessing\n",
    )
    verb.add_argument("source", metavar="IN", help=".safetensors, .npz, .pth, .pt, .bin or .onnx")
    verb.add_argument("target", metavar="OUT", help="a .safetensors or .onnx file that does not exist yet")
    verb.add_argument("--model", metavar="NAME", help="for .onnx: the preset, where the file does not name it")
    verb.add_argument("--opset", type=int, metavar="N", help="for .onnx: the version of its operators (default: 17)")
    verb.add_argument(
        "--with-preprocessing", action="store_true", help="for .onnx: take uint8 images and normalize them in the graph"
    )
    return verb


def run(args: Namespace) -> None:
    target = pathlib.Path(args.target)
    if target.suffix not in (".safetensors", ".onnx"):
        raise ConfigError(f"{target}: what is written is safetensors or ONNX; give OUT one of these endings")
    if target.suffix != ".onnx" and (args.model or args.opset or args.with_preprocessing):
        raise ConfigError(f"{target}: --model, --opset and --with-preprocessing are for ONNX; give OUT that ending")
    if target.exists():
        raise RunError(f"{target}: exists already; choose another name or remove it")
    (write_onnx if target.suffix == ".onnx" else write_safetensors)(args, target)


def write_safetensors(args: Namespace, target: pathlib.Path) -> None:
    from ..weights.checkpoint import read_checkpoint, save_tensors

    arrays, notes, origin = read_checkpoint(args.source)
    save_tensors(target, arrays, notes)
    count = sum(array.size for array in arrays.values())
    print(f"{target}: {len(arrays)} arrays, {count:,} numbers, from {origin}'s names")


def write_onnx(args: Namespace, target: pathlib.Path) -> None:
    from ..onnx import export_onnx
    from .checkpoint import load_model

    args.checkpoint, args.device = args.source, "cpu"
    model, _ = load_model(args)
    opset = 17 if args.opset is None else args.opset
    export_onnx(model, target, opset, args.with_preprocessing)
    images = "uint8 images, normalized within" if args.with_preprocessing else "normalized images"
    print(f"{target}: {model.num_parameters():,} parameters, opset {opset}, takes {images}")
