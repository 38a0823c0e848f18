"""benchmarks.gpu in its smallest form: on the stand-in for CuPy, since what it does on a GPU is the same."""

import json
import os
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from benchmarks import gpu, gpu_report  # noqa: E402


def benchmark(out, *options):
    command = [sys.executable, "-m", "benchmarks.gpu", "--device", "stand_in", "--out", str(out), *map(str, options)]
    environment = {**os.environ, "OPENBLAS_NUM_THREADS": "1", "MPLBACKEND": "Agg"}
    result = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=environment)
    assert result.returncode == 0, result.stderr
    return result.stdout, json.loads((out / "results.json").read_text())


def test_its_parts_give_figures_that_are_kept_and_not_worked_out_again(tmp_path):
    both = ("--engines", "numpyvit", "numpyvit-eager", "--rounds", 1)
    _, found = benchmark(tmp_path, "--part", "step", "inference", "--units", "smallest-tf32", *both)
    for part in ("step", "inference"):
        figures = found[part]["smallest-tf32"]
        assert set(figures) == {"numpyvit", "numpyvit-eager"} and figures["numpyvit"]["median"] > 0
    said, again = benchmark(tmp_path, "--part", "step", "--units", "smallest-tf32")
    assert again == found and "step smallest-tf32\n" not in said
    table = (tmp_path / "results.md").read_text()
    assert "Stand-in, 8.0 GiB" in table and "| smallest-tf32 |" in table and table in said


def test_what_the_time_does_not_suffice_for_is_left_for_the_next_call(tmp_path):
    said, found = benchmark(tmp_path, "--minutes", 0.01)
    assert set(found) == {"machine"}
    assert "goes on with tests gpu, step vit-b64-tf32," in said and "digits digits." in said
    assert "cifar is left out: name the folder of CIFAR-10 with --data-dir" in said


@pytest.mark.slow
def test_its_tests_and_training_give_figures(tmp_path):
    _, found = benchmark(tmp_path, "--part", "tests", "digits")
    assert found["tests"]["gpu"]["exit_code"] == 0 and "passed" in found["tests"]["gpu"]["last_line"]
    digits = found["digits"]["digits"]
    assert digits["exit_code"] == 0 and digits["epochs"] == 1 and 0 < digits["accuracy"] < 1


def test_figures_stand_beside_their_bars():
    step = {"numpyvit": 2.0, "torch-eager": 4.5, "torch-graph": 1.9}
    found = {
        "machine": {"this": {"gpu": "NVIDIA H200"}},
        "tests": {"gpu": {"last_line": "1 failed, 3 passed", "failures": ["tests/test_x.py::test_y"], "exit_code": 1}},
        "step": {"vit-b64-tf32": {name: {"median": ms, "minimum": ms - 1} for name, ms in step.items()}},
        "cifar": {"cifar": {"exit_code": 1, "last_line": "it broke"}},
        "digits": {
            "digits": {
                **{"exit_code": 0, "accuracy": 0.97, "minutes": 1.0, "epochs": 30, "images_per_second": 10.0},
                "precision": "tf32",
            }
        },
    }
    text = gpu_report.markdown(found)
    for part in (
        "- gpu: NVIDIA H200",
        "1 failed, 3 passed\n- tests/test_x.py::test_y",
        "| vit-b64-tf32 | 2 (1) | – | 4.5 (3.5) | 1.9 (0.9) | – | 0.44 (≤ 0.5: met) | 1.05 (≤ 1.0: missed) | – |",
        "| digits | 97.00% | 1.0 | 30 | 10 | tf32 |",
        "| cifar | failed: it broke |",
    ):
        assert part in text


def test_each_unit_with_a_bar_is_measured():
    from benchmarks.gpu_parts import UNITS, WORK
    from benchmarks.gpu_work import CONFIGS, ENGINES

    assert all(unit in UNITS[part] for part, unit in gpu_report.BARS)
    assert set(UNITS) == set(WORK) == set(gpu.PARTS)
    assert {unit.rpartition("-")[0] for part in ("step", "inference") for unit in UNITS[part]} <= set(CONFIGS)
    assert set(gpu_report._ENGINES) == set(ENGINES)


def test_a_bare_machine_is_told_what_to_install(monkeypatch):
    monkeypatch.setattr(gpu.importlib.util, "find_spec", lambda name: None if name in ("cupy", "scipy") else name)
    with pytest.raises(SystemExit, match=r"not installed: scipy, cupy; pip install -e '\.\[cuda13,test\]'"):
        gpu.main([])
