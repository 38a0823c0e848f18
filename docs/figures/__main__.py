"""Draw the figures of the pages:   python -m docs.figures [NAME…]   writes docs/figures/NAME.png, by default all."""

import argparse
import importlib
import pathlib

from .style import png

HERE = pathlib.Path(__file__).parent
NAMES = sorted(path.stem for path in HERE.glob("[a-z]*.py") if path.stem != "style")


def draw(name: str) -> bytes:
    """The figure of a page, as PNG."""
    return png(importlib.import_module(f".{name}", __package__).draw)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split(":")[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(NAMES)}")
    names = parser.parse_args().names
    if unknown := sorted({*names} - {*NAMES}):
        parser.error(f"there is no figure {unknown[0]!r}; choose of {', '.join(NAMES)}")
    for name in names or NAMES:
        (HERE / f"{name}.png").write_bytes(draw(name))


if __name__ == "__main__":
    main()
