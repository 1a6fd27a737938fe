from __future__ import annotations

import math
import pickle
import subprocess
import sys
from functools import partial

import numpy as np
import pytest
import torch

from contrex import ranks
from contrex.errors import ArgumentError
from contrex.metrics import (
    CGCLossMetric,
    ContentHeatmap,
    DeletionAUC,
    InsertionAUC,
    PerSampleMetric,
    TopKAccuracy,
)
from contrex.metrics.per_sample import bootstrap_interval

BOX = torch.tensor([[0.0, 0.0, 3.0, 8.0]])


METRICS = {
    "top1": partial(TopKAccuracy, k=1),
    "top5": partial(TopKAccuracy, k=5),
    "content_heatmap": ContentHeatmap,
    "cgc_loss": CGCLossMetric,
    "insertion_auc": InsertionAUC,
    "deletion_auc": DeletionAUC,
}


class Given(PerSampleMetric):
    """The values themselves."""

    name = "given"
    title = "Given"
    skip_reason = "no value given"
    higher_is_better = True

    def update(self, values):
        self.append(values)


def batch(name, num_images, seed):
    """Arguments of `update` for the metric called `name`."""
    generator = torch.Generator().manual_seed(seed)
    if name.startswith("top"):
        return (
            torch.randn(num_images, 9, generator=generator),
            torch.randint(0, 9, (num_images,), generator=generator),
        )
    if name == "content_heatmap":
        heatmaps = torch.randn(num_images, 3, 3, generator=generator)
        boxes = [BOX if index % 3 else torch.zeros(0, 4) for index in range(num_images)]
        return heatmaps, boxes, [(8, 8)] * num_images
    shape = (num_images,) if name == "cgc_loss" else (num_images, 6)
    return (torch.rand(shape, generator=generator),)


# --- the interval ---------------------------------------------------------------------------------------------------


def slow_interval(values, num_resamples, seed):
    generator, sample = np.random.default_rng(seed), sorted(values)
    draws = [generator.integers(len(sample), size=len(sample), dtype=np.int32) for _ in range(num_resamples)]
    return tuple(np.percentile([np.mean([sample[i] for i in draw]) for draw in draws], [2.5, 97.5]))


def test_interval_equals_a_loop():
    values = np.random.default_rng(1).normal(size=23)
    interval = bootstrap_interval(values, num_resamples=50, seed=3)
    np.testing.assert_allclose(interval, slow_interval(values, 50, 3), rtol=1e-12)


def test_interval_does_not_depend_on_how_the_draws_are_chunked(monkeypatch):
    values = np.random.default_rng(1).normal(size=23)
    whole = bootstrap_interval(values, num_resamples=64, seed=3)
    monkeypatch.setattr("contrex.ops.bootstrap.DRAWS_AT_ONCE", 69)
    assert bootstrap_interval(values, num_resamples=64, seed=3) == pytest.approx(whole, rel=1e-12)


def test_interval_has_the_width_of_the_normal_one():
    values = np.random.default_rng(0).normal(10, 3, size=2000)
    low, high = bootstrap_interval(values, num_resamples=2000, seed=0)
    half = 1.96 * values.std() / math.sqrt(len(values))
    assert (low + high) / 2 == pytest.approx(values.mean(), abs=0.1 * half)
    assert (high - low) / 2 == pytest.approx(half, rel=0.08)


def test_interval_covers_the_true_mean_about_95_times_in_100():
    generator = np.random.default_rng(0)
    covered = 0
    for seed in range(300):
        low, high = bootstrap_interval(generator.exponential(2.0, size=80), num_resamples=300, seed=seed)
        covered += low <= 2.0 <= high
    assert 0.90 <= covered / 300 <= 0.97


def test_interval_depends_on_values_seed_and_level_only():
    values = np.random.default_rng(0).random(50)
    interval = bootstrap_interval(values, num_resamples=200, seed=1)
    assert bootstrap_interval(values[::-1], num_resamples=200, seed=1) == interval
    assert bootstrap_interval([*values, math.nan], num_resamples=200, seed=1) == interval
    assert bootstrap_interval(values, num_resamples=200, seed=2) != interval
    narrow = bootstrap_interval(values, num_resamples=200, seed=1, level=0.5)
    assert interval[0] < narrow[0] < narrow[1] < interval[1]


@pytest.mark.parametrize("values", [[], [3.0], [3.0, math.nan]])
def test_interval_of_fewer_than_two_values_is_nan(values):
    assert all(math.isnan(bound) for bound in bootstrap_interval(values, num_resamples=10, seed=0))


def test_interval_errors():
    with pytest.raises(ArgumentError, match=r"`num_resamples` must be at least 1, got 0"):
        bootstrap_interval([1.0, 2.0], num_resamples=0, seed=0)
    with pytest.raises(ArgumentError, match=r"`level` must lie between 0 and 1, got 95"):
        bootstrap_interval([1.0, 2.0], num_resamples=10, seed=0, level=95)


# --- the accumulator ------------------------------------------------------------------------------------------------


def test_mean_values_and_record_leave_skipped_images_out():
    metric = Given()
    metric.update(torch.tensor([1.0, torch.nan]))
    metric.update(torch.tensor([4.0]))
    assert metric.compute() == 2.5
    assert metric.values().dtype == torch.float64
    torch.testing.assert_close(
        metric.values(), torch.tensor([1, torch.nan, 4], dtype=torch.float64), equal_nan=True, rtol=0, atol=0
    )
    record = metric.record(num_bootstrap=100, seed=0, protocol={"layer": "last"})
    assert (record.name, record.title, record.unit, record.higher_is_better) == ("given", "Given", "", True)
    assert (record.value, record.num_counted, record.num_skipped) == (2.5, 2, 1)
    assert (record.skip_reason, record.protocol) == ("no value given", {"layer": "last"})
    assert (record.low, record.high) == bootstrap_interval([1.0, 4.0], num_resamples=100, seed=0)


def test_nothing_counted_is_nan_not_zero():
    metric = Given()
    metric.update(torch.tensor([torch.nan]))
    record = metric.record(num_bootstrap=10, seed=0)
    assert metric.compute().isnan()
    assert math.isnan(record.value)
    assert math.isnan(record.low)
    assert (record.num_counted, record.num_skipped) == (0, 1)


def test_one_image_has_a_value_and_no_interval():
    metric = Given()
    metric.update(torch.tensor([2.0]))
    record = metric.record(num_bootstrap=10, seed=0)
    assert record.value == 2.0
    assert math.isnan(record.low)
    assert math.isnan(record.high)


def test_a_metric_without_any_update_has_a_record():
    assert Given().record(num_bootstrap=10, seed=0).num_counted == 0


def test_wrong_shape():
    with pytest.raises(ArgumentError, match=r"`values` of given must be \[N\], one per image, got \[2, 1\]"):
        Given().update(torch.zeros(2, 1))


def test_what_is_kept_has_no_graph_and_may_be_half_precision():
    metric = Given()
    metric.update(torch.tensor([1.0, 2.0], dtype=torch.float16).requires_grad_())
    assert metric.compute().dtype == torch.float64
    assert not metric.compute().requires_grad


def test_a_metric_without_update_is_none():
    with pytest.raises(TypeError, match=r"abstract method '?update'?"):
        type("Nothing", (PerSampleMetric,), {"name": "nothing", "title": "Nothing"})()


@pytest.mark.parametrize("name", METRICS)
def test_batches_do_not_matter(name):
    one, other = METRICS[name](), METRICS[name]()
    first, second = batch(name, 5, 0), batch(name, 3, 1)
    for arguments in (first, second):
        one.update(*arguments)
    for arguments in (second, first):
        other.update(*arguments)
        other.compute()  # which must not be remembered
    assert other.compute().item() == pytest.approx(one.compute().item(), rel=1e-12)
    left, right = (metric.record(num_bootstrap=20, seed=0) for metric in (one, other))
    assert (left.num_counted, left.num_skipped, left.skip_reason) == (
        right.num_counted,
        right.num_skipped,
        right.skip_reason,
    )
    assert (left.low, left.high) == pytest.approx((right.low, right.high), rel=1e-12)


@pytest.mark.parametrize("name", METRICS)
def test_interface(name):
    metric = METRICS[name]()
    assert metric.name == name
    assert metric.title
    assert metric.unit in {"", "%"}
    assert isinstance(metric.higher_is_better, bool)
    arguments = batch(name, 6, 0)
    metric.update(*arguments)
    value = metric.compute()
    assert value.ndim == 0
    assert value.isfinite()
    metric.update(*arguments)
    assert metric.compute().item() == pytest.approx(value.item(), rel=1e-12)
    assert len(metric.values()) == len(metric.own_values()) == 12
    assert pickle.loads(pickle.dumps(metric)).compute() == metric.compute()
    metric.reset()
    assert len(metric.values()) == 0
    metric.update(*arguments)
    assert metric.compute() == value


def test_made_inside_inference_mode_used_outside():
    with torch.inference_mode():
        metrics = {name: METRICS[name]() for name in METRICS}
        metrics["content_heatmap"].update(*batch("content_heatmap", 4, 0))
    for name, metric in metrics.items():
        metric.update(*batch(name, 4, 0))
        assert metric.compute().isfinite()


# --- several processes ----------------------------------------------------------------------------------------------


def test_synchronised_values_and_counts(monkeypatch):
    """Every exchange answers as if a second process held the same."""
    monkeypatch.setattr(ranks, "gathered", lambda own: [own, own])
    metric = ContentHeatmap()
    metric.update(*batch("content_heatmap", 4, 0))
    alone = metric.own_values()
    torch.testing.assert_close(metric.values(), torch.cat([alone, alone]), equal_nan=True)
    record = metric.record(num_bootstrap=10, seed=0)
    assert record.num_counted + record.num_skipped == 8
    assert record.skip_reason.startswith("4 without a box")
    assert metric.own_values().shape == (4,)  # its own again
    curves = InsertionAUC()
    curves.update(torch.rand(3, 5))
    assert len(curves.values()) == 6


WORKER = """
import sys
import torch, torch.distributed as dist
from contrex.metrics import CGCLossMetric, ContentHeatmap, InsertionAUC
rank, store = int(sys.argv[1]), sys.argv[2]
dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=2)
loss, heat, curve, nothing = CGCLossMetric(), ContentHeatmap(), InsertionAUC(), InsertionAUC()
for value in ([1.0, 2.0, 3.0], [6.0])[: 2 - rank]:  # four images here, three there
    loss.update(torch.tensor([value]).flatten())
heat.update(torch.ones(1 + rank, 2, 2), [torch.tensor([[0.0, 0.0, 2.0, 4.0]])] + [torch.zeros(0, 4)] * rank,
            [(4, 4)] * (1 + rank))
if rank == 0:  # and the other process has none at all
    curve.update(torch.tensor([[0.0, 0.5, 1.0], [0.0, 1.0, 1.0]]))
assert loss.compute() == 18 / 7, loss.compute()
assert loss.values().tolist() == [1, 2, 3, 6, 1, 2, 3]
record = heat.record(num_bootstrap=10, seed=0)
assert (record.num_counted, record.num_skipped, record.value) == (2, 1, 50.0), record
assert record.skip_reason.startswith("1 without a box"), record
assert curve.values().tolist() == [0.5, 0.75]
assert nothing.values().tolist() == []
assert len(loss.values()) == 7 and len(loss.own_values()) == 4 - rank
dist.destroy_process_group()
"""


def run_together(code, num, folder):
    workers = [
        subprocess.Popen(
            [sys.executable, "-c", code, str(rank), str(folder / "store"), str(num)], stderr=subprocess.PIPE, text=True
        )
        for rank in range(num)
    ]
    errors = [worker.communicate(timeout=120)[1] for worker in workers]
    assert [worker.returncode for worker in workers] == [0] * num, errors


@pytest.mark.slow
def test_two_processes_with_different_numbers_of_images(tmp_path):
    run_together(WORKER, 2, tmp_path)


SHARING = """
import sys
import torch, torch.distributed as dist
from contrex.metrics import ContentHeatmap, CurveMean, ExpectedCalibrationError, InsertionAUC, as_torchmetric
rank, store, num = int(sys.argv[1]), sys.argv[2], int(sys.argv[3])
draws = torch.Generator().manual_seed(0)
curves, logits = torch.rand(11, 5, generator=draws), torch.randn(11, 3, generator=draws)
labels, maps = torch.randint(3, (11,), generator=draws), torch.randn(11, 3, 3, generator=draws)
boxes = [[[0.0, 0.0, 3.0, 8.0]] if i % 3 else [] for i in range(11)]
arguments = {
    InsertionAUC: (curves,), ExpectedCalibrationError: (logits, labels), ContentHeatmap: (maps, boxes, [(8, 8)] * 11),
}
ours = slice(0, 7) if rank == 0 else slice(7, 11) if rank == 1 else slice(11, 11)  # a third process has no images
alone = {kind: kind() for kind in arguments}
for kind, given in arguments.items():
    alone[kind].update(*given)
expected = {kind: (m.compute(), m.values(), m.record(20, 0)) for kind, m in alone.items()}
whole, mean = CurveMean(), CurveMean()
whole.update(curves)
points = whole.points(range(5), num_bootstrap=20, seed=0)
dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=num)
for kind, given in arguments.items():
    metric, other = kind(), as_torchmetric(kind())
    if ours.start < 11:
        metric.update(*(part[ours] for part in given))
        other.update(*(part[ours] for part in given))
    value, values, record = expected[kind]
    torch.testing.assert_close(metric.compute(), value, rtol=0, atol=0)
    torch.testing.assert_close(metric.values(), values, rtol=0, atol=0, equal_nan=True)
    assert metric.record(20, 0) == record
    torch.testing.assert_close(other.compute(), value, rtol=0, atol=0)
if ours.start < 11:
    mean.update(curves[ours])
assert mean.points(range(5), num_bootstrap=20, seed=0) == points
dist.destroy_process_group()
"""


@pytest.mark.slow
@pytest.mark.parametrize("num", [2, 3])
def test_processes_give_what_one_gives_to_the_last_bit(num, tmp_path):
    pytest.importorskip("torchmetrics")
    run_together(SHARING, num, tmp_path)


def test_loss_metric_is_per_anchor():
    metric = CGCLossMetric()
    metric.update(torch.tensor([1.0, 2.0]))
    assert metric.values().tolist() == [1.0, 2.0]
