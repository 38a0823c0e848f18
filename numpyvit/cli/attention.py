"""`numpyvit attention`: a sheet of what a model looks at, one of its maps, or the numbers."""

import io
import pathlib

from ..errors import ConfigError
from .arguments import add_checkpoint, add_verb, count, natural
from .checkpoint import load_model, prepare_image, to_home


def add(verbs):
    verb = add_verb(
        verbs,
        "attention",
        run,
        "Draw what a model looks at in an image: rollout, gradient-weighted attention, every head and block.",
        "examples:\n  numpyvit attention cat.jpg --model vit_tiny_patch16_224 --checkpoint vit_tiny_patch16_224.npz\n"
        "  numpyvit attention seven.png --checkpoint runs/digits-vit_micro_patch2_8/best.safetensors --layer 3\n",
    )
    verb.add_argument("image", metavar="IMAGE", help="an image file")
    add_checkpoint(verb)
    verb.add_argument("--out", type=pathlib.Path, metavar="FILE", help="default: attention.png, or .npy with --npy")
    verb.add_argument("--img-size", type=count, metavar="N", help="default: the model's; another one shows finer maps")
    verb.add_argument("--class-index", type=natural, metavar="K", help="of the gradient (default: the most probable)")
    verb.add_argument(
        "--layer", type=count, metavar="N", help="one block's map alone, counted from 1: the mean of its heads"
    )
    verb.add_argument(
        "--head", type=count, metavar="N", help="one head's, of --layer or of the last block, counted from 1"
    )
    verb.add_argument(
        "--npy",
        action="store_true",
        help="write the probabilities (blocks, heads, tokens, tokens), or those of --layer and --head, as an array",
    )
    return verb


def run(args):
    from ..viz.attention import caption

    out = _out(args)
    model, _ = load_model(args, **({"img_size": args.img_size} if args.img_size else {}))
    pixels, x = prepare_image(model, args.image)
    x = to_home(model, x[None])
    title = pathlib.Path(args.image).name
    if out.suffix == ".npy":
        _write_array(args, model, x, out)
    else:
        _draw(args, model, x, pixels, out, title)
    print(f"{out}: {caption(model, x, title)}")


def _out(args):
    ending = ".npy" if args.npy else ".png"
    out = args.out or pathlib.Path("attention" + ending)
    if out.suffix not in (ending, ".npy"):
        raise ConfigError(f"--out {out}: give it the ending {ending}{'' if args.npy else ', or .npy for an array'}")
    return out


def _draw(args, model, x, pixels, out, title):
    from ..viz import draw_attention, draw_attention_map

    if args.layer is None and args.head is None:
        draw_attention(model, x, pixels, out, title, args.class_index)
    else:
        draw_attention_map(model, x, pixels, out, *_places(args, model), title)


def _write_array(args, model, x, out):
    import numpy as np

    from ..files.atomic import write_atomically
    from ..viz import attention_maps

    maps = attention_maps(model, x)
    if args.layer or args.head:
        layer, head = _places(args, model)
        maps = maps[layer] if head is None else maps[layer, head]
    buffer = io.BytesIO()
    np.save(buffer, maps)
    write_atomically(out, buffer.getvalue())


def _places(args, model):
    """-> (block, head or None), counted from 0."""
    depth, heads = len(model.blocks), model.blocks[0].attn.num_heads
    for option, value, most in (("--layer", args.layer, depth), ("--head", args.head, heads)):
        if value is not None and value > most:
            raise ConfigError(f"{option} {value}: the model has {most}, counted from 1")
    return (args.layer or depth) - 1, None if args.head is None else args.head - 1
