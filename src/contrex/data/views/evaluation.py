"""What an evaluation looks at: each image decoded once, as a square, as a whole, and as a picture for the report."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

from contrex.data.sample import ImageSet, Sample
from contrex.data.views.training import central_square, central_square_boxes, central_square_mask, pixels, short_side

PICTURE_SIDE = 256
"""Longest side of a gallery picture in pixels."""


@dataclass(frozen=True, eq=False)
class Views:
    """One image: uint8 `square` [3,S,S], `whole` [3,H',W'] and `picture` [H'',W'',3] or None where nobody asked.

    `boxes` and the boolean `mask` [H,W] (or None) are in pixels of a frame of `image_size` = (H, W): the stored image,
    or the square where that is taken for the whole. `also` are further classes that are right.
    """

    index: int
    square: Tensor
    whole: Tensor | None
    picture: NDArray[np.uint8] | None
    boxes: NDArray[np.float32]
    image_size: tuple[int, int]
    label: int
    path: str
    mask: NDArray[np.bool_] | None = None
    also: tuple[int, ...] = ()

    def picture_boxes(self) -> NDArray[np.float32]:
        """The boxes in pixels of the picture."""
        height, width = self.image_size
        shown_height, shown_width = np.asarray(self.picture).shape[:2]
        factors = np.asarray([shown_width / width, shown_height / height] * 2, np.float32)
        return (self.boxes * factors).astype(np.float32)


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
        sample = self.images[index]
        shown = index in self.gallery
        square = central_square(sample.image, resize=self.resize, size=self.size)
        whole, frame, boxes, mask = None, sample.image, sample.boxes, None
        if self.needs_whole or shown:
            whole, frame, boxes, mask = self._whole(sample, square)
        return Views(
            index=index,
            square=pixels(square),
            whole=None if whole is None else pixels(whole),
            picture=np.asarray(_thumbnail(frame)) if shown else None,
            boxes=boxes,
            image_size=(frame.height, frame.width),
            label=sample.label,
            path=sample.path,
            mask=mask,
            also=tuple(sample.also),
        )

    def _whole(
        self, sample: Sample, square: Image.Image
    ) -> tuple[Image.Image, Image.Image, NDArray[np.float32], NDArray[np.bool_] | None]:
        """What the network sees as the whole, the frame it stands for, and boxes and mask in that frame."""
        if self.whole_side is not None:
            return short_side(sample.image, self.whole_side), sample.image, sample.boxes, sample.mask
        stored, sizes = (sample.image.height, sample.image.width), {"resize": self.resize, "size": self.size}
        mask = None if sample.mask is None else central_square_mask(sample.mask, **sizes)
        return square, square, central_square_boxes(sample.boxes, stored, **sizes), mask


def _thumbnail(image: Image.Image) -> Image.Image:
    small = image.copy()
    small.thumbnail((PICTURE_SIDE, PICTURE_SIDE))
    return small
