"""A table of weight files that are wrong, or right in an unusual way, made by hand: FAMILIES of {name: bytes}.

No reader may crash, hang, run anything, take more than twice the file and 64 MiB, or raise what is not a NumpyvitError.
"""

import itertools
import json
import math
import re
import zipfile

import hostile_headers
import hostile_onnx
import hostile_pickles
import numpy as np
from foreign_weights import google_names, huggingface_names, tiny, torchvision_names
from hostile_headers import DATA, ENTRY
from weight_files import PROTO, name, npy, npz, number, packed, pth, safetensors, state_dict, storage, tensor, text

STATE = tiny().state_dict()
ORIGINS = {
    "timm": STATE,
    "google": google_names(STATE, heads=2),
    "huggingface": huggingface_names(STATE),
    "torchvision": torchvision_names(STATE),
}
ADAPTED = re.compile(  # the names of arrays that are more than renamed
    r"(?!.*(block|layer|layers|encoderblock|encoder_layer)[s_.]*1)"
    r".*(cls|class_token|pos|patch|conv_proj|embedding|query|key|value|qkv|in_proj|out/kernel|head|classifier).*"
)
WRONG_SHAPES = [(), (0,), (3,), (2, 0), (2, 3), (2, 0, 3), (1, 7, 8), (2, 3, 4, 5), (1, 1, 1, 1, 2)]


def entries(shapes):
    """-> (entries of a safetensors header, data)."""
    header, end = {}, 0
    for key, shape in shapes.items():
        start, end = end, end + 4 * math.prod(shape)
        header[key] = {"dtype": "F32", "shape": list(shape), "data_offsets": [start, end]}
    return header, np.full(end // 4, 0.5, "<f4").tobytes()


def ranks():
    files = {}
    for origin, state in ORIGINS.items():
        shapes = {key: array.shape for key, array in state.items()}
        for key in filter(ADAPTED.fullmatch, shapes):
            for wrong in WRONG_SHAPES:
                files[f"{origin}: {key} {wrong}"] = safetensors(*entries({**shapes, key: wrong}))
            files[f"{origin}: no {key}"] = safetensors(*entries({k: shapes[k] for k in shapes if k != key}))
        kinds = itertools.cycle(["f2", "f4", "f8", "i8"])
        files |= {
            f"{origin}: all": safetensors(*entries(shapes)),
            f"{origin}: half precision": npz({key: np.ones(shape, "f2") for key, shape in shapes.items()}),
            f"{origin}: integers": npz({key: np.ones(shape, "i1") for key, shape in shapes.items()}),
            f"{origin}: mixed types": npz({key: np.ones(shape, next(kinds)) for key, shape in shapes.items()}),
            f"{origin}: nan": npz({key: np.full(shape, np.nan, "f4") for key, shape in shapes.items()}),
        }
    return files


# ---- names and notes ------------------------------------------------------------------------------------------------


def with_metadata(metadata):
    header, data = entries({key: array.shape for key, array in STATE.items()})
    return safetensors({"__metadata__": metadata, **header}, data)


def safetensors_notes():
    metadatas = {
        "list": [], "number": 5, "text": "a", "null": None, "numbers in it": {"numpyvit": 5}, "null in it": {"a": None},
        "nested": {"a": {"b": "c"}}, "many": {str(i): "" for i in range(100_000)}, "wrong sha256": {"sha256": "0" * 64},
        "empty sha256": {"sha256": ""},
    }  # fmt: skip
    files = {f"metadata: {key}": with_metadata(value) for key, value in metadatas.items()}
    notes = {
        "not json": "{", "list": "[]", "number": "5", "text": '"a"', "null": "null", "nan": '{"mean":[NaN,0,0]}',
        "lists within lists": "[" * 100_000, "objects within objects": '{"a":' * 100_000 + "1" + "}" * 100_000,
        "many objects": "[" + "{}," * 1_000_000 + "{}]", "many texts": "[" + '"a",' * 1_000_000 + "1]",
        "digits": '{"a":' + "9" * 5000 + "}", "surrogate": '{"a":"\\ud800"}',
        "one long text": json.dumps({"a": "b" * 10**6}),
    }  # fmt: skip
    values = {
        "classes": [5, "abc", {}, [[]], [None], ["a"], ["a" * 100_000] * 5, [1, 2]],
        "mean": [5, "abc", {}, ["a"], [[1]], [None], [], [1], [1e308] * 3],
        "std": [0, "abc", ["0"], [0, 0, 0]],
        "crop_pct": ["a", 0, -1, 7, [], {}, True, 1e999],
        "interpolation": [5, "", "no such", [], {}, "SQUASH", "__class__"],
        "recipe": [5, "abc", [], {"model": 5}, {"model": []}, {"options": 5}, {"unsaved": 5}, {"model": "no such"}],
        "data": [5, [], {}],
    }
    for key, wrong in values.items():
        notes |= {f"{key} {i}": json.dumps({key: value}) for i, value in enumerate(wrong)}
    files |= {f"notes: {key}": with_metadata({"numpyvit": value}) for key, value in notes.items()}
    return files | {"notes: lone surrogate": with_metadata({"numpyvit": "\ud800"})}


def tensor_names():
    names = {
        "empty": "", "long": "a" * 60_000, "line": "a\nb", "nul": "a\0b", "escape": "\x1b[2Jclear", "bell": "\a",
        "surrogate": "\ud800", "turned": "\u202eabc", "path": "../../etc/passwd", "accents": "é", "emoji": "🙂" * 400,
        "dots": "." * 400, "module": "module." * 60, "params": "params/" * 60,
        "digits": "blocks." + "9" * 400 + ".norm1.weight",
        "layers": "layers." * 60, "encoder": "encoder.layer.²." + "a" * 400,
    }  # fmt: skip
    files = {f"safetensors: {key}": safetensors({value: ENTRY}, DATA) for key, value in names.items()}
    encodable = {key: value for key, value in names.items() if key != "surrogate"}
    files |= {f"npz: {key}": npz({value: np.ones(3, "f4")}) for key, value in encodable.items() if key != "nul"}
    files |= {f"pth: {key}": pth(state_dict({v: tensor()}), {"0": DATA}) for key, v in encodable.items()}
    keys = {"number": b"K\x05", "none": b"N", "true": b"\x88", "float": b"G" + bytes(8), "bytes": b"C\x01a"}
    files |= {f"pth, key a {k}": pth(PROTO + b"}" + key + tensor() + b"s.", {"0": DATA}) for k, key in keys.items()}
    return files


# ---- little files for a lot of memory -------------------------------------------------------------------------------


def memory():
    files = {}
    for size in (10_000_000, 60_000_000):
        files |= {f"{key}, {size // 1_000_000} MB": data for key, data in little_files_for(size).items()}
    return files | headers_for_memory() | adapted_arrays()


def little_files_for(size):
    """Compressed zeros: `size` bytes, once or many times over."""
    zeros, floats, layers = bytes(size), size // 4, range(100)
    query = "vit.encoder.layer.{}.attention.attention.{}.weight".format
    kernel = "Transformer/encoderblock_{}/MultiHeadDotProductAttention_1/out/kernel".format
    patches = {"vit.embeddings.patch_embeddings.projection.weight": tensor()}  # tells the origin
    parts = ("query", "key", "value")
    whole, half = tensor((floats,), (1,)), tensor((size // 2,), (1,), made_of=storage("BFloat16Storage"))
    square = tensor((1000, floats // 1000), (floats // 1000, 1))
    strided = tensor((10, 100, floats // 1000), (floats // 10, 1, 100))
    apart = {part: tensor((1000, floats // 3000), (1, 1000), made_of=storage(key=part)) for part in parts}
    programs = {
        "one tensor": {"a": whole},
        "one tensor of bfloat16": {"a": half},
        "200 tensors on one storage": {str(i): whole for i in range(200)},
        "200 tensors on one storage of bfloat16": {str(i): half for i in range(200)},
        "query, key and value of 100 layers": {query(i, part): square for i in layers for part in parts} | patches,
        "strided kernels, copied to be reshaped": {kernel(i): strided for i in layers} | {"embedding/kernel": tensor()},
    }
    files = {f"pth: {key}": pth(state_dict(items), {"0": zeros}) for key, items in programs.items()}
    third = dict.fromkeys(parts, zeros[: floats // 3000 * 4000])
    one_layer = patches | {query(0, part): made for part, made in apart.items()}
    files["pth: query, key and value of one layer"] = pth(state_dict(one_layer), {"0": DATA, **third})
    nine = {str(i): tensor(made_of=storage(key=str(i))) for i in range(9)}
    files["pth: nine storages"] = pth(state_dict(nine), dict.fromkeys(nine, zeros))
    files["pth: pickle"] = pth(PROTO + b"N" + zeros)
    files["pth: pickle of one text"] = pth(PROTO + text(zeros) + b".")
    header = "{{'descr': '{}', 'fortran_order': {}, 'shape': ({},), }}".format
    for descr, order, count in ("<f4", False, floats), ("<f4", True, floats), ("V2", False, size // 2):
        files[f"npz: {descr} {order}"] = packed({"a.npy": npy(header=header(descr, order, count), data=zeros)})
    array = npy(header=header("<f4", False, floats), data=zeros)
    files["npz: ten arrays"] = packed({f"{i}.npy": array for i in range(10)})
    files["npz: no header"] = packed({"a.npy": zeros})
    for kind, count in (("BF16", size // 2), ("F32", floats)):
        entry = {"dtype": kind, "shape": [count], "data_offsets": [0, size]}
        files[f"safetensors: {kind}"] = safetensors({"a": entry}, zeros)
    return files


def headers_for_memory():
    empty = '"a{}":{{"dtype":"F32","shape":[0],"data_offsets":[0,0]}}'.format
    pairs = b"](" + b"".join(number(i) + b"N\x86" for i in range(20_000)) + b"e"
    copies = (name("collections", "OrderedDict") + b"h\x00\x85R0") * 20_000
    return {
        "OrderedDict copied 20,000 times": pth(PROTO + pairs + b"q\x000" + copies + b"N."),
        "20 MB of lists": safetensors("[" + "[]," * 6_666_666 + "[]]"),
        "20 MB of objects": safetensors('{"a":[' + '{"":0},' * 2_800_000 + "0]}"),
        "2 MB of objects": safetensors('{"a":[' + '{"":{}},' * 250_000 + "0]}"),
        "20 MB of one text": safetensors(json.dumps({"a": "🙂" + "a" * 20_000_000}, ensure_ascii=False)),
        "300,000 empty tensors": safetensors("{" + ",".join(map(empty, range(300_000))) + "}"),
        "20,000 empty tensors": safetensors("{" + ",".join(map(empty, range(20_000))) + "}"),
        "20,000 empty tensors in a zip": npz({str(i): np.zeros(0, "f4") for i in range(20_000)}, zipfile.ZIP_STORED),
    }


def adapted_arrays():
    ones = np.ones
    wrong = {
        "pos_embed": [ones((1, 1 + 1200**2, 8), "i1"), ones((1, 1 + 128**2, 8)), ones((1, 1, 8)), ones((1, 0, 8))],
        "patch_embed.proj.weight": [ones((8, 80_000, 4, 4), "i1"), ones((8, 0, 4, 4)), ones((8, 1, 4, 4), "f2")],
        "head.weight": [ones((1_000_000, 8), "i1"), ones((0, 8)), ones((7, 8)), ones(8)],
    }
    return {f"{key} {i}": npz({**STATE, key: array}) for key, arrays in wrong.items() for i, array in enumerate(arrays)}


FAMILIES = {
    "structure of safetensors": hostile_headers.safetensors_structure,
    "entries of safetensors": hostile_headers.safetensors_entries,
    "headers of .npy": hostile_headers.npy_headers,
    "zips": hostile_headers.zips,
    "notes": safetensors_notes,
    "names": tensor_names,
    "ranks": ranks,
    "ONNX": hostile_onnx.onnx_files,
    "pickles with bombs": hostile_pickles.pickles_with_bombs,
    "batches with bombs": hostile_pickles.batches_with_bombs,
    "pickles that call": hostile_pickles.pickles_that_call,
    "tensors of PyTorch": hostile_pickles.torch_tensors,
    "structure of PyTorch files": hostile_pickles.torch_structure,
    "pickles too long": hostile_pickles.pickles_too_long,
    "memory": memory,
}
