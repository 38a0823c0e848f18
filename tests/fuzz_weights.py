"""Read mutants of weight files, and random pickles, and print what came of them as one JSON line.

    python fuzz_weights.py FORMAT FIRST COUNT

A mutant follows from its seed: FIRST, FIRST + 1, … One that takes ten seconds of processor time ends the process.
"""

import contextlib
import json
import pathlib
import pickle
import shutil
import signal
import sys
import tempfile
import time
import tracemalloc
import warnings
import zipfile

import numpy as np
import weight_files as wf
from foreign_weights import google_names, huggingface_names, tiny
from safetensors.numpy import save_file

import numpyvit as nv
from numpyvit.files import pickles
from numpyvit.files.budget import Budget
from numpyvit.weights.adapt import put_weights
from numpyvit.weights.checkpoint import read_checkpoint

GOLDEN = pathlib.Path(__file__).parent / "golden"
SLACK = 64 << 20
SECONDS = 10


# ---- whole files ----------------------------------------------------------------------------------------------------


def whole_safetensors(path):
    notes = json.dumps({"classes": list("abcde"), "mean": [0.5] * 3})
    save_file(huggingface_names(tiny().state_dict()), path, {"numpyvit": notes})  # without a checksum


def whole_npz(path):
    np.savez(path, **google_names(tiny().state_dict(), heads=2))


def whole_compressed_npz(path):
    np.savez_compressed(path, **google_names(tiny().state_dict(), heads=2))


def whole_pth(path):
    state = tiny().state_dict()
    items = {name: tensor_program(str(i), array) for i, (name, array) in enumerate(state.items())}
    path.write_bytes(wf.pth(wf.state_dict(items), {str(i): array.tobytes() for i, array in enumerate(state.values())}))


def whole_onnx(path):
    shutil.copyfile(GOLDEN / "huggingface.onnx", path)


def tensor_program(key, array):
    strides = [step // array.itemsize for step in array.strides]
    return wf.tensor(array.shape, strides, made_of=wf.storage(key=key, count=array.size))


# ---- mutants --------------------------------------------------------------------------------------------------------


def mutated(data, rng):
    """Flips, overwrites, cuts and doublings, most of them where structure is: at the ends of the file."""
    data = bytearray(data)
    for _ in range(int(rng.integers(1, 6))):
        ends = min(600, len(data))
        places = rng.integers(ends), len(data) - 1 - rng.integers(ends), rng.integers(len(data))
        place = int(rng.choice(places))
        match int(rng.integers(5)):
            case 0:
                data[place] ^= 1 << int(rng.integers(8))
            case 1:
                data[place] = int(rng.integers(256))
            case 2:
                data[place : place + 4] = rng.bytes(4)
            case 3:
                del data[max(place, 20) : max(place, 20) + int(rng.choice([1, 8, 10_000]))]
            case 4:
                data[place:place] = data[place : place + 16]
    return bytes(data)


def mutated_file(path, whole, rng):
    """Of a zip, half of the mutants are wrong in a member, whose checksum is right: the pickle where there is one."""
    if whole[:2] != b"PK" or rng.random() < 0.5:
        path.write_bytes(mutated(whole, rng))
        return
    path.write_bytes(whole)
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    name = "a/data.pkl" if "a/data.pkl" in members and rng.random() < 0.8 else str(rng.choice(list(members)))
    path.write_bytes(wf.packed({**members, name: mutated(members[name], rng)}))


def read_mutant(path, whole, rng):
    mutated_file(path, whole, rng)
    arrays, notes, origin = read_checkpoint(path)
    put_weights(tiny(), arrays, notes, origin, path)


# ---- random pickles -------------------------------------------------------------------------------------------------

OPCODES = b"NNN)))]]]}}}(((\x88\x89\x85\x85\x86\x86\x87tttllddd00112aaeeessuuuRRRbbQQ\x8f\x90\x90\x93\x94\x94\x81.\x97"
PIECES = [
    *(bytes([code]) for code in OPCODES),
    *(b"K\x01", b"K\x02", b"J\xff\xff\xff\xff", b"\x8a\x08" + b"\x7f" * 8, b"G" + bytes(8), b"C\x04abcd"),
    *(b"q\0", b"q\1", b"h\0", b"h\1", b"h\2"),
    *map(wf.text, ("latin1", "storage", "0", "<f4", "a" * 1000)),
    wf.name("collections", "OrderedDict"),
    wf.name("numpy", "dtype"),
    wf.name("numpy.core.multiarray", "_reconstruct"),
    wf.name("numpy.core.numeric", "_frombuffer"),
    wf.name("_codecs", "encode"),
    wf.name("os", "system"),
    wf.numbers(1, 2),
    wf.DAG,
]
BATCH = {b"data": np.arange(6144, dtype=np.uint8).reshape(2, 3072), b"labels": [1, 2], b"x": [1.5, None, {3}]}


def whole_batch(path):
    path.write_bytes(pickle.dumps(BATCH, 2))


def random_program(rng):
    return b"\x80\x02" + b"".join(PIECES[i] for i in rng.integers(0, len(PIECES), int(rng.integers(1, 200)))) + b"."


def read_pickle(path, whole, rng):
    program = random_program(rng) if rng.random() < 0.7 else mutated(whole, rng)
    program *= int(rng.choice([1, 1, 1, 1000]))
    path.write_bytes(program)
    pickles.read(program, pickles.NUMPY_CONSTRUCTORS, lambda identity: (), Budget(len(program) * 8 + (8 << 20)))


FORMATS = {  # how the whole file is made, how a mutant is read, its memory over its size
    "safetensors": (whole_safetensors, read_mutant, 2),
    "npz": (whole_npz, read_mutant, 2),
    "compressed npz": (whole_compressed_npz, read_mutant, 2),
    "pth": (whole_pth, read_mutant, 2),
    "onnx": (whole_onnx, read_mutant, 2),
    "pickle": (whole_batch, read_pickle, 8),
}


# ---- all of them ----------------------------------------------------------------------------------------------------


def main(form, first, count, folder):
    write_whole, read, times = FORMATS[form]
    path = folder / "mutant.npz"
    write_whole(path)
    whole = path.read_bytes()
    with contextlib.suppress(Exception):  # imports are done before memory is watched
        read(path, whole, np.random.default_rng(first))
    refused, failures, largest, slowest = 0, [], 0, 0.0
    for seed in range(first, first + count):
        signal.setitimer(signal.ITIMER_PROF, SECONDS)  # SIGPROF ends the process
        start, problem = time.process_time(), None
        tracemalloc.start()
        try:
            read(path, whole, np.random.default_rng(seed))
        except (nv.errors.CheckpointError, pickles.PickleError):
            refused += 1
        except Exception as error:
            problem = f"{type(error).__name__}: {error!s:.200}"
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        if peak > times * path.stat().st_size + SLACK:
            problem = f"took {peak:,} bytes"
        if problem:
            failures.append([seed, problem])
        largest, slowest = max(largest, peak), max(slowest, time.process_time() - start)
    return dict(count=count, refused=refused, failures=failures, largest=largest, slowest=slowest)


if __name__ == "__main__":
    warnings.simplefilter("error")
    warnings.simplefilter("ignore", nv.weights.Notice)
    with tempfile.TemporaryDirectory() as folder:
        print(json.dumps(main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), pathlib.Path(folder))))
