"""Weight files: safetensors under timm's names, with the recipe of the model and a checksum in their metadata."""

import hashlib
import json
import pathlib

import numpy as np

from .errors import CheckpointError
from .files import write_atomically


def save_checkpoint(path, model, **notes):
    """Write the model's weights, and in the metadata what is needed to build it again.

    notes: JSON-able values to keep beside, such as classes, mean and std.
    """
    recipe = getattr(model, "_recipe", None)
    save_tensors(path, model.state_dict(), {**({"recipe": recipe} if recipe else {}), **notes})


def load_checkpoint(path):
    """{name: array} of a weight file. Errors: CheckpointError where it is missing, damaged or of another format."""
    return load_tensors(path)[0]


def read_notes(path):
    """What a numpyvit checkpoint says of itself: recipe, classes, mean, std, accuracy; {} in files of others."""
    return load_tensors(path)[1]


def save_tensors(path, tensors, notes):
    """Write arrays and JSON-able notes as one safetensors file, whole or not at all, with a checksum over both."""
    from safetensors.numpy import save

    tensors = {name: np.asarray(array, order="C") for name, array in tensors.items()}
    notes = json.dumps(notes, sort_keys=True)
    metadata = {"format": "np", "numpyvit": notes, "sha256": _digest(tensors, notes)}
    write_atomically(path, save(tensors, metadata))


def load_tensors(path):
    """-> ({name: array}, notes). The checksum is verified where the file has one."""
    from safetensors import SafetensorError, safe_open

    path = pathlib.Path(path)
    if not path.is_file():
        raise CheckpointError(f"{path}: there is no such checkpoint file")
    try:
        with safe_open(path, framework="np") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError, ValueError, TypeError, KeyError) as error:
        raise CheckpointError(f"{path}: is damaged or no safetensors file ({error}); save or fetch it again") from None
    notes = metadata.get("numpyvit", "{}")
    if "sha256" in metadata and metadata["sha256"] != _digest(tensors, notes):
        raise CheckpointError(f"{path}: is damaged (its checksum differs); save or fetch it again")
    try:
        return tensors, json.loads(notes)
    except ValueError:
        raise CheckpointError(f"{path}: is damaged (its metadata is no JSON); save or fetch it again") from None


def _digest(tensors, notes):
    digest = hashlib.sha256(notes.encode())
    for name in sorted(tensors):
        array = np.asarray(tensors[name], order="C")
        digest.update(f"\0{name}\0{array.dtype.str}\0{array.shape}\0".encode())
        digest.update(array.reshape(-1).view(np.uint8).data)
    return digest.hexdigest()
