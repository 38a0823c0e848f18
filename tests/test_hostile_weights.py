"""Weight files made to do harm: no crash, no hang, nothing executed, bounded memory, only errors that name the file."""

import json
import os
import pathlib
import subprocess
import sys

import pytest
from fuzz_weights import FORMATS
from hostile_weights import FAMILIES

TESTS = pathlib.Path(__file__).parent
SLACK = 64 << 20
LARGE = ("pickles too long", "memory")  # dozens of files of 60 MB, packed
ONE_THREAD = {**os.environ, "OPENBLAS_NUM_THREADS": "1"}


def run(script, *arguments):
    """-> the JSON lines that one of the scripts beside this file prints."""
    command = [sys.executable, TESTS / script, *map(str, arguments)]
    result = subprocess.run(command, capture_output=True, text=True, env=ONE_THREAD, timeout=3600)
    assert result.returncode == 0, f"ended with {result.returncode}: {result.stderr[-2000:]}"
    return [json.loads(line) for line in result.stdout.splitlines()]


@pytest.mark.parametrize("family", [f if f not in LARGE else pytest.param(f, marks=pytest.mark.slow) for f in FAMILIES])
def test_files_made_by_hand_are_read_or_refused(family, tmp_path):
    files = FAMILIES[family]()
    for i, (name, data) in enumerate(files.items()):
        (tmp_path / f"{i:04d}{pathlib.PurePath(name).suffix if name.endswith('.pickle') else ''}").write_bytes(data)
    results = run("read_weights.py", tmp_path)
    assert len(results) == len(files)
    for (name, data), result in zip(files.items(), results):
        times = 8 if name.endswith(".pickle") else 2  # a CIFAR batch is text for the most part, which is decoded
        assert result["outcome"] in ("read", "CheckpointError", "DataError"), (name, result)
        assert result["bytes"] <= times * len(data) + SLACK, (name, result)
        assert result["events"] == [], (name, result)
        assert len(result["message"]) < 7000 and "\n" not in result["message"], (name, result)
        assert result["outcome"] == "read" or str(tmp_path) in result["message"], (name, result)


def fuzz(form, first, count):
    (summary,) = run("fuzz_weights.py", form, first, count)
    assert summary["failures"] == []
    assert summary["refused"] > count / 4  # the changes do damage


@pytest.mark.parametrize("form", FORMATS)
def test_mutants_are_read_or_refused(form):
    fuzz(form, 0, 200)


@pytest.mark.slow
@pytest.mark.parametrize("form", FORMATS)
def test_thousands_of_mutants_are_read_or_refused(form):
    fuzz(form, 200, 5800)
