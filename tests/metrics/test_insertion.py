from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import nn

from contrex.errors import ArgumentError
from contrex.metrics import (
    DeletionAUC,
    InsertionAUC,
    area_under_curve,
    curve_fractions,
    deletion_curve,
    insertion_curve,
)
from contrex.ops.pixels import gaussian_blur
from oracles import insertion as slow
from sampling import sampled

CURVES = {"insertion": insertion_curve, "deletion": deletion_curve}


class Counting(nn.Module):
    """A small classifier with batch norm and dropout that counts the images it sees."""

    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(
            nn.Conv2d(2, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.Dropout(0.5), nn.Flatten(), nn.LazyLinear(3)
        )
        self.net(torch.zeros(2, 2, 6, 9))
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
    return torch.randn(5, 2, 6, 9)


@pytest.fixture
def saliency():
    return torch.randn(5, 6, 9)


def tiny_golden_net(arrays):
    """The network of shared/golden/README.md."""
    net = nn.Sequential(
        nn.Conv2d(3, 8, 5, stride=8, padding=2), nn.ReLU(), nn.Conv2d(8, 16, 3, stride=2, padding=1), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 5),
    )  # fmt: skip
    for index, name in ((0, "c1"), (2, "c2"), (6, "fc")):
        net[index].weight.data = torch.tensor(arrays[f"w_{name}_weight"])
        net[index].bias.data = torch.tensor(arrays[f"w_{name}_bias"])
    return net


@pytest.mark.parametrize(("name", "key"), [("insertion", "ins"), ("deletion", "del")])
def test_golden(golden, name, key):
    arrays = golden("insertion_a")
    net, images = tiny_golden_net(arrays), torch.tensor(arrays["images"]).float()
    curves = CURVES[name](net, images, torch.tensor(arrays["saliency"]), step=int(arrays["step"]))
    np.testing.assert_allclose(curves.T, arrays[f"{key}_scores"], rtol=1e-5)
    np.testing.assert_allclose(area_under_curve(curves), arrays[f"{key}_auc"], rtol=1e-5)
    mean = area_under_curve(curves.mean(dim=0, keepdim=True)).item()
    assert mean == pytest.approx(float(arrays[f"{key}_auc_of_mean"]), rel=1e-5)


@sampled(one_in=3)
@pytest.mark.parametrize("name", CURVES)
@pytest.mark.parametrize("step", [1, 7, 18, 54, 1000])
def test_oracle(name, step, model, images, saliency):
    target = torch.tensor([0, 1, 2, 0, 1])
    baseline = torch.randn_like(images)
    curves = CURVES[name](model, images, saliency, step=step, baseline=baseline, target=target)
    oracle = getattr(slow, f"{name}_curve")
    expected = [
        oracle(model, *case[:2], step, case[2], int(case[3]))
        for case in zip(images, saliency, baseline, target, strict=True)
    ]
    assert curves.shape == (5, math.ceil(54 / step) + 1)
    torch.testing.assert_close(curves.double(), torch.tensor(expected, dtype=torch.float64), rtol=1e-5, atol=1e-6)
    areas = torch.tensor([slow.area(points) for points in expected], dtype=torch.float64)
    torch.testing.assert_close(area_under_curve(curves), areas, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", CURVES)
def test_ties_go_by_pixel_index(name, model, images):
    saliency = torch.randint(0, 3, (5, 6, 9)).float()
    target, zeros = torch.zeros(5, dtype=torch.long), torch.zeros_like(images)
    curves = CURVES[name](model, images, saliency, step=4, baseline=zeros, target=target)
    oracle = getattr(slow, f"{name}_curve")
    expected = [oracle(model, *case, 4, zeros[0], 0) for case in zip(images, saliency, strict=True)]
    torch.testing.assert_close(curves.double(), torch.tensor(expected, dtype=torch.float64), rtol=1e-5, atol=1e-6)


@sampled(one_in=3)
@pytest.mark.parametrize("name", CURVES)
@pytest.mark.parametrize("batch_size", [1, 2, 3, 5, 11, 64])
def test_chunks_do_not_matter_and_no_image_is_seen_twice(name, batch_size, model, images, saliency):
    expected = CURVES[name](model, images, saliency, step=10)
    model.sizes.clear()
    curves = CURVES[name](model, images, saliency, step=10, batch_size=batch_size)
    torch.testing.assert_close(curves, expected, rtol=1e-5, atol=1e-6)
    assert sum(model.sizes) == 5 * (6 + 1)
    assert max(model.sizes) <= batch_size


@pytest.mark.parametrize("name", CURVES)
def test_known_logits_save_a_forward(name, model, images, saliency):
    expected = CURVES[name](model, images, saliency, step=10)
    with torch.no_grad():
        logits = model.eval()(images)
    model.sizes.clear()
    curves = CURVES[name](model, images, saliency, step=10, logits=logits)
    assert sum(model.sizes) == 5 * 6
    torch.testing.assert_close(curves, expected, rtol=1e-5, atol=1e-6)


def test_ends_and_default_baselines(model, images, saliency):
    model.eval()
    insertion = insertion_curve(model, images, saliency, step=10)
    deletion = deletion_curve(model, images, saliency, step=10)
    with torch.no_grad():
        probs = [model(x).softmax(dim=1) for x in (images, gaussian_blur(images), torch.zeros_like(images))]
    whole, blurred, zeros = (p.gather(1, probs[0].argmax(dim=1)[:, None])[:, 0] for p in probs)
    for actual, expected in (
        (insertion[:, 0], blurred),
        (insertion[:, -1], whole),
        (deletion[:, 0], whole),
        (deletion[:, -1], zeros),
    ):
        torch.testing.assert_close(actual, expected, rtol=1e-5, atol=1e-6)


def test_deletion_is_insertion_into_the_other_image(model, images, saliency):
    """Deleting into a baseline is inserting the baseline's pixels into the image."""
    baseline, target = torch.randn_like(images), torch.ones(5, dtype=torch.long)
    deletion = deletion_curve(model, images, saliency, step=5, baseline=baseline, target=target)
    insertion = insertion_curve(model, baseline, saliency, step=5, baseline=images, target=target)
    torch.testing.assert_close(deletion, insertion, rtol=1e-5, atol=1e-6)


def test_permuting_the_batch_permutes_the_curves(model, images, saliency):
    order = torch.tensor([3, 0, 4, 1, 2])
    curves = insertion_curve(model, images, saliency, step=10)
    permuted = insertion_curve(model, images[order], saliency[order], step=10)
    torch.testing.assert_close(permuted, curves[order], rtol=1e-5, atol=1e-6)


def test_only_the_order_of_the_saliency_matters(model, images, saliency):
    expected = deletion_curve(model, images, saliency, step=10)
    assert deletion_curve(model, images, 3 * saliency.exp() - 100, step=10).equal(expected)


def test_baseline_broadcasts(model, images, saliency):
    mean = images.mean(dim=(0, 2, 3), keepdim=True)
    curves = deletion_curve(model, images, saliency, step=10, baseline=mean)
    assert curves.equal(deletion_curve(model, images, saliency, step=10, baseline=mean.expand_as(images)))


@pytest.mark.parametrize("layout", ["channels_last", "transposed", "expanded"])
def test_any_memory_layout(layout, model, images, saliency):
    if layout == "channels_last":
        images = images.to(memory_format=torch.channels_last)
    elif layout == "transposed":
        images = images.transpose(2, 3).contiguous().transpose(2, 3)
    else:
        images = images[:1].expand(5, -1, -1, -1)
    expected = insertion_curve(model, images.contiguous(), saliency, step=10)
    torch.testing.assert_close(insertion_curve(model, images, saliency, step=10), expected, rtol=1e-5, atol=1e-6)


def test_channels_last_reaches_the_network():
    class Layout(nn.Module):
        def forward(self, x):
            assert x.is_contiguous(memory_format=torch.channels_last)
            return x.mean(dim=(2, 3))

    images = torch.randn(3, 3, 6, 9).to(memory_format=torch.channels_last)
    for batch_size in (1, 2, 3, 8):
        insertion_curve(Layout(), images, torch.rand(3, 6, 9), step=10, batch_size=batch_size)


def test_a_model_that_writes_into_its_input_does_not_spoil_the_later_states(images, saliency):
    linear = nn.Linear(2, 3)
    clean = nn.Sequential(nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), linear)
    writing = nn.Sequential(nn.ReLU(inplace=True), nn.AdaptiveAvgPool2d(1), nn.Flatten(), linear)
    before = images.clone()
    with torch.no_grad():
        logits = clean(images)
    expected = deletion_curve(clean, images, saliency, step=10)
    assert deletion_curve(writing, images, saliency, step=10, logits=logits).equal(expected)
    assert deletion_curve(writing, images, saliency, step=10).equal(expected)
    assert images.equal(before)


def test_half_precision_network(images, saliency):
    net = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(2, 3)).to(torch.bfloat16)
    curves = insertion_curve(net, images.bfloat16(), saliency, step=10)
    assert curves.dtype == torch.float32
    assert ((curves > 0) & (curves < 1)).all()


def test_leaves_no_trace(model, images, saliency):
    model.net[1].eval()  # a frozen batch norm in a network that trains
    modes = [module.training for module in model.modules()]
    before = {name: value.clone() for name, value in model.state_dict().items()}
    inputs, rng = (images.clone(), saliency.clone()), torch.get_rng_state()
    curves = insertion_curve(model, images.requires_grad_(), saliency, step=10)
    assert model.inference
    assert [module.training for module in model.modules()] == modes
    assert all(value.equal(before[name]) for name, value in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())
    assert images.equal(inputs[0])
    assert saliency.equal(inputs[1])
    assert torch.get_rng_state().equal(rng)
    assert not curves.is_inference()
    assert not curves.requires_grad


def test_restores_modes_after_an_exception(images, saliency):
    model = nn.Sequential(nn.Dropout(), nn.Linear(3, 3)).train()
    with pytest.raises(RuntimeError, match="mat1 and mat2"):
        insertion_curve(model, images, saliency, step=10)
    assert all(module.training for module in model.modules())
    assert torch.is_grad_enabled()


@sampled(one_in=3)
@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"images": torch.zeros(2, 6, 9)}, r"`images` must be \[N,C,H,W\] with N >= 1, got \[2, 6, 9\]"),
        ({"images": torch.zeros(0, 2, 6, 9)}, r"with N >= 1, got \[0, 2, 6, 9\]"),
        ({"saliency": torch.zeros(5, 9, 6)}, r"`saliency` must be \[N,H,W\] = \[5, 6, 9\], got \[5, 9, 6\]: resize"),
        ({"saliency": torch.full((5, 6, 9), torch.nan)}, r"`saliency` must not be NaN, got NaN at index 0"),
        ({"step": 0}, r"`step` must be at least 1 pixel, got 0"),
        ({"batch_size": 0}, r"`batch_size` must be at least 1 image, got 0"),
        ({"baseline": torch.zeros(5, 2, 9, 6)}, r"`baseline` must have the images' shape \[5, 2, 6, 9\] or broadcast"),
        ({"target": torch.zeros(4).long()}, r"`target` must be integers \[5\], .* got torch.int64 \[4\]"),
        ({"target": torch.zeros(5)}, r"`target` must be integers \[5\], .* got torch.float32 \[5\]"),
        ({"target": torch.full((5,), 3)}, r"`target` must lie in 0..2, got \[3, 3, 3, 3, 3\]"),
        ({"target": torch.full((5,), -1)}, r"`target` must lie in 0..2"),
        ({"logits": torch.zeros(4, 3)}, r"`logits` must be \[N,K\] with N = 5, got \[4, 3\]"),
    ],
)
@pytest.mark.parametrize("name", CURVES)
def test_errors(name, changes, message, model, images, saliency):
    arguments = {"images": images, "saliency": saliency, "step": 10, **changes}
    with pytest.raises(ArgumentError, match=message):
        CURVES[name](model, **arguments)


# --- the area -------------------------------------------------------------------------------------------------------


def test_area_of_known_curves():
    curves = torch.tensor([[0.3] * 5, [0.0, 0.25, 0.5, 0.75, 1.0], [1.0, 0.0, 0.0, 0.0, 0.0]])
    torch.testing.assert_close(area_under_curve(curves), torch.tensor([0.3, 0.5, 0.125], dtype=torch.float64))


def test_fractions_place_a_shorter_last_step():
    fractions = curve_fractions(num_pixels=10, step=4)
    assert area_under_curve(fractions[None], fractions).item() == pytest.approx(0.5)  # the diagonal
    assert area_under_curve(fractions[None]).item() != pytest.approx(0.5)
    assert curve_fractions(num_pixels=12, step=4).tolist() == pytest.approx([0, 1 / 3, 2 / 3, 1])
    assert curve_fractions(num_pixels=12, step=99).tolist() == [0.0, 1.0]


def test_area_errors():
    with pytest.raises(ArgumentError, match=r"`curves` must be \[N,S\+1\] with at least one step, got \[3, 1\]"):
        area_under_curve(torch.zeros(3, 1))
    with pytest.raises(ArgumentError, match=r"`fractions` must be \[4\] as the curves, got \[3\]"):
        area_under_curve(torch.zeros(3, 4), torch.zeros(3))


@pytest.mark.parametrize("metric_class", [InsertionAUC, DeletionAUC])
def test_metric_keeps_areas(metric_class):
    curves = torch.rand(7, 5)
    metric = metric_class()
    metric.update(curves[:4])
    metric.update(curves[4:])
    assert metric.values().equal(area_under_curve(curves))
    assert metric.compute().item() == pytest.approx(area_under_curve(curves.mean(dim=0)[None]).item())
    shorter, fractions = torch.rand(2, 9), curve_fractions(15, 2)
    metric.reset()
    metric.update(shorter, fractions)
    assert metric.values().equal(area_under_curve(shorter, fractions))


def test_fractions_rise_from_0_to_1():
    curves = torch.rand(2, 3)
    for wrong in ([0.0, 50.0, 100.0], [1.0, 0.5, 0.0], [0.0, 0.5, 0.9], [0.0, 1.5, 1.0]):
        with pytest.raises(ArgumentError, match=r"`fractions` must rise from 0 to 1, got"):
            area_under_curve(curves, torch.tensor(wrong))
    with pytest.raises(ArgumentError, match=r"`num_pixels` and `step` must be at least 1, got 64 and 0"):
        curve_fractions(64, 0)


def test_metric_directions():
    assert InsertionAUC.higher_is_better
    assert not DeletionAUC.higher_is_better


def test_metric_errors():
    metric = InsertionAUC()
    metric.update(torch.rand(2, 5))
    with pytest.raises(ArgumentError, match=r"`curves` must be finite, got NaN or infinity at index 1"):
        metric.update(torch.tensor([[0.0] * 5, [torch.nan] * 5]))
    assert len(metric.values()) == 2
