"""Layers that run forward again in backward."""

from .layer import Layer
from .tape import FORGET


class Checkpoint(Layer):
    """A layer that keeps only its input and runs forward again in backward (Chen et al. 2016, arXiv:1604.06174).

    Memory of the layer's residuals against one more forward. The second pass draws the same dropout masks, so the
    gradients are bit-equal. Parameter names are those of the layer inside.
    """

    def __init__(self, layer):
        self.layer = layer

    def children(self):
        return self.layer.children()

    def forward(self, x, tape=FORGET, *options):
        if tape.complete:
            return self.layer.forward(x, tape, *options)
        state = tape.random.state if tape.random is not None else None
        y = self.layer.forward(x, tape.forgetting(), *options)
        tape.push(self, x, state, options)
        return y

    def backward(self, dy, tape):
        if tape.complete:
            return self.layer.backward(dy, tape)
        x, state, options = tape.pop(self)
        with tape.replaying(state):
            self.layer.forward(x, tape, *options)
        return self.layer.backward(dy, tape)
