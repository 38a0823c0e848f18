"""Every error that a user can cause. Each message names what was given, what was expected and what to do."""

import signal

_LONGEST = 6000  # characters of a message


class NumpyvitError(Exception):
    """The base of all errors below. A message that quotes something long is cut in its middle."""

    def __str__(self):
        text = super().__str__()
        if len(text) <= _LONGEST:
            return text
        return f"{text[: _LONGEST // 2]} … [{len(text) - _LONGEST:,} characters] … {text[-_LONGEST // 2 :]}"


class ShapeError(NumpyvitError, ValueError):
    """An array of the wrong shape; the message begins with the layer's dotted path."""


class InputError(NumpyvitError, ValueError):
    """An array of the right shape with values that cannot be used: NaN pixels, labels outside the classes, no rows."""


class DtypeError(NumpyvitError, TypeError):
    """An array of the wrong type, such as integer images handed to a layer."""


class ConfigError(NumpyvitError, ValueError):
    """Options that do not fit together, an unknown model, a bad setting."""


class TapeError(NumpyvitError, RuntimeError):
    """A backward that does not mirror its forward."""


class DeviceMemoryError(NumpyvitError, MemoryError):
    """The memory of a GPU does not suffice; the message names a batch size that would do."""


class GradientError(NumpyvitError, AssertionError):
    """A gradient that disagrees with finite differences; the message names the array."""


class NonFiniteError(NumpyvitError, ArithmeticError):
    """A loss, an output or a weight became infinite or NaN during training."""


class DataError(NumpyvitError, OSError):
    """A data set, image or download that is missing or damaged."""


class CheckpointError(NumpyvitError, ValueError):
    """A weight file or state dict that is damaged or does not fit the model."""


class RunError(NumpyvitError, OSError):
    """A run directory that cannot be written, or belongs to another run."""


class Interrupted(KeyboardInterrupt):
    """Training was stopped by a signal, Ctrl-C or SIGTERM, after its state was saved.

    It is a KeyboardInterrupt, so that a program's or a notebook's `except Exception` does not swallow it.
    """

    def __init__(self, message: str, signum: int = signal.SIGINT):
        super().__init__(message)
        self.exit_code = 128 + signum  # by which shells know such an end
