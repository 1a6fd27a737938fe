"""Classifiers by name: torchvision, timm and the built-in network, with weights from a file, never from the web."""

from __future__ import annotations

import ast
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from contrex.errors import ArgumentError, unknown_name
from contrex.models.convnet import ConvNet
from contrex.models.layouts import encoder_weights
from contrex.models.pooling import with_pooling
from contrex.models.split import check_classifier
from contrex.models.stem import cifar_stem
from contrex.models.weights import load_weights, read_state_dict
from contrex.settings import Model, Stem


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


def load_classifier(settings: Model, *, num_classes: int | None = None) -> Classifier:
    """Build the network, load its weights, and account for every key.

    `num_classes` is the data set's; `settings.num_classes` wins over it, and without either the weights file tells.

    Raises:
        UnknownNameError: no such library, architecture or layout.
        ArgumentError: the network has no classifier, or no global average pooling where another is asked for.
        WeightsError: the file is missing, unreadable or of another layout, a key is missing or left over, or a shape
            differs.
    """
    count = settings.num_classes if settings.num_classes is not None else num_classes
    network = _built(settings, count)
    left_out: tuple[str, ...] = ()
    if settings.weights is not None:
        state, left_out = encoder_weights(read_state_dict(settings.weights, settings.layout), settings.layout)
        if count is None and (found := _num_classes(network, state)) is not None:
            network = _built(settings, found)
        load_weights(network, settings.weights, fresh=settings.fresh, state=state)
    elif settings.fresh or settings.layout != "plain":
        name = "fresh" if settings.fresh else "layout"
        value = getattr(settings, name)
        raise ArgumentError(f"`{name}` {value} means something only with `weights`: pass a file or drop it.")
    check_classifier(network)
    return Classifier(network, channels(settings.mean, "model.mean"), channels(settings.std, "model.std"), left_out)


def _built(settings: Model, num_classes: int | None) -> nn.Module:
    network = build_network(settings.name, settings.options, num_classes=num_classes, stem=settings.stem)
    return with_pooling(network, settings.pooling, settings.pooling_temperature)


def build_network(
    name: str, options: Mapping[str, str], *, num_classes: int | None = None, stem: Stem = "built-in"
) -> nn.Module:
    """The network `LIBRARY:ARCHITECTURE` with random weights; option texts are read as Python literals where they are.

    `stem="cifar"` gives a ResNet the first layers of small images (`cifar_stem`).

    >>> build_network("contrex:convnet", {"pointwise": "64"}, num_classes=3).fc
    Linear(in_features=64, out_features=3, bias=True)
    """
    if stem not in STEMS:
        raise unknown_name("`model.stem`", stem, STEMS)
    library, _, architecture = name.partition(":")
    if library not in BUILDERS or not architecture:
        choices = [f"{key}:NAME" for key in BUILDERS]
        raise unknown_name("`model.name`", name, choices)
    arguments: dict[str, Any] = {key: literal(text) for key, text in options.items()}
    if num_classes is not None:
        arguments["num_classes"] = num_classes
    try:
        network = BUILDERS[library](architecture, arguments)
    except TypeError as error:
        raise ArgumentError(f"`model.options` {dict(options)} do not fit {name}: {error}") from None
    return STEMS[stem](network)


def _convnet(architecture: str, arguments: dict[str, Any]) -> nn.Module:
    if architecture != "convnet":
        raise unknown_name("`model.name` after 'contrex:'", architecture, ["convnet"])
    return ConvNet(**arguments)


def _torchvision(architecture: str, arguments: dict[str, Any]) -> nn.Module:
    import torchvision.models

    names = torchvision.models.list_models(module=torchvision.models)
    if architecture not in names:
        raise unknown_name("`model.name` after 'torchvision:'", architecture, names)
    network: nn.Module = torchvision.models.get_model(architecture, weights=None, **arguments)
    return network


def _timm(architecture: str, arguments: dict[str, Any]) -> nn.Module:
    import timm

    if not timm.is_model(architecture):
        raise unknown_name("`model.name` after 'timm:'", architecture, timm.list_models())
    return timm.create_model(architecture, pretrained=False, **arguments)


BUILDERS: dict[str, Callable[[str, dict[str, Any]], nn.Module]] = {
    "contrex": _convnet,
    "torchvision": _torchvision,
    "timm": _timm,
}

STEMS: dict[str, Callable[[nn.Module], nn.Module]] = {"built-in": lambda network: network, "cifar": cifar_stem}


def literal(text: str) -> Any:
    """An option's text as a Python literal where it is one; nothing is evaluated.

    >>> literal("(3, 4)"), literal("same"), literal("print()")
    ((3, 4), 'same', 'print()')
    """
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError, RecursionError, MemoryError):
        return text


def channels(values: Sequence[float], name: str) -> tuple[float, float, float]:
    """The mean or std of each of three channels, which may be one number for all; `name` is the argument's.

    Raises:
        ArgumentError: there is another number of them, or a std is not positive.
    """
    values = tuple(values)
    if len(values) not in (1, 3) or (name.endswith("std") and min(values) <= 0):
        raise ArgumentError(f"`{name}` must be one value or three, one per channel (std > 0), got {values}.")
    first, second, third = values * 3 if len(values) == 1 else values
    return first, second, third


def _num_classes(network: nn.Module, state: Mapping[str, Tensor]) -> int | None:
    """The classes of a file that differs from the network in nothing but the length of its classifier's tensors."""
    own = network.state_dict()
    other = [key for key in own if key in state and own[key].shape != state[key].shape]
    fits = bool(other) and all(own[key].shape[1:] == state[key].shape[1:] for key in other)
    here, there = {len(own[key]) for key in other}, {len(state[key]) for key in other}
    modules = {key.rpartition(".")[0] for key in other}
    return there.pop() if fits and len(here) == len(there) == len(modules) == 1 else None
