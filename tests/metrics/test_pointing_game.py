from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from contrex.errors import ArgumentError
from contrex.metrics import content_heatmap
from contrex.metrics.pointing_game import (
    PointingGame,
    StochasticPointingGame,
    near_object,
    pointing_game,
    stochastic_pointing_game,
)
from oracles import pointing_game as slow
from sampling import crossed

GAMES = {
    "pointing_game": pointing_game,
    "stochastic": lambda *args, **kw: stochastic_pointing_game(*args, **{"seeds": range(len(args[0])), **kw}),
}


def random_boxes(num_boxes, height, width):
    """Small boxes."""
    low = torch.rand(num_boxes, 2) * torch.tensor([width, height]) * 0.8
    return torch.cat([low, low + 1 + torch.rand(num_boxes, 2) * 2], dim=1)


@pytest.mark.parametrize(
    ("tolerance", "image_size"),
    crossed([0, 1, 2.5, 5], [(9, 9), (17, 26), (31, 12), (3, 2), (1, 40)], one_in=3),
)
def test_oracle(image_size, tolerance):
    heatmaps = torch.randn(6, 4, 5)
    heatmaps[:, 0, 0] = torch.tensor([9.0, 0, 0, 9, 0, 0])  # a plateau at the corner
    boxes = [random_boxes(1 + index % 2, *image_size) for index in range(6)]
    expected = [
        slow.pointing_game(h.tolist(), b.tolist(), image_size, tolerance) for h, b in zip(heatmaps, boxes, strict=True)
    ]
    assert pointing_game(heatmaps, boxes, [image_size] * 6, tolerance=tolerance).tolist() == expected


@pytest.mark.parametrize("tolerance", [0, 1, 1.5, 3, 5, math.sqrt(13), 15, 200])
def test_near_object_oracle(tolerance):
    mask = torch.rand(23, 37) < 0.004
    mask[0, 36] = True
    rows, columns = (grid.flatten() for grid in torch.meshgrid(torch.arange(23), torch.arange(37), indexing="ij"))
    pixels = mask.nonzero().tolist()
    expected = [
        any([r, c] == pixel or math.dist((r, c), pixel) < tolerance for pixel in pixels)
        for r, c in zip(rows.tolist(), columns.tolist(), strict=True)
    ]
    assert near_object(mask, rows, columns, tolerance).tolist() == expected
    assert not near_object(torch.zeros_like(mask), rows, columns, tolerance).any()


def test_fifteen_pixels_is_less_than_fifteen():
    """9-12-15 and 0-15 are right triangles on the grid, the published comparison is strict."""
    mask = torch.zeros(40, 40, dtype=torch.bool)
    mask[20, 20] = True
    rows, columns = torch.tensor([20, 20, 29, 28, 20]), torch.tensor([35, 34, 32, 32, 20])
    assert near_object(mask, rows, columns, 15).tolist() == [False, True, False, True, True]
    assert near_object(mask, rows, columns, 0).tolist() == [False, False, False, False, True]


@pytest.mark.parametrize("tolerance", [0, 3])
def test_samples_are_the_oracles(tolerance):
    heatmaps, size = torch.randn(3, 4, 5), (11, 14)
    boxes = [random_boxes(2, *size) for _ in range(3)]
    actual = stochastic_pointing_game(heatmaps, boxes, [size] * 3, seeds=[5, 6, 7], num_samples=20, tolerance=tolerance)
    for index in range(3):
        shares = torch.rand(20, generator=torch.Generator().manual_seed(5 + index), dtype=torch.float64).tolist()
        points = slow.drawn(heatmaps[index].tolist(), size, shares)
        hits = [slow.is_hit(*point, boxes[index].tolist(), size, tolerance) for point in points]
        assert actual[index].item() == pytest.approx(100 * np.mean(hits))


@pytest.mark.parametrize("tolerance", [0, 3])
def test_expectation_of_the_samples(tolerance):
    heatmap, size, boxes = torch.randn(1, 4, 5), (11, 14), [torch.tensor([[2.0, 3.0, 7.0, 6.0]])]
    share = stochastic_pointing_game(heatmap, boxes, [size], seeds=[0], num_samples=40_000, tolerance=tolerance)
    expected = slow.expected_share(heatmap[0].tolist(), boxes[0].tolist(), size, tolerance)
    assert 5 < expected < 95
    assert share.item() == pytest.approx(expected, abs=1)  # four standard errors
    if tolerance == 0:
        assert expected == pytest.approx(content_heatmap(heatmap, boxes, [size]).item())


def test_by_hand():
    heatmap = torch.zeros(1, 3, 3)
    heatmap[0, 1, 2] = 1.0  # a plateau over columns 25..29 of row 14 and 15, at 30 x 30
    point_at_25, beside = [[25, 14, 26, 15]], [[26, 14, 27, 15]]
    assert pointing_game(heatmap, [point_at_25], [(30, 30)], tolerance=0).item() == 100
    assert pointing_game(heatmap, [beside], [(30, 30)], tolerance=0).item() == 0
    assert pointing_game(heatmap, [beside], [(30, 30)], tolerance=1.1).item() == 100


def test_ties_go_to_the_first_pixel():
    flat = torch.full((1, 7, 7), 0.3)
    assert pointing_game(flat, [[[0, 0, 1, 1]]], [(50, 60)], tolerance=0).item() == 100
    assert pointing_game(flat, [[[1, 0, 60, 50]]], [(50, 60)], tolerance=0).item() == 0


@pytest.mark.parametrize("name", GAMES)
def test_each_image_has_its_own_size_and_number_of_boxes(name):
    heatmaps, sizes = torch.randn(3, 7, 7), [(20, 30), (30, 20), (25, 25)]
    boxes = [random_boxes(number, *size) for number, size in zip((1, 4, 2), sizes, strict=True)]
    options = [{"seeds": [i]} if name == "stochastic" else {} for i in range(3)]
    single = [GAMES[name](heatmaps[i : i + 1], boxes[i : i + 1], sizes[i : i + 1], **options[i]) for i in range(3)]
    assert GAMES[name](heatmaps, boxes, sizes).equal(torch.cat(single))


@pytest.mark.parametrize("name", GAMES)
def test_scale_and_negative_values_do_not_matter(name):
    heatmaps, boxes = torch.randn(9, 5, 5), [[[2, 2, 6, 7]]] * 9
    expected = GAMES[name](heatmaps, boxes, [(12, 12)] * 9, tolerance=2)
    assert 0 < expected.mean() < 100
    changed = (1e-30 * heatmaps).where(heatmaps > 0, -5.0)
    assert GAMES[name](changed, boxes, [(12, 12)] * 9, tolerance=2).equal(expected)
    huge = 5e307 * heatmaps.double()  # their sum is not finite
    assert GAMES[name](huge, boxes, [(12, 12)] * 9, tolerance=2).equal(expected)


@pytest.mark.parametrize("name", GAMES)
def test_everything_on_the_object_and_nothing(name):
    heatmaps, size = torch.rand(2, 4, 4), [(16, 16)] * 2
    assert (GAMES[name](heatmaps, [[[0, 0, 16, 16]]] * 2, size) == 100).all()
    between = [[[3.6, 3.6, 4.4, 4.4]]] * 2  # no pixel centre inside
    assert (GAMES[name](heatmaps, between, size) == 0).all()


@pytest.mark.parametrize("name", GAMES)
def test_masks(name):
    box = torch.tensor([[3.0, 5.0, 14.0, 18.0]])
    mask = torch.zeros(20, 30, dtype=torch.bool)
    mask[5:18, 3:14] = True
    heatmaps = torch.rand(1, 7, 7)
    values = [GAMES[name](heatmaps, [region], [(20, 30)], tolerance=2) for region in (box, mask, mask.numpy())]
    assert values[0].equal(values[1])
    assert values[0].equal(values[2])


@pytest.mark.parametrize("name", GAMES)
def test_undefined_values(name):
    heatmaps = torch.stack([torch.zeros(3, 3), -torch.rand(3, 3), torch.ones(3, 3), torch.ones(3, 3)])
    boxes = [[[0, 0, 4, 4]], [[0, 0, 4, 4]], [], torch.zeros(8, 8).bool()]
    assert GAMES[name](heatmaps, boxes, [(8, 8)] * 4).isnan().all()
    assert GAMES[name](torch.zeros(0, 7, 7), [], []).shape == (0,)


def test_a_positive_cell_that_the_resize_skips():
    """Shrinking may drop the only positive cell; then nothing is pointed at."""
    heatmap = torch.zeros(1, 9, 9)
    heatmap[0, 0, 0] = 1.0
    assert pointing_game(heatmap, [[[0, 0, 3, 3]]], [(3, 3)]).isnan().all()
    assert stochastic_pointing_game(heatmap, [[[0, 0, 3, 3]]], [(3, 3)], seeds=[0]).isnan().all()


def test_samples_leave_the_global_generator_alone():
    heatmap = torch.rand(1, 5, 5)
    state = torch.get_rng_state()
    first = stochastic_pointing_game(heatmap, [[[0, 0, 9, 9]]], [(20, 20)], seeds=[1], tolerance=0)
    assert torch.get_rng_state().equal(state)
    again = stochastic_pointing_game(heatmap, [[[0, 0, 9, 9]]], [(20, 20)], seeds=[2], tolerance=0)
    assert first.item() != again.item()


@pytest.mark.parametrize("metric_class", [PointingGame, StochasticPointingGame])
def test_metric_counts_both_kinds_of_skipped_images(metric_class):
    box, none = torch.tensor([[0.0, 0.0, 8.0, 8.0]]), torch.zeros(0, 4)
    heatmaps = torch.ones(5, 3, 3)
    heatmaps[1] = heatmaps[3] = -1.0
    metric = metric_class()
    extra = [[0, 1], [2, 3, 4]] if metric_class is StochasticPointingGame else [None, None]
    for some, boxes, seeds in zip((slice(2), slice(2, 5)), ([box, box], [none, none, none]), extra, strict=True):
        metric.update(heatmaps[some], boxes, [(8, 8)] * len(boxes), *([] if seeds is None else [seeds]))
    record = metric.record(num_bootstrap=10, seed=0)
    assert (record.value, record.num_counted, record.num_skipped, record.unit) == (100, 1, 4, "%")
    assert record.skip_reason == "3 without a box of the class, 1 with an empty heatmap (no positive value)"
    assert record.higher_is_better
    metric.reset()
    assert metric.describe_skipped() == ""


def test_metrics_use_their_options():
    heatmap, far = torch.eye(3)[None], [[[20, 0, 30, 5]]]
    assert PointingGame(tolerance=2.5).name == "pointing_game_2_5"
    for tolerance, value in ((0, 0.0), (25, 100.0)):
        metric = PointingGame(tolerance=tolerance)
        metric.update(heatmap, far, [(30, 30)])
        assert metric.compute().item() == value
    metric = StochasticPointingGame(num_samples=3, tolerance=1)
    metric.update(heatmap, [[[0, 0, 9, 9]]], [(30, 30)], seeds=[4])
    expected = stochastic_pointing_game(heatmap, [[[0, 0, 9, 9]]], [(30, 30)], seeds=[4], num_samples=3, tolerance=1)
    assert metric.values().equal(expected)
    assert metric.name == "stochastic_pointing_game_1"


MAP, BOX = torch.ones(1, 3, 3), [[0, 0, 4, 4]]


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        (
            (MAP, [BOX], [(8, 8)]),
            {"tolerance": -1},
            r"`tolerance` must be a number of pixels that is not negative, got -1",
        ),
        ((MAP, [BOX], [(8, 8)]), {"tolerance": math.nan}, r"`tolerance` must be a number of pixels"),
        ((MAP[None], [BOX], [(8, 8)]), {}, r"`heatmaps` must be \[N,h,w\], got \[1, 1, 3, 3\]"),
        ((MAP, [BOX, BOX], [(8, 8)]), {}, r"must be of the same images, got 1, 2 and 1"),
        ((MAP * torch.nan, [BOX], [(8, 8)]), {}, r"`heatmaps` must be finite, got NaN or infinity at index 0"),
        ((MAP, [[[9, 9, 10, 10]]], [(8, 8)]), {}, r"outside its image of 8 x 8"),
    ],
)
@pytest.mark.parametrize("name", GAMES)
def test_errors(name, arguments, options, message):
    with pytest.raises(ArgumentError, match=message):
        GAMES[name](*arguments, **options)


def test_errors_of_samples_and_metrics():
    with pytest.raises(ArgumentError, match=r"`seeds` must hold one integer per image, 1; got 2"):
        stochastic_pointing_game(MAP, [BOX], [(8, 8)], seeds=[0, 1])
    with pytest.raises(ArgumentError, match=r"`num_samples` must be at least 1 point, got 0: 100 is usual"):
        stochastic_pointing_game(MAP, [BOX], [(8, 8)], seeds=[0], num_samples=0)
    for metric_class in (PointingGame, StochasticPointingGame):
        with pytest.raises(ArgumentError, match=r"`tolerance` must be a number of pixels that is not negative, got -2"):
            metric_class(tolerance=-2)
