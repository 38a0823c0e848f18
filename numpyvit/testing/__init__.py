"""Checks that a gradient written by hand is right.

    numpyvit.testing.gradcheck(layer, x)                 # raises GradientError naming the array
    numpyvit.testing.gradcheck_loss(loss, logits, labels)

`stand_in` is a stand-in for CuPy that runs on the CPU.
"""

from .gradcheck import gradcheck, gradcheck_loss, randomize
from .stand_in import stand_in

__all__ = ["gradcheck", "gradcheck_loss", "randomize", "stand_in"]
