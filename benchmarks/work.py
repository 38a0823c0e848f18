"""One piece of work, in a process of its own: `python -m benchmarks.work KIND CONFIG ENGINE`.

Each line on standard input runs the work once and prints its milliseconds; at the end of input the peak memory in MiB
is printed. benchmarks.run starts several of these and times them in turn, so that a noisy machine does not decide and
no engine's idle threads disturb another's.
"""

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


def numpyvit_work(kind, config, threads):
    import numpyvit as nv

    img, patch, chans, dim, depth, heads, ratio, classes, _ = config
    x, y = images(config)
    model = nv.VisionTransformer(img, patch, chans, classes, dim, depth, heads, ratio)
    if kind == "infer":
        return lambda: nv.infer(model, x, threads)
    if kind == "forward":  # a training forward, its residuals kept
        return lambda: model.forward(x, nv.Tape(model))
    step = nv.TrainStep(model, nv.optim.AdamW(model, lr=1e-3), threads=threads)
    return lambda: step(x, y)


def torch_work(kind, config, threads, fused_attention, compiled=False):
    import torch

    from .torch_model import TorchViT

    torch.set_num_threads(threads)
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


def images(config):
    rng = np.random.default_rng(0)
    img, _, chans, *_, classes, batch = config
    return rng.standard_normal((batch, chans, img, img), dtype=np.float32), rng.integers(0, classes, batch)


ENGINES = {
    "numpyvit": numpyvit_work,
    "torch": lambda *a: torch_work(*a, fused_attention=False),
    "torch-sdpa": lambda *a: torch_work(*a, fused_attention=True),
    "torch-compile": lambda *a: torch_work(*a, fused_attention=True, compiled=True),
}


def main(kind, config, engine, threads):
    work = ENGINES[engine](kind, CONFIGS[config], int(threads))
    for _ in sys.stdin:
        start = time.perf_counter()
        work()
        print((time.perf_counter() - start) * 1e3, flush=True)
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)


if __name__ == "__main__":
    main(*sys.argv[1:])
