"""`numpyvit predict`: the likeliest classes of pictures."""

from .arguments import add_checkpoint, add_verb, count
from .checkpoint import load_model, prepare_picture, to_home


def add(verbs):
    verb = add_verb(
        verbs,
        "predict",
        run,
        "The likeliest classes of pictures, with probabilities.",
        "examples:\n  numpyvit predict seven.png --checkpoint runs/digits-vit_micro_patch2_8/best.safetensors\n"
        "  numpyvit predict cat.jpg --model vit_tiny_patch16_224 --checkpoint vit_tiny_patch16_224.npz\n",
    )
    verb.add_argument("pictures", nargs="+", metavar="PICTURE", help="picture files")
    add_checkpoint(verb)
    verb.add_argument("--top", type=count, default=5, metavar="K", help="how many classes to show (default: 5)")
    return verb


def run(args):
    import numpy as np

    from ..backend import to_host
    from ..functional import softmax
    from ..models import class_names
    from ..training.inference import infer

    model, _ = load_model(args)
    x = to_home(model, np.stack([prepare_picture(model, picture)[1] for picture in args.pictures]))
    probabilities = softmax(to_host(infer(model, x, args.threads)))
    classes = class_names(model)
    for picture, p in zip(args.pictures, probabilities):
        print(picture)
        for k in np.argsort(-p)[: args.top]:
            print(f"  {p[k]:7.2%}  {classes[k]}")
