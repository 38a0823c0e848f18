"""Runs on a device, the stand-in for CuPy or a GPU: the same as on the host, with the data there."""

import json

import numpy as np
import pytest
from conftest import tiny

import numpyvit as nv
from numpyvit.backend import ALONE, arrays, to_host
from numpyvit.cli import main as numpyvit
from numpyvit.data import Dataset, Loader, random_affine, random_crop, random_flip
from numpyvit.data.augment import normalize
from numpyvit.data.on_device import OnDevice
from numpyvit.errors import ConfigError, DeviceMemoryError, NonFiniteError
from numpyvit.gpu import device as gpu
from numpyvit.gpu import precision
from numpyvit.testing import stand_in
from numpyvit.testing.stand_in_cuda import GIB, OutOfMemoryError, cuda
from numpyvit.training import Classification
from numpyvit.training.device import place
from numpyvit.training.settings import KINDS

OPTIONS = dict(epochs=3, batch_size=16, warmup_steps=2, seed=4, progress=False)


@pytest.fixture(params=["stand_in", pytest.param("cupy", marks=pytest.mark.gpu)])
def device(request):
    return stand_in if request.param == "stand_in" else request.getfixturevalue("cupy")


@pytest.fixture
def data():
    """Two classes, bright and dark."""
    rng, labels = np.random.default_rng(0), np.arange(48) % 2
    images = rng.integers(0, 128, (48, 1, 8, 8)) + 100 * labels[:, None, None, None]
    return Dataset.from_arrays(images.astype(np.uint8), labels)


def model_on(device, **options):
    return tiny(num_classes=2, **options).to(device)


def weights(model):
    return {name: to_host(array) for name, array in model.state_dict().items()}


@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
def test_a_run_on_a_device_gives_what_one_on_the_host_does(data, device, optimizer):
    """Augmented alike: the host takes a batch as one shard here."""
    found = []
    for where in ("cpu", device):
        model = model_on(where)
        records = nv.fit(model, data, None, optimizer=optimizer, augment={"crop": 1, "flip": 0.5}, **OPTIONS)
        found.append((records[-1], weights(model)))
    (record, here), (record_there, there) = found
    for name in ("train_loss", "train_accuracy", "val_loss", "val_accuracy"):
        assert record_there[name] == pytest.approx(record[name], abs=1e-3)
    for name, array in here.items():
        np.testing.assert_allclose(there[name], array, atol=2e-3, err_msg=name)


def test_a_run_on_a_device_goes_on_bit_for_bit(data, device, tmp_path):
    whole = model_on(device, drop_rate=0.1, drop_path_rate=0.1)
    nv.fit(whole, data, None, out=tmp_path / "whole", **OPTIONS)
    part = model_on(device, drop_rate=0.1, drop_path_rate=0.1)
    nv.fit(part, data, None, out=tmp_path / "part", **{**OPTIONS, "epochs": 1})
    nv.fit(part, data, None, out=tmp_path / "part", resume=True, **OPTIONS)
    for name, array in weights(whole).items():
        np.testing.assert_array_equal(weights(part)[name], array, err_msg=name)
    records = [
        [json.loads(line) for line in (tmp_path / run / "metrics.jsonl").read_text().splitlines()]
        for run in ("whole", "part")
    ]
    assert [r["train_loss"] for r in records[0]] == [r["train_loss"] for r in records[1]]


def test_a_run_says_how_much_of_the_memory_its_data_takes(data, capsys):
    nv.fit(model_on(stand_in), data, None, **{**OPTIONS, "progress": True})
    assert capsys.readouterr().out.startswith("data on the device: 0 MiB of 8 GiB\nepoch   1")


def test_data_that_does_not_fit_stays_on_the_host(data, monkeypatch):
    assert isinstance(place(data, stand_in, ALONE)[0], OnDevice)
    assert place(data, np, ALONE) == (data, None)
    monkeypatch.setattr(cuda.runtime, "memGetInfo", lambda: (2 * data.images.nbytes - 1, GIB))
    assert place(data, stand_in, ALONE) == (data, None)


AUGMENTATIONS = [random_crop(2), random_flip(), random_affine(20, 1.5, 0.2)]


@pytest.mark.parametrize("augment", [AUGMENTATIONS[:2], AUGMENTATIONS[2:]], ids=["crop and flip", "affine"])
def test_batches_on_a_device_are_those_of_the_host(data, device, augment):
    given = dict(batch_size=10, shuffle=True, augment=augment, seed=3)
    on_host = list(Loader(data, **given).epoch(1))
    there = list(Loader(OnDevice(data, device), **given).epoch(1))
    assert len(on_host) == len(there) == 5
    for (images, labels), (images_there, labels_there) in zip(on_host, there):
        assert images_there.dtype == np.float32 and isinstance(images_there, device.ndarray)
        np.testing.assert_array_equal(to_host(labels_there), labels)
        np.testing.assert_allclose(to_host(images_there), images, atol=1e-6 if len(augment) == 2 else 0.02)


def test_a_batch_on_a_device_takes_small_transfers_and_no_synchronization(data):
    there, indices, rng = OnDevice(data, stand_in), np.arange(10), np.random.default_rng(0)
    with stand_in.counting() as seen:
        images, labels = there.batch(indices), there.targets(indices)
        for function in AUGMENTATIONS:
            images, labels = function(images, labels, rng)
        there.prepare(images, np.float32)
    assert seen.synchronizations == 0
    assert seen.by_name("transfers") == {"asarray": 6}  # indices twice, what is drawn, the mean and deviation


def test_normalization_on_a_device_is_that_of_the_host(data, device):
    pixels = np.repeat(data.images, 3, axis=1)
    how = ((0.5, 0.4, 0.3), (0.2, 0.3, 0.4))
    np.testing.assert_allclose(to_host(normalize(device.asarray(pixels), *how)), normalize(pixels, *how), atol=1e-6)


@pytest.fixture
def cuda_is_the_stand_in(monkeypatch):
    monkeypatch.setattr(arrays, "_cupy", lambda: stand_in)


def test_the_command_line_trains_and_evaluates_on_a_gpu_and_says_on_which(cuda_is_the_stand_in, tmp_path, capsys):
    out = str(tmp_path / "run")
    options = ["--steps", "3", "--precision", "tf32", "--out", out]
    assert numpyvit(["train", "--device", "cuda", *options]) == 0
    said = capsys.readouterr().out
    assert said.startswith("GPU: Stand-in, 8.0 GiB, 6.0 free\ndigits: ")
    assert "\ndata on the device: 0 MiB of 8 GiB\n" in said
    assert json.loads((tmp_path / "run" / "config.json").read_text())["precision"] == "tf32"
    assert numpyvit(["evaluate", "--device", "cuda", "--checkpoint", out + "/last.safetensors"]) == 0


def test_the_command_line_refuses_precision_on_the_cpu_before_anything_is_written(tmp_path, capsys):
    assert numpyvit(["train", "--precision", "bf16", "--out", str(tmp_path / "run")]) == 2
    assert "precision 'bf16' is for a GPU" in capsys.readouterr().err and not (tmp_path / "run").exists()


def test_a_machine_without_a_gpu_is_told_what_to_install_or_that_there_is_none(monkeypatch, capsys, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(arrays.importlib.util, "find_spec", lambda name: None)
    assert numpyvit(["train", "--device", "cuda"]) == 2
    assert "numpyvit[cuda12]" in capsys.readouterr().err
    monkeypatch.setattr(arrays, "_cupy", lambda: stand_in)
    monkeypatch.setattr(cuda.runtime, "getDeviceCount", lambda: 0)
    assert numpyvit(["train", "--device", "cuda"]) == 2
    assert "this machine has no GPU" in capsys.readouterr().err


# ---- losses, precision, memory --------------------------------------------------------------------------------------


class Overflowing(Classification):
    """A loss that becomes NaN at the step `at`, from 1."""

    def __init__(self, at):
        super().__init__()
        self.at, self.steps = at, 0

    def loss(self, outputs, targets):
        self.steps += 1
        value, gradient = super().loss(outputs, targets)
        return (value * np.nan if self.steps == self.at else value), gradient


@pytest.mark.parametrize("at", [1, 2])
def test_a_loss_that_is_not_finite_is_named_by_its_step_when_the_losses_are_read(data, at):
    with pytest.raises(NonFiniteError, match=f"the loss of step {at} is nan, seen after step 20"):
        nv.fit(model_on(stand_in), data, None, task=Overflowing(at), **{**OPTIONS, "epochs": 10})


def test_losses_are_read_every_twenty_steps_only(data):
    def reads(steps):
        with stand_in.counting() as seen:
            nv.fit(model_on(stand_in), data, None, val_fraction=0, **{**OPTIONS, "epochs": 100, "steps": steps})
        return seen.transfers

    assert reads(18) == reads(16)  # both in the sixth epoch


@pytest.mark.parametrize("name", precision.PRECISIONS)
def test_products_of_a_run_have_its_precision(data, name):
    seen = set()

    class Watching(Classification):
        def loss(self, outputs, targets):
            seen.add(precision.chosen())
            return super().loss(outputs, targets)

    nv.fit(model_on(stand_in), data, None, task=Watching(), precision=name, **OPTIONS)
    assert seen == {name} and precision.chosen() == "float32"


def test_the_setting_names_each_precision():
    assert KINDS["precision"].choices == precision.PRECISIONS


def test_precision_is_for_a_gpu_and_float32(data):
    with pytest.raises(ConfigError, match="precision 'tf32' is for a GPU, the CPU works in float32; leave it out"):
        nv.fit(model_on("cpu"), data, None, precision="tf32", **OPTIONS)
    with pytest.raises(ConfigError, match="precision 'bf16' is for a model of float32, this one is of float64"):
        nv.fit(model_on(stand_in, dtype="float64"), data, None, precision="bf16", **OPTIONS)
    with pytest.raises(ConfigError, match="precision must be 'float32', 'tf32' or 'bf16', got 'half'"):
        nv.fit(model_on(stand_in), data, None, precision="half", **OPTIONS)
    with pytest.raises(ConfigError, match="precision must be one of 'float32', 'tf32', 'bf16', got 'half'"):
        precision.products_in("half").__enter__()


class Narrow(nv.VisionTransformer):
    """A model that takes the memory of a device for more than so many images."""

    most = 5

    def forward(self, x, tape=nv.FORGET):
        if tape.keeps and len(x) > self.most:
            raise OutOfMemoryError("Out of memory allocating 1,234 bytes")
        return super().forward(x, tape)


def narrow():
    return Narrow(img_size=8, patch_size=4, in_chans=1, num_classes=2, embed_dim=8, depth=2, num_heads=2).to(stand_in)


def test_a_batch_for_which_the_memory_does_not_suffice_is_answered_with_one_that_does(data, monkeypatch):
    message = r"Stand-in, 8.0 GiB, 6.0 free\) does not suffice for a step of 16 images; 4 would do \(--batch-size 4\)"
    model = narrow()
    before = weights(model)
    with pytest.raises(DeviceMemoryError, match=message):
        nv.fit(model, data, None, **OPTIONS)
    assert all(np.array_equal(array, before[name]) for name, array in weights(model).items())
    nv.fit(model, data, None, **{**OPTIONS, "batch_size": 4})
    monkeypatch.setattr(Narrow, "most", 0)
    with pytest.raises(DeviceMemoryError, match="not even 1 would do; take a smaller model"):
        nv.fit(narrow(), data, None, **OPTIONS)


def test_a_gpu_tells_its_name_and_memory(device):
    assert gpu.name(device) and gpu.memory(device)[0] <= gpu.memory(device)[1]
    assert gpu.describe(stand_in) == "Stand-in, 8.0 GiB, 6.0 free"
