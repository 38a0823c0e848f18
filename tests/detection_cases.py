"""Random detections and true boxes for the score: crowds, equal scores and boxes, empty images, stated areas."""

import numpy as np

CLASSES = 4


def random_case(rng, images=6):
    """-> (predictions, targets) of a few images, as score_detections takes them."""
    pairs = [_image(rng) for _ in range(images)]
    return [prediction for prediction, _ in pairs], [target for _, target in pairs]


def _image(rng):
    count, size = rng.integers(0, 8), rng.integers(60, 300, 2)
    sides = rng.uniform(0.02, 0.7, (count, 2))
    centers = rng.uniform(sides / 2, 1 - sides / 2)
    if count and rng.random() < 0.4:  # one box twice
        sides, centers, count = np.append(sides, sides[:1], 0), np.append(centers, centers[:1], 0), count + 1
    target = {
        "labels": rng.integers(0, CLASSES, count),
        "boxes": np.concatenate([centers, sides], axis=1).astype(np.float32),
        "size": tuple(size.tolist()),
        "iscrowd": rng.random(count) < 0.15,
    }
    if rng.random() < 0.3:
        target["area"] = rng.uniform(10, 12_000, count)
    corners = np.concatenate([centers - sides / 2, centers + sides / 2], axis=1) * np.tile(size[::-1], 2)
    return _found(rng, target["labels"], corners), target


def _found(rng, labels, corners):
    """Some of the true boxes, moved by a little or a lot, with labels that are mostly right; or others altogether."""
    count = rng.choice([0, 3, 20, 150])
    found, guessed = rng.uniform(0, 200, (count, 4)), rng.integers(0, CLASSES, count)
    if len(labels) and rng.random() < 0.8:
        chosen = rng.integers(0, len(labels), count)
        found = corners[chosen] + rng.normal(0, 1, (count, 4)) * rng.choice([0, 2, 8, 20], (count, 1))
        guessed = np.where(rng.random(count) < 0.8, labels[chosen], guessed)
    found = np.concatenate([np.minimum(found[:, :2], found[:, 2:]), np.maximum(found[:, :2], found[:, 2:])], axis=1)
    scores = rng.random(count)
    return {"scores": scores.round(1) if rng.random() < 0.5 else scores, "labels": guessed, "boxes": found}
