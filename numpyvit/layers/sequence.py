"""Layers one after another."""

from collections.abc import Iterable, Iterator

from ..backend import Array
from ..core import FORGET, Forget, Layer, Recompute, Tape
from ..errors import ConfigError, TapeError


class Sequence(Layer):
    """Layers one after another, named 0, 1, 2, …: the blocks of a ViT, a stage of Swin, an encoder.

    Frozen ones at the bottom keep nothing and get no backward. Where the next layer reads only the `first` leading
    tokens, a last layer that can (takes_first) computes only those.

    Made of layers that have their dtype and initial values, it takes neither `dtype` nor `seed`.
    """

    def __init__(self, layers: Iterable[Layer], recompute: bool = False):
        self.layers = list(layers)
        if not self.layers:
            raise ConfigError("a Sequence needs at least one layer")
        if recompute:
            self.set_recompute()

    def set_recompute(self, enable: bool = True) -> None:
        """Let each layer keep only its input for backward and run forward again there (see core.Recompute)."""
        self.layers = [Recompute(layer) if enable else layer for layer in self]

    def children(self) -> Iterator[tuple[str, Layer]]:
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
        return self.outputs_backward([None] * (len(self) - 1) + [dy], tape)

    def outputs(self, x: Array, tape: Tape | Forget = FORGET, count: int | None = None) -> list[Array]:
        """What each layer returns, as a list; only the first `count` layers run where it is given."""
        if count is not None and not 1 <= count <= len(self):
            raise ConfigError(f"{self.path}: got count={count}, expected 1..{len(self)}, the number of layers")
        found = []
        for layer in self.layers[:count]:
            x = layer.forward(x, tape.at(layer))
            found.append(x)
        return found

    def outputs_backward(self, dys: list[Array | None], tape: Tape) -> Array | None:
        """The gradients of what `outputs` returned -> that of its input, or None where nobody wants it.

        dx of a layer is the dy of the one before it, so both add up there:   dyᵢ + dxᵢ₊₁. A dy may be None where an
        output was not used; the last must be an array.
        """
        dx = None
        for layer, dy in zip(reversed(self.layers[: len(dys)]), reversed(dys)):
            if not tape.reaches(layer):
                return None
            if dx is not None:
                dy = dx if dy is None else dy + dx
            if dy is None:
                raise TapeError(
                    f"{self.path}: backward got no gradient for the last output; give `outputs` a smaller count, or "
                    "set layers as attributes in the order in which the data passes through them"
                )
            dx = layer.backward(dy, tape)
        return dx
