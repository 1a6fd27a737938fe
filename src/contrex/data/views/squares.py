"""The plain view of an image: shorter side resized, central square cut out, with its boxes and its mask."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from contrex.ops import geometry
from contrex.settings import Data


def view_sizes(data: Data) -> tuple[int, int]:
    """(length of the shorter side after resizing, side of the central square) of the plain view."""
    return data.short_side, data.image_size


def central_square(
    image: Image.Image, *, resize: int, size: int, how: Image.Resampling = Image.Resampling.BILINEAR
) -> Image.Image:
    """The plain view: shorter side resized to `resize` (antialiased), then the central `size` x `size` square."""
    image = short_side(image, resize, how)
    left, top = (image.width - size) // 2, (image.height - size) // 2
    if (image.width, image.height) == (size, size):
        return image
    return image.crop((left, top, left + size, top + size))


def central_square_boxes(
    boxes: NDArray[np.float32], image_size: tuple[int, int], *, resize: int, size: int
) -> NDArray[np.float32]:
    """Boxes of an image of `image_size` = (H, W) in pixels of its central square; what it cuts off is cut off."""
    shorter = min(image_size)
    # Rounded as `central_square` rounds, so that boxes stay on the pixels that they were on.
    height, width = (max(round(side * resize / shorter), 1) for side in image_size)
    scale = (height / image_size[0], width / image_size[1])
    origin = ((height - size) // 2 / scale[0], (width - size) // 2 / scale[1])
    return geometry.place_boxes(boxes, scale=scale, origin=origin, size=(size, size))


def central_square_mask(mask: NDArray[np.bool_], *, resize: int, size: int) -> NDArray[np.bool_]:
    """A mask [H,W] of an image as its central square [size,size] has it; a pixel belongs to the object where at least
    half of it does."""
    square = central_square(Image.fromarray(mask.astype(np.uint8) * 255), resize=resize, size=size)
    return np.asarray(square) >= 128


def short_side(image: Image.Image, length: int, how: Image.Resampling = Image.Resampling.BILINEAR) -> Image.Image:
    """The whole image with its shorter side resized to `length`, antialiased."""
    shorter = min(image.size)
    if shorter == length:
        return image
    width, height = (max(round(side * length / shorter), 1) for side in image.size)
    return image.resize((width, height), how)


def pixels(image: Image.Image) -> Tensor:
    """An RGB image as uint8 `[3,H,W]`."""
    return torch.from_numpy(np.array(image)).permute(2, 0, 1)
