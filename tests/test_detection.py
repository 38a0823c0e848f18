"""Detectors by the verbs and calls that serve classifiers."""

import json

import numpy as np
import pytest
from PIL import Image

import numpyvit as nv
from numpyvit import cli, data
from numpyvit.data.shapes import CLASSES
from numpyvit.errors import ConfigError
from numpyvit.metrics import score_detections, unflatten_detections
from numpyvit.training import Detection
from numpyvit.training.detection import detections
from numpyvit.weights.checkpoint import load_tensors

TINY = dict(num_classes=len(CLASSES), backbone=(8, 8, 8), hidden_dim=16, dim_feedforward=16, num_queries=6, nheads=2)


def detector(**options):
    return nv.create_model("detr_micro_64", **{**TINY, **options})


def shapes(part="train", count=12):
    return data.load_detection("shapes")[part].take(np.arange(count))


def fit(out=None, **options):
    settings = dict(test=shapes("test", 6), epochs=2, batch_size=5, threads=2, progress=False, out=out)
    model = detector()
    return model, nv.fit(model, shapes(), shapes("val", 6), **{**settings, **options})


def outputs_for(targets, queries=5):
    """What a perfect detector would say, its boxes in the last queries."""
    logits = np.zeros((len(targets), queries, len(CLASSES) + 1), np.float32)
    boxes = np.full((len(targets), queries, 4), 0.5, np.float32)
    logits[..., -1] = 20
    for i, target in enumerate(targets):
        n = len(target["labels"])
        logits[i, np.arange(queries - n, queries), target["labels"]] = 40
        boxes[i, queries - n :] = target["boxes"]
    return {"pred_logits": logits, "pred_boxes": boxes}


def test_detections_are_in_pixels_of_the_original_image():
    outputs = outputs_for([{"labels": np.array([2]), "boxes": np.array([[0.5, 0.25, 0.5, 0.5]])}], queries=1)
    (found,) = detections(outputs, [(100, 400)])
    assert found["labels"] == [2] and found["scores"] == pytest.approx([1], abs=1e-6)
    np.testing.assert_allclose(found["boxes"], [[100, 0, 300, 50]])


def test_a_score_is_the_highest_probability_of_a_class_and_no_object_is_not_one():
    logits = np.log(np.array([[[0.1, 0.2, 0.7], [0.5, 0.3, 0.2]]], np.float32))
    (found,) = detections({"pred_logits": logits, "pred_boxes": np.full((1, 2, 4), 0.5)}, [(8, 8)])
    assert found["labels"].tolist() == [1, 0]
    np.testing.assert_allclose(found["scores"], [0.2, 0.5], rtol=1e-6)


def test_a_query_with_boxes_as_queries_is_scored_with_every_class():
    logits = np.log(np.array([[[0.1, 0.2, 0.7], [0.5, 0.3, 0.2]]], np.float32))
    boxes = np.array([[[0.5, 0.5, 1, 1], [0.25, 0.25, 0.5, 0.5]]])
    (found,) = detections({"pred_logits": logits, "pred_boxes": boxes}, [(8, 8)], every_class=True)
    assert found["labels"].tolist() == [0, 1, 0, 1]
    np.testing.assert_allclose(found["scores"], [0.1, 0.2, 0.5, 0.3], rtol=1e-6)
    np.testing.assert_allclose(found["boxes"], [[0, 0, 8, 8], [0, 0, 8, 8], [0, 0, 4, 4], [0, 0, 4, 4]])
    chosen = {name: nv.create_model(name).scores_every_class for name in ("detr_micro_64", "detr_mini_160")}
    assert all(chosen.values()) and not nv.models.detr.DETR.scores_every_class


@pytest.mark.parametrize("queries, weight", [(100, 0.1), (50, 0.2), (5, 1.0)])
def test_no_object_weighs_as_much_in_all_as_with_the_papers_hundred_queries(queries, weight):
    targets = [{"labels": np.array([0, 2]), "boxes": np.full((2, 4), 0.4)}]
    rng = np.random.default_rng(0)
    outputs = {"pred_logits": rng.standard_normal((1, queries, 6)), "pred_boxes": rng.random((1, queries, 4))}
    value, _, _ = Detection().loss(outputs, targets)
    assert value == nv.losses.detection(outputs, targets, no_object=weight)[0]
    assert Detection(no_object=0.3).loss(outputs, targets)[0] == nv.losses.detection(outputs, targets, no_object=0.3)[0]


class Oracle:
    """Stands in for a trained detector: its answers are the true boxes of the images that it is given."""

    def __init__(self, dataset):
        self.targets = iter(dataset.targets(np.arange(len(dataset))))

    def __call__(self, model, x, threads=None):
        return outputs_for([next(self.targets) for _ in x[0]])


def test_a_perfect_detector_scores_1_and_one_that_finds_nothing_0(monkeypatch):
    dataset = shapes("val", 40)
    monkeypatch.setattr("numpyvit.training.detection.infer", Oracle(dataset))
    figures = nv.evaluate(detector(), dataset, per_class=True)
    assert figures["AP"] == figures["AP50"] == 1 and figures["loss"] < 1e-4 and figures["images"] == 40
    assert {row["class"] for row in figures["per_class"]} <= set(CLASSES)
    assert all(row["AP"] == 1 for row in figures["per_class"])

    empty = outputs_for([{"labels": np.empty(0, int), "boxes": np.empty((0, 4))}] * 32)
    take = lambda x: {name: array[: len(x[0])] for name, array in empty.items()}  # noqa: E731
    monkeypatch.setattr("numpyvit.training.detection.infer", lambda model, x, threads=None: take(x))
    assert nv.evaluate(detector(), dataset)["AP50"] == 0


def test_a_run_writes_what_a_run_of_a_classifier_does(tmp_path):
    _, records = fit(tmp_path / "run")
    names = {path.name for path in (tmp_path / "run").iterdir()}
    assert names >= {
        "best.safetensors",
        "last.safetensors",
        "metrics.jsonl",
        "result.json",
        "curves.png",
        "samples.png",
    }
    for record in records:
        assert {"train_loss", "train_ce", "train_bbox", "train_giou", "val_loss", "val_AP", "val_AP50"} <= set(record)
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    arrays, notes = load_tensors(tmp_path / "run" / "predictions.safetensors")
    figures = score_detections(*unflatten_detections(arrays))
    assert notes["results"] == "boxes" and figures["AP50"] == pytest.approx(result["best"]["AP50"], abs=1e-9)
    assert {"AP", "AP50", "AP75", "loss", "epoch"} <= set(result["last"])


def test_a_resumed_run_is_bit_equal_with_denoising_queries_and_augmentation(tmp_path):
    options = dict(augment={"box_flip": {"horizontal": 0.5}, "box_scale": [0.8, 1.2], "box_crop": 0.6})
    whole, _ = fit(tmp_path / "whole", epochs=3, **options)
    fit(tmp_path / "parts", epochs=1, **options)
    resumed, _ = fit(tmp_path / "parts", epochs=3, resume=True, threads=1, **options)
    for name, array in whole.state_dict().items():
        assert np.array_equal(array, resumed.state_dict()[name]), name


def test_denoising_queries_are_for_models_that_take_them_and_change_the_training(rng):
    dataset = shapes()
    inputs, targets = dataset.prepare(dataset.batch([0, 1])), dataset.targets([0, 1])
    assert len(Detection().batch(detector(), inputs, targets, rng)[0]) == 3
    assert len(Detection(groups=0).batch(detector(), inputs, targets, rng)[0]) == 2
    assert len(Detection().batch(detector(denoising=False), inputs, targets, rng)[0]) == 2
    with_them, without = fit()[0], fit(task=Detection(groups=0))[0]
    assert any(not np.array_equal(array, without.state_dict()[n]) for n, array in with_them.state_dict().items())


def test_loss_of_a_batch_does_not_depend_on_threads_or_shards():
    dataset = shapes(count=10)
    inputs, targets = dataset.prepare(dataset.batch(np.arange(10))), dataset.targets(np.arange(10))
    losses = []
    for threads in (1, 3):
        model = detector()
        step = nv.TrainStep(model, nv.optim.AdamW(model), nv.losses.detection, threads=threads)
        losses.append([float(step(inputs, targets)) for _ in range(3)])
    assert losses[0] == losses[1] and losses[0][2] < losses[0][0]


def test_what_does_not_suit_is_said():
    with pytest.raises(ConfigError, match="has boxes, which a NarrowVisionTransformer does not find; take a detector"):
        nv.fit(nv.create_model("vit_micro_patch4_32", img_size=64), shapes(), None, progress=False)
    with pytest.raises(ConfigError, match="create it with num_classes=5"):
        nv.fit(detector(num_classes=2), shapes(), None, progress=False)


# ---- the command line -----------------------------------------------------------------------------------------------


def numpyvit(*args):
    return cli.main([str(arg) for arg in args])


@pytest.fixture(scope="module")
def cells(tmp_path_factory):
    """A folder in COCO's form, of images of two shapes."""
    folder = tmp_path_factory.mktemp("cells")
    drawn, images, annotations = shapes(count=10), [], []
    for i in range(10):
        (pixels,), _ = drawn.batch([i])
        (target,) = drawn.targets([i])
        width = 64 + 16 * (i % 2)
        image = Image.new("RGB", (width, 64))
        image.paste(Image.fromarray(pixels.transpose(1, 2, 0)))
        image.save(folder / f"{i}.png")
        images.append({"id": i, "file_name": f"{i}.png", "width": width, "height": 64})
        for label, (x, y, w, h) in zip(target["labels"].tolist(), (target["boxes"] * 64).tolist()):
            box = {"id": len(annotations), "image_id": i, "category_id": label, "bbox": [x - w / 2, y - h / 2, w, h]}
            annotations.append({**box, "area": w * h, "iscrowd": 0})
    categories = [{"id": i, "name": name} for i, name in enumerate(CLASSES)]
    content = {"images": images, "annotations": annotations, "categories": categories}
    (folder / "annotations.json").write_text(json.dumps(content))
    return folder


@pytest.fixture(scope="module")
def trained(cells, tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "run"
    args = ("--data", cells, "--model", "detr_micro_64", "--steps", 3, "--out", out, "--quiet")
    assert numpyvit("train", *args) == 0
    return out


def test_a_folder_with_boxes_trains_a_detector(trained):
    config = json.loads((trained / "config.json").read_text())
    assert config["options"]["img_size"] == 64 and config["task"]["name"] == "Detection"
    assert (
        config["options"]["num_classes"]
        == len(nv.load_checkpoint(trained / "best.safetensors")["class_embed.bias"]) - 1
    )


def test_a_run_on_a_folder_with_boxes_can_be_resumed(trained, cells, capsys):
    assert numpyvit("train", "--resume", "--out", trained, "--steps", 4) == 0
    assert "test AP" in capsys.readouterr().out


def test_evaluate_prints_average_precision(trained, cells, capsys):
    assert numpyvit("evaluate", "--checkpoint", trained, "--json") == 0
    whole = json.loads(capsys.readouterr().out)
    assert 0 <= whole["AP"] <= whole["AP50"] <= 1 and whole["data"] == str(cells)
    assert numpyvit("evaluate", "--checkpoint", trained, "--data", cells, "--per-class") == 0
    assert "AP50" in capsys.readouterr().out


def test_predict_gives_boxes_in_pixels_of_the_file_and_draws_them(trained, cells, tmp_path, capsys, monkeypatch):
    found = {"labels": np.array([1]), "boxes": np.array([[0.5, 0.5, 0.5, 1]])}
    answer = lambda model, x, threads=None: outputs_for([found] * len(x[0]))  # noqa: E731
    monkeypatch.setattr("numpyvit.training.detection.infer", answer)
    monkeypatch.chdir(tmp_path)
    wide, plain = cells / "1.png", cells / "0.png"
    assert numpyvit("predict", wide, plain, "--checkpoint", trained, "--json") == 0
    first, second = map(json.loads, capsys.readouterr().out.splitlines())
    sides = ("left", "top", "right", "bottom")
    assert [first["boxes"][0][side] for side in sides] == [20, 0, 60, 64]
    assert [second["boxes"][0][side] for side in sides] == [16, 0, 48, 64]
    assert first["boxes"][0]["index"] == 1 and not (tmp_path / "predictions").exists()

    assert numpyvit("predict", wide, "--checkpoint", trained) == 0
    assert "20,0 to 60,64" in capsys.readouterr().out
    with Image.open(tmp_path / "predictions" / "1.png") as drawn:
        assert drawn.width > 400

    assert numpyvit("predict", wide, "--checkpoint", trained, "--csv", "--out", tmp_path / "drawn") == 0
    header, row = capsys.readouterr().out.splitlines()
    assert header == "image,rank,class,index,score,left,top,right,bottom" and row.endswith("20,0,60,64")
    assert (tmp_path / "drawn" / "1.png").exists()


def test_images_of_different_sizes_are_found_in_together(trained, cells, capsys):
    assert numpyvit("predict", cells, "--checkpoint", trained, "--json", "--top", 1) == 0
    assert len(capsys.readouterr().out.splitlines()) == 10


def test_the_terms_of_training_and_validation_are_those_of_the_last_layer(rng):
    targets = [{"labels": np.array([1, 0]), "boxes": rng.uniform(0.3, 0.5, (2, 4))}]
    layers = [
        {"pred_logits": rng.standard_normal((1, 3, 4)), "pred_boxes": rng.uniform(0.3, 0.5, (1, 3, 4))}
        for _ in range(2)
    ]
    task = Detection()
    in_training, _, terms = task.loss({**layers[1], "aux_outputs": layers[:1]}, targets)
    in_validation, _, same = task.loss(layers[1], targets)
    assert terms == same and in_training > in_validation
    assert set(terms) < set(sum(task.curves.values(), ()))
