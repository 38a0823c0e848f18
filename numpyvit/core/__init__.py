"""What a layer is, and the tape that one pass writes on."""

from .flat import FlatWeights, Layout
from .layer import DTYPES, Layer, Parameter, as_dtype, make_rng
from .observe import observing
from .recompute import Checkpoint
from .tape import FORGET, Forget, Tape

__all__ = [
    "DTYPES",
    "FORGET",
    "Checkpoint",
    "FlatWeights",
    "Forget",
    "Layer",
    "Layout",
    "Parameter",
    "Tape",
    "as_dtype",
    "make_rng",
    "observing",
]
