from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from torch import nn

from contrex.errors import ArgumentError, UnknownNameError
from contrex.metrics.masking import PROTOCOLS, SIGNS, upsample
from contrex.metrics.relative_probability import (
    RelativeProbability,
    masked_relative_probability,
    relative_probability,
    two_most_probable,
)
from contrex.metrics.removal import PAIR_BASELINES, baseline_images
from oracles import masking as slow
from sampling import sampled


class Counting(nn.Module):
    """A small classifier with batch norm and dropout that counts the images it sees."""

    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(
            nn.Conv2d(2, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.Dropout(0.5), nn.Flatten(),
            nn.Linear(4 * 6 * 9, 4),
        ).double()  # fmt: skip
        self.net[1].running_var.uniform_(0.5, 2)
        self.sizes = []

    def forward(self, x):
        self.sizes.append(len(x))
        self.inference = torch.is_inference_mode_enabled()
        return self.net(x)


@pytest.fixture
def model():
    return Counting().train()


@pytest.fixture
def images():
    return torch.randn(5, 2, 6, 9, dtype=torch.float64)


@pytest.fixture
def maps():
    return torch.randn(5, 2, 3, 4, dtype=torch.float64), torch.randn(5, 2, 3, 4, dtype=torch.float64)


@pytest.fixture
def top2():
    return torch.tensor([[0, 1], [3, 2], [1, 0], [2, 3], [0, 3]])


def golden_net(arrays):
    """The network of shared/golden/README.md."""
    net = nn.Sequential(
        nn.Conv2d(3, 8, 5, stride=8, padding=2), nn.ReLU(), nn.Conv2d(8, 16, 3, stride=2, padding=1), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 5),
    )  # fmt: skip
    for index, name in ((0, "c1"), (2, "c2"), (6, "fc")):
        net[index].weight.data = torch.tensor(arrays[f"w_{name}_weight"])
        net[index].bias.data = torch.tensor(arrays[f"w_{name}_bias"])
    return net


def test_golden(golden):
    arrays = golden("equal_mask_a")
    net, images = golden_net(arrays), torch.tensor(arrays["images"]).float()
    with torch.no_grad():
        logits = net(images)
    top2 = two_most_probable(logits)
    assert top2.tolist() == arrays["top2"].tolist()
    whole = relative_probability(logits, top2[:, 0], top2)
    np.testing.assert_allclose(whole, arrays["relative_probability_original_t1"], rtol=1e-5)
    maps = [
        torch.stack([torch.tensor(arrays[f"saliency_{score}_t{i}"]) for i in (1, 2)], dim=1)
        for score in ("logit", "probability")
    ]
    options = {"baselines": baseline_images(images, ["zero", "mean"]), "protocol": "published-code", "threshold": 0}
    for column, (own, other) in enumerate((maps, maps[::-1])):
        values = masked_relative_probability(net, images, own, other, top2=top2, **options)
        for (s, sign), (b, name), i in itertools.product(enumerate(SIGNS), enumerate(["zero", "mean"]), (0, 1)):
            expected = arrays[f"relative_probability_{sign}_{name}_t{i + 1}"][:, column]
            np.testing.assert_allclose(values[:, s, b, i], expected, rtol=1e-5)


@sampled(one_in=2)
@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_oracle(protocol, model, images, maps, top2):
    baselines = baseline_images(images, sigma=1.5)
    values = masked_relative_probability(
        model, images, *maps, top2=top2, baselines=baselines, protocol=protocol, threshold=0, batch_size=7
    )
    assert values.shape == (5, 2, 3, 2)
    assert values.dtype == torch.float64
    fillings = [filling.expand_as(images) for filling in baselines.values()]
    for n, s, b, i in itertools.product(range(5), range(2), range(3), range(2)):
        cells = [m[n, i].tolist() for m in maps]
        pair = top2[n].tolist()
        expected = slow.masked_relative_probability(
            model.net, images[n], *cells, pair[i], pair, SIGNS[s], protocol, fillings[b][n]
        )
        assert values[n, s, b, i].item() == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("batch_size", [1, 2, 3, 7, 11, 64])
def test_chunks_do_not_matter_and_no_image_is_seen_twice(batch_size, model, images, maps, top2):
    options = {"top2": top2, "threshold": 0, "baselines": baseline_images(images, sigma=2.0)}
    expected = masked_relative_probability(model, images, *maps, **options)
    model.sizes.clear()
    values = masked_relative_probability(model, images, *maps, **options, batch_size=batch_size)
    torch.testing.assert_close(values, expected)
    assert sum(model.sizes) == 5 + 5 * 2 * 3 * 2
    assert max(model.sizes) <= batch_size
    assert len(model.sizes) == -(-5 // batch_size) + -(-60 // batch_size)


def test_only_selected_images_are_asked_about(model, images, maps, top2):
    with torch.no_grad():
        logits = model.eval()(images)
    second = logits.softmax(dim=1).gather(1, top2[:, 1:])[:, 0]
    threshold = second.sort().values[2].item()  # two lie above, and the third is not above itself
    every = masked_relative_probability(model, images, *maps, top2=top2, threshold=0, logits=logits)
    model.sizes.clear()
    values = masked_relative_probability(model, images, *maps, top2=top2, threshold=threshold, logits=logits)
    assert sum(model.sizes) == 2 * 2 * 3 * 2
    chosen = second > threshold
    assert int(chosen.sum()) == 2
    assert values[~chosen].isnan().all()
    torch.testing.assert_close(values[chosen], every[chosen])
    model.sizes.clear()
    for given in (None, baseline_images(images)):
        nothing = masked_relative_probability(
            model, images, *maps, top2=top2, threshold=0.999, logits=logits, baselines=given
        )
        assert nothing.isnan().all()
        assert nothing.shape == (5, 2, 3, 2)
    for wrong in ({"signs": ["upwards"]}, {"protocol": "papers"}):
        with pytest.raises(UnknownNameError):
            masked_relative_probability(model, images, *maps, top2=top2, threshold=0.999, logits=logits, **wrong)
    assert not model.sizes


def test_default_is_every_baseline(model, images, maps, top2):
    expected = masked_relative_probability(
        model, images, *maps, top2=top2, threshold=0, baselines=baseline_images(images, ["blur", "zero", "mean"])
    )
    torch.testing.assert_close(masked_relative_probability(model, images, *maps, top2=top2, threshold=0), expected)


def test_keeping_everything_or_nothing(model, images, top2):
    full, baselines = torch.ones(5, 2, 3, 4), baseline_images(images, ["mean"])
    options = {"top2": top2, "baselines": baselines, "threshold": 0, "protocol": "paper"}
    values = masked_relative_probability(model, images, full, **options)[:, :, 0]
    with torch.no_grad():
        whole, bare = (model.eval()(x) for x in (images, baselines["mean"].expand_as(images)))
    for i in (0, 1):
        torch.testing.assert_close(values[:, 0, i], relative_probability(whole, top2[:, i], top2))
        torch.testing.assert_close(values[:, 1, i], relative_probability(bare, top2[:, i], top2))


def test_swapping_the_classes_swaps_the_columns(model, images, maps, top2):
    values = masked_relative_probability(model, images, *maps, top2=top2, threshold=0)
    swapped = masked_relative_probability(model, images, *(m.flip(1) for m in maps), top2=top2.flip(1), threshold=0)
    torch.testing.assert_close(swapped.flip(3), values)


def test_permuting_the_batch_permutes_the_values(model, images, maps, top2):
    order = torch.tensor([3, 0, 4, 1, 2])
    values = masked_relative_probability(model, images, *maps, top2=top2, threshold=0)
    permuted = masked_relative_probability(
        model, images[order], *(m[order] for m in maps), top2=top2[order], threshold=0
    )
    torch.testing.assert_close(permuted, values[order])


def test_maps_at_image_size_are_taken_as_they_are(model, images, maps, top2):
    fine = [upsample(m, (6, 9)) for m in maps]
    values = masked_relative_probability(model, images, *fine, top2=top2, threshold=0)
    assert values.equal(masked_relative_probability(model, images, *maps, top2=top2, threshold=0))


def test_channels_last_reaches_the_network(maps, top2):
    class Layout(nn.Module):
        def forward(self, x):
            assert x.is_contiguous(memory_format=torch.channels_last)
            return x.mean(dim=(2, 3)).repeat(1, 2)

    images = torch.randn(5, 2, 6, 9).to(memory_format=torch.channels_last)
    for batch_size in (1, 2, 64):
        masked_relative_probability(Layout(), images, *maps, top2=top2, threshold=0, batch_size=batch_size)


def test_leaves_no_trace(model, images, maps, top2):
    model.net[1].eval()  # a frozen batch norm in a network that trains
    modes = [module.training for module in model.modules()]
    before = {name: value.clone() for name, value in model.state_dict().items()}
    inputs, rng = images.clone(), torch.get_rng_state()
    values = masked_relative_probability(model, images.requires_grad_(), *maps, top2=top2, threshold=0)
    assert model.inference
    assert [module.training for module in model.modules()] == modes
    assert all(value.equal(before[name]) for name, value in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())
    assert images.equal(inputs)
    assert torch.get_rng_state().equal(rng)
    assert not values.is_inference()
    assert not values.requires_grad


def test_a_network_that_gives_nan_is_an_error(images, maps, top2):
    class Broken(nn.Module):
        def forward(self, x):
            return torch.full((len(x), 4), torch.nan)

    with pytest.raises(ArgumentError, match=r"`model` gave logits without a relative probability"):
        masked_relative_probability(Broken(), images, *maps, top2=top2, logits=torch.zeros(5, 4))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"images": torch.zeros(2, 6, 9)}, r"`images` must be \[N,C,H,W\] with N >= 1, got \[2, 6, 9\]"),
        ({"heatmaps": torch.zeros(5, 3, 4)}, r"`heatmaps` must be \[N,2,h,w\] = \[5, 2, h, w\], .* got \[5, 3, 4\]"),
        ({"other": torch.zeros(5, 1, 3, 4)}, r"`other` must be \[N,2,h,w\] = \[5, 2, h, w\], .* got \[5, 1, 3, 4\]"),
        (
            {"heatmaps": torch.full((5, 2, 3, 4), torch.nan)},
            r"`heatmaps` must be finite, got NaN or infinity at index 0",
        ),
        ({"other": torch.full((5, 2, 3, 4), torch.inf)}, r"`other` must be finite, got NaN or infinity at index 0"),
        ({"other": None}, r"`other` is needed by protocol 'same-area'"),
        ({"signs": ["both"]}, r"`sign` must be one of positive, negative; got 'both'"),
        ({"protocol": "mine"}, r"`protocol` must be one of same-area, paper, published-code; got 'mine'"),
        ({"threshold": 1.0}, r"`threshold` must be a probability in 0..1, below 1, got 1.0"),
        ({"threshold": -0.1}, r"`threshold` must be a probability"),
        ({"batch_size": 0}, r"`batch_size` must be at least 1 image, got 0"),
        ({"logits": torch.zeros(4, 4)}, r"`logits` must be \[N,K\] with N = 5, got \[4, 4\]"),
        ({"logits": torch.full((5, 4), torch.nan)}, r"`logits` must not be NaN, got NaN at index 0"),
        ({"top2": torch.zeros(5, 2)}, r"`top2` must be integers \[N,2\], .* got torch.float32 \[5, 2\]"),
        ({"top2": torch.zeros(5).long()}, r"`top2` must be integers \[N,2\], .* got torch.int64 \[5\]"),
        ({"top2": torch.zeros(5, 2).long()}, r"`top2` must hold two different classes in 0..3 per image"),
        ({"top2": torch.tensor([[0, 4]] * 5)}, r"`top2` must hold two different classes in 0..3 per image"),
        ({"baselines": {"grey": torch.zeros(3)}}, r"`baselines\['grey'\]` must have the images' shape \[5, 2, 6, 9\]"),
    ],
)
def test_errors(changes, message, model, images, maps, top2):
    arguments = {"images": images, "heatmaps": maps[0], "other": maps[1], "top2": top2, "threshold": 0.0, **changes}
    with pytest.raises(ArgumentError, match=message):
        masked_relative_probability(model, **arguments)


# --- of logits ------------------------------------------------------------------------------------------------------


def test_relative_probability_oracle():
    logits, top2 = torch.randn(6, 5), torch.tensor([[0, 1], [4, 2], [1, 0], [2, 3], [0, 4], [3, 1]])
    for i in (0, 1):
        expected = [
            slow.relative_probability(y.tolist(), int(p[i]), p.tolist()) for y, p in zip(logits, top2, strict=True)
        ]
        torch.testing.assert_close(
            relative_probability(logits, top2[:, i], top2),
            torch.tensor(expected, dtype=torch.float64),
            rtol=1e-12,
            atol=0,
        )


def test_relative_probability_is_stable_and_a_contrast():
    logits = torch.tensor([[1e4, 1e4 + 1, -1e4]])
    top2 = torch.tensor([[1, 0]])
    first, second = (relative_probability(logits, top2[:, i], top2) for i in (0, 1))
    assert first.item() == pytest.approx(1 / (1 + np.exp(-1)))
    assert (first + second).item() == pytest.approx(1)
    assert relative_probability(logits + 7, top2[:, 0], top2).item() == pytest.approx(first.item())
    other = logits.clone()
    other[:, 2] = 3e4
    assert relative_probability(other, top2[:, 0], top2).equal(first)


def test_two_most_probable():
    logits = torch.tensor([[0.0, 1.0, 2.0], [5.0, 5.0, 5.0], [1.0, 0.0, 1.0]])
    assert two_most_probable(logits).tolist() == [[2, 1], [0, 1], [0, 2]]
    assert two_most_probable(torch.zeros(1, 100)).tolist() == [[0, 1]]
    with pytest.raises(ArgumentError, match=r"`logits` must be \[N,K\] with at least 2 classes, got \[3, 1\]"):
        two_most_probable(logits[:, :1])


def test_relative_probability_errors():
    logits, top2 = torch.zeros(2, 3), torch.tensor([[0, 1], [1, 2]])
    with pytest.raises(ArgumentError, match=r"`target` must be one of the two classes \[1, 2\], got 0 at index 1"):
        relative_probability(logits, torch.tensor([0, 0]), top2)
    with pytest.raises(ArgumentError, match=r"`target` must be integers \[2\]"):
        relative_probability(logits, torch.tensor([0]), top2)


# --- the accumulator ------------------------------------------------------------------------------------------------


def test_metric_names_and_directions():
    metrics = [RelativeProbability("t2", *kind) for kind in itertools.product(SIGNS, PAIR_BASELINES)]
    metrics.append(RelativeProbability("t1"))
    assert [metric.name for metric in metrics[2:5]] == [
        "relative_probability_positive_mean_t2",
        "relative_probability_negative_blur_t2",
        "relative_probability_negative_zero_t2",
    ]
    assert [metric.higher_is_better for metric in metrics] == [True] * 3 + [False] * 3 + [None]
    assert metrics[-1].name == "relative_probability_t1"
    assert metrics[-1].title == "Relative probability of t1, whole image"
    assert metrics[3].title == "Relative probability of t2, negative pixels kept, rest blurred"


def test_metric_counts_skipped_images():
    metric = RelativeProbability("t1", "negative", "blur", threshold=0.4)
    metric.update(torch.tensor([0.25, torch.nan]))
    metric.update(torch.tensor([torch.nan, 0.75]))
    record = metric.record(num_bootstrap=10, seed=0)
    assert (record.value, record.num_counted, record.num_skipped) == (0.5, 2, 2)
    assert record.skip_reason == "probability of the second class not above 0.4"
    assert record.higher_is_better is False


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("t3",), r"`target` must be one of t1, t2; got 't3'"),
        (("t1", "pos", "blur"), r"`sign` must be one of positive, negative; got 'pos'"),
        (("t1", "positive", "black"), r"`baseline` must be one of blur, zero, mean; got 'black'"),
    ],
)
def test_metric_unknown_names(arguments, message):
    with pytest.raises(UnknownNameError, match=message):
        RelativeProbability(*arguments)


def test_metric_errors():
    with pytest.raises(ArgumentError, match=r"`sign` and `baseline` go together, got 'positive' and None"):
        RelativeProbability("t1", "positive")
    with pytest.raises(ArgumentError, match=r"`values` must lie in 0..1, got 75: they are no percentages"):
        RelativeProbability("t1").update(torch.tensor([0.5, 75.0]))
    with pytest.raises(ArgumentError, match=r"`values` of relative_probability_t1 must be \[N\]"):
        RelativeProbability("t1").update(torch.zeros(2, 2))
