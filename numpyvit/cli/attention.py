"""`numpyvit attention`: a sheet of what a model, or each query of a detector, looks at; one map; or the numbers."""

import io
import pathlib
from argparse import ArgumentParser, Namespace

from ..errors import ConfigError
from .arguments import Verbs, add_checkpoint, add_verb, count, natural
from .checkpoint import as_input_of, load_model, prepare_image


def add(verbs: Verbs) -> ArgumentParser:
    verb = add_verb(
        verbs,
        "attention",
        run,
        "Draw what a model looks at in an image: every head and block, and of a ViT rollout and gradient-weighted "
        "attention. The maps of a ViT are the class token's; those of a Swin show what each token receives in its "
        "window, stitched together; those of a detector what the query of each box that it found looks at.",
        "examples:\n  numpyvit attention cat.jpg --model vit_tiny_patch16_224 --checkpoint vit_tiny_patch16_224.npz\n"
        "  numpyvit attention seven.png --checkpoint runs/digits-vit_micro_patch2_8/best.safetensors --layer 3\n"
        "  numpyvit attention cat.jpg --model swin_tiny_patch4_window7_224 --checkpoint swin.pth --patch 20 31\n"
        "  numpyvit attention cells.jpg --checkpoint runs/cells-detr_mini_160 --query 7\n",
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
        "--query", type=count, metavar="N", help="of a detector: this query alone, counted from 1, whatever it found"
    )
    verb.add_argument(
        "--npy",
        action="store_true",
        help="write the probabilities (blocks, heads, tokens, tokens), or those of --layer and --head, as an array; "
        "with --patch, and of a Swin, the maps (heads, rows, columns) in multiples of an even share; of a detector the "
        "probabilities (decoder layers, heads, queries, rows, columns), or those of --layer, --head and --query",
    )
    return verb


def run(args: Namespace) -> None:
    out = _out(args)
    model, _ = load_model(args, **({"img_size": args.img_size} if args.img_size else {}))
    show = _show_queries if model.cross_attention_layers else _show_blocks
    print(f"{out}: {show(args, model, out, pathlib.Path(args.image).name)}")


def _show_blocks(args, model, out, title):
    """Draw or write what the blocks of a model look at -> the title with what it sees."""
    from ..viz.attention import caption, check_shows_attention

    check_shows_attention(model)
    if args.query is not None:
        raise ConfigError(f"--query {args.query}: a {type(model).__name__} has no queries; leave it out")
    pixels, x = prepare_image(model, args.image)
    x = as_input_of(model, x[None])
    if out.suffix == ".npy":
        _write_array(args, model, x, out)
    else:
        _draw(args, model, x, pixels, out, title)
    return caption(model, x, title)


def _show_queries(args, model, out, title):
    """Draw or write what the queries of a detector look at -> the title with how much they found."""
    from ..models import class_names
    from ..training.task import task_for
    from ..viz import draw_query_attention, query_attention, query_attention_maps
    from ..viz.queries import query_caption

    if args.patch is not None or args.class_index is not None:
        raise ConfigError("--patch and --class-index are for classifiers; a detector has --query")
    query, layers = _query(args, model), model.cross_attention_layers
    pixels, _ = task_for(model).read(model, args.image)
    x = as_input_of(model, model.preprocessing.normalize(pixels[None]))
    found = query_attention(model, x, *_places(args, layers))
    if out.suffix == ".npy":
        maps = _chosen(args, layers, query_attention_maps(model, x))
        _save(maps if query is None else maps[..., query, :, :], out)
    else:
        draw_query_attention(found, pixels, out, class_names(model), title, query)
    return query_caption(found, title)


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
        draw_attention_map(model, x, pixels, out, *_places(args, model.attention_layers), title, patch=patch)


def _write_array(args, model, x, out):
    from ..viz import attends_to_all, attention_grids, attention_maps

    whole = args.patch is None and attends_to_all(model)
    maps = attention_maps(model, x) if whole else attention_grids(model, x, _patch(args, model, x))
    maps = _chosen(args, model.attention_layers, maps)
    if len({values.shape for values in maps}) > 1:
        raise ConfigError("the maps of this model's blocks differ in size; choose one with --layer")
    _save(maps, out)


def _chosen(args, layers, maps):
    """Of the maps of all layers those of --layer and --head."""
    if args.layer is None and args.head is None:
        return maps
    layer, head = _places(args, layers)
    return maps[layer] if head is None else maps[layer][head]


def _save(maps, out):
    import numpy as np

    from ..files.atomic import write_atomically

    buffer = io.BytesIO()
    np.save(buffer, np.asarray(maps))
    write_atomically(out, buffer.getvalue())


def _patch(args, model, x):
    """-> (row, column) counted from 0, or None."""
    if args.patch is None:
        return None
    for value, most, what in zip(args.patch, model.grid_for(x.shape[2:]), ("rows", "columns")):
        if value > most:
            raise ConfigError(f"--patch {args.patch[0]} {args.patch[1]}: the image has {most} {what} of patches")
    return args.patch[0] - 1, args.patch[1] - 1


def _query(args, model):
    """-> the query counted from 0, or None."""
    if args.query is None:
        return None
    if args.query > model.num_queries:
        raise ConfigError(f"--query {args.query}: the model has {model.num_queries}, counted from 1")
    return args.query - 1


def _places(args, layers):
    """-> (block, head or None), counted from 0."""
    depth = len(layers)
    if args.layer is not None and args.layer > depth:
        raise ConfigError(f"--layer {args.layer}: the model has {depth}, counted from 1")
    layer = (args.layer or depth) - 1
    if args.head is None:
        return layer, None
    heads = layers[layer].num_heads
    if args.head > heads:
        raise ConfigError(f"--head {args.head}: block {layer + 1} has {heads}, counted from 1")
    return layer, args.head - 1
