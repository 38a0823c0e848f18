"""What `numpyvit train` chooses by itself must suit the size of the set and the weights that it begins with."""

import json
import math
import pathlib
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from numpyvit import cli, data
from numpyvit.training import recipes

DATA = pathlib.Path(__file__).parents[2] / "shared" / "data"
WEIGHTS = DATA / "weights" / "vit_tiny_patch16_224_in1k.npz"


@pytest.mark.parametrize("images", [1, 3, 10, 30, 122, 500, 1000, 2000, 50_000, 1_281_167])
def test_every_size_of_a_folder_has_enough_updates_and_a_warmup_within_an_epoch(images):
    settings = recipes.recipe("my/folder", images)
    batches = math.ceil(images / settings.batch_size)
    assert 8 <= settings.batch_size <= 128 and (batches >= 10 or settings.batch_size == 8)
    assert settings.warmup_steps <= min(200, batches / 2)
    horizon = 1 / (1 - settings.ema_decay)  # steps that the average reaches back over
    assert horizon <= max(batches, 1) + 1e-6 and settings.ema_decay <= 0.998


def test_a_large_folder_gets_what_photographs_get():
    large, cifar = recipes.recipe("my/folder", 1_281_167), recipes.recipe("cifar10", 50_000)
    assert large == cifar


def test_the_other_settings_follow_from_the_users_batch_size():
    assert recipes.recipe("my/folder", 1000, batch_size=100).warmup_steps == 5
    assert recipes.recipe("my/folder", 1000, batch_size=10).warmup_steps == 50


def test_a_detector_sees_few_images_more_often():
    epochs = [recipes.recipe("my/folder", images, kind="detection").epochs for images in (205, 2000, 20_000)]
    assert epochs == [218, 60, 60] and recipes.recipe("shapes", 2000, kind="detection").epochs < 60


def test_weights_that_are_trained_already_learn_gently_from_below():
    settings = recipes.recipe("my/folder", 122, pretrained=True)
    assert settings.lr <= 1e-3 and 0 < settings.layer_decay < 1
    assert recipes.recipe("my/folder", 122).layer_decay is None


@pytest.mark.slow
@pytest.mark.skipif(not WEIGHTS.exists(), reason=f"{WEIGHTS} is not there")
def test_fine_tuning_by_the_readmes_line_learns_from_a_hundred_images(tmp_path, capsys):
    cat_ship_truck(tmp_path / "image_folder", tmp_path / "cifar10")
    args = ["train", "--data", tmp_path / "image_folder", "--model", "vit_tiny_patch16_224", "--pretrained", WEIGHTS]
    args += ["--freeze", "[!h]*", "--epochs", 3, "--out", tmp_path / "run", "--quiet"]
    assert cli.main(list(map(str, args))) == 0
    assert "warm-up" not in capsys.readouterr().err
    last = json.loads((tmp_path / "run" / "metrics.jsonl").read_text().splitlines()[-1])
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert last["epoch"] == 3 and result["last"]["accuracy"] >= 0.8


def cat_ship_truck(folder, scratch):
    """122 images to train on and 36 to validate, as <part>/<class>/<number>.png."""
    subprocess.run([sys.executable, DATA / "unpack_cifar10.py", scratch], check=True, capture_output=True)
    for part, images, counts in zip(("train", "val"), data.load("cifar10", scratch), ((41, 41, 40), (12, 12, 12))):
        for name, count in zip(("cat", "ship", "truck"), counts):
            (folder / part / name).mkdir(parents=True)
            rows = np.flatnonzero(images.labels == images.classes.index(name))[:count]
            for row in rows:
                pixels = images.images[row].transpose(1, 2, 0)
                Image.fromarray(pixels).save(folder / part / name / f"{row}.png")
