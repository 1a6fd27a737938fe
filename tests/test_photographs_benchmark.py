"""The benchmark on photographs runs, on drawn images: every command of the jobs chosen here, and its figures."""

import json
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

from contrex.cli.options import parsed
from contrex.cli.retrofit import Photos, Retrofit

SCRIPT = Path(__file__).parents[1] / "benchmarks/photographs.py"


@pytest.mark.slow
def test_the_options_of_each_retrofit_are_taken():
    script = runpy.run_path(str(SCRIPT))
    for name, options in script["RETROFITS"].items():
        assert parsed(Retrofit, "retrofit", options.split(), default=Retrofit(Photos(()))), name


@pytest.mark.slow
def test_it_runs_on_drawn_images(tmp_path):
    small20 = ["small20-cross_entropy-0", "small20-cgc-label-late-0", "small20-energy-few-boxes-0"]
    jobs = ["mobilenet-weighted", *small20, "tiny100-cgc-0"]
    words = [sys.executable, SCRIPT, "--tiny", "--jobs", "2", "--output", tmp_path, "--only", *jobs]
    done = subprocess.run(words, capture_output=True, text=True, timeout=900, check=False)
    logs = "".join(file.read_text() for file in tmp_path.glob("*.log"))
    assert done.returncode == 0, done.stdout + done.stderr + logs
    figures = json.loads((tmp_path / "figures.json").read_text())
    folders = {
        "mobilenet-weighted": [
            "before",
            "after",
            "before-imagenet_val_500",
            "after-imagenet_val_500",
            "after-weighted",
        ],
        "small20-cross_entropy-0": ["evaluation-val"],
        "small20-cross_entropy-0-retrofit-4": ["evaluation-val"],
        "small20-cgc-label-late-0": ["evaluation-val"],
        "small20-energy-few-boxes-0": ["evaluation-val"],
        "tiny100-cgc-0": ["evaluation-val"],
    }
    for job, names in folders.items():
        for name in names:
            assert figures[f"{job}/{name}"], (job, name)
    assert "content_heatmap_at_spread_25" in figures["mobilenet-weighted/after-imagenet_val_500"]["differences"]
    again = subprocess.run(words, capture_output=True, text=True, timeout=120, check=True)
    assert len(again.stdout.splitlines()) == 1, "what was done is not done again"


@pytest.mark.slow
def test_what_it_refuses():
    for words, message in (
        ([], "DATA is needed"),
        (["--tiny", "--only", "x"], "--only x is none of mobilenet-default"),
    ):
        done = subprocess.run([sys.executable, SCRIPT, *words], capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 2
        assert message in done.stderr
