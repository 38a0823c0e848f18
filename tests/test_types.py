"""Type hints: the package says that it has them, and each names types that exist."""

import importlib
import inspect
import pkgutil
import typing
from importlib import resources

import pytest

import numpyvit

MODULES = sorted(module.name for module in pkgutil.walk_packages(numpyvit.__path__, "numpyvit."))
PASSED_ON = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)

# modules that import what an extra brings
EXTRAS = {
    "numpyvit.estimators.classifier": "sklearn",
    "numpyvit.estimators.features": "sklearn",
    "numpyvit.kernels.fast": "numba",
    "numpyvit.serve.": "uvicorn",
}


def test_type_checkers_are_told_of_the_hints():
    assert resources.files("numpyvit").joinpath("py.typed").is_file()


@pytest.fixture(params=[name for name in MODULES if not name.endswith("__main__")])
def functions(request):
    """{name: function or method} of what a module defines."""
    for name, needed in EXTRAS.items():
        if request.param.startswith(name):
            pytest.importorskip(needed)
    found = {}
    for name, value in vars(importlib.import_module(request.param)).items():
        if getattr(value, "__module__", None) != request.param:
            continue
        for part, function in vars(value).items() if inspect.isclass(value) else [("", value)]:
            function = getattr(function, "fget", None) or getattr(function, "__func__", function)
            if inspect.isfunction(function):
                found[f"{name}.{part}".strip(".")] = function
    return found


def test_every_hint_names_types_that_exist(functions):
    for function in functions.values():
        typing.get_type_hints(function)


def test_public_functions_and_constructors_have_hints_for_all_they_take(functions):
    for name, function in functions.items():
        if name[0] == "_" or "." in name.removesuffix(".__init__") or function.__module__ == "typing":
            continue
        parameters = list(inspect.signature(function).parameters.values())[name.endswith(".__init__") :]
        bare = [p.name for p in parameters if p.annotation is p.empty and p.kind not in PASSED_ON]
        assert not bare, f"{name}: {', '.join(bare)}"
