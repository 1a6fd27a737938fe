from __future__ import annotations

from functools import partial

import pytest
import torch
from torch import nn

from contrex.errors import ArgumentError, UnknownNameError
from contrex.metrics import DeletionAUC, InsertionAUC, deletion_curve, insertion_curve, removal
from contrex.metrics.removal import BASELINES, baseline_image, imputation_noise, replaced_images, road
from contrex.ops.imputation import LinearImputation, linear_imputation
from contrex.ops.pixels import gaussian_blur, reflected_blur
from oracles import removal as slow
from sampling import crossed, sampled

CURVES = {"insertion": insertion_curve, "deletion": deletion_curve}


def holes(num_images, height, width):
    """One pixel, a corner, a border, all but one pixel, scattered ones, everything but a line."""
    removed = torch.zeros(num_images, height, width, dtype=torch.bool)
    removed[0, height // 2, width // 2] = True
    removed[1, : height // 2, : width // 2] = True
    removed[2, -2:] = True
    removed[3] = True
    removed[3, 0, width - 1] = False
    removed[4] = torch.rand(height, width) < 0.6
    removed[5] = True
    removed[5, height // 3] = False
    return removed


def levels(images):
    """One level of 8-bit pixel values, `[N]`."""
    return (images.amax(dim=(1, 2, 3)) - images.amin(dim=(1, 2, 3))) / 255


# --- linear imputation ----------------------------------------------------------------------------------------------


@sampled(one_in=2)
@pytest.mark.parametrize("size", [(8, 8), (13, 6), (5, 17), (1, 9), (9, 1)])
def test_imputation_solves_the_dense_system(size):
    images, removed = torch.randn(6, 2, *size, dtype=torch.float64), holes(6, *size)
    removed[2, 0] = False
    filled = linear_imputation(images, removed, tolerance=1e-13)
    expected = torch.stack([slow.linear_imputation(*pair) for pair in zip(images, removed, strict=True)])
    torch.testing.assert_close(filled, expected, rtol=0, atol=1e-9)


def test_default_tolerance_in_float32():
    images, removed = 2 * torch.randn(6, 3, 24, 20), holes(6, 24, 20)
    expected = linear_imputation(images.double(), removed, tolerance=1e-13)
    filled = linear_imputation(images, removed)
    assert filled.dtype == torch.float32
    assert ((filled - expected).abs().amax(dim=(1, 2, 3)) <= levels(images)).all()
    fine = linear_imputation(images, removed, tolerance=1e-5)
    assert ((fine - expected).abs().amax(dim=(1, 2, 3)) <= levels(images) / 100).all()


@pytest.mark.slow
def test_default_tolerance_at_the_size_of_photographs():
    images = nn.functional.interpolate(torch.randn(2, 3, 14, 14), (224, 224), mode="bicubic")
    saliency = nn.functional.interpolate(torch.randn(2, 1, 7, 7), (224, 224), mode="bilinear")[:, 0]
    for share in (0.04, 0.5, 0.96, 0.999):
        removed = saliency > saliency.flatten(1).quantile(1 - share, dim=1)[:, None, None]
        expected = linear_imputation(images.double(), removed, tolerance=1e-12)
        errors = (linear_imputation(images, removed) - expected).abs()
        assert (errors.amax(dim=(1, 2, 3)) <= levels(images)).all()
        assert (errors.mean(dim=(1, 2, 3)) <= levels(images) / 10).all()


@pytest.mark.parametrize(("tolerance", "most"), [(1 / 255, 7), (1e-12, 40)])
def test_large_holes_take_few_steps(tolerance, most, monkeypatch):
    """The coarser grids: without them this hole takes a hundred steps and more."""
    from contrex.ops import multigrid

    step, calls = multigrid.HarmonicFill._step, []
    monkeypatch.setattr(multigrid.HarmonicFill, "_step", lambda *given: calls.append(1) or step(*given))
    removed = torch.ones(1, 64, 64, dtype=torch.bool)
    removed[0, 0, 0] = False
    removed[0, -1, :4] = False
    linear_imputation(torch.randn(1, 1, 64, 64, dtype=torch.float64), removed, tolerance=tolerance)
    assert 2 <= len(calls) <= most


def test_one_after_another_in_the_same_memory():
    images, removed = torch.randn(6, 2, 13, 9, dtype=torch.float64), holes(6, 13, 9)
    imputed = LinearImputation(images, tolerance=1e-12)
    for hole in (removed, ~removed, removed.flip(0), torch.zeros_like(removed), removed):
        torch.testing.assert_close(imputed(hole), linear_imputation(images, hole, tolerance=1e-12), rtol=0, atol=1e-9)


def test_chunks_do_not_matter(monkeypatch):
    from contrex.ops.multigrid import layout

    images, removed = torch.randn(6, 2, 13, 9, dtype=torch.float64), holes(6, 13, 9)
    expected = linear_imputation(images, removed)
    for numbers in (1, 200, 500):
        monkeypatch.setattr(layout, "CACHE", numbers)
        torch.testing.assert_close(linear_imputation(images, removed), expected, rtol=0, atol=1e-12)


def test_kept_pixels_stay_and_filling_stays_in_range():
    images, removed = torch.randn(6, 3, 9, 7), holes(6, 9, 7)
    filled = linear_imputation(images, removed)
    assert filled.masked_select(~removed[:, None]).equal(images.masked_select(~removed[:, None]))
    for image, hole, result in zip(images, removed, filled, strict=True):
        kept = image[:, ~hole]
        assert (result.flatten(1).amax(dim=1) <= kept.amax(dim=1) + 1e-4).all()
        assert (result.flatten(1).amin(dim=1) >= kept.amin(dim=1) - 1e-4).all()


def test_hand_computed():
    image = torch.tensor([[[[0.0, 4.0, 0.0], [8.0, 99.0, 8.0], [12.0, 4.0, 0.0]]]])
    removed = torch.zeros(1, 3, 3, dtype=torch.bool)
    removed[0, 1, 1] = True
    assert linear_imputation(image, removed)[0, 0, 1, 1].item() == pytest.approx((4 + 8 + 8 + 4) / 6 + 12 / 12)
    removed[:] = False
    removed[0, 0, 0] = True  # a corner has three neighbours, whose weights sum to 5/12
    expected = (4 / 6 + 8 / 6 + 99 / 12) / (5 / 12)
    assert linear_imputation(image, removed)[0, 0, 0, 0].item() == pytest.approx(expected)


def test_nothing_and_everything_removed():
    images = torch.randn(2, 3, 5, 6)
    nothing = torch.zeros(2, 5, 6, dtype=torch.bool)
    assert linear_imputation(images, nothing).equal(images)
    means = images.mean(dim=(2, 3), keepdim=True).expand_as(images)
    torch.testing.assert_close(linear_imputation(images, ~nothing), means, rtol=0, atol=1e-6)


def test_images_do_not_depend_on_each_other_nor_on_their_scale():
    images, removed = torch.randn(6, 2, 9, 7, dtype=torch.float64), holes(6, 9, 7)
    filled = linear_imputation(images, removed, tolerance=1e-12)
    images[0] *= 1e6
    alone = linear_imputation(images, removed, tolerance=1e-12)
    torch.testing.assert_close(alone[1:], filled[1:], rtol=0, atol=1e-9)
    torch.testing.assert_close(alone[0], filled[0] * 1e6, rtol=1e-9, atol=0)


def test_half_precision_is_solved_in_float32():
    images, removed = torch.randn(6, 2, 9, 7).bfloat16(), holes(6, 9, 7)
    filled = linear_imputation(images, removed)
    assert filled.dtype == torch.bfloat16
    torch.testing.assert_close(filled, linear_imputation(images.float(), removed).bfloat16(), rtol=0, atol=0)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"images": torch.zeros(2, 5, 6)},
            r"`images` must be floating point \[N,C,H,W\] with N >= 1, got .*\[2, 5, 6\]",
        ),
        ({"images": torch.zeros(2, 3, 5, 6).long()}, r"`images` must be floating point .* got torch.int64"),
        ({"images": torch.full((2, 3, 5, 6), torch.nan)}, r"`images` must be finite, got NaN or infinity at index 0"),
        (
            {"removed": torch.zeros(2, 6, 5).bool()},
            r"`removed` must be boolean \[2, 5, 6\], got torch.bool \[2, 6, 5\]",
        ),
        ({"removed": torch.zeros(2, 5, 6)}, r"`removed` must be boolean \[2, 5, 6\], got torch.float32"),
        ({"tolerance": 0.0}, r"`tolerance` must be positive, got 0.0: 1 / 255 is usual"),
    ],
)
def test_imputation_errors(changes, message):
    arguments = {"images": torch.zeros(2, 3, 5, 6), "removed": torch.zeros(2, 5, 6).bool(), **changes}
    with pytest.raises(ArgumentError, match=message):
        linear_imputation(**arguments)


# --- baselines ------------------------------------------------------------------------------------------------------


def test_each_name():
    images, removed = torch.randn(6, 2, 12, 11), holes(6, 12, 11)
    expected = {
        "blur": gaussian_blur(images, 11, 5.0),
        "reflected_blur": reflected_blur(images, 15.0, 101),
        "zero": torch.zeros_like(images),
        "mean": images.mean(dim=(2, 3), keepdim=True).expand_as(images),
        "road": linear_imputation(images, removed) + imputation_noise(images),
    }
    assert set(expected) == set(BASELINES)
    for name, other in expected.items():
        assert replaced_images(images, removed, name).equal(torch.where(removed[:, None], other, images))
    constant = torch.tensor([1.0, 2.0])[None, :, None, None]
    assert replaced_images(images, removed, constant).equal(torch.where(removed[:, None], constant, images))


def test_noise_depends_on_the_seed_of_its_image_only():
    images = torch.zeros(4, 3, 16, 16)
    state = torch.get_rng_state()
    noise = imputation_noise(images, [7, 8, 7, 9])
    assert torch.get_rng_state().equal(state)
    assert noise[0].equal(noise[2])
    assert not noise[0].equal(noise[1])
    assert imputation_noise(images[:1], [8])[0].equal(noise[1])
    assert imputation_noise(images).equal(imputation_noise(images, [0, 0, 0, 0]))
    assert noise.std().item() == pytest.approx(0.01, rel=0.05)
    assert imputation_noise(images, [1] * 4, deviation=0.5).std().item() == pytest.approx(0.5, rel=0.05)


def test_road_adds_noise_to_removed_pixels_only():
    images, removed = torch.randn(6, 2, 9, 7), holes(6, 9, 7)
    noise = torch.randn_like(images)
    expected = linear_imputation(images, removed) + noise * removed[:, None]
    torch.testing.assert_close(road(images, removed, noise), expected)


def test_errors():
    images, removed = torch.zeros(2, 3, 5, 6), torch.zeros(2, 5, 6).bool()
    with pytest.raises(
        UnknownNameError, match=r"`baseline` must be one of blur, reflected_blur, zero, mean, road; got 'blurred'"
    ):
        replaced_images(images, removed, "blurred")
    with pytest.raises(
        ArgumentError, match=r"`baseline` 'road' depends on the removed pixels .* use `replaced_images`"
    ):
        baseline_image(images, "road")
    with pytest.raises(ArgumentError, match=r"`baseline` must have the images' shape \[2, 3, 5, 6\] or broadcast"):
        replaced_images(images, removed, torch.zeros(4))
    with pytest.raises(ArgumentError, match=r"`removed` must be boolean \[2, 5, 6\], got torch.float32"):
        replaced_images(images, removed.float(), "zero")
    with pytest.raises(ArgumentError, match=r"`seeds` must hold one integer per image, 2; got 3"):
        replaced_images(images, removed, "road", seeds=[1, 2, 3])
    with pytest.raises(ArgumentError, match=r"`deviation` must be 0 or more, got -1"):
        imputation_noise(images, deviation=-1)


# --- in curves ------------------------------------------------------------------------------------------------------


class Counting(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(nn.Conv2d(2, 4, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 30, 3)).double()
        self.sizes = []

    def forward(self, x):
        self.sizes.append(len(x))
        return self.net(x)


@pytest.fixture
def model():
    return Counting()


@pytest.fixture
def images():
    return torch.randn(5, 2, 6, 5, dtype=torch.float64)


@pytest.fixture
def saliency():
    return torch.randn(5, 6, 5)


@pytest.mark.parametrize(("name", "step"), crossed(CURVES, [7, 1, 10, 99], one_in=4))
def test_road_curve_oracle(name, step, model, images, saliency, monkeypatch):
    target, seeds = torch.tensor([0, 1, 2, 0, 1]), [3, 1, 4, 1, 5]
    options = {"step": step, "baseline": "road", "target": target, "seeds": seeds}
    usual = CURVES[name](model, images, saliency, **options)
    monkeypatch.setattr(removal, "LinearImputation", partial(LinearImputation, tolerance=1e-12))
    exact = CURVES[name](model, images, saliency, **options)
    torch.testing.assert_close(usual, exact, rtol=0, atol=1e-3)
    noise = imputation_noise(images, seeds)
    expected = [
        slow.road_curve(model, *case[:3], step, int(case[3]), inserting=name == "insertion")
        for case in zip(images, noise, saliency, target, strict=True)
    ]
    torch.testing.assert_close(exact, torch.tensor(expected, dtype=torch.float64), rtol=0, atol=1e-8)


@pytest.mark.parametrize(("batch_size", "baseline", "name"), crossed([2, 8], BASELINES, CURVES, one_in=2))
def test_as_many_forwards_for_any_baseline(name, baseline, batch_size, model, images, saliency):
    curves = CURVES[name](model, images, saliency, step=8, baseline=baseline, batch_size=batch_size)
    assert sum(model.sizes) == 5 * (4 + 1)
    assert max(model.sizes) <= batch_size
    model.sizes.clear()
    logits = model.net(images)
    known = CURVES[name](model, images, saliency, step=8, baseline=baseline, batch_size=3, logits=logits)
    assert sum(model.sizes) == 5 * 4
    torch.testing.assert_close(known, curves, rtol=0, atol=1e-4)


@pytest.mark.parametrize("name", CURVES)
def test_a_name_is_its_image(name, model, images, saliency):
    for baseline in ("blur", "reflected_blur", "zero", "mean"):
        expected = CURVES[name](model, images, saliency, step=8, baseline=baseline_image(images, baseline))
        assert CURVES[name](model, images, saliency, step=8, baseline=baseline).equal(expected)
    default = {"insertion": "blur", "deletion": "zero"}[name]
    expected = CURVES[name](model, images, saliency, step=8)
    assert CURVES[name](model, images, saliency, step=8, baseline=default).equal(expected)


def test_least_relevant_first_is_the_insertion_curve_backwards(model, images, saliency):
    """Imputing the least salient pixels first ends where an insertion begins."""
    target = torch.zeros(5, dtype=torch.long)
    least_first = deletion_curve(model, images, -saliency, step=6, baseline="road", target=target)
    insertion = insertion_curve(model, images, saliency, step=6, baseline="road", target=target)
    torch.testing.assert_close(least_first, insertion.flip(1), rtol=0, atol=1e-4)


@pytest.mark.parametrize("name", CURVES)
def test_curve_errors(name, model, images, saliency):
    with pytest.raises(UnknownNameError, match=r"`baseline` must be one of .* got 'raod'. Did you mean 'road'"):
        CURVES[name](model, images, saliency, step=8, baseline="raod")
    with pytest.raises(ArgumentError, match=r"`seeds` must hold one integer per image, 5; got 1"):
        CURVES[name](model, images, saliency, step=8, baseline="road", seeds=[1])


def test_metrics_named_by_baseline():
    curves = torch.tensor([[0.0, 1.0, 1.0]])
    metrics = [InsertionAUC(), InsertionAUC("road"), DeletionAUC("mean")]
    assert [metric.name for metric in metrics] == ["insertion_auc", "insertion_auc_road", "deletion_auc_mean"]
    assert metrics[1].title == "Insertion AUC (road)"
    assert InsertionAUC.name == "insertion_auc"
    metrics[1].update(curves)
    assert metrics[1].compute().item() == 0.75
    with pytest.raises(
        UnknownNameError, match=r"`baseline` must be one of blur, reflected_blur, zero, mean, road; got 'grey'"
    ):
        InsertionAUC("grey")
