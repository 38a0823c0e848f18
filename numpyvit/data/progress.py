"""How far long work has come."""

from collections.abc import Iterable, Iterator


def counted(items: Iterable, total: int, title: str, shown: bool = True) -> Iterator:
    """The items, with a bar on stderr where that is a terminal and the work takes more than two seconds."""
    from tqdm import tqdm

    disable = None if shown else True  # None: where stderr is no terminal
    return tqdm(items, title, total, leave=False, unit="", delay=2, disable=disable, dynamic_ncols=True)
