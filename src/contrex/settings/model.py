"""The settings of the network: a classifier by name, its weights, and how its images are normalised."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from contrex.errors import ArgumentError
from contrex.settings.ranges import check_at_least, check_positive

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

Stem = Literal["built-in", "cifar"]
Pooling = Literal["mean", "max", "logsumexp"]
Layout = Literal["plain", "swav", "moco", "dino", "dino-student", "lightning"]


@dataclass(frozen=True)
class Model:
    """A classifier by name, its weights, and how its images are normalised."""

    name: str = "torchvision:resnet18"
    """`torchvision:NAME`, `timm:NAME` or `contrex:convnet`."""
    options: dict[str, str] = field(default_factory=dict)
    """Keyword arguments for the library's builder, such as `pad_type same`."""
    stem: Stem = "built-in"
    """`cifar` gives a ResNet a 3x3 first convolution of stride 1 and no max pooling, for images of 32 x 32."""
    num_classes: int | None = None
    """Number of classes. None is the data set's when training, otherwise that of the weights file."""
    weights: Path | None = None
    """A file with a state_dict (.pth, .pt or .safetensors). None keeps the random initialisation; nothing is
    downloaded."""
    layout: Layout = "plain"
    """Whose training wrote the weights file; what such a checkpoint has beside the encoder is left out. `plain` is a
    file with the network's own names, as torchvision's and timm's."""
    fresh: tuple[str, ...] = ()
    """Modules that keep their random initialisation, even if the weights file has them, such as `layer4 fc`."""
    mean: tuple[float, ...] = IMAGENET_MEAN
    """Mean of each channel of the input, for pixel values in [0, 1]; one value stands for all channels."""
    std: tuple[float, ...] = IMAGENET_STD
    """Standard deviation of each channel of the input; one value stands for all channels."""
    pooling: Pooling = "mean"
    """How the last feature map becomes one vector: max and logsumexp stand in for a global average pooling in front of
    the last linear layer."""
    pooling_temperature: float = 1.0
    """T of logsumexp, T log(mean exp(a / T)): nearly the maximum where it is small, nearly the mean where it is
    large."""

    def __post_init__(self) -> None:
        check_at_least(1, "model", num_classes=self.num_classes)
        check_positive("model", pooling_temperature=self.pooling_temperature)
        if self.pooling_temperature != 1 and self.pooling != "logsumexp":
            raise ArgumentError(
                f"`model.pooling_temperature` {self.pooling_temperature} is that of logsumexp, and `model.pooling` is "
                f"{self.pooling}: leave one of them out."
            )
