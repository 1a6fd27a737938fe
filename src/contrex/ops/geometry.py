"""Spatial transforms T as tensors: per-sample crops and flips, drawn once and replayed on images and on heatmaps.

A `Crop` cuts a box out of an image, resizes it back to the image's size and mirrors it where `flip` is set - the random
resized crop and horizontal flip of CGC (section 3.1). Crop, resize and flip are linear and separable, so T is a pair of
1-D interpolation matrices per sample, `T(a) = Y a X^T`: exact at any resolution, differentiable to any order,
deterministic on a GPU (matrix products, no atomics), and the same mapping for pictures and for 7 x 7 maps.

Positions follow `align_corners=False`: pixel i covers [i, i + 1), its centre is i + 1/2. Beyond the centre of the last
pixel inside the crop the value is held, exactly as when the crop is cut out first and resized afterwards.

Legend: N samples, H W image in pixels, h w heatmap in cells.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from contrex.errors import ArgumentError

_PER_SAMPLE = ("top", "left", "height", "width", "flip")


@dataclass(frozen=True, eq=False)
class Crop:
    """N crops: `top`, `left`, `height`, `width` [N] in pixels of an image of `size` = (H, W), `flip` [N] boolean.

    An int `size` is a square. Boxes may be fractional and must lie inside the image.
    """

    top: Tensor
    left: Tensor
    height: Tensor
    width: Tensor
    flip: Tensor
    size: int | tuple[int, int]

    def __post_init__(self) -> None:
        fields = {name: _as_tensor(getattr(self, name)) for name in _PER_SAMPLE}
        lengths = {name: tuple(value.shape) for name, value in fields.items()}
        if len(set(lengths.values())) != 1 or len(lengths["top"]) != 1:
            raise ArgumentError(f"`Crop` needs top, left, height, width and flip of one shape [N], got {lengths}.")
        for name, value in fields.items():
            object.__setattr__(self, name, value.bool() if name == "flip" else value)
        if isinstance(self.size, int):
            object.__setattr__(self, "size", (self.size, self.size))

    @property
    def image_size(self) -> tuple[int, int]:
        """(H, W) of the image that the boxes refer to."""
        return (self.size, self.size) if isinstance(self.size, int) else self.size

    def __len__(self) -> int:
        return len(self.flip)

    def to(self, device: torch.device | str) -> Crop:
        """The same crops on another device."""
        return self._apply(lambda tensor: tensor.to(device, non_blocking=True))

    def __getitem__(self, index: slice | Tensor) -> Crop:
        return self._apply(lambda tensor: tensor[index])

    def check(self) -> Crop:
        """Return self, or raise `ArgumentError` when a box is empty or leaves the image."""
        height, width = self.image_size
        starts_inside = (self.top >= 0) & (self.left >= 0) & (self.height > 0) & (self.width > 0)
        ends_inside = (self.top + self.height <= height) & (self.left + self.width <= width)
        wrong = (~(starts_inside & ends_inside)).nonzero()
        if len(wrong):
            index = int(wrong[0])
            box = tuple(float(side[index]) for side in (self.top, self.left, self.height, self.width))
            raise ArgumentError(
                f"`crop` {index} (top, left, height, width) = {box} is empty or leaves the {height} x {width} image."
            )
        return self

    @staticmethod
    def identity(num_samples: int, size: int | tuple[int, int]) -> Crop:
        """N transforms that change nothing."""
        height, width = (size, size) if isinstance(size, int) else size
        zeros = torch.zeros(num_samples, dtype=torch.float32, device="cpu")
        return Crop(zeros, zeros, zeros + height, zeros + width, zeros.bool(), (height, width))

    @staticmethod
    def stack(crops: list[Crop]) -> Crop:
        """The crops of several batches as one batch."""
        if len({crop.image_size for crop in crops}) != 1:
            raise ArgumentError(f"crops of different image sizes cannot be stacked: {[c.image_size for c in crops]}.")
        columns = {name: torch.cat([getattr(crop, name) for crop in crops]) for name in _PER_SAMPLE}
        return Crop(**columns, size=crops[0].image_size)

    def _apply(self, function: Callable[[Tensor], Tensor]) -> Crop:
        return Crop(**{name: function(getattr(self, name)) for name in _PER_SAMPLE}, size=self.size)


def random_crop(
    num_samples: int,
    size: int | tuple[int, int],
    *,
    scale: tuple[float, float],
    ratio: tuple[float, float],
    flip: float,
    generator: np.random.Generator,
) -> Crop:
    """Draw N independent random resized crops at integer pixels.

    The distribution is torchvision's `RandomResizedCrop`: area share uniform in `scale`, aspect ratio log-uniform in
    `ratio`; ten tries, then the largest central crop within the ratio's bounds. `flip` is a probability.
    """
    height, width = (size, size) if isinstance(size, int) else size
    _check_ranges(scale, ratio, flip)
    boxes = [_random_box(height, width, scale, ratio, generator) for _ in range(num_samples)]
    return _crop_of(boxes, generator.random(num_samples) < flip, (height, width))


def random_crops(
    size: int | tuple[int, int],
    *,
    scale: tuple[float, float],
    ratio: tuple[float, float],
    flip: float,
    generators: Sequence[np.random.Generator],
) -> Crop:
    """Draw one crop from each generator, as `random_crop` does."""
    height, width = (size, size) if isinstance(size, int) else size
    _check_ranges(scale, ratio, flip)
    boxes = [_random_box(height, width, scale, ratio, generator) for generator in generators]
    return _crop_of(boxes, np.array([generator.random() < flip for generator in generators]), (height, width))


def _crop_of(boxes: Sequence[tuple[int, int, int, int]], flip: NDArray[np.bool_], size: tuple[int, int]) -> Crop:
    top, left, height, width = torch.from_numpy(np.array(boxes, np.int64).reshape(len(boxes), 4)).unbind(1)
    return Crop(top, left, height, width, torch.from_numpy(flip), size)


def warp_images(images: Tensor, crop: Crop) -> Tensor:
    """T applied to images `[N,C,H,W]` of the crop's size: one batched resample. Same shape and dtype.

    No antialiasing is needed: a crop is at most as large as the image it is resized to.
    """
    if tuple(images.shape[-2:]) != crop.image_size or len(images) != len(crop):
        raise ArgumentError(
            f"`images` must be {len(crop)} pictures of {crop.image_size}, the crop's size; got {list(images.shape)}."
        )
    rows, columns = warp_matrices(crop.check(), crop.image_size, like=images)
    return rows[:, None] @ images @ columns[:, None].mT


def warp_heatmap(heatmap: Tensor, crop: Crop) -> Tensor:
    """T applied to heatmaps `[N,h,w]` of any resolution, exactly (to the sub-cell) and differentiably; same shape.

    Each cell of the view reads the map where its centre comes from in the image, and, like a pixel, never from outside
    the crop. At the image's own resolution that is `warp_images`.
    """
    if heatmap.ndim != 3 or len(heatmap) != len(crop):
        raise ArgumentError(f"`heatmap` must be [{len(crop)},h,w], one per crop; got {list(heatmap.shape)}.")
    (height, width), (h, w) = crop.check().image_size, heatmap.shape[1:]
    in_rows, in_columns = _sources(crop, (1.0, 1.0), (h, w), like=heatmap)
    # From centres of pixels to centres of cells: both have theirs at + 0.5.
    rows = ((in_rows + 0.5) * (h / height) - 0.5).clamp(0, h - 1)
    columns = ((in_columns + 0.5) * (w / width) - 0.5).clamp(0, w - 1)
    return interpolation_matrix(rows, h) @ heatmap @ interpolation_matrix(columns, w).mT


def warp_boxes(boxes: NDArray[np.float32], crop: Crop, index: int = 0) -> NDArray[np.float32]:
    """T number `index` applied to boxes `[M,4]`, `xmin, ymin, xmax, ymax` as edges in pixels of the crop's size.

    Boxes are cut at the borders of the view; those that lie outside it are dropped.

    >>> crop = Crop(*(torch.tensor([v]) for v in (0, 4, 8, 4, True)), size=8)
    >>> warp_boxes(np.array([[4, 0, 6, 8], [0, 0, 3, 3]], np.float32), crop).tolist()
    [[4.0, 0.0, 8.0, 8.0]]
    """
    (height, width), (top, left) = crop.image_size, (float(crop.top[index]), float(crop.left[index]))
    scale = (height / float(crop.height[index]), width / float(crop.width[index]))
    moved = place_boxes(boxes, scale=scale, origin=(top, left), size=(height, width))
    if bool(crop.flip[index]):
        moved[:, [0, 2]] = width - moved[:, [2, 0]]
    return _not_empty(moved)


def place_boxes(
    boxes: NDArray[np.float32], *, scale: tuple[float, float], origin: tuple[float, float], size: tuple[int, int]
) -> NDArray[np.float32]:
    """Boxes `[M,4]` in a window of `size` = (H, W) whose upper left corner lies at `origin` = (y, x) of the image and
    in which the image is enlarged by `scale` = (vertical, horizontal); cut at the window, dropped outside it."""
    shift, factor = np.asarray([origin[1], origin[0]] * 2), np.asarray([scale[1], scale[0]] * 2)
    moved = ((boxes - shift) * factor).clip(0, [size[1], size[0]] * 2)
    return _not_empty(moved.astype(np.float32))


def _not_empty(boxes: NDArray[np.float32]) -> NDArray[np.float32]:
    """Those of the boxes `[M,4]` that hold anything. A box that ends where its view begins may reach into the view by
    an error of rounding, which is nothing in float32."""
    kept: NDArray[np.float32] = boxes[(boxes[:, 2] > boxes[:, 0]) & (boxes[:, 3] > boxes[:, 1])]
    return kept


def warp_matrices(crop: Crop, size: tuple[int, int], *, like: Tensor) -> tuple[Tensor, Tensor]:
    """The matrices `Y [N,H,H]`, `X [N,W,W]` of T at `size` = (H, W), with the dtype and device of `like`."""
    rows, columns = warp_positions(crop, size, like=like)
    return interpolation_matrix(rows, size[0]), interpolation_matrix(columns, size[1])


def warp_positions(crop: Crop, size: tuple[int, int], *, like: Tensor) -> tuple[Tensor, Tensor]:
    """Where each output row `[N,H]` and column `[N,W]` of T reads its source, as pixel-centre coordinates at `size`.

    Positions are held at the outermost pixel centres of the crop: cutting first and resizing afterwards.
    """
    height, width = crop.image_size
    return _sources(crop, (size[0] / height, size[1] / width), size, like=like)


def _sources(crop: Crop, scale: tuple[float, float], num: tuple[int, int], *, like: Tensor) -> tuple[Tensor, Tensor]:
    """`warp_positions` for `num` = (rows, columns) of output, in pixels of the image enlarged by `scale`."""
    top, left, height, width = (v.to(like.device, like.dtype) for v in (crop.top, crop.left, crop.height, crop.width))
    length_y, length_x = height * scale[0], width * scale[1]
    rows = (top * scale[0])[:, None] + _clamped(_centres(length_y, num[0]) - 0.5, length_y)
    columns = (left * scale[1])[:, None] + _clamped(_centres(length_x, num[1]) - 0.5, length_x)
    return rows, _mirrored(columns, crop.flip)


def interpolation_matrix(positions: Tensor, size: int) -> Tensor:
    """The matrix `[..., n, size]` that reads a signal of length `size` at `positions` `[..., n]`, bilinearly.

    >>> interpolation_matrix(torch.tensor([0.0, 1.25]), 3)
    tensor([[1.0000, 0.0000, 0.0000],
            [0.0000, 0.7500, 0.2500]])
    """
    cells = torch.arange(size, dtype=positions.dtype, device=positions.device)
    return (1 - (positions[..., None] - cells).abs()).clamp(min=0)


def interpolate_rows(matrix: Tensor, positions: Tensor) -> Tensor:
    """`interpolation_matrix(positions, S) @ matrix` for a `matrix` [S,k], without building the [..., n, S] matrix."""
    below = positions.floor().clamp(0, len(matrix) - 1)
    above = (below + 1).clamp(max=len(matrix) - 1)
    return torch.lerp(matrix[below.long()], matrix[above.long()], (positions - below)[..., None])


def upsampling_matrix(size_in: int, size_out: int, *, like: Tensor) -> Tensor:
    """The matrix `U [size_out, size_in]` of bilinear resizing along one axis, with `align_corners=False`."""
    length = torch.full((1,), float(size_in), dtype=like.dtype, device=like.device)
    return interpolation_matrix((_centres(length, size_out) - 0.5).clamp(0, size_in - 1), size_in)[0]


def crop_image(image: Image.Image, crop: Crop, index: int = 0) -> Image.Image:
    """T number `index` applied to a Pillow image of the crop's size, antialiased, for loader workers."""
    height, width = crop.image_size
    if image.size != (width, height):
        raise ArgumentError(f"`image` must be {width} x {height}, the crop's size; got {image.width} x {image.height}.")
    left, top = float(crop.left[index]), float(crop.top[index])
    right, bottom = left + float(crop.width[index]), top + float(crop.height[index])
    x, y = math.floor(left), math.floor(top)
    # Pillow cuts at whole pixels; `box` gives the rest of the place, in fractions, to the resize.
    cut = image.crop((x, y, math.ceil(right), math.ceil(bottom)))
    view = cut.resize((width, height), Image.Resampling.BILINEAR, box=(left - x, top - y, right - x, bottom - y))
    return view.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if bool(crop.flip[index]) else view


def _as_tensor(value: object) -> Tensor:
    """Numbers as a tensor on the CPU, whatever the default device is; a tensor stays where it is."""
    return value if isinstance(value, Tensor) else torch.as_tensor(value, device="cpu")


def _centres(length: Tensor, num: int) -> Tensor:
    """The centres `[N,num]` of `num` equal cells over `[0, length]`."""
    return (torch.arange(num, dtype=length.dtype, device=length.device) + 0.5) * (length[:, None] / num)


def _clamped(positions: Tensor, length: Tensor) -> Tensor:
    """Positions, none before the first or after the last pixel centre of a crop `length` pixels long."""
    return positions.clamp(min=0).minimum((length[:, None] - 1).clamp(min=0))


def _mirrored(per_column: Tensor, flip: Tensor) -> Tensor:
    mask = flip.to(per_column.device).reshape(-1, *[1] * (per_column.ndim - 1))
    return torch.where(mask, per_column.flip(1), per_column)


def _random_box(
    height: int, width: int, scale: tuple[float, float], ratio: tuple[float, float], generator: np.random.Generator
) -> tuple[int, int, int, int]:
    for _ in range(10):
        area = height * width * generator.uniform(*scale)
        aspect = math.exp(generator.uniform(math.log(ratio[0]), math.log(ratio[1])))
        h, w = round(math.sqrt(area / aspect)), round(math.sqrt(area * aspect))
        if 0 < h <= height and 0 < w <= width:
            return int(generator.integers(height - h + 1)), int(generator.integers(width - w + 1)), h, w
    aspect = min(max(width / height, ratio[0]), ratio[1])
    h, w = min(height, round(width / aspect)), min(width, round(height * aspect))
    return (height - h) // 2, (width - w) // 2, h, w


def _check_ranges(scale: tuple[float, float], ratio: tuple[float, float], flip: float) -> None:
    if not 0 < scale[0] <= scale[1] <= 1:
        raise ArgumentError(f"`scale` must be (low, high) with 0 < low <= high <= 1, got {scale}.")
    if not 0 < ratio[0] <= ratio[1]:
        raise ArgumentError(f"`ratio` must be (low, high) with 0 < low <= high, got {ratio}.")
    if not 0 <= flip <= 1:
        raise ArgumentError(f"`flip` is a probability between 0 and 1, got {flip}.")
