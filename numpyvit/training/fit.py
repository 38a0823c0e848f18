"""`fit`: train a model on a set."""

from ..errors import ConfigError, Interrupted
from .divergence import explain_non_finite
from .evaluation import check_images, check_number_of_classes, evaluate
from .loop import Trainer
from .run_directory import FREE, open_run
from .settings import check_settings, default_warmup

__all__ = ["Interrupted", "evaluate", "explain_non_finite", "fit"]


def fit(
    model,
    train,
    val,
    *,
    epochs=10,
    steps=None,
    batch_size=128,
    lr=1e-3,
    weight_decay=0.05,
    schedule="constant",
    warmup_steps=None,
    label_smoothing=0.0,
    clip_norm=1.0,
    ema_decay=None,
    freeze=(),
    layer_decay=None,
    augment=(),
    seed=0,
    out=None,
    resume=False,
    save_every=10.0,
    threads=None,
    progress=True,
    config=None,
):
    """Train a model with AdamW on a set (see numpyvit.data) and validate it after each epoch.

    train, val:     sets of numpyvit.data, or pairs of arrays (images, labels), see Dataset.from_arrays.
    epochs, steps:  stop after so many epochs, or updates if that comes first.
    schedule:       of the learning rate after a linear rise over `warmup_steps`: "constant"; or, with an end that a
                    resumed run cannot move, "cosine" to 0 over all updates or "step" (a tenth after 60% of them).
    warmup_steps:   None for 100, or half an epoch where that is less.
    ema_decay:      keep a moving average of the weights, which is what is validated and saved.
    freeze:         patterns of parameters that stay as they are, e.g. "blocks.*"; see Layer.freeze.
    layer_decay:    factor by which each block, from the last to the first, learns slower; see optim.layer_decay.
    augment:        functions (images, rng) -> images on uint8 pictures, as numpyvit.data.random_crop makes.
    out:            run directory for checkpoints, metrics and curves; None writes nothing.
    resume:         go on from the state in `out`, bit for bit, as if it had never stopped.
    save_every:     seconds of training after which the state is saved within an epoch too; longer where saving would
                    take more than a tenth of the time.
    progress:       a bar on stderr where that is a terminal, a line an epoch on stdout.
    config:         further settings to note in config.json; on resume they must be the same.
    Returns the list of records, one dict an epoch. The model ends with the weights that were validated last.
    Errors: NonFiniteError with the step and the first layer whose output is not finite; Interrupted after Ctrl-C or
    SIGTERM; RunError where another process writes into `out`. Before an error goes on the state is saved.
    """
    settings = {
        "epochs": epochs,
        "steps": steps,
        "batch_size": batch_size,
        "lr": lr,
        "weight_decay": weight_decay,
        "schedule": schedule,
        "warmup_steps": warmup_steps,
        "label_smoothing": label_smoothing,
        "clip_norm": clip_norm,
        "ema_decay": ema_decay,
        "seed": seed,
        "freeze": freeze,
        "layer_decay": layer_decay,
    }
    check_settings(settings)
    train = _dataset(train)
    val = _dataset(val, like=train)
    for dataset in (train, val):
        check_images(model, dataset)
        check_number_of_classes(model, dataset)
    if warmup_steps is None:
        settings["warmup_steps"] = default_warmup(100, -(-len(train) // batch_size))
    if freeze:
        model.freeze(*freeze)
    if not any(parameter.trainable for _, parameter in model.named_parameters()):
        raise ConfigError(
            f"every parameter is frozen (freeze={list(freeze)}), so nothing would be trained; freeze less"
        )
    config = config or {}
    notes = {"data": config["data"]} if "data" in config else {}
    trainer = Trainer(model, train, val, settings, augment, notes, threads, progress, save_every)
    if out is None:
        return trainer.run()
    free = FREE if schedule == "constant" else tuple(key for key in FREE if key not in ("epochs", "steps"))
    recipe = getattr(model, "_recipe", {})
    with open_run(out, {**recipe, **settings, **config}, resume, free) as directory:
        return trainer.run(directory)


def _dataset(data, like=None):
    """A set as it is, or made from a pair of arrays; with the classes, mean and std of another set."""
    if not isinstance(data, tuple):
        return data
    if len(data) != 2:
        raise ConfigError(f"data is a set of numpyvit.data or a pair (images, labels), got {len(data)} arrays")
    from ..data import Dataset

    shared = {} if like is None else {"classes": like.classes, "mean": like.mean, "std": like.std}
    return Dataset.from_arrays(*data, **shared)
