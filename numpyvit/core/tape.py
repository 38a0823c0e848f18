"""The tape that one pass writes on: residuals, gradients and the random stream."""

import contextlib

from ..backend import Random
from ..errors import ShapeError, TapeError
from .flat import Layout


class Forget:
    """The tape that keeps nothing: inference. With a random stream, the first pass of a checkpointed layer."""

    keeps = complete = False

    def __init__(self, random=None):
        self.random = random

    def push(self, layer, *residuals):
        pass

    def pop(self, layer):
        raise TapeError(f"{layer.path}: backward needs the Tape that forward wrote on; this pass kept nothing")

    def forgetting(self):
        return self


FORGET = Forget()


class Tape:
    """One pass's memory: what each layer saved, last in first out, the gradients, and the random stream.

    model:          whose trainable parameters get a slot for their gradient.
    seed:           of dropout and DropPath; None turns them off.
    input_gradient: False lets a model skip the gradient of its images; its backward then returns None.
    complete:       True for who wants to look at all residuals: no token is left out of the last block, and
                    checkpointed layers keep theirs.
    """

    keeps = True

    def __init__(self, model, seed=None, *, input_gradient=True, complete=False):
        self.model, self.input_gradient, self.complete = model, input_gradient, complete
        self.layout = Layout(model)
        self.flat = self.layout.zeros()
        self._slots = dict(zip(self.layout.parameters, self.layout.views(self.flat)))
        self._saved = []
        self.random = None
        self.reseed(seed)
        model.set_paths()

    def reseed(self, seed):
        """Start the random stream anew from `seed` (an int or a sequence of ints), or turn it off with None."""
        self.random = None if seed is None else Random(seed, self.layout.xp)

    def push(self, layer, *residuals):
        self._saved.append((layer, residuals))

    def pop(self, layer):
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

    def wants(self, parameter):
        """Whether `parameter` has a slot; a backward may skip the work where it has none."""
        return parameter in self._slots

    def add(self, parameter, gradient, rows=...):
        """Add to the gradient of `parameter`, or to some rows of it; frozen parameters are skipped."""
        slot = self._slots.get(parameter)
        if slot is None:
            return
        slot = slot[rows]
        if slot.shape != gradient.shape:
            raise ShapeError(f"a gradient of shape {gradient.shape} was added to a parameter of shape {slot.shape}")
        slot += gradient

    def gradient(self, parameter):
        """The gradient of one parameter, a view."""
        return self._slots[parameter]

    def gradients(self):
        """{dotted name: gradient}, views in the model's order; they change with the next backward."""
        return {name: self._slots[p] for name, p in self.model.named_parameters() if p in self._slots}

    def zero(self):
        """Clear the gradients. Two backwards without it add up."""
        self.flat.fill(0)

    def discard(self):
        """Drop the residuals of a forward that will get no backward."""
        self._saved.clear()

    @property
    def pending(self):
        """How many layers' residuals wait for a backward."""
        return len(self._saved)

    def residuals(self):
        """(layer, residuals) pairs that wait for a backward, oldest first."""
        return list(self._saved)

    def forgetting(self):
        """A tape that keeps nothing but draws from this one's random stream."""
        return Forget(self.random)

    @contextlib.contextmanager
    def replaying(self, state):
        """While open, the random stream repeats what followed `state`; afterwards it goes on where it was."""
        if self.random is None:
            yield
            return
        now, self.random.state = self.random.state, state
        try:
            yield
        finally:
            self.random.state = now
