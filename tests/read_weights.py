"""Read each weight file of a folder in a process of its own, and tell what came of it: one JSON line a file.

    python read_weights.py FOLDER

{"file", "outcome": "read" or the name of an exception or of a signal, "message", "bytes": how far the memory grew,
"seconds" of processor time, "events": what was executed}. A file that takes ten seconds is stopped by SIGXCPU, one that
waits for something by SIGALRM. A name that ends in .pickle is that of a CIFAR batch.
"""

import contextlib
import json
import os
import pathlib
import resource
import signal
import sys
import tempfile
import time
import warnings

import numpy as np
from foreign_weights import tiny

import numpyvit as nv
from numpyvit.data.formats import parse_cifar_python
from numpyvit.weights.adapt import put_weights
from numpyvit.weights.checkpoint import read_checkpoint

FORBIDDEN = ("exec", "compile", "os.", "subprocess.", "socket.", "ctypes.", "pickle.find_class", "shutil.")
SECONDS = 10


def read(path):
    """As the command line does: read, then into a model."""
    if path.suffix == ".pickle":
        return parse_cifar_python(path.read_bytes(), path)
    arrays, notes, origin = read_checkpoint(path)
    model = tiny()
    put_weights(model, arrays, notes, origin, path)
    model(np.zeros((1, 3, 8, 8), np.float32))


def watched(path):
    """-> the line's content, from a child process."""
    events = []
    sys.addaudithook(lambda event, arguments: events.append(event) if event.startswith(FORBIDDEN) else None)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    start, outcome, message = time.process_time(), "read", ""
    try:
        read(path)
    except nv.errors.NumpyvitError as error:
        outcome, message = type(error).__name__, str(error)
    except BaseException as error:
        outcome, message = type(error).__name__, str(error)[:300]
    seconds = time.process_time() - start
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024
    return dict(file=path.name, outcome=outcome, message=message, bytes=grown, seconds=seconds, events=events)


def in_a_child(path):
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reading)
        resource.setrlimit(resource.RLIMIT_CPU, (SECONDS, SECONDS + 1))
        signal.alarm(60 * SECONDS)
        resource.setrlimit(resource.RLIMIT_AS, (4 << 30, 4 << 30))
        os.write(writing, json.dumps(watched(path)).encode())
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        line = pipe.read()
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        name = signal.Signals(os.WTERMSIG(status)).name
        return dict(file=path.name, outcome=name, message="", bytes=0, seconds=SECONDS, events=[])
    return json.loads(line)


def warm_up(folder):
    """Import what readers need before any child is forked, so that imports are not taken for execution."""
    np.savez_compressed(folder / "whole.npz", **tiny().state_dict())
    nv.weights.save_checkpoint(folder / "whole.safetensors", tiny())
    for file in (*folder.iterdir(), *(pathlib.Path(__file__).parent / "golden").glob("*.pth")):
        with contextlib.suppress(nv.errors.NumpyvitError):
            read(file)


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    with tempfile.TemporaryDirectory() as folder:
        warm_up(pathlib.Path(folder))
    for path in sorted(pathlib.Path(sys.argv[1]).iterdir()):
        print(json.dumps(in_a_child(path)), flush=True)
