"""Models as ONNX files: what ONNX Runtime makes of them, with every operator set, and what the files say."""

import json
import pathlib
import sys
from functools import partial

import numpy as np
import pytest
from foreign_weights import TINY
from PIL import Image

import numpyvit as nv
from numpyvit import cli
from numpyvit.errors import ConfigError, RunError
from numpyvit.layers import BasicBlock, Bottleneck, GELUTanh, GroupNorm, Layer, Linear, ReLU, Sequence
from numpyvit.models import AnchorDETR, ResNet
from numpyvit.testing import randomize

DOCUMENT = pathlib.Path(__file__).parents[1] / "docs" / "onnx.md"
GOLDEN = pathlib.Path(__file__).parent / "golden"

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")

OPSETS = {17: 8, 20: 9, 23: 11}  # and the version of the format that came with each


def vit(kind=nv.VisionTransformer, **options):
    sizes = dict(img_size=(32, 24), patch_size=8, embed_dim=32, depth=2, num_heads=4, num_classes=7)
    return kind(**{**sizes, **options})


modern = partial(vit, nv.ModernVisionTransformer)


def swin(**options):
    sizes = dict(img_size=(56, 40), patch_size=4, embed_dim=16, depths=(2, 2), num_heads=(2, 4), window_size=4)
    return nv.SwinTransformer(**{**sizes, "num_classes": 5, **options})


def resnet(block=Bottleneck, **options):
    return ResNet(block, (1, 2, 1, 1), 5, width=8, img_size=64, **options)


def detr(kind=nv.DETR, **options):
    sizes = dict(num_classes=5, num_queries=6, backbone=(16, 32), img_size=(32, 48), hidden_dim=32, nheads=4)
    return kind(**{**sizes, "enc_layers": 2, "dec_layers": 2, "dim_feedforward": 64, **options})


MODELS = {
    "vit": vit,
    "vit, average": partial(vit, global_pool="avg", representation_size=16),
    "vit, hidden layer": partial(vit, representation_size=16, qkv_bias=False, qk_scale=0.2),
    "vit, tanh, no head": partial(vit, act_layer=GELUTanh, num_classes=0),
    "vit, relu": partial(vit, act_layer=ReLU),
    "deit, distilled": partial(vit, distilled=True),
    "deit3": partial(modern, init_values=0.1, no_embed_class=True),
    "dinov2 with registers": partial(modern, init_values=0.1, reg_tokens=2, no_embed_class=True, num_classes=0),
    "normalized queries": partial(modern, qk_norm=True, reg_tokens=1),
    "no class token": partial(modern, class_token=False, global_pool="avg", pre_norm=True),
    "any image size": partial(modern, dynamic_img_size=True),
    "swin": swin,
    "swin, torchvision's": partial(swin, pad_first=True),
    "swin, large windows": partial(swin, img_size=28, window_size=7, always_partition=True),
    "swin, odd maps": partial(swin, img_size=36, window_size=3, depths=(1, 1, 2), num_heads=2, head_dim=5),
    "resnet18": partial(resnet, BasicBlock),
    "resnet50": resnet,
    "resnet50, dilated": partial(resnet, replace_stride_with_dilation=(False, False, True)),
    "resnet50, group norms": partial(resnet, norm_layer=partial(GroupNorm, 4)),
    "detr": detr,
    "detr, pre-norm": partial(detr, pre_norm=True, position_embedding="learned"),
    "detr, resnet": partial(detr, backbone="resnet18", enc_layers=0),
    "detr, anchors": partial(detr, AnchorDETR, groups=2),
    "detr, anchors alone": partial(detr, AnchorDETR, denoising=False, pre_norm=True),
}


def ready(model):
    """The model with values that show in every parameter and statistic, and logits of the size of one."""
    rng = np.random.default_rng(5)
    if not isinstance(model, ResNet):
        randomize(model, std=0.15)
    for name, buffer in model.saved_buffers():
        low, high = (-0.2, 0.2) if name.endswith(("bias", "mean")) else (0.6, 1.2)
        buffer.data[...] = rng.uniform(low, high, buffer.data.shape)
    return model


def run(path, images):
    """{name: output} of ONNX Runtime."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return dict(zip([output.name for output in session.get_outputs()], session.run(None, {"images": images})))


def images_for(model, batch, size=None, seed=0):
    channels, *own = model.input_shape
    return np.random.default_rng(seed).standard_normal((batch, channels, *(size or own)), dtype=np.float32)


def assert_same(path, model, images):
    found, expected = run(path, images), model(images)
    if not isinstance(expected, dict):
        expected = {"logits" if model.num_classes else "features": expected}
    assert found.keys() == expected.keys()
    for name, array in expected.items():
        assert np.ptp(array) > 0.02  # the outputs tell something
        np.testing.assert_allclose(found[name], array, rtol=0, atol=1e-5, err_msg=name)


@pytest.mark.parametrize("opset", OPSETS)
@pytest.mark.parametrize("name", MODELS)
def test_onnx_runtime_gives_what_the_model_gives_for_any_batch(name, opset, tmp_path):
    model = ready(MODELS[name]())
    nv.export_onnx(model, tmp_path / "model.onnx", opset)
    proto = onnx.load(tmp_path / "model.onnx")
    assert [entry.version for entry in proto.opset_import] == [opset] and proto.ir_version == OPSETS[opset]
    for batch in (1, 3):
        assert_same(tmp_path / "model.onnx", model, images_for(model, batch))


@pytest.mark.parametrize("name", ["resnet50", "detr", "detr, pre-norm"])
def test_models_for_images_of_any_size_stay_so(name, tmp_path):
    model = ready(MODELS[name]())
    nv.export_onnx(model, tmp_path / "model.onnx")
    for size in ((64, 64), (40, 72)):
        assert_same(tmp_path / "model.onnx", model, images_for(model, 2, size))


PRESETS = ["vit_base_patch16_224", "deit_base_distilled_patch16_224", "deit3_base_patch16_224", "detr_resnet50"]
PRESETS += ["vit_base_patch14_dinov2", "swin_base_patch4_window7_224", "resnet101"]


@pytest.mark.slow
@pytest.mark.parametrize("opset", OPSETS)
@pytest.mark.parametrize("name", PRESETS)
def test_presets_up_to_base(name, opset, tmp_path):
    model = nv.create_model(name, seed=1, **({"img_size": 224} if "dinov2" in name else {}))
    for key, array in (*model.named_parameters(), *model.saved_buffers()):
        if key.endswith((".gamma", ".bn3.weight")):
            array.data[...] = 0.3  # else untrained branches show too little in DeiT-III, too much in ResNet
    nv.export_onnx(model, tmp_path / "model.onnx", opset)
    assert_same(tmp_path / "model.onnx", model, images_for(model, 1, (224, 224)))


@pytest.mark.parametrize("opset, operators", [(17, set()), (20, {"Gelu"}), (23, {"Gelu", "Attention"})])
def test_later_operator_sets_say_more_in_one_operator(opset, operators, tmp_path):
    nv.export_onnx(vit(), tmp_path / "model.onnx", opset)
    kinds = {node.op_type for node in onnx.load(tmp_path / "model.onnx").graph.node}
    assert kinds & {"Gelu", "Attention"} == operators and "LayerNormalization" in kinds
    assert ("Erf" in kinds) == ("Gelu" not in operators) and ("Softmax" in kinds) == ("Attention" not in operators)


def test_nodes_and_weights_have_the_layers_names(tmp_path):
    model = vit()
    nv.export_onnx(model, tmp_path / "model.onnx")
    graph = onnx.load(tmp_path / "model.onnx").graph
    shapes = {array.name: tuple(array.dims) for array in graph.initializer}
    own = {name: parameter.data.shape for name, parameter in model.named_parameters()}
    assert own.items() <= shapes.items() and all(name.startswith("/constants/") for name in shapes.keys() - own.keys())
    assert any(node.name.startswith("/blocks.1.attn.qkv/MatMul") for node in graph.node)


def test_the_file_says_how_images_are_prepared_and_which_model_it_is(tmp_path):
    model = nv.create_model("vit_micro_patch4_32", num_classes=2)
    model.pretrained_cfg |= {"classes": ["bright", "dark"], "mean": (0.1, 0.2, 0.3)}
    nv.export_onnx(model, tmp_path / "model.onnx")
    notes = json.loads({e.key: e.value for e in onnx.load(tmp_path / "model.onnx").metadata_props}["numpyvit"])
    assert notes["classes"] == ["bright", "dark"] and notes["input_size"] == [3, 32, 32]
    assert notes["mean"] == [0.1, 0.2, 0.3] and notes["crop_pct"] == 1.0 and notes["interpolation"] == "bicubic"
    assert notes["recipe"] == {"model": "vit_micro_patch4_32", "options": {"num_classes": 2}}


@pytest.mark.parametrize("name", ["vit", "resnet18", "detr"])
def test_preprocessing_in_the_graph_takes_pixels_as_decoders_give_them(name, tmp_path):
    model = ready(MODELS[name]())
    model.pretrained_cfg = {"mean": (0.1, 0.5, 0.9), "std": (0.2, 0.3, 0.5)}
    nv.export_onnx(model, tmp_path / "model.onnx", with_preprocessing=True)
    pixels = np.random.default_rng(0).integers(0, 256, (2, *model.input_shape), dtype=np.uint8)
    expected = model(model.preprocessing.normalize(pixels))
    found = run(tmp_path / "model.onnx", np.ascontiguousarray(pixels.transpose(0, 2, 3, 1)))
    for key, array in (expected if isinstance(expected, dict) else {"logits": expected}).items():
        np.testing.assert_allclose(found[key], array, rtol=0, atol=1e-5)


def test_a_model_that_recomputes_or_holds_float64_is_written_like_any_other(tmp_path):
    model = ready(vit())
    nv.export_onnx(model, tmp_path / "a.onnx")
    model.set_grad_checkpointing()
    nv.export_onnx(model.astype("float64"), tmp_path / "b.onnx")
    assert (tmp_path / "a.onnx").read_bytes() == (tmp_path / "b.onnx").read_bytes()


class Doubled(Layer):
    """A layer of one's own."""

    def forward(self, x, tape=None):
        return 2 * x


class OwnLinear(Linear):
    """A Linear that computes something else."""

    def forward(self, x, tape=None):
        return 2 * super().forward(x)


class NarrowLinear(Linear):
    """A Linear with other initial values: the same forward."""


def test_a_layer_without_a_function_is_named_by_its_path(tmp_path):
    for own in (Doubled(), OwnLinear(32, 32)):
        model = vit()
        model.blocks[1].mlp.fc2 = own
        with pytest.raises(ConfigError, match=rf"^blocks\.1\.mlp\.fc2: a {type(own).__name__} cannot be written"):
            nv.export_onnx(model, tmp_path / "model.onnx")
    assert list(tmp_path.iterdir()) == []
    model = ready(vit(num_classes=4))
    model.head = NarrowLinear(32, 4, seed=3)
    nv.export_onnx(model, tmp_path / "model.onnx")
    assert_same(tmp_path / "model.onnx", model, 3 * images_for(model, 2))


def test_errors_say_what_to_do(tmp_path, monkeypatch):
    for opset in (16, 24, "17"):
        with pytest.raises(ConfigError, match=f"opset must be one of 17 to 23, got {opset!r}"):
            nv.export_onnx(vit(), tmp_path / "model.onnx", opset)
    with pytest.raises(ConfigError, match="takes a model, such as create_model makes; got a Sequence"):
        nv.export_onnx(Sequence([Linear(2, 2)]), tmp_path / "model.onnx")
    with pytest.raises(RunError, match="cannot write"):
        nv.export_onnx(vit(), tmp_path / "missing" / "model.onnx")
    large = vit()
    large.head.weight.data = np.broadcast_to(np.float32(0), (1 << 16, 1 << 13))
    with pytest.raises(ConfigError, match="holds less than 2 GiB, but the model has 2,1"):
        nv.export_onnx(large, tmp_path / "model.onnx")
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(ConfigError, match=r"pip install numpyvit\[onnx\]"):
        nv.export_onnx(vit(), tmp_path / "model.onnx")
    assert list(tmp_path.iterdir()) == []


def numpyvit(*args):
    return cli.main([str(arg) for arg in args])


def test_convert_writes_a_checkpoint_as_onnx(tmp_path, capsys):
    from numpyvit.weights import save_checkpoint

    model = nv.create_model("vit_micro_patch2_8", seed=3)
    save_checkpoint(tmp_path / "best.safetensors", model, **model.pretrained_cfg)
    assert numpyvit("convert", tmp_path / "best.safetensors", tmp_path / "model.onnx") == 0
    assert "opset 17" in capsys.readouterr().out
    assert_same(tmp_path / "model.onnx", model, 5 * images_for(model, 2))
    assert numpyvit("convert", tmp_path / "best.safetensors", tmp_path / "model.onnx") == 1
    more = ("--opset", 20, "--with-preprocessing")
    assert numpyvit("convert", tmp_path / "best.safetensors", tmp_path / "pixels.onnx", *more) == 0
    Image.fromarray(np.arange(64, dtype=np.uint8).reshape(8, 8) * 4).save(tmp_path / "digit.png")
    pixels = np.asarray(Image.open(tmp_path / "digit.png"))
    expected = model(model.preprocessing.normalize(pixels[None, None]))
    found = run(tmp_path / "pixels.onnx", pixels[None, :, :, None])
    np.testing.assert_allclose(found["logits"], expected, rtol=0, atol=1e-5)
    assert numpyvit("convert", tmp_path / "best.safetensors", tmp_path / "w.safetensors", *more) == 2
    assert "are for ONNX" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["vit", "deit, distilled", "dinov2 with registers", "swin", "resnet50", "detr"])
def test_weights_are_read_again(name, tmp_path):
    model = ready(MODELS[name]())
    nv.export_onnx(model, tmp_path / "model.onnx", 20)
    found, expected = nv.load_checkpoint(tmp_path / "model.onnx"), model.state_dict()
    assert found.keys() == expected.keys()
    assert all(np.array_equal(found[key], array) for key, array in expected.items())


def test_a_model_is_made_again_from_its_onnx_file(tmp_path):
    model = nv.create_model("vit_micro_patch2_8", seed=3)
    model.pretrained_cfg |= {"classes": list("abcdefghij"), "mean": (0.25,)}
    nv.export_onnx(model, tmp_path / "model.onnx")
    again = nv.create_model("vit_micro_patch2_8", pretrained=tmp_path / "model.onnx")
    images = images_for(model, 2)
    assert np.array_equal(again(images), model(images))
    assert again.pretrained_cfg["classes"] == list("abcdefghij") and again.preprocessing.mean == (0.25,)


def test_a_model_with_pytorchs_weights_gives_what_the_file_gives():
    model = nv.models.VisionTransformer(**TINY)
    nv.weights.load_pretrained(model, GOLDEN / "timm.onnx")
    images = images_for(model, 3)
    (found,) = run(GOLDEN / "timm.onnx", images).values()
    np.testing.assert_allclose(model(images), found, rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", ["vit", "resnet50", "resnet50, group norms"])
def test_a_norm_keeps_its_epsilon(name, tmp_path):
    model = ready(MODELS[name]())
    for _, layer in model.named_layers():
        if hasattr(layer, "eps"):
            layer.eps = 0.2
    nv.export_onnx(model, tmp_path / "model.onnx")
    assert_same(tmp_path / "model.onnx", model, images_for(model, 2))
