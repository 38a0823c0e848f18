"""A table of weight files that are wrong, or right in an unusual way, made by hand: {name: bytes}.

No reader may crash, hang, run anything, take more than twice the file and 64 MiB, or raise anything but a NumpyvitError.
"""

import itertools
import json
import math
import pathlib
import re
import struct
import zipfile

import numpy as np
from foreign_weights import google_names, huggingface_names, tiny, torchvision_names
from weight_files import (
    CYCLE,
    DAG,
    DEEP,
    DEEPER,
    PROTO,
    call,
    name,
    npy,
    npz,
    number,
    numbers,
    packed,
    pth,
    safetensors,
    state_dict,
    storage,
    tensor,
    text,
)

GOLDEN = pathlib.Path(__file__).parent / "golden"
ENTRY = {"dtype": "F32", "shape": [2, 2], "data_offsets": [0, 16]}
DATA = np.arange(4, dtype="<f4").tobytes()
BIG = 60_000_000


def every_file():
    """{name: bytes}, about 500 of them."""
    families = dict(
        safetensors_structure=safetensors_structure,
        safetensors_entries=safetensors_entries,
        safetensors_notes=safetensors_notes,
        tensor_names=tensor_names,
        npy_headers=npy_headers,
        zips=zips,
        ranks=ranks,
        pickles_with_bombs=pickles_with_bombs,
        pickles_too_long=pickles_too_long,
        pickles_that_call=pickles_that_call,
        torch_tensors=torch_tensors,
        torch_structure=torch_structure,
        memory=memory,
    )
    return {f"{family}/{key}": data for family, make in families.items() for key, data in make().items()}


# ---- safetensors ----------------------------------------------------------------------------------------------------


def safetensors_structure():
    whole = safetensors({"a": ENTRY, "__metadata__": {"format": "np"}}, DATA)
    files = {f"cut after {n}": whole[:n] for n in (0, 1, 7, 8, 9, 30, len(whole) - 16, len(whole) - 1)}
    for length in (0, 1, 7, len(whole), len(whole) - 8, len(whole) - 7, 10**8, 2**31, 2**63, 2**64 - 1):
        files[f"header length {length}"] = safetensors({"a": ENTRY}, DATA, length)
    headers = {
        "list": "[]", "number": "5", "text": '"a"', "null": "null", "true": "true", "nan": "NaN", "nothing": "",
        "blanks": " " * 1000, "object": "{}", "comma": '{"a":1,}', "half": '{"a":{', "not utf-8": b'{"\xff":1}',
        "utf-16": '{"a":{}}'.encode("utf-16"), "nul": "\0" * 8, "lists within lists": "[" * 100_000,
        "objects within objects": '{"a":' * 100_000, "lists in an entry": '{"a":' + "[" * 100_000 + "]" * 100_000 + "}",
        "digits": '{"a":' + "9" * 100_000 + "}", "float": '{"a":1e999}', "entries are numbers": '{"a":1,"b":2}',
        "entries are lists": '{"a":[],"b":[]}', "entries are null": '{"a":null}', "entries are text": '{"a":"b"}',
        "escapes": '{"' + "\\u0041" * 10_000 + '":{}}', "surrogates": '{"\\ud800":1}',
    }  # fmt: skip
    files |= {f"header: {key}": safetensors(header, DATA) for key, header in headers.items()}
    other = {**ENTRY, "data_offsets": [16, 32]}
    layouts = {
        "the same place twice": ({"a": ENTRY, "b": ENTRY}, DATA),
        "overlap": ({"a": ENTRY, "b": {**ENTRY, "data_offsets": [8, 24]}}, DATA * 2),
        "hole": ({"a": ENTRY, "b": {**ENTRY, "data_offsets": [20, 36]}}, DATA * 3),
        "from the end": ({"a": other, "b": ENTRY}, DATA * 2),
        "too much data": ({"a": ENTRY}, DATA + b"\0"),
        "no data": ({"a": ENTRY}, b""),
        "no arrays": ({}, DATA),
        "two entries of one name": (f'{{"a":{json.dumps(ENTRY)},"a":{json.dumps(other)}}}', DATA * 2),
    }
    return files | {f"layout: {key}": safetensors(*made) for key, made in layouts.items()}


def safetensors_entries():
    values = {
        "dtype": [None, 5, [], {}, "", "f32", "F8_E4M3", "F4", "C64", "O", "BOOL", "BF16", "F32\0", "F" * 100_000],
        "shape": [
            None, 5, "22", {}, [], [4], [-2, -2], [-4], [4.0], [True, 4], ["4"], [[4]], [None], [2**31, 2**31], [2**64],
            [2**63, 2], [0, 2**62], [0, 2**70], [10**4000], [1] * 31 + [4], [1] * 63 + [4], [1] * 64 + [4], [1] * 9999 + [4],
        ],
        "data_offsets": [
            None, 5, "0,16", {}, [], [0], [0, 16, 32], [16, 0], [-16, 0], [0, 2**63], [0, 2**64], [2**64, 2**64 + 16],
            [0.0, 16.0], [None, 16], [[0], [16]], ["0", "16"], [0, 10**4000],
        ],
    }  # fmt: skip
    files = {}
    for field, wrong in values.items():
        for i, value in enumerate(wrong):
            files[f"{field} {i} {str(value)[:20]}"] = safetensors({"a": {**ENTRY, field: value}}, DATA)
        files[f"no {field}"] = safetensors({"a": {key: ENTRY[key] for key in ENTRY if key != field}}, DATA)
    return files


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
        "digits": '{"a":' + "9" * 5000 + "}", "surrogate": '{"a":"\\ud800"}', "one long text": json.dumps({"a": "b" * 10**6}),
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
        "dots": "." * 400, "module": "module." * 60, "params": "params/" * 60, "digits": "blocks." + "9" * 400 + ".norm1.weight",
        "layers": "layers." * 60, "encoder": "encoder.layer.²." + "a" * 400,
    }  # fmt: skip
    files = {f"safetensors: {key}": safetensors({value: ENTRY}, DATA) for key, value in names.items()}
    encodable = {key: value for key, value in names.items() if key != "surrogate"}
    files |= {f"npz: {key}": npz({value: np.ones(3, "f4")}) for key, value in encodable.items() if key != "nul"}
    files |= {f"pth: {key}": pth(state_dict({v: tensor()}), {"0": DATA}) for key, v in encodable.items()}
    keys = {
        "number": b"K\x05",
        "none": b"N",
        "true": b"\x88",
        "float": b"G" + bytes(8),
        "bytes": b"C\x01a",
        "tuple": b")",
    }
    files |= {f"pth, key a {k}": pth(PROTO + b"}" + key + tensor() + b"s.", {"0": DATA}) for k, key in keys.items()}
    return files


# ---- .npz -----------------------------------------------------------------------------------------------------------


def npy_headers():
    fields = "{'descr': %s, 'fortran_order': %s, 'shape': %s, }"
    headers = {
        "minuses": "-" * 9990 + "1", "brackets": "(" * 9000, "lists": "[" * 4000 + "]" * 4000, "braces": "{" * 9000,
        "code": "__import__('os').system('true')", "nothing": "", "list": "[]", "number": "5", "blanks": " " * 9000,
        "half": "{'descr': '<f4', 'fortran_", "no shape": "{'descr': '<f4', 'fortran_order': False, }", "nul": "\0" * 100,
        "long shape": fields % ("'<f4'", "False", "(" + "1," * 4800 + ")"), "quotes": "'" * 9000, "backslashes": "\\" * 9000,
        "python 2": fields % ("'<f4'", "False", "(2L, 2L)"), "json": '{"descr": "<f4", "fortran_order": False, "shape": (4)}',
    }  # fmt: skip
    kinds = [
        "'|O'",
        "'O'",
        "'<U8'",
        "'|S16'",
        "'<c8'",
        "'<M8[s]'",
        "'|V16'",
        "'V2'",
        "'<V2'",
        "'<f3'",
        "'<f99'",
        "'|b1'",
    ]
    kinds += [
        "'>f4'",
        "'<i4'",
        "'?'",
        "[('a', '<f4')]",
        "('<f4', (4,))",
        "'(4,)f4'",
        "'f4,f4'",
        "None",
        "5",
        "'" + "f" * 9000 + "'",
    ]
    headers |= {f"descr {kind[:20]}": fields % (kind, "False", "(2, 2)") for kind in kinds}
    shapes = [
        "()",
        "(4,)",
        "(-4,)",
        "(-2, -2)",
        "(4.0,)",
        "(2**2,)",
        "('4',)",
        "((4,),)",
        "[4]",
        "4",
        "None",
        "(True, 4)",
    ]
    shapes += [
        f"({2**62}, {2**62})",
        f"({2**63},)",
        f"({10**30},)",
        f"(0, {10**18})",
        f"(0, {10**30})",
        "(" + "9" * 9000 + ",)",
    ]
    shapes += ["(1,) * 4", "(" + "1, " * 70 + "4)"]
    headers |= {f"shape {shape[:20]}": fields % ("'<f4'", "False", shape) for shape in shapes}
    orders = ["True", "0", "1", "None", "'F'", "[]"]
    headers |= {f"order {order}": fields % ("'<f4'", order, "(2, 2)") for order in orders}
    files = {key: packed({"a.npy": npy(header=header, data=DATA)}) for key, header in headers.items()}
    good = fields % ("'<f4'", "False", "(2, 2)")
    for length in (0, 1, 10, 65535):
        files[f"header length {length}"] = packed({"a.npy": npy(header=good, data=DATA, length=length)})
        files[f"version 2, header length {length}"] = packed(
            {"a.npy": npy(header=good, data=DATA, version=2, length=length)}
        )
    files["version 2, header length 2**32 - 1"] = packed({"a.npy": npy(header=good, version=2, length=2**32 - 1)})
    files |= {f"version {v}": packed({"a.npy": npy(header=good, data=DATA, version=v)}) for v in (0, 2, 3, 4, 255)}
    whole = npy(np.ones((2, 2), "f4"))
    files |= {f"cut after {n}": packed({"a.npy": whole[:n]}) for n in (0, 5, 6, 7, 9, 10, 30, len(whole) - 1)}
    return files | {"too long": packed({"a.npy": whole + b"\0"})}


def zips():
    whole = npz({"a": np.ones((2, 2), "f4")}, zipfile.ZIP_STORED)
    files = {f"cut after {n}": whole[:n] for n in (2, 4, 10, 30, len(whole) // 2, len(whole) - 22, len(whole) - 1)}
    central = whole.index(b"PK\1\2")
    for field, (place, form) in ZIP_FIELDS.items():
        for value in (0, 1, 2, 12, 99, 0x7FFF, 0xFFFF) + ((2**31, 2**32 - 1) if form == "<I" else ()):
            changed = bytearray(whole)
            struct.pack_into(form, changed, central + place, value)
            files[f"{field} {value}"] = bytes(changed)
    end = struct.pack("<4s4H2IH", b"PK\5\6", 0, 0, 0, 0, 0, 0, 0)
    files |= {
        "nothing": b"PK", "empty": end, "comment": whole + b"x" * 1000, "before": b"PK" + b"x" * 1000 + whole,
        "no arrays": packed({"readme.txt": b"hello"}), "folder": packed({"a/": b"", "a/b.npy": npy(np.ones(3))}),
        "same name twice": same_name_twice(), "absolute": npz({"/etc/passwd": np.ones(3)}), "bzip2": packed({"a.npy": b""}, 12),
        "lzma": packed({"a.npy": b""}, 14), "zip in a zip": packed({"a.npy": whole}), "npy alone": npy(np.ones(3)),
        "members at one place": members_at_one_place(40_000), "100,000 members": members_at_one_place(100_000),
        "300,000 members": members_at_one_place(300_000),
    }  # fmt: skip
    return files


ZIP_FIELDS = {  # of a member in the central directory: place and form
    "version": (6, "<H"), "flags": (8, "<H"), "method": (10, "<H"), "crc": (16, "<I"), "packed size": (20, "<I"),
    "size": (24, "<I"), "length of name": (28, "<H"), "length of extra": (30, "<H"), "disk": (34, "<H"), "place": (42, "<I"),
}  # fmt: skip


def same_name_twice():
    whole = bytearray(npz({"a": np.ones(3), "b": np.zeros(3)}))
    return bytes(whole.replace(b"b.npy", b"a.npy"))


def members_at_one_place(count):
    """A central directory that names one small array again and again."""
    whole = npz({"aaaaaaaa": np.ones(1, "f4")}, zipfile.ZIP_STORED)
    central = whole.index(b"PK\1\2")
    entry, rest = whole[central : whole.index(b"PK\5\6")], whole[whole.index(b"PK\5\6") :]
    entries = b"".join(entry.replace(b"aaaaaaaa", b"%08d" % i) for i in range(count))
    end = struct.pack("<4s4H2IH", b"PK\5\6", 0, 0, count & 0xFFFF, count & 0xFFFF, len(entries), central, 0)
    return whole[:central] + entries + end + rest[22:]


# ---- arrays of another rank than their names promise ----------------------------------------------------------------

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


# ---- PyTorch's pickles ----------------------------------------------------------------------------------------------


def pickles_with_bombs():
    """A value with 2**60 leaves, a deep one and one that holds itself, wherever a value can stand."""
    rebuild, ordered = name("torch._utils", "_rebuild_tensor_v2"), name("collections", "OrderedDict")
    four = numbers(2, 2), numbers(2, 1)
    places = {
        "root": b"@.", "in a list": b"]@a.", "as value": b"}K\x01@s.", "as key": b"}@Ns.", "as keys": b"}(@Nu.",
        "as key of DICT": b"(@Nd.", "as item of a set": b"\x8f(@\x90.", "as function": b"@)R.", "as class": b"@)\x81.",
        "as object": b"@}b.", "as persistent id": b"@Q.", "as attribute": b"K\x01@\x93.", "as module": b"@K\x01\x93.",
        "twice": b"@q\x010h\x01h\x01\x86.",
    }  # fmt: skip
    programs = {}
    for kind, bomb in (("dag", DAG), ("deep", DEEP), ("cycle", CYCLE)):
        for place, form in places.items():
            programs[f"{kind} {place}"] = form.replace(b"@", bomb)
        for i in range(5):
            identity = [text("storage"), name("torch", "FloatStorage"), text("0"), text("cpu"), number(4)]
            identity[i] = bomb
            programs[f"{kind} in a persistent id at {i}"] = b"(" + b"".join(identity) + b"tQ."
        for i in range(6):
            arguments = [storage(), number(0), *four, b"\x89", b"}"]
            arguments[i] = bomb
            programs[f"{kind} as argument {i} of a tensor"] = b"}" + text("a") + call(rebuild, *arguments) + b"s."
        programs[f"{kind} as arguments"] = rebuild + bomb + b"R."
        programs[f"{kind} in an OrderedDict"] = call(ordered, bomb) + b"."
        programs[f"{kind} as a key of an OrderedDict"] = call(ordered, b"](" + bomb + b"N\x86e") + b"."
        programs[f"{kind} as state of an OrderedDict"] = call(ordered) + bomb + b"b."
        programs[f"{kind} as a parameter"] = (
            b"}" + text("a") + call(name("torch._utils", "_rebuild_parameter"), bomb) + b"s."
        )
        programs[f"{kind} beside a tensor"] = b"}" + text("a") + tensor() + b"s" + text("b") + bomb + b"s."
    programs["a million tuples as key"] = b"}" + DEEPER + b"Ns."
    programs["a million tuples as item of a set"] = b"\x8f(" + DEEPER + b"\x90."
    programs["models in models"] = b"}q\x00" + text("model") + b"h\x00s."
    programs["a thousand models in models"] = (
        b"".join(b"}" + text("model") for _ in range(1000)) + b"}" + b"s" * 1000 + b"."
    )
    return {key: pth(PROTO + program, {"0": DATA}) for key, program in programs.items()}


def pickles_too_long():
    floods = {
        "none": b"N", "dicts": b"}", "sets": b"\x8f", "marks": b"(", "lists": b"]", "tuples": b")", "ones": b"K\x01",
        "memoized sets": b"\x8f\x94", "dup": b"N2", "push and pop": b"N0", "globals": b"ca\nb\n", "puts": b"Nr\x00\x00\x00\x00",
    }  # fmt: skip
    files = {key: pth(PROTO + flood * (BIG // len(flood)) + b".") for key, flood in floods.items()}
    files |= {f"few {key}": pth(PROTO + flood * 100_000 + b".") for key, flood in floods.items()}
    colliding = b"".join(b"\x8a\x10" + (i * (2**61 - 1)).to_bytes(16, "little") + b"N" for i in range(100_000))
    files["colliding keys"] = pth(PROTO + b"}(" + colliding + b"u.")
    puts = b"".join(b"p%d\n" % (i * (2**61 - 1)) for i in range(200_000))
    files["colliding places in the memo"] = pth(PROTO + b"N" + puts + b".")
    long = b"X" + struct.pack("<I", 10_000_000) + b"a" * 10_000_000
    files["a long name, again and again"] = pth(PROTO + long + b"q\x000" + b"h\x00h\x00\x93" * 1000 + b".")
    files["a long key of a storage"] = pth(PROTO + storage(key="k" * 3_000_000) + b".")
    files["one wide character"] = pth(PROTO + text("a" * 7_000_000 + "🙂") + b".")
    files["many wide characters"] = pth(PROTO + text("a" * 30_000_000 + "🙂") + b".")
    files["a long integer"] = pth(PROTO + b"\x8b" + struct.pack("<i", 5_000_000) + b"\x7f" * 5_000_000 + b".")
    files["a long decimal"] = pth(b"L" + b"9" * 5_000_000 + b"L\n.")
    files["a long quoted text"] = pth(b"S'" + b"\\x00" * 2_000_000 + b"'\n.")
    files["no quotes"] = pth(b"S" + b"a" * 5_000_000 + b"\n.")
    return files


def pickles_that_call():
    functions = [("os", "system"), ("builtins", "eval"), ("builtins", "exec"), ("posix", "system"), ("numpy", "load")]
    functions += [("subprocess", "Popen"), ("torch", "load"), ("builtins", "getattr"), ("importlib", "import_module")]
    ways = {
        "reduce": b"c{m}\n{n}\n(S'touch canary'\ntR.", "inst": b"(S'touch canary'\ni{m}\n{n}\n.",
        "obj": b"(c{m}\n{n}\nS'touch canary'\no.", "newobj": b"c{m}\n{n}\n(S'touch canary'\nt\x81.",
        "newobj_ex": b"c{m}\n{n}\n(S'touch canary'\nt}\x92.", "stack_global": b"S'{m}'\nS'{n}'\n\x93(S'touch canary'\ntR.",
        "build": b"c{m}\n{n}\n}S'touch canary'\nb.",
    }  # fmt: skip
    programs = {}
    for module, attribute in functions:
        for way, program in ways.items():
            made = program.replace(b"{m}", module.encode()).replace(b"{n}", attribute.encode())
            programs[f"{module}.{attribute} by {way}"] = b"\x80\x04" + made
    others = {
        "ext1": b"\x82\x01)R.", "ext2": b"\x83\x01\0)R.", "ext4": b"\x84\x01\0\0\0)R.", "persid": b"Pabc\n.",
        "next_buffer": b"\x97.", "readonly_buffer": b"\x97\x98.", "frozenset": b"(K\x01\x91.", "no stop": b"N", "empty": b"",
        "only stop": b".", "mark at the end": b"(.", "call of a mark": b"()R.", "get of nothing": b"h\x05.", "bad opcode": b"\xff.",
        "protocol 9": b"\x80\x09N.", "constructor without arguments": name("torch._utils", "_rebuild_tensor_v2") + b")R.",
        "constructor with a list": name("torch._utils", "_rebuild_tensor_v2") + b"]R.", "encode": call(name("_codecs", "encode"), text("a")) + b".",
    }  # fmt: skip
    programs |= {key: PROTO + program for key, program in others.items()}
    return {key: pth(program, {"0": DATA}) for key, program in programs.items()}


def torch_tensors():
    good = dict(size=(2, 2), stride=(2, 1), offset=0)
    wrong = {
        "size": [(), (4,), (3, 3), (-2, 2), (0, 2), (2**30, 2**30), (0, 2**31 - 1), (1,) * 65, (2,) * 64],
        "stride": [(), (1,), (-2, 1), (0, 0), (3, 1), (2**31 - 1, 1), (1, 2**31 - 1), (1, 1)],
        "offset": [-1, 1, 4, 5, 2**31 - 1, -(2**31)],
    }
    files = {}
    for field, values in wrong.items():
        for i, value in enumerate(values):
            files[f"{field} {i} {str(value)[:20]}"] = pth(
                state_dict({"a": tensor(**{**good, field: value})}), {"0": DATA}
            )
    for kind in ("Double", "Half", "BFloat16", "Long", "Bool", "ComplexFloat", "QInt8", "Untyped"):
        one = tensor((1,), (1,), made_of=storage(f"{kind}Storage"))
        files[f"storage of {kind}"] = pth(state_dict({"a": one}), {"0": DATA})
        files[f"storage of {kind} and of floats"] = pth(state_dict({"a": tensor(), "b": one}), {"0": DATA})
    for key in ("", "1", "../0", "/0", "0\0", "a" * 1000, "\n"):
        files[f"storage {key[:9]!r}"] = pth(state_dict({"a": tensor(made_of=storage(key=key))}), {"0": DATA})
    for length in (0, 1, 3, 15, 17):
        files[f"storage of {length} bytes"] = pth(state_dict({"a": tensor()}), {"0": bytes(length)})
    return files


def torch_structure():
    weights = state_dict({"a": tensor()})
    parameter = call(name("torch._utils", "_rebuild_parameter"), tensor(), b"\x88", b"}")
    programs = {
        "good": weights, "parameter": state_dict({"a": parameter}), "empty": PROTO + b"}.", "list": PROTO + b"].",
        "none": PROTO + b"N.", "tensor": PROTO + tensor() + b".", "list of tensors": PROTO + b"](" + tensor() + b"e.",
        "numbers": state_dict({"a": b"K\x01"}), "model of none": state_dict({"model": b"N", "a": tensor()}),
        "model of a list": state_dict({"model": b"]", "a": tensor()}), "model of nothing": state_dict({"model": b"}"}),
        "storage for a tensor": state_dict({"a": storage()}), "tensor with a state": state_dict({"a": tensor() + b"}b"}),
        "tensor of a tensor": state_dict({"a": tensor(made_of=tensor())}), "tensor as a dict": PROTO + tensor() + b"NNs.",
    }  # fmt: skip
    files = {key: pth(program, {"0": DATA}) for key, program in programs.items()}
    files |= {
        "big-endian": pth(weights, {"0": DATA}, byteorder=b"big"), "long byteorder": pth(weights, {"0": DATA}, byteorder=bytes(BIG)),
        "no storage": pth(weights), "two pickles": packed({"a/data.pkl": weights, "b/data.pkl": weights, "a/data/0": DATA}),
        "at the top": packed({"data.pkl": weights, "data/0": DATA}), "folder named data.pkl": packed({"a/data.pkl/": b"", "a/data/0": DATA}),
        "legacy": (GOLDEN / "legacy.pth").read_bytes(), "calls": (GOLDEN / "calls.pth").read_bytes(),
    }  # fmt: skip
    return files


# ---- little files for a lot of memory -------------------------------------------------------------------------------


def memory():
    zeros, bfloat16 = bytes(BIG), storage("BFloat16Storage")
    half, whole = (BIG // 2,), (BIG // 4,)
    query = "vit.encoder.layer.{}.attention.attention.{}.weight"
    patches = "vit.embeddings.patch_embeddings.projection.weight"
    parts = {
        query.format(i, part): tensor((3000, 5000), (5000, 1)) for i in range(100) for part in ("query", "key", "value")
    }
    google = "Transformer/encoderblock_{}/MultiHeadDotProductAttention_1/out/kernel"
    strided = {google.format(i): tensor((30, 100, 5000), (500_000, 1, 100)) for i in range(50)}
    ordered = name("collections", "OrderedDict")
    pairs = b"](" + b"".join(number(i) + b"N\x86" for i in range(20_000)) + b"e"
    npy_of = lambda descr, shape: npy(
        header=f"{{'descr': '{descr}', 'fortran_order': False, 'shape': {shape}, }}", data=zeros
    )
    tensors = ",".join(f'"a{i}":{{"dtype":"F32","shape":[0],"data_offsets":[0,0]}}' for i in range(300_000))
    few = ",".join(f'"a{i}":{{"dtype":"F32","shape":[0],"data_offsets":[0,0]}}' for i in range(20_000))
    return {
        "200 tensors on one bfloat16 storage": pth(state_dict({str(i): tensor(half, (1,), made_of=bfloat16) for i in range(200)}), {"0": zeros}),
        "200 tensors on one storage": pth(state_dict({str(i): tensor(whole, (1,)) for i in range(200)}), {"0": zeros}),
        "one tensor of 45 MB": pth(state_dict({"a": tensor((11_250_000,), (1,))}), {"0": zeros[:45_000_000]}),
        "bfloat16 of 20 MB": pth(state_dict({"a": tensor((10_000_000,), (1,), made_of=bfloat16)}), {"0": zeros[:20_000_000]}),
        "query, key and value of 100 layers on one storage": pth(state_dict({patches: tensor(), **parts}), {"0": zeros}),
        "query, key and value of one layer": pth(state_dict({patches: tensor((1,), (1,)), **{query.format(0, p): tensor((1000, 3000), (3000, 1), made_of=storage(key=p[0])) for p in ("query", "key", "value")}}), dict.fromkeys("0qkv", zeros[:12_000_000])),
        "strided kernels that reshape copies": pth(state_dict({"embedding/kernel": tensor((1,) * 4, (1,) * 4), **strided}), {"0": zeros}),
        "OrderedDict copied 20,000 times": pth(PROTO + pairs + b"q\x000" + (ordered + b"h\x00\x85R0") * 20_000 + b"N."),
        "storages of 45 MB each": pth(state_dict({str(i): tensor(made_of=storage(key=str(i))) for i in range(9)}), {str(i): zeros[:45_000_000] for i in range(9)}),
        "pickle of 60 MB": pth(PROTO + b"N" + bytes(BIG)),
        "pickle of 8 MB": pth(PROTO + text("a" * 8_000_000) + b"."),
        "npz of 60 MB": packed({"a.npy": npy_of("<f4", (BIG // 4,))}),
        "npz of 60 MB of bfloat16": packed({"a.npy": npy_of("V2", (BIG // 2,))}),
        "npz of 200 MB": packed({"a.npy": bytes(200_000_000)}),
        "npz of 45 MB": npz({"a": np.zeros(11_250_000, "f4")}),
        "npz of ten times 20 MB": npz({str(i): np.zeros(5_000_000, "f4") for i in range(10)}),
        "position embedding of 11 million bytes": npz({**STATE, "pos_embed": np.ones((1, 1 + 1200**2, 8), "i1")}),
        "patch weights of a million channels": npz({**STATE, "patch_embed.proj.weight": np.ones((8, 80_000, 4, 4), "i1")}),
        "patch weights without channels": npz({**STATE, "patch_embed.proj.weight": np.ones((8, 0, 4, 4), "f4")}),
        "header of 20 MB of lists": safetensors("[" + "[]," * 6_666_666 + "[]]"),
        "header of 20 MB of objects": safetensors('{"a":[' + '{"":0},' * 2_800_000 + "0]}"),
        "header of 2 MB of objects": safetensors('{"a":[' + '{"":{}},' * 250_000 + "0]}"),
        "header of 20 MB of one text": safetensors(json.dumps({"a": "🙂" + "a" * 20_000_000}, ensure_ascii=False)),
        "300,000 empty tensors": safetensors("{" + tensors + "}"),
        "20,000 empty tensors": safetensors("{" + few + "}"),
        "20,000 empty tensors in a zip": npz({str(i): np.zeros(0, "f4") for i in range(20_000)}, zipfile.ZIP_STORED),
        "bfloat16 of 20 MB, whole": safetensors({"a": {"dtype": "BF16", "shape": [10_000_000], "data_offsets": [0, 20_000_000]}}, zeros[:20_000_000]),
        "floats of 60 MB, whole": safetensors({"a": {"dtype": "F32", "shape": [BIG // 4], "data_offsets": [0, BIG]}}, zeros),
    }  # fmt: skip
