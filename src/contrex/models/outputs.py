"""What a network returns, read as logits where there is only one way to: the one place where contrex does that.

Libraries return logits under a name (transformers: `.logits`), with others beside them (torchvision's Inception in
train mode), or among what else they know (features, losses).
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Hashable, Iterator, Mapping
from contextvars import ContextVar
from dataclasses import dataclass
from functools import partial
from typing import Any

from torch import Tensor, nn

from contrex.errors import ArgumentError
from contrex.models.beside import call

Network = Callable[[Tensor], object]
Reader = Callable[[Any], Tensor]
"""What finds the logits [N,K] in that which a network returns."""

Read = Callable[[object, Network, int], Tensor]
"""The numbers `[n,K]` in what a network returned for a batch of n images."""


@dataclass(frozen=True)
class Reading:
    """How outputs are read: `read`, and what of it may decide which way the numbers take through a network (`kind`).
    `what` is read, in words, where it is asked for by the call."""

    read: Read
    kind: Hashable = None
    what: str = ""


_READING: ContextVar[Reading | None] = ContextVar("_READING", default=None)
"""How outputs are read right now, in this thread: several explainers of one network may read it each in its way."""


@contextlib.contextmanager
def read_as(reading: Reading | None) -> Iterator[None]:
    """Read outputs in a way of one's own for a while; None reads them as contrex does."""
    token = _READING.set(reading)
    try:
        yield
    finally:
        _READING.reset(token)


def read_by(reader: Reader | None) -> contextlib.AbstractContextManager[None]:
    """Read outputs by a function of the user's for a while; None reads them as contrex does."""
    return read_as(None if reader is None else Reading(partial(_read_by, reader)))


def reading_kind() -> Hashable:
    """What of the way in which outputs are read right now may decide which way the numbers take through a network."""
    reading = _READING.get()
    return None if reading is None else reading.kind


def what_is_read() -> str:
    """What is read of outputs right now, in words; empty for logits."""
    reading = _READING.get()
    return "" if reading is None else reading.what


def model_logits(model: Network, images: Tensor) -> Tensor:
    """The logits `[N,K]` of `model` for `images` [N,C,H,W], whatever it returns them in; errors as in `read_logits`."""
    return read_logits(call(model, images), model, len(images))


def read_logits(output: object, model: Network, num_images: int) -> Tensor:
    """The logits `[N,K]` in the `output` of `model`, of the type that they have there.

    They are the output itself, its attribute `logits` or entry "logits", or the only floating-point tensor with two
    axes and a row for each image in a tuple or list.

    Raises:
        ArgumentError: none of these, or several; the message says what there is, and how to wrap the model.

    >>> import torch
    >>> read_logits((torch.ones(2, 3), torch.ones(2, 8, 7, 7)), nn.Identity(), 2).shape
    torch.Size([2, 3])
    """
    reading = _READING.get()
    if reading is not None:
        return reading.read(output, model, num_images)
    return logits_in(output, model, num_images)


def channels_of_maps(output: object) -> set[int]:
    """How many channels the maps `[n,C,h,w]` have that a network returns: the classes of a segmentation."""
    if isinstance(output, Mapping):
        output = list(output.values())
    values = output if isinstance(output, (tuple, list)) else [getattr(output, "logits", output)]
    return {value.shape[1] for value in values if isinstance(value, Tensor) and value.ndim > 2}


def logits_in(output: object, model: Network, num_images: int) -> Tensor:
    """The same, whatever way of reading is set."""
    found = _chosen(output, num_images)
    if found is not None and _are_logits(found, num_images):
        return found
    raise ArgumentError(
        f"`model` must return logits [N,K], {_name(model)} returned {described(output)} for {num_images} image(s): "
        f"{_advice(found, num_images)}."
    )


def _read_by(reader: Reader, output: object, model: Network, num_images: int) -> Tensor:
    """What a user's function finds in an output, if it is logits."""
    found = applied(reader, output, model, "`output`")
    if _are_logits(found, num_images):
        return found
    raise ArgumentError(
        f"`output` must give logits [{num_images},K], floating point, it gave {described(found)} of what "
        f"{_name(model)} returned, {described(output)}."
    )


def applied(function: Reader, output: object, model: Network, what: str) -> Tensor:
    """What a user's function gives for an output of `model`; `what` is the argument that it was given as.

    Raises:
        ArgumentError: the function cannot read it.
    """
    try:
        return function(output)
    except ArgumentError:
        raise
    except (KeyError, IndexError, AttributeError, TypeError, ValueError) as error:
        raise ArgumentError(
            f"{what} cannot read what {_name(model)} returned, {described(output)}: it raises "
            f"{type(error).__name__} ({error})."
        ) from error


def check_no_auxiliary(output: object, model: Network) -> None:
    """Refuse what networks with auxiliary classifiers return in train mode: no method of training has a loss for them.

    Raises:
        ArgumentError: there are several tensors [N,K] of one shape.
    """
    values = list(output.values()) if isinstance(output, Mapping) else output
    tensors = [t for t in values if isinstance(t, Tensor)] if isinstance(values, (tuple, list)) else []
    if len(tensors) > 1 and tensors[0].ndim == 2 and any(t.shape == tensors[0].shape for t in tensors[1:]):
        raise auxiliary_classifiers(model)


def auxiliary_classifiers(model: Network) -> ArgumentError:
    """The error for a network that is to be trained and has classifiers beside its last."""
    return ArgumentError(
        f"`model` {_name(model)} has auxiliary classifiers, whose logits no training method uses: build it without, "
        "`--model.options aux_logits False`, or return its main logits only."
    )


def _chosen(output: object, num_images: int) -> Tensor | None:
    """The only tensor in `output` that can be the logits."""
    if isinstance(output, Tensor):
        return output
    named = output.get("logits") if isinstance(output, Mapping) else getattr(output, "logits", None)
    if isinstance(named, Tensor):
        return named
    fitting = [t for t in output if _are_logits(t, num_images)] if isinstance(output, (tuple, list)) else []
    return fitting[0] if len(fitting) == 1 else None


def _are_logits(value: object, num_images: int) -> bool:
    return (
        isinstance(value, Tensor)
        and value.ndim == 2
        and len(value) == num_images
        and value.shape[1] > 0
        and value.is_floating_point()
    )


def _advice(found: Tensor | None, num_images: int) -> str:
    """What to do about an output whose logits, if it has any, are `found`."""
    if found is None:
        return (
            "pass the explainer `output=`, a function that finds them, or wrap the model in a module that returns the "
            "logits alone; what is no class is explained by `score=`, as contrex.explain.targets.Region"
        )
    if not found.is_floating_point():
        return "these are no scores; wrap it so that it returns what the classes are chosen by, before any argmax"
    if found.ndim == 0:
        return "that is one number for the whole batch; wrap it so that it returns a row for each image"
    if found.shape == (num_images,) and num_images > 1:
        return "that is one score per image without the axis of the classes; wrap it with `.unsqueeze(1)`"
    if found.ndim == 1:
        axis = "if these are the classes of the only image, with `[None]`, if its only score, with `.unsqueeze(1)`"
        return f"wrap it so that it keeps both axes: {axis}" if num_images == 1 else "wrap it so that it does"
    if found.ndim > 2 and len(found) == num_images:
        return (
            "that is a prediction for each place; explain a region, `score=contrex.explain.targets.Region(mask)`, or "
            "wrap it so that it returns the scores of one, `output[:, :, y, x]`, or their mean, "
            "`output.flatten(2).mean(2)`"
        )
    return "wrap it so that it does"


def described(value: object, depth: int = 0) -> str:
    """What there is in an output of a network, in words."""
    if isinstance(value, Tensor):
        kind = "a tensor" if value.is_floating_point() else f"a tensor of {str(value.dtype).removeprefix('torch.')}"
        return f"{kind} {list(value.shape)}"
    name = type(value).__name__
    if depth or not isinstance(value, (Mapping, tuple, list)):
        return name
    if isinstance(value, Mapping):
        parts = [f"{key!r}: {described(part, 1)}" for key, part in value.items()]
    else:
        names = getattr(value, "_fields", None) or [""] * len(value)
        parts = [f"{key}{': ' if key else ''}{described(part, 1)}" for key, part in zip(names, value, strict=True)]
    return f"{name} ({', '.join(parts)})"


def _name(model: Network) -> str:
    return type(model).__name__ if isinstance(model, nn.Module) else getattr(model, "__name__", type(model).__name__)
