"""PyTorch files whose pickles or storages are wrong in some way, made by hand: {name: bytes}."""

import pathlib
import struct

import numpy as np
from weight_files import (
    CYCLE,
    DAG,
    DEEP,
    DEEPER,
    PROTO,
    call,
    name,
    number,
    numbers,
    packed,
    pth,
    state_dict,
    storage,
    tensor,
    text,
)

GOLDEN = pathlib.Path(__file__).parent / "golden"
DATA = np.arange(4, dtype="<f4").tobytes()
BIG = 60_000_000


def pickles_with_bombs():
    return {key: pth(program, {"0": DATA}) for key, program in bombs().items()}


def batches_with_bombs():
    """As CIFAR's batches, which are pickles alone; their names end in ".pickle"."""
    return {f"{key}.pickle": program for key, program in bombs().items()}


def bombs():
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
        parameter = call(name("torch._utils", "_rebuild_parameter"), bomb)
        programs[f"{kind} as a parameter"] = b"}" + text("a") + parameter + b"s."
        programs[f"{kind} beside a tensor"] = b"}" + text("a") + tensor() + b"s" + text("b") + bomb + b"s."
    programs["a million tuples as key"] = b"}" + DEEPER + b"Ns."
    programs["a million tuples as item of a set"] = b"\x8f(" + DEEPER + b"\x90."
    programs["models in models"] = b"}q\x00" + text("model") + b"h\x00s."
    programs["a thousand models in models"] = (b"}" + text("model")) * 1000 + b"}" + b"s" * 1000 + b"."
    return {key: PROTO + program for key, program in programs.items()}


def pickles_too_long():
    floods = {
        "none": b"N", "dicts": b"}", "sets": b"\x8f", "marks": b"(", "lists": b"]", "tuples": b")", "ones": b"K\x01",
        "memoized sets": b"\x8f\x94", "dup": b"N2", "push and pop": b"N0", "globals": b"ca\nb\n",
        "puts": b"Nr\x00\x00\x00\x00",
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
        "newobj_ex": b"c{m}\n{n}\n(S'touch canary'\nt}\x92.",
        "stack_global": b"S'{m}'\nS'{n}'\n\x93(S'touch canary'\ntR.",
        "build": b"c{m}\n{n}\n}S'touch canary'\nb.",
    }  # fmt: skip
    programs = {}
    for module, attribute in functions:
        for way, program in ways.items():
            made = program.replace(b"{m}", module.encode()).replace(b"{n}", attribute.encode())
            programs[f"{module}.{attribute} by {way}"] = b"\x80\x04" + made
    others = {
        "ext1": b"\x82\x01)R.", "ext2": b"\x83\x01\0)R.", "ext4": b"\x84\x01\0\0\0)R.", "persid": b"Pabc\n.",
        "next_buffer": b"\x97.", "readonly_buffer": b"\x97\x98.", "frozenset": b"(K\x01\x91.", "no stop": b"N",
        "empty": b"",
        "only stop": b".", "mark at the end": b"(.", "call of a mark": b"()R.", "get of nothing": b"h\x05.",
        "bad opcode": b"\xff.",
        "protocol 9": b"\x80\x09N.", "constructor without arguments": name("torch._utils",
        "_rebuild_tensor_v2") + b")R.",
        "constructor with a list": name("torch._utils", "_rebuild_tensor_v2") + b"]R.",
        "encode": call(name("_codecs", "encode"), text("a")) + b".",
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
        "storage for a tensor": state_dict({"a": storage()}),
        "tensor with a state": state_dict({"a": tensor() + b"}b"}),
        "tensor of a tensor": state_dict({"a": tensor(made_of=tensor())}),
        "tensor as a dict": PROTO + tensor() + b"NNs.",
    }  # fmt: skip
    files = {key: pth(program, {"0": DATA}) for key, program in programs.items()}
    files |= {
        "big-endian": pth(weights, {"0": DATA}, byteorder=b"big"),
        "long byteorder": pth(weights, {"0": DATA}, byteorder=bytes(BIG)),
        "no storage": pth(weights), "two pickles": packed({"a/data.pkl": weights, "b/data.pkl": weights,
        "a/data/0": DATA}),
        "at the top": packed({"data.pkl": weights, "data/0": DATA}),
        "folder named data.pkl": packed({"a/data.pkl/": b"", "a/data/0": DATA}),
        "legacy": (GOLDEN / "legacy.pth").read_bytes(), "calls": (GOLDEN / "calls.pth").read_bytes(),
    }  # fmt: skip
    return files
