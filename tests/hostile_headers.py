"""Weight files whose headers are wrong in some way, made by hand: {name: bytes} of safetensors and .npz."""

import itertools
import json
import struct
import zipfile

import numpy as np
from weight_files import npy, npz, packed, safetensors

ENTRY = {"dtype": "F32", "shape": [2, 2], "data_offsets": [0, 16]}
DATA = np.arange(4, dtype="<f4").tobytes()


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
            [2**63, 2], [0, 2**62], [0, 2**70], [10**4000], [1] * 31 + [4], [1] * 63 + [4], [1] * 64 + [4],
            [1] * 9999 + [4],
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


# ---- .npz -----------------------------------------------------------------------------------------------------------


def npy_headers():
    fields = "{'descr': %s, 'fortran_order': %s, 'shape': %s, }"
    headers = {
        "minuses": "-" * 9990 + "1", "brackets": "(" * 9000, "lists": "[" * 4000 + "]" * 4000, "braces": "{" * 9000,
        "code": "__import__('os').system('true')", "nothing": "", "list": "[]", "number": "5", "blanks": " " * 9000,
        "half": "{'descr': '<f4', 'fortran_", "no shape": "{'descr': '<f4', 'fortran_order': False, }",
        "nul": "\0" * 100,
        "long shape": fields % ("'<f4'", "False", "(" + "1," * 4800 + ")"), "quotes": "'" * 9000,
        "backslashes": "\\" * 9000,
        "python 2": fields % ("'<f4'", "False", "(2L, 2L)"),
        "json": '{"descr": "<f4", "fortran_order": False, "shape": (4)}',
    }  # fmt: skip
    kinds = ["'|O'", "'O'", "'<U8'", "'|S16'", "'<c8'", "'<M8[s]'", "'|V16'", "'V2'", "'<V2'", "'<f3'", "'<f99'"]
    kinds += ["'|b1'", "'>f4'", "'<i4'", "'?'", "[('a', '<f4')]", "('<f4', (4,))", "'(4,)f4'", "'f4,f4'", "None", "5"]
    kinds += ["'" + "f" * 9000 + "'"]
    headers |= {f"descr {kind[:20]}": fields % (kind, "False", "(2, 2)") for kind in kinds}
    shapes = ["()", "(4,)", "(-4,)", "(-2, -2)", "(4.0,)", "(2**2,)", "('4',)", "((4,),)", "[4]", "4", "None"]
    shapes += ["(True, 4)", f"({2**62}, {2**62})", f"({2**63},)", f"({10**30},)", f"(0, {10**18})", f"(0, {10**30})"]
    shapes += ["(" + "9" * 9000 + ",)", "(1,) * 4", "(" + "1, " * 70 + "4)"]
    headers |= {f"shape {shape[:20]}": fields % ("'<f4'", "False", shape) for shape in shapes}
    orders = ["True", "0", "1", "None", "'F'", "[]"]
    headers |= {f"order {order}": fields % ("'<f4'", order, "(2, 2)") for order in orders}
    files = {key: packed({"a.npy": npy(header=header, data=DATA)}) for key, header in headers.items()}
    good = fields % ("'<f4'", "False", "(2, 2)")
    for version, length in itertools.product((1, 2), (0, 1, 10, 65535)):
        made = npy(header=good, data=DATA, version=version, length=length)
        files[f"version {version}, header length {length}"] = packed({"a.npy": made})
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
        "same name twice": same_name_twice(), "absolute": npz({"/etc/passwd": np.ones(3)}),
        "bzip2": packed({"a.npy": b""}, 12),
        "lzma": packed({"a.npy": b""}, 14), "zip in a zip": packed({"a.npy": whole}), "npy alone": npy(np.ones(3)),
        "members at one place": members_at_one_place(40_000), "100,000 members": members_at_one_place(100_000),
        "300,000 members": members_at_one_place(300_000),
    }  # fmt: skip
    return files


ZIP_FIELDS = {  # of a member in the central directory: place and form
    "version": (6, "<H"),
    "flags": (8, "<H"),
    "method": (10, "<H"),
    "crc": (16, "<I"),
    "packed size": (20, "<I"),
    "size": (24, "<I"),
    "length of name": (28, "<H"),
    "length of extra": (30, "<H"),
    "disk": (34, "<H"),
    "place": (42, "<I"),
}


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
