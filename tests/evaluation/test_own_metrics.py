"""Metrics and protocols from a file or a package of one's own: measured, recorded, shown, and refused by name."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from contrex.cli import main
from contrex.errors import ArgumentError, UnknownNameError
from contrex.evaluation import PROTOCOLS, check_names, evaluate, protocol_named
from contrex.evaluation.bare_metric import BareMetric
from contrex.evaluation.classification import Top1
from contrex.outside import installed, outside
from contrex.records import read_run
from contrex.report import render_report
from contrex.settings import Evaluation
from contrex.training import train
from evaluation.test_run import subject
from training.runs import quiet, tiny

EXAMPLE = "docs/examples/gini_index.py:GiniIndex"
ROOT = Path(__file__).parents[2]

FILE = '''
import torch
from contrex.evaluation import Protocol
from contrex.evaluation.classification import Top1
from contrex.metrics import PerSampleMetric

def logit_range(group):
    """How far the largest logit is above the smallest."""
    return group.logits.amax(1) - group.logits.amin(1)

logit_range.needs_heatmaps = False
logit_range.unit = "nats"
logit_range.higher_is_better = True

def too_few(group):
    return group.logits[:-1, 0]

def no_vector(group):
    return group.logits

class Top3(Top1):
    """Top-3 accuracy."""
    name, title, k = "top3", "Top-3 accuracy", 3

class Unnamed(Protocol):
    def judge(self, group):
        return group.indices

class Untitled(PerSampleMetric):
    name = "untitled"

class Again(PerSampleMetric):
    name, title, higher_is_better = "top1", "Another", None
    def update(self, group):
        self.append(group.logits[:, 0])

NUMBER = 3
'''


@pytest.fixture
def file(tmp_path, monkeypatch):
    (tmp_path / "mine.py").write_text(FILE)
    monkeypatch.chdir(tmp_path)
    return "mine.py"


def options(*metrics: str, **more) -> Evaluation:
    more = {"limit": 5, "limit_by": "order", "gallery": 0, **more}
    return Evaluation(metrics=metrics, split="test", num_bootstrap=20, device="cpu", **more)


def test_the_protocols_are_these_in_this_order():
    """Public: a name that goes needs a line in the changelog."""
    assert list(PROTOCOLS) == [
        "top1", "top5", "calibration", "fgsm", "content_heatmap", "content_heatmap_at_spread", "pointing_game",
        "stochastic_pointing_game", "grid_pointing_game", "human_alignment", "relative_probability", "gradient_sign",
        "insertion_auc", "deletion_auc", "drop_increase", "arcc", "single_deletion", "infidelity",
        "max_sensitivity", "cgc_loss", "equivariance", "spread", "parameter_randomization", "repeatability",
        "embedding",
    ]  # fmt: skip
    assert all(protocol_named(name) is kind for name, kind in PROTOCOLS.items())


def test_the_example_is_measured_and_shown_by_the_commands(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(ROOT)
    train(replace(tiny(epochs=1), evaluation=options("top1")), tmp_path / "run", console=quiet())
    words = ["--metrics", "top1", EXAMPLE, "--output", str(tmp_path / "record")]
    assert main(["evaluate", str(tmp_path / "run"), *words, "--limit", "6"]) == 0
    assert "Gini index of the heatmap" in re.sub(r"\W+", " ", capsys.readouterr().out)
    run = read_run(tmp_path / "record")
    metric = run.record.metric("gini_index")
    assert run.record.configuration["evaluation"]["metrics"] == ["top1", EXAMPLE]
    assert (metric.num_counted + metric.num_skipped, metric.higher_is_better) == (6, True)
    assert np.nanmean(run.samples.values["gini_index"]) == pytest.approx(metric.value, rel=1e-12)
    assert metric.protocol["explainer"] == "grad_cam"
    assert main(["report", str(tmp_path / "record"), "--output", str(tmp_path / "page.html")]) == 0
    page = (tmp_path / "page.html").read_text()
    assert "How much of the positive heatmap lies in few cells" in page
    assert "Higher is better." in page


def test_the_example_is_the_gini_index():
    """Half the mean absolute difference of all pairs of cells, over their mean."""
    gini_index = outside(f"{ROOT}/{EXAMPLE.partition(':')[0]}:gini_index", "it")
    maps = torch.rand(3, 4, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64) - 0.3
    cells = maps.clamp(min=0).flatten(1)
    pairs = (cells[:, :, None] - cells[:, None, :]).abs().mean((1, 2)) / (2 * cells.mean(1))
    torch.testing.assert_close(gini_index(maps), pairs)
    assert gini_index(torch.zeros(1, 2, 2)).isnan().all()


@pytest.mark.parametrize(("contrast", "words"), [(None, "heatmap hold"), ("mean", "against the other classes, hold")])
def test_the_example_of_a_protocol_says_what_it_measured(monkeypatch, contrast, words):
    monkeypatch.chdir(ROOT)
    run = evaluate(subject(), options("docs/examples/heatmap_size.py:HeatmapSize", contrast=contrast))
    half, most = run.record.metrics
    assert (half.dims, most.dims) == ({"part": 50}, {"part": 90})
    assert half.family == most.family
    assert words in half.family.meaning
    assert half.protocol["contrast"] == contrast
    values = run.samples.values
    assert (values["cells_for_50"] <= values["cells_for_90"]).all()
    assert "Size of the heatmap" in render_report([run], title="t")
    shares = outside("docs/examples/heatmap_size.py:share_of_cells", "it")
    maps = torch.tensor([[[4.0, 3.0], [2.0, 1.0]], [[0.0, -1.0], [0.0, 0.0]]])
    assert shares(maps, 70)[0] == 50  # 4 and 3 of 10
    assert shares(maps, 71)[0] == 75
    assert shares(maps, 50)[1].isnan()


def test_a_function_of_a_group_is_a_metric(file):
    run = evaluate(subject(), options("top1", f"{file}:logit_range"))
    metric = run.record.metric("logit_range")
    assert (metric.title, metric.unit, metric.higher_is_better) == ("Logit range", "nats", True)
    assert (metric.family.name, metric.family.meaning) == (
        "logit_range", "How far the largest logit is above the smallest.",
    )  # fmt: skip
    assert (run.samples.values["logit_range"] > 0).all()
    assert "explainer" not in metric.protocol


def test_a_protocol_from_a_file_is_measured(file):
    run = evaluate(subject(), options(f"{file}:Top3"))
    assert run.record.metric("top3").family.title == "Top-3 accuracy"
    assert issubclass(protocol_named(f"{file}:Top3"), Top1)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("too_few", r"^digits/test/00000: the metric too_few gave 0 values for 1 images: give one for each"),
        ("no_vector", r"`values` of no_vector must be \[N\], one per image"),
        ("Unnamed", r"'mine.py:Unnamed' must have a 'name': give the class one, as a text"),
        ("Untitled", r"'mine.py:Untitled' must have a 'title': give the class one"),
        ("NUMBER", r"'mine.py:NUMBER' must be a contrex.evaluation.Protocol, a .* or a function of a group .*, got 3"),
        ("gone", r"`evaluation.metrics` 'mine.py:gone': mine.py has nothing called 'gone'"),
    ],
)
def test_what_is_no_metric_is_refused_by_name(file, name, message):
    with pytest.raises(ArgumentError, match=message):
        evaluate(subject(), options(f"{file}:{name}"))


def test_two_metrics_of_one_name_are_refused(file):
    with pytest.raises(ArgumentError, match=r"has 'top1' twice, by top1 and mine.py:Again: give the metric another"):
        evaluate(subject(), options("top1", f"{file}:Again"))


@pytest.fixture
def package(tmp_path, monkeypatch):
    """An installed package that adds a protocol and a metric, as pip leaves it."""
    info = tmp_path / "my_measures-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: my-measures\nVersion: 1.0\n")
    points = "[contrex.protocols]\ntop3 = my_measures:Top3\n[contrex.metrics]\nrange = my_measures:logit_range\n"
    (info / "entry_points.txt").write_text(points)
    (tmp_path / "my_measures.py").write_text(FILE)
    monkeypatch.syspath_prepend(tmp_path)
    installed.cache_clear()
    yield
    installed.cache_clear()


def test_names_of_an_installed_package_are_metrics(package, capsys):
    assert protocol_named("top3").title == "Top-3 accuracy"
    assert issubclass(protocol_named("range"), BareMetric)
    check_names(options("top1", "top3", "range"), 10)
    with pytest.raises(UnknownNameError, match=r"got 'rnge'\. Did you mean 'range'|got 'rnge'\. Near it: range"):
        check_names(options("rnge"))
    assert main(["metrics"]) == 0
    listed = capsys.readouterr().out
    assert re.search(r"top3 +my_measures:Top3", listed)
    assert re.search(r"top1 +Top-1 accuracy: how often", listed)
