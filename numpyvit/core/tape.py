"""The tape that one pass writes on: residuals, gradients and the random stream."""

import contextlib
from collections.abc import Iterator, Sequence
from typing import Self

from ..backend import Array, Random
from ..errors import ShapeError, TapeError
from .flat import Layout
from .layer import Layer, Parameter


class Forget:
    """The tape that keeps nothing: inference. Made from another tape, a training pass that will get no backward.

    keeps:    whether what is pushed will be popped.
    training: whether this is a pass of training, where a distilled model returns both its logits.
    """

    keeps = record_all = False

    def __init__(self, random: Random | None = None, training: bool = False):
        self.random, self.training = random, training

    def push(self, layer: Layer, *residuals) -> None:
        pass

    def pop(self, layer: Layer) -> tuple:
        raise TapeError(f"{layer.path}: backward needs the Tape that forward wrote on; this pass kept nothing")

    def forgetting(self) -> Self:
        return self

    def at(self, layer: Layer) -> Self:
        return self


FORGET = Forget()


class Tape:
    """One pass's memory: what each layer saved, last in first out, the gradients, and the random stream.

    model:          whose trainable parameters get a slot for their gradient.
    seed:           of dropout and DropPath; None turns them off.
    input_gradient: False lets a model skip the gradient of its images; its backward then returns None.
    record_all:     keep every residual: compute all tokens, recompute nothing.
    """

    keeps = training = True

    def __init__(
        self,
        model: Layer,
        seed: int | Sequence[int] | None = None,
        *,
        input_gradient: bool = True,
        record_all: bool = False,
    ):
        self.model, self.record_all = model, record_all
        self._feeds, self._reaches = _find_trained(model, input_gradient)
        self.layout = Layout(model)
        self.flat = self.layout.zeros()
        self._slots = dict(zip(self.layout.parameters, self.layout.views(self.flat)))
        self._saved = []
        self.random = None
        self.reseed(seed)
        model.set_paths()

    def __repr__(self):
        dropout = "off" if self.random is None else "on"
        return (
            f"Tape({type(self.model).__name__}, {self.flat.size:,} gradients, dropout {dropout}, "
            f"{self.pending} residuals pending)"
        )

    def reseed(self, seed: int | Sequence[int] | None, step: int | Array = 0) -> None:
        """Begin the random stream from `seed` (an int or a sequence of ints), or turn it off with None.

        step: for a model on a device, a count there from which the stream follows too.
        """
        self.random = None if seed is None else Random(seed, self.layout.xp, step)

    def push(self, layer: Layer, *residuals) -> None:
        self._saved.append((layer, residuals))

    def pop(self, layer: Layer) -> tuple:
        """What `layer` pushed last. Errors: TapeError where another layer's residuals lie on top."""
        if not self._saved:
            raise TapeError(f"{layer.path}: backward was called more often than forward on this tape")
        owner, residuals = self._saved[-1]
        if owner is not layer:
            raise TapeError(
                f"backward must mirror forward in reverse: {layer.path} asked for what {owner.path} saved last"
            )
        self._saved.pop()
        return residuals

    def wants(self, parameter: Parameter) -> bool:
        """Whether `parameter` is trained; a backward may skip the work where it is not.

        Also true of a trainable parameter without a slot, for which `add` is an error.
        """
        return parameter.trainable or parameter in self._slots

    def wants_input(self, layer: Layer) -> bool:
        """Whether anything in front of `layer` needs the gradient of its input."""
        return self._feeds.get(layer, True)

    def reaches(self, layer: Layer) -> bool:
        """Whether backward goes as far as `layer`: something in it or in front of it is trained, or the input's
        gradient is wanted."""
        return self._reaches.get(layer, True)

    def at(self, layer: Layer) -> Self | Forget:
        """The tape for `layer`: this one, or one that keeps nothing where backward does not reach."""
        return self if self.record_all or self.reaches(layer) else self.forgetting()

    def add(self, parameter: Parameter, gradient: Array) -> None:
        """Add to the gradient of `parameter`; a frozen one is skipped.

        Errors: TapeError for a trainable parameter that the tape's model does not know; ShapeError.
        """
        slot = self._slots.get(parameter)
        if slot is None:
            if parameter.trainable:
                raise TapeError(
                    f"a trainable {parameter!r} has no slot on the tape of this {type(self.model).__name__}: it was "
                    "unfrozen or replaced after the tape was made, or its layer is kept where it is not found; "
                    "keep layers in attributes or lists, and make the tape again"
                )
            return
        if slot.shape != gradient.shape:
            raise ShapeError(
                f"{self._name(parameter)}: got a gradient of shape {gradient.shape}, expected {slot.shape}; "
                "sum it over the batch and all tokens"
            )
        slot += gradient

    def _name(self, parameter):
        return next(name for name, known in self.model.named_parameters() if known is parameter)

    def gradient(self, parameter: Parameter) -> Array:
        """The gradient of one parameter, a view. Errors: TapeError for one that has none."""
        if parameter not in self._slots:
            raise TapeError(
                f"{parameter!r} has no gradient on the tape of this {type(self.model).__name__}: it is frozen, or was "
                "unfrozen or replaced after the tape was made; give a trainable Parameter and make the tape again"
            )
        return self._slots[parameter]

    def gradients(self) -> dict[str, Array]:
        """{dotted name: gradient}, views in the model's order; they change with the next backward."""
        return {name: self._slots[p] for name, p in self.model.named_parameters() if p in self._slots}

    def zero(self) -> None:
        """Clear the gradients. Two backwards without it add up."""
        self.flat.fill(0)

    def discard(self) -> None:
        """Drop the residuals of a forward that will get no backward."""
        self._saved.clear()

    @property
    def pending(self) -> int:
        """How many layers' residuals wait for a backward."""
        return len(self._saved)

    def check_done(self) -> None:
        """Errors: TapeError where residuals wait for a backward, so that the gradients are not complete."""
        if self._saved:
            raise TapeError(
                f"backward did not come to {self._saved[-1][0].path}, whose residuals are still on the tape: a layer "
                "behind it was taken for one in front; set layers as attributes in the order in which the data passes "
                "through them, or call tape.discard() where a forward gets no backward"
            )

    def residuals(self) -> list[tuple[Layer, tuple]]:
        """(layer, residuals) pairs that wait for a backward, oldest first."""
        return list(self._saved)

    def forgetting(self) -> Forget:
        """A tape that keeps nothing but draws from this one's random stream."""
        return Forget(self.random, training=True)

    @contextlib.contextmanager
    def replaying(self, state: dict | int) -> Iterator[None]:
        """While open, the random stream repeats what followed `state`; afterwards it goes on where it was."""
        if self.random is None:
            yield
            return
        now, self.random.state = self.random.state, state
        try:
            yield
        finally:
            self.random.state = now


def _find_trained(model, input_gradient):
    """-> {layer: whether something in front of it is trained}, {layer: the same, or something in it}.

    By the order of the attributes, which is the order of the data. Where a layer stands in two places and is reached at
    the second, everything behind the first is reached as well.
    """
    known = {}
    while True:
        feeds, reaches, shared = _walk(model, input_gradient, known)
        if not shared or reaches == known:
            return feeds, reaches
        known = reaches


def _walk(model, trained, known):
    feeds, reaches, shared = {}, {}, False

    def visit(layer):
        nonlocal trained, shared
        shared = shared or layer in feeds
        feeds[layer] = feeds.get(layer, False) or trained
        for _, child in layer.children():
            if isinstance(child, Layer):
                visit(child)
            elif isinstance(child, Parameter):
                trained = trained or child.trainable
        trained = trained or known.get(layer, False)
        reaches[layer] = reaches.get(layer, False) or trained

    visit(model)
    return feeds, reaches, shared
