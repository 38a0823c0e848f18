"""`numpyvit serve`: a model behind HTTP, with a page to look inside it."""

import os
import time
from argparse import ArgumentParser, Namespace, _SubParsersAction

from ..errors import ConfigError
from ..serve.limits import Limits
from ..training.settings import ABOVE_ZERO
from .arguments import add_checkpoint, add_verb, count, natural, rate, reader
from .checkpoint import load_model

above_zero = reader(ABOVE_ZERO)
LIMITS = (  # of numpyvit.serve.Limits: name, type, metavar, help
    ("max_batch", count, "N", "images in one pass of the model"),
    ("max_wait_ms", rate, "MS", "how long an image waits for others to join it"),
    ("queue", count, "N", "requests at a time; further ones get 503"),
    ("max_body_mb", above_zero, "MB", "size of a request; larger ones get 413"),
    ("timeout", above_zero, "S", "seconds to receive a request, then 408, and to answer it, then 504"),
)


def add(verbs: _SubParsersAction) -> ArgumentParser:
    verb = add_verb(
        verbs,
        "serve",
        run,
        "Answer images sent over HTTP, and show a page on which one drops or draws an image and sees what the model "
        "finds and looks at. It needs pip install 'numpyvit[serve]'.",
        "examples:\n  numpyvit serve --checkpoint runs/digits-vit_micro_patch2_8\n"
        "  numpyvit serve --checkpoint runs/mnist-vit_micro_patch4_28 --watch     while it trains\n"
        "  numpyvit serve --model vit_tiny_patch16_224 --checkpoint vit_tiny_patch16_224.npz --port 9000\n"
        "  curl -H 'Content-Type: image/png' --data-binary @seven.png http://127.0.0.1:8000/predict\n",
    )
    add_checkpoint(verb)
    verb.add_argument("--host", default="127.0.0.1", help="0.0.0.0 lets other machines in (default: 127.0.0.1)")
    verb.add_argument("--port", type=natural, default=8000, metavar="N", help="0: any that is free (default: 8000)")
    for name, kind, metavar, text in LIMITS:
        default = getattr(Limits, name)
        verb.add_argument(
            "--" + name.replace("_", "-"),
            type=kind,
            default=default,
            metavar=metavar,
            help=f"{text} (default: {default:g})",
        )
    verb.add_argument(
        "--watch",
        action="store_true",
        help="load the weights again whenever they are written; of a run directory the last ones instead of the best",
    )
    return verb


def run(args: Namespace) -> None:
    from ..serve import Served, serve

    if args.port > 65535:
        raise ConfigError(f"--port {args.port}: expected at most 65535")
    if args.watch:
        args.checkpoint = _watched(args.checkpoint)

    def load():
        return Served(*load_model(args), threads=args.threads)

    limits = Limits(**{name: getattr(args, name) for name, *_ in LIMITS})
    serve(load, args.host, args.port, limits, args.checkpoint if args.watch else None, _started)


def _started(address):
    print(f"serving at {address}   (Ctrl-C stops)", flush=True)


def _watched(checkpoint):
    """The file to watch. Of a run that has just begun its first epoch is waited for."""
    if not os.path.isdir(checkpoint):
        return checkpoint
    file = os.path.join(checkpoint, "last.safetensors")
    if not os.path.exists(file):
        print(f"waiting for {file}", flush=True)
    while not os.path.exists(file):
        time.sleep(1)
    return file
