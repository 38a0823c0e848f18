"""Layers one after another."""

from ..core import FORGET, Layer, Recompute
from ..errors import ConfigError


class Sequence(Layer):
    """Layers one after another, named 0, 1, 2, …: the blocks of a ViT, a stage of Swin, an encoder.

    Frozen ones at the bottom keep nothing and get no backward. Where the next layer reads only the `first` leading
    tokens, a last layer that can (takes_first) computes only those.
    """

    def __init__(self, layers, recompute=False):
        self.layers = list(layers)
        if not self.layers:
            raise ConfigError("a Sequence needs at least one layer")
        if recompute:
            self.set_recompute()

    def set_recompute(self, enable=True):
        """Let each layer keep only its input for backward and run forward again there (see core.Recompute)."""
        self.layers = [Recompute(layer) if enable else layer for layer in self]

    def children(self):
        return ((str(i), layer) for i, layer in enumerate(self.layers))

    def __len__(self):
        return len(self.layers)

    def __iter__(self):
        return (layer.layer if isinstance(layer, Recompute) else layer for layer in self.layers)

    def __getitem__(self, i):
        """A layer, or with a slice a Sequence of some."""
        found = list(self)[i]
        return Sequence(found, isinstance(self.layers[0], Recompute)) if isinstance(i, slice) else found

    def __setitem__(self, i, layer):
        wrapped = isinstance(self.layers[i], Recompute) and not isinstance(layer, Recompute)
        self.layers[i] = Recompute(layer) if wrapped else layer

    def forward(self, x, tape=FORGET, first=None):
        for layer in self.layers[:-1]:
            x = layer.forward(x, tape.at(layer))
        last = self.layers[-1]
        wanted = (first,) if first and last.takes_first and not tape.record_all else ()
        return last.forward(x, tape.at(last), *wanted)

    def backward(self, dy, tape):
        for layer in reversed(self.layers):
            if not tape.reaches(layer):
                return None
            dy = layer.backward(dy, tape)
        return dy

    def intermediates(self, x):
        """What each layer gives, one after another, in inference."""
        for layer in self:
            x = layer(x)
            yield x
