"""What is measured of an epoch: sums over its images, its seconds, the line that tells of it."""


class Sums:
    """Loss and accuracy summed over the images of an epoch, on the device."""

    def __init__(self, loss=0.0, right=0.0, count=0):
        self.loss, self.right, self.count = loss, right, count

    def add(self, loss, accuracy, count):
        self.loss = self.loss + loss.astype("float64") * count
        self.right = self.right + accuracy.astype("float64") * count
        self.count += count

    def values(self):
        return [float(self.loss), float(self.right), self.count]

    def means(self, prefix):
        return {f"{prefix}loss": float(self.loss) / self.count, f"{prefix}accuracy": float(self.right) / self.count}


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
    val = ""
    if "val_loss" in record:
        val = f"val loss {record['val_loss']:.4f}  accuracy {record['val_accuracy']:.2%}   "
    return (
        f"epoch {record['epoch']:3d}  train loss {record['train_loss']:.4f}  accuracy {record['train_accuracy']:.2%}   "
        f"{val}"
        f"{record['images_per_second']:.0f} img/s, waited {record['loader_seconds']:.1f} s for data"
    )
