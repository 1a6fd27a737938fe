"""A set of transformed images, and how it was transformed.

Legend: N images, S side of the square in pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from contrex.data.views.photometric import Look
from contrex.data.views.pixels import as_float, concatenated, transformed
from contrex.errors import ArgumentError
from contrex.ops.geometry import Crop


@dataclass(frozen=True, eq=False)
class View:
    """A set of transformed images: `crop`, then `look` (None changes no colours), applied to N plain ones.

    `pixels` [N,3,S,S] are uint8 until the batch is on the device; None until they are made there, or where nobody looks
    at them (`is_seen`). `draws` int64 [N] say which views of their images they are, where the same ones come again
    (`Augmentation.period`).
    """

    pixels: Tensor | None
    crop: Crop
    look: Look | None = None
    draws: Tensor | None = None
    is_seen: bool = True

    @staticmethod
    def join(parts: Sequence[View]) -> View:
        """Join several sets of views to one."""
        looks = [part.look for part in parts if part.look is not None]
        crop = Crop.stack([part.crop for part in parts])
        look = Look.stack(looks) if looks else None
        pixels, draws = (concatenated([getattr(part, name) for part in parts]) for name in ("pixels", "draws"))
        return View(pixels, crop, look, draws, parts[0].is_seen)

    def made(self) -> Tensor:
        """The pixels of a view that is on its device.

        Raises:
            ArgumentError: it is not there yet, or never.
        """
        if not self.is_seen:
            raise ArgumentError("`batch` has no views but their crops: say that the step's `wants` have pixels.")
        if self.pixels is None:
            raise ArgumentError("`batch` has no views yet: call `batch.to(device)` first.")
        return self.pixels

    def pin_memory(self) -> View:
        """The view with its pixels in page-locked memory."""
        return self if self.pixels is None else replace(self, pixels=self.pixels.pin_memory())

    def to(self, device: torch.device, images: Tensor | None, *, channels_last: bool) -> View:
        """The view on `device`, made there of the plain `images` where the loader has not made it."""
        if self.pixels is not None:
            return replace(self, pixels=as_float(self.pixels, device, channels_last))
        if images is None or not self.is_seen:
            return self
        return replace(self, pixels=transformed(images, self.crop, self.look))

    def part(self, some: slice) -> View:
        """The view of some of its images."""
        return View(
            None if self.pixels is None else self.pixels[some],
            self.crop[some],
            None if self.look is None else self.look[some],
            None if self.draws is None else self.draws[some],
            self.is_seen,
        )
