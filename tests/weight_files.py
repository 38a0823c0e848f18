"""Weight files made by hand, byte by byte, so that they may be wrong in any way."""

import io
import json
import struct
import zipfile

import numpy as np


def safetensors(header, data=b"", length=None):
    """header: a dict, text or bytes; length: what the first eight bytes say, by default the truth."""
    header = header if isinstance(header, (str, bytes)) else json.dumps(header)
    header = header.encode() if isinstance(header, str) else header
    return struct.pack("<Q", len(header) if length is None else length) + header + data


def packed(members, method=zipfile.ZIP_DEFLATED):
    """A zip of {name: bytes}."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def npy(array=None, header=None, data=b"", version=1, length=None):
    """A .npy file of an array, or of a header's text and bytes."""
    if array is not None:
        array = np.asarray(array)
        header = repr({"descr": array.dtype.str, "fortran_order": False, "shape": array.shape})
        data = array.tobytes()
    header = header.encode("latin-1")
    form = "<H" if version == 1 else "<I"
    length = len(header) if length is None else length
    return b"\x93NUMPY" + bytes([version, 0]) + struct.pack(form, length) + header + data


def npz(arrays, method=zipfile.ZIP_DEFLATED):
    return packed({f"{name}.npy": npy(array) for name, array in arrays.items()}, method)


def pth(program, storages=None, **members):
    """A PyTorch file of a pickle and of {key: bytes}."""
    content = {"a/data.pkl": program} | {f"a/data/{key}": data for key, data in (storages or {}).items()}
    return packed(content | {f"a/{name}": data for name, data in members.items()})


# ---- pickles --------------------------------------------------------------------------------------------------------

PROTO = b"\x80\x02"


def text(value):
    value = value.encode() if isinstance(value, str) else value
    return b"X" + struct.pack("<I", len(value)) + value


def name(module, attribute):
    return f"c{module}\n{attribute}\n".encode()


def call(function, *arguments):
    """Each argument a program that pushes one value."""
    return function + b"(" + b"".join(arguments) + b"tR"


def number(value):
    return b"J" + struct.pack("<i", value)


def numbers(*values):
    return b"(" + b"".join(map(number, values)) + b"t"


def storage(kind="FloatStorage", key="0", count=4):
    return b"(" + text("storage") + name("torch", kind) + text(key) + text("cpu") + number(count) + b"tQ"


def tensor(size=(2, 2), stride=(2, 1), offset=0, made_of=None):
    made_of = storage() if made_of is None else made_of
    function = name("torch._utils", "_rebuild_tensor_v2")
    hooks = call(name("collections", "OrderedDict"))
    return call(function, made_of, number(offset), numbers(*size), numbers(*stride), b"\x89", hooks)


def state_dict(items):
    """A program for a dict of {name: program}."""
    return PROTO + b"}(" + b"".join(text(key) + value for key, value in items.items()) + b"u."


DAG = b")" + b"2\x86" * 60  # a tuple that is its own two children, 60 times: 2**60 leaves
DEEP = b")" + b"\x85" * 20_000  # a tuple in a tuple in a tuple
DEEPER = b")" + b"\x85" * 1_000_000
CYCLE = b"]q\x630h\x63h\x63ah\x63"  # a list that holds itself
