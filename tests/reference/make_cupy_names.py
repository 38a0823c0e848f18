"""Write numpyvit/testing/cupy_names.json: which names and keywords CuPy shares with NumPy.

    python tests/reference/make_cupy_names.py      (needs the cupy package; it imports without a GPU)

For each function the accepted parameter names, or null where CuPy shows no signature; for ufuncs "ufunc".
"""

import inspect
import json
import pathlib

import cupy
import numpy as np


def parameters(function):
    if isinstance(function, cupy.ufunc):
        return "ufunc"
    try:
        return list(inspect.signature(function).parameters)
    except (ValueError, TypeError):
        return None


def shared(theirs, ours):
    names = [n for n in dir(theirs) if not n.startswith("_") and hasattr(ours, n) and callable(getattr(theirs, n))]
    return {n: parameters(getattr(theirs, n)) for n in names if not inspect.isclass(getattr(theirs, n))}


names = {
    "version": cupy.__version__,
    "functions": shared(cupy, np),
    "linalg": shared(cupy.linalg, np.linalg),
    "methods": {n: None for n in shared(cupy.ndarray, np.ndarray)},
    "generator": shared(cupy.random.Generator, np.random.Generator),
}
path = pathlib.Path(__file__).parents[2] / "numpyvit/testing/cupy_names.json"
path.write_text(json.dumps(names, indent=0, separators=(",", ":")) + "\n")
print(path.name, {key: len(value) for key, value in names.items()})
