"""What a layer is, and the tape that one pass writes on.

A layer holds parameters only. `forward(x, tape)` pushes onto the tape what `backward(dy, tape)` will pop; the tape
also holds the gradients and the random stream. So one model can run on several threads at once (a tape each), a layer
can stand twice in a model, and inference (`FORGET`, the tape that keeps nothing) costs no memory.
"""

import contextlib
import fnmatch

import numpy as np

from .backend import Random, array_module, device_module, to_host, to_module
from .errors import CheckpointError, ConfigError, ShapeError, TapeError

DTYPES = ("float32", "float64")


def make_rng(seed):
    """A NumPy Generator from an int or a sequence of ints, none negative; a Generator is returned as it is."""
    try:
        return np.random.default_rng(seed)
    except (TypeError, ValueError):
        raise ConfigError(f"seed must be a non-negative int, got {seed!r}") from None


def as_dtype(dtype):
    """'float32' or 'float64' as a NumPy dtype; anything else is a ConfigError."""
    try:
        name = np.dtype(dtype).name
    except TypeError:
        name = None
    if name not in DTYPES:
        raise ConfigError(f"dtype must be 'float32' or 'float64', got {dtype!r}")
    return np.dtype(name)


class Parameter:
    """A trainable array. Compared by identity.

    data:      the array; layers read it at every pass, so it may be replaced.
    trainable: False freezes it: it gets no slot on a tape and no update.
    decay:     whether weight decay applies; by default to matrices, not to biases, norms or single vectors.
    """

    __slots__ = ("data", "decay", "trainable")

    def __init__(self, data, trainable=True, decay=None):
        self.data, self.trainable = data, trainable
        self.decay = data.ndim > 1 if decay is None else decay

    def __repr__(self):
        return f"Parameter{tuple(self.data.shape)}{'' if self.trainable else ' frozen'}"


# ---- layers ---------------------------------------------------------------------------------------------------------


class Layer:
    """The base of all layers. A subclass sets parameters, layers, or lists of layers as attributes, and defines

        forward(self, x, tape=FORGET) -> y     pushing onto the tape what backward needs
        backward(self, dy, tape) -> dx         popping it, adding parameter gradients with tape.add

    Attribute names are the checkpoint's names. Names that begin with _ are derived values and stay out of it.
    Every constructor takes `dtype` and `seed`, also where there is nothing to draw or to store.
    """

    def __init__(self, *, dtype="float32", seed=0):
        as_dtype(dtype)

    def __call__(self, *inputs, **options):
        """Inference: forward, keeping nothing and dropping nothing out."""
        if not hasattr(self, "_path"):
            self.set_paths()
        return self.forward(*inputs, **options)

    def children(self):
        """(name, Parameter or Layer) pairs in the order in which the attributes were set."""
        for name, value in vars(self).items():
            if name.startswith("_"):
                continue
            if isinstance(value, (Parameter, Layer)):
                yield name, value
            elif isinstance(value, (list, tuple)):
                for i, item in enumerate(value):
                    if isinstance(item, (Parameter, Layer)):
                        yield f"{name}.{i}", item
            elif isinstance(value, dict) and any(isinstance(item, (Parameter, Layer)) for item in value.values()):
                raise ConfigError(f"{self.path}: layers in the dict {name!r} would not be found; use a list")

    def named_parameters(self):
        """(dotted name, Parameter) pairs; a parameter that stands in two places comes once."""
        seen = set()
        for name, parameter in self._walk("", Parameter, []):
            if parameter not in seen:
                seen.add(parameter)
                yield name, parameter

    def named_layers(self):
        """(dotted name, Layer) pairs, this layer first under the name ''."""
        yield "", self
        yield from self._walk("", Layer, [])

    def _walk(self, prefix, kind, found):
        for name, child in self.children():
            if isinstance(child, kind):
                found.append((prefix + name, child))
            if isinstance(child, Layer):
                child._walk(f"{prefix}{name}.", kind, found)
        return found

    @property
    def path(self):
        """The dotted name that errors show: 'blocks.0.attn.qkv (Linear)'."""
        kind, name = type(self).__name__, getattr(self, "_path", "")
        return f"{name} ({kind})" if name else kind

    def set_paths(self):
        """Tell this layer and each inside its dotted name, for errors; a name from a larger model stays."""
        for name, layer in self.named_layers():
            if not getattr(layer, "_path", ""):
                layer._path = name

    def freeze(self, *patterns, trainable=False):
        """Freeze (or thaw, with trainable=True) the parameters whose names match a shell pattern; all without one.

            model.freeze("patch_embed*", "blocks.[0-5].*")

        Errors: ConfigError for a pattern that matches nothing. Returns the layer.
        """
        named = list(self.named_parameters())
        for pattern in patterns or ("*",):
            chosen = [parameter for name, parameter in named if fnmatch.fnmatchcase(name, pattern)]
            if patterns and not chosen:
                raise ConfigError(
                    f"no parameter is named like {pattern!r}; there are {', '.join(n for n, _ in named[:4])}, …"
                )
            for parameter in chosen:
                parameter.trainable = trainable
        return self

    def num_parameters(self):
        """How many numbers the parameters hold, frozen ones included."""
        return sum(parameter.data.size for _, parameter in self.named_parameters())

    def astype(self, dtype):
        """Convert every parameter to float32 or float64, in place. Returns the layer."""
        dtype = as_dtype(dtype)
        for _, parameter in self.named_parameters():
            parameter.data = parameter.data.astype(dtype)
        return self

    def to(self, device):
        """Move every parameter to 'cpu' or 'cuda', in place. Returns the layer."""
        xp = device_module(device)
        for _, parameter in self.named_parameters():
            parameter.data = to_module(parameter.data, xp)
        return self

    def state_dict(self):
        """A snapshot of the parameters: {dotted name: NumPy array of its own}."""
        return {name: np.array(to_host(parameter.data)) for name, parameter in self.named_parameters()}

    def load_state_dict(self, mapping, strict=True):
        """Copy arrays into the parameters by name. All names and shapes are checked before anything is written.

        strict: missing and unexpected names are errors; otherwise they are returned as (missing, unexpected).
        Errors: CheckpointError that lists every missing, unexpected and misshapen name.
        """
        own = dict(self.named_parameters())
        missing = [name for name in own if name not in mapping]
        unexpected = [name for name in mapping if name not in own]
        misshapen = [
            f"{name}: given {np.shape(mapping[name])}, expected {own[name].data.shape}"
            for name in own
            if name in mapping and tuple(np.shape(mapping[name])) != tuple(own[name].data.shape)
        ]
        misshapen += [
            f"{name}: holds {np.asarray(mapping[name]).dtype}, expected numbers"
            for name in own
            if name in mapping and isinstance(mapping[name], np.ndarray) and mapping[name].dtype.kind not in "fiub"
        ]
        if misshapen or (strict and (missing or unexpected)):
            problems = [f"missing {name}" for name in missing] + [f"unexpected {name}" for name in unexpected]
            raise CheckpointError(
                f"the state dict does not fit this {type(self).__name__}:\n  "
                + "\n  ".join((problems if strict else []) + misshapen)
                + "\ncreate the model with the options of the checkpoint"
                + (", or pass strict=False to skip names" if strict and not misshapen else "")
            )
        for name in own.keys() & mapping.keys():
            data = own[name].data
            data[...] = array_module(data).asarray(mapping[name], dtype=data.dtype)
        return missing, unexpected


@contextlib.contextmanager
def observing(model, callback, method="forward"):
    """While open, each layer's forward (or backward) inside `model` calls `callback(dotted name, layer, output)`.

    For looking and for finding faults: it shadows the methods of this model on all threads.
    """
    layers = [(name, layer) for name, layer in model.named_layers() if method not in vars(layer)]
    for name, layer in layers:

        def observed(*inputs, _name=name, _layer=layer, **options):
            output = getattr(type(_layer), method)(_layer, *inputs, **options)
            callback(_name, _layer, output)
            return output

        vars(layer)[method] = observed
    try:
        yield
    finally:
        for _, layer in layers:
            vars(layer).pop(method, None)


# ---- flat buffers ---------------------------------------------------------------------------------------------------


class Layout:
    """Where each trainable parameter lies in one flat buffer, decayed parameters first.

    Gradients, weights and optimizer moments share it, so that clearing, clipping, summing and updating are one pass.
    """

    def __init__(self, model):
        named = [(name, parameter) for name, parameter in model.named_parameters() if parameter.trainable]
        named.sort(key=lambda item: not item[1].decay)  # a stable sort: the model's order within each part
        self.names = [name for name, _ in named]
        self.parameters = [parameter for _, parameter in named]
        self.sizes = [parameter.data.size for parameter in self.parameters]
        self.size = sum(self.sizes)
        self.decayed = sum(size for size, parameter in zip(self.sizes, self.parameters) if parameter.decay)
        every = [parameter.data for _, parameter in model.named_parameters()]
        if len({(type(data), data.dtype) for data in every}) > 1:
            raise ConfigError(
                f"parameters must share one dtype and device, found {sorted({str(data.dtype) for data in every})}; "
                "use model.astype('float32') and model.to('cpu')"
            )
        first = every[0] if every else np.empty(0, np.float32)
        self._example = array_module(first).empty(0, dtype=first.dtype)  # tells dtype and device

    @property
    def xp(self):
        return array_module(self._example)

    @property
    def dtype(self):
        return self._example.dtype

    def zeros(self):
        return self.xp.zeros(self.size, dtype=self.dtype)

    def views(self, flat):
        """One view of `flat` a parameter, in the parameters' shapes."""
        offsets = np.cumsum([0, *self.sizes]).tolist()
        return [
            flat[start : start + size].reshape(parameter.data.shape)
            for start, size, parameter in zip(offsets, self.sizes, self.parameters)
        ]


class FlatWeights:
    """The trainable parameters of a model moved into one buffer, of which they become views."""

    def __init__(self, model):
        self.model, self.layout = model, Layout(model)
        self._move_in()

    def _move_in(self):
        self.flat = self.layout.zeros()
        self._views = self.layout.views(self.flat)
        self.adopt()

    def __getstate__(self):
        return {"model": self.model, "layout": self.layout}

    def __setstate__(self, state):
        vars(self).update(state)
        self._move_in()  # a copied view is a view no longer

    def check_trainable(self):
        """Errors: ConfigError where parameters were frozen or thawed since."""
        trainable = {parameter for _, parameter in self.model.named_parameters() if parameter.trainable}
        if trainable != set(self.layout.parameters):
            raise ConfigError("parameters were frozen or thawed since the optimizer was made; make a new one")

    def adopt(self):
        """Take in any parameter whose array was replaced since (by `parameter.data = …`)."""
        for parameter, view in zip(self.layout.parameters, self._views):
            if parameter.data is not view:
                if parameter.data.dtype != view.dtype or parameter.data.shape != view.shape:
                    raise ConfigError(
                        f"a parameter changed from {view.dtype}{view.shape} to "
                        f"{parameter.data.dtype}{parameter.data.shape}; make a new optimizer"
                    )
                view[...] = parameter.data
                parameter.data = view


# ---- tapes ----------------------------------------------------------------------------------------------------------


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
