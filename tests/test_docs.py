"""The pages in docs/ run as printed."""

import pathlib
import re

import pytest

PAGES = sorted((pathlib.Path(__file__).parents[1] / "docs").glob("*.md"))
NEEDS = {"onnx.md": ("onnx", "onnxruntime"), "serve.md": ("uvicorn", "starlette", "python_multipart")}
README = (pathlib.Path(__file__).parents[1] / "README.md").read_text()


def blocks(page):
    return re.findall(r"^```python\n(.*?)^```$", page.read_text(), re.M | re.S)


RUN = [page for page in PAGES if blocks(page) and page.name != "sklearn.md"]


@pytest.mark.parametrize("page", RUN, ids=lambda page: page.name)
def test_its_programs_run_one_after_another(page, tmp_path, monkeypatch):
    """test_estimators.py runs those of sklearn.md, which need weights."""
    for library in NEEDS.get(page.name, ()):
        pytest.importorskip(library)
    monkeypatch.chdir(tmp_path)
    names = {}
    for block in blocks(page):
        exec(compile(block, page.name, "exec"), names)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_readme_leads_to_it(page):
    assert f"docs/{page.name}" in README
