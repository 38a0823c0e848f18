"""A task whose inputs are tuples, outputs dicts and targets lists needs no line in the loop, the loader or the step."""

import copy
import json
import pickle

import numpy as np
import pytest
from PIL import Image
from toy_detector import Detector, Squares, ToyDetection

import numpyvit as nv
from numpyvit import data
from numpyvit.errors import ConfigError, NonFiniteError, RunError
from numpyvit.training import Classification, Distillation, Task
from numpyvit.training.run_directory import TIMINGS
from numpyvit.training.shards import Sharding
from numpyvit.weights.checkpoint import load_tensors, read_checkpoint

SEVERAL = Sharding(tiny_batch=0, min_shard=1)
WHOLE = Sharding(max_shards=1)
SETTINGS = dict(batch_size=16, lr=0.01, warmup_steps=2, ema_decay=0.5, progress=False)


def fit(out=None, epochs=4, task=None, test=None, **options):
    model = Detector()
    train, val = Squares(60), Squares(20, seed=1)
    task = task or ToyDetection()
    return model, nv.fit(model, train, val, test=test, task=task, out=out, epochs=epochs, **{**SETTINGS, **options})


def batch(dtype=np.float32):
    squares = Squares(24)
    every = np.arange(24)
    return squares.prepare(squares.batch(every), dtype), squares.targets(every)


# ---- steps and inference --------------------------------------------------------------------------------------------


def test_a_step_over_shards_is_the_step_over_the_whole_batch():
    """The loss divides by the boxes of the whole batch, of which the shards hold different numbers."""
    x, targets = batch(np.float64)
    models = []
    for sharding in (SEVERAL, WHOLE):
        models.append(Detector(dtype="float64"))
        step = nv.TrainStep(
            models[-1], nv.optim.SGD(models[-1], lr=1e-3), ToyDetection().loss, threads=2, sharding=sharding
        )
        assert len(sharding.split(x, models[-1])) == (6 if sharding is SEVERAL else 1)
        losses = [step(x, targets) for _ in range(3)]
        assert step.logits["aux_outputs"][0]["pred_boxes"].shape == (24, 2, 4) and set(step.parts) == {"ce", "bbox"}
    assert losses[2] < losses[0]
    for name, array in models[0].state_dict().items():
        np.testing.assert_allclose(array, models[1].state_dict()[name], rtol=1e-12)


def test_the_toys_gradients_are_those_of_its_loss():
    x, targets = batch(np.float64)
    model, task = Detector(dtype="float64"), ToyDetection()
    tape = nv.Tape(model)
    _, gradient, _ = task.loss(model.forward(x, tape), targets)
    model.backward(gradient, tape)
    for name, parameter in model.named_parameters():
        loss = []
        for change in (1e-6, -2e-6):
            parameter.data.flat[3] += change
            loss.append(task.loss(model(x), targets)[0])
        parameter.data.flat[3] += 1e-6
        assert tape.gradients()[name].flat[3] == pytest.approx((loss[0] - loss[1]) / 2e-6, rel=1e-5)


def test_inference_in_shards_is_the_models():
    x, _ = batch()
    model = Detector()
    out, expected = nv.infer(model, x, threads=2, sharding=SEVERAL), model(x)
    assert out.keys() == expected.keys()
    np.testing.assert_allclose(out["pred_logits"], expected["pred_logits"], rtol=1e-6)
    np.testing.assert_allclose(out["aux_outputs"][0]["pred_boxes"], expected["aux_outputs"][0]["pred_boxes"], rtol=1e-6)


def test_a_mask_that_is_left_out_is_left_out_in_every_shard():
    class WithoutMask(Detector):
        def forward(self, inputs, tape=nv.FORGET):
            images, mask = inputs
            assert mask is None
            return super().forward((images, np.zeros(images.shape[:1] + (8, 8), bool)), tape)

    x, _ = batch()
    out = nv.infer(WithoutMask(), (x[0], None), threads=2, sharding=SEVERAL)
    assert out["pred_logits"].shape == (24, 2, 3)


# ---- runs -----------------------------------------------------------------------------------------------------------


def test_a_run_records_what_the_task_measures_and_keeps_its_best(tmp_path):
    model, records = fit(tmp_path, epochs=8, test=Squares(20, seed=2))
    assert records[-1]["train_loss"] < 0.5 * records[0]["train_loss"]
    figures = ("loss", "ce", "bbox")
    assert all(f"{part}_{name}" in records[0] for part in ("train", "val") for name in figures)
    assert "val_hit" in records[0] and "train_median_error" not in records[0] and "val_images" not in records[0]
    best = min(records, key=lambda record: record["val_median_error"])
    notes = read_checkpoint(tmp_path / "best.safetensors")[1]
    assert notes["epoch"] == best["epoch"] and notes["val_median_error"] == best["val_median_error"]
    result = json.loads((tmp_path / "result.json").read_text())
    assert set(result["best"]) == {"loss", "ce", "bbox", "median_error", "hit", "images", "epoch"}
    scores = nv.evaluate(model, Squares(20, seed=2), task=ToyDetection())
    assert result["last"]["median_error"] == scores["median_error"]
    with Image.open(tmp_path / "samples.png") as samples, Image.open(tmp_path / "curves.png") as curves:
        assert samples.size == (4, 2) and curves.size[0] == 3 * 640


def test_parts_of_the_loss_are_averaged_over_the_images(tmp_path):
    class OneImageOne(ToyDetection):
        def loss(self, outputs, targets):
            loss, gradient, _ = super().loss(outputs, targets)
            return loss, gradient, {"ce": 1.0 / len(targets)}

    _, (record,) = fit(epochs=1, task=OneImageOne())  # 60 images in batches of 16, the last of 12
    assert record["train_ce"] == pytest.approx(4 / 60)


@pytest.mark.parametrize("steps", [4, 6])
def test_a_run_in_parts_is_one_run(tmp_path, steps):
    """Stopped between epochs and within one; the noise that `batch` draws included."""
    fit(tmp_path / "whole", threads=1)
    fit(tmp_path / "parts", steps=steps, threads=2)
    fit(tmp_path / "parts", resume=True, threads=1)
    names = ("last.safetensors", "best.safetensors", "state.safetensors", "curves.png", "samples.png")
    for name in names[:2] + names[3:]:
        assert (tmp_path / "whole" / name).read_bytes() == (tmp_path / "parts" / name).read_bytes()
    whole, parts = (load_tensors(tmp_path / run / "state.safetensors") for run in ("whole", "parts"))
    assert all(np.array_equal(array, parts[0][name]) for name, array in whole[0].items())
    metrics = [
        [
            {k: v for k, v in json.loads(line).items() if k not in TIMINGS}
            for line in (tmp_path / run / "metrics.jsonl").read_text().splitlines()
        ]
        for run in ("whole", "parts")
    ]
    assert metrics[0] == metrics[1] and len(metrics[0]) == 4


def test_each_step_draws_noise_of_its_own(tmp_path):
    seen = []

    class Seeing(ToyDetection):
        def batch(self, model, inputs, labels, rng, threads=None):
            seen.append(rng.random())
            return inputs, labels

    for seed in (0, 0, 1):
        fit(epochs=2, task=Seeing(), seed=seed)
    assert len(set(seen[:8])) == 8 and seen[:8] == seen[8:16] and not set(seen[:8]) & set(seen[16:])


def test_a_validation_part_is_held_out_of_a_set_without_a_label_an_image():
    model = Detector()
    records = nv.fit(model, Squares(40), None, task=ToyDetection(), epochs=2, val_fraction=0.25, **SETTINGS)
    assert "val_median_error" in records[0]


def test_a_drawing_that_fails_is_a_note_and_does_not_take_the_curves_along(tmp_path):
    class Clumsy(ToyDetection):
        def draw(self, model, dataset, path):
            raise OSError("no pens")

    with pytest.warns(UserWarning, match=r"samples\.png was not drawn \(OSError: no pens\)"):
        fit(tmp_path, epochs=1, task=Clumsy())
    assert (tmp_path / "curves.png").exists() and not (tmp_path / "samples.png").exists()


def test_images_wait_where_drawing_takes_long_but_for_the_last(tmp_path, monkeypatch):
    drawn, clock = [], [0.0]

    class Slow(ToyDetection):
        def draw(self, model, dataset, path):
            drawn.append(clock[0])
            clock[0] += 100

        def evaluate(self, *args, **options):
            clock[0] += 300
            return super().evaluate(*args, **options)

    monkeypatch.setattr("numpyvit.training.loop.time.monotonic", lambda: clock[0])
    fit(tmp_path, epochs=7, task=Slow())
    assert drawn == [300, 1600, 2300]  # after epochs 1, 5 and 7


def test_figures_that_a_task_owes_are_named():
    class Forgetful(ToyDetection):
        best = ("AP", True)

    with pytest.raises(ConfigError, match=r"Forgetful\.evaluate returned no number 'AP', only loss, ce"):
        fit(epochs=1, task=Forgetful())


def test_a_set_of_another_kind_is_not_augmented_as_photographs_are(tmp_path):
    fit(tmp_path, epochs=1)
    assert json.loads((tmp_path / "config.json").read_text())["augment"] == []


def test_weights_that_are_not_finite_are_traced_through_nested_outputs():
    class Huge(ToyDetection):
        def loss(self, outputs, targets):
            loss, *rest = super().loss(outputs, targets)
            return loss * np.float32(np.inf), *rest

    with pytest.raises(NonFiniteError, match=r"step 1 is .*; every layer's output is finite"):
        fit(epochs=1, task=Huge())


# ---- which epoch is the best ----------------------------------------------------------------------------------------


class Told(ToyDetection):
    """Its validation figures, an epoch at a time: (AP, loss)."""

    best, curves = ("AP", True), {"loss": ("loss",), "AP": ("AP",)}

    def __init__(self, *figures):
        self.figures = iter(figures)

    def evaluate(self, model, dataset, *, threads=None, batch_size=256):
        ap, loss = next(self.figures)
        return {"loss": loss, "AP": ap}

    def draw(self, model, dataset, path):
        pass


@pytest.mark.parametrize(
    "figures, best",
    [
        ([(0.1, 1.0), (0.3, 3.0), (0.2, 0.5)], 2),
        ([(0.3, 3.0), (0.3, 1.0), (0.3, 2.0)], 2),  # of equal ones the lower loss
        ([(0.3, 1.0), (0.3, 1.0), (0.1, 1.0)], 1),  # and then the first
        ([(float("nan"), 0.1), (0.2, 1.0), (float("nan"), 0.1)], 2),
    ],
)
def test_the_best_epoch(tmp_path, figures, best):
    _, records = fit(tmp_path, epochs=3, task=Told(*figures))
    shown = [value if value == value else None for value, _ in figures]
    assert [record["val_AP"] for record in records] == shown
    assert read_checkpoint(tmp_path / "best.safetensors")[1]["epoch"] == best


def test_a_test_that_is_interrupted_leaves_the_last_weights(tmp_path):
    class Interrupted(Told):
        def evaluate(self, model, dataset, **options):
            try:
                return super().evaluate(model, dataset, **options)
            except StopIteration:
                raise KeyboardInterrupt from None

    task = Interrupted((0.9, 1.0), (0.1, 1.0), (0.5, 1.0))  # two of the validation, one of the last weights' test
    model = Detector()
    with pytest.raises(KeyboardInterrupt):
        nv.fit(model, Squares(60), Squares(20), test=Squares(20), task=task, out=tmp_path, epochs=2, **SETTINGS)
    last, best = (nv.load_checkpoint(tmp_path / f"{name}.safetensors") for name in ("last", "best"))
    assert all(np.array_equal(array, last[name]) for name, array in model.state_dict().items())
    assert not np.array_equal(last["first.weight"], best["first.weight"])
    assert not (tmp_path / "result.json").exists()


# ---- which task it is -----------------------------------------------------------------------------------------------


def test_a_run_is_not_resumed_with_another_task(tmp_path):
    class Other(ToyDetection):
        pass

    fit(tmp_path, epochs=1)
    assert json.loads((tmp_path / "config.json").read_text())["task"] == {"name": "ToyDetection"}
    with pytest.raises(RunError, match=r"another run \(task is \{'name': 'Other'\}, was \{'name': 'ToyDetection'\}\)"):
        fit(tmp_path, epochs=2, task=Other(), resume=True)


def test_the_task_follows_from_the_kind_of_the_set():
    train, val = data.load("digits")
    assert train.kind == "classification"
    with pytest.raises(ConfigError, match=r"of kind 'squares', expected classification.*; name its task"):
        nv.fit(Detector(), Squares(20), Squares(20), progress=False)
    with pytest.raises(ConfigError, match=r"task must be a numpyvit\.training\.Task.*got 'detection'"):
        nv.fit(Detector(), Squares(20), Squares(20), task="detection")
    model = nv.create_model("vit_micro_patch2_8", embed_dim=16, depth=1, num_heads=2)
    by_kind, named = nv.evaluate(model, val), nv.evaluate(model, val, task=Classification(0.3))
    assert by_kind["loss"] == named["loss"] and by_kind["accuracy"] == named["accuracy"]


def test_what_is_no_data_set_is_named():
    model = nv.create_model("vit_micro_patch2_8", embed_dim=16, depth=1, num_heads=2)
    for wrong in (None, [1, 2]):
        with pytest.raises(ConfigError, match=r"expected a data set.*got a"):
            nv.fit(model, wrong, None)
        with pytest.raises(ConfigError, match=r"expected a data set.*got a"):
            nv.evaluate(model, wrong)


@pytest.mark.parametrize("kind", ["hard", "soft"])
@pytest.mark.parametrize("again", [copy.deepcopy, lambda task: pickle.loads(pickle.dumps(task))])
def test_a_task_can_be_copied_and_pickled(kind, again, rng):
    options = dict(embed_dim=16, depth=1, num_heads=2)
    task = Distillation(nv.create_model("vit_micro_patch2_8", **options), kind, alpha=0.3, tau=2.0, label_smoothing=0.1)
    twin = again(task)
    images, labels = rng.standard_normal((4, 1, 8, 8)).astype(np.float32), np.arange(4)
    outputs = tuple(rng.standard_normal((2, 4, 10)).astype(np.float32))
    values = [t.loss(outputs, t.batch(None, images, labels, rng)[1])[0] for t in (task, twin)]
    assert values[0] == values[1] and task.config() == twin.config()


def test_the_plain_task_measures_nothing_but_asks_for_a_loss():
    task = Task()
    assert task.score(None, None) == {} and task.summary({}, 1) == {} and task.batch(None, 1, 2, None) == (1, 2)
    with pytest.raises(NotImplementedError):
        task.loss(None, None)
