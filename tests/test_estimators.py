"""The estimators behave as scikit-learn's do."""

import io
import os
import pathlib
import pickle
import re
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

import numpyvit as nv
from numpyvit.errors import ConfigError, NumpyvitError, ShapeError

pytest.importorskip("sklearn")
joblib = pytest.importorskip("joblib")

from sklearn.base import clone  # noqa: E402
from sklearn.calibration import CalibratedClassifierCV  # noqa: E402
from sklearn.linear_model import LogisticRegression  # noqa: E402
from sklearn.model_selection import GridSearchCV, cross_val_score  # noqa: E402
from sklearn.pipeline import make_pipeline  # noqa: E402
from sklearn.preprocessing import StandardScaler  # noqa: E402
from sklearn.utils.estimator_checks import parametrize_with_checks  # noqa: E402


def quick(**options):
    return nv.ViTClassifier(**{"epochs": 8, "random_state": 0, "threads": 1, **options})


@pytest.fixture
def X(rng):
    """Images (40, 6, 6), bright in the left or in the right half."""
    X = rng.random((40, 6, 6))
    X[:20, :, :3] += 1
    X[20:, :, 3:] += 1
    return X


@pytest.fixture
def y():
    return np.repeat(["left", "right"], 20)


@parametrize_with_checks([nv.ViTClassifier(threads=1)])
@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning")
def test_every_check_of_scikit_learn(estimator, check):
    if getattr(check, "func", check).__name__ == "check_array_api_input":
        check_array_api_input()
    else:
        check(estimator)


def check_array_api_input():
    """The one check that must be asked for before scipy is imported."""
    program = (
        "import numpyvit as nv; from sklearn.utils.estimator_checks import check_array_api_input as check;"
        "check('', nv.ViTClassifier(threads=1), array_namespace='numpy', expect_only_array_outputs=False)"
    )
    environment = {**os.environ, "SCIPY_ARRAY_API": "1", "PYTHONPATH": ":".join(sys.path)}
    subprocess.run([sys.executable, "-c", program], env=environment, check=True)


# ---- layouts --------------------------------------------------------------------------------------------------------


def test_layouts_of_the_same_images_give_the_same_probabilities(X, y):
    expected = quick().fit(X, y).predict_proba(X)
    gray = [X[:, None], X[..., None], X.reshape(40, 36)]
    for images in gray:
        model = quick().fit(images, y)
        assert all(np.array_equal(model.predict_proba(other), expected) for other in (X, *gray))
    model = quick(image_shape=(6, 6)).fit(X.reshape(40, 36), y)
    assert np.array_equal(model.predict_proba(X), expected) and model.image_shape_ == (6, 6)


def test_channels_last_is_channels_first_and_rows_of_either_say_which(rng, y):
    last = rng.random((40, 6, 4, 3)).astype(np.float32)
    first = last.transpose(0, 3, 1, 2)
    expected = quick().fit(first, y).predict_proba(first)
    assert np.allclose(quick(image_shape=(3, 6, 4)).fit(first.reshape(40, 72), y).predict_proba(first), expected)
    for images in (last, last.reshape(40, 72)):
        model = quick(image_shape=(6, 4, 3)).fit(images, y)
        assert model.model_.input_shape[0] == 3 and model.predict(last).shape == (40,)


@pytest.mark.parametrize("dtype", [np.uint8, np.int32, np.float32, np.float64, bool])
def test_images_of_any_type_and_range_are_learned(X, y, dtype):
    images = X > 1 if dtype is bool else (X * 100).astype(dtype)
    assert quick(epochs=15).fit(images, y).score(images, y) == 1
    if np.dtype(dtype).kind == "f":
        far = images.astype(np.float64) * 1e150 - 1e152
        assert quick(epochs=15).fit(far, y).score(far, y) == 1


def test_images_of_other_libraries_and_tables_are_taken(X, y):
    expected = quick().fit(X.reshape(40, 36), y).predict_proba(X)
    pictures = [Image.fromarray(image) for image in (X * 100).astype(np.uint8)]
    assert quick().fit(pictures, y.tolist()).predict(pictures).shape == (40,)
    pandas = pytest.importorskip("pandas")
    table = pandas.DataFrame(X.reshape(40, 36), columns=[f"pixel {i}" for i in range(36)])
    model = quick().fit(table, pandas.Series(y))
    assert np.array_equal(model.predict_proba(table), expected) and model.feature_names_in_[1] == "pixel 1"


@pytest.mark.parametrize(
    "change, error, message",
    [
        ({"image_shape": (5, 6)}, ConfigError, r"shape \(6, 6\), image_shape=\(5, 6\) has 30 features"),
        ({"image_shape": (36,)}, NumpyvitError, "shape"),
        ({"patch_size": 0}, ConfigError, "patch_size"),
        ({"epochs": 0}, ConfigError, "epochs must be an int of at least 1"),
        ({"lr": -1}, ConfigError, "lr must be"),
        ({"augment": {"twist": 1}}, ConfigError, "unknown augmentation 'twist'"),
        ({"augment": "strong"}, ConfigError, "augment must be"),
        ({"embed_dim": 2.5}, ConfigError, "embed_dim must be an int"),
        ({"patience": 0, "early_stopping": True}, ConfigError, "patience must be an int of at least 1"),
    ],
)
def test_what_cannot_be_used_is_named(X, y, change, error, message):
    with pytest.raises(error, match=message):
        quick(**change).fit(X, y)


def test_images_of_another_shape_than_those_fitted_are_refused(X, y):
    model = quick(epochs=1).fit(X, y)
    with pytest.raises(ShapeError, match=r"shape \(4, 9\), the fitted ones \(6, 6\)"):
        model.predict(X.reshape(40, 4, 9))


# ---- training -------------------------------------------------------------------------------------------------------


def test_a_seed_makes_it_repeatable_on_any_number_of_threads(X, y):
    first = quick().fit(X, y).predict_proba(X)
    assert np.array_equal(quick(threads=2).fit(X, y).predict_proba(X), first)
    assert not np.array_equal(quick(random_state=1).fit(X, y).predict_proba(X), first)


def test_a_weight_of_two_is_the_image_twice_and_the_order_does_not_matter(X, y, rng):
    weights = rng.integers(0, 3, 40)
    weighted = quick().fit(X, y, sample_weight=weights).predict_proba(X)
    order = rng.permutation(np.repeat(np.arange(40), weights))
    assert np.array_equal(quick().fit(X[order], y[order]).predict_proba(X), weighted)


def test_weights_decide_between_contradicting_labels(X, y):
    twice, labels = np.concatenate([X, X]), np.concatenate([y, y[::-1]])
    model = quick(epochs=15).fit(twice, labels, sample_weight=np.repeat([1.0, 0.02], 40))
    assert model.score(X, y) == 1 and model.score(X, y[::-1], sample_weight=np.ones(40)) == 0


def test_it_is_quiet_unless_told_otherwise(X, y, capfd):
    quick().fit(X, y)
    assert capfd.readouterr() == ("", "")
    quick(verbose=True, epochs=2).fit(X, y)
    assert capfd.readouterr().out.count("epoch ") == 2


def test_early_stopping_ends_after_epochs_without_a_better_one(X, y, rng):
    noise = rng.permutation(y)
    model = quick(early_stopping=True, patience=3, epochs=60, validation_fraction=0.3).fit(X, noise)
    reached = [figures(record) for record in model.history_]
    assert model.n_iter_ == len(reached) < 60 and reached.index(max(reached)) == len(reached) - 1 - 3
    whole = quick(early_stopping=True, patience=60, epochs=4).fit(X, y)
    assert whole.n_iter_ == 4


def test_the_weights_after_early_stopping_are_those_of_the_best_epoch(X, y, rng):
    """So they are the same after a run that just has the patience to reach it and after one to the end."""
    noise = rng.permutation(y)
    whole = quick(early_stopping=True, patience=30, epochs=30).fit(X, noise)
    reached = [figures(record) for record in whole.history_]
    rises = [i for i in range(30) if i == 0 or reached[i] > max(reached[:i])]
    patience = int(max(np.diff(rises), default=1))
    stopped = quick(early_stopping=True, patience=patience, epochs=30).fit(X, noise)
    assert stopped.n_iter_ == rises[-1] + 1 + patience < whole.n_iter_ == 30
    assert np.array_equal(stopped.predict_proba(X), whole.predict_proba(X))


def figures(record):
    return record["val_accuracy"], -record["val_loss"]


def test_warm_start_goes_on_from_the_last_fit(X, y):
    model = quick(warm_start=True, epochs=6).fit(X, y)
    first = model.history_[-1]["train_loss"]
    assert model.fit(X, y).history_[0]["train_loss"] < 2 * first
    assert quick(epochs=6).fit(X, y).fit(X, y).history_[-1]["train_loss"] == first
    with pytest.raises(ConfigError, match="warm_start goes on with the classes"):
        model.fit(X, np.repeat(["left", "up"], 20))


def test_partial_fit_learns_in_parts_with_one_optimizer(X, y):
    model = quick()
    for _ in range(12):
        for part in (slice(0, None, 2), slice(1, None, 2)):
            model.partial_fit(X[part], y[part], classes=["left", "right", "up"])
    assert model.score(X, y) == 1 and model.predict_proba(X).shape == (40, 3)
    assert model.n_iter_ == 24 and model._step.optimizer.steps == 24
    with pytest.raises(ConfigError, match="down"):
        model.partial_fit(X, np.repeat(["left", "down"], 20))


def test_weights_of_a_part_count_against_those_of_others(X, y):
    def fitted(weight):
        return quick().partial_fit(X, y, ["left", "right"]).partial_fit(X, y[::-1], sample_weight=np.full(40, weight))

    assert not np.array_equal(fitted(1.0).predict_proba(X), fitted(0.01).predict_proba(X))


def test_weights_of_one_fit_count_against_each_other_only(X, y):
    probabilities = quick().fit(X, y).predict_proba(X)
    assert np.array_equal(quick().fit(X, y, sample_weight=np.full(40, 8.0)).predict_proba(X), probabilities)


def test_the_model_inside_notes_how_images_are_prepared(rng, y):
    images = rng.integers(0, 256, (40, 8, 8, 3), np.uint8)
    model = quick(epochs=1).fit(images, y)
    first = images.transpose(0, 3, 1, 2)
    assert np.allclose(model.model_.preprocessing.normalize(first), model.scaling_(first), atol=1e-5)
    assert model.model_.pretrained_cfg["classes"] == ["left", "right"]


def test_the_first_partial_fit_needs_all_classes(X, y):
    with pytest.raises(ConfigError, match="needs classes"):
        quick().partial_fit(X, y)


def test_partial_fit_goes_on_after_fit_and_after_a_pickle(X, y):
    model = quick(epochs=2).fit(X, y).partial_fit(X, y)
    copy = pickle.loads(pickle.dumps(model))
    assert np.array_equal(copy.partial_fit(X, y).predict_proba(X), model.partial_fit(X, y).predict_proba(X))


# ---- among scikit-learn's -------------------------------------------------------------------------------------------


def test_pickle_and_joblib_keep_the_predictions(X, y):
    model, file = quick().fit(X, y), io.BytesIO()
    joblib.dump(model, file)
    file.seek(0)
    for copy in (pickle.loads(pickle.dumps(model)), joblib.load(file)):
        assert np.array_equal(copy.predict_proba(X), model.predict_proba(X))


def test_parameters_are_read_set_and_cloned():
    model = quick(depth=3)
    assert model.get_params()["depth"] == 3 and clone(model).set_params(depth=1).depth == 1
    assert "depth=3" in repr(model)


def test_pipeline_cross_validation_and_calibration(X, y):
    rows = X.reshape(40, 36)
    assert make_pipeline(StandardScaler(), quick(epochs=15)).fit(rows, y).score(rows, y) == 1
    assert cross_val_score(quick(epochs=15), X.reshape(40, 36), y, cv=2).min() > 0.8
    calibrated = CalibratedClassifierCV(quick(epochs=15), cv=2).fit(rows, y)
    assert calibrated.score(rows, y) > 0.9 and np.allclose(calibrated.predict_proba(rows).sum(1), 1)


def test_grid_search_in_two_processes(X, y):
    search = GridSearchCV(quick(), {"depth": [1, 2]}, cv=2, n_jobs=2).fit(X.reshape(40, 36), y)
    assert search.best_params_["depth"] in (1, 2) and np.isfinite(search.cv_results_["mean_test_score"]).all()


# ---- features -------------------------------------------------------------------------------------------------------


@pytest.fixture
def published(tmp_path):
    """A file of weights for images of 32×32 in color."""
    model = nv.create_model("vit_micro_patch4_32", seed=1)
    np.savez(tmp_path / "weights.npz", **model.state_dict())
    return tmp_path / "weights.npz"


def test_features_of_published_weights_feed_a_logistic_regression(X, y, published):
    features = nv.ViTFeatures("vit_micro_patch4_32", published)
    pixels = (X * 100).astype(np.uint8)
    model = make_pipeline(features, LogisticRegression(max_iter=1000)).fit(pixels, y)
    assert model.score(pixels, y) > 0.9
    assert len(model[:-1].get_feature_names_out()) == 96


def test_features_are_those_of_the_model_without_its_head(rng, published):
    pixels = rng.integers(0, 256, (5, 32, 32, 3), np.uint8)
    found = nv.ViTFeatures("vit_micro_patch4_32", published, batch_size=2).fit_transform(pixels)
    model = nv.create_model("vit_micro_patch4_32", pretrained=published, num_classes=0)
    expected = model(model.preprocessing.normalize(pixels.transpose(0, 3, 1, 2)))
    assert np.allclose(found, expected, atol=1e-5)
    as_floats = nv.ViTFeatures("vit_micro_patch4_32", published).fit_transform(pixels / 255)
    assert np.allclose(as_floats, expected, atol=1e-5)


def test_features_name_images_that_cannot_be_used(X, published):
    features = nv.ViTFeatures("vit_micro_patch4_32", published).fit(X / 2)
    with pytest.raises(NumpyvitError, match="expected 0 to 1"):
        features.transform(X * 5)
    with pytest.raises(ShapeError, match=r"\(35,\), the fitted ones \(6, 6\)"):
        features.transform(np.zeros((2, 35)))


def test_without_scikit_learn_the_package_says_what_to_install():
    program = (
        "import sys, importlib.util as u; find = u.find_spec;"
        "u.find_spec = lambda name, *rest: None if name == 'sklearn' else find(name, *rest)\n"
        "import numpyvit as nv\n"
        "try: nv.ViTClassifier\nexcept nv.errors.ConfigError as error: print(error)"
    )
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert "pip install 'numpyvit[sklearn]'" in result.stdout


def test_the_page_about_it_runs_as_printed(X, y, published):
    page = (pathlib.Path(__file__).parent.parent / "docs" / "sklearn.md").read_text()
    first, second = re.findall(r"^```python\n(.*?)^```$", page, re.M | re.S)
    known = {"images": (X * 100).astype(np.uint8), "labels": y}
    exec(first.replace("epochs=3", "epochs=1"), known)
    preset, file = '"vit_tiny_patch16_224"', '"vit_tiny_patch16_224.npz"'
    assert preset in second and file in second
    exec(second.replace(file, repr(str(published))).replace(preset, '"vit_micro_patch4_32"'), known)
    assert known["model"].score(known["images"], y) > 0.9
