"""Event files for TensorBoard, by its own writer (the extra `[tensorboard]`)."""

import importlib.util
import os
import pathlib
import warnings

from ..errors import ConfigError

_FOLDER = "tensorboard"


class EventFiles:
    """Writes the figures of each epoch into RUN/tensorboard; a function to be called with the records so far.

    Numbers of training and validation go under loss/train, loss/val and so on, others under their own name.
    Errors: ConfigError where the package is missing. What cannot be written is said once, and the run goes on.
    """

    def __init__(self, run_directory: str | os.PathLike):
        if importlib.util.find_spec("tensorboard") is None:
            raise ConfigError("TensorBoard's package is not installed; pip install 'numpyvit[tensorboard]'")
        self.folder, self._writer, self._failed = pathlib.Path(run_directory, _FOLDER), None, False

    def __call__(self, records: list[dict]) -> None:
        if self._failed:
            return
        try:
            self._write(records[-1])
        except Exception as error:
            self._failed = True
            warnings.warn(f"{self.folder} is not written any more ({type(error).__name__}: {error})", stacklevel=2)

    def _write(self, record):
        from tensorboard.summary import Writer

        if self._writer is None:
            self._writer = Writer(str(self.folder))
        for name, value in record.items():
            if name != "epoch" and value is not None:
                self._writer.add_scalar(_tag(name), value, record["epoch"])
        self._writer.flush()


def _tag(name):
    part, _, figure = name.partition("_")
    return f"{figure}/{part}" if part in ("train", "val") else name
