"""Live comparison with timm, torchvision and transformers: their own random weights, forward and backward."""

import importlib.util
import pathlib

import numpy as np
import pytest

import numpyvit as nv
from numpyvit.data import normalize, read_image
from numpyvit.models import count_parameters
from numpyvit.weights.checkpoint import read_checkpoint, save_checkpoint
from numpyvit.weights.names import to_timm

_NEEDED = ("torch", "torchvision", "timm", "transformers")
pytestmark = [
    pytest.mark.parity,
    pytest.mark.filterwarnings("ignore"),  # theirs, not ours
    pytest.mark.skipif(any(importlib.util.find_spec(n) is None for n in _NEEDED), reason=f"needs {', '.join(_NEEDED)}"),
]
SHARED = pathlib.Path(__file__).parents[2] / "shared" / "data"
PRESETS = [
    n
    for n in nv.list_models()
    if count_parameters(n) < 90e6
    and not n.startswith(("vit_micro", "vit_mini", "swin", "resnet", "detr"))  # which have files of their own
    and not n.startswith("vit_base_patch14")
]


@pytest.fixture(scope="module")
def timm(torch):
    import timm

    return timm


def arrays_of(module):
    return {name: tensor.detach().numpy() for name, tensor in module.state_dict().items()}


def off(a, b):
    return float(np.abs(a - b).max() / max(np.abs(b).max(), 1e-30))


@pytest.mark.parametrize("name", PRESETS)
def test_presets_equal_timms_forward_and_backward(timm, name):
    import torch

    theirs = timm.create_model(name).eval()
    with torch.no_grad():
        for key, parameter in theirs.named_parameters():
            if "token" in key or "bias" in key or "gamma" in key:  # 0 and 1e-6 initially, which would show nothing
                parameter.normal_(std=0.02)
    size = theirs.patch_embed.img_size[0]
    x = np.random.default_rng(0).standard_normal((1, 3, size, size))
    single = nv.create_model(name)
    single.load_state_dict(arrays_of(theirs))
    with torch.no_grad():
        expected = theirs(torch.from_numpy(x.astype(np.float32))).numpy()
    assert np.abs(single(x.astype(np.float32)) - expected).max() <= 1e-5

    theirs, ours = theirs.double(), nv.create_model(name, dtype="float64")
    ours.load_state_dict(arrays_of(theirs))
    y_torch = theirs(torch.from_numpy(x))
    tape = nv.Tape(ours, input_gradient=False)
    y = ours.forward(x, tape)
    dy = np.random.default_rng(1).standard_normal(y_torch.shape)
    y_torch.backward(torch.from_numpy(dy))
    if isinstance(y, tuple):  # at inference both return the mean of the two heads
        ours.backward((dy / 2, dy / 2), tape)
        y = (y[0] + y[1]) / 2
    else:
        ours.backward(dy, tape)
    assert off(y, y_torch.detach().numpy()) <= 1e-10
    gradients = {key: parameter.grad.numpy() for key, parameter in theirs.named_parameters()}
    assert gradients.keys() == tape.gradients().keys()
    for key, gradient in tape.gradients().items():
        assert off(gradient, gradients[key]) <= 1e-9, key


@pytest.mark.parametrize(
    "options",
    [
        dict(init_values=0.1, qk_norm=True),
        dict(dynamic_img_size=True, reg_tokens=1),
        dict(reg_tokens=3, no_embed_class=True, pre_norm=True),
        dict(class_token=False, global_pool="avg", reg_tokens=2),
        dict(class_token=False, global_pool="avg", no_embed_class=True, qk_norm=True),
    ],
)
def test_modern_options_equal_timms_forward_and_backward(timm, options):
    import torch

    sizes = dict(img_size=32, patch_size=8, num_classes=7, embed_dim=24, depth=2, num_heads=3)
    theirs = timm.models.VisionTransformer(**sizes, **options).double().eval()
    with torch.no_grad():
        for parameter in theirs.parameters():
            parameter.normal_(std=0.3)
    ours = nv.ModernVisionTransformer(**sizes, **options, dtype="float64")
    ours.load_state_dict(arrays_of(theirs))
    size = (48, 24) if "dynamic_img_size" in options else (32, 32)
    x, dy = np.random.default_rng(0).standard_normal((2, 3, *size)), np.random.default_rng(1).standard_normal((2, 7))
    x_torch = torch.from_numpy(x).requires_grad_()
    y_torch = theirs(x_torch)
    y_torch.backward(torch.from_numpy(dy))
    tape = nv.Tape(ours)
    forward, backward = (1e-7, 1e-6) if "dynamic_img_size" in options else (1e-10, 1e-9)  # timm resizes in float32
    assert off(ours.forward(x, tape), y_torch.detach().numpy()) <= forward
    assert off(ours.backward(dy, tape), x_torch.grad.numpy()) <= backward
    largest = max(float(p.grad.abs().max()) for p in theirs.parameters())
    for key, parameter in theirs.named_parameters():
        difference = np.abs(tape.gradients()[key] - parameter.grad.numpy()).max()
        assert difference <= backward * max(float(parameter.grad.abs().max()), 1e-4 * largest), key


def test_what_we_save_timm_loads_strictly(timm, tmp_path):
    from safetensors.torch import load_file

    for name in ("vit_tiny_patch16_224", "deit_tiny_distilled_patch16_224"):
        save_checkpoint(tmp_path / "w.safetensors", nv.create_model(name, seed=3))
        timm.create_model(name).load_state_dict(load_file(tmp_path / "w.safetensors"), strict=True)


def torchvisions(name):
    import torch
    import torchvision

    theirs = getattr(torchvision.models, name)()
    torch.nn.init.normal_(theirs.heads.head.weight, std=0.02)  # 0 initially, which would show nothing
    return theirs


def hugging_faces(kind, width, heads, patch):
    import transformers

    sizes = dict(hidden_size=width, num_attention_heads=heads, intermediate_size=4 * width, patch_size=patch)
    config = getattr(transformers, f"{kind}Config")(**sizes, num_labels=1000)
    suffix = "WithTeacher" if kind == "DeiT" else ""
    return getattr(transformers, f"{kind}ForImageClassification{suffix}")(config)


OTHERS = {
    "vit_base_patch16_224": [(torchvisions, "vit_b_16"), (hugging_faces, "ViT", 768, 12, 16)],
    "vit_base_patch32_224": [(torchvisions, "vit_b_32"), (hugging_faces, "ViT", 768, 12, 32)],
    "vit_tiny_patch16_224": [(hugging_faces, "ViT", 192, 3, 16)],
    "vit_small_patch16_224": [(hugging_faces, "ViT", 384, 6, 16)],
    "vit_small_patch32_224": [(hugging_faces, "ViT", 384, 6, 32)],
    "deit_tiny_distilled_patch16_224": [(hugging_faces, "DeiT", 192, 3, 16)],
    "deit_small_distilled_patch16_224": [(hugging_faces, "DeiT", 384, 6, 16)],
    "deit_base_distilled_patch16_224": [(hugging_faces, "DeiT", 768, 12, 16)],
}


@pytest.mark.parametrize("name, make", [(name, make) for name, makes in OTHERS.items() for make in makes])
def test_presets_equal_torchvisions_and_hugging_faces(timm, tmp_path, name, make):
    """Their weights by their file, forward and every gradient; theirs are renamed as their weights are."""
    import torch

    theirs = make[0](*make[1:]).eval()
    torch.save(theirs.state_dict(), tmp_path / "w.pth")
    x = np.random.default_rng(0).standard_normal((1, 3, 224, 224))

    def logits_of(x):
        y = theirs(x)
        return y if isinstance(y, torch.Tensor) else y.logits

    with torch.no_grad():
        expected = logits_of(torch.from_numpy(x.astype(np.float32))).numpy()
    single = nv.create_model(name, pretrained=tmp_path / "w.pth")
    assert np.abs(single(x.astype(np.float32)) - expected).max() <= 1e-5
    ours, theirs = nv.create_model(name, pretrained=tmp_path / "w.pth", dtype="float64"), theirs.double()
    y_torch = logits_of(torch.from_numpy(x))
    dy = np.random.default_rng(1).standard_normal((1, 1000))
    y_torch.backward(torch.from_numpy(dy))
    assert off(ours(x), y_torch.detach().numpy()) <= 1e-10
    tape = nv.Tape(ours, input_gradient=False)
    pair = isinstance(ours.forward(x, tape), tuple)  # at inference theirs is the mean of the two heads
    ours.backward((dy / 2, dy / 2) if pair else dy, tape)
    gradients = {key: parameter.grad.numpy() for key, parameter in theirs.named_parameters()}
    gradients, _ = to_timm(gradients)
    assert gradients.keys() == tape.gradients().keys()
    largest = max(np.abs(gradient).max() for gradient in gradients.values())
    for key, gradient in tape.gradients().items():
        difference = np.abs(gradient - gradients[key]).max()
        assert difference <= 1e-9 * max(np.abs(gradients[key]).max(), 1e-4 * largest), key  # a key's bias has exactly 0


@pytest.mark.parametrize("size", [(160, 160), (288, 288), (224, 320)])
def test_other_image_sizes_equal_timms_and_hugging_faces(timm, tmp_path, size):
    import torch
    import transformers

    x = np.random.default_rng(0).standard_normal((1, 3, *size)).astype(np.float32)
    config = transformers.ViTConfig(
        hidden_size=192, num_attention_heads=3, num_hidden_layers=2, intermediate_size=768, num_labels=10
    )
    theirs = transformers.ViTForImageClassification(config).eval()
    theirs.save_pretrained(tmp_path)
    options = dict(img_size=size, depth=2, num_classes=10)
    ours = nv.create_model("vit_tiny_patch16_224", pretrained=tmp_path / "model.safetensors", **options)
    with torch.no_grad():
        expected = theirs(torch.from_numpy(x), interpolate_pos_encoding=True).logits.numpy()
    assert np.abs(ours(x) - expected).max() <= 1e-5

    source = timm.create_model("vit_tiny_patch16_224", depth=2, num_classes=10)
    np.savez(tmp_path / "w.npz", **arrays_of(source))
    ours = nv.create_model("vit_tiny_patch16_224", pretrained=tmp_path / "w.npz", **options)
    theirs = timm.create_model("vit_tiny_patch16_224", **options).eval()
    state = timm.models.vision_transformer.checkpoint_filter_fn(source.state_dict(), theirs)
    theirs.load_state_dict(state)
    with torch.no_grad():
        assert np.abs(ours(x) - theirs(torch.from_numpy(x)).numpy()).max() <= 1e-5


@pytest.mark.parametrize("size", [128, 320])
def test_other_image_sizes_equal_torchvisions(timm, tmp_path, size):
    import torch
    from torchvision.models.vision_transformer import VisionTransformer, interpolate_embeddings

    sizes = dict(patch_size=32, num_layers=2, num_heads=3, hidden_dim=192, mlp_dim=768, num_classes=10)
    source, theirs = VisionTransformer(224, **sizes), VisionTransformer(size, **sizes).eval()
    torch.nn.init.normal_(source.heads.head.weight, std=0.02)
    torch.save(source.state_dict(), tmp_path / "w.pth")
    theirs.load_state_dict(interpolate_embeddings(size, 32, source.state_dict()))
    options = dict(patch_size=32, depth=2, num_classes=10, img_size=size)
    ours = nv.create_model("vit_tiny_patch16_224", pretrained=tmp_path / "w.pth", **options)
    x = np.random.default_rng(0).standard_normal((1, 3, size, size)).astype(np.float32)
    with torch.no_grad():
        assert np.abs(ours(x) - theirs(torch.from_numpy(x)).numpy()).max() <= 1e-5


def test_hugging_faces_preparation(timm):
    import transformers
    from PIL import Image

    processor = transformers.ViTImageProcessorPil if hasattr(transformers, "ViTImageProcessorPil") else None
    if processor is None or not SHARED.is_dir():
        pytest.skip("its Pillow processor or the photographs are not at hand")
    file = SHARED / "photos" / "chelsea.png"
    with Image.open(file) as image:
        expected = processor(size={"height": 224, "width": 224})(image, return_tensors="np")["pixel_values"]
    pixels = read_image(file, (224, 224), 3, interpolation="squash")
    assert np.abs(normalize(pixels[None], (0.5,) * 3, (0.5,) * 3) - expected).max() <= 1e-6


@pytest.mark.parametrize("channels", [1, 2, 4, 6])
def test_other_channels_equal_timms(timm, channels):
    import torch

    weight = torch.randn(8, 3, 4, 4)
    expected = timm.models.adapt_input_conv(channels, weight).numpy()
    np.testing.assert_allclose(nv.weights.fold_channels(weight.numpy(), channels), expected, rtol=1e-6, atol=1e-7)


def test_ten_steps_of_training_equal_timms(timm):
    import torch

    theirs = timm.create_model("vit_tiny_patch16_224", img_size=64, num_classes=10, depth=4).train()
    ours = nv.create_model("vit_tiny_patch16_224", img_size=64, num_classes=10, depth=4)
    ours.load_state_dict(arrays_of(theirs))
    decayed = [p for n, p in theirs.named_parameters() if p.ndim > 1 and n not in ("cls_token", "pos_embed")]
    others = [p for n, p in theirs.named_parameters() if p.ndim <= 1 or n in ("cls_token", "pos_embed")]
    groups = [{"params": decayed, "weight_decay": 0.05}, {"params": others, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=1e-4)
    step = nv.TrainStep(ours, nv.optim.AdamW(ours, lr=1e-4, weight_decay=0.05))
    rng = np.random.default_rng(0)
    x, labels = rng.standard_normal((8, 3, 64, 64)).astype(np.float32), rng.integers(0, 10, 8)
    for _ in range(10):
        optimizer.zero_grad()
        expected = torch.nn.functional.cross_entropy(theirs(torch.from_numpy(x)), torch.from_numpy(labels))
        expected.backward()
        optimizer.step()
        assert abs(float(step(x, labels)) - expected.item()) <= 1e-5


TRAINED = {
    "vit_tiny_patch16_224": "vit_tiny_patch16_224_in1k.npz",
    "deit_tiny_patch16_224": "deit_tiny_patch16_224.npz",
}


@pytest.mark.skipif(not SHARED.is_dir(), reason="the trained weights are not at hand")
@pytest.mark.parametrize("name", TRAINED)
def test_trained_weights_give_timms_answers_on_photographs(timm, name):
    import torch
    from PIL import Image

    path = SHARED / "weights" / TRAINED[name]
    arrays, _, origin = read_checkpoint(path)
    theirs = timm.create_model(name).eval()
    theirs.load_state_dict({key: torch.from_numpy(array.copy()) for key, array in arrays.items()})
    transform = timm.data.create_transform(**timm.data.resolve_data_config({}, model=theirs))
    ours = nv.create_model(name, pretrained=path)
    cfg = ours.pretrained_cfg
    assert origin == "timm"
    for photo, label in (("chelsea", 285), ("coffee", 967)):
        file = SHARED / "photos" / f"{photo}.png"
        with Image.open(file) as image:
            expected_x = transform(image.convert("RGB"))[None]
        pixels = read_image(file, (224, 224), 3, cfg["crop_pct"], cfg["interpolation"])
        x = normalize(pixels[None], cfg["mean"], cfg["std"])
        assert np.abs(x - expected_x.numpy()).max() <= 1e-6
        with torch.no_grad():
            expected = theirs(expected_x).numpy()[0]
        logits = ours(x)[0]
        assert np.abs(logits - expected).max() <= 1e-4
        assert logits.argmax() == label and (np.argsort(-logits)[:5] == np.argsort(-expected)[:5]).all()
