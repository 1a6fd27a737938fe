"""The maps of many classes: every contrast that they make is the explainer's own."""

from __future__ import annotations

import pytest
import torch

from contrex.explain import EXPLAINERS
from contrex.explain.explorer.class_maps import COSTLY, FINEST, class_maps
from contrex.explain.named import build_explainer
from contrex.models import build_network
from contrex.ops import scores

CLASSES = 30


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    return build_network("contrex:convnet", {}, num_classes=CLASSES).eval()


def image(seed=1, side=32):
    return torch.randn(1, 3, side, side, generator=torch.Generator().manual_seed(seed))


def found(explain, images, task=None, most=10**6, cells=10**6):
    logits = explain(images).logits
    order = scores.class_logits(logits, task)[0].argsort(descending=True).tolist()
    return class_maps(explain, images, order, task=task, most=most, cells=cells)


def weighted(maps, row, contrast):
    """The map of a row of weights over the classes, as the page makes it."""
    classes = range(len(row)) if maps.classes is None else maps.classes
    values = sum(float(row[index]) * torch.from_numpy(maps.maps[place]) for place, index in enumerate(classes))
    rest = float(row.sum() - row[list(classes)].sum())
    if maps.classes is not None and abs(rest) > 1e-6:
        values = values + rest * torch.from_numpy(maps.rest[0 if contrast == "mean" else 1])
    return values


@pytest.mark.parametrize(("name", "num"), [("grad_cam", None), ("gradient", COSTLY)])
def test_every_contrast_is_a_sum_of_the_maps(network, name, num):
    explain = EXPLAINERS[name](network)
    maps = found(explain, image())
    assert (maps.classes and len(maps.classes)) == num
    target = int(explain(image()).logits.argmax())
    for contrast in (None, "mean", "weighted", "max"):
        expected = explain(image(), contrast=contrast)
        row = scores.class_weights(expected.logits, expected.target, contrast)[0]
        torch.testing.assert_close(weighted(maps, row, contrast), expected.heatmap[0], rtol=1e-4, atol=1e-6)
    assert maps.about.target.tolist() == [0 if num is None else target]


@pytest.mark.parametrize(
    "text", ["grad_cam(augment='flip, times(0.5)')", "grad_cam(fuse='mean(features.0, features.2)')"]
)
def test_what_any_explainer_can_be_told_holds_for_the_page(network, text):
    explain = build_explainer(network, text)
    maps = found(explain, image())
    assert maps.about.explainer == text
    chosen = range(3) if maps.classes is None else maps.classes[:3]
    for place, index in enumerate(chosen):
        expected = explain(image(), target=index).heatmap[0]
        torch.testing.assert_close(torch.from_numpy(maps.maps[place]), expected, rtol=1e-4, atol=1e-6)


def test_where_cells_and_biases_make_the_logits_that_is_known(network):
    for name, adds, factor in (("grad_cam", "bias", 1.0), ("cam", "bias", 1 / 16), ("gradient", None, 1.0)):
        maps = found(EXPLAINERS[name](network), image())
        assert (maps.adds, maps.factor) == (adds, pytest.approx(factor))
    bare = build_network("contrex:convnet", {}, num_classes=CLASSES).eval()
    bare.fc.bias = None
    assert found(EXPLAINERS["grad_cam"](bare), image()).adds == "nothing"


def test_a_class_that_is_switched_off_hides_nothing_of_what_cells_and_biases_make():
    torch.manual_seed(0)
    net = build_network("contrex:convnet", {}, num_classes=CLASSES).eval()
    with torch.no_grad():
        net.fc.bias[3] = -1e4
    for name, adds, factor in (("grad_cam", "bias", 1.0), ("cam", "bias", 1 / 16), ("gradient", None, 1.0)):
        maps = found(EXPLAINERS[name](net), image())
        assert (maps.adds, maps.factor) == (adds, pytest.approx(factor))


def test_large_maps_are_averaged_and_few_numbers_are_kept(network):
    explain = EXPLAINERS["gradient"](network)
    maps = found(explain, image(side=2 * FINEST), cells=5 * FINEST**2)
    assert maps.size == (2 * FINEST, 2 * FINEST)
    assert maps.maps.shape == (5, FINEST, FINEST)
    expected = explain(image(side=2 * FINEST)).heatmap
    averaged = torch.nn.functional.avg_pool2d(expected, 2)[0]
    torch.testing.assert_close(torch.from_numpy(maps.maps[0]), averaged, rtol=1e-4, atol=1e-6)
    assert len(found(explain, image(), cells=0).maps) == 2


def test_one_logit_has_both_its_sides():
    torch.manual_seed(0)
    explain = EXPLAINERS["grad_cam"](build_network("contrex:convnet", {}, num_classes=1).eval())
    maps = found(explain, image())
    assert maps.classes is None
    for target in (0, 1):
        expected = explain(image(), target=target, contrast=1 - target)
        row = scores.class_weights(expected.logits, expected.target, 1 - target)[0]
        torch.testing.assert_close(weighted(maps, row, 1 - target), expected.heatmap[0], rtol=1e-4, atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("name", [one for one in EXPLAINERS if "attention" not in one and one != "legrad"])
def test_every_explainer_says_whether_contrasts_are_sums(network, name):
    """Of a method that is not linear the front door's contrast is the difference of two maps, and so is the page's."""
    options = {"rise": {"num_masks": 20}, "smooth_grad": {"num_samples": 2}}.get(name, {})
    explain = EXPLAINERS[name](network, **options)
    maps = found(explain, image(side=16))
    if not explain.is_class_specific:
        assert maps.maps.shape[0] == 1
        return
    assert len(maps.rest) == (2 if explain.is_linear and maps.classes else 0)
    first, second = range(2) if maps.classes is None else maps.classes[:2]
    expected = explain(image(side=16), target=first, contrast=second)
    row = scores.class_weights(expected.logits, expected.target, second)[0]
    largest = float(expected.heatmap.abs().max())
    torch.testing.assert_close(weighted(maps, row, second), expected.heatmap[0], rtol=1e-3, atol=1e-4 * largest)
