"""Images that are kept once they are decoded or drawn."""

from collections.abc import Callable, Hashable, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from ..backend import available_threads
from ..errors import ConfigError

CACHE_MB = 512  # for all parts of a set together, if nothing else is said


class ImageCache:
    """Arrays, kept while they fit into `megabytes` of 2²⁰ bytes; 0 keeps none.

    The first to come stay and are never replaced: of a set that does not fit, each epoch finds the same share.
    """

    def __init__(self, megabytes: int = CACHE_MB):
        if not isinstance(megabytes, (int, np.integer)) or megabytes < 0:
            raise ConfigError(f"cache_mb must be an int that is not negative, got {megabytes!r}")
        self._kept, self._free = {}, int(megabytes) << 20

    def get(self, keys: Sequence[Hashable], make: Callable[[Hashable], np.ndarray]) -> list[np.ndarray]:
        """[the array of each key]; those that are not kept are made by make(key), on threads."""
        missing = [key for key in dict.fromkeys(keys) if key not in self._kept]
        made = dict(zip(missing, _on_threads(make, missing)))
        for key, array in made.items():
            if array.nbytes <= self._free:
                self._kept[key] = np.ascontiguousarray(array)  # a view would keep what it is a view of
                self._free -= array.nbytes
        return [made[key] if key in made else self._kept[key] for key in keys]


def _on_threads(function, items):
    """Decoding a file releases the interpreter; a thread for each processor."""
    if len(items) <= 1:
        return list(map(function, items))
    with ThreadPoolExecutor(min(len(items), available_threads())) as pool:
        return list(pool.map(function, items))
