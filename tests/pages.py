"""What pages in Markdown show: programs that run, and excerpts of the source that stand there as printed."""

import pathlib
import re

ROOT = pathlib.Path(__file__).resolve().parent.parent


def blocks(text, language="python"):
    """The code blocks of a page in a language; "" for those that name none."""
    return [code for named, code in re.findall(r"^```(\w*)\n(.*?)^```$", text, re.M | re.S) if named == language]


def is_excerpt(block):
    """An excerpt begins with the file that it is from:   # numpyvit/functional/linear.py"""
    return block.startswith("# numpyvit/")


def check_excerpt(block):
    """Each function of an excerpt, and the line of its class, stands in the file that its first line names.

    Docstrings are left out. So are other functions, at an empty line or behind the line of a class.
    """
    first, shown = block.split("\n", 1)
    source = re.sub(r'^ +""".*?"""\n', "", (ROOT / first.removeprefix("# ")).read_text(), flags=re.M | re.S)
    for part in re.split(r"\n\n+|(?<=:)\n(?=    def )", shown.strip("\n")):
        assert f"\n{part}\n" in source, f"{first[2:]} does not hold this:\n{part}"
