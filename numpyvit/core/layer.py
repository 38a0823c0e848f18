"""What a layer is.

A layer holds parameters only. `forward(x, tape)` pushes onto the tape what `backward(dy, tape)` will pop; the tape
also holds the gradients and the random stream. So one model can run on several threads at once (a tape each), a layer
can stand twice in a model, and inference (`FORGET`, the tape that keeps nothing) costs no memory.
"""

import fnmatch
import itertools
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Self

import numpy as np

from ..backend import Array, array_module, as_array, device_module, to_host, to_module
from ..errors import CheckpointError, ConfigError, NumpyvitError

DTYPES = ("float32", "float64")
Seed = int | Sequence[int] | np.random.Generator  # in type hints: what make_rng takes


def make_rng(seed: Seed) -> np.random.Generator:
    """A NumPy Generator from an int or a sequence of ints, none negative; a Generator is returned as it is."""
    try:
        return np.random.default_rng(seed)
    except (TypeError, ValueError):
        raise ConfigError(f"seed must be a non-negative int, got {seed!r}") from None


def as_dtype(dtype: str | np.dtype) -> np.dtype:
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

    def __init__(self, data: Array, trainable: bool = True, decay: bool | None = None):
        self.data, self.trainable = data, trainable
        self.decay = data.ndim > 1 if decay is None else decay

    def __repr__(self):
        return f"Parameter{tuple(self.data.shape)}{'' if self.trainable else ' frozen'}"


class Buffer:
    """An array that belongs to a layer and is never trained: an index, a mask, statistics.

    It moves with `Layer.to`, floating-point ones change type with `Layer.astype`, and the state dict holds those that
    are saved. Compared by identity.
    """

    __slots__ = ("data", "saved")

    def __init__(self, data: Array, saved: bool = False):
        self.data, self.saved = data, saved

    def __repr__(self):
        return f"Buffer{tuple(self.data.shape)}"


class Layer:
    """The base of all layers. A subclass sets parameters, buffers, layers, or lists of them as attributes, and defines

        forward(self, x, tape=FORGET) -> y     pushing onto the tape what backward needs
        backward(self, dy, tape) -> dx         popping it, adding parameter gradients with tape.add

    Attribute names are the checkpoint's names, through lists at any depth; attributes are set in the order in which the
    data passes through them. Names that begin with _ are derived values and stay out of the checkpoint.
    Every constructor takes `dtype` and `seed`, also where there is nothing to draw or to store; only containers that
    are given their layers (Sequence, Recompute) do not.

    transparent: the layer's parts count as its owner's own: model.embed.cls_token is model.cls_token, also in names.
    takes_first: forward takes a third argument, the number of leading tokens that are wanted (see Sequence).
    attention_layers: the attention of each block, where a model has attention_on_grid(tape, image_size, patch) to show.
    cross_attention_layers: that of each decoder layer, where a model has query_attention_on_grid(tape) to show.
    build_config: how create_model made a model, as its checkpoints keep it: {"model": the name, "options": what was
                  given beside it}, and "unsaved", the names of options that a file cannot hold; {} for any other layer.
    min_shard: how many numbers of its input a shard of a batch should have, where training.Sharding asks for fewer.
    """

    transparent = False
    takes_first = False
    attention_layers = ()
    cross_attention_layers = ()
    build_config: Mapping = MappingProxyType({})
    min_shard = 0

    def __init__(self, *, dtype: str = "float32", seed: Seed = 0):
        as_dtype(dtype)

    def __call__(self, *inputs, **options):
        """Inference: forward, keeping nothing and dropping nothing out.

        Inputs may be arrays of other libraries, see backend.as_array.
        """
        inputs = as_array(inputs)
        try:
            return self.forward(*inputs, **options)
        except NumpyvitError:
            if len(inputs) > 1 or options:
                raise  # a pass on a tape must not leave its residuals twice
            self.set_paths()  # the layers inside may have been given other names since
            return self.forward(*inputs, **options)  # fails again and names the layer as it is called now

    def children(self) -> "Iterator[tuple[str, Parameter | Buffer | Layer]]":
        """(name, Parameter, Buffer or Layer) pairs in the order in which the attributes were set."""
        for name, value in vars(self).items():
            if not name.startswith("_"):
                yield from _parts(name, value)

    def _walk(self, prefix=""):
        for name, child in self.children():
            yield prefix + name, child
            if isinstance(child, Layer):
                yield from child._walk(prefix if child.transparent else f"{prefix}{name}.")

    def named_parameters(self) -> Iterator[tuple[str, Parameter]]:
        """(dotted name, Parameter) pairs; a parameter that stands in two places comes once."""
        return self._named(Parameter)

    def named_buffers(self) -> Iterator[tuple[str, Buffer]]:
        """(dotted name, Buffer) pairs, each buffer once."""
        return self._named(Buffer)

    def saved_buffers(self) -> Iterator[tuple[str, Buffer]]:
        """Those of named_buffers that a checkpoint holds."""
        return ((name, buffer) for name, buffer in self.named_buffers() if buffer.saved)

    def _named(self, kind):
        seen = set()
        for name, child in self._walk():
            if isinstance(child, kind) and child not in seen:
                seen.add(child)
                yield name, child

    def named_layers(self) -> "Iterator[tuple[str, Layer]]":
        """(dotted name, Layer) pairs, this layer first under the name ''."""
        yield "", self
        yield from ((name, child) for name, child in self._walk() if isinstance(child, Layer))

    def __getattr__(self, name):
        """An attribute of a transparent part; called where the layer itself has none of that name."""
        if not name.startswith("_"):
            for part in _transparent_parts(self):
                if hasattr(part, name):
                    return getattr(part, name)
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    def __setattr__(self, name, value):
        """Set an attribute where it lies: model.head = … replaces the one in its transparent part."""
        own = name.startswith("_")  # derived values are each layer's own
        owner = self if own else next((part for part in _transparent_parts(self) if name in vars(part)), self)
        object.__setattr__(owner, name, value)

    @property
    def path(self) -> str:
        """The dotted name that errors show: 'blocks.0.attn.qkv (Linear)'."""
        kind, name = type(self).__name__, vars(self).get("_path", "")
        return f"{name} ({kind})" if name else kind

    def set_paths(self) -> None:
        """Tell each layer inside the name that it has now, for errors; a part of a model adds its own in front."""
        own = vars(self).get("_path", "")
        for name, layer in self.named_layers():
            layer._path = f"{own}.{name}".strip(".")

    def __repr__(self):
        """The tree of layers with their settings and the shapes of their parameters; equal neighbors once."""
        settings = [
            f"{name}={value!r}"
            for name, value in vars(self).items()
            if not name.startswith("_")
            and isinstance(value, (bool, int, float, str, tuple))
            and not [*_parts("", value)]
        ]
        arrays = [f"{name}: {child!r}" for name, child in self.children() if not isinstance(child, Layer)]
        lines = [f"{type(self).__name__}({', '.join(settings + arrays)})"]
        layers = [(name, repr(child)) for name, child in self.children() if isinstance(child, Layer)]
        for text, group in itertools.groupby(layers, key=lambda item: item[1]):
            names = [name for name, _ in group]
            name = names[0] if len(names) == 1 else f"{names[0]} to {names[-1]}, {len(names)} equal"
            lines.append(textwrap.indent(f"{name}: {text}", "  "))
        return "\n".join(lines)

    def freeze(self, *patterns: str) -> Self:
        """Freeze the parameters whose names match a shell pattern; all of them without one.

            model.freeze("patch_embed*", "blocks.[0-5].*")

        Errors: ConfigError for a pattern that matches nothing. Returns the layer.
        """
        return self._set_trainable(patterns, False)

    def unfreeze(self, *patterns: str) -> Self:
        """Let parameters be trained again; the opposite of freeze."""
        return self._set_trainable(patterns, True)

    def _set_trainable(self, patterns, trainable):
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

    def num_parameters(self) -> int:
        """How many numbers the parameters hold, frozen ones included."""
        return sum(parameter.data.size for _, parameter in self.named_parameters())

    def own_multiply_adds(self, y: Array, *inputs: Array) -> int:
        """How many multiplications with an addition its own matrix products take from `inputs` to y.

        What the layers inside compute is theirs. 0 for a layer without a product of its own, such as a norm.
        """
        return 0

    def astype(self, dtype: str) -> Self:
        """Convert every parameter and floating-point buffer to float32 or float64, in place. Returns the layer."""
        dtype = as_dtype(dtype)
        for _, array in self._arrays():
            if array.data.dtype.kind == "f":
                array.data = array.data.astype(dtype)
        return self

    def to(self, device: str) -> Self:
        """Move every parameter and buffer to 'cpu' or 'cuda', in place. Returns the layer."""
        xp = device_module(device)
        for _, array in self._arrays():
            array.data = to_module(array.data, xp)
        return self

    def _arrays(self):
        return [*self.named_parameters(), *self.named_buffers()]

    def _saved(self):
        """{dotted name: Parameter or saved Buffer}, what a checkpoint holds."""
        return dict(self.named_parameters()) | dict(self.saved_buffers())

    def state_dict(self) -> dict[str, np.ndarray]:
        """A snapshot of the parameters and saved buffers: {dotted name: NumPy array of its own}."""
        return {name: np.array(to_host(array.data)) for name, array in self._saved().items()}

    def load_state_dict(self, mapping: Mapping[str, np.ndarray], strict: bool = True) -> tuple[list[str], list[str]]:
        """Copy arrays into the parameters and saved buffers by name.

        All names and shapes are checked before anything is written.

        strict: missing and unexpected names are errors; otherwise they are returned as (missing, unexpected).
        Errors: CheckpointError that lists every missing, unexpected and misshapen name.
        """
        own = self._saved()
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


def _parts(name, value):
    """Parameters, buffers and layers in an attribute, through lists at any depth: ("stages.0.1", layer)."""
    if isinstance(value, (Parameter, Buffer, Layer)):
        yield name, value
    elif isinstance(value, (list, tuple)):
        for i, item in enumerate(value):
            yield from _parts(f"{name}.{i}", item)
    elif isinstance(value, (dict, set, frozenset)):
        items = value.values() if isinstance(value, dict) else value
        if any(True for item in items for _ in _parts(name, item)):
            raise ConfigError(f"layers or parameters in the {type(value).__name__} {name!r} have no names; use a list")


def _transparent_parts(layer):
    return [part for part in vars(layer).values() if isinstance(part, Layer) and part.transparent]
