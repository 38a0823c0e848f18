"""One piece of work, in a process of its own: `python -m benchmarks.work KIND NAME ENGINE THREADS`.

Each number on standard input runs the work once and then so many times more, and prints the milliseconds of those; at
the end of input the peak memory in MiB is printed. benchmarks.run starts several of these and times them in turn, so
that a noisy machine does not decide and no engine's idle threads disturb another's.
"""

import io
import resource
import sys
import time

import numpy as np

# name: img_size, patch_size, in_chans, embed_dim, depth, num_heads, mlp_ratio, num_classes, batch
CONFIGS = {
    "28px-p7-d64-L4": (28, 7, 1, 64, 4, 4, 4, 10, 128),
    "28px-p4-d64-L6": (28, 4, 1, 64, 6, 4, 2, 10, 128),
    "32px-p4-d192-L6": (32, 4, 3, 192, 6, 3, 4, 10, 128),
    "vit_tiny-b8": (224, 16, 3, 192, 12, 3, 4, 1000, 8),
    "vit_tiny-b1": (224, 16, 3, 192, 12, 3, 4, 1000, 1),
    "vit_tiny-b16": (224, 16, 3, 192, 12, 3, 4, 1000, 16),
    "vit_base-b1": (224, 16, 3, 768, 12, 12, 4, 1000, 1),
}
LAYERS = ("Linear", "LayerNorm", "GELU", "Softmax", "Attention", "Mlp", "Block", "PatchEmbed")
_TOKENS, _WIDTH, _HEADS = (32, 65), 192, 3  # of the layers: a shard of the third configuration


def numpyvit_model(config):
    import numpyvit as nv

    img, patch, chans, dim, depth, heads, ratio, classes, _ = config
    return nv.VisionTransformer(img, patch, chans, classes, dim, depth, heads, ratio)


def numpyvit_work(kind, name, threads):
    import numpyvit as nv

    nv.tune_process()
    if kind == "layer":
        return _numpyvit_layer(name)
    config = CONFIGS[name]
    model, (x, y) = numpyvit_model(config), images(config)
    if kind == "infer":
        return lambda: nv.infer(model, x, threads)
    if kind == "forward":  # a training forward, its residuals kept
        return lambda: model.forward(x, nv.Tape(model))
    model.set_grad_checkpointing(kind == "checkpointed-step")
    step = nv.TrainStep(model, nv.optim.AdamW(model, lr=1e-3), threads=threads)
    return lambda: step(x, y)


def numpyvit_fast_work(kind, name, threads):
    import numpyvit as nv

    nv.kernels("fast")
    return numpyvit_work(kind, name, threads)


def _numpyvit_layer(name):
    import numpyvit as nv
    from numpyvit import layers

    D = _WIDTH
    layer = {
        "Linear": lambda: layers.Linear(D, D),
        "LayerNorm": lambda: layers.LayerNorm(D),
        "GELU": layers.GELU,
        "Softmax": layers.Softmax,
        "Attention": lambda: layers.Attention(D, _HEADS, qkv_bias=True),
        "Mlp": lambda: layers.Mlp(D, 4 * D),
        "Block": lambda: layers.Block(D, _HEADS, qkv_bias=True),
        "PatchEmbed": lambda: layers.PatchEmbed(32, 4, 3, D),
    }[name]()
    x, tape, one_thread = layer_input(name), nv.Tape(layer), nv.backend.shared_workers(1)
    dy = np.ones_like(layer(x))

    def both(_):
        layer.forward(x, tape)
        layer.backward(dy, tape)

    return lambda: one_thread.map(both, [None])


def torch_work(kind, name, threads, fused_attention, compiled=False):
    import torch

    from .torch_model import TorchViT, torch_layer

    torch.set_num_threads(threads)
    if kind == "layer":
        torch.set_num_threads(1)
        return torch_layer(name, torch.from_numpy(layer_input(name)), _WIDTH, _HEADS, fused_attention)
    config = CONFIGS[name]
    x, y = map(torch.from_numpy, images(config))
    model = TorchViT(*config[:-1], fused_attention=fused_attention)
    run = torch.compile(model) if compiled else model
    if kind == "infer":
        model.eval()

        def infer():
            with torch.inference_mode():
                return run(x)

        return infer
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=0.05, fused=True)

    def step():
        optimizer.zero_grad()
        loss = torch.nn.functional.cross_entropy(run(x), y)
        loss.backward()
        optimizer.step()
        return loss.item()

    return step


def onnxruntime_work(kind, name, threads):
    import onnxruntime
    import torch

    from .torch_model import TorchViT

    config = CONFIGS[name]
    x, _ = images(config)
    model, file = TorchViT(*config[:-1], fused_attention=False).eval(), io.BytesIO()
    torch.onnx.export(model, (torch.from_numpy(x),), file, input_names=["x"], dynamo=False)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(file.getvalue(), options, providers=["CPUExecutionProvider"])
    return lambda: session.run(None, {"x": x})


def images(config):
    rng = np.random.default_rng(0)
    img, _, chans, *_, classes, batch = config
    return rng.standard_normal((batch, chans, img, img), dtype=np.float32), rng.integers(0, classes, batch)


def layer_input(name):
    shape = {
        "GELU": (*_TOKENS, 4 * _WIDTH),
        "Softmax": (_TOKENS[0], _HEADS, _TOKENS[1], _TOKENS[1]),
        "PatchEmbed": (_TOKENS[0], 3, 32, 32),
    }.get(name, (*_TOKENS, _WIDTH))
    return np.random.default_rng(0).standard_normal(shape, dtype=np.float32)


def peak_memory():
    """MiB, from /proc where it can be had: getrusage counts the process that started this one too."""
    try:
        with open("/proc/self/status") as file:
            return next(float(line.split()[1]) / 1024 for line in file if line.startswith("VmHWM"))
    except (OSError, StopIteration):
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


ENGINES = {
    "numpyvit": numpyvit_work,
    "numpyvit-fast": numpyvit_fast_work,
    "torch": lambda *a: torch_work(*a, fused_attention=False),
    "torch-sdpa": lambda *a: torch_work(*a, fused_attention=True),
    "torch-compile": lambda *a: torch_work(*a, fused_attention=True, compiled=True),
    "onnxruntime": onnxruntime_work,
}


def main(kind, name, engine, threads):
    serve(ENGINES[engine](kind, name, int(threads)))


def serve(work):
    """Run it as often as standard input says, and print the milliseconds; at the end the peak memory in MiB."""
    for line in sys.stdin:
        times = []
        for _ in range(1 + int(line)):
            start = time.perf_counter()
            work()
            times.append((time.perf_counter() - start) * 1e3)
        print(*times[1:], flush=True)
    print(peak_memory())


if __name__ == "__main__":
    main(*sys.argv[1:])
