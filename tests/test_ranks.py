"""The weights do not depend on how many ranks trained them. Ranks are threads here; test_mpirun.py has processes."""

import math
import threading
from functools import partial

import numpy as np
import pytest
from conftest import tiny
from rank_families import FAMILIES, SEVERAL, images_and_labels, trained, trained_family, vit

import numpyvit as nv
from numpyvit import data, optim
from numpyvit.backend import check_alike
from numpyvit.backend.messages import pack, unpack
from numpyvit.errors import ConfigError, DataError, DtypeError, NonFiniteError
from numpyvit.testing import stand_in
from numpyvit.testing.ranks import run_ranks
from numpyvit.training import Classification, Distillation
from numpyvit.training.environment import arithmetic
from numpyvit.training.launch import checked
from numpyvit.training.run_directory import TIMINGS
from numpyvit.training.tree import own_pairs, own_roots, pairs, share, sum_over_ranks

# ---- the tree -------------------------------------------------------------------------------------------------------


def test_neighbours_are_added_first():
    assert [pair[:2] for pair in pairs(8)] == [(0, 1), (2, 3), (4, 5), (6, 7), (0, 2), (4, 6), (0, 4)]
    assert [pair[:2] for pair in pairs(5)] == [(0, 1), (2, 3), (0, 2), (0, 4)]
    assert list(pairs(1)) == []


@pytest.mark.parametrize("count", [1, 2, 5, 7, 8, 13])
@pytest.mark.parametrize("size", [1, 2, 3, 4, 8, 9])
def test_a_sum_over_ranks_is_that_of_one_rank(count, size):
    numbers = np.random.default_rng(count).standard_normal((count, 23)).astype(np.float32)
    expected = numbers.copy()
    for left, right, _ in pairs(count):
        expected[left] += expected[right]

    def of_rank(group):
        own, sums = share(count, group), numbers.copy()
        for left, right in own_pairs(count, own):
            sums[left] += sums[right]
        total = np.full(23, np.nan, np.float32)
        sum_over_ranks(group, count, {root: sums[root] for root in own_roots(count, own)}, total)
        return total

    assert all(np.array_equal(total, expected[0]) for total in run_ranks(size, of_rank))


@pytest.mark.parametrize("size", [2, 4, 8])
def test_a_rank_sends_the_least_that_a_sum_on_all_ranks_takes(size):
    def of_rank(group):
        total = np.ones(800, np.float32)
        own = share(8, group)
        sum_over_ranks(group, 8, {own.start: total}, total)
        return group.bytes_sent

    assert run_ranks(size, of_rank) == [2 * (size - 1) * 800 * 4 // size] * size


# ---- steps ----------------------------------------------------------------------------------------------------------


def assert_equal(found, expected):
    assert found.keys() == expected.keys()
    for name, array in expected.items():
        assert np.array_equal(found[name], array), name


@pytest.mark.parametrize("size, threads", [(1, 3), (2, 1), (3, 1), (4, 3), (8, 1)])
@pytest.mark.parametrize("family", FAMILIES)
def test_weights_do_not_depend_on_ranks_and_threads(family, size, threads):
    """Some batches are so short that some ranks have nothing to do."""
    expected = trained_family(family, 10)
    for found in run_ranks(size, lambda group: trained_family(family, 10, group=group, threads=threads)):
        assert_equal(found, expected)


@pytest.mark.slow
@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("size", [1, 2, 4, 8])
@pytest.mark.parametrize("family", FAMILIES)
def test_weights_do_not_depend_on_ranks_threads_and_parts_over_fifty_steps(family, size, threads):
    expected = trained_family(family, 50)
    assert expected["losses"].shape == (50,)
    for accumulate in (1, 3):
        options = dict(threads=threads, accumulate=accumulate)
        found = run_ranks(size, lambda group, options=options: trained_family(family, 50, group=group, **options))
        for of_rank in found:
            assert_equal(of_rank, expected)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_batch_of_each_family_has_eight_shards(family):
    """Else many ranks would have nothing to do in the tests above."""
    model = FAMILIES[family].make()
    parts, own = nv.TrainStep(model, optim.AdamW(model), sharding=SEVERAL).divide(32, 32 * math.prod(model.input_shape))
    assert len(parts) == len(own) == 8


@pytest.mark.parametrize("clip_norm", [None, 0.05])
@pytest.mark.parametrize("size, accumulate", [(1, 2), (1, 3), (1, 100), (2, 3), (4, 2)])
def test_weights_do_not_depend_on_accumulation(size, accumulate, clip_norm, rng):
    batches = [images_and_labels(vit(), count, rng) for count in (32, 32, 17)]
    expected = trained(vit(), batches, clip_norm=clip_norm)
    work = lambda group: trained(vit(), batches, group, clip_norm=clip_norm, accumulate=accumulate)  # noqa: E731
    for found in run_ranks(size, work):
        assert_equal(found, expected)


def test_accumulation_keeps_one_part_in_memory(rng):
    """The residuals of other shards are gone when the last ones are made."""
    model, kept = vit(), []

    def loss(logits, labels):
        kept.append([tape.pending for tape in step._tapes])
        return nv.losses.cross_entropy(logits, labels)

    step = nv.TrainStep(model, optim.AdamW(model), loss, 1, sharding=SEVERAL, accumulate=4)
    step(*images_and_labels(model, 32, rng))
    assert [bool(pending) for pending in kept[0]] == [False] * 6 + [True] * 2


@pytest.fixture(scope="module")
def digits():
    train, test = data.load("digits")
    return train.take(slice(0, 300)), train.take(slice(300, 420)), test.take(slice(0, 50))


def fitted(model, sets, out=None, group=None, **options):
    """What a run of two epochs leaves: the weights, and the records without timings."""
    train, val, test = sets
    settings = dict(epochs=2, batch_size=64, warmup_steps=2, ema_decay=0.9, threads=1, progress=False)
    records = nv.fit(model, train, val, test=test, out=out, group=group, **{**settings, **options})
    return model.state_dict(), [{k: v for k, v in record.items() if k not in TIMINGS} for record in records]


def assert_runs_equal(found, expected):
    assert_equal(found[0], expected[0])
    assert found[1] == expected[1]


def classifier(distilled=False):
    return tiny(img_size=8, patch_size=2, num_classes=10, drop_rate=0.1, distilled=distilled)


@pytest.mark.usefixtures("little_work_is_shared")
@pytest.mark.parametrize("size", [2, 3])
def test_a_run_on_ranks_is_that_of_one_process(digits, tmp_path, size):
    """Each rank augments its own shards; files are those of one process too."""
    options = dict(augment={"affine": {"degrees": 10}, "crop": 1})
    expected = fitted(classifier(), digits, tmp_path / "one", **options)
    work = lambda group: fitted(classifier(), digits, tmp_path / "ranks", group, accumulate=2, **options)  # noqa: E731
    for found in run_ranks(size, work):
        assert_runs_equal(found, expected)
    for name in ("last.safetensors", "best.safetensors", "state.safetensors", "predictions.safetensors", "result.json"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "ranks" / name).read_bytes(), name
    assert not list((tmp_path / "ranks").glob(".*"))


@pytest.mark.usefixtures("little_work_is_shared")
def test_a_run_goes_on_with_another_number_of_ranks(digits, tmp_path):
    expected = fitted(classifier(), digits)
    run_ranks(4, lambda group: fitted(classifier(), digits, tmp_path, group, steps=3))
    run_ranks(2, lambda group: fitted(classifier(), digits, tmp_path, group, steps=7, resume=True))
    assert_runs_equal(fitted(classifier(), digits, tmp_path, resume=True), expected)


@pytest.mark.usefixtures("little_work_is_shared")
def test_a_student_learns_alike_on_ranks(digits):
    """The teacher is asked for each shard by itself."""
    work = lambda group=None: fitted(  # noqa: E731
        classifier(distilled=True), digits, group=group, task=Distillation(classifier(), "soft")
    )
    expected = work()
    for found in run_ranks(2, work):
        assert_runs_equal(found, expected)


@pytest.mark.usefixtures("little_work_is_shared")
def test_a_detector_is_fitted_alike_on_ranks():
    """Its shards are padded by themselves, and have as many denoising queries as the image of most boxes asks for."""

    def fewer(inputs, targets, rng):
        kept = rng.integers(0, 4)
        return inputs, [{**one, "labels": one["labels"][:kept], "boxes": one["boxes"][:kept]} for one in targets]

    def smaller(inputs, targets, rng):
        (images, mask), size = inputs, rng.integers(40, 64)
        return (images[:, :, :size], mask[:, :size]), targets

    sets = [data.load_detection("shapes")[part].take(slice(0, count)) for part, count in (("train", 16), ("val", 8))]

    def work(group=None):
        model = nv.create_model("detr_micro_64", num_classes=len(sets[0].classes))
        options = dict(epochs=1, batch_size=8, warmup_steps=0)
        return fitted(model, [*sets, None], group=group, **options, augment=[fewer, smaller])

    expected = work()
    for found in run_ranks(2, work):
        assert_runs_equal(found, expected)


def test_a_task_that_cannot_divide_its_evaluation_does_all_of_it_on_every_rank(digits):
    class Undivided(Classification):
        shares_evaluation = False

        def evaluate(self, model, dataset, *, threads=None, batch_size=256):
            return super().evaluate(model, dataset, threads=threads, batch_size=batch_size)

    model = classifier()
    for options in (dict(batch_size=64), dict(batch_size=64, task=Undivided())):
        evaluate = partial(nv.evaluate, model, digits[0], **options)
        expected = evaluate()
        for found in run_ranks(3, lambda group, evaluate=evaluate: evaluate(group=group)):
            for name in ("loss", "accuracy", "top5_accuracy", "images"):
                assert found[name] == expected[name]


@pytest.mark.parametrize("size", [2, 5])
def test_what_is_said_of_each_image_is_in_the_order_of_the_set(digits, size):
    """Of four batches, so that the last of five ranks has none."""
    boxes = data.load_detection("shapes")["val"].take(slice(0, 7))
    for model, dataset, batch_size in (
        (classifier(), digits[2], 13),
        (nv.create_model("detr_micro_64", num_classes=len(boxes.classes)), boxes, 2),
    ):
        evaluate = partial(nv.evaluate, model, dataset, batch_size=batch_size, per_image=True)
        expected = evaluate()["per_image"]
        for found in run_ranks(size, lambda group, evaluate=evaluate: evaluate(group=group)):
            assert_equal(found["per_image"], expected)


def test_a_function_of_each_epoch_is_called_on_every_rank(digits):
    def work(group):
        seen = []
        fitted(classifier(), digits, group=group, on_epoch=lambda records: seen.append(len(records)))
        return seen

    assert run_ranks(2, work) == [[1, 2], [1, 2]]


def test_an_error_of_one_rank_ends_the_others(digits):
    class Failing(Classification):
        def loss(self, outputs, targets):
            if threading.current_thread() is unlucky[0]:
                raise DataError("the disk is gone")
            return super().loss(outputs, targets)

    unlucky = [None]

    def work(group):
        if group.rank == 1:
            unlucky[0] = threading.current_thread()
        return fitted(classifier(), digits, group=group, task=Failing())

    with pytest.raises(DataError, match="the disk is gone"):
        run_ranks(2, work)


def test_an_error_of_all_ranks_is_saved_by_the_first(digits, tmp_path):
    class Diverging(Classification):
        def score(self, outputs, targets):
            raise NonFiniteError("all of us")

    with pytest.raises(NonFiniteError) as caught:
        run_ranks(2, lambda group: fitted(classifier(), digits, tmp_path, group, task=Diverging()))
    assert "before" in caught.value.__notes__[0]


def test_ranks_on_devices_divide_a_batch_too(rng):
    """On a device by itself a batch stays whole; a group of one divides it as several do."""
    batches = [tuple(map(stand_in.asarray, images_and_labels(vit(), 16, rng))) for _ in range(3)]
    work = lambda group: trained(tiny().to(stand_in), batches, group)  # noqa: E731
    (expected,) = run_ranks(1, work)
    for found in run_ranks(2, work):
        assert_equal(found, expected)


def test_ranks_that_begin_with_different_weights_are_told(rng):
    batches = [images_and_labels(vit(), 8, rng)]
    with pytest.raises(ConfigError, match="the weights of rank 1 differ from those of rank 0; make the model with"):
        run_ranks(2, lambda group: trained(tiny(seed=group.rank), batches, group))


def test_ranks_that_compute_with_other_kernels_are_told():
    def work(group):
        with nv.kernels("plain" if group.rank in (1, 2) else "numpy"):
            return checked(group)

    with pytest.raises(ConfigError, match="kernels is 'numpy' on ranks 0 and 3, 'plain' on ranks 1 and 2; ranks that"):
        run_ranks(4, work)
    assert [group.rank for group in run_ranks(3, checked)] == [0, 1, 2]


def test_what_differs_is_said_with_the_ranks_that_have_it():
    def work(group):
        versions = {"numpy": "2.4.1", "cupy": "14"} if group.rank == 2 else {"numpy": "2.4.1"}
        check_alike(group, versions, "install the same")

    message = "^cupy is missing on ranks 0, 1, 3 and 4 more, '14' on rank 2; install the same$"
    with pytest.raises(ConfigError, match=message):
        run_ranks(8, work)


def test_versions_blas_and_kernels_are_compared():
    found = arithmetic()
    assert {"numpyvit", "numpy", "BLAS", "kernels"} <= found.keys() and found["kernels"] == "numpy"
    assert found["numpy"] == np.__version__ and found["numpyvit"] == nv.__version__


def test_ranks_that_were_not_given_the_same_are_told(digits):
    train, val, _ = digits
    with pytest.raises(ConfigError, match="the number of training images is 300 on rank 0, 250 on rank 1; call fit"):
        run_ranks(
            2, lambda group: fitted(classifier(), (train.take(slice(0, 300 - 50 * group.rank)), val, None), group=group)
        )
    with pytest.raises(ConfigError, match=r"^lr is 0.1 on rank 0, 0.2 on rank 1; call fit alike on all ranks$"):
        run_ranks(2, lambda group: fitted(classifier(), digits, group=group, lr=(1 + group.rank) / 10))


@pytest.mark.parametrize("accumulate", [0, 1.5, "2"])
def test_accumulate_is_a_count(accumulate):
    model = vit()
    with pytest.raises(ConfigError, match="accumulate must be an int of at least 1, got"):
        nv.TrainStep(model, optim.AdamW(model), accumulate=accumulate)


# ---- what ranks tell each other -------------------------------------------------------------------------------------


def test_messages_arrive_as_they_were_sent():
    value = {"a": [1, 2.5, None, True, "ä"], "b": (np.float32(3), {"c": np.arange(6.0).reshape(2, 3)[:, ::2]})}
    found = unpack(pack(value))
    assert found["a"] == value["a"] and isinstance(found["b"], tuple)
    assert found["b"][0] == 3 and type(found["b"][0]) is np.float32
    assert np.array_equal(found["b"][1]["c"], value["b"][1]["c"]) and found["b"][1]["c"].flags.writeable
    for empty in (np.empty((0, 4), np.float32), [], {}, ()):
        assert np.array_equal(unpack(pack(empty)), empty)
    for strange in (object(), {1: 2}, np.array([object()]), lambda: 0):
        with pytest.raises(DtypeError, match="ranks exchange tuples, lists and dicts of arrays"):
            pack(strange)
