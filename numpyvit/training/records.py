"""What is measured of an epoch: sums over its images, its seconds, the line that tells of it."""


class Sums:
    """Loss and a task's scores summed over the images of an epoch, on the device."""

    def __init__(self, loss=0.0, scores=None, count=0):
        self.loss, self.scores, self.count = loss, scores or {}, count

    def add(self, loss, scores, count):
        self.loss = self.loss + loss.astype("float64") * count
        self.scores = {name: self.scores.get(name, 0.0) + value for name, value in scores.items()}
        self.count += count

    def values(self):
        return [float(self.loss), {name: float(value) for name, value in self.scores.items()}, self.count]

    def means(self, task):
        return {"loss": float(self.loss) / self.count, **task.summary(self.scores, self.count)}


class Clock:
    """The seconds that the steps of an epoch took, and that they waited for batches."""

    def __init__(self, images=0, seconds=0.0, waited=0.0):
        self.images, self.seconds, self.waited = images, seconds, waited

    def add(self, images, seconds):
        self.images += images
        self.seconds += seconds

    def values(self):
        return [self.images, self.seconds, self.waited]

    @property
    def images_per_second(self):
        return self.images / self.seconds if self.seconds else 0.0


def best_record(records):
    """The record of the epoch that best.safetensors is from: the first of those with the highest accuracy.

    Without a validation set it is the last.
    """
    if "val_accuracy" not in records[-1]:
        return records[-1]
    return max(records, key=lambda record: record["val_accuracy"])


def describe(record):
    """One line about an epoch."""
    parts = []
    for part in ("train", "val"):
        own = {key.removeprefix(f"{part}_"): value for key, value in record.items() if key.startswith(f"{part}_")}
        if own:
            parts.append(f"{part} {figures(own)}")
    parts.append(f"{record['images_per_second']:.0f} img/s, waited {record['loader_seconds']:.1f} s for data")
    return f"epoch {record['epoch']:3d}  {'   '.join(parts)}"


def figures(values):
    """{"loss": 0.5, "accuracy": 0.9} -> "loss 0.5000  accuracy 90.00%": all but losses are shares."""
    return "  ".join(
        f"{name} {value:.4f}" if name.endswith("loss") else f"{name} {value:.2%}" for name, value in values.items()
    )
