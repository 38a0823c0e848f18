"""The folders of the package stand in one order, and each imports only from those before it."""

import ast
import pathlib
import re

import pytest

ROOT = pathlib.Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "numpyvit"
ORDER = (
    *("errors", "files", "backend", "kernels", "gpu", "functional", "core", "layers"),
    *("metrics", "losses", "optim", "data"),
    *("weights", "models", "onnx", "viz", "training", "report", "estimators", "serve", "testing", "cli"),
)
FILES = sorted(path for path in PACKAGE.rglob("*.py") if path.parent != PACKAGE or path.stem in ORDER)


def imports(path):
    """(line, module) of every import in a file, those inside functions too; relative ones as "numpyvit.…"."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, name.name) for name in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = path.relative_to(ROOT).parts[: -node.level] if node.level else ()
            module = ".".join([*above, *filter(None, [node.module])])
            yield from ((node.lineno, f"{module}.{name.name}") for name in node.names)


def folder(path):
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def folder_imported(module):
    """The folder or file of the package that a module lies in, None for other packages."""
    top, part, *_ = [*module.split("."), ""]
    return part if top == "numpyvit" and part in ORDER else None


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_a_file_imports_from_folders_to_its_left_alone(path):
    here = ORDER.index(folder(path))
    for line, module in imports(path):
        part = folder_imported(module)
        if part is not None:
            assert ORDER.index(part) <= here, f"line {line} imports {module}, which lies to the right of {ORDER[here]}"


def test_every_folder_has_its_place_in_the_order():
    folders = {entry.name for entry in PACKAGE.iterdir() if (entry / "__init__.py").exists()}
    assert folders == {*ORDER} - {"errors"}


def test_the_readme_tells_the_same_order():
    readme = (ROOT / "README.md").read_text()
    rows = re.findall(r"^\| (`.*?) \|", readme[readme.index("## Layout") :], re.M)
    assert tuple(re.findall(r"`(?:numpyvit/)?(\w+)(?:/|\.py)`", " ".join(rows))) == ORDER


@pytest.mark.parametrize(
    ("package", "allowed"),
    [
        ("cupy", {"backend/arrays.py"}),
        ("cupyx", {"backend/arrays.py"}),
        ("inspect", {"models/registry.py", "testing/gradcheck.py"}),
    ],
)
def test_a_package_is_imported_in_one_place(package, allowed):
    found = {
        path.relative_to(PACKAGE).as_posix()
        for path in PACKAGE.rglob("*.py")
        for _, module in imports(path)
        if module.split(".")[0] == package
    }
    assert found <= allowed


def test_only_models_and_weights_know_the_names_of_blocks():
    """A help text or a docstring may show such a name; a program that asks for one does so by an attribute or a key."""
    for path in FILES:
        if folder(path) in ("models", "weights", "onnx", "testing"):
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            asked = isinstance(node, ast.Attribute) and node.attr == "blocks" and folder(path) != "layers"
            key = isinstance(node, ast.Constant) and str(node.value).startswith("blocks.")
            assert not asked and not key, f"{path}, line {node.lineno}"
