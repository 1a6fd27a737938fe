from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

from contrex.errors import ArgumentError
from contrex.metrics import ContentHeatmap, ContentHeatmapAtSpread, at_spread, content_heatmap, object_mask
from oracles.content_heatmap import content_heatmap as slow_content_heatmap


def random_boxes(num_boxes, height, width):
    x, y = (torch.rand(num_boxes, 2).sort(dim=1).values * size for size in (width, height))
    return torch.stack([x[:, 0], y[:, 0], x[:, 1], y[:, 1]], dim=1)


@pytest.mark.parametrize("image_size", [(9, 9), (17, 26), (31, 12), (3, 2), (1, 40)])
@pytest.mark.parametrize("num_boxes", [1, 3])
def test_oracle(image_size, num_boxes):
    heatmaps = torch.randn(2, 4, 5)
    boxes = [random_boxes(num_boxes, *image_size) for _ in range(2)]
    expected = [slow_content_heatmap(h.tolist(), b.tolist(), image_size) for h, b in zip(heatmaps, boxes, strict=True)]
    actual = content_heatmap(heatmaps, boxes, [image_size] * 2)
    torch.testing.assert_close(actual, torch.tensor(expected, dtype=torch.float64), rtol=1e-12, atol=1e-12)


def test_each_image_has_its_own_size_and_number_of_boxes():
    heatmaps, sizes = torch.randn(3, 7, 7), [(20, 30), (30, 20), (25, 25)]
    boxes = [random_boxes(number, *size) for number, size in zip((1, 4, 2), sizes, strict=True)]
    single = [content_heatmap(heatmaps[i : i + 1], boxes[i : i + 1], sizes[i : i + 1]) for i in range(3)]
    together = content_heatmap(heatmaps, boxes, sizes)
    assert together.equal(torch.cat(single))
    order = [2, 0, 1]
    assert content_heatmap(heatmaps[order], [boxes[i] for i in order], [sizes[i] for i in order]).equal(together[order])


def test_uniform_map_gives_the_share_of_the_area():
    assert content_heatmap(torch.ones(1, 7, 7), [torch.tensor([[10.0, 5.0, 40.0, 20.0]])], [(30, 60)]).item() == (
        pytest.approx(100 * 30 * 15 / (30 * 60), abs=1e-10)
    )


def test_a_map_inside_its_box_scores_100():
    heatmap = torch.zeros(1, 8, 8)
    heatmap[0, 3:5, 3:5] = 2.0
    assert content_heatmap(heatmap, [torch.tensor([[16.0, 16.0, 48.0, 48.0]])], [(64, 64)]).item() == 100.0
    assert content_heatmap(heatmap, [torch.tensor([[48.0, 0.0, 64.0, 64.0]])], [(64, 64)]).item() == 0.0


def test_boxes_that_tile_the_image_add_up_to_100():
    size, heatmap = (37, 53), torch.randn(1, 7, 7)
    columns, rows = [0, 10, 11.5, 30.25, 53], [0, 20, 37]
    tiles = [
        torch.tensor([[x0, y0, x1, y1]], dtype=torch.float32)
        for x0, x1 in itertools.pairwise(columns)
        for y0, y1 in itertools.pairwise(rows)
    ]
    shares = content_heatmap(heatmap.expand(len(tiles), -1, -1), tiles, [size] * len(tiles))
    assert shares.sum().item() == pytest.approx(100)
    assert content_heatmap(heatmap, [torch.cat(tiles)], [size]).item() == pytest.approx(100)


def test_overlap_counts_once():
    heatmap, size = torch.rand(1, 7, 7), [(20, 20)]
    box = torch.tensor([[2.0, 3.0, 15.0, 12.0]])
    inner = torch.tensor([[4.0, 4.0, 10.0, 10.0]])
    assert content_heatmap(heatmap, [torch.cat([box, inner, box])], size).equal(content_heatmap(heatmap, [box], size))


def test_positive_scale_and_negative_values_do_not_matter():
    heatmap, boxes, size = torch.randn(1, 7, 7), [torch.tensor([[0.0, 0.0, 9.0, 9.0]])], [(20, 20)]
    expected = content_heatmap(heatmap, boxes, size)
    for same in (heatmap * 1e-30, heatmap * 1e30, heatmap.relu(), torch.where(heatmap < 0, heatmap * 9, heatmap)):
        torch.testing.assert_close(content_heatmap(same, boxes, size), expected, rtol=1e-6, atol=0)


def test_rectifies_before_resizing():
    heatmap = torch.tensor([[[1.0, -3.0]]])
    assert content_heatmap(heatmap, [torch.tensor([[0.0, 0.0, 2.0, 1.0]])], [(1, 4)]).item() == pytest.approx(87.5)


def test_rows_are_not_columns():
    heatmap = torch.zeros(1, 2, 2)
    heatmap[0, 0] = 1.0  # the upper half
    upper, left = torch.tensor([[0.0, 0.0, 40.0, 10.0]]), torch.tensor([[0.0, 0.0, 20.0, 20.0]])
    shares = content_heatmap(heatmap.expand(2, -1, -1), [upper, left], [(20, 40)] * 2)
    assert shares[0] > 80
    assert shares[1].item() == pytest.approx(50)


@pytest.mark.parametrize(
    ("box", "pixels"),
    [
        ((1.0, 0.0, 3.0, 2.0), [1, 2]),  # integer edges: the slice 1:3
        ((1.5, 0.0, 2.5, 2.0), [1]),  # the centre on the lower edge is in, on the upper edge is out
        ((1.6, 0.0, 2.4, 2.0), []),  # no centre inside
        ((-5.0, -5.0, 1.0, 9.0), [0]),  # what is outside the image does not count
        ((3.0, 0.0, 99.0, 2.0), [3]),
    ],
)
def test_pixel_centre_rule(box, pixels):
    mask = object_mask(torch.tensor([box]), (2, 4))
    assert mask.shape == (2, 4)
    assert mask[0].nonzero().flatten().tolist() == pixels
    assert mask[1].equal(mask[0])


def test_a_mask_in_place_of_boxes():
    heatmaps, box = torch.rand(3, 7, 7), torch.tensor([[3.0, 5.0, 14.0, 18.0]])
    mask = object_mask(box, (20, 30))
    shares = content_heatmap(heatmaps[:1].expand(3, -1, -1), [box, mask, mask.numpy()], [(20, 30)] * 3)
    assert shares[0] == shares[1] == shares[2]


def test_numpy_boxes_as_a_sample_holds_them():
    boxes = np.array([[0.0, 0.0, 10.0, 20.0]], dtype=np.float32)
    boxes.flags.writeable = False
    assert content_heatmap(torch.ones(1, 7, 7), [boxes], [(20, 20)]).item() == pytest.approx(50)


def test_boxes_as_plain_lists():
    heatmaps, size = torch.ones(3, 7, 7), [(20, 20)] * 3
    boxes = [[[0, 0, 10, 20]], [(0.0, 0.0, 5.0, 20.0), (5.0, 0.0, 10.0, 20.0)], []]
    metric = ContentHeatmap()
    metric.update(heatmaps, boxes, size)
    torch.testing.assert_close(content_heatmap(heatmaps, boxes, size), metric.values(), equal_nan=True)
    assert metric.values()[:2].tolist() == pytest.approx([50, 50])
    assert metric.describe_skipped() == "1 without a box of the class"
    with pytest.raises(ArgumentError, match=r"`boxes\[1\]` must be \[M,4\] or a boolean mask, got \[\[0, 0\], \[1\]\]"):
        content_heatmap(heatmaps, [boxes[0], [[0, 0], [1]], []], size)


@pytest.mark.parametrize("heatmap", [torch.zeros(1, 3, 3), -torch.rand(1, 3, 3)])
def test_an_empty_map_has_no_value(heatmap):
    assert content_heatmap(heatmap, [torch.tensor([[0.0, 0.0, 4.0, 4.0]])], [(8, 8)]).isnan().all()


@pytest.mark.parametrize("nothing", [torch.zeros(0, 4), np.zeros((0, 4), np.float32), torch.zeros(8, 8).bool()])
def test_an_image_without_a_box_has_no_value(nothing):
    assert content_heatmap(torch.ones(1, 3, 3), [nothing], [(8, 8)]).isnan().all()


def test_no_images():
    assert content_heatmap(torch.zeros(0, 7, 7), [], []).shape == (0,)


def test_metric_counts_both_kinds_of_skipped_images():
    box, none = torch.tensor([[0.0, 0.0, 4.0, 8.0]]), torch.zeros(0, 4)
    heatmaps = torch.ones(5, 3, 3)
    heatmaps[1] = heatmaps[3] = -1.0
    metric = ContentHeatmap()
    metric.update(heatmaps[:2], [box, box], [(8, 8)] * 2)
    metric.update(heatmaps[2:], [none, none, torch.zeros(8, 8).bool()], [(8, 8)] * 3)
    record = metric.record(num_bootstrap=10, seed=0)
    assert record.value == pytest.approx(50)
    assert (record.num_counted, record.num_skipped) == (1, 4)
    assert record.skip_reason == "3 without a box or mask of the class, 1 with an empty heatmap (no positive value)"
    metric.reset()
    assert metric.describe_skipped() == ""
    metric.update(-heatmaps[:1], [box], [(8, 8)])
    assert metric.describe_skipped() == "1 with an empty heatmap (no positive value)"


BOX = torch.tensor([[0.0, 0.0, 4.0, 4.0]])
MAP = torch.ones(1, 3, 3)


@pytest.mark.parametrize(
    ("heatmaps", "boxes", "sizes", "message"),
    [
        (torch.ones(1, 1, 3, 3), [BOX], [(8, 8)], r"`heatmaps` must be \[N,h,w\], got \[1, 1, 3, 3\]"),
        (MAP, [BOX, BOX], [(8, 8)], r"must be of the same images, got 1, 2 and 1"),
        (MAP, BOX[0], [(8, 8)], r"got 1, 4 and 1: `boxes` holds one \[M,4\] per image"),
        (MAP, [BOX[0]], [(8, 8)], r"`boxes\[0\]` must be \[M,4\] or a boolean mask, got torch.float32 \[4\]"),
        (MAP, [torch.zeros(4, 4).bool()], [(8, 8)], r"`boxes\[0\]` is a mask of \[4, 4\], its image \[8, 8\]"),
        (MAP * torch.nan, [BOX], [(8, 8)], r"`heatmaps` must be finite, got NaN or infinity at index 0"),
        (MAP / 0, [BOX], [(8, 8)], r"NaN or infinity at index 0"),
        (MAP, [BOX[:, [2, 1, 0, 3]]], [(8, 8)], r"`boxes\[0\]` has \(4, 0, 0, 4\), which is empty"),
        (MAP, [BOX * 0], [(8, 8)], r"which is empty"),
        (MAP, [BOX * torch.nan], [(8, 8)], r"which is empty"),
        (MAP, [BOX + 8], [(8, 9)], r"\(8, 8, 12, 12\), outside its image of 8 x 9 \(H x W\)"),
        (MAP, [BOX - 4], [(8, 8)], r"outside its image"),
    ],
)
def test_errors(heatmaps, boxes, sizes, message):
    with pytest.raises(ArgumentError, match=message):
        content_heatmap(heatmaps, boxes, sizes)


def test_errors_name_the_image():
    with pytest.raises(ArgumentError, match=r"`boxes\[1\]` has"):
        content_heatmap(torch.ones(2, 3, 3), [BOX, BOX + 9], [(8, 8)] * 2)


def test_at_one_spread_a_map_cannot_gain_by_being_small():
    maps = torch.rand(3, 7, 7, generator=torch.Generator().manual_seed(3)).double()
    boxes, sizes = [[[3, 2, 20, 17]], [[0, 0, 9, 30]], []], [(30, 40)] * 3
    metric, smaller = ContentHeatmapAtSpread(share=0.2), ContentHeatmapAtSpread(share=0.2)
    metric.update(maps, boxes, sizes)
    smaller.update(3 * maps - 2.4, boxes, sizes)
    torch.testing.assert_close(metric.rows(), smaller.rows(), equal_nan=True, atol=1e-9, rtol=0)
    expected = content_heatmap(at_spread(maps, 0.2), boxes, sizes)
    torch.testing.assert_close(metric.rows()[:, 0], expected, equal_nan=True)
    assert (content_heatmap(3 * maps - 2.4, boxes, sizes) - content_heatmap(maps, boxes, sizes))[:2].abs().min() > 1
    metric.update(torch.ones(1, 7, 7), boxes[:1], sizes[:1])
    assert metric.describe_skipped() == "1 without a box of the class, 1 with a constant heatmap"


def test_a_spread_that_is_none():
    with pytest.raises(ArgumentError, match=r"`share` must be between 0 and 1, got 25\."):
        ContentHeatmapAtSpread(share=25)
