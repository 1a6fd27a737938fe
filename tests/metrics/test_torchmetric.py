"""Metrics of contrex among those of torchmetrics."""

from __future__ import annotations

import pickle
import subprocess
import sys

import pytest
import torch

from contrex.metrics import CGCLossMetric, ContentHeatmap, ExpectedCalibrationError, TopKAccuracy, as_torchmetric
from contrex.metrics.torchmetric import TorchmetricsMissingError
from metrics.test_per_sample import METRICS, batch

torchmetrics = pytest.importorskip("torchmetrics")


@pytest.mark.parametrize("name", METRICS)
def test_it_is_the_metric(name):
    own, metric = METRICS[name](), as_torchmetric(METRICS[name]())
    assert isinstance(metric, torchmetrics.Metric)
    assert metric.higher_is_better is own.higher_is_better
    first, second = batch(name, 5, 0), batch(name, 3, 1)
    own.update(*first)
    assert metric(*first) == own.compute()  # forward gives the batch's value and accumulates
    own.update(*second)
    metric.update(*second)
    assert metric.compute() == own.compute()
    assert pickle.loads(pickle.dumps(metric)).compute() == metric.compute()
    assert metric.clone().compute() == metric.compute()
    metric.reset()
    metric.update(*first)
    assert metric.compute() == as_torchmetric(METRICS[name]())(*first)


@pytest.mark.parametrize("make", [*METRICS.values(), ExpectedCalibrationError])
def test_merging(make):
    name = next((name for name, other in METRICS.items() if other is make), "top1")
    joint, other, own = as_torchmetric(make()), as_torchmetric(make()), make()
    for metric, arguments in ((joint, batch(name, 5, 0)), (other, batch(name, 3, 1))):
        metric.update(*arguments)
        own.update(*arguments)
    joint.compute()
    joint.merge_state(other)  # after a compute, which must not be remembered
    assert joint.compute().item() == pytest.approx(own.compute().item(), rel=1e-12)


def test_the_metric_goes_on_counting_on_its_own():
    own = TopKAccuracy(k=1)
    own.update(torch.eye(2), torch.tensor([0, 1]))
    metric = as_torchmetric(own)
    metric.update(torch.eye(2), torch.tensor([1, 0]))
    assert (own.compute(), metric.compute()) == (100, 0)


def test_made_and_filled_inside_inference_mode_used_outside():
    with torch.inference_mode():
        metric = as_torchmetric(ContentHeatmap())
        metric.update(*batch("content_heatmap", 4, 0))
    metric.update(*batch("content_heatmap", 4, 0))
    assert metric.compute().isfinite()


def test_float64_survives_half():
    metric = as_torchmetric(CGCLossMetric()).half()
    metric.update(torch.tensor([1.0, 2.0]))
    assert metric.compute().dtype == torch.float64


def test_nothing_counted_is_nan():
    with pytest.warns(UserWarning, match="compute"):  # torchmetrics' own
        assert as_torchmetric(ContentHeatmap()).compute().isnan()


def test_a_collection_does_not_share_states_that_happen_to_agree():
    metrics = {"top1": TopKAccuracy(k=1), "top2": TopKAccuracy(k=2)}
    collection = torchmetrics.MetricCollection({name: as_torchmetric(metric) for name, metric in metrics.items()})
    logits = torch.tensor([[3.0, 2.0, 1.0]])
    collection.update(logits, torch.tensor([0]))  # both right: torchmetrics compares states after the first batch
    collection.update(logits, torch.tensor([1]))
    assert {name: value.item() for name, value in collection.compute().items()} == {"top1": 50.0, "top2": 100.0}


def test_a_collection_hands_each_metric_its_own_arguments():
    names = ("top1", "content_heatmap", "cgc_loss")
    collection = torchmetrics.MetricCollection({name: as_torchmetric(METRICS[name]()) for name in names})
    logits, labels = batch("top1", 6, 0)
    heatmaps, boxes, image_sizes = batch("content_heatmap", 6, 0)
    (losses,) = batch("cgc_loss", 6, 0)
    collection.update(
        logits=logits, labels=labels, heatmaps=heatmaps, boxes=boxes, image_sizes=image_sizes, losses=losses
    )
    assert set(collection.compute()) == set(names)


def test_synchronised():
    """Every gather answers as if a second process held the same."""
    metric = as_torchmetric(
        ContentHeatmap(),
        dist_sync_fn=lambda state, group=None: [state, state],
        distributed_available_fn=lambda: True,
    )
    metric.update(*batch("content_heatmap", 4, 0))
    own = ContentHeatmap()
    own.update(*batch("content_heatmap", 4, 0))
    assert metric.compute().item() == pytest.approx(own.compute().item(), rel=1e-12)


def test_without_torchmetrics(monkeypatch):
    monkeypatch.setitem(sys.modules, "torchmetrics", None)
    monkeypatch.delitem(sys.modules, "contrex.metrics.torchmetric_class", raising=False)
    with pytest.raises(TorchmetricsMissingError, match=r"pip install 'contrex\[torchmetrics\]'"):
        as_torchmetric(CGCLossMetric())


@pytest.mark.slow
def test_nothing_else_imports_torchmetrics():
    code = "import sys, contrex.evaluation, contrex.training, contrex.cli; sys.exit('torchmetrics' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
