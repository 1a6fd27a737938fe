"""What an evaluation looks at: each image decoded once, as a square, as a whole, and as a picture for the report."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

from contrex.data.sample import ImageSet
from contrex.data.views import central_square, pixels, short_side

PICTURE_SIDE = 256
"""Longest side of a gallery picture in pixels."""


@dataclass(frozen=True, eq=False)
class Views:
    """One image: uint8 `square` [3,S,S], `whole` [3,H',W'] and `picture` [H'',W'',3] or None where nobody asked.

    `boxes` are in pixels of the stored image, whose size is `image_size` = (H, W).
    """

    index: int
    square: Tensor
    whole: Tensor | None
    picture: NDArray[np.uint8] | None
    boxes: NDArray[np.float32]
    image_size: tuple[int, int]
    label: int
    path: str

    def picture_boxes(self) -> NDArray[np.float32]:
        """The boxes in pixels of the picture."""
        height, width = self.image_size
        shown_height, shown_width = np.asarray(self.picture).shape[:2]
        factors = np.asarray([shown_width / width, shown_height / height] * 2, np.float32)
        return (self.boxes * factors).astype(np.float32)


class EvaluationViews(Dataset[Views]):
    """The views of each image. `sizes` are those of the square; `whole_side` is the shorter side of the whole image,
    None the square's side. Whole images are made for all when `needs_whole`, else for the `gallery`'s indices only.
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
        self.whole_side = whole_side or self.size
        self.needs_whole = needs_whole
        self.gallery = frozenset(gallery)

    def __getitem__(self, index: int) -> Views:
        sample = self.images[index]
        shown = index in self.gallery
        wants_whole = self.needs_whole or shown
        return Views(
            index=index,
            square=pixels(central_square(sample.image, resize=self.resize, size=self.size)),
            whole=pixels(short_side(sample.image, self.whole_side)) if wants_whole else None,
            picture=np.asarray(_thumbnail(sample.image)) if shown else None,
            boxes=sample.boxes,
            image_size=(sample.image.height, sample.image.width),
            label=sample.label,
            path=sample.path,
        )


def _thumbnail(image: Image.Image) -> Image.Image:
    small = image.copy()
    small.thumbnail((PICTURE_SIDE, PICTURE_SIDE))
    return small
