from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from contrex.errors import ArgumentError
from contrex.metrics.adversarial import RobustAccuracy, fgsm, fgsm_direction, pixel_bounds

MEAN, STD = (0.4, 0.6), (0.2, 0.25)
LOWER, UPPER = pixel_bounds(MEAN, STD)
OPTIONS = {"epsilon": 8 / 255, "std": STD, "lower": LOWER, "upper": UPPER}


class Counting(nn.Module):
    """A small classifier with batch norm and dropout that counts the images it sees."""

    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(
            nn.Conv2d(2, 4, 3, padding=1), nn.BatchNorm2d(4), nn.Tanh(), nn.Dropout(0.5), nn.Flatten(), nn.Linear(80, 3)
        )
        self.net[1].running_var.uniform_(0.5, 2)
        self.sizes = []

    def forward(self, x):
        self.sizes.append(len(x))
        self.channels_last = x.is_contiguous(memory_format=torch.channels_last)
        return self.net(x)


def normalised(pixels):
    return (pixels - torch.tensor(MEAN)[:, None, None]) / torch.tensor(STD)[:, None, None]


def pixels_of(images):
    return images * torch.tensor(STD)[:, None, None] + torch.tensor(MEAN)[:, None, None]


@pytest.fixture
def model():
    return Counting().double().train()


@pytest.fixture
def images():
    return normalised(torch.rand(5, 2, 4, 5, dtype=torch.float64))


@pytest.fixture
def labels():
    return torch.tensor([0, 2, 1, 1, 0])


def test_equation_one_image_at_a_time(model, images, labels):
    model.eval()
    expected = []
    for image, label in zip(images, labels, strict=True):
        leaf = image[None].clone().requires_grad_()
        (gradient,) = torch.autograd.grad(F.cross_entropy(model(leaf), label[None]), leaf)
        pixels = (pixels_of(image) + 8 / 255 * gradient[0].sign()).clamp(0, 1)
        expected.append(normalised(pixels))
    actual = fgsm(model, images, labels, **OPTIONS)
    torch.testing.assert_close(actual, torch.stack(expected), rtol=0, atol=1e-6)


def test_every_pixel_moves_by_epsilon_and_stays_valid(model, images, labels):
    adversarial = fgsm(model, images, labels, **OPTIONS)
    before, after = pixels_of(images), pixels_of(adversarial)
    assert (after >= -1e-6).all()
    assert (after <= 1 + 1e-6).all()
    inner = (before > 8 / 255) & (before < 1 - 8 / 255)
    torch.testing.assert_close((after - before).abs()[inner], torch.full_like(before[inner], 8 / 255))
    assert (after == after.clamp(0, 1)).any()
    assert ((after - before).abs() <= 8 / 255 + 1e-6).all()


def test_the_loss_rises(model, images, labels):
    model.eval()
    adversarial = fgsm(model, images, labels, **{**OPTIONS, "epsilon": 1 / 255})
    losses = [F.cross_entropy(model(x), labels, reduction="none") for x in (images, adversarial)]
    assert (losses[1] > losses[0]).all()
    assert fgsm(model, images, labels, **{**OPTIONS, "epsilon": 0.0}).allclose(images)


def test_captum_gives_the_same_in_pixel_space(model, labels):
    captum = pytest.importorskip("captum.robust")
    pixels = torch.rand(5, 2, 4, 5, dtype=torch.float64)
    attack = captum.FGSM(
        model.eval(), loss_func=nn.CrossEntropyLoss(reduction="none"), lower_bound=0.0, upper_bound=1.0
    )
    theirs = attack.perturb(pixels.clone().requires_grad_(), epsilon=0.03, target=labels)
    ours = fgsm(model, pixels, labels, epsilon=0.03, std=1.0, lower=0.0, upper=1.0)
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-12)


def test_a_confident_network_is_not_robust_by_rounding(images):
    """In float32 its cross-entropy has no gradient at all; the step goes down the log-odds all the same."""
    images = images.float()
    net = nn.Sequential(nn.Flatten(), nn.Linear(40, 2))
    net[1].weight.data *= 1e4
    with torch.no_grad():
        labels = net(images).argmax(dim=1)
    leaf = images.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(F.cross_entropy(net(leaf), labels), leaf)
    assert not gradient.any()
    direction = (net[1].weight[1 - labels] - net[1].weight[labels]).sign().view_as(images)
    moved = fgsm(net, images, labels, epsilon=0.01, std=1.0, lower=-9.0, upper=9.0) - images
    torch.testing.assert_close(moved, 0.01 * direction, rtol=0, atol=1e-5)


@pytest.mark.parametrize("batch_size", [1, 2, 5, 64])
def test_chunks_do_not_matter_and_no_image_is_seen_twice(batch_size, model, images, labels):
    expected = fgsm(model, images, labels, **OPTIONS)
    model.sizes.clear()
    torch.testing.assert_close(fgsm(model, images, labels, **OPTIONS, batch_size=batch_size), expected)
    assert sum(model.sizes) == 5
    assert max(model.sizes) <= batch_size
    order = torch.tensor([3, 1, 0, 2, 4])
    torch.testing.assert_close(fgsm(model, images[order], labels[order], **OPTIONS), expected[order])


def test_one_direction_serves_every_epsilon(model, images, labels):
    direction = fgsm_direction(model, images, labels, batch_size=2)
    assert set(direction.unique().tolist()) <= {-1.0, 0.0, 1.0}
    model.sizes.clear()
    for epsilon in (1 / 255, 8 / 255):
        options = {**OPTIONS, "epsilon": epsilon}
        moved = fgsm(model, images, labels, direction=direction, **options)
        assert not model.sizes
        assert moved.equal(fgsm(model, images, labels, **options))
        model.sizes.clear()
    with pytest.raises(ArgumentError, match=r"`direction` must be \[5, 2, 4, 5\] as the images, got \[1, 2, 4, 5\]"):
        fgsm(model, images, labels, direction=direction[:1], **OPTIONS)


@pytest.mark.parametrize("context", [torch.no_grad, torch.inference_mode, torch.enable_grad])
@pytest.mark.parametrize("frozen", [False, True])
def test_leaves_no_trace_in_any_grad_mode(frozen, context, model, images, labels):
    model.net[1].eval()
    model.requires_grad_(not frozen)
    expected = fgsm(model, images, labels, **OPTIONS)
    modes = [module.training for module in model.modules()]
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with context():
        inputs, rng = images.clone(memory_format=torch.channels_last), torch.get_rng_state()
        adversarial = fgsm(model, inputs, labels.clone(), **OPTIONS)
        assert adversarial.equal(expected)
        assert inputs.equal(images)
    assert model.channels_last
    assert adversarial.is_contiguous(memory_format=torch.channels_last)
    assert not adversarial.requires_grad
    assert [module.training for module in model.modules()] == modes
    assert all(value.equal(before[name]) for name, value in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())
    assert torch.get_rng_state().equal(rng)


def test_half_precision_network(images, labels):
    net = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(2, 3)).to(torch.bfloat16)
    adversarial = fgsm(net, images.bfloat16(), labels, **OPTIONS)
    assert adversarial.dtype == torch.bfloat16
    assert not adversarial.equal(images.bfloat16())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"images": torch.zeros(2, 4, 5)}, r"`images` must be \[N,C,H,W\] with N >= 1, got \[2, 4, 5\]"),
        ({"labels": torch.zeros(4).long()}, r"`labels` must be integers \[5\], one per image, got torch.int64 \[4\]"),
        ({"labels": torch.zeros(5)}, r"`labels` must be integers \[5\], one per image, got torch.float32 \[5\]"),
        ({"labels": torch.full((5,), 3)}, r"`labels` must lie in 0..2, got 3"),
        ({"labels": torch.full((5,), -1)}, r"`labels` must lie in 0..2, got -1"),
        ({"epsilon": 4}, r"`epsilon` must lie in 0..1, in units of pixel values in \[0, 1\]; got 4: 4 / 255\?"),
        ({"std": (0.2, 0.2, 0.2)}, r"`std` must be a number, or \[C\] = \[2\], one for each channel; got \[3\]"),
        ({"std": (0.2, 0.0)}, r"`std` must be positive, got \(0.2, 0.0\)"),
        ({"lower": 9.0}, r"`lower` must be below `upper`, got \[9.0\] and"),
        (
            {"lower": 0.0, "upper": 1.0},
            r"`images` must lie between .* in channel \d of image 0: both bounds are of norm",
        ),
        ({"images": torch.full((5, 2, 4, 5), torch.nan)}, r"`images` must lie between .* got nan in channel 0"),
        ({"batch_size": 0}, r"`batch_size` must be at least 1 image, got 0"),
    ],
)
def test_errors(changes, message, model, images, labels):
    with pytest.raises(ArgumentError, match=message):
        fgsm(model, **{"images": images, "labels": labels, **OPTIONS, **changes})


def test_models_that_cannot_be_attacked(images, labels):
    single = nn.Sequential(nn.Flatten(), nn.Linear(40, 1)).double()
    with pytest.raises(ArgumentError, match=r"`model` must return logits \[N,K\] of at least 2 classes, got \[5, 1\]"):
        fgsm(single, images, labels, **OPTIONS)
    cut = nn.Sequential(nn.Flatten(), nn.Linear(40, 3)).double().requires_grad_(False)
    cut.register_forward_pre_hook(lambda _, arguments: (arguments[0].detach(),))
    with pytest.raises(ArgumentError, match=r"`model` must be differentiable"):
        fgsm(cut, images, labels, **OPTIONS)
    assert cut.training


def test_accumulator():
    metric = RobustAccuracy(epsilon=2 / 255)
    metric.update(torch.eye(3), torch.tensor([0, 1, 0]))
    metric.update(torch.eye(3)[:1], torch.tensor([0]))
    assert metric.values().tolist() == [100, 100, 0, 100]
    assert metric.title == "Top-1 accuracy under FGSM, epsilon 2/255"
    assert (metric.unit, metric.higher_is_better) == ("%", True)
    names = [RobustAccuracy(epsilon=size).name for size in (0, 1 / 255, 8 / 255, 0.03, 1e-5)]
    assert names == ["fgsm_top1_0_255", "fgsm_top1_1_255", "fgsm_top1_8_255", "fgsm_top1_0_03", "fgsm_top1_1e_05"]
    with pytest.raises(ArgumentError, match=r"`epsilon` must lie in 0..1, got 4: 4 / 255\?"):
        RobustAccuracy(epsilon=4)
