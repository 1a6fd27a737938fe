import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from torchvision.transforms import RandomResizedCrop

from contrex.errors import ArgumentError
from contrex.metrics import object_mask
from contrex.ops import geometry
from contrex.ops.geometry import Crop


def crops(num, size, seed=0, flip=0.5):
    return geometry.random_crop(
        num, size, scale=(0.1, 1.0), ratio=(0.5, 2.0), flip=flip, generator=np.random.default_rng(seed)
    )


def cut_and_resized(image, crop, index):
    """One image [C,H,W] by slicing and `F.interpolate`."""
    top, left, height, width = (int(v[index]) for v in (crop.top, crop.left, crop.height, crop.width))
    view = F.interpolate(
        image[None, :, top : top + height, left : left + width],
        crop.image_size,
        mode="bilinear",
        align_corners=False,
    )[0]
    return view.flip(-1) if crop.flip[index] else view


@pytest.mark.parametrize("size", [(16, 16), (12, 20)])
def test_warp_images_is_cut_resize_flip(size):
    images, crop = torch.rand(9, 3, *size, dtype=torch.float64), crops(9, size)
    assert crop.flip.any()
    assert not crop.flip.all()
    expected = torch.stack([cut_and_resized(image, crop, i) for i, image in enumerate(images)])
    torch.testing.assert_close(geometry.warp_images(images, crop), expected, rtol=0, atol=1e-12)


def test_warp_images_keeps_float32_exact_to_rounding():
    images, crop = torch.rand(4, 3, 224, 224), crops(4, 224)
    expected = torch.stack([cut_and_resized(image, crop, i) for i, image in enumerate(images)])
    torch.testing.assert_close(geometry.warp_images(images, crop), expected, rtol=0, atol=5e-4)


def test_crop_image_agrees_with_warp_images():
    """Pillow's antialiased resize of an enlarged crop is the same bilinear interpolation, to 8-bit rounding."""
    array = np.random.default_rng(0).integers(0, 256, (24, 32, 3), dtype=np.uint8)
    tensor = torch.from_numpy(array).permute(2, 0, 1)[None].double()
    for index in range(8):
        crop = crops(8, (24, 32))[index : index + 1]
        view = np.asarray(geometry.crop_image(Image.fromarray(array), crop))
        expected = geometry.warp_images(tensor, crop)[0].permute(1, 2, 0).numpy()
        assert np.abs(view - expected).max() <= 1.01


def test_crop_image_reads_nothing_outside_the_crop():
    array = np.zeros((16, 16, 3), np.uint8)
    array[4:12, 4:12] = 200
    crop = Crop(*(torch.tensor([v]) for v in (4, 4, 8, 8, False)), size=16)
    assert (np.asarray(geometry.crop_image(Image.fromarray(array), crop)) == 200).all()


def test_identity_changes_nothing():
    images = torch.rand(3, 2, 8, 10)
    identity = Crop.identity(3, (8, 10))
    torch.testing.assert_close(geometry.warp_images(images, identity), images)
    torch.testing.assert_close(geometry.warp_heatmap(images[:, 0, :4, :5], identity), images[:, 0, :4, :5])


def test_heatmap_of_a_ramp_is_the_crops_coordinates():
    """A map that holds its own coordinate shows after T where each cell came from: exact at 7 x 7, not only at 224."""
    size, cells = 224, 7
    centres = (torch.arange(cells, dtype=torch.float64) + 0.5) * size / cells
    crop = Crop(
        top=torch.tensor([60.0]),
        left=torch.tensor([45.5]),
        height=torch.tensor([100.0]),
        width=torch.tensor([80.0]),
        flip=torch.tensor([True]),
        size=size,
    )
    inside = (torch.arange(cells, dtype=torch.float64) + 0.5) / cells
    rows = geometry.warp_heatmap(centres[None, :, None].expand(1, cells, cells), crop)
    columns = geometry.warp_heatmap(centres[None, None, :].expand(1, cells, cells), crop)
    torch.testing.assert_close(rows[0, :, 0], 60 + 100 * inside)
    torch.testing.assert_close(columns[0, 0], (45.5 + 80 * inside).flip(0))


def test_a_heatmap_at_the_images_resolution_moves_like_the_image(golden):
    maps = torch.rand(6, 24, 32, dtype=torch.float64)
    crop = crops(6, (24, 32))
    torch.testing.assert_close(geometry.warp_heatmap(maps, crop), geometry.warp_images(maps[:, None], crop)[:, 0])
    g = golden("cgc_a")
    fields = [torch.from_numpy(g[name])[:2] for name in ("top", "left", "height", "width", "flip")]
    found = geometry.warp_heatmap(torch.from_numpy(g["heatmap"]).double(), Crop(*fields, size=224))
    expected = torch.from_numpy(g["warped_heatmap_first2"]).double()
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6 * float(expected.max()))


def test_what_lies_outside_the_crop_is_never_seen():
    """A bright cell one pixel outside the crop stays out of the view, at any resolution."""
    heatmap = torch.zeros(1, 16, 16)
    heatmap[0, :, :8] = 1
    crop = Crop(*(torch.tensor([v]) for v in (0, 8, 16, 8, False)), size=16)
    assert geometry.warp_heatmap(heatmap, crop).max() == 0
    assert geometry.warp_images(heatmap[:, None], crop).max() == 0


@pytest.mark.parametrize("warp", [lambda c: geometry.warp_images(torch.rand(1, 3, 8, 8), c),
                                  lambda c: geometry.warp_heatmap(torch.rand(1, 4, 4), c)])  # fmt: skip
def test_a_crop_that_leaves_the_image_is_refused(warp):
    crop = Crop(*(torch.tensor([v]) for v in (4, 0, 8, 8, False)), size=8)
    with pytest.raises(ArgumentError, match="is empty or leaves the 8 x 8 image"):
        warp(crop)


def test_heatmap_and_image_move_together():
    """A blob in the image and the same blob in the map land in the same place."""
    image, size = torch.zeros(1, 1, 64, 64, dtype=torch.float64), 64
    image[0, 0, 16:24, 32:40] = 1
    heatmap = F.avg_pool2d(image, 8)[:, 0]
    crop = Crop(*(torch.tensor([v]) for v in (8, 16, 40, 40, True)), size=size)
    moved = geometry.warp_images(image, crop)[0, 0]
    cells = geometry.warp_heatmap(heatmap, crop)[0]
    position = (torch.arange(64, dtype=torch.float64) + 0.5) / 64
    cell = (torch.arange(8, dtype=torch.float64) + 0.5) / 8
    for axis in (0, 1):
        centre = (moved.sum(1 - axis) * position).sum() / moved.sum()
        centre_of_map = (cells.sum(1 - axis) * cell).sum() / cells.sum()
        assert abs(centre - centre_of_map) < 0.02


def test_boxes_move_with_the_image():
    """A filled box in the image, warped, has the warped box as its bounds."""
    crop = crops(12, (24, 32))
    for index in range(12):
        image = torch.zeros(1, 1, 24, 32)
        image[0, 0, 6:15, 10:22] = 1
        moved = geometry.warp_images(image, crop[index : index + 1])[0, 0] > 0.5
        boxes = geometry.warp_boxes(np.array([[10, 6, 22, 15]], np.float32), crop, index)
        if not moved.any():
            continue
        rows, columns = moved.any(1).nonzero().flatten(), moved.any(0).nonzero().flatten()
        bounds = [columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]
        assert np.abs(boxes[0] - np.array([float(b) for b in bounds])).max() <= 1.0


@pytest.mark.parametrize("flip", [False, True])
def test_a_box_beside_the_view_is_dropped_and_one_of_a_pixel_inside_is_not(flip):
    """Whichever the crop: 49 pixels enlarged to 64 end at 63.99999999999999."""
    for length in range(1, 65):
        for start in range(length % 3, 65 - length, 3):
            end = start + length
            crop = Crop(*(torch.tensor([v]) for v in (start, start, length, length, flip)), size=64)
            beside = [[0, 0, 64, start], [0, end, 64, 64], [0, 0, start, 64], [end, 0, 64, 64]]
            corners = [[start, start, start + 1, start + 1], [end - 1, end - 1, end, end]]
            boxes = geometry.warp_boxes(np.array(beside + corners, np.float32), crop)
            assert len(boxes) == 2
            assert object_mask(boxes, (64, 64)).any()


def test_warps_are_twice_differentiable():
    heatmap = torch.rand(2, 3, 4, dtype=torch.float64, requires_grad=True)
    crop = crops(2, (24, 32))
    assert torch.autograd.gradgradcheck(lambda h: geometry.warp_heatmap(h, crop).pow(2), (heatmap,))


def test_interpolate_rows_is_the_matrix_product():
    positions, matrix = torch.rand(3, 9, dtype=torch.float64) * 10, torch.rand(11, 4, dtype=torch.float64)
    expected = geometry.interpolation_matrix(positions, 11) @ matrix
    torch.testing.assert_close(geometry.interpolate_rows(matrix, positions), expected)
    at_the_end = geometry.interpolate_rows(matrix, torch.tensor([10.0], dtype=torch.float64))
    torch.testing.assert_close(at_the_end[0], matrix[-1])


def test_upsampling_matrix_is_interpolate():
    signal = torch.rand(1, 1, 5, dtype=torch.float64)
    expected = F.interpolate(signal, 23, mode="linear", align_corners=False)[0, 0]
    torch.testing.assert_close(geometry.upsampling_matrix(5, 23, like=signal) @ signal[0, 0], expected)


def test_random_crop_has_torchvisions_distribution():
    drawn = geometry.random_crop(
        3000, 64, scale=(0.08, 1.0), ratio=(3 / 4, 4 / 3), flip=0.5, generator=np.random.default_rng(1)
    )
    image = torch.zeros(3, 64, 64)
    theirs = torch.tensor(
        [RandomResizedCrop.get_params(image, [0.08, 1.0], [3 / 4, 4 / 3]) for _ in range(3000)], dtype=torch.float64
    )
    ours = torch.stack([drawn.top, drawn.left, drawn.height, drawn.width], 1).double()
    assert (ours.mean(0) - theirs.mean(0)).abs().max() < 1.0
    assert (ours.std(0) - theirs.std(0)).abs().max() < 1.0
    assert abs(drawn.flip.double().mean() - 0.5) < 0.03
    drawn.check()


def test_random_crop_depends_on_nothing_but_its_generator():
    torch.manual_seed(5)
    first = crops(4, 32, seed=3)
    torch.manual_seed(6)
    second = crops(4, 32, seed=3)
    for name in ("top", "left", "height", "width", "flip"):
        assert torch.equal(getattr(first, name), getattr(second, name))
    assert not torch.equal(first.top, crops(4, 32, seed=4).top)


def test_random_crop_falls_back_to_the_centre():
    crop = geometry.random_crop(
        2, (10, 100), scale=(0.9, 1.0), ratio=(1.0, 1.0), flip=0.0, generator=np.random.default_rng(0)
    )
    assert crop.height.tolist() == [10, 10]
    assert crop.width.tolist() == [10, 10]
    assert crop.left.tolist() == [45, 45]


def test_crop_stacks_slices_and_moves():
    crop = crops(6, (8, 12))
    again = Crop.stack([crop[0:2], crop[2:6]])
    assert torch.equal(again.left, crop.left)
    assert again.image_size == (8, 12)
    assert len(crop.to("cpu")) == 6


def test_crop_refuses():
    with pytest.raises(ArgumentError, match=r"of one shape \[N\]"):
        Crop(torch.zeros(2), torch.zeros(3), torch.ones(2), torch.ones(2), torch.zeros(2), 8)
    outside = Crop(*(torch.tensor([v]) for v in (4, 0, 8, 8, False)), size=8)
    with pytest.raises(ArgumentError, match=r"= \(4.0, 0.0, 8.0, 8.0\) is empty or leaves the 8 x 8 image"):
        outside.check()
    with pytest.raises(ArgumentError, match="different image sizes"):
        Crop.stack([crops(1, 8), crops(1, 9)])
    with pytest.raises(ArgumentError, match="the crop's size"):
        geometry.warp_images(torch.zeros(1, 3, 9, 9), crops(1, 8))
    with pytest.raises(ArgumentError, match="one per crop"):
        geometry.warp_heatmap(torch.zeros(2, 7, 7), crops(1, 8))
    with pytest.raises(ArgumentError, match="the crop's size; got 9 x 8"):
        geometry.crop_image(Image.new("RGB", (9, 8)), crops(1, 8))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"scale": (0.0, 1.0)}, "`scale`"),
        ({"scale": (0.5, 0.2)}, "`scale`"),
        ({"ratio": (2.0, 1.0)}, "`ratio`"),
        ({"flip": 1.5}, "`flip` is a probability"),
    ],
)
def test_random_crop_refuses(change, message):
    options = {"scale": (0.1, 1.0), "ratio": (0.75, 1.33), "flip": 0.5, "generator": np.random.default_rng(0)}
    with pytest.raises(ArgumentError, match=message):
        geometry.random_crop(1, 8, **{**options, **change})
