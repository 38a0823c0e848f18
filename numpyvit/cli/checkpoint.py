"""From a checkpoint and an image on the command line to a model and its input."""

import os
from argparse import Namespace
from typing import Any

from ..errors import CheckpointError, NumpyvitError

Layer = Array = Any  # in type hints: NumPy is imported when a verb runs, not before


def load_model(args: Namespace, **overrides) -> tuple[Layer, dict]:
    """-> the model of a checkpoint with its weights, and the checkpoint's notes."""
    from ..weights.adapt import put_weights
    from ..weights.checkpoint import read_checkpoint

    args.checkpoint = _file(args.checkpoint)
    arrays, notes, origin = read_checkpoint(args.checkpoint)
    recipe = notes.get("recipe", {})
    no_recipe = CheckpointError(f"{args.checkpoint}: its recipe does not name a model; save the file again")
    if not isinstance(recipe, dict):
        raise no_recipe
    options, unsaved = recipe.get("options", {}), recipe.get("unsaved", [])
    if not isinstance(options, dict) or not isinstance(unsaved, list):
        raise no_recipe
    name = args.model or recipe.get("model")
    if name is None:
        raise CheckpointError(f"{args.checkpoint}: does not say which model it belongs to; name it with --model")
    if unsaved:
        raise CheckpointError(
            f"{args.checkpoint}: its model was made with {', '.join(map(str, unsaved))}, which a file cannot hold; "
            "make it in a script and use load_state_dict"
        )
    model = _create(name, options, overrides, arrays, args.checkpoint)
    put_weights(model, arrays, notes, origin, args.checkpoint)
    return model.to(args.device), notes


def _file(checkpoint):
    """The file of weights; of a run directory it is that of the best ones."""
    return os.path.join(checkpoint, "best.safetensors") if os.path.isdir(checkpoint) else checkpoint


def load_model_of(path: str | os.PathLike, device: str) -> Layer:
    """-> the model of a checkpoint that names its model, or the best one of a run directory."""
    return load_model(Namespace(checkpoint=path, model=None, device=device))[0]


def _create(name, options, overrides, arrays, path):
    """The model that a file describes. Its options come from the file, so its size is compared with the file's."""
    from ..models import VARIANTS, count_parameters, create_model

    held = sum(array.size for array in arrays.values())
    try:
        if name in VARIANTS and count_parameters(name, **options) > 2 * held + _FEW:
            raise CheckpointError(
                f"{path}: holds {held:,} numbers, far fewer than {name} with its options; name its model with --model"
            )
        return create_model(name, None, **{**options, **overrides})
    except NumpyvitError:
        raise
    except Exception as error:  # options of any type may stand in a file
        raise CheckpointError(
            f"{path}: its recipe does not make a model ({type(error).__name__}: {error!s:.200}); save the file again"
        ) from error


_FEW = 1_000_000  # parameters that cost nothing


def prepare_image(model: Layer, path: str | os.PathLike) -> tuple[Array, Array]:
    """-> an image as the model sees it: (C, H, W) uint8, and normalized: (C, H, W) floating point."""
    pixels = model.preprocessing.read(path, model.input_shape)
    return pixels, model.preprocessing.normalize(pixels)


def as_input_of(model: Layer, x: Array) -> Array:
    """x where the model's parameters are."""
    from ..backend import to_module
    from ..training.evaluation import module_and_dtype

    return to_module(x, module_and_dtype(model)[0])
