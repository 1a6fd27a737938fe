"""The programs with a loss of one's own train as they say, each in its loop, and the loops agree."""

from __future__ import annotations

import functools
import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / "docs" / "examples" / "own_loss"
NEEDS = {
    "plain": (),
    "fabric": ("lightning",),
    "accelerated": ("accelerate",),
    "lightning_module": ("lightning",),
    "hugging_face_trainer": ("transformers", "accelerate"),
}


@functools.cache
def trained(name):
    """The loss and the share outside, before and after, that a program prints."""
    missing = [package for package in NEEDS[name] if importlib.util.find_spec(package) is None]
    if missing:
        pytest.skip(f"pip install {' '.join(missing)}")
    source = os.pathsep.join(filter(None, [str(ROOT / "src"), os.environ.get("PYTHONPATH")]))
    words = [sys.executable, str(FOLDER / f"{name}.py"), "--images", "256", "--epochs", "2"]
    environment = {**os.environ, "PYTHONPATH": source, "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(words, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return [(float(loss), float(share)) for loss, share in re.findall(r"loss (\S+), outside (\S+)%", done.stdout)]


@pytest.mark.slow
@pytest.mark.parametrize("name", NEEDS)
def test_the_heatmaps_move_onto_the_object(name):
    (loss, outside), (trained_loss, trained_outside) = trained(name)
    assert trained_loss < loss - 0.3
    assert trained_outside < outside - 30


@pytest.mark.slow
@pytest.mark.parametrize("name", ["fabric", "accelerated", "lightning_module"])
def test_the_loops_agree(name):
    """They show the images in one order, so nothing but the loop differs."""
    assert trained(name)[0] == trained("plain")[0]
    assert trained(name)[1][0] == pytest.approx(trained("plain")[1][0], abs=2e-5)


def test_every_program_is_run_and_told_of():
    programs = {path.stem for path in FOLDER.glob("*.py")} - {"outside"}
    assert programs == set(NEEDS)
    page = (ROOT / "docs" / "own_loss.md").read_text(encoding="utf-8")
    assert all(f"(examples/own_loss/{name}.py)" in page for name in programs)
