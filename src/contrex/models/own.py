"""How a network of one's own sees images: what its object says by itself, and what its user adds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, TypedDict

from PIL import Image
from torch import nn

from contrex.errors import ArgumentError, unknown_name
from contrex.models.classes import Names, checked_names
from contrex.models.classifier import Classifier, channels, network_of
from contrex.models.hub import of_transformers, view_of_processor
from contrex.models.layers import unwrap
from contrex.models.libraries import of_timm

INTERPOLATIONS: dict[str, Image.Resampling] = {
    one.name.lower(): one for one in (Image.Resampling.BILINEAR, Image.Resampling.BICUBIC, Image.Resampling.LANCZOS)
} | {"nearest": Image.Resampling.NEAREST}


class View(TypedDict, total=False):
    """How a classifier sees an image; what is given wins over what the classifier says."""

    size: int | None
    """The side of the central square, in pixels."""
    short_side: int | None
    """The shorter side of the image that the square is cut out of; as long as the square without it."""
    mean: tuple[float, ...] | None
    std: tuple[float, ...] | None
    interpolation: str | None
    names: Names | None
    processor: Any
    """An image processor of transformers, which says all of these."""


def own_classifier(model: Classifier | nn.Module, **view: Any) -> Classifier:
    """A classifier with all that is needed to show it an image: `view` (`View`) wins over what `model` says.

    A `Classifier` says what it has in its fields. timm's networks have a `pretrained_cfg`, which is that of timm's own
    weights, whatever weights are in them; transformers' have names, in `config.id2label`, and a `processor`.

    Raises:
        ArgumentError: size, mean or std are not known; the message says which, and how to give them.
        UnknownNameError: there is no such interpolation.
    """
    known = {name: value for name, value in view.items() if value is not None}
    processor = known.pop("processor", None)
    if "size" in known:  # a square of another size is cut out of an image of its own
        size = known.pop("size")
        known = {"short_side": None, **known, "image_size": size}
    if "names" in known:
        known["names"] = checked_names(known["names"])
    for name in {"mean", "std"} & set(known):
        known[name] = channels(known[name], name)
    if isinstance(model, Classifier):
        found = replace(model, **{**_of_processor(processor), **known})
    elif isinstance(model, nn.Module):
        told = {**of_timm(unwrap(model)), **of_transformers(unwrap(model)), **_of_processor(processor), **known}
        _check_known(model, told)
        found = Classifier(model, **told)
    else:
        raise ArgumentError(
            f"`classifier` must be a network or a contrex.models.Classifier, got {type(model).__name__}."
        )
    if found.image_size is None:
        raise _not_known(model, ["size"])
    return _checked(found)


def _of_processor(processor: Any) -> dict[str, Any]:
    if processor is None:
        return {}
    if not callable(getattr(processor, "to_dict", None)):
        raise ArgumentError(
            f"`processor` must be an image processor of transformers, got {type(processor).__name__}: load one, "
            "transformers.AutoImageProcessor.from_pretrained(NAME)."
        )
    return view_of_processor(processor.to_dict())


def _checked(classifier: Classifier) -> Classifier:
    size, short_side = classifier.image_size, classifier.short_side
    if size is None or size < 1:
        raise ArgumentError(f"`size` must be at least 1 pixel, got {size}.")
    if short_side is not None and short_side < size:
        raise ArgumentError(f"`short_side` {short_side} must be at least the square's side, `size` {size}.")
    if classifier.interpolation not in INTERPOLATIONS:
        raise unknown_name("`interpolation`", classifier.interpolation, INTERPOLATIONS)
    return classifier


def _check_known(model: nn.Module, told: Mapping[str, Any]) -> None:
    asked = {"size": "image_size", "mean": "mean", "std": "std"}
    missing = [name for name, key in asked.items() if key not in told]
    if missing:
        raise _not_known(model, missing)


def _not_known(model: Classifier | nn.Module, missing: list[str]) -> ArgumentError:
    network = network_of(model)
    imagenet = {"size": "size=224", "mean": "mean=(0.485, 0.456, 0.406)", "std": "std=(0.229, 0.224, 0.225)"}
    return ArgumentError(
        f"`classifier` {type(network).__name__} does not say how it sees an image: pass "
        f"{', '.join(f'`{name}`' for name in missing)} as in its training (torchvision's, on ImageNet: "
        f"{', '.join(imagenet[name] for name in missing)}), or a contrex.models.Classifier in which they are not None."
    )
