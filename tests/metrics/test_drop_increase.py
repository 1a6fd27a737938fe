from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from contrex.errors import ArgumentError
from contrex.metrics import drop_increase
from contrex.metrics.drop_increase import (
    DropMagnitude,
    DropPercent,
    IncreaseMagnitude,
    IncreasePercent,
    kept_probabilities,
)
from oracles import drop_increase as slow

METRICS = {
    "drop_percent": DropPercent,
    "drop_magnitude": DropMagnitude,
    "increase_percent": IncreasePercent,
    "increase_magnitude": IncreaseMagnitude,
}
MEASURES = tuple(METRICS)


class Counting(nn.Module):
    """A small classifier with batch norm and dropout that counts the images it sees."""

    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(
            nn.Conv2d(2, 4, 3, padding=1),
            nn.BatchNorm2d(4),
            nn.ReLU(),
            nn.Dropout(0.5),
            nn.Flatten(),
            nn.Linear(216, 3),
        )
        self.net[1].running_var.uniform_(0.5, 2)
        self.sizes = []

    def forward(self, x):
        self.sizes.append(len(x))
        self.channels_last = x.is_contiguous(memory_format=torch.channels_last)
        return self.net(x)


@pytest.fixture
def model():
    return Counting().train()


@pytest.fixture
def images():
    return torch.randn(5, 2, 6, 9)


@pytest.fixture
def saliency():
    return torch.randn(5, 6, 9)


def test_golden(golden):
    arrays = golden("drop_increase_a")
    net = nn.Sequential(
        nn.Conv2d(3, 8, 5, stride=8, padding=2), nn.ReLU(), nn.Conv2d(8, 16, 3, stride=2, padding=1), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 5),
    )  # fmt: skip
    for index, name in ((0, "c1"), (2, "c2"), (6, "fc")):
        net[index].weight.data = torch.tensor(arrays[f"w_{name}_weight"])
        net[index].bias.data = torch.tensor(arrays[f"w_{name}_bias"])
    images, saliency = torch.tensor(arrays["images"]).double(), torch.tensor(arrays["saliency"])
    probs, kept = kept_probabilities(net.double(), images, saliency)
    for column, percent in enumerate((15, 30, 45)):
        for name in MEASURES:
            scale = 100 if name.endswith("percent") else 1
            actual = getattr(drop_increase, name)(probs, kept[:, column]) / scale
            np.testing.assert_allclose(actual, arrays[f"{name}_{percent}"], rtol=1e-5)


@pytest.mark.parametrize("ties", [False, True])
def test_oracle(ties, model, images, saliency):
    if ties:
        saliency = torch.randint(0, 3, (5, 6, 9)).float()
    target, baseline = torch.tensor([0, 1, 2, 0, 1]), torch.randn_like(images)
    fractions = (0.15, 0.5, 1.0)
    probs, kept = kept_probabilities(model, images, saliency, fractions=fractions, target=target, baseline=baseline)
    rows = zip(images, saliency, target.tolist(), baseline, strict=True)
    expected = [[slow.kept_probability(model, x, s, f, t, b) for f in fractions] for x, s, t, b in rows]
    torch.testing.assert_close(kept.double(), torch.tensor(expected, dtype=torch.float64), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(kept[:, 2], probs, rtol=1e-5, atol=1e-6)  # everything is kept
    for name in MEASURES:
        values = getattr(drop_increase, name)(probs, kept)
        slow_values = [
            [slow.change(name, p, q) for q in row] for p, row in zip(probs.tolist(), kept.tolist(), strict=True)
        ]
        torch.testing.assert_close(values, torch.tensor(slow_values, dtype=torch.float64))


def test_the_number_of_pixels_is_rounded_down_but_not_by_a_rounding_error():
    ones = torch.ones(1, 1, 10, 10, dtype=torch.float64)
    sees_the_area = nn.Sequential(nn.Flatten(), nn.Linear(100, 2, bias=False, dtype=torch.float64))
    sees_the_area[1].weight.data = torch.stack([torch.full((100,), 0.01), torch.zeros(100)]).double()
    _, kept = kept_probabilities(sees_the_area, ones, torch.rand(1, 10, 10), fractions=[0.154, 0.159, 0.57, 0.45])
    pixels = 100 * torch.special.logit(kept)[0]
    assert pixels.tolist() == pytest.approx([15, 15, 57, 45])


def test_the_default_baseline_is_zero_and_the_default_target_the_prediction(model, images, saliency):
    with torch.no_grad():
        target = model.eval()(images).argmax(dim=1)
    expected = kept_probabilities(model, images, saliency, target=target, baseline=torch.zeros(2, 1, 1))
    actual = kept_probabilities(model, images, saliency)
    assert all(map(torch.equal, actual, expected))
    other = kept_probabilities(model, images, saliency, target=(target + 1) % 3)
    assert not other[0].equal(actual[0])


@pytest.mark.parametrize("batch_size", [1, 2, 4, 7, 64])
def test_chunks_do_not_matter_and_no_image_is_seen_twice(batch_size, model, images, saliency):
    expected = kept_probabilities(model, images, saliency)
    model.sizes.clear()
    actual = kept_probabilities(model, images, saliency, batch_size=batch_size)
    torch.testing.assert_close(actual, expected, rtol=1e-5, atol=1e-6)
    assert sum(model.sizes) == 5 * (3 + 1)
    assert max(model.sizes) <= batch_size
    with torch.no_grad():
        logits = model.eval()(images)
    model.sizes.clear()
    actual = kept_probabilities(model, images, saliency, batch_size=batch_size, logits=logits)
    torch.testing.assert_close(actual, expected, rtol=1e-5, atol=1e-6)
    assert sum(model.sizes) == 5 * 3


def test_permuting_the_batch_permutes_the_result(model, images, saliency):
    order = torch.tensor([3, 0, 4, 1, 2])
    probs, kept = kept_probabilities(model, images, saliency)
    permuted = kept_probabilities(model, images[order], saliency[order])
    torch.testing.assert_close(permuted, (probs[order], kept[order]), rtol=1e-5, atol=1e-6)


def test_leaves_no_trace_and_keeps_the_memory_format(model, images, saliency):
    model.net[1].eval()
    modes = [module.training for module in model.modules()]
    before = {name: value.clone() for name, value in model.state_dict().items()}
    images = images.to(memory_format=torch.channels_last)
    copy, rng = images.clone(), torch.get_rng_state()
    probs, kept = kept_probabilities(model, images.requires_grad_(), saliency)
    assert model.channels_last
    assert [module.training for module in model.modules()] == modes
    assert all(value.equal(before[name]) for name, value in model.state_dict().items())
    assert images.equal(copy)
    assert torch.get_rng_state().equal(rng)
    assert all(not t.requires_grad and not t.is_inference() for t in (probs, kept))
    assert all(parameter.grad is None for parameter in model.parameters())


def test_half_precision_network(images, saliency):
    net = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(2, 3)).to(torch.bfloat16)
    probs, kept = kept_probabilities(net, images.bfloat16(), saliency)
    assert probs.dtype == kept.dtype == torch.float32


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"images": torch.zeros(2, 6, 9)}, r"`images` must be \[N,C,H,W\] with N >= 1, got \[2, 6, 9\]"),
        ({"saliency": torch.zeros(5, 9, 6)}, r"`saliency` must be \[N,H,W\] = \[5, 6, 9\], got \[5, 9, 6\]"),
        ({"saliency": torch.full((5, 6, 9), torch.nan)}, r"`saliency` must not be NaN, got NaN at index 0"),
        ({"fractions": [0.5, 15]}, r"`fraction` must lie in \(0, 1\], got 15: 0.15 keeps 15 %"),
        ({"fractions": [0.0]}, r"`fraction` must lie in \(0, 1\], got 0.0"),
        ({"fractions": [torch.nan]}, r"`fraction` must lie in \(0, 1\], got nan"),
        ({"fractions": []}, r"`fractions` must hold at least one share"),
        ({"fractions": [0.01]}, r"`fractions` must keep a pixel: 0.01 of 54 pixels is less than one"),
        ({"baseline": torch.zeros(9, 6)}, r"`baseline` must have the images' shape \[5, 2, 6, 9\] or broadcast"),
        ({"target": torch.full((5,), 3)}, r"`target` must lie in 0..2"),
        ({"logits": torch.zeros(4, 3)}, r"`logits` must be \[N,K\] with N = 5, got \[4, 3\]"),
        ({"batch_size": 0}, r"`batch_size` must be at least 1 image, got 0"),
    ],
)
def test_errors(changes, message, model, images, saliency):
    with pytest.raises(ArgumentError, match=message):
        kept_probabilities(model, **{"images": images, "saliency": saliency, **changes})


# --- the four measures ----------------------------------------------------------------------------------------------


def test_equal_probabilities_are_neither_drop_nor_increase():
    same = torch.tensor([0.25, 1.0])
    assert all(getattr(drop_increase, name)(same, same).tolist() == [0.0, 0.0] for name in MEASURES)


def test_a_probability_of_zero_is_skipped_by_the_magnitudes():
    zero, some = torch.zeros(1), torch.full((1,), 0.5)
    assert drop_increase.drop_magnitude(zero, some).isnan()
    assert drop_increase.increase_magnitude(zero, zero).isnan()
    assert drop_increase.increase_percent(zero, some) == 100
    metric = IncreaseMagnitude(fraction=0.15)
    metric.update(torch.tensor([0.0, 0.5]), torch.tensor([[0.5], [1.0]]), [0.15])
    record = metric.record(num_bootstrap=10, seed=0)
    assert (record.value, record.num_counted, record.num_skipped) == (1.0, 1, 1)
    assert record.skip_reason == "the whole image has probability 0"


@pytest.mark.parametrize("name", MEASURES)
def test_measure_errors(name):
    function = getattr(drop_increase, name)
    with pytest.raises(ArgumentError, match=r"`probs` must be \[N\] .* got \[2\] and \[3, 2\]"):
        function(torch.rand(2), torch.rand(3, 2))
    with pytest.raises(ArgumentError, match=r"`kept_probs` must be probabilities in 0..1, got \[nan\]"):
        function(torch.rand(1), torch.tensor([torch.nan]))
    with pytest.raises(ArgumentError, match=r"`probs` must be probabilities in 0..1, got \[15.0\]"):
        function(torch.tensor([15.0]), torch.rand(1))


def test_accumulators_pick_their_column():
    fractions = (0.15, 0.3, 0.455)
    metrics = [(name, METRICS[name](fraction=fraction)) for name in MEASURES for fraction in fractions]
    probs, kept = torch.rand(7), torch.rand(7, 3)
    for name, metric in metrics:
        for some in (slice(4), slice(4, 7)):
            metric.update(probs[some], kept[some], fractions)
        column = fractions.index(metric.fraction)
        assert metric.values().equal(getattr(drop_increase, name)(probs, kept[:, column]))
        assert metric.unit == ("%" if "percent" in metric.name else "")
        assert metric.higher_is_better == metric.name.startswith("increase")
    names = [metric.name for _, metric in metrics]
    assert len(set(names)) == 12
    assert (names[0], names[5]) == ("drop_percent_15", "drop_magnitude_45_5")
    assert metrics[0][1].title == "Drop percent, 15 % kept"


def test_accumulator_errors():
    with pytest.raises(ArgumentError, match=r"`fraction` must lie in \(0, 1\], got 15"):
        DropPercent(fraction=15)
    metric = DropPercent(fraction=0.15)
    with pytest.raises(
        ArgumentError, match=r"`fractions` must hold 0.15, the fraction of drop_percent_15, got \[0.3\]"
    ):
        metric.update(torch.rand(2), torch.rand(2, 1), [0.3])
    with pytest.raises(ArgumentError, match=r"`kept_probs` must be \[N,F\] with F = 1, got \[2\]"):
        metric.update(torch.rand(2), torch.rand(2), [0.15])
