"""From a checkpoint and a picture on the command line to a model and its input."""

from ..errors import CheckpointError


def load_model(args, **overrides):
    """-> the model of a checkpoint with its weights, and the checkpoint's notes."""
    from ..io import read_checkpoint
    from ..models import create_model
    from ..pretrained import put_weights

    arrays, notes, origin = read_checkpoint(args.checkpoint)
    recipe = notes.get("recipe", {})
    name = args.model or recipe.get("model")
    if name is None:
        raise CheckpointError(f"{args.checkpoint}: does not say which model it belongs to; name it with --model")
    if recipe.get("unsaved"):
        raise CheckpointError(
            f"{args.checkpoint}: its model was made with {', '.join(recipe['unsaved'])}, which a file cannot hold; "
            "make it in a script and use load_state_dict"
        )
    model = create_model(name, **{**recipe.get("options", {}), **overrides})
    put_weights(model, arrays, notes, origin, args.checkpoint)
    return model.to(args.device), notes


def prepare_picture(model, path):
    """-> a picture as the model sees it: (C, H, W) uint8, and normed (C, H, W) floating point."""
    from ..data import normalize, read_image

    embed, cfg = model.patch_embed, model.pretrained_cfg
    in_chans = embed.proj.weight.data.shape[1]
    picture = read_image(path, embed.img_size, in_chans, cfg["crop_pct"], cfg["interpolation"])
    return picture, normalize(picture, cfg["mean"], cfg["std"])


def to_home(model, x):
    """x where the model's parameters are."""
    from ..backend import array_module, to_module

    return to_module(x, array_module(model.patch_embed.proj.weight.data))
