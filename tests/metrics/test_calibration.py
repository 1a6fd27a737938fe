from __future__ import annotations

import math
import pickle

import numpy as np
import pytest
import torch

from contrex import ranks
from contrex.errors import ArgumentError
from contrex.metrics.calibration import (
    ExpectedCalibrationError,
    confidence_and_correct,
    expected_calibration_error,
    reliability_diagram,
)
from oracles import calibration as slow


def batch(num_images, sharpness=2.0):
    """Logits and labels of a network that is right more often than not, and too sure for a larger sharpness."""
    labels = torch.randint(0, 4, (num_images,))
    logits = torch.randn(num_images, 4) + torch.nn.functional.one_hot(labels, 4)
    return sharpness * logits, labels


@pytest.mark.parametrize("num_bins", [1, 2, 15, 60])
def test_oracle(num_bins):
    confidence, correct = confidence_and_correct(*batch(80))
    expected = slow.diagram(confidence.tolist(), correct.tolist(), num_bins)
    diagram = reliability_diagram(confidence, correct, num_bins=num_bins)
    actual = torch.stack([diagram.count.double(), diagram.confidence, diagram.accuracy], dim=1)
    torch.testing.assert_close(actual, torch.tensor(expected, dtype=torch.float64), equal_nan=True, rtol=1e-12, atol=0)
    error = expected_calibration_error(confidence, correct, num_bins=num_bins)
    assert error.item() == pytest.approx(slow.error(confidence.tolist(), correct.tolist(), num_bins), rel=1e-12)


@pytest.mark.parametrize("num_bins", [1, 10, 15])
def test_torchmetrics_gives_the_same(num_bins):
    functional = pytest.importorskip("torchmetrics.functional.classification")
    logits, labels = batch(300)
    theirs = functional.multiclass_calibration_error(logits, labels, num_classes=4, n_bins=num_bins)
    ours = expected_calibration_error(*confidence_and_correct(logits, labels), num_bins=num_bins)
    assert ours.item() == pytest.approx(theirs.item(), rel=1e-5)


def test_torchmetrics_gives_a_confidence_of_one_a_bin_of_its_own():
    functional = pytest.importorskip("torchmetrics.functional.classification")
    logits, labels = torch.tensor([[200.0, 0.0], [3.5, 0.0]]), torch.tensor([1, 0])
    confidence, correct = confidence_and_correct(logits, labels)
    last = confidence[1].item()
    assert confidence[0] == 1
    theirs = functional.multiclass_calibration_error(logits, labels, num_classes=2).item()
    assert theirs == pytest.approx((1 + (1 - last)) / 2)
    assert expected_calibration_error(confidence, correct).item() == pytest.approx((1 - (1 - last)) / 2)


def test_bins_are_closed_above():
    confidence = torch.tensor([0.0, 0.2, 0.2000001, 0.6, 1.0], dtype=torch.float64)
    diagram = reliability_diagram(confidence, torch.ones(5, dtype=torch.bool), num_bins=5)
    assert diagram.count.tolist() == [2, 1, 1, 0, 1]


def test_by_hand():
    confidence, correct = torch.tensor([0.9, 0.9, 0.6, 0.6]), torch.tensor([True, False, True, True])
    assert expected_calibration_error(confidence, correct, num_bins=2).item() == pytest.approx(0.0)  # one bin, 0.75
    assert expected_calibration_error(confidence, correct, num_bins=4).item() == pytest.approx(0.4)
    assert expected_calibration_error(confidence, correct, num_bins=1).item() == pytest.approx(0.0)


def test_no_images():
    nothing = torch.zeros(0)
    assert expected_calibration_error(nothing, nothing > 0).isnan()
    record = ExpectedCalibrationError().record(num_bootstrap=10, seed=0)
    assert (record.num_counted, record.num_skipped) == (0, 0)
    assert all(map(math.isnan, (record.value, record.low, record.high)))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_confidence_of_half_precision_logits(dtype):
    logits, labels = batch(10)
    confidence, _ = confidence_and_correct(logits.to(dtype), labels)
    assert confidence.dtype == torch.float64
    torch.testing.assert_close(confidence, logits.to(dtype).double().softmax(dim=1).max(dim=1).values)


@pytest.mark.parametrize(
    ("confidence", "correct", "num_bins", "message"),
    [
        (torch.rand(3), torch.ones(2) > 0, 15, r"`confidence` and `correct` must both be \[N\], got \[3\] and \[2\]"),
        (torch.rand(3, 1), torch.ones(3, 1) > 0, 15, r"must both be \[N\]"),
        (torch.rand(3), torch.ones(3), 15, r"`correct` must be boolean, got torch.float32"),
        (torch.tensor([0.5, torch.nan]), torch.ones(2) > 0, 15, r"`confidence` must lie in 0..1, got nan at index 1"),
        (torch.tensor([1.5]), torch.ones(1) > 0, 15, r"`confidence` must lie in 0..1, got 1.5 at index 0"),
        (torch.rand(3), torch.ones(3) > 0, 0, r"`num_bins` must be at least 1, got 0: 15 is usual"),
    ],
)
def test_errors(confidence, correct, num_bins, message):
    with pytest.raises(ArgumentError, match=message):
        expected_calibration_error(confidence, correct, num_bins=num_bins)


def test_logit_errors():
    with pytest.raises(ArgumentError, match=r"`labels` must lie in 0..1, got 2 at index 0"):
        confidence_and_correct(torch.zeros(1, 2), torch.tensor([2]))
    with pytest.raises(ArgumentError, match=r"`logits` must not be NaN"):
        confidence_and_correct(torch.full((1, 2), torch.nan), torch.tensor([0]))
    with pytest.raises(ArgumentError, match=r"`logits` must be finite, got infinity"):
        confidence_and_correct(torch.tensor([[torch.inf, 0.0]]), torch.tensor([0]))
    with pytest.raises(ArgumentError, match=r"`num_bins` must be at least 1, got 0"):
        ExpectedCalibrationError(num_bins=0)
    with pytest.raises(ArgumentError, match=r"`num_bootstrap` must be at least 1, got 0"):
        ExpectedCalibrationError().record(num_bootstrap=0, seed=0)


# --- the accumulator ------------------------------------------------------------------------------------------------


def filled(logits, labels, *, sizes=(30, 50, 20), **kwargs):
    metric = ExpectedCalibrationError(**kwargs)
    for some in zip(torch.split(logits, sizes), torch.split(labels, sizes), strict=True):
        metric.update(*some)
    return metric


def test_value_is_that_of_all_images_not_the_mean_over_batches():
    logits, labels = batch(100)
    metric = filled(logits, labels, num_bins=10)
    expected = 100 * expected_calibration_error(*confidence_and_correct(logits, labels), num_bins=10)
    assert metric.compute().item() == pytest.approx(expected.item(), rel=1e-12)
    assert metric.compute().dtype == torch.float64
    assert metric.diagram().error.item() == pytest.approx(expected.item() / 100, rel=1e-12)
    assert metric.title == "Expected calibration error, 10 bins"


def test_shares_average_to_the_error_and_stay_with_their_image():
    logits, labels = batch(100)
    metric = filled(logits, labels)
    values = metric.values()
    assert values.mean().item() == pytest.approx(metric.compute().item(), rel=1e-12)
    assert metric.own_values().equal(values)
    confidence, correct = confidence_and_correct(logits, labels)
    torch.testing.assert_close(values.abs() / 100, (correct.double() - confidence).abs())
    order = torch.randperm(100)
    torch.testing.assert_close(filled(logits[order], labels[order]).values(), values[order])


def test_record():
    logits, labels = batch(100, sharpness=5)
    metric = filled(logits, labels)
    record = metric.record(num_bootstrap=200, seed=3, protocol={"split": "validation"})
    assert record.value == pytest.approx(metric.compute().item(), rel=1e-12)
    assert (record.name, record.unit, record.higher_is_better) == ("ece", "%", False)
    assert (record.num_counted, record.num_skipped) == (100, 0)
    assert record.protocol == {"bins": 15, "split": "validation"}
    assert 0 < record.low < record.value < record.high < 100
    order = torch.randperm(100)
    shuffled = filled(logits[order], labels[order]).record(num_bootstrap=200, seed=3)
    assert (shuffled.low, shuffled.high) == pytest.approx((record.low, record.high), rel=1e-12)
    assert metric.record(num_bootstrap=200, seed=4).low != record.low


def test_interval_equals_a_loop(monkeypatch):
    logits, labels = batch(40, sharpness=4)
    metric = filled(logits, labels, sizes=(40,))
    confidence, correct = (values.tolist() for values in confidence_and_correct(logits, labels))
    pairs = zip(confidence, correct, strict=True)
    pairs = sorted(pairs, key=lambda pair: (slow.bin_of(pair[0], 15), pair[1] - pair[0]))
    generator, errors = np.random.default_rng(7), []
    for _ in range(60):
        drawn = [pairs[index] for index in generator.integers(40, size=40, dtype=np.int32)]
        errors.append(100 * slow.error(*zip(*drawn, strict=True), 15))
    low, high = np.percentile(errors, [2.5, 97.5])
    value = 100 * slow.error(confidence, correct, 15)
    record = metric.record(num_bootstrap=60, seed=7)
    assert (record.low, record.high) == pytest.approx((max(0, 2 * value - high), 2 * value - low), rel=1e-9)
    monkeypatch.setattr("contrex.metrics.calibration.DRAWS_AT_ONCE", 100)
    again = metric.record(num_bootstrap=60, seed=7)
    assert (again.low, again.high) == pytest.approx((record.low, record.high), rel=1e-12)


def test_interval_covers_the_true_error_of_an_overconfident_network():
    """Confidence 0.02 above the accuracy everywhere: the percentile interval covers it not once."""
    covered, generator = 0, torch.Generator().manual_seed(0)
    for seed in range(60):
        confidence = 0.5 + 0.5 * torch.rand(400, generator=generator, dtype=torch.float64)
        right = torch.rand(400, generator=generator) < confidence - 0.02
        logit = torch.special.logit(confidence)
        metric = ExpectedCalibrationError()
        metric.update(torch.stack([logit, torch.zeros_like(logit)], dim=1), (~right).long())
        record = metric.record(num_bootstrap=100, seed=seed)
        covered += record.low <= 2.0 <= record.high
    assert covered >= 48


def test_resetting_and_pickling():
    logits, labels = batch(100)
    whole = filled(logits, labels)
    assert pickle.loads(pickle.dumps(whole)).compute() == whole.compute()
    whole.reset()
    assert len(whole.values()) == 0
    assert whole.compute().isnan()


def test_several_processes(monkeypatch):
    """Every exchange answers as if a second process held the same."""
    logits, labels = batch(100)
    alone = filled(logits, labels)
    expected, shares = alone.compute(), alone.values()
    monkeypatch.setattr(ranks, "gathered", lambda own: [own, own])
    metric = filled(logits, labels)
    assert metric.compute().item() == pytest.approx(expected.item(), rel=1e-12)
    assert metric.values().equal(shares.repeat(2))
    assert metric.own_values().equal(shares)
    assert metric.diagram().count.sum() == 200
    assert metric.record(num_bootstrap=10, seed=0).num_counted == 200


def test_the_sign_of_a_share_is_that_of_all_processes(monkeypatch):
    """Here one image of confidence 0.9 that is right; in the other process nine that are wrong."""
    theirs = torch.tensor([[0.9, 0.0]] * 9, dtype=torch.float64)
    monkeypatch.setattr(ranks, "gathered", lambda own: [own, theirs])
    metric = ExpectedCalibrationError()
    metric.update(torch.tensor([[0.9, 0.1]], dtype=torch.float64).log(), torch.tensor([0]))
    assert metric.compute().item() == pytest.approx(80.0)
    assert metric.own_values().tolist() == pytest.approx([-10.0])
    assert metric.values().mean().item() == pytest.approx(80.0)


def test_the_interval_ends_at_zero():
    """Two images of confidence 0.95, one right: e = 45 %, resamples reach 95 %, and 2 * 45 - 95 is below 0."""
    metric = ExpectedCalibrationError()
    metric.update(torch.tensor([[0.95, 0.05]] * 2, dtype=torch.float64).log(), torch.tensor([0, 1]))
    record = metric.record(num_bootstrap=200, seed=0)
    assert record.value == pytest.approx(45.0)
    assert record.low == 0
    assert record.high == pytest.approx(2 * 45 - 5)
