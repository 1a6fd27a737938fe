"""What a training step sees of each image: plain and transformed, as a pure function of (seed, epoch, index).

The plain view is the evaluation view: shorter side resized, central square. The transform T acts on that square, so its
box and the heatmap of the plain view share one frame (CGC, section 3.1; its code does the same). Changes of colour come
after it and never touch the plain view.

Nothing here has state: order, boxes, flips and colours follow from the seed, so a run resumed in the middle of an
epoch, with any number of workers, sees exactly the batches it would have seen.

Legend: N images, S side of the square in pixels.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch.utils.data import Dataset

from contrex.data.sample import NO_BOXES, ImageSet
from contrex.data.streams import stream
from contrex.data.views.batch import Batch
from contrex.data.views.company import NUM_PARTNERS, Company, OtherClasses
from contrex.data.views.photometric import Look, random_look, recoloured_pixels
from contrex.data.views.squares import central_square, central_square_boxes, pixels
from contrex.data.views.view import View
from contrex.errors import DataError
from contrex.ops import geometry
from contrex.ops.geometry import Crop
from contrex.settings import Augmentation

Position = tuple[int, int]
"""(epoch, index of the image): what the loader is asked for. In streams the epoch is the draw, within a period."""


class TrainingViews(Dataset[Batch]):
    """One image at a position (epoch, index), as a batch of one, with `num_views` sets of views; with `composite`, also
    among images of other classes; with `boxes`, a share, the boxes of that many of the images, always the same."""

    def __init__(
        self,
        images: ImageSet,
        *,
        resize: int,
        size: int,
        augmentation: Augmentation,
        seed: int,
        num_views: int = 1,
        composite: bool = False,
        boxes: float = 0.0,
    ) -> None:
        self.images = images
        self.resize = resize
        self.size = size
        self.augmentation = augmentation
        self.seed = seed
        self.num_views = num_views
        self.makes_pixels = True
        """Whether views are made; otherwise they are crops alone."""
        self.boxes = boxes
        self.others = OtherClasses(np.array([images.label(i) for i in range(len(images))])) if composite else None

    def __getitem__(self, position: Position) -> Batch:
        return self.batch([position])

    def batch(self, positions: Sequence[Position]) -> Batch:
        """The images at several positions, as one batch: what those of each image give when they are joined, but to
        join them takes longer than to make them."""
        images = [self._plain(index) for _, index in positions]
        plain, labels = [square for square, _ in images], [self.images.label(index) for _, index in positions]
        return Batch(
            images=torch.stack([pixels(square) for square in plain]),
            labels=torch.tensor(labels),
            paths=[self.images.path(index) for _, index in positions],
            views=tuple(self._seen(plain, positions, stream_of_view(number)) for number in range(self.num_views)),
            indices=torch.tensor([index for _, index in positions]),
            company=self._company(positions, labels),
            boxes=[self._boxes(index, size) for (_, index), (_, size) in zip(positions, images, strict=True)]
            if self.boxes
            else None,
        )

    def order(self, epoch: int) -> list[int]:
        """The indices of all images, in the order of one epoch."""
        order: list[int] = stream("order", self.seed, epoch).permutation(len(self.images)).tolist()
        return order

    def check_boxes(self) -> None:
        """Refuse images of which none has the boxes that are asked for.

        Raises:
            DataError: that is so.
        """
        if self.boxes and not any(len(self._drawn_boxes(index)) for index in range(len(self.images))):
            raise DataError(
                f"{self.images.name} has no boxes to train on, in a share of {self.boxes:g} of its {len(self.images)} "
                "images: take a data set with boxes, or a larger share."
            )

    def _drawn_boxes(self, index: int) -> NDArray[np.float32]:
        """The boxes of one image in its own pixels; none where it is not one of those that are drawn."""
        is_drawn = self.boxes == 1 or stream("boxes", self.seed, index).random() < self.boxes
        return self.images.annotation(index).boxes if is_drawn else NO_BOXES

    def _boxes(self, index: int, image_size: tuple[int, int]) -> NDArray[np.float32]:
        """The boxes of one image in pixels of its square."""
        return central_square_boxes(self._drawn_boxes(index), image_size, resize=self.resize, size=self.size)

    def _seen(self, plain: Sequence[Image.Image], positions: Sequence[Position], view: int) -> View:
        """Squares after the transforms that the stream `view` has for their positions."""
        draws, period = None, self.augmentation.period
        if period is not None:
            positions = [(epoch % period, index) for epoch, index in positions]
            draws = torch.tensor([draw for draw, _ in positions])
        crop, look = self._crop(positions, view=view), self._look(positions, view=view)
        if not self.makes_pixels:
            return View(None, crop, look, draws, is_seen=False)
        if self.augmentation.where == "device":
            return View(None, crop, look, draws)
        views = torch.stack([pixels(geometry.crop_image(one, crop, number)) for number, one in enumerate(plain)])
        return View(views if look is None else recoloured_pixels(views, look), crop, look, draws)

    def _company(self, positions: Sequence[Position], labels: Sequence[int]) -> Company | None:
        """The partners of each image in its epoch, each with a transform of its own, and its cell among them."""
        if self.others is None:
            return None
        companies = []
        for position, label in zip(positions, labels, strict=True):
            generator = stream("composite", self.seed, *position)
            cell, chosen = generator.integers(1 + NUM_PARTNERS), self.others.draw(label, NUM_PARTNERS, generator)
            squares = [self._plain(int(other))[0] for other in chosen]
            made = [self._seen([square], [position], 2 + number) for number, square in enumerate(squares)]
            images = torch.stack([pixels(square) for square in squares]) if made[0].pixels is None else None
            companies.append(Company(images, View.join(made), torch.tensor([int(cell)])))
        return Company.join(companies)

    def _plain(self, index: int) -> tuple[Image.Image, tuple[int, int]]:
        """The square of an image, and the (H, W) that the image had."""
        image = self.images.image(index)
        return central_square(image, resize=self.resize, size=self.size), (image.height, image.width)

    def _crop(self, positions: Sequence[Position], *, view: int) -> Crop:
        """The transform of each image in its epoch, a pure function of its place."""
        augmentation = self.augmentation
        return geometry.random_crops(
            self.size,
            scale=augmentation.scale,
            ratio=augmentation.ratio,
            flip=augmentation.flip,
            generators=[stream("crop", self.seed, *position, view) for position in positions],
        )

    def _look(self, positions: Sequence[Position], *, view: int) -> Look | None:
        """The change of colour of each image in its epoch, a pure function of its place, with a stream of its own."""
        augmentation = self.augmentation
        if not augmentation.recolours:
            return None
        return Look.stack(
            [
                random_look(
                    1,
                    strengths=augmentation.color_jitter,
                    probability=augmentation.jitter_probability,
                    grayscale=augmentation.grayscale,
                    generator=stream("look", self.seed, *position, view),
                )
                for position in positions
            ]
        )


def stream_of_view(number: int) -> int:
    """Which stream draws view `number`: partners of an image have the streams 2 to 4, a third view the one after."""
    return number if number < 2 else number + NUM_PARTNERS


def num_batches(images: ImageSet, batch_size: int) -> int:
    """The number of complete batches in an epoch."""
    return len(images) // batch_size
