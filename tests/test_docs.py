"""The pages in docs/ run as printed, and show the source as it stands."""

import re

import pytest
from pages import ROOT, blocks, check_excerpt, is_excerpt

DOCS = ROOT / "docs"
PAGES = sorted(DOCS.glob("*.md"))
DERIVED = [page for page in PAGES if "from the formula to the check" in page.read_text()]
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


@pytest.mark.parametrize("page", **named([page for page in PAGES if page.name != "README.md"]))
def test_the_index_leads_to_it(page):
    assert f"]({page.name})" in INDEX and "(docs/README.md)" in README


@pytest.mark.parametrize(
    "page", **named([page for page in PAGES if "from the formula to the check" in page.read_text()])
)
def test_a_derivation_has_its_formula_code_check_and_traps(page):
    titles = re.findall("^## (.*)$", page.read_text(), re.M)
    assert "Code" in titles and "Check" in titles and titles[-1] == "Traps"
    assert excerpts(page), "it shows no code as it stands"


@pytest.mark.parametrize("page", **named(PAGES))
def test_what_it_links_to_is_there(page):
    for target in re.findall(r"\]\((?!https?:)([^)#]+)", page.read_text()):
        assert (DOCS / target).exists(), target
