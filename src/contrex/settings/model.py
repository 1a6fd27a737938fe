"""The settings of the network: a classifier by name, its weights, and how its images are normalised."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

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

    name: Annotated[str, tyro.conf.arg(aliases=("--model",))] = "torchvision:resnet18"
    """`torchvision:NAME`, `timm:NAME`, `hf:NAME` (a network of transformers), `open_clip:NAME` (with
    `classes` in words) or `contrex:convnet`."""
    options: dict[str, str] = field(default_factory=dict)
    """Keyword arguments for the library's builder, such as `pad_type same`."""
    stem: Stem = "built-in"
    """`cifar` gives a ResNet a 3x3 first convolution of stride 1 and no max pooling, for images of 32 x 32."""
    num_classes: int | None = None
    """Number of classes. None is the data set's when training, otherwise that of the weights file."""
    weights: Path | None = None
    """A file with a state_dict (.pth, .pt or .safetensors). None keeps the random initialisation, without
    `pretrained`."""
    layout: Layout = "plain"
    """Whose training wrote the weights file; what such a checkpoint has beside the encoder is left out. `plain` is a
    file with the network's own names, as torchvision's and timm's."""
    fresh: tuple[str, ...] = ()
    """Modules that keep their random initialisation, even if the weights file has them, such as `layer4 fc`."""
    mean: tuple[float, ...] | None = None
    """Mean of each channel of the input, for pixel values in [0, 1]; one value stands for all channels. None is what
    the library says of its weights with `pretrained`, otherwise ImageNet's."""
    std: tuple[float, ...] | None = None
    """Standard deviation of each channel of the input; one value stands for all channels. None is as for the mean."""
    pooling: Pooling = "mean"
    """How the last feature map becomes one vector: max and logsumexp stand in for a global average pooling in front of
    the last linear layer."""
    pooling_temperature: float = 1.0
    """T of logsumexp, T log(mean exp(a / T)): nearly the maximum where it is small, nearly the mean where it is
    large."""
    pretrained: Annotated[bool, tyro.conf.arg(aliases=("--pretrained",))] = False
    """Take the library's own weights, with their mean, std, size and class names. The library downloads them if its
    cache does not have them. With `weights` they are in that file, and nothing is downloaded."""

    classes: tuple[str, ...] = ()
    """The names of its classes, in their order. A network that compares pictures with texts (`open_clip:NAME`) has one
    class for each text: "a photo of a tabby"."""

    def __post_init__(self) -> None:
        check_at_least(1, "model", num_classes=self.num_classes)
        check_positive("model", pooling_temperature=self.pooling_temperature)
        if self.pooling_temperature != 1 and self.pooling != "logsumexp":
            raise ArgumentError(
                f"`model.pooling_temperature` {self.pooling_temperature} is that of logsumexp, and `model.pooling` is "
                f"{self.pooling}: leave one of them out."
            )
        for name, usual in (("mean", IMAGENET_MEAN), ("std", IMAGENET_STD)):
            if not self.pretrained and getattr(self, name) == usual:
                object.__setattr__(self, name, None)  # one way to say it, so that equal settings are equal

    def written(self) -> Mapping[str, Any]:
        """The fields as records have them since the first: mean and std in numbers where they are known, and no word of
        what came later and is not used."""
        kept = {name: value for name, value in vars(self).items() if value or name not in ("pretrained", "classes")}
        if self.pretrained:
            return kept
        return {**kept, "mean": self.mean or IMAGENET_MEAN, "std": self.std or IMAGENET_STD}

    @property
    def is_untrained(self) -> bool:
        """Whether its weights are random."""
        return self.weights is None and not self.pretrained
