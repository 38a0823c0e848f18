"""What README shows is what is there, and what it and docs/ tell to type works as printed."""

import json
import pathlib
import re
import shlex

import numpy as np
import pytest
from pages import ROOT, blocks, check_excerpt
from PIL import Image

import numpyvit as nv
from numpyvit import cli

MNIST = ROOT.parent / "shared" / "data" / "mnist"
README = (ROOT / "README.md").read_text()
PYTHON = blocks(README)
PAGES = [README, *(page.read_text() for page in sorted((ROOT / "docs").glob("*.md")))]
COMMANDS = dict.fromkeys(
    line.split("   ")[0].strip()
    for page in PAGES
    for text in blocks(page, language="")
    for line in text.splitlines()
    if line.startswith("numpyvit ")
)


def test_the_layer_that_it_shows_stands_in_the_source():
    check_excerpt(PYTHON[0])


def test_its_program_runs_as_printed(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    exec(compile(PYTHON[1], "README.md", "exec"), {})
    assert (tmp_path / "runs" / "mine" / "last.safetensors").exists()


def test_its_table_names_every_part_of_the_package():
    layout = README[README.index("## Layout") :]
    for entry in (ROOT / "numpyvit").iterdir():
        if entry.name[0] not in "_." and (entry.suffix == ".py" or entry.is_dir()):
            assert entry.name in layout, entry.name


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory):
    """A folder with what the commands speak of: images of classes and with boxes, photographs, published weights."""
    folder, rng = tmp_path_factory.mktemp("readme"), np.random.default_rng(0)
    paths = [f"images/{part}/{kind}/{i}.png" for part in ("train", "val") for kind in "ab" for i in range(12)]
    for path in [*paths, "photo.png", "photos/1.png", "cat.jpg"]:
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (40, 40, 3), np.uint8)).save(folder / path)
    rows = [f"{path},{path.split('/')[2]}" for path in paths]
    (folder / "images.csv").write_text("\n".join(["path,label", *rows]))
    (folder / "cells").mkdir()
    described = {"images": [], "annotations": [], "categories": [{"id": 1, "name": "cell"}]}
    for i in range(12):
        Image.fromarray(rng.integers(0, 256, (40, 40, 3), np.uint8)).save(folder / "cells" / f"{i}.png")
        described["images"].append({"id": i, "file_name": f"{i}.png", "width": 40, "height": 40})
        described["annotations"].append({"id": i, "image_id": i, "category_id": 1, "bbox": [i, 5, 10, 20]})
    (folder / "cells" / "annotations.json").write_text(json.dumps(described))
    np.savez(folder / "vit_tiny_patch16_224.npz", **nv.create_model("vit_tiny_patch16_224").state_dict())
    return folder


@pytest.mark.parametrize("command", COMMANDS)
def test_its_commands_run(command, run_folder, monkeypatch):
    """As printed; training stops after two steps, and a run that is spoken of is begun before."""
    monkeypatch.chdir(run_folder)
    verb, *arguments = shlex.split(command)[1:]
    if "mnist" in command or "cifar10" in command:
        if "cifar10" in command or not MNIST.is_dir():
            pytest.skip("needs the data set")
        monkeypatch.setenv("NUMPYVIT_DATA", str(MNIST))
    short = ["--steps", "2"]
    for run in re.finditer(r"runs/(\w+)-\w+", command):
        if not pathlib.Path(run[0]).exists():
            assert cli.main(["train", "--data", run[1], "--out", run[0], *short]) == 0
    if "--tensorboard" in arguments:
        pytest.importorskip("tensorboard")
    if verb == "convert" and arguments[-1].endswith(".onnx"):
        pytest.importorskip("onnx")
    if verb == "serve":  # until somebody stops it
        uvicorn = pytest.importorskip("uvicorn")
        monkeypatch.setattr(uvicorn.Server, "run", lambda server, sockets: None)
    if verb == "train":
        arguments += ["--steps", "3"] if "--resume" in command else short
    assert cli.main([verb, *arguments]) == 0
