"""What an evaluation looks at: each image decoded once, as a square, as a whole, and as a picture for the report.

An annotation is read only for an image whose whole is looked at, or which the report shows.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

from contrex.data.sample import Annotation, ImageSet
from contrex.data.views.squares import central_square, central_square_boxes, central_square_mask, pixels, short_side

PICTURE_SIDE = 256
"""Longest side of a gallery picture in pixels."""


@dataclass(frozen=True, eq=False)
class Whole:
    """A whole image, uint8 `pixels` [3,H',W'], and where its object is.

    `boxes` [M,4] and the boolean `mask` [H,W] (or None) are in pixels of a frame of `image_size` = (H, W): the stored
    image, or the square where that is taken for the whole.
    """

    pixels: Tensor
    boxes: NDArray[np.float32]
    image_size: tuple[int, int]
    mask: NDArray[np.bool_] | None = None


@dataclass(frozen=True, eq=False)
class Picture:
    """What a report shows of an image: uint8 `pixels` [H,W,3], and `boxes` [M,4] in pixels of these."""

    pixels: NDArray[np.uint8]
    boxes: NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Views:
    """One image as it is judged: uint8 `square` [3,S,S], and `whole` where somebody asks for it; `also` are further
    classes that are right. `picture` is all that is kept of it when it has been judged, None for most images."""

    index: int
    square: Tensor
    whole: Whole | None
    label: int
    path: str
    also: tuple[int, ...] = ()
    picture: Picture | None = None


class EvaluationViews(Dataset[Views]):
    """The views of each image. `sizes` are those of the square; `whole_side` is the shorter side of the whole image,
    None takes the square for the whole. Whole images are made for all when `needs_whole`, else for the `gallery` only.
    """

    def __init__(
        self,
        images: ImageSet,
        sizes: tuple[int, int],
        *,
        whole_side: int | None,
        needs_whole: bool,
        gallery: Collection[int],
    ) -> None:
        self.images = images
        self.resize, self.size = sizes
        self.whole_side = whole_side
        self.needs_whole = needs_whole
        self.gallery = frozenset(gallery)

    def __getitem__(self, index: int) -> Views:
        images, is_shown = self.images, index in self.gallery
        image = images.image(index)
        square = central_square(image, resize=self.resize, size=self.size)
        whole = picture = None
        if self.needs_whole or is_shown:
            frame = image if self.whole_side is not None else square
            whole = self._whole(image, square, images.annotation(index))
            picture = _picture(frame, whole) if is_shown else None
        return Views(
            index=index,
            square=pixels(square),
            whole=whole,
            label=images.label(index),
            path=images.path(index),
            also=tuple(images.also(index)),
            picture=picture,
        )

    def _whole(self, image: Image.Image, square: Image.Image, known: Annotation) -> Whole:
        """The whole image as the network sees it, with boxes and mask in the frame that it stands for."""
        stored = (image.height, image.width)
        if self.whole_side is not None:
            return Whole(pixels(short_side(image, self.whole_side)), known.boxes, stored, known.mask)
        sizes = {"resize": self.resize, "size": self.size}
        mask = None if known.mask is None else central_square_mask(known.mask, **sizes)
        boxes = central_square_boxes(known.boxes, stored, **sizes)
        return Whole(pixels(square), boxes, (square.height, square.width), mask)


def _picture(frame: Image.Image, whole: Whole) -> Picture:
    """The frame, made small, with the boxes on it."""
    # `thumbnail` works in place, and the frame may be the square that is judged.
    small = frame.copy()
    small.thumbnail((PICTURE_SIDE, PICTURE_SIDE))
    height, width = whole.image_size
    factors = np.asarray([small.width / width, small.height / height] * 2, np.float32)
    return Picture(np.asarray(small), (whole.boxes * factors).astype(np.float32))
