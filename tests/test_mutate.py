"""The script that draws wrong lines (tests/mutate.py): what it changes, and what it leaves alone."""

import pathlib
import subprocess
import sys

import pytest
from mutations import mutants

SCRIPT = pathlib.Path(__file__).parent / "mutate.py"


def changed(line, before=""):
    """All changes of one line of a function f(x, y, axis)."""
    source = f"def f(x, y, axis):\n    {line}\n".encode()
    return {m.after for m in mutants(source) if m.line == 2 and m.is_another_program(source)}


@pytest.mark.parametrize(
    "line, expected",
    [
        ("return x + y", {"return (x - y)", "return x", "return y", "return (-(x + y))"}),
        ("return x + y", {"return y + y", "return x + axis"}),
        ("x += g(y)", {"pass", "x -= g(y)", "y += g(y)", "x += g(axis)"}),
        ("return x.sum(-1, keepdims=True)", {"return x.sum(-2, keepdims=True)", "return x.sum(-1)"}),
        ("return g(x)[:, 0]", {"return g(x)[:, 1]", "return g(y)[:, 0]"}),
        ("return g(0.5)", {"return g(0.505)", "return g(1.0)"}),
        ("return g(True)", {"return g(False)"}),
        ("return x.T", {"return x"}),
        ("return g(x, 3).swapaxes(0, 1)", {"return g(x, 3)", "return g(3, x).swapaxes(0, 1)"}),
        ("return x if x < 0 or y else y", {"return x if (not (x < 0 or y)) else y"}),
        ("return x if x < 0 or y else y", {"return x if (x <= 0) or y else y", "return x if (x < 0 and y) else y"}),
        ("return min(g(), axis)", {"return max(g(), axis)"}),
        ("return -x", {"return x"}),
        ("x, y = g()", {"(y, x) = g()"}),
        ("return g(), x", {"return (x, g())"}),
    ],
)
def test_a_line_is_changed_in_every_way(line, expected):
    assert expected <= changed(line)


@pytest.mark.parametrize(
    "line",
    [
        "raise ValueError(x + 1)",
        "return 'a text'",
        "return f'{x + 1}'",
        "import numpy",
        "if x < 0: raise ValueError",
    ],
)
def test_texts_and_validation_are_left_alone(line):
    assert changed(line) == set()


def test_a_mutant_is_the_file_with_one_place_changed():
    source = 'def f(x):\n    "Σ of it: 1 + 1."\n    return "é", x * 2  # × 2\n'.encode()
    (mutant,) = [m for m in mutants(source) if m.text == "4"]
    assert mutant.apply(source).decode() == source.decode().replace("x * 2", "x * 4")
    assert (mutant.line, mutant.before, mutant.after) == (3, 'return "é", x * 2 # × 2', 'return "é", x * 4 # × 2')


def test_the_script_explains_itself_and_refuses_files_that_are_not_there():
    done = subprocess.run([sys.executable, SCRIPT, "--help"], capture_output=True, text=True)
    assert done.returncode == 0 and "--count 300 --seed 1" in done.stdout
    done = subprocess.run([sys.executable, SCRIPT, "--files", "nowhere/*.py"], capture_output=True, text=True)
    assert done.returncode == 1 and "no Python file matches nowhere/*.py" in done.stderr
