"""Weights from ONNX files, for which no library is needed."""

import pathlib

import hostile_onnx
import numpy as np
import pytest
from foreign_weights import tiny

import numpyvit as nv
from numpyvit.errors import CheckpointError
from numpyvit.testing import randomize

GOLDEN = pathlib.Path(__file__).parent / "golden"


@pytest.mark.parametrize("library", ["timm", "huggingface"])
def test_weights_of_pytorchs_exporter_are_read(library):
    expected = randomize(tiny(), seed=4).state_dict()  # see reference/make_onnx.py
    expected["blocks.1.norm1.weight"] = expected["blocks.0.norm1.weight"]
    found = nv.load_checkpoint(GOLDEN / f"{library}.onnx")
    assert found.keys() == expected.keys()
    assert all(np.array_equal(found[key], array) for key, array in expected.items())


@pytest.mark.parametrize("name", ["an array", "an array with packed sides and numbers", "notes"])
def test_files_of_any_exporter_are_read(name, tmp_path):
    (tmp_path / "model.onnx").write_bytes(hostile_onnx.onnx_files()[name])
    ((_, array),) = nv.load_checkpoint(tmp_path / "model.onnx").items()
    assert np.array_equal(array, np.arange(6, dtype=np.float32).reshape(2, 3))


REFUSED = {
    "nothing but a version": "no graph",
    "too few numbers": r"does not hold the numbers that the shape \[2, 4\] of head.weight demands",
    "numbers elsewhere": "keeps head.weight in another file, which is not read; save the model as one file",
    "numbers in /etc/passwd": "keeps head.weight in another file",
    "a field longer than the file": "a field is longer than what holds it",
    "a million fields": "which is too much for its size",
    "an array under a thousand names": "which is too much for its size",
}


@pytest.mark.parametrize("name", REFUSED)
def test_other_files_are_refused(name, tmp_path):
    (tmp_path / "model.onnx").write_bytes(hostile_onnx.onnx_files()[name])
    with pytest.raises(CheckpointError, match=f"model.onnx: .*{REFUSED[name]}"):
        nv.load_checkpoint(tmp_path / "model.onnx")
