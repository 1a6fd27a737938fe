"""Changes of colour, drawn once and applied to views: SimCLR's colour jitter and random greyscale.

The distribution is that of torchvision's `RandomApply([ColorJitter(b, c, s, h)], p)` followed by `RandomGrayscale`:
with probability p all four operations in a random order, each with a factor uniform in [max(0, 1 - strength),
1 + strength] (the hue's in [-h, h] of the circle); independently of that, all three channels become the luminance.

The operations are torchvision's own, on floating-point images: Pillow's and the uint8 ones round after each operation.

Chen et al., "A Simple Framework for Contrastive Learning of Visual Representations", 2020, appendix A.

Legend: N samples, H W image in pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np
import torch
from torch import Tensor

from contrex.errors import ArgumentError

OPERATIONS = ("brightness", "contrast", "saturation", "hue")
NEUTRAL = (1.0, 1.0, 1.0, 0.0)
"""The factor with which each operation changes nothing."""


@dataclass(frozen=True, eq=False)
class Look:
    """N changes of colour: `factors` float64 [N,4] of `OPERATIONS`, `order` int64 [N,4] in which those are applied,
    `grey` boolean [N]. A factor that is neutral is no operation."""

    factors: Tensor
    order: Tensor
    grey: Tensor

    def __len__(self) -> int:
        return len(self.grey)

    def __getitem__(self, some: slice) -> Look:
        """Some of the changes."""
        return Look(self.factors[some], self.order[some], self.grey[some])

    @staticmethod
    def stack(looks: Sequence[Look]) -> Look:
        """Join several changes of colour to one batch."""
        return Look(*(torch.cat([getattr(look, field.name) for look in looks]) for field in fields(Look)))


def random_look(
    num_samples: int,
    *,
    strengths: Sequence[float],
    probability: float,
    grayscale: float,
    generator: np.random.Generator,
) -> Look:
    """Draw N independent changes of colour.

    `strengths` are those of brightness, contrast, saturation and hue, `probability` that of jittering at all,
    `grayscale` that of a grey view. The draws of one do not depend on the values of the others.

    >>> look = random_look(1, strengths=(0, 0, 0, 0.1), probability=1, grayscale=1, generator=np.random.default_rng(0))
    >>> look.factors[0, :3].tolist(), bool(look.factors[0, 3].abs() <= 0.1), look.grey.tolist()
    ([1.0, 1.0, 1.0], True, [True])
    """
    low, high = np.array([_bounds(*pair) for pair in zip(OPERATIONS, strengths, strict=True)]).T
    # Everything is drawn, also what is not used: so no setting of one operation changes the draws of another.
    order = generator.permuted(np.tile(np.arange(4), (num_samples, 1)), axis=1)
    factors = low + (high - low) * generator.random((num_samples, 4))
    jittered = generator.random((num_samples, 1)) < probability
    grey = generator.random(num_samples) < grayscale
    return Look(*map(torch.from_numpy, (np.where(jittered, factors, NEUTRAL), order, grey)))


def recoloured(images: Tensor, look: Look) -> Tensor:
    """Images `[N,3,H,W]`, pixel values in [0, 1], each after its change of colour; same shape, dtype and range.

    One image at a time, by `torchvision.transforms.v2.functional`; an image whose look is neutral is not touched.
    """
    if not images.is_floating_point() or images.ndim != 4 or len(images) != len(look):
        raise ArgumentError(
            f"`images` must be {len(look)} floating-point pictures [N,3,H,W], one per look; got {images.dtype} "
            f"{list(images.shape)}."
        )
    changes = zip(look.factors.tolist(), look.order.tolist(), look.grey.tolist(), strict=True)
    return torch.stack([_changed(image, *change) for image, change in zip(images, changes, strict=True)])


def recoloured_pixels(images: Tensor, look: Look) -> Tensor:
    """uint8 images, each after its change of colour, rounded once at the end."""
    return (recoloured(images.float() / 255, look) * 255).round().to(torch.uint8)


def _changed(image: Tensor, factors: Sequence[float], order: Sequence[int], grey: bool) -> Tensor:
    from torchvision.transforms.v2 import functional  # loads slowly, and only here is it needed

    for operation in order:
        if factors[operation] != NEUTRAL[operation]:
            image = getattr(functional, f"adjust_{OPERATIONS[operation]}")(image, factors[operation])
    return functional.rgb_to_grayscale(image, num_output_channels=3) if grey else image


def _bounds(operation: str, strength: float) -> tuple[float, float]:
    """The smallest and the largest factor of an operation."""
    return (-strength, strength) if operation == "hue" else (max(0.0, 1 - strength), 1 + strength)
