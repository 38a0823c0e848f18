"""One Predictor, or what it is compared with, in a process of its own: see benchmarks.work and benchmarks.predictor."""

import sys
import tempfile

import numpy as np

from .work import CONFIGS, images, numpyvit_model, serve, torch_work

SWIN = "swin_tiny-b1"
NAMES = ("28px-p7-d64-L4", "28px-p4-d64-L6", "32px-p4-d192-L6", "vit_tiny-b1", "vit_tiny-b16", "vit_base-b1", SWIN)


def model_and_images(name):
    import numpyvit as nv

    if name == SWIN:
        x = np.random.default_rng(0).standard_normal((1, 3, 224, 224), dtype=np.float32)
        return nv.create_model("swin_tiny_patch4_window7_224"), x
    return numpyvit_model(CONFIGS[name]), images(CONFIGS[name])[0]


def predictor_work(name, threads):
    import numpyvit as nv

    nv.tune_process()
    model, x = model_and_images(name)
    predictor = nv.Predictor(model, threads)
    return lambda: predictor(x)


def predictor_fast_work(name, threads):
    import numpyvit as nv

    nv.kernels("fast")
    return predictor_work(name, threads)


def eager_work(name, threads, fused_attention):
    if name != SWIN:
        return torch_work("infer", name, threads, fused_attention)
    import torch

    lack = torch.library.Library("torchvision", "DEF")  # so that timm loads beside a CPU build
    for missing in ("nms", "qnms"):
        lack.define(missing + "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    import timm

    timm.layers.set_fused_attn(fused_attention)
    torch.set_num_threads(threads)
    model, x = timm.create_model("swin_tiny_patch4_window7_224").eval(), torch.from_numpy(model_and_images(name)[1])

    def infer(_kept=lack):
        with torch.inference_mode():
            return model(x)

    return infer


def onnxruntime_work(name, threads):
    """ONNX Runtime on the file that export_onnx writes."""
    import onnxruntime

    import numpyvit as nv

    model, x = model_and_images(name)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    with tempfile.NamedTemporaryFile(suffix=".onnx") as file:
        nv.export_onnx(model, file.name)
        session = onnxruntime.InferenceSession(file.name, options, providers=["CPUExecutionProvider"])
    return lambda: session.run(None, {"images": x})


ENGINES = {
    "numpyvit": predictor_work,
    "numpyvit-fast": predictor_fast_work,
    "torch": lambda *a: eager_work(*a, fused_attention=False),
    "torch-sdpa": lambda *a: eager_work(*a, fused_attention=True),
    "onnxruntime": onnxruntime_work,
}

if __name__ == "__main__":
    _, name, engine, threads = sys.argv[1:]
    serve(ENGINES[engine](name, int(threads)))
