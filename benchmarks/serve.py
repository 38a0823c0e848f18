"""A server under load, its model in NumPy or in PyTorch:

    python -m benchmarks.serve [--config NAME] [--clients N] [--seconds S] [--engines numpyvit torch]

Each engine's server is a process of its own, with the same code around the model. The clients send one JPEG again and
again, each as soon as it has its answer; those of the first seconds are not counted. The exit code is 1 where an answer
was not 200 or the server's memory grew.
"""

import argparse
import asyncio
import contextlib
import io
import os
import statistics
import subprocess
import sys
import time

import numpy as np

from .work import CONFIGS, numpyvit_model

_WARM_UP = 3  # seconds
_LOOK_EVERY = 0.5  # seconds between two looks at the memory
_FLAT = 8  # MiB by which the medians of the first and the last quarter of those may differ
_ENGINES = ("numpyvit", "torch")


# ---- the server's process -------------------------------------------------------------------------------------------


def served(engine, config):
    """The model of a server."""
    from numpyvit.serve import Served

    model = numpyvit_model(config)
    return Served(model) if engine == "numpyvit" else _torch_served(Served, model, config)


def _torch_served(served_class, model, config):
    import torch

    from numpyvit.functional import softmax
    from numpyvit.models import class_names

    from .torch_model import TorchViT

    network = TorchViT(*config[:-1], fused_attention=True).eval()
    names = class_names(model)

    class TorchServed(served_class):
        def predict(self, requests):
            images, tops = zip(*requests)
            x = torch.from_numpy(model.preprocessing.normalize(np.stack(images)))
            with torch.inference_mode():
                probabilities = softmax(network(x).numpy())
            return [
                {
                    "classes": [
                        {"class": names[k], "index": k, "probability": float(p[k])}
                        for k in np.argsort(-p)[: top or self.task.top].tolist()
                    ]
                }
                for p, top in zip(probabilities, tops)
            ]

    return TorchServed(model)


def run_server(engine, config):
    import numpyvit as nv
    from numpyvit.serve import serve

    nv.tune_process()
    serve(lambda: served(engine, CONFIGS[config]), port=0, started=lambda address: print(address, flush=True))


# ---- the clients ----------------------------------------------------------------------------------------------------


def request(config):
    """A request with an image of the model's size, as bytes."""
    from PIL import Image

    side, channels = config[0], config[2]
    noise = np.random.default_rng(0).integers(0, 256, (side // 4 + 1, side // 4 + 1, 3), np.uint8)
    image = Image.fromarray(noise).resize((side, side)).convert("RGB" if channels == 3 else "L")
    image.save(buffer := io.BytesIO(), "JPEG")
    body = buffer.getvalue()
    head = (
        f"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Type: image/jpeg\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


async def client(port, message, end, answers):
    """Ask until `end`; (when it was answered, seconds, status) of each goes into `answers`."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    while time.monotonic() < end:
        start = time.monotonic()
        writer.write(message)
        head = await reader.readuntil(b"\r\n\r\n")
        length = next(int(line[15:]) for line in head.split(b"\r\n") if line.lower().startswith(b"content-length:"))
        await reader.readexactly(length)
        now = time.monotonic()
        answers.append((now, now - start, int(head[9:12])))
    writer.close()


async def load(port, message, clients, seconds, rss):
    begin, answers, memory = time.monotonic(), [], []
    end = begin + _WARM_UP + seconds
    asking = asyncio.gather(*(client(port, message, end, answers) for _ in range(clients)))
    await asyncio.sleep(_WARM_UP)
    while time.monotonic() < end:
        memory.append(rss())
        await asyncio.sleep(_LOOK_EVERY)
    await asking
    times = sorted(seconds for when, seconds, _ in answers if when > begin + _WARM_UP)
    first, last = quarters(memory)
    return {
        "requests/s": len(times) / seconds,
        "median ms": 1e3 * statistics.median(times),
        "p99 ms": 1e3 * times[int(0.99 * len(times))],
        "errors": sum(status != 200 for *_, status in answers),
        "MiB at first": first,
        "MiB at last": last,
    }


def quarters(values):
    """The medians of the first and the last quarter."""
    count = -(-len(values) // 4)
    return statistics.median(values[:count]), statistics.median(values[-count:])


def troubles(figures):
    """What is wrong with the figures of a server, a sentence each."""
    found = [f"{figures['errors']} answers were not 200"] if figures["errors"] else []
    growth = figures["MiB at last"] - figures["MiB at first"]
    return found + ([f"the memory grew by {growth:.0f} MiB"] if growth > _FLAT else [])


def measure(engine, config, clients, seconds):
    """The figures of one engine's server."""
    command = [sys.executable, "-m", "benchmarks.serve", "--serve", engine, "--config", config]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONUNBUFFERED": "1"})
    try:
        port = int(process.stdout.readline().rsplit(":", 1)[1])
        return asyncio.run(load(port, request(CONFIGS[config]), clients, seconds, lambda: _rss(process.pid)))
    finally:
        process.terminate()
        process.wait()


def _rss(pid):
    """MiB of a process in memory, where /proc tells it."""
    with contextlib.suppress(OSError, StopIteration), open(f"/proc/{pid}/status") as file:
        return next(int(line.split()[1]) / 1024 for line in file if line.startswith("VmRSS"))
    return float("nan")


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--config", choices=CONFIGS, default="vit_tiny-b16")
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--engines", nargs="+", choices=_ENGINES, default=_ENGINES)
    parser.add_argument("--serve", choices=_ENGINES, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.serve:
        run_server(args.serve, args.config)
        return 0
    found, rates = [], {}
    for engine in args.engines:
        figures = measure(engine, args.config, args.clients, args.seconds)
        print(f"{engine:9}", *(f"{name} {value:.1f}" for name, value in figures.items()), sep="  ", flush=True)
        found += [f"{engine}: {trouble}" for trouble in troubles(figures)]
        rates[engine] = figures["requests/s"]
    if len(rates) == len(_ENGINES):
        print(f"requests/s, numpyvit over PyTorch: {rates['numpyvit'] / rates['torch']:.2f}")
    print(*found or ["no errors, and the memory is flat"], sep="\n")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
