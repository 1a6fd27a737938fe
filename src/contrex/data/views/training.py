"""Training batches: each image plain and transformed, as a pure function of (seed, epoch, index).

The plain view is the evaluation view: shorter side resized, central square. The transform T acts on that square, so its
box and the heatmap of the plain view share one frame (CGC, section 3.1; its code does the same). Changes of colour come
after it and never touch the plain view.

Nothing here has state: order, boxes, flips and colours follow from the seed, so a run resumed in the middle of an
epoch, with any number of workers, sees exactly the batches it would have seen.

Legend: N images, S side of the square in pixels.
"""

from __future__ import annotations

import itertools
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

from contrex.data.sample import ImageSet, Sample
from contrex.data.views.composites import NUM_CELLS, NUM_PARTNERS, OtherClasses, Partners, composites
from contrex.data.views.photometric import Look, random_look, recoloured, recoloured_pixels
from contrex.ops import geometry
from contrex.ops.geometry import Crop
from contrex.settings import Augmentation, Data

Position = tuple[int, int]
"""(epoch, index of the image): what the loader is asked for."""


@dataclass(frozen=True, eq=False)
class View:
    """A further set of transformed images of a batch: `crop`, then `look`, applied to its plain ones; `pixels` as the
    `views` of a `Batch`, None until they are made on the device."""

    pixels: Tensor | None
    crop: Crop
    look: Look | None = None

    def pin_memory(self) -> View:
        """With its pixels in page-locked memory."""
        return self if self.pixels is None else replace(self, pixels=self.pixels.pin_memory())


@dataclass(frozen=True, eq=False)
class Batch:
    """N labelled images with their views.

    `images`, `views` [N,3,S,S] are uint8 until `to` has put them on the device; views are `crop`, then `look` (None
    changes no colours) applied to images. `extra` are further, independent sets of views for methods that want some.
    `indices` int64 [N] are the images' places in their `ImageSet`, or None where they have none. Crops and looks stay
    on the CPU.

    For methods that want them, `partners` are three images of other classes for each image, and `cells` int64 [N] say
    where its view is among them; `to` makes the `composites` [N,3,2S,2S] of both. `unlabelled` are the images without
    labels (-1) beside them, any number, where there are some (`contrex.data.readers.unlabelled`).
    """

    images: Tensor
    views: Tensor | None
    crop: Crop
    labels: Tensor
    paths: Sequence[str]
    look: Look | None = None
    extra: Sequence[View] = ()
    indices: Tensor | None = None
    partners: Partners | None = None
    cells: Tensor | None = None
    composites: Tensor | None = None
    unlabelled: Batch | None = None

    def __len__(self) -> int:
        return len(self.labels)

    def pin_memory(self) -> Batch:
        """The batch in page-locked memory, for the loader's `pin_memory`; crops and looks stay where they are."""
        names = ("images", "views", "labels", "indices", "partners", "cells", "unlabelled")
        pinned = {name: value.pin_memory() for name in names if (value := getattr(self, name)) is not None}
        return replace(self, **pinned, extra=[view.pin_memory() for view in self.extra])

    def to(self, device: torch.device, *, channels_last: bool = False) -> Batch:
        """The batch on `device`, pixel values in [0, 1], views made on the device where the loader has not."""
        images = _as_float(self.images, device, channels_last)

        def made(views: Tensor | None, crop: Crop, look: Look | None) -> Tensor:
            return _made(images, crop, look) if views is None else _as_float(views, device, channels_last)

        views = made(self.views, self.crop, self.look)
        moved = replace(
            self,
            images=images,
            views=views,
            extra=[replace(one, pixels=made(one.pixels, one.crop, one.look)) for one in self.extra],
            labels=self.labels.to(device, non_blocking=True),
            indices=None if self.indices is None else self.indices.to(device, non_blocking=True),
            unlabelled=None if self.unlabelled is None else self.unlabelled.to(device, channels_last=channels_last),
        )
        if self.partners is None or self.cells is None:
            return moved
        cells = self.cells.to(device, non_blocking=True)
        made_of = composites(views, _partners(self.partners, device, channels_last), cells)
        layout = torch.channels_last if channels_last else torch.contiguous_format
        return replace(moved, partners=None, cells=cells, composites=made_of.contiguous(memory_format=layout))


class TrainingViews(Dataset[Batch]):
    """One image at a position (epoch, index), as a batch of one, with `extra` further sets of views; with `composite`,
    beside images of other classes."""

    def __init__(
        self,
        images: ImageSet,
        *,
        resize: int,
        size: int,
        augmentation: Augmentation,
        seed: int,
        extra: int,
        composite: bool = False,
    ) -> None:
        self.images = images
        self.resize = resize
        self.size = size
        self.augmentation = augmentation
        self.seed = seed
        self.extra = extra
        self.others = OtherClasses(np.array([images.label(i) for i in range(len(images))])) if composite else None

    def __getitem__(self, position: Position) -> Batch:
        epoch, index = position
        sample = self.images[index]
        plain = self._plain(sample)
        first, *extra = (self._transformed(plain, epoch, index, number) for number in range(1 + self.extra))
        return Batch(
            images=pixels(plain)[None],
            views=first.pixels,
            crop=first.crop,
            labels=torch.tensor([sample.label]),
            paths=[sample.path],
            look=first.look,
            extra=extra,
            indices=torch.tensor([index]),
            **({} if self.others is None else self._company(epoch, index, sample.label, self.others)),
        )

    def order(self, epoch: int) -> list[int]:
        """All images, in the order of one epoch."""
        order: list[int] = stream("order", self.seed, epoch).permutation(len(self.images)).tolist()
        return order

    def _transformed(self, plain: Image.Image, epoch: int, index: int, number: int) -> View:
        """View `number` of one image in one epoch. Its partners have the streams 2 to 4, a third view the one after."""
        stream_of = number if number < 2 else number + NUM_PARTNERS
        crop, look = self._crop(epoch, index, view=stream_of), self._look(epoch, index, view=stream_of)
        return View(self._view(plain, crop, look), crop, look)

    def _company(self, epoch: int, index: int, label: int, others: OtherClasses) -> dict[str, Any]:
        """The cell of one image in one epoch and its partners, each with a transform of its own."""
        generator = stream("composite", self.seed, epoch, index)
        cell, chosen = generator.integers(NUM_CELLS), others.draw(label, NUM_PARTNERS, generator)
        squares = [self._plain(self.images[int(other)]) for other in chosen]
        crops = [self._crop(epoch, index, view=2 + number) for number in range(NUM_PARTNERS)]
        looks = [self._look(epoch, index, view=2 + number) for number in range(NUM_PARTNERS)]
        made = [self._view(*one) for one in zip(squares, crops, looks, strict=True)]
        if (views := _cat(made)) is not None:
            partners = Partners(views)
        else:
            some = [look for look in looks if look is not None]
            stacked = torch.stack([pixels(square) for square in squares])
            partners = Partners(stacked, Crop.stack(crops), Look.stack(some) if some else None)
        return {"partners": partners, "cells": torch.tensor([int(cell)])}

    def _plain(self, sample: Sample) -> Image.Image:
        return central_square(sample.image, resize=self.resize, size=self.size)

    def _crop(self, epoch: int, index: int, *, view: int) -> Crop:
        """The transform of one image in one epoch, a pure function of its place."""
        augmentation, generator = self.augmentation, stream("crop", self.seed, epoch, index, view)
        return geometry.random_crop(
            1,
            self.size,
            scale=augmentation.scale,
            ratio=augmentation.ratio,
            flip=augmentation.flip,
            generator=generator,
        )

    def _look(self, epoch: int, index: int, *, view: int) -> Look | None:
        """The change of colour of one image in one epoch, a pure function of its place, with a stream of its own."""
        augmentation = self.augmentation
        if not augmentation.recolours:
            return None
        return random_look(
            1,
            strengths=augmentation.color_jitter,
            probability=augmentation.jitter_probability,
            grayscale=augmentation.grayscale,
            generator=stream("look", self.seed, epoch, index, view),
        )

    def _view(self, plain: Image.Image, crop: Crop, look: Look | None) -> Tensor | None:
        if self.augmentation.where == "device":
            return None
        view = pixels(geometry.crop_image(plain, crop))[None]
        return view if look is None else recoloured_pixels(view, look)


def num_batches(images: ImageSet, batch_size: int) -> int:
    """Complete batches in an epoch."""
    return len(images) // batch_size


def join(batches: list[Batch]) -> Batch:
    """One batch of several."""
    views = _join_views([View(batch.views, batch.crop, batch.look) for batch in batches])
    partners = [batch.partners for batch in batches if batch.partners is not None]
    return Batch(
        images=torch.cat([batch.images for batch in batches]),
        views=views.pixels,
        crop=views.crop,
        labels=torch.cat([batch.labels for batch in batches]),
        paths=list(itertools.chain.from_iterable(batch.paths for batch in batches)),
        look=views.look,
        extra=[_join_views(same) for same in zip(*(batch.extra for batch in batches), strict=True)],
        indices=_cat([batch.indices for batch in batches]),
        partners=Partners.join(partners) if partners else None,
        cells=_cat([batch.cells for batch in batches]),
    )


def _join_views(views: Sequence[View]) -> View:
    looks = [view.look for view in views if view.look is not None]
    crop = Crop.stack([view.crop for view in views])
    return View(_cat([view.pixels for view in views]), crop, Look.stack(looks) if looks else None)


def central_square(image: Image.Image, *, resize: int, size: int) -> Image.Image:
    """The plain view: shorter side resized to `resize` (antialiased), then the central `size` x `size` square."""
    image = short_side(image, resize)
    left, top = (image.width - size) // 2, (image.height - size) // 2
    if (image.width, image.height) == (size, size):
        return image
    return image.crop((left, top, left + size, top + size))


def central_square_boxes(
    boxes: NDArray[np.float32], image_size: tuple[int, int], *, resize: int, size: int
) -> NDArray[np.float32]:
    """Boxes of an image of `image_size` = (H, W) in pixels of its central square; what it cuts off is cut off."""
    shorter = min(image_size)
    height, width = (max(round(side * resize / shorter), 1) for side in image_size)
    scale = (height / image_size[0], width / image_size[1])
    origin = ((height - size) // 2 / scale[0], (width - size) // 2 / scale[1])
    return geometry.place_boxes(boxes, scale=scale, origin=origin, size=(size, size))


def central_square_mask(mask: NDArray[np.bool_], *, resize: int, size: int) -> NDArray[np.bool_]:
    """A mask [H,W] of an image as its central square [size,size] has it; a pixel belongs to the object where at least
    half of it does."""
    square = central_square(Image.fromarray(mask.astype(np.uint8) * 255), resize=resize, size=size)
    return np.asarray(square) >= 128


def short_side(image: Image.Image, length: int) -> Image.Image:
    """The whole image with its shorter side resized to `length`, antialiased."""
    shorter = min(image.size)
    if shorter == length:
        return image
    width, height = (max(round(side * length / shorter), 1) for side in image.size)
    return image.resize((width, height), Image.Resampling.BILINEAR)


def view_sizes(data: Data) -> tuple[int, int]:
    """(length of the shorter side after resizing, side of the central square) of the plain view."""
    return getattr(data, "resize", data.image_size), data.image_size


def pixels(image: Image.Image) -> Tensor:
    """An RGB image as uint8 `[3,H,W]`."""
    return torch.from_numpy(np.array(image)).permute(2, 0, 1)


def stream(purpose: str, *place: int) -> np.random.Generator:
    """A random generator that depends on nothing but its purpose and its place, e.g. (seed, epoch, index).

    The number of coordinates counts too: numpy's seeding alone takes (1, 0) and (1,) for the same place.
    """
    return np.random.Generator(np.random.PCG64((zlib.crc32(purpose.encode()), len(place), *place)))


def _as_float(images: Tensor, device: torch.device, channels_last: bool) -> Tensor:
    layout = torch.channels_last if channels_last else torch.contiguous_format
    return (images.to(device, non_blocking=True).float() / 255).contiguous(memory_format=layout)


def _made(images: Tensor, crop: Crop, look: Look | None) -> Tensor:
    layout = torch.channels_last if images.is_contiguous(memory_format=torch.channels_last) else torch.contiguous_format
    views = geometry.warp_images(images, crop)
    return (views if look is None else recoloured(views, look)).contiguous(memory_format=layout)


def _partners(partners: Partners, device: torch.device, channels_last: bool) -> Tensor:
    images = _as_float(partners.images, device, channels_last)
    return images if partners.crop is None else _made(images, partners.crop, partners.look)


def _cat(tensors: list[Tensor | None]) -> Tensor | None:
    present = [tensor for tensor in tensors if tensor is not None]
    return torch.cat(present) if present else None
