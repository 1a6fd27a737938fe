"""The Python on the pages of docs/ runs, page by page from top to bottom, and shows what stands below it.

A page may take for granted what `reader` has. Blocks of ```pycon are doctests. The second word "theirs" marks what
other libraries do: with captum and pytorch-grad-cam these blocks run too, in a slow test, beside ours, so what a page
says of them is true of the versions that are installed. Of other libraries only the syntax is read.
"""

from __future__ import annotations

import copy
import doctest
import importlib.util
import re
import warnings
from pathlib import Path

import pytest
import timm
import torch
from torch import nn

import contrex
from contrex.explain.contract import check_contract
from explain.networks import images as tensors
from explain.networks import network

ROOT = Path(__file__).resolve().parents[1]
FENCE = re.compile(r"^```(python|pycon)(?: (theirs))?\n(.*?)^```$", re.MULTILINE | re.DOTALL)
RIVALS = {"captum": "captum", "pytorch_grad_cam": "grad-cam"}
"""The modules that the slow test runs, and what pip calls them."""


def blocks(page):
    """The language, whether it is another library's, and the text of each block of Python of a page."""
    return [(kind, bool(theirs), text) for kind, theirs, text in FENCE.findall(page.read_text(encoding="utf-8"))]


PAGES = [page for page in sorted(ROOT.glob("docs/**/*.md")) if "_build" not in page.parts and blocks(page)]
WITH_RIVALS = [
    page for page in PAGES if any(theirs and re.search("|".join(RIVALS), text) for _, theirs, text in blocks(page))
]


def reader():
    """What a reader of a page has: a small ResNet, images, labels, objects."""
    torch.manual_seed(0)
    model = timm.create_model("test_resnet", num_classes=10).eval()
    small = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(inplace=True), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 5)
    )
    masks = torch.zeros(4, 64, 64, dtype=torch.bool)
    masks[:, 16:48, 16:48] = True
    return {
        **{"contrex": contrex, "torch": torch, "copy": copy},
        **{"model": model, "small": small.eval(), "images": torch.randn(4, 3, 64, 64)},
        **{"labels": torch.tensor([1, 2, 3, 7]), "masks": masks},
    }


def follow(page, *, theirs):
    """Run the blocks of a page in order, and return the names that it leaves."""
    names = reader()
    if "`vit`" in page.read_text(encoding="utf-8"):
        names["vit"] = timm.create_model("test_vit", img_size=64, num_classes=10).eval()
    for number, (kind, is_theirs, text) in enumerate(blocks(page), 1):
        if not is_theirs or theirs:
            (told if kind == "pycon" else run)(text, f"{page.relative_to(ROOT)}, block {number}", names)
    return names


def run(text, name, names):
    exec(compile(text, name, "exec"), names)


def told(text, name, names):
    """Run a doctest whose names are those of the page, before and after."""
    test = doctest.DocTestParser().get_doctest(text, names, name, None, 0)
    test.globs = names
    lines = []
    doctest.DocTestRunner(optionflags=doctest.ELLIPSIS).run(test, out=lines.append, clear_globs=False)
    assert not lines, "".join(lines)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_python_of_a_page_runs(page, tmp_path, monkeypatch):
    """Ours; an explainer that a page defines is one."""
    monkeypatch.chdir(tmp_path)
    for kind in (value for value in follow(page, theirs=False).values() if isinstance(value, type)):
        if issubclass(kind, contrex.Explainer) and not kind.__module__.startswith("contrex"):
            check_contract(kind, network("mlp"), tensors(), checks=["gives_what_it_promises"], tell=None)


@pytest.mark.slow
@pytest.mark.parametrize("page", WITH_RIVALS, ids=lambda page: str(page.relative_to(ROOT)))
def test_what_a_page_says_of_other_libraries_is_true(page, tmp_path, monkeypatch):
    missing = [package for module, package in RIVALS.items() if importlib.util.find_spec(module) is None]
    if missing:
        pytest.skip(f"pip install {' '.join(missing)}")
    monkeypatch.chdir(tmp_path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # theirs
        follow(page, theirs=True)


def test_what_a_page_says_of_other_libraries_can_be_read():
    """Also where they are not installed."""
    texts = [(page, text) for page in PAGES for kind, theirs, text in blocks(page) if theirs and kind == "python"]
    assert texts
    for page, text in texts:
        compile(text, str(page), "exec")


def test_a_wrong_line_on_a_page_is_found():
    with pytest.raises(AssertionError, match="Expected"):
        told(">>> 1 + 1\n3\n", "a page", {})
