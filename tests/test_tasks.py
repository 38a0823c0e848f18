"""A task is one object: the loop asks it for targets, loss and scores, and knows no kind of task."""

import json

import numpy as np
import pytest

import numpyvit as nv
from numpyvit import cli, data
from numpyvit.errors import ConfigError, NonFiniteError
from numpyvit.training import Classification, Distillation

SMALL = dict(embed_dim=16, depth=1, num_heads=2)
SETTINGS = dict(epochs=2, batch_size=64, warmup_steps=2, ema_decay=0.9, progress=False)


@pytest.fixture(scope="module")
def digits():
    train, test = data.load("digits")
    return train.take(slice(0, 200)), test.take(slice(0, 60))


def model(**options):
    return nv.create_model("vit_micro_patch2_8", **{**SMALL, **options})


def fit(digits, out=None, net=None, **options):
    net = net or model()
    return net, nv.fit(net, *digits, out=out, **{**SETTINGS, **options})


def equal(a, b):
    return all(np.array_equal(array, b.state_dict()[name]) for name, array in a.state_dict().items())


def test_classification_is_what_fit_does_by_itself(digits):
    assert equal(fit(digits, label_smoothing=0.1)[0], fit(digits, task=Classification(0.1))[0])
    assert not equal(fit(digits)[0], fit(digits, task=Classification(0.1))[0])


def test_class_weights_change_what_is_learnt(digits):
    weights = np.ones(10)
    assert equal(fit(digits)[0], fit(digits, task=Classification(class_weights=weights))[0])
    weights[3] = 5
    assert not equal(fit(digits)[0], fit(digits, task=Classification(class_weights=weights))[0])


@pytest.mark.parametrize("kind", ["hard", "soft"])
def test_distillation_is_the_published_loss_with_the_teachers_logits_of_the_same_images(digits, kind, rng):
    teacher, student = model(seed=3), model(distilled=True)
    images = data.normalize(digits[0].images[:32], digits[0].mean, digits[0].std)
    labels = digits[0].labels[:32]
    task = Distillation(teacher, kind, alpha=0.3, label_smoothing=0.1)
    outputs = student.forward(images, nv.Tape(student))
    loss, gradient = task.loss(outputs, task.batch(model, images, labels, rng)[1])
    if kind == "hard":
        expected = nv.losses.hard_distillation(outputs, labels, teacher(images), 0.3, 0.1)
    else:
        expected = nv.losses.soft_distillation(outputs, labels, teacher(images), 0.3, 1.0, 0.1)
    assert loss == pytest.approx(expected[0], rel=1e-6)
    for own, right in zip(gradient, expected[1]):
        np.testing.assert_allclose(own, right, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("kind", ["hard", "soft"])
def test_a_distilled_run_in_parts_is_one_run_and_the_teacher_stays_as_it_is(digits, tmp_path, kind):
    def run(out, **options):
        return fit(digits, out, model(distilled=True, drop_rate=0.1), task=Distillation(teacher, kind), **options)[0]

    teacher = model(seed=3)
    before = teacher.state_dict()
    whole = run(tmp_path / "whole")
    run(tmp_path / "parts", epochs=1)
    assert equal(whole, run(tmp_path / "parts", resume=True))
    assert all((before[name] == array).all() for name, array in teacher.state_dict().items())
    other = fit(digits, None, model(distilled=True, drop_rate=0.1))[0]
    assert not np.array_equal(whole.state_dict()["head_dist.weight"], other.state_dict()["head_dist.weight"])


def test_a_teacher_that_does_not_suit_is_refused_before_the_first_step(digits):
    with pytest.raises(ConfigError, match="the teacher has 4 outputs, the student 10"):
        fit(digits, net=model(distilled=True), task=Distillation(model(num_classes=4)))
    stranger = model()
    stranger.pretrained_cfg["classes"] = list("abcdefghij")
    with pytest.raises(ConfigError, match="are not those of the data"):
        fit(digits, net=model(distilled=True), task=Distillation(stranger))
    with pytest.raises(ConfigError, match="distilled=True"):
        fit(digits, task=Distillation(model()))
    with pytest.raises(ConfigError, match="'hard' or 'soft', got 'warm'"):
        Distillation(model(), "warm")
    with pytest.raises(ConfigError, match="give it to the task alone"):
        fit(digits, task=Classification(), label_smoothing=0.1)


def test_a_task_of_ones_own_needs_no_line_elsewhere(digits):
    class Parity(Classification):
        """Even or odd, by two of the outputs."""

        def batch(self, model, inputs, labels, rng, threads=None):
            return inputs, labels % 2

        def summary(self, sums, count):
            return {"parity": float(sums["right"]) / count}

    _, records = fit(digits, task=Parity(), epochs=1)
    assert 0 < records[0]["train_parity"] <= 1 and "train_accuracy" not in records[0]


def test_sgd_is_a_setting_and_its_momentum_survives_a_stop(digits, tmp_path):
    options = dict(optimizer="sgd", momentum=0.8, lr=0.05)
    whole, _ = fit(digits, tmp_path / "whole", **options)
    fit(digits, tmp_path / "parts", **options, epochs=1)
    assert equal(whole, fit(digits, tmp_path / "parts", **options, resume=True)[0])
    assert not equal(whole, fit(digits, **{**options, "momentum": 0.0})[0])
    assert not equal(whole, fit(digits, lr=0.05)[0])
    assert json.loads((tmp_path / "whole" / "config.json").read_text())["optimizer"] == "sgd"


@pytest.mark.filterwarnings("ignore:the run of")
def test_teacher_and_optimizer_are_options_of_the_command_line(image_folder, tmp_path, capsys):
    def train(*args):
        return cli.main(["train", "--quiet", "--data", str(image_folder), "--img-size", "32", *map(str, args)])

    assert train("--steps", 2, "--out", tmp_path / "teacher") == 0
    options = ("--teacher", tmp_path / "teacher" / "last.safetensors", "--distillation", "soft", "--optimizer", "sgd")
    options += ("--label-smoothing", 0.1)
    assert train(*options, "--steps", 2, "--out", tmp_path / "plain") == 2
    assert "needs a student with a second head" in capsys.readouterr().err and not (tmp_path / "plain").exists()
    options += ("--model", "deit_tiny_distilled_patch16_224")
    assert train(*options, "--steps", 3, "--out", tmp_path / "whole") == 0
    assert train(*options, "--steps", 2, "--out", tmp_path / "parts") == 0
    assert cli.main(["train", "--quiet", "--resume", "--steps", "3", "--out", str(tmp_path / "parts")]) == 0
    weights = [nv.load_checkpoint(tmp_path / run / "last.safetensors") for run in ("whole", "parts")]
    assert all(np.array_equal(weights[0][name], weights[1][name]) for name in weights[0])
    config = json.loads((tmp_path / "parts" / "config.json").read_text())
    assert (config["optimizer"], config["distillation"], config["label_smoothing"]) == ("sgd", "soft", 0.1)
    assert train("--distillation", "hard", "--out", tmp_path / "none") == 2
    assert "name its checkpoint with --teacher" in capsys.readouterr().err


@pytest.mark.usefixtures("little_work_is_shared")
def test_the_replay_of_a_step_that_failed_computes_the_very_same(digits):
    """With dropout, which differs from step to step, and several shards."""

    def loss(outputs, targets):
        value, gradient = nv.losses.cross_entropy(outputs, targets)
        return (value if step.steps < 2 else value * np.float32(np.nan)), gradient

    net = model(drop_rate=0.3, drop_path_rate=0.3)
    step = nv.TrainStep(net, nv.optim.AdamW(net), loss=loss, seed=5)
    images = data.normalize(digits[0].images[:64], digits[0].mean, digits[0].std)
    labels = digits[0].labels[:64]
    for _ in range(2):
        step(images, labels)
    with pytest.raises(NonFiniteError, match="step 3"):
        step(images, labels)
    before = net.state_dict()
    assert np.array_equal(step.replay(images), step.logits)
    assert step.steps == 2 and all(np.array_equal(array, before[name]) for name, array in net.state_dict().items())
    assert len(step.sharding.split(images, net)) > 1
