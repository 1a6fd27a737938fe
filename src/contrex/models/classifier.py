"""A network with what is needed to show it a picture: normalisation, size, names of classes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from contrex.errors import ArgumentError


class Normalisation(nn.Module):
    """Pixel values as a network expects them: `(x - mean) / std`, channel by channel.

    Mean and std are buffers: they are on the device already when images come, which a new tensor for each batch would
    wait for. No state dict has them.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        for name, values in (("mean", mean), ("std", std)):
            channels = torch.tensor(values, dtype=torch.float32, device="cpu").view(3, 1, 1)
            self.register_buffer(name, channels, persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        """Normalise images `[N,3,H,W]`, uint8 or in [0, 1]."""
        scaled = images.float() / 255 if images.dtype == torch.uint8 else images
        return (scaled - self.mean) / self.std

    def inverse(self, images: Tensor) -> Tensor:
        """The pixel values in [0, 1] of normalised images `[N,3,H,W]`."""
        return images * self.std + self.mean

    def on(self, device: torch.device) -> Normalisation:
        """Move the numbers to `device`, and return them."""
        if self.mean.device != device:
            with torch.inference_mode(False):  # gradients may be asked for later, which tensors made in it do not have
                self.to(device)
        return self


@dataclass(frozen=True, eq=False)
class Classifier:
    """A network with the normalisation of its input; `normalise` takes pixel values in [0, 1], `denormalise` gives
    them back."""

    network: nn.Module
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    left_out: tuple[str, ...] = ()
    """Modules in the weights file that its layout has beside the encoder, and that were not loaded."""
    image_size: int | None = None
    """The side of the central square that it was made for, in pixels; None where nobody said."""
    short_side: int | None = None
    """The shorter side of an image that the square is cut out of; None is the square's."""
    interpolation: str = "bilinear"
    """How images are resized to it, by Pillow's name."""
    names: tuple[str, ...] = ()
    """The names of its classes; none where nobody said."""
    _normalisation: Normalisation = field(init=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_normalisation", Normalisation(self.mean, self.std))

    def normalise(self, images: Tensor) -> Tensor:
        """Normalise images `[N,3,H,W]`, uint8 or in [0, 1], as the network expects them."""
        normalised: Tensor = self._normalisation.on(images.device)(images)
        return normalised

    def denormalise(self, images: Tensor) -> Tensor:
        """The pixel values in [0, 1] of normalised images `[N,3,H,W]`."""
        return self._normalisation.on(images.device).inverse(images)


def network_of(model: object) -> nn.Module:
    """The network itself: that of a `Classifier`, or what is one.

    Raises:
        ArgumentError: it is none.
    """
    network = model.network if isinstance(model, Classifier) else model
    if not isinstance(network, nn.Module):
        raise ArgumentError(f"`model` must be a torch.nn.Module or a Classifier, got {type(network).__name__}.")
    return network


def channels(values: Sequence[float], name: str) -> tuple[float, float, float]:
    """The mean or std of each of three channels, which may be one number for all; `name` is the argument's.

    Raises:
        ArgumentError: there is another number of them, a std is not positive, or they are of pixels from 0 to 255.
    """
    values = tuple(values)
    if len(values) not in (1, 3) or (name.endswith("std") and min(values) <= 0):
        raise ArgumentError(f"`{name}` must be one value or three, one per channel (std > 0), got {values}.")
    if not all(0 <= value <= 1 for value in values):
        raise ArgumentError(
            f"`{name}` {values} is not that of pixel values in [0, 1]: divide by 255 what is of 0 to 255."
        )
    first, second, third = values * 3 if len(values) == 1 else values
    return first, second, third
