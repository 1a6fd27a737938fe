"""The notebooks of examples/ run, cell by cell, and show what they say."""

from __future__ import annotations

import ast
import base64
import importlib.util
import io
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

ROOT = Path(__file__).resolve().parents[1]
NOTEBOOKS = sorted((ROOT / "examples").glob("*.ipynb"))
NOTEBOOK = ROOT / "examples" / "explaining.ipynb"


def cells_of(notebook):
    return json.loads(notebook.read_text(encoding="utf-8"))["cells"]


def shown_by(name):
    """What the last lines of a notebook's cells give, run one after the other in one scope, as a kernel does."""
    scope, shown = {"__name__": "__main__"}, []
    for cell in cells_of(ROOT / "examples" / f"{name}.ipynb"):
        if cell["cell_type"] == "code":
            tree = ast.parse("".join(cell["source"]))
            last = tree.body.pop() if isinstance(tree.body[-1], ast.Expr) else None
            exec(compile(tree, name, "exec"), scope)
            if last is not None:
                shown.append(eval(compile(ast.Expression(last.value), name, "eval"), scope))
    return scope, [one for one in shown if one is not None]


@pytest.mark.slow
@pytest.mark.skipif(
    not all(map(importlib.util.find_spec, ("nbconvert", "ipykernel"))), reason="pip install nbconvert ipykernel"
)
def test_the_notebook_shows_pictures(tmp_path):
    """In a process of its own, as `jupyter nbconvert` does it; nothing is written beside the notebook."""
    words = ["-m", "nbconvert", "--to", "notebook", "--execute", str(NOTEBOOK), "--output-dir", str(tmp_path)]
    source = os.pathsep.join(filter(None, [str(ROOT / "src"), os.environ.get("PYTHONPATH")]))
    homes = {name: str(tmp_path / name) for name in ("HOME", "IPYTHONDIR", "JUPYTER_CONFIG_DIR", "JUPYTER_RUNTIME_DIR")}
    done = subprocess.run(
        [sys.executable, *words], env={**os.environ, **homes, "PYTHONPATH": source}, capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    cells = json.loads((tmp_path / NOTEBOOK.name).read_text(encoding="utf-8"))["cells"]
    shown = {"".join(cell["source"]): pictures(cell) for cell in cells if cell["cell_type"] == "code"}
    one, several, out_of_several = (
        shown[f"contrex.why({rest}"]
        for rest in (
            "pictures[0], classifier)",
            *(f'pictures, classifier, contrast="weighted"){end}' for end in ("", "[1]")),
        )
    )
    assert [len(found) for found in (one, several, out_of_several)] == [1, 1, 1]
    assert several[0].width * several[0].height > 2 * one[0].width * one[0].height
    assert all(len(set(picture.tobytes())) > 100 for picture in (*one, *several, *out_of_several))
    assert sum(map(len, shown.values())) == 7


def pictures(cell):
    """The pictures among the outputs of a cell."""
    data = [output["data"]["image/png"] for output in cell["outputs"] if "image/png" in output.get("data", {})]
    return [Image.open(io.BytesIO(base64.b64decode(one))).convert("RGB") for one in data]


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda one: one.stem)
def test_notebooks_have_no_outputs_of_their_own(notebook):
    """They would be large, and not those of this version."""
    code = [cell for cell in cells_of(notebook) if cell["cell_type"] == "code"]
    assert len(code) >= 3
    assert all(cell["outputs"] == [] and cell["execution_count"] is None for cell in code)


def test_every_notebook_is_listed_and_its_links_lead_somewhere():
    listed = (ROOT / "examples" / "README.md").read_text(encoding="utf-8")
    texts = [listed, *("".join(cell["source"]) for one in NOTEBOOKS for cell in cells_of(one))]
    assert {f"{name}.ipynb" for name in re.findall(r"\]\((\w+)\.ipynb\)", listed)} == {one.name for one in NOTEBOOKS}
    links = [link for text in texts for link in re.findall(r"\]\(([^):#]+)\)", text)]
    assert len(links) >= 15
    assert [link for link in links if not (ROOT / "examples" / link).exists()] == []


@pytest.mark.slow
def test_contrasting():
    scope, shown = shown_by("contrasting")
    assert [type(one).__name__ for one in shown[:4]] == ["Explanation"] * 4
    assert all(len(one._repr_png_()) > 1000 for one in shown[:4])
    assert float(scope["error"]) < 1e-4


@pytest.mark.slow
def test_training(capsys):
    scope, shown = shown_by("training")
    assert shown[0].read_text(encoding="utf-8").count("In short") == 1
    assert [run.record.configuration["method"]["kind"] for run in scope["done"].runs] == ["CrossEntropy", "CGC"]
    assert "Content" in capsys.readouterr().out


@pytest.mark.slow
def test_own_loss():
    scope, _ = shown_by("own_loss")
    assert scope["after"] < scope["before"] - 0.2


@pytest.mark.slow
def test_evaluating():
    scope, shown = shown_by("evaluating")
    assert len(scope["measured"]) == 2
    assert "gradient x input" in shown[-1].read_text(encoding="utf-8")


@pytest.mark.slow
def test_exploring():
    scope, shown = shown_by("exploring")
    assert [type(one).__name__ for one in shown if hasattr(one, "html")] == ["ExplorerPage"] * 2
    assert (scope["folder"] / "both.html").stat().st_size > 50_000
