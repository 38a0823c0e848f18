"""`numpyvit attention`: a sheet of what a model looks at, one of its maps, or the numbers."""

import io
import pathlib

from ..errors import ConfigError
from .arguments import add_checkpoint, add_verb, count, natural
from .checkpoint import as_input_of, load_model, prepare_image


def add(verbs):
    verb = add_verb(
        verbs,
        "attention",
        run,
        "Draw what a model looks at in an image: every head and block, and of a ViT rollout and gradient-weighted "
        "attention. The maps of a ViT are the class token's; those of a Swin show what each token receives in its "
        "window, stitched together.",
        "examples:\n  numpyvit attention cat.jpg --model vit_tiny_patch16_224 --checkpoint vit_tiny_patch16_224.npz\n"
        "  numpyvit attention seven.png --checkpoint runs/digits-vit_micro_patch2_8/best.safetensors --layer 3\n"
        "  numpyvit attention cat.jpg --model swin_tiny_patch4_window7_224 --checkpoint swin.pth --patch 20 31\n",
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
        "--patch",
        type=count,
        nargs=2,
        metavar=("ROW", "COLUMN"),
        help="the attention of one patch instead, counted from 1; it is outlined",
    )
    verb.add_argument(
        "--npy",
        action="store_true",
        help="write the probabilities (blocks, heads, tokens, tokens), or those of --layer and --head, as an array; "
        "with --patch, and of a Swin, the maps (heads, rows, columns) in multiples of an even share",
    )
    return verb


def run(args):
    from ..viz.attention import caption

    out = _out(args)
    model, _ = load_model(args, **({"img_size": args.img_size} if args.img_size else {}))
    pixels, x = prepare_image(model, args.image)
    x = as_input_of(model, x[None])
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

    patch = _patch(args, model, x)
    if args.layer is None and args.head is None:
        draw_attention(model, x, pixels, out, title, args.class_index, patch=patch)
    else:
        draw_attention_map(model, x, pixels, out, *_places(args, model), title, patch=patch)


def _write_array(args, model, x, out):
    import numpy as np

    from ..files.atomic import write_atomically
    from ..viz import attends_to_all, attention_grids, attention_maps

    whole = args.patch is None and attends_to_all(model)
    maps = attention_maps(model, x) if whole else attention_grids(model, x, _patch(args, model, x))
    if args.layer or args.head:
        layer, head = _places(args, model)
        maps = maps[layer] if head is None else maps[layer][head]
    elif len({values.shape for values in maps}) > 1:
        raise ConfigError("the maps of this model's blocks differ in size; choose one with --layer")
    buffer = io.BytesIO()
    np.save(buffer, np.asarray(maps))
    write_atomically(out, buffer.getvalue())


def _patch(args, model, x):
    """-> (row, column) counted from 0, or None."""
    if args.patch is None:
        return None
    for value, most, what in zip(args.patch, model.patch_embed.grid_for(x.shape[2:]), ("rows", "columns")):
        if value > most:
            raise ConfigError(f"--patch {args.patch[0]} {args.patch[1]}: the image has {most} {what} of patches")
    return args.patch[0] - 1, args.patch[1] - 1


def _places(args, model):
    """-> (block, head or None), counted from 0."""
    depth = len(model.attention_layers)
    if args.layer is not None and args.layer > depth:
        raise ConfigError(f"--layer {args.layer}: the model has {depth}, counted from 1")
    layer = (args.layer or depth) - 1
    if args.head is None:
        return layer, None
    heads = model.attention_layers[layer].num_heads
    if args.head > heads:
        raise ConfigError(f"--head {args.head}: block {layer + 1} has {heads}, counted from 1")
    return layer, args.head - 1
