"""The matching of queries with boxes, and the set loss with its gradient."""

import itertools

import numpy as np
import pytest

import numpyvit as nv
from numpyvit import functional as F
from numpyvit.backend import to_host
from numpyvit.errors import InputError, NonFiniteError, ShapeError

QUERIES, CLASSES = 5, 3


def outputs_of(rng, batch=3, layers=0, queries=QUERIES, dtype="float64"):
    def layer():
        boxes = np.concatenate(
            [rng.uniform(0.3, 0.7, (batch, queries, 2)), rng.uniform(0.1, 0.5, (batch, queries, 2))], -1
        )
        logits = rng.standard_normal((batch, queries, CLASSES + 1))
        return {"pred_logits": logits.astype(dtype), "pred_boxes": boxes.astype(dtype)}

    return layer() | ({"aux_outputs": [layer() for _ in range(layers)]} if layers else {})


def targets_of(rng, *counts):
    boxes = [np.concatenate([rng.uniform(0.3, 0.7, (n, 2)), rng.uniform(0.1, 0.5, (n, 2))], -1) for n in counts]
    return [{"labels": rng.integers(0, CLASSES, n), "boxes": box} for n, box in zip(counts, boxes)]


def cost_of(outputs, targets, i):
    """The matrix of costs of one image, entry by entry."""
    logits, found = outputs["pred_logits"][i], outputs["pred_boxes"][i]
    labels, wanted = targets[i]["labels"], targets[i]["boxes"]
    p = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    corners = F.box_cxcywh_to_xyxy
    return np.array(
        [
            [
                -p[q, labels[j]]
                + 5 * np.abs(found[q] - wanted[j]).sum()
                - 2 * F.generalized_iou(corners(found[q]), corners(wanted[j]))
                for j in range(len(labels))
            ]
            for q in range(len(logits))
        ]
    ).reshape(len(logits), len(labels))


def plain_loss(outputs, targets, pairs):
    """The loss of one layer as the paper has it, pair by pair."""
    ce = weights = bbox = giou = 0.0
    for logits, boxes, target, (queries, indices) in zip(
        outputs["pred_logits"], outputs["pred_boxes"], targets, pairs, strict=True
    ):
        own = dict(zip(np.asarray(queries).tolist(), np.asarray(indices).tolist()))
        for q in range(len(logits)):
            label = target["labels"][own[q]] if q in own else CLASSES
            weight = 1.0 if q in own else 0.1
            ce -= weight * np.log(np.exp(logits[q, label]) / np.exp(logits[q]).sum())
            weights += weight
            if q in own:
                wanted = target["boxes"][own[q]]
                bbox += np.abs(boxes[q] - wanted).sum()
                giou += 1 - F.generalized_iou(F.box_cxcywh_to_xyxy(boxes[q]), F.box_cxcywh_to_xyxy(wanted))
    boxes = max(sum(len(target["labels"]) for target in targets), 1)
    return {"ce": ce / weights, "bbox": bbox / boxes, "giou": giou / boxes}


# ---- matching -------------------------------------------------------------------------------------------------------


def test_the_matching_is_the_cheapest_of_all(rng):
    counts = [2, 3, 1] * 30  # so many that another weight of a cost would choose otherwise somewhere
    outputs, targets = outputs_of(rng, len(counts)), targets_of(rng, *counts)
    for i, (queries, indices) in enumerate(nv.losses.match(outputs, targets)):
        costs, n = cost_of(outputs, targets, i), len(targets[i]["labels"])
        assert sorted(indices) == list(range(n)) and len(set(queries)) == n
        cheapest = min(costs[list(order), range(n)].sum() for order in itertools.permutations(range(QUERIES), n))
        np.testing.assert_allclose(costs[queries, indices].sum(), cheapest, rtol=1e-12)


def test_images_without_boxes_match_nothing(rng):
    pairs = nv.losses.match(outputs_of(rng), targets_of(rng, 0, 2, 0))
    assert [len(queries) for queries, _ in pairs] == [0, 2, 0]
    assert [len(q) for q, _ in nv.losses.match(outputs_of(rng), targets_of(rng, 0, 0, 0))] == [0, 0, 0]


def test_of_more_boxes_than_queries_the_costliest_stay_alone(rng):
    outputs, targets = outputs_of(rng, batch=1), targets_of(rng, 8)
    ((queries, indices),) = nv.losses.match(outputs, targets)
    assert list(queries) == list(range(QUERIES)) and len(set(indices)) == QUERIES


def test_the_costs_of_the_matching_can_be_set(rng):
    outputs, targets = outputs_of(rng, batch=1), targets_of(rng, 1)
    outputs["pred_boxes"][0, 4] = targets[0]["boxes"][0]
    outputs["pred_logits"][0, :, targets[0]["labels"][0]] = [0, 9, 0, 0, -9]
    by_box, by_class = (nv.losses.match(outputs, targets, cost=cost)[0][0] for cost in ((0, 1, 1), (1, 0, 0)))
    assert by_box == [4] and by_class == [1]


# ---- the loss -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("counts", [(2, 3, 1), (0, 2, 0), (0, 0, 0), (8, 1, 0)], ids=str)
def test_the_loss_is_that_of_the_paper(rng, counts):
    outputs, targets = outputs_of(rng, layers=2), targets_of(rng, *counts)
    loss, _, parts = nv.losses.detection(outputs, targets, return_parts=True)
    total = 0
    for suffix, layer in (("", outputs), ("_0", outputs["aux_outputs"][0]), ("_1", outputs["aux_outputs"][1])):
        expected = plain_loss(layer, targets, nv.losses.match(layer, targets))
        for name, value in expected.items():
            np.testing.assert_allclose(parts[name + suffix], value, rtol=1e-12, err_msg=name + suffix)
        total += expected["ce"] + 5 * expected["bbox"] + 2 * expected["giou"]
    assert len(parts) == 9
    np.testing.assert_allclose(loss, total, rtol=1e-12)


def gradcheck_outputs(outputs, targets, **options):
    """The gradient of the loss by logits and boxes of the last layer and the first of aux_outputs."""
    pairs = nv.losses.match(outputs, targets)

    def loss(arrays):
        logits, boxes, logits0, boxes0 = arrays
        out = {"pred_logits": logits, "pred_boxes": boxes}
        out["aux_outputs"] = [{"pred_logits": logits0, "pred_boxes": boxes0}]
        value, dout = nv.losses.detection(out, targets, pairs=pairs, **options)
        (d0,) = dout["aux_outputs"]
        return value, (dout["pred_logits"], dout["pred_boxes"], d0["pred_logits"], d0["pred_boxes"])

    last, first = outputs, outputs["aux_outputs"][0]
    arrays = (last["pred_logits"], last["pred_boxes"], first["pred_logits"], first["pred_boxes"])
    nv.testing.gradcheck_loss(loss, arrays, rtol=1e-7)


@pytest.mark.parametrize("counts", [(2, 3, 1), (0, 2, 0), (0, 0, 0), (8, 1, 0)], ids=str)
def test_the_gradient_agrees_with_differences(rng, counts):
    gradcheck_outputs(outputs_of(rng, layers=1), targets_of(rng, *counts))


def test_the_gradient_agrees_with_differences_for_other_weights(rng):
    outputs, targets = outputs_of(rng, layers=1), targets_of(rng, 2, 3, 1)
    for options in (dict(weights=(2, 0, 3)), dict(weights=(0, 1, 0)), dict(no_object=0.7)):
        gradcheck_outputs(outputs, targets, **options)


def test_given_pairs_are_used_in_every_layer(rng):
    outputs, targets = outputs_of(rng, layers=1), targets_of(rng, 2, 1, 0)
    pairs = [([4, 0], [0, 1]), ([2], [0]), ([], [])]
    _, _, parts = nv.losses.detection(outputs, targets, return_parts=True, pairs=pairs)
    for suffix, layer in (("", outputs), ("_0", outputs["aux_outputs"][0])):
        for name, value in plain_loss(layer, targets, pairs).items():
            np.testing.assert_allclose(parts[name + suffix], value, rtol=1e-12)


def test_the_gradient_has_the_form_and_type_of_the_outputs(rng):
    outputs = outputs_of(rng, layers=2, dtype="float32")
    before = [outputs["pred_logits"].copy(), outputs["pred_boxes"].copy()]
    loss, gradient = nv.losses.detection(outputs, targets_of(rng, 2, 0, 4))
    assert loss.dtype == np.float32 and gradient.keys() == outputs.keys() and len(gradient["aux_outputs"]) == 2
    for found, given in zip([gradient, *gradient["aux_outputs"]], [outputs, *outputs["aux_outputs"]]):
        for name in ("pred_logits", "pred_boxes"):
            assert found[name].shape == given[name].shape and found[name].dtype == np.float32
    assert np.array_equal(before[0], outputs["pred_logits"]) and np.array_equal(before[1], outputs["pred_boxes"])


def test_groups_of_queries_are_matched_by_themselves_and_averaged(rng):
    one, two, targets = outputs_of(rng, layers=1), outputs_of(rng, layers=1), targets_of(rng, 2, 3, 1)
    loss, gradient, parts = nv.losses.detection({**one, "groups": [two]}, targets, return_parts=True)
    alone = [nv.losses.detection(group, targets, return_parts=True) for group in (one, two)]
    np.testing.assert_allclose(loss, (alone[0][0] + alone[1][0]) / 2, rtol=1e-12)
    np.testing.assert_allclose(parts["giou_0"], (alone[0][2]["giou_0"] + alone[1][2]["giou_0"]) / 2, rtol=1e-12)
    for found, (_, expected, _) in zip([gradient, *gradient["groups"]], alone):
        np.testing.assert_allclose(found["pred_boxes"], expected["pred_boxes"] / 2, rtol=1e-12)
        np.testing.assert_allclose(
            found["aux_outputs"][0]["pred_logits"], expected["aux_outputs"][0]["pred_logits"] / 2, rtol=1e-12
        )


def test_denoising_queries_are_compared_with_their_own_box(rng):
    outputs, targets = outputs_of(rng), targets_of(rng, 2, 0, 1)
    denoising = outputs_of(rng, queries=4)
    denoising["targets"] = np.array([[0, 1, 0, 1], [-1, -1, -1, -1], [0, -1, 0, -1]])
    loss, gradient, parts = nv.losses.detection({**outputs, "denoising": denoising}, targets, return_parts=True)
    known = [([0, 1, 2, 3], [0, 1, 0, 1]), ([], []), ([0, 2], [0, 0])]
    expected = plain_loss(denoising, targets, known)
    assert parts["bbox_dn"] == pytest.approx(expected["bbox"] / 2, rel=1e-12)  # over the 6 queries, not the 3 boxes
    assert parts["giou_dn"] == pytest.approx(expected["giou"] / 2, rel=1e-12)
    logits = denoising["pred_logits"]
    labels = [targets[i]["labels"][t] for i, (_, index) in enumerate(known) for t in index]
    rows = np.concatenate([logits[i][queries] for i, (queries, _) in enumerate(known) if queries])
    assert parts["ce_dn"] == pytest.approx(float(nv.losses.cross_entropy(rows, np.array(labels))[0]), rel=1e-12)
    plain = nv.losses.detection(outputs, targets)
    assert float(loss - plain[0]) == pytest.approx(parts["ce_dn"] + 5 * parts["bbox_dn"] + 2 * parts["giou_dn"])
    np.testing.assert_array_equal(gradient["pred_boxes"], plain[1]["pred_boxes"])
    assert (gradient["denoising"]["pred_logits"][1] == 0).all() and (
        gradient["denoising"]["pred_boxes"][2, 1] == 0
    ).all()


def test_boxes_without_area_give_finite_losses_and_gradients(rng):
    outputs, targets = outputs_of(rng), targets_of(rng, 2, 2, 0)
    outputs["pred_boxes"][0, :, 2:] = 0
    targets[0]["boxes"][:, 2:] = 0
    outputs["pred_boxes"][1, 0] = targets[1]["boxes"][0]
    loss, gradient = nv.losses.detection(outputs, targets)
    assert np.isfinite(loss) and np.isfinite(gradient["pred_boxes"]).all()


def test_one_image_and_lists_are_taken(rng):
    targets = [{"labels": [1, 0], "boxes": [[0.5, 0.5, 0.2, 0.2], [0.3, 0.4, 0.1, 0.2]]}]
    assert np.isfinite(nv.losses.detection(outputs_of(rng, batch=1), targets)[0])
    assert np.isfinite(nv.losses.detection(outputs_of(rng, batch=1), [{"labels": [], "boxes": []}])[0])


@pytest.mark.parametrize("name, value", [("pred_logits", np.nan), ("pred_boxes", np.nan), ("pred_boxes", np.inf)])
@pytest.mark.parametrize("pairs", [None, [([0], [0]), ([0], [0]), ([0], [0])]], ids=["matched", "given"])
def test_outputs_that_are_not_finite_are_named(rng, name, value, pairs):
    outputs, targets = outputs_of(rng), targets_of(rng, 1, 1, 1)
    outputs[name][1, 2, 0] = value
    with pytest.raises(NonFiniteError, match=f"{name} of image 1 of the batch"):
        nv.losses.detection(outputs, targets, pairs=pairs)
    with pytest.raises(NonFiniteError, match=f"{name} of image 1 of the batch"):
        nv.losses.match(outputs, targets)


@pytest.mark.parametrize(
    "target, error, message",
    [
        ({"labels": [3], "boxes": [[0.5] * 4]}, InputError, "target 1: labels must be integers in 0..2"),
        ({"labels": [-1], "boxes": [[0.5] * 4]}, InputError, "target 1: labels"),
        ({"labels": [0.5], "boxes": [[0.5] * 4]}, InputError, "target 1: labels"),
        ({"labels": [0, 1], "boxes": [[0.5] * 4]}, ShapeError, "target 1: labels of shape"),
        ({"labels": [0], "boxes": [0.5] * 4}, ShapeError, "target 1: labels of shape"),
        ({"labels": [0], "boxes": [[0.5, np.nan, 0.5, 0.5]]}, InputError, "target 1: its boxes hold NaN"),
    ],
)
def test_targets_that_do_not_fit_are_named(rng, target, error, message):
    first, _, last = targets_of(rng, 1, 1, 1)
    for check in (nv.losses.detection, nv.losses.match):
        with pytest.raises(error, match=message):
            check(outputs_of(rng), [first, target, last])
    with pytest.raises(InputError, match="2 targets for a batch of 3"):
        nv.losses.detection(outputs_of(rng), [first, last])


def test_outputs_that_do_not_fit_each_other_are_named(rng):
    outputs = outputs_of(rng)
    with pytest.raises(ShapeError, match="do not fit each other"):
        nv.losses.match({**outputs, "pred_boxes": outputs["pred_boxes"][:, 1:]}, targets_of(rng, 1, 1, 1))


def test_other_array_modules_agree(rng, xp):
    outputs, targets = outputs_of(rng, layers=1), targets_of(rng, 2, 0, 3)
    loss, gradient = nv.losses.detection(outputs, targets)

    def there(layer):
        return {name: xp.asarray(layer[name]) for name in ("pred_logits", "pred_boxes")}

    moved = there(outputs) | {"aux_outputs": [there(outputs["aux_outputs"][0])]}
    loss_there, gradient_there = nv.losses.detection(moved, targets)
    np.testing.assert_allclose(to_host(loss_there), loss, rtol=1e-12)
    np.testing.assert_allclose(to_host(gradient_there["pred_boxes"]), gradient["pred_boxes"], rtol=1e-12, atol=1e-15)
    np.testing.assert_allclose(to_host(gradient_there["pred_logits"]), gradient["pred_logits"], rtol=1e-12, atol=1e-15)
