"""Write tests/golden/*.pth and resample.npz with PyTorch: small files in the forms that published weights have.

python tests/reference/make_checkpoints.py      (needs torch)
"""

import collections
import pathlib

import numpy as np
import torch

folder = pathlib.Path(__file__).parents[1] / "golden"
base = torch.arange(24, dtype=torch.float32).reshape(4, 6) / 8
tensors = collections.OrderedDict(
    plain=base,
    transposed=base.T,
    slice=base[1:3, ::2],
    shared=base[2],
    half=base.half(),
    bfloat16=base.bfloat16(),
    double=base.double(),
    long=torch.arange(5),
    scalar=torch.tensor(7, dtype=torch.int32),
    empty=torch.zeros(0, 3),
    parameter=torch.nn.Parameter(base[0].clone()),
)
torch.save(tensors, folder / "tensors.pth")
torch.save({"model": {f"module.{n}": t for n, t in tensors.items()}, "epoch": 3, "note": "x"}, folder / "wrapped.pth")
torch.save(tensors, folder / "legacy.pth", _use_new_zipfile_serialization=False)
torch.save({"state_dict": tensors, "args": collections.Counter("ab")}, folder / "calls.pth")

grid = torch.randn(1, 5, 4, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
arrays = {"grid": grid.numpy()}
for size in ((6, 6), (3, 2), (7, 4), (1, 9)):
    for name, options in {
        "bicubic": {},
        "bicubic_antialias": {"antialias": True},
        "bicubic_corners": {"align_corners": True},
    }.items():
        resized = torch.nn.functional.interpolate(grid, size, mode="bicubic", **options)
        arrays[f"{name}/{size[0]}x{size[1]}"] = resized.numpy()
np.savez_compressed(folder / "resample.npz", **arrays)
