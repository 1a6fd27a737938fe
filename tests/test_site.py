"""The site of the documentation: every page has its place, docstrings become what Sphinx reads, and it builds."""

from __future__ import annotations

import importlib
import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
SITE = ROOT / "docs" / "site"
NEEDS = {"sphinx": "sphinx", "myst_parser": "myst-parser", "furo": "furo", "sphinx_gallery": "sphinx-gallery"}


@pytest.fixture
def site(monkeypatch):
    """The modules of docs/site, which import each other by their short names."""
    monkeypatch.syspath_prepend(SITE)
    build, docstrings, reference = map(importlib.import_module, ("build", "docstrings", "reference"))
    # to ask for the public names is to import all of contrex, which takes two seconds
    monkeypatch.setattr(docstrings, "full_names", lambda: {"cgc_loss": "contrex.losses.cgc_loss"})
    monkeypatch.setattr(reference, "pages", lambda: [(Path("index.md"), "# API\n")])
    yield build, docstrings, reference
    for name in ("build", "docstrings", "reference", "public"):
        sys.modules.pop(name)


def test_every_page_is_in_a_list(site):
    build, *_ = site
    contents = {place: text.decode() for place, text in build.contents() if place.suffix in (".md", ".rst")}
    listed = {Path("index"), Path("gallery/index")}
    for place, text in contents.items():
        for block in re.findall(r"```\{toctree\}\n(.*?)```", text, re.DOTALL):
            names = [line for line in block.splitlines() if line and not line.startswith(":")]
            listed |= {place.parent / name for name in names}
    pages = {place.with_suffix("") for place in contents}
    assert listed - pages == {Path("gallery/index")}
    assert pages - listed == set()
    assert len(pages) > 60


def test_links_lead_to_pages_examples_and_the_repository(site):
    build, *_ = site
    files = build.staged()
    page = ROOT / "docs" / "metrics" / "spread.md"
    text = (
        "[a](README.md#x) [b](../examples/gini_index.py) [c](../../src/contrex/ranks.py) [d](../../LOG.md) `x[0](y)`\n"
    )
    assert build.with_links(text, page, files) == (
        f"[a](index.md#x) [b](../examples/gini_index.md) [c]({build.REPOSITORY}/blob/main/src/contrex/ranks.py) "
        "[d](../LOG.md) `x[0](y)`\n"
    )


@pytest.mark.parametrize(
    ("plain", "rst"),
    [
        (["The mean of `x_i`."], ["The mean of ``x_i``."]),
        (["As `cgc_loss`."], ["As :py:obj:`cgc_loss <contrex.losses.cgc_loss>`."]),
        (["a * b, |x|, x_ and **c**"], [r"a \* b, \|x\|, x\_ and **c**"]),
        (["One:", "- two", "  more"], ["One:", "", "- two", "  more"]),
        (
            ["| a | b |", "|---|---|", "| `c` | d |"],
            [".. list-table::", "   :header-rows: 1", "", "   * - a", "     - b", "   * - ``c``", "     - d"],
        ),
        (["Args:", "    x: the `y`."], ["Args:", "    x: the ``y``."]),
        ([">>> 2 * `", "4"], [">>> 2 * `", "4"]),
        (["Args:", "    x: one", "", "    y: two"], ["Args:", "    x: one", "", "    y: two"]),
        (["FOLDER/", "    a.json"], ["::", "", "    FOLDER/", "        a.json"]),
    ],
)  # fmt: skip
def test_a_docstring_becomes_what_sphinx_reads(site, plain, rst):
    _, docstrings, _ = site
    assert docstrings.as_rst(plain) == [*rst, ""]


def test_code_of_a_docstring_stays_code(site):
    _, docstrings, _ = site
    assert docstrings.as_rst(["Text:", "", "    a = `b`", "", "    c"])[2:] == [
        "::",
        "",
        "    a = `b`",
        "",
        "    c",
        "",
    ]


def test_the_first_sentence_is_whole(site):
    *_, reference = site
    thing = type("Thing", (), {"__doc__": "The mean of `a. B` (eq. 1). And more."})
    assert reference.first_line(thing) == "The mean of `a. B` (eq. 1)"


@pytest.mark.slow
def test_the_site_builds_without_a_warning(tmp_path):
    """The whole site, with the gallery, whose networks are trained once; it names no folder of the machine."""
    missing = [package for module, package in NEEDS.items() if importlib.util.find_spec(module) is None]
    if missing:
        pytest.skip(f"pip install {' '.join(missing)}")
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    words = [sys.executable, str(SITE / "build.py"), str(tmp_path)]
    done = subprocess.run(words, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-5000:] + done.stdout[-2000:]
    pages = {path.relative_to(tmp_path / "html"): path.read_text() for path in (tmp_path / "html").rglob("*.html")}
    assert {Path("index.html"), Path("api/contrex.explain.html"), Path("gallery/a_why_not.html")} <= pages.keys()
    assert len(list((tmp_path / "html" / "_images").glob("sphx_glr_*.png"))) >= 20
    for place, text in pages.items():
        assert str(ROOT) not in text, place
        assert str(tmp_path) not in text, place
