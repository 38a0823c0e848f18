"""One piece of work on a GPU; a process is `python -m benchmarks.gpu_work KIND NAME ENGINE DEVICE:PRECISION`

As benchmarks.work, but a run is several steps or inferences and then one wait for the GPU, as in training and serving:
what Python does beside the GPU then costs nothing. DEVICE is cuda, or stand_in to try this out without a GPU.
"""

import sys

from .work import images, numpyvit_model, serve

REPEATS = 10  # steps or inferences in a run
_VIT = (32, 4, 3, 192, 12, 3, 4, 10)  # 65 tokens of width 192: the published model for images of 32 pixels
_BASE = (224, 16, 3, 768, 12, 12, 4, 1000)
# name: img_size, patch_size, in_chans, embed_dim, depth, num_heads, mlp_ratio, num_classes, batch
CONFIGS = {
    "vit-b64": (*_VIT, 64),
    "vit-b128": (*_VIT, 128),
    "vit-b512": (*_VIT, 512),
    "vit_base-b1": (*_BASE, 1),
    "vit_base-b64": (*_BASE, 64),
    "smallest": (8, 4, 1, 8, 1, 2, 2, 3, 4),
}


def numpyvit_work(kind, config, device, precision, graph):
    import numpyvit as nv
    from numpyvit.gpu.graph import Graphs
    from numpyvit.gpu.precision import products_in

    xp = namespace(device)
    x, y = map(xp.asarray, images(config))
    model = numpyvit_model(config).to(xp)
    if kind == "step":
        step = nv.TrainStep(model, nv.optim.AdamW(model, lr=1e-3), graph=graph)
        once = lambda: step(x, y)  # noqa: E731
    elif graph:
        graphs = Graphs(xp)
        once = lambda: graphs.run("", lambda given: model(given[0]), [x])  # noqa: E731
    else:
        once = lambda: nv.infer(model, x)  # noqa: E731

    def run():
        with products_in(precision):
            for _ in range(REPEATS):
                once()
        xp.cuda.get_current_stream().synchronize()

    return run


def namespace(device):
    if device == "stand_in":
        from numpyvit.testing import stand_in

        return stand_in
    from numpyvit.backend import device_module

    return device_module(device)


def torch_work(kind, config, device, precision, way):
    """way: "eager", "graph" or "compile", all with PyTorch's fused attention and fused AdamW."""
    import torch

    from .torch_model import TorchViT

    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = precision != "float32"
    x, y = (torch.from_numpy(array).to(device) for array in images(config))
    model = TorchViT(*config[:-1], fused_attention=True).to(device)
    forward = torch.compile(model) if way == "compile" else model
    cast = torch.autocast(device, torch.bfloat16, enabled=precision == "bf16", cache_enabled=way != "graph")
    once = _torch_step(forward, model, x, y, cast, way) if kind == "step" else _torch_inference(forward, model, x, cast)
    if way == "graph":
        once = _torch_graph(once)

    def run():
        for _ in range(REPEATS):
            once()
        torch.cuda.synchronize()

    return run


def _torch_step(forward, model, x, y, cast, way):
    import torch

    capturable = way == "graph"
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=0.05, fused=True, capturable=capturable)

    def step():
        optimizer.zero_grad(set_to_none=True)
        with cast:
            loss = torch.nn.functional.cross_entropy(forward(x).float(), y)
        loss.backward()
        optimizer.step()

    return step


def _torch_inference(forward, model, x, cast):
    import torch

    model.eval()

    def infer():
        with torch.no_grad(), cast:
            return forward(x)

    return infer


def _torch_graph(once):
    """As PyTorch's documentation captures a whole step: warmed up on another stream first."""
    import torch

    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(3):
            once()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        once()
    return graph.replay


ENGINES = {
    "numpyvit": lambda *given: numpyvit_work(*given, graph=True),
    "numpyvit-eager": lambda *given: numpyvit_work(*given, graph=False),
    "torch-eager": lambda *given: torch_work(*given, "eager"),
    "torch-graph": lambda *given: torch_work(*given, "graph"),
    "torch-compile": lambda *given: torch_work(*given, "compile"),
}


def main(kind, name, engine, where):
    device, precision = where.split(":")
    serve(ENGINES[engine](kind, CONFIGS[name], device, precision))


if __name__ == "__main__":
    main(*sys.argv[1:])
