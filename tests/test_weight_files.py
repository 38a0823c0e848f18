"""What reading and writing weight files promises: memory, equal files, and messages that say what to do."""

import os
import struct
import tracemalloc

import numpy as np
import pytest
import weight_files as wf
from foreign_weights import huggingface_names, tiny
from safetensors.numpy import load_file, save_file

import numpyvit as nv
from numpyvit import cli
from numpyvit.data.formats import parse_cifar_python
from numpyvit.errors import CheckpointError, DataError
from numpyvit.files import pickles
from numpyvit.files.budget import ARRAY, Budget, TooLarge
from numpyvit.weights.checkpoint import load_tensors, read_checkpoint, save_checkpoint, save_tensors

MIB = 1 << 20
LAYER = "vit.encoder.layer.1.attention.attention."


def peak_of(function, *arguments):
    """-> (result, bytes at the peak)."""
    tracemalloc.start()
    try:
        return function(*arguments), tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def large_huggingface_file(path, kind):
    """A ViT's arrays with wide layers, about 30 MB in half precision."""
    layer = "vit.encoder.layer.{}.attention.attention.{}.weight".format
    shapes = {"vit.embeddings.patch_embeddings.projection.weight": (1024, 3, 16, 16)}
    shapes |= {layer(i, part): (1024, 1024) for i in range(4) for part in ("query", "key", "value")}
    header, end = {}, 0
    for name, shape in shapes.items():
        start, end = end, end + 2 * int(np.prod(shape))
        header[name] = {"dtype": kind, "shape": list(shape), "data_offsets": [start, end]}
    ones = struct.pack("<H", 0x3F80 if kind == "BF16" else 0x3C00)  # 1 in either
    path.write_bytes(wf.safetensors(header, ones * (end // 2)))


@pytest.mark.parametrize("kind, dtype", [("BF16", np.float32), ("F16", np.float16)])
def test_large_half_precision_files_load_within_twice_their_size(kind, dtype, tmp_path):
    path = tmp_path / "w.safetensors"
    large_huggingface_file(path, kind)
    nv.load_checkpoint(path)
    arrays, peak = peak_of(nv.load_checkpoint, path)
    qkv = arrays["blocks.3.attn.qkv.weight"]
    assert qkv.shape == (3072, 1024) and qkv.dtype == dtype and (qkv == 1).all()
    assert peak < 2 * path.stat().st_size + 16 * MIB  # and one layer's query, key and value twice


def test_float_files_are_in_memory_once(tmp_path):
    array = np.ones((2000, 2000), np.float32)
    save_file({"a": array}, tmp_path / "w.safetensors")
    np.savez(tmp_path / "w.npz", a=array)
    for name in ("w.safetensors", "w.npz"):
        nv.load_checkpoint(tmp_path / name)
        _, peak = peak_of(nv.load_checkpoint, tmp_path / name)
        assert peak < array.nbytes + 3 * MIB


def test_tensors_on_one_storage_share_its_memory(tmp_path):
    half = wf.storage("BFloat16Storage")
    program = wf.state_dict({str(i): wf.tensor((2, 2), (2, 1), made_of=half) for i in range(3)})
    (tmp_path / "w.pth").write_bytes(wf.pth(program, {"0": struct.pack("<4H", *[0x3F80] * 4)}))
    arrays = nv.load_checkpoint(tmp_path / "w.pth")
    assert all(np.array_equal(array, np.ones((2, 2))) for array in arrays.values())
    assert np.shares_memory(arrays["0"], arrays["2"])


def test_tensors_on_one_storage_are_counted_whole(tmp_path):
    program = wf.state_dict({str(i): wf.tensor((1000, 2000), (2000, 1)) for i in range(8)})
    (tmp_path / "w.pth").write_bytes(wf.pth(program, {"0": bytes(8_000_000)}))
    assert "bytes of memory" in refused(nv.load_checkpoint, tmp_path / "w.pth")


def test_a_budget_counts_what_is_alive():
    budget = Budget(10_000 + ARRAY)
    first = budget.empty((1000,), np.float32)
    view = first[::2]
    with pytest.raises(TooLarge, match="more than 11,024 bytes"):
        budget.empty((2000,), np.float32)
    del first
    assert budget.left == 6000
    del view
    assert budget.left == budget.limit


# ---- pickles --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "program, match",
    [
        (b"N0" * 600_000 + b"N.", "more than 1,000,000 steps"),
        (b"]" * 200 + b"a" * 199 + b".", "more than 100 deep"),
        (wf.DAG + b".", "more than 1,000,000 values"),
        (wf.CYCLE + b".", "deep"),
        (b"})Ns.", "a key of type tuple"),
        (b"}" + b"\x8a\x10" + (2**61 - 1 << 61).to_bytes(16, "little") + b"Ns.", "a key of type int"),
        (wf.text("a" * 300) + wf.text("b") + b"\x93.", "is not a name"),
    ],
)
def test_pickles_are_bounded_in_steps_depth_and_keys(program, match):
    with pytest.raises(pickles.PickleError, match=match):
        pickles.read(wf.PROTO + program, budget=Budget())


def test_copies_in_a_cifar_batch_are_counted():
    text = wf.text("a" * 200_000) + b"q\x000" + wf.text("latin1") + b"q\x010"
    copies = (wf.name("_codecs", "encode") + b"(h\x00h\x01tR") * 1000
    with pytest.raises(DataError, match=r"more than .* bytes of memory"):
        parse_cifar_python(wf.PROTO + text + copies + b".", "file")


def test_a_signal_while_a_pickle_is_read_is_not_taken_for_damage():
    def interrupted(identity):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        pickles.read(wf.PROTO + b"NQ.", persistent=interrupted)


# ---- what is written ------------------------------------------------------------------------------------------------


def test_equal_checkpoints_are_equal_files_that_safetensors_loads(tmp_path):
    model = tiny(seed=3)
    paths = [tmp_path / f"{i}.safetensors" for i in range(8)]
    for path in paths:
        save_checkpoint(path, model, classes=["ä", "b"], mean=[0.5] * 3)
    assert len({path.read_bytes() for path in paths}) == 1
    state, arrays = model.state_dict(), load_file(paths[0])
    assert arrays.keys() == state.keys() and all(np.array_equal(arrays[name], state[name]) for name in state)
    assert read_checkpoint(paths[0])[1]["classes"] == ["ä", "b"]


def test_the_records_of_a_long_run_outgrow_a_small_model(tmp_path):
    record = {f"figure_{i}": i / 7 for i in range(9)}
    save_tensors(tmp_path / "state.safetensors", {"a": np.ones(2)}, {"records": [record] * 50_000})
    assert len(load_tensors(tmp_path / "state.safetensors")[1]["records"]) == 50_000


# ---- messages -------------------------------------------------------------------------------------------------------


def refused(function, *arguments):
    with pytest.raises(CheckpointError) as caught:
        function(*arguments)
    message = str(caught.value)
    assert "\n" not in message and len(message) < 3000
    return message


def test_a_run_directory_names_the_file_in_it(tmp_path):
    assert "is a directory; name a weight file" in refused(nv.load_checkpoint, tmp_path)
    save_checkpoint(tmp_path / "best.safetensors", tiny())
    assert f"name the file in it, {tmp_path / 'best.safetensors'}" in refused(nv.load_checkpoint, tmp_path)


def test_what_is_no_file_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "fifo")
    assert "not a regular file" in refused(nv.load_checkpoint, tmp_path / "fifo")
    assert "there is no such checkpoint file" in refused(nv.load_checkpoint, tmp_path / "fifo" / "w.npz")
    assert "cannot be read" in refused(nv.load_checkpoint, "a\0b")


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_what_may_not_be_read_is_said(tmp_path):
    save_checkpoint(tmp_path / "w.safetensors", tiny())
    (tmp_path / "w.safetensors").chmod(0)
    assert "cannot be read (Permission denied)" in refused(nv.load_checkpoint, tmp_path / "w.safetensors")


def test_long_messages_are_cut_in_their_middle():
    message = str(CheckpointError("path: " + "x" * 100_000 + "; do this"))
    assert len(message) < 6100 and message.startswith("path: x") and message.endswith("x; do this")


def test_names_that_are_no_text_are_refused(tmp_path):
    for name in ("a\nb", "\x1b[2J", "a" * 501):
        np.savez(tmp_path / "w.npz", **{name: np.ones(2)})
        assert "expected a short line of text" in refused(nv.load_checkpoint, tmp_path / "w.npz")


@pytest.mark.parametrize(
    "changes, match",
    [
        (
            {"vit.encoder.layer.1.attention.attention.key.weight": np.ones((8, 7))},
            r"block 1: query, key and value weight",
        ),
        ({"vit.encoder.layer.0.attention.attention.query.bias": np.ones(())}, r"have shapes \(\), \(8,\), \(8,\)"),
        ({"classifier.weight": np.float32(1)}, r"head\.weight: given \(\), expected \(5, 8\)"),
        ({"vit.embeddings.position_embeddings": np.ones((1, 7, 8))}, "7 tokens is not 1 and a square"),
        ({"vit.embeddings.position_embeddings": np.ones(3)}, r"pos_embed: given \(3,\)"),
        ({"vit.embeddings.cls_token": np.full((1, 1, 8), np.nan)}, "cls_token holds NaN or infinity"),
    ],
)
def test_arrays_that_cannot_be_what_their_names_say(changes, match, tmp_path):
    np.savez(tmp_path / "w.npz", **{**huggingface_names(tiny().state_dict()), **changes})
    with pytest.raises(CheckpointError, match=match):
        nv.weights.load_pretrained(tiny(), tmp_path / "w.npz")


@pytest.mark.parametrize(
    "notes",
    [{"classes": 5}, {"mean": "abc"}, {"std": [None]}, {"crop_pct": 7}, {"interpolation": []}],
)
def test_notes_that_cannot_be_true_are_refused(notes, tmp_path):
    save_tensors(tmp_path / "w.safetensors", tiny().state_dict(), notes)
    message = refused(nv.weights.load_pretrained, tiny(), tmp_path / "w.safetensors")
    assert f"its note {next(iter(notes))!r} cannot be" in message


@pytest.mark.parametrize("notes, why", [("[" * 100_000, "no JSON"), ("{", "no JSON"), ("[]", "notes are a list")])
def test_metadata_that_is_no_notes_is_refused(notes, why, tmp_path):
    save_file(tiny().state_dict(), tmp_path / "w.safetensors", {"numpyvit": notes})
    assert f"is damaged ({why}" in refused(nv.load_checkpoint, tmp_path / "w.safetensors").replace("its ", "")


# ---- on the command line --------------------------------------------------------------------------------------------


def evaluated(path, *options, capsys):
    code = cli.main(["evaluate", "--checkpoint", str(path), "--data", "digits", *options])
    return code, capsys.readouterr().err


def test_a_wrong_model_is_told_what_to_type(tmp_path, capsys):
    save_checkpoint(tmp_path / "w.safetensors", nv.create_model("vit_micro_patch2_8"))
    code, error = evaluated(tmp_path / "w.safetensors", "--model", "vit_micro_patch7_28", capsys=capsys)
    assert code == 1 and error.count("\n") == 1 and "does not fit" in error and "--model" in error and "more" in error
    code, error = evaluated(tmp_path / "w.safetensors", "--model", "vit_large_patch16_224", capsys=capsys)
    assert code == 1 and error.count("\n") == 1 and "far fewer than vit_large_patch16_224" in error


@pytest.mark.parametrize(
    "recipe",
    [
        5,
        {"options": 5},
        {"unsaved": 5},
        {"unsaved": ["act_layer", 5]},
        {"model": ["vit_micro_patch2_8"]},
        {"options": {"depth": 10**9}},
        {"options": {"embed_dim": 10**6, "num_heads": 1}},
        {"options": {"mlp_ratio": 1e12}},
        {"options": {"num_classes": 10**12}},
        {"options": {"img_size": [10**6, 10**6]}},
        {"options": {"representation_size": 10**12}},
        {"options": {"embed_dim": "8"}},
        {"options": {"act_layer": "relu"}},
        {"options": {"mlp_ratio": None}},
        {"options": {"drop_rate": {}}},
    ],
)
def test_recipes_that_no_model_has_are_refused(recipe, tmp_path, capsys):
    model = nv.create_model("vit_micro_patch2_8")
    recipe = {"model": "vit_micro_patch2_8", **recipe} if isinstance(recipe, dict) else recipe
    save_tensors(tmp_path / "w.safetensors", model.state_dict(), {"recipe": recipe})
    code, error = evaluated(tmp_path / "w.safetensors", capsys=capsys)
    assert code in (1, 2) and error.startswith("numpyvit: error: ") and error.count("\n") == 1


def test_a_recipe_does_not_name_another_file(tmp_path, capsys):
    recipe = {"model": "vit_micro_patch2_8", "options": {"pretrained": str(tmp_path / "other.safetensors")}}
    save_tensors(tmp_path / "w.safetensors", nv.create_model("vit_micro_patch2_8").state_dict(), {"recipe": recipe})
    code, error = evaluated(tmp_path / "w.safetensors", capsys=capsys)
    assert code == 1 and "its recipe does not make a model" in error
