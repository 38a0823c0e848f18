"""What a layer is, and the tape that one pass writes on."""

from .flat import FlatWeights, Layout, flat_weights
from .layer import DTYPES, Buffer, Layer, Parameter, Seed, as_dtype, make_rng
from .observe import observing, observing_calls
from .recompute import Recompute
from .tape import FORGET, Forget, Tape

__all__ = [
    "DTYPES",
    "FORGET",
    "Buffer",
    "FlatWeights",
    "Forget",
    "Layer",
    "Layout",
    "Parameter",
    "Recompute",
    "Seed",
    "Tape",
    "as_dtype",
    "flat_weights",
    "make_rng",
    "observing",
    "observing_calls",
]
