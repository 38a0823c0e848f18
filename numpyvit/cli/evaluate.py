"""`numpyvit evaluate`: loss and accuracy of a checkpoint."""

from ..errors import CheckpointError
from .arguments import add_checkpoint, add_verb, count
from .checkpoint import load_model


def add(verbs):
    verb = add_verb(
        verbs,
        "evaluate",
        run,
        "Loss and accuracy of a checkpoint on the test part of a data set.",
        "example:\n  numpyvit evaluate --checkpoint runs/digits-vit_micro_patch2_8/best.safetensors\n",
    )
    add_checkpoint(verb)
    verb.add_argument("--data", metavar="NAME|FOLDER", help="default: what it was trained on")
    verb.add_argument("--data-dir", metavar="DIR", help="where the files lie")
    verb.add_argument("--batch-size", type=count, default=256, metavar="N", help="default: 256")
    return verb


def run(args):
    from .. import data as datasets
    from ..train import evaluate as measure

    model, notes = load_model(args)
    data = args.data or notes.get("data")
    if data is None:
        raise CheckpointError(f"{args.checkpoint}: does not say what it was trained on; name the data with --data")
    embed = model.patch_embed
    _, test = datasets.load(data, args.data_dir, img_size=embed.img_size, in_chans=embed.proj.weight.data.shape[1])
    test = datasets.prepared_for(test, model.pretrained_cfg)
    scores = measure(model, test, batch_size=args.batch_size, threads=args.threads)
    print(
        f"{data}: accuracy {scores['accuracy']:.2%}, loss {scores['loss']:.4f} on {scores['images']:,} pictures, "
        f"{scores['images_per_second']:.0f} img/s"
    )
