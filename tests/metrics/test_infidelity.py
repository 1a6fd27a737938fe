from __future__ import annotations

import pytest
import torch
from torch import nn

from contrex.errors import ArgumentError, UnknownNameError
from contrex.metrics import infidelity as measured
from contrex.metrics.infidelity import Infidelity
from oracles import infidelity as slow
from sampling import crossed

SEEDS = [11, 3, 2**40, 0]
OPTIONS = {"num_samples": 6, "noise_std": 0.3, "seeds": SEEDS}


def infidelity(*given, **options):
    """That of the logit and of maps as they are, where a test does not say otherwise."""
    return measured(*given, **{"output": "logit", "normalise": False, **options})


class Counting(nn.Module):
    """A small classifier with batch norm and dropout that counts the images it sees."""

    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(
            nn.Conv2d(2, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.Dropout(0.5), nn.Flatten(), nn.Linear(80, 3)
        )
        self.net[1].running_var.uniform_(0.5, 2)
        self.sizes = []

    def forward(self, x):
        self.sizes.append(len(x))
        return self.net(x)


@pytest.fixture
def model():
    return Counting().double().train()


@pytest.fixture
def images():
    return torch.randn(4, 2, 4, 5, dtype=torch.float64)


@pytest.fixture
def heatmaps():
    return torch.randn(4, 4, 5, dtype=torch.float64)


def noise_of(images):
    """[N,6,C,H,W] of standard deviation 0.3: a generator for each image, one draw for each sample."""
    rows = []
    for image, seed in zip(images, SEEDS, strict=True):
        generator = torch.Generator().manual_seed(seed)
        rows.append([torch.randn(image.shape, generator=generator, dtype=image.dtype) for _ in range(6)])
    return 0.3 * torch.stack([torch.stack(row) for row in rows])


@pytest.mark.parametrize(
    ("channels", "output", "normalise"), crossed([False, True], ["logit", "probability"], [False, True], one_in=2)
)
def test_oracle(channels, output, normalise, model, images, heatmaps):
    saliency = torch.randn_like(images) if channels else heatmaps
    target = torch.tensor([0, 2, 1, 0])
    values = infidelity(model, images, saliency, **OPTIONS, target=target, output=output, normalise=normalise)
    expected = [
        slow.infidelity(model, *case, output=output, normalise=normalise)
        for case in zip(images, saliency, noise_of(images), target.tolist(), strict=True)
    ]
    torch.testing.assert_close(values, torch.tensor(expected, dtype=torch.float64), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("normalise", [False, True])
def test_captum_gives_the_same(normalise, model, images):
    captum = pytest.importorskip("captum.metrics")
    attributions, noise = torch.randn_like(images), noise_of(images).flatten(0, 1)
    target = torch.tensor([0, 2, 1, 0])
    theirs = captum.infidelity(
        model.eval(), lambda x: (noise, x - noise), images, attributions, target=target, n_perturb_samples=6,
        normalize=normalise,
    )  # fmt: skip
    ours = infidelity(model, images, attributions, **OPTIONS, target=target, normalise=normalise)
    torch.testing.assert_close(ours, theirs.double(), rtol=1e-9, atol=1e-12)


def test_the_gradient_of_a_linear_network_is_faithful_and_its_opposite_is_not(images):
    model = nn.Sequential(nn.Flatten(), nn.Linear(40, 3)).double()
    target = torch.tensor([0, 1, 2, 0])
    weights = model[1].weight[target].view_as(images)
    options = {**OPTIONS, "target": target}
    assert infidelity(model, images, weights, **options).max() < 1e-20
    assert infidelity(model, images, -weights, **options).min() > 0.01
    assert infidelity(model, images, -weights, **options, normalise=True).max() < 1e-20  # a negative scale fits it


def test_normalising_makes_the_scale_irrelevant_and_never_hurts(model, images, heatmaps):
    one = infidelity(model, images, heatmaps, **OPTIONS, normalise=True)
    torch.testing.assert_close(infidelity(model, images, 1e3 * heatmaps, **OPTIONS, normalise=True), one)
    assert (one <= infidelity(model, images, heatmaps, **OPTIONS)).all()
    assert (one <= infidelity(model, images, 0 * heatmaps, **OPTIONS)).all()


def test_a_map_of_zeros_predicts_no_response(model, images, heatmaps):
    zeros = torch.zeros_like(heatmaps)
    plain = infidelity(model, images, zeros, **OPTIONS)
    assert (plain > 0).all()
    assert infidelity(model, images, zeros, **OPTIONS, normalise=True).equal(plain)


@pytest.mark.parametrize("batch_size", [1, 5, 24, 64])
def test_chunks_and_neighbours_do_not_matter_and_no_image_is_seen_twice(batch_size, model, images, heatmaps):
    expected = infidelity(model, images, heatmaps, **OPTIONS)
    model.sizes.clear()
    torch.testing.assert_close(infidelity(model, images, heatmaps, **OPTIONS, batch_size=batch_size), expected)
    assert sum(model.sizes) == 4 * (6 + 1)
    assert max(model.sizes) <= batch_size
    order = torch.tensor([3, 1, 0, 2])
    options = {**OPTIONS, "seeds": [SEEDS[i] for i in order], "batch_size": batch_size}
    torch.testing.assert_close(infidelity(model, images[order], heatmaps[order], **options), expected[order])
    alone = infidelity(model, images[2:3], heatmaps[2:3], **{**options, "seeds": SEEDS[2:3]})
    torch.testing.assert_close(alone, expected[2:3])


def test_known_logits_save_a_forward_and_the_default_target_is_the_prediction(model, images, heatmaps):
    with torch.no_grad():
        logits = model.eval()(images)
    model.sizes.clear()
    values = infidelity(model, images, heatmaps, **OPTIONS, logits=logits)
    assert sum(model.sizes) == 4 * 6
    assert values.equal(infidelity(model, images, heatmaps, **OPTIONS, target=logits.argmax(dim=1)))


def test_noise_has_the_standard_deviation_that_was_asked_for(images):
    """For f = sum of the pixels and phi = 0 the infidelity is the variance of the noise's sum."""
    net = nn.Sequential(nn.Flatten(), nn.Linear(40, 1, bias=False)).double()
    nn.init.ones_(net[1].weight)
    values = infidelity(net, images, torch.zeros_like(images), num_samples=1000, noise_std=0.5, seeds=SEEDS)
    assert values.mean().item() == pytest.approx(40 * 0.25, rel=0.1)


def test_leaves_no_trace(model, images, heatmaps):
    model.net[1].eval()
    modes = [module.training for module in model.modules()]
    before = {name: value.clone() for name, value in model.state_dict().items()}
    copy, rng = images.clone(), torch.get_rng_state()
    values = infidelity(model, images.requires_grad_(), heatmaps, **OPTIONS)
    assert [module.training for module in model.modules()] == modes
    assert all(value.equal(before[name]) for name, value in model.state_dict().items())
    assert images.equal(copy)
    assert torch.get_rng_state().equal(rng)
    assert not values.requires_grad
    assert not values.is_inference()


def test_half_precision_network(images, heatmaps):
    net = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(2, 3)).to(torch.bfloat16)
    values = infidelity(net, images.bfloat16(), heatmaps, **OPTIONS, output="probability")
    assert values.dtype == torch.float64
    assert values.isfinite().all()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"images": torch.zeros(2, 4, 5)}, r"`images` must be \[N,C,H,W\] with N >= 1, got \[2, 4, 5\]"),
        ({"saliency": torch.zeros(4, 5, 4)}, r"`saliency` must be \[N,H,W\] = \[4, 4, 5\], got \[4, 5, 4\]"),
        ({"saliency": torch.zeros(4, 1, 4, 5)}, r"or \[N,C,H,W\] = \[4, 2, 4, 5\] as the images, got \[4, 1, 4, 5\]"),
        ({"saliency": torch.full((4, 4, 5), torch.nan)}, r"`saliency` must not be NaN, got NaN at index 0"),
        (
            {"saliency": torch.full((4, 2, 4, 5), torch.nan)},
            r"`saliency` must be finite, got NaN or infinity at index 0",
        ),
        ({"num_samples": 0}, r"`num_samples` must be at least 1, got 0"),
        ({"noise_std": 0.0}, r"`noise_std` must be a positive number, got 0.0"),
        ({"noise_std": torch.nan}, r"`noise_std` must be a positive number, got nan"),
        ({"seeds": [1, 2]}, r"`seeds` must hold one integer per image, 4; got 2"),
        ({"seeds": [1, 2, 3, -1]}, r"`seeds` must lie in 0..2\^63-1, got -1"),
        ({"target": torch.full((4,), 3)}, r"`target` must lie in 0..2"),
        ({"logits": torch.zeros(3, 3)}, r"`logits` must be \[N,K\] with N = 4, got \[3, 3\]"),
        ({"batch_size": 0}, r"`batch_size` must be at least 1 image, got 0"),
    ],
)
def test_errors(changes, message, model, images, heatmaps):
    with pytest.raises(ArgumentError, match=message):
        infidelity(model, **{"images": images, "saliency": heatmaps, **OPTIONS, **changes})


def test_unknown_output(model, images, heatmaps):
    with pytest.raises(UnknownNameError, match=r"`output` must be one of logit, probability; got 'probs'"):
        infidelity(model, images, heatmaps, **OPTIONS, output="probs")


def test_accumulator_skips_what_is_not_finite():
    metric = Infidelity()
    metric.update(torch.tensor([1.0, torch.inf]))
    metric.update(torch.tensor([2.0, torch.nan]))
    record = metric.record(num_bootstrap=10, seed=0)
    assert (record.value, record.num_counted, record.num_skipped) == (1.5, 2, 2)
    assert record.skip_reason == "the network's output is not finite"
    assert not record.higher_is_better
