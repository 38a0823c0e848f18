"""A piece of work of a detector, in a process of its own: `-m benchmarks.detection_work KIND NAME ENGINE THREADS`.

It is told what to do as benchmarks.work is. PyTorch's models are those that the tests of parity compare with.
"""

import sys
from pathlib import Path

import numpy as np

from .work import serve

# name: classes, and the fewest and most boxes in an image, as in drawn shapes and in BCCD's blood cells
STEPS = {"detr_micro_64": (5, 1, 4), "detr_mini_160": (3, 5, 25)}
BATCH = 16
_IMAGE, _CONVOLUTION = (800, 1066), (8, 64, 56, 56)


def step_data(model, name):
    """-> images with their mask and denoising queries, and targets."""
    from numpyvit.losses import denoising_queries

    classes, least, most = STEPS[name]
    rng, size, targets = np.random.default_rng(0), model.img_size, []
    for n in rng.integers(least, most + 1, BATCH):
        boxes = np.concatenate([rng.uniform(0.2, 0.8, (n, 2)), rng.uniform(0.1, 0.4, (n, 2))], 1).astype(np.float32)
        targets.append({"labels": rng.integers(0, classes, n), "boxes": boxes})
    images = rng.standard_normal((BATCH, 3, *size), dtype=np.float32)
    return (images, np.zeros((BATCH, *size), bool), denoising_queries(targets, classes, rng)), targets


def large_image():
    image = np.random.default_rng(0).standard_normal((1, 3, *_IMAGE), dtype=np.float32)
    return image, np.zeros((1, *_IMAGE), bool)


def numpyvit_work(kind, name, threads):
    import numpyvit as nv

    nv.tune_process()
    if kind == "step":
        model = nv.create_model(name, num_classes=STEPS[name][0])
        x, targets = step_data(model, name)
        optimizer = nv.optim.AdamW(model, lr=1e-4, weight_decay=1e-4)
        step = nv.TrainStep(model, optimizer, nv.losses.detection, threads=threads, clip_norm=0.1)
        return lambda: step(x, targets)
    if kind == "infer":
        model, x = nv.create_model(name), large_image()
        return lambda: nv.infer(model, x, threads)
    layer = nv.layers.Conv2d(64, 64, 3, padding=1)
    x, tape = np.random.default_rng(0).standard_normal(_CONVOLUTION, dtype=np.float32), nv.Tape(layer)
    return lambda: layer.backward(layer.forward(x, tape), tape)


def torch_work(kind, name, threads):
    import torch

    sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "reference"))
    torch.set_num_threads(threads)
    if kind == "step":
        return _torch_step(name)
    if kind == "infer":
        return _torch_inference(name)
    layer = torch.nn.Conv2d(64, 64, 3, padding=1)
    x = torch.randn(_CONVOLUTION, requires_grad=True)

    def both():
        x.grad = None
        layer.zero_grad()
        y = layer(x)
        y.backward(y.detach())

    return both


def _torch_step(name):
    import torch
    from torch_anchor_detr import AnchorDETR, set_loss
    from torch_backbones import convolutions

    import numpyvit as nv

    ours = nv.create_model(name, num_classes=STEPS[name][0])
    (images, mask, copies), targets = step_data(ours, name)
    body, channels = convolutions([len(layer.weight.data) for layer in ours.backbone[0].body[::3]])
    encoder, decoder = ours.transformer.encoder, ours.transformer.decoder
    model = AnchorDETR(
        body,
        channels,
        ours.num_classes,
        ours.num_queries,
        len(decoder.norm.weight.data),
        encoder.layers[0].self_attn.num_heads,
        enc_layers=encoder.depth,
        dec_layers=len(decoder.layers),
        dim_feedforward=len(decoder.layers[0].feed_forward.linear1.bias.data),
        temperature=ours.backbone[1].temperature,
    )
    images, mask = torch.from_numpy(images), torch.from_numpy(mask)
    copies = {name: torch.from_numpy(array) for name, array in copies.items()}
    targets = [{name: torch.from_numpy(array) for name, array in target.items()} for target in targets]
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, weight_decay=1e-4, fused=True)

    def step():
        optimizer.zero_grad()
        loss, _ = set_loss(model(images, mask, copies), targets)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 0.1)
        optimizer.step()
        return loss.item()

    return step


def _torch_inference(name):
    """The official sizes; numpyvit's presets are named after their backbone."""
    import torch

    _library = torch.library.Library("torchvision", "DEF")  # beside a build for CPUs its compiled part is missing
    for operator in ("nms", "qnms"):
        _library.define(operator + "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    from torch_backbones import residuals
    from torch_detr import DETR

    sizes = dict(hidden_dim=256, nheads=8, enc_layers=6, dec_layers=6, dim_feedforward=2048)
    model = DETR(*residuals(name.removeprefix("detr_")), 91, 100, **sizes).eval()
    image, mask = map(torch.from_numpy, large_image())

    def infer(_kept=_library):
        with torch.inference_mode():
            return model(image, mask)

    return infer


ENGINES = {"numpyvit": numpyvit_work, "torch": torch_work}


if __name__ == "__main__":
    kind, name, engine, threads = sys.argv[1:]
    serve(ENGINES[engine](kind, name, int(threads)))
