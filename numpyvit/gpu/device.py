"""What a GPU says of itself."""

import types

_GIB = 1 << 30


def name(xp: types.ModuleType) -> str:
    """Of the current GPU, such as "NVIDIA H200"; xp: a namespace whose `cuda` is as CuPy's."""
    runtime = xp.cuda.runtime
    return runtime.getDeviceProperties(runtime.getDevice())["name"].decode()


def memory(xp: types.ModuleType) -> tuple[int, int]:
    """(free, total) bytes of the current GPU."""
    return xp.cuda.runtime.memGetInfo()


def describe(xp: types.ModuleType) -> str:
    """ "NVIDIA H200, 139.8 GiB, 139.2 free"."""
    free, total = memory(xp)
    return f"{name(xp)}, {total / _GIB:.1f} GiB, {free / _GIB:.1f} free"
