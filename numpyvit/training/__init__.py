"""Training: steps and inference on threads, tasks, settings, runs."""

import importlib

_HOMES = {
    "Classification": "classification",
    "Detection": "detection",
    "Distillation": "distillation",
    "Task": "task",
    "connect": "launch",
}


def __getattr__(name):
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f".{_HOMES[name]}", __name__), name)
