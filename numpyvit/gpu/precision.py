"""In which precision a GPU works out products of float32 matrices; sums are float32 in each."""

import contextlib
import contextvars
from collections.abc import Iterator

from ..errors import ConfigError

# float32: all 24 bits of each factor; tf32: 11 of them; bf16: 8, and half the memory to read
PRECISIONS = ("float32", "tf32", "bf16")
_chosen = contextvars.ContextVar("precision", default="float32")


def chosen() -> str:
    """The precision that is in use here."""
    return _chosen.get()


@contextlib.contextmanager
def products_in(precision: str) -> Iterator[None]:
    """While open, products on a GPU are worked out in this precision, in this thread and those that share its work.

    Errors: ConfigError for an unknown name.
    """
    if precision not in PRECISIONS:
        raise ConfigError(f"precision must be one of {', '.join(map(repr, PRECISIONS))}, got {precision!r}")
    token = _chosen.set(precision)
    try:
        yield
    finally:
        _chosen.reset(token)
