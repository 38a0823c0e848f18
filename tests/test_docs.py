"""The pages in docs/ run as printed, and show the source as it stands."""

import re

import pytest
from pages import ROOT, blocks, check_excerpt, is_excerpt

DOCS = ROOT / "docs"
PAGES = sorted(DOCS.glob("*.md"))
NEEDS = {"onnx.md": ("onnx", "onnxruntime"), "serve.md": ("uvicorn", "starlette", "python_multipart")}
README, INDEX = (ROOT / "README.md").read_text(), (DOCS / "README.md").read_text()


def programs(page):
    return [block for block in blocks(page.read_text()) if not is_excerpt(block)]


def excerpts(page):
    return [block for block in blocks(page.read_text()) if is_excerpt(block)]


def named(pages):
    return {"argvalues": pages, "ids": [page.name for page in pages]}


@pytest.mark.parametrize("page", **named([page for page in PAGES if programs(page) and page.name != "sklearn.md"]))
def test_its_programs_run_one_after_another(page, tmp_path, monkeypatch):
    """test_estimators.py runs those of sklearn.md, which need weights."""
    for library in NEEDS.get(page.name, ()):
        pytest.importorskip(library)
    monkeypatch.chdir(tmp_path)
    names = {}
    for program in programs(page):
        exec(compile(program, page.name, "exec"), names)


@pytest.mark.parametrize("page", **named([page for page in PAGES if excerpts(page)]))
def test_the_code_that_it_shows_stands_in_the_source(page):
    for excerpt in excerpts(page):
        check_excerpt(excerpt)


@pytest.mark.parametrize("page", **named(PAGES))
def test_the_readme_or_the_index_leads_to_it(page):
    assert f"(docs/{page.name})" in README or f"]({page.name})" in INDEX
    assert "(docs/README.md)" in README


@pytest.mark.parametrize("page", **named(PAGES))
def test_what_it_links_to_is_there(page):
    for target in re.findall(r"\]\((?!https?:)([^)#]+)", page.read_text()):
        assert (DOCS / target).exists(), target
