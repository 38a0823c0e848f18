import numpy as np
import pytest

from numpyvit import losses
from numpyvit.errors import ConfigError, InputError, ShapeError
from numpyvit.testing import gradcheck_loss


@pytest.fixture
def logits(rng):
    return rng.standard_normal((5, 4))


LABELS = np.array([0, 3, 1, 1, 2])
SOFT = np.random.default_rng(0).dirichlet(np.ones(4), 5)
WEIGHT = np.array([0.5, 2.0, 1.0, 0.1])


@pytest.mark.parametrize("targets", [LABELS, SOFT], ids=["indices", "soft"])
@pytest.mark.parametrize("smoothing", [0.0, 0.1, 1.0])
@pytest.mark.parametrize("weight", [None, WEIGHT], ids=["unweighted", "weighted"])
def test_cross_entropy_gradient(logits, targets, smoothing, weight):
    gradcheck_loss(losses.cross_entropy, logits, targets, smoothing, weight)


@pytest.mark.parametrize("targets", [LABELS, SOFT], ids=["indices", "soft"])
@pytest.mark.parametrize("smoothing", [0.0, 0.1, 1.0])
@pytest.mark.parametrize("weight", [None, WEIGHT], ids=["unweighted", "weighted"])
def test_cross_entropy_is_the_published_formula(logits, targets, smoothing, weight):
    """Z is the labels' weight for indices and the batch for soft targets."""
    w = np.ones(4) if weight is None else weight
    t = (1 - smoothing) * (np.eye(4)[targets] if targets.ndim == 1 else targets) + smoothing / 4
    z = w[targets].sum() if targets.ndim == 1 else 5
    p = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    loss, gradient = losses.cross_entropy(logits, targets, smoothing, weight)
    assert loss == pytest.approx(-(w * t * np.log(p)).sum() / z, rel=1e-12)
    expected = (p * (w * t).sum(-1, keepdims=True) - w * t) / z
    np.testing.assert_allclose(gradient, expected, rtol=1e-10, atol=1e-14)


def test_cross_entropy_of_equal_logits_is_log_k():
    loss, gradient = losses.cross_entropy(np.zeros((3, 4)), np.array([0, 1, 2]))
    assert loss == pytest.approx(np.log(4))
    assert gradient[0].tolist() == pytest.approx([-0.25, 1 / 12, 1 / 12, 1 / 12])


def test_a_label_and_its_one_hot_row_are_the_same(logits):
    a = losses.cross_entropy(logits, LABELS, 0.1)
    b = losses.cross_entropy(logits, np.eye(4)[LABELS], 0.1)
    assert a[0] == pytest.approx(b[0])
    np.testing.assert_allclose(a[1], b[1])


def test_the_mean_is_over_the_batch(logits):
    loss, gradient = losses.cross_entropy(logits, LABELS)
    twice, gradient_twice = losses.cross_entropy(np.tile(logits, (2, 1)), np.tile(LABELS, 2))
    assert loss == pytest.approx(twice)
    np.testing.assert_allclose(gradient_twice[:5], gradient / 2)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_logits_of_ten_thousand_are_stable(dtype):
    logits = np.array([[1e4, -1e4, 0], [-1e4, 1e4, 0]], dtype)
    for targets in (np.array([0, 0]), np.full((2, 3), 1 / 3)):
        loss, gradient = losses.cross_entropy(logits, targets, 0.1)
        assert np.isfinite(loss) and np.isfinite(gradient).all() and gradient.dtype == dtype
    assert losses.cross_entropy(logits[:1], np.array([0]))[0] == 0
    teacher = -logits
    loss, gradient = losses.soft_distillation((logits, logits), np.array([0, 1]), teacher, tau=2.0)
    assert np.isfinite(loss) and all(np.isfinite(g).all() for g in gradient)


def test_a_pair_of_logits_gives_the_mean_of_both(logits, rng):
    other = rng.standard_normal((5, 4))
    loss, (ga, gb) = losses.cross_entropy((logits, other), LABELS)
    a, b = losses.cross_entropy(logits, LABELS), losses.cross_entropy(other, LABELS)
    assert loss == pytest.approx((a[0] + b[0]) / 2)
    np.testing.assert_allclose(ga, a[1] / 2)
    np.testing.assert_allclose(gb, b[1] / 2)
    gradcheck_loss(losses.cross_entropy, (logits, other), LABELS)


def test_mse_gradient(logits, rng):
    target = rng.standard_normal((5, 4))
    gradcheck_loss(losses.mse, logits, target)
    assert losses.mse(logits, target)[0] == pytest.approx(((logits - target) ** 2).mean())


@pytest.mark.parametrize("alpha", [0.0, 0.3, 1.0])
def test_distillation_gradients(logits, rng, alpha):
    pair, teacher = (logits, rng.standard_normal((5, 4))), rng.standard_normal((5, 4))
    gradcheck_loss(losses.hard_distillation, pair, LABELS, teacher, alpha, 0.1)
    gradcheck_loss(losses.soft_distillation, pair, LABELS, teacher, alpha, 3.0, 0.1)


def test_hard_distillation_learns_the_teachers_largest_class(logits, rng):
    other, teacher = rng.standard_normal((2, 5, 4))
    loss, (gradient, gradient_dist) = losses.hard_distillation((logits, other), LABELS, teacher, 0.3, 0.1)
    own, taught = losses.cross_entropy(logits, LABELS, 0.1), losses.cross_entropy(other, teacher.argmax(1))
    assert loss == pytest.approx(0.7 * own[0] + 0.3 * taught[0])
    np.testing.assert_allclose(gradient, 0.7 * own[1])
    np.testing.assert_allclose(gradient_dist, 0.3 * taught[1])


def test_soft_distillation_learns_the_teachers_shares(logits, rng):
    other, teacher = rng.standard_normal((2, 5, 4))
    p, q = (np.exp(x / 3) / np.exp(x / 3).sum(-1, keepdims=True) for x in (other, teacher))
    loss, (gradient, gradient_dist) = losses.soft_distillation((logits, other), LABELS, teacher, 0.3, 3.0, 0.1)
    own = losses.cross_entropy(logits, LABELS, 0.1)
    assert loss == pytest.approx(0.7 * own[0] + 0.3 * 9 / 20 * (q * np.log(q / p)).sum())
    np.testing.assert_allclose(gradient, 0.7 * own[1])
    np.testing.assert_allclose(gradient_dist, 0.3 * 3 / 20 * (p - q))


def test_soft_distillation_divides_by_the_number_of_elements(logits, rng):
    teacher, tau = rng.standard_normal((5, 4)), 2.0
    p, q = (np.exp(x / tau) / np.exp(x / tau).sum(-1, keepdims=True) for x in (logits, teacher))
    loss, _ = losses.soft_distillation((logits, logits), LABELS, teacher, alpha=1.0, tau=tau)
    assert loss == pytest.approx((q * np.log(q / p)).sum() * tau**2 / 20)


def test_accuracy_counts_rows():
    logits = np.array([[1.0, 0], [0, 1], [1, 0], [1, 0]])
    assert losses.accuracy(logits, np.array([0, 1, 1, 0])) == 0.75


def test_accuracy_of_soft_targets_asks_for_their_largest_class():
    logits = np.array([[0.0, 2, 1], [0, 2, 1], [3, 2, 1], [0, 1, 5]])
    soft = np.array([[0.3, 0.6, 0.1], [0.6, 0.3, 0.1], [0.4, 0.3, 0.3], [0.0, 0.1, 0.9]])
    assert losses.accuracy(logits, soft) == 0.75


def test_accuracy_of_a_pair_of_logits_is_that_of_their_sum():
    heads = np.array([[1.0, 0], [0, 3]]), np.array([[0, 2.0], [0, 3]])
    assert losses.accuracy(heads, np.array([1, 1])) == 1
    assert losses.accuracy(heads, np.array([0, 1])) == 0.5


@pytest.mark.parametrize(
    "logits, targets, error, message",
    [
        (np.zeros((2, 3)), np.array([0, 3]), InputError, r"label 3 lies outside the classes 0\.\.2"),
        (np.zeros((2, 3)), np.array([-1, 0]), InputError, "label -1"),
        (np.zeros((0, 3)), np.zeros(0, int), InputError, "empty batch"),
        (np.zeros((2, 3)), np.array([0, 1, 2]), ShapeError, r"expected class indices of shape \(2,\)"),
        (np.zeros((2, 3)), np.array([0.0, 1.0]), ShapeError, "float64"),
        (np.zeros(3), np.array([0]), ShapeError, r"expected \(batch, classes\)"),
    ],
)
def test_bad_targets_are_explained(logits, targets, error, message):
    with pytest.raises(error, match=message):
        losses.cross_entropy(logits, targets)


def test_other_bad_calls(logits):
    with pytest.raises(ShapeError, match="weight"):
        losses.cross_entropy(logits, LABELS, weight=np.ones(3))
    with pytest.raises(ConfigError, match="label_smoothing"):
        losses.cross_entropy(logits, LABELS, 1.5)
    with pytest.raises(ConfigError, match="distilled=True"):
        losses.hard_distillation(logits, LABELS, logits)
    with pytest.raises(ShapeError, match="equal"):
        losses.mse(logits, logits[:2])


def test_no_loss_changes_an_array_it_was_given(logits, rng):
    arrays = [logits, rng.standard_normal((5, 4)), LABELS.copy(), SOFT.copy(), WEIGHT.copy(), logits[::-1].copy()]
    before = [array.copy() for array in arrays]
    a, b, labels, soft, weight, teacher = arrays
    for targets in (labels, soft):
        losses.cross_entropy(a, targets, 0.1, weight)
        losses.cross_entropy((a, b), targets, 0.1)
        losses.hard_distillation((a, b), targets, teacher)
        losses.soft_distillation((a, b), targets, teacher)
        losses.accuracy(a, targets)
    losses.mse(a, b)
    assert all(map(np.array_equal, arrays, before))


def test_numbers_and_targets_of_other_types_leave_float32_alone():
    logits, labels = np.ones((5, 4), np.float32), np.arange(5) % 4
    for value, gradient in (
        losses.cross_entropy(logits, labels, np.float64(0.1)),
        losses.cross_entropy(logits, labels.tolist(), weight=[1, 2, 3, 4]),
        losses.mse(logits, np.zeros((5, 4))),
    ):
        assert value.dtype == gradient.dtype == np.float32
    _, pair = losses.soft_distillation((logits, logits), labels, np.zeros((5, 4)), tau=np.float64(2))
    assert {gradient.dtype for gradient in pair} == {np.dtype("float32")}


def test_targets_and_shares_that_make_no_sense_are_refused(logits):
    for bad in (np.nan, -0.1):
        soft = SOFT.copy()
        soft[1, 1] = bad
        with pytest.raises(InputError, match="soft targets"):
            losses.cross_entropy(logits, soft)
    with pytest.raises(InputError, match="weights"):
        losses.cross_entropy(logits, LABELS, weight=np.zeros(4))
    with pytest.raises(ConfigError, match="alpha"):
        losses.hard_distillation((logits, logits), LABELS, logits, alpha=5)


def test_losses_run_on_other_array_modules(logits, xp):
    from numpyvit.backend import to_host

    there = xp.asarray(logits)
    for targets in (LABELS, SOFT):
        loss, gradient = losses.cross_entropy(there, xp.asarray(targets), 0.1, WEIGHT)
        expected = losses.cross_entropy(logits, targets, 0.1, WEIGHT)
        np.testing.assert_allclose(to_host(loss), expected[0])
        np.testing.assert_allclose(to_host(gradient), expected[1])
    losses.soft_distillation((there, there), xp.asarray(LABELS), there * 2)
    losses.hard_distillation((there, there), xp.asarray(LABELS), there * 2)
    losses.mse(there, there * 2)
