"""`numpyvit attention`: a sheet of what a model looks at."""

import pathlib

from .arguments import add_checkpoint, add_verb, count, natural
from .checkpoint import load_model, prepare_picture, to_home


def add(verbs):
    verb = add_verb(
        verbs,
        "attention",
        run,
        "Draw what a model looks at in a picture: rollout, gradient-weighted attention, every head and block.",
        "example:\n  numpyvit attention cat.jpg --model vit_tiny_patch16_224 --checkpoint vit_tiny_patch16_224.npz\n"
        "      --out attention.png\n",
    )
    verb.add_argument("picture", metavar="PICTURE", help="a picture file")
    add_checkpoint(verb)
    verb.add_argument("--out", default="attention.png", metavar="FILE.png", help="default: attention.png")
    verb.add_argument("--img-size", type=count, metavar="N", help="default: the model's; another one shows finer maps")
    verb.add_argument("--class-index", type=natural, metavar="K", help="of the gradient (default: the likeliest)")
    return verb


def run(args):
    from ..models import class_names
    from ..viz import draw_attention

    model, _ = load_model(args, **({"img_size": args.img_size} if args.img_size else {}))
    picture, x = prepare_picture(model, args.picture)
    x = to_home(model, x[None])
    index = args.class_index if args.class_index is not None else int(model(x)[0].argmax())
    names = class_names(model)
    title = f"{pathlib.Path(args.picture).name}: {names[index]}" if index < len(names) else ""
    draw_attention(model, x, picture, args.out, title, index)
    print(f"{args.out}: {title}")
