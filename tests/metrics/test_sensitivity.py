from __future__ import annotations

import pytest
import torch
from torch import nn

import contrex
from contrex.errors import ArgumentError
from contrex.metrics.sensitivity import MaxSensitivity, max_sensitivity
from oracles.infidelity import max_sensitivity as slow_max_sensitivity

SEEDS = [11, 3, 2**40, 0]
OPTIONS = {"radius": 0.2, "num_samples": 6, "seeds": SEEDS}
CONV = nn.Conv2d(2, 1, 3, stride=2, dtype=torch.float64)


def explain(images):
    """A smooth map that depends on the image, [n,2,2]."""
    with torch.no_grad():
        return CONV(images)[:, 0].sin()


def of_class(images, target):
    """A map that depends on the class, too."""
    return explain(images) + target[:, None, None] * images[:, 0, :2, :2]


@pytest.fixture
def images():
    return torch.randn(4, 2, 5, 6, dtype=torch.float64)


def noise_of(images):
    """[N,6,C,H,W] in -0.2..0.2: a generator for each image, one draw for each sample."""
    rows = []
    for image, seed in zip(images, SEEDS, strict=True):
        generator = torch.Generator().manual_seed(seed)
        rows.append([torch.rand(image.shape, generator=generator, dtype=image.dtype) for _ in range(6)])
    return 0.2 * (2 * torch.stack([torch.stack(row) for row in rows]) - 1)


def test_oracle(images):
    expected = [slow_max_sensitivity(explain, *case) for case in zip(images, noise_of(images), strict=True)]
    values = max_sensitivity(explain, images, **OPTIONS)
    torch.testing.assert_close(values, torch.tensor(expected, dtype=torch.float64), rtol=1e-10, atol=0)
    known = max_sensitivity(explain, images, **OPTIONS, heatmap=explain(images))
    assert known.equal(values)


def test_captum_gives_the_same(images):
    captum = pytest.importorskip("captum.metrics")
    noise = noise_of(images).flatten(0, 1)
    theirs = captum.sensitivity_max(
        lambda x: (explain(x[0] if isinstance(x, tuple) else x),), images, lambda x: x + noise, n_perturb_samples=6
    )
    torch.testing.assert_close(max_sensitivity(explain, images, **OPTIONS), theirs, rtol=1e-10, atol=0)


def test_the_class_stays_with_its_image(images):
    target = torch.tensor([0, 2, 1, 5])
    expected = [
        slow_max_sensitivity(lambda x, t=t: of_class(x, t.expand(len(x))), *case)
        for *case, t in zip(images, noise_of(images), target, strict=True)
    ]
    for batch_size in (1, 5, 64):
        values = max_sensitivity(of_class, images, **OPTIONS, target=target, batch_size=batch_size)
        torch.testing.assert_close(values, torch.tensor(expected, dtype=torch.float64), rtol=1e-10, atol=0)


@pytest.mark.parametrize("batch_size", [1, 5, 24, 64])
def test_chunks_and_neighbours_do_not_matter(batch_size, images):
    sizes = []

    def counting(some):
        sizes.append(len(some))
        return explain(some)

    expected = max_sensitivity(explain, images, **OPTIONS)
    torch.testing.assert_close(max_sensitivity(counting, images, **OPTIONS, batch_size=batch_size), expected)
    assert sum(sizes) == 4 * (6 + 1)
    assert max(sizes) <= batch_size
    order = torch.tensor([3, 1, 0, 2])
    options = {**OPTIONS, "seeds": [SEEDS[i] for i in order], "batch_size": batch_size}
    torch.testing.assert_close(max_sensitivity(explain, images[order], **options), expected[order])


def test_invariants(images):
    values = max_sensitivity(explain, images, **OPTIONS)
    torch.testing.assert_close(max_sensitivity(lambda x: -7 * explain(x), images, **OPTIONS), values)
    assert (max_sensitivity(explain, images, **{**OPTIONS, "num_samples": 12}) >= values).all()
    assert (max_sensitivity(explain, images, **{**OPTIONS, "radius": 1e-6}) < 1e-4).all()


def test_no_change_is_zero_and_the_largest_possible_one_is_bounded(images):
    assert max_sensitivity(lambda x: torch.ones(len(x), 3, 3), images, **OPTIONS).tolist() == [0, 0, 0, 0]
    ones = torch.ones_like(images)
    values = max_sensitivity(lambda x: x[:, 0], ones, **{**OPTIONS, "num_samples": 50})
    assert ((values > 0.1) & (values < 0.2)).all()  # the noise reaches beyond half the radius and stays within it


def test_maps_without_a_value_are_nan(images):
    images[1] = 0
    values = max_sensitivity(lambda x: x[:, 0], images, **OPTIONS)
    assert values.isnan().tolist() == [False, True, False, False]
    assert max_sensitivity(lambda x: x[:, 0] / 0, images, **OPTIONS).isnan().all()
    metric = MaxSensitivity()
    metric.update(values)
    metric.update(torch.tensor([torch.inf]))
    record = metric.record(num_bootstrap=10, seed=0)
    assert (record.num_counted, record.num_skipped) == (3, 2)
    assert record.skip_reason == "the heatmap is all zero or not finite"
    assert record.value == pytest.approx(values.nanmean().item())
    assert not record.higher_is_better


def test_an_explainer_of_contrex():
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Tanh(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3))
    images, target = torch.randn(2, 3, 6, 6), torch.tensor([0, 2])
    explainer = contrex.Gradient(net.train())
    rng = torch.get_rng_state()
    values = max_sensitivity(
        lambda x, t: explainer(x, target=t).heatmap, images, radius=0.1, num_samples=3, seeds=[0, 1], target=target
    )
    assert ((values > 0) & (values < 1)).all()
    assert not values.requires_grad
    assert net.training
    assert torch.get_rng_state().equal(rng)


def test_an_explainer_that_writes_into_its_input_changes_nothing(images):
    before = images.clone()
    expected = max_sensitivity(explain, images, **OPTIONS)
    assert max_sensitivity(lambda x: explain(x.add_(1).sub_(1)), images, **OPTIONS).allclose(expected)
    assert images.equal(before)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"images": torch.zeros(2, 4, 5)}, r"`images` must be \[N,C,H,W\] with N >= 1, got \[2, 4, 5\]"),
        ({"radius": 0.0}, r"`radius` must be a positive number, got 0.0"),
        ({"radius": torch.nan}, r"`radius` must be a positive number, got nan"),
        ({"num_samples": 0}, r"`num_samples` must be at least 1, got 0"),
        ({"seeds": [1, 2]}, r"`seeds` must hold one integer per image, 4; got 2"),
        ({"target": torch.zeros(3).long()}, r"`target` must be \[4\], one class per image, got \[3\]"),
        ({"heatmap": torch.zeros(3, 2, 2)}, r"`heatmap` must be \[N,h,w\] with N = 4, got \[3, 2, 2\]"),
        ({"heatmap": torch.zeros(4, 3, 3)}, r"`heatmap` must have the size of what `explain` returns, 4 cells; got 9"),
        ({"explain": lambda x: x.sum()}, r"`explain` must return heatmaps \[n,h,w\] of n = 4 images, got \[\]"),
        ({"explain": lambda x: None}, r"`explain` must return heatmaps .* got NoneType"),
        ({"batch_size": 0}, r"`batch_size` must be at least 1 image, got 0"),
    ],
)
def test_errors(changes, message, images):
    with pytest.raises(ArgumentError, match=message):
        max_sensitivity(**{"explain": explain, "images": images, **OPTIONS, **changes})
