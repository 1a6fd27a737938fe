"""The notebook of the documentation runs, and shows pictures of one explanation and of several."""

from __future__ import annotations

import base64
import importlib.util
import io
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

ROOT = Path(__file__).resolve().parents[1]
NOTEBOOK = ROOT / "docs" / "examples" / "explaining.ipynb"


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


def test_the_notebook_has_no_outputs_of_its_own():
    """They would be large, and not those of this version."""
    cells = json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]
    assert [cell["outputs"] for cell in cells if cell["cell_type"] == "code"] == [[]] * 8
