"""What a layer is, and the tape that one pass writes on.

A layer holds parameters only. `forward(x, tape)` pushes onto the tape what `backward(dy, tape)` will pop; the tape
also holds the gradients and the random stream. So one model can run on several threads at once (a tape each), a layer
can stand twice in a model, and inference (`FORGET`, the tape that keeps nothing) costs no memory.
"""

import fnmatch

import numpy as np

from ..backend import array_module, device_module, to_host, to_module
from ..errors import CheckpointError, ConfigError

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
