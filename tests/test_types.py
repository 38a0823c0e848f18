"""Type hints: the package says that it has them, and each names types that exist."""

import importlib
import inspect
import pkgutil
import typing
from importlib import resources

import pytest

import numpyvit

MODULES = sorted(module.name for module in pkgutil.walk_packages(numpyvit.__path__, "numpyvit."))


def test_type_checkers_are_told_of_the_hints():
    assert resources.files("numpyvit").joinpath("py.typed").is_file()


@pytest.mark.parametrize("name", [name for name in MODULES if not name.endswith("__main__")])
def test_every_hint_names_types_that_exist(name):
    if name in ("numpyvit.estimators.classifier", "numpyvit.estimators.features"):
        pytest.importorskip("sklearn")
    if name.startswith("numpyvit.serve."):
        pytest.importorskip("uvicorn")
    module = importlib.import_module(name)
    for value in vars(module).values():
        if getattr(value, "__module__", None) != name:
            continue
        functions = vars(value).values() if inspect.isclass(value) else [value]
        for function in functions:
            function = getattr(function, "fget", None) or getattr(function, "__func__", function)
            if inspect.isfunction(function):
                typing.get_type_hints(function)


@pytest.mark.parametrize("folder", ["files", "backend", "kernels", "functional", "core", "metrics", "optim", "weights"])
def test_public_functions_have_hints_for_all_they_take(folder):
    for name in MODULES:
        if name.split(".")[1] != folder:
            continue
        for function in vars(importlib.import_module(name)).values():
            public = inspect.isfunction(function) and function.__module__ == name and function.__name__[0] != "_"
            parameters = inspect.signature(function).parameters.values() if public else ()
            bare = [p.name for p in parameters if p.annotation is p.empty and p.kind is not p.VAR_KEYWORD]
            assert not bare, f"{name}.{function.__name__}: {', '.join(bare)}"
