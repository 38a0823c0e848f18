"""Layers that keep only their input and run forward again in backward."""

from collections.abc import Iterator

from ..backend import Array
from .layer import Buffer, Layer, Parameter
from .tape import FORGET


class Recompute(Layer):
    """A layer that keeps only its input and runs forward again in backward (Chen et al. 2016, arXiv:1604.06174).

    Memory of the layer's residuals against one more forward. The second pass draws the same dropout masks, so the
    gradients are bit-equal. Names of parameters are those of the layer inside, as are their dtype and initial values:
    it takes neither `dtype` nor `seed`.
    """

    def __init__(self, layer: Layer):
        self.layer = layer

    def children(self) -> Iterator[tuple[str, Parameter | Buffer | Layer]]:
        return self.layer.children()

    @property
    def takes_first(self) -> bool:
        return self.layer.takes_first

    @property
    def transparent(self) -> bool:
        return self.layer.transparent

    def own_multiply_adds(self, y: Array, *inputs: Array) -> int:
        return self.layer.own_multiply_adds(y, *inputs)

    def forward(self, x, tape=FORGET, *first):
        if tape.record_all:
            return self.layer.forward(x, tape, *first)
        state = tape.random.state if tape.random is not None else None
        y = self.layer.forward(x, tape.forgetting(), *first)
        tape.push(self, x, state, first)
        return y

    def backward(self, dy, tape):
        if tape.record_all:
            return self.layer.backward(dy, tape)
        x, state, first = tape.pop(self)
        with tape.replaying(state):
            self.layer.forward(x, tape, *first)
        return self.layer.backward(dy, tape)
