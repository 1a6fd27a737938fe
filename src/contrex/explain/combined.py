"""What any explainer can be told beside its own options: to average the maps of changed copies of an image
(test-time averaging), and to fuse the maps of several layers.

Legend: N images, M questions per image, L layers, h w grid.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor

from contrex.errors import ArgumentError
from contrex.explain.forward.capture import Pass
from contrex.explain.scored import seen_as
from contrex.models.layers import Layer, find_run
from contrex.ops import heatmap as heatmaps
from contrex.ops.scores import Question
from contrex.settings.combination import View, read_augment, read_fuse

if TYPE_CHECKING:
    from contrex.explain.explainer import Explainer


def tell(explainer: Explainer, augment: str | None, fuse: str | None) -> None:
    """Tell an explainer what to average and what to fuse.

    Raises:
        ArgumentError: a text cannot be read, or the explainer has no layers to fuse, or was told one.
        UnknownNameError: there is no such way to fuse, or no such layer.
    """
    if augment is not None:
        explainer.augment = read_augment(augment)
    if fuse is not None:
        explainer.fuse = read_fuse(fuse)
        explainer.is_linear = False
        check_fuse(explainer)


def check_fuse(explainer: Explainer) -> None:
    """Refuse to fuse layers of an explainer that has none, or has one; errors as in `tell`."""
    from contrex.explain.explainer import LayerExplainer

    if explainer.fuse is None:
        return
    name = explainer.name or type(explainer).__name__
    if not isinstance(explainer, LayerExplainer):
        raise ArgumentError(f"`fuse` '{explainer.fuse}' means nothing to {name}, which explains no layer: drop it.")
    if explainer.__dict__.get("_asked") is not None or explainer.__dict__.get("_is_at_input"):
        raise ArgumentError(
            f"`layer` and `fuse` '{explainer.fuse}' both choose where {name} looks: give one of them"
            " (lrp with layer=None)."
        )
    for layer in explainer.fuse.layers:
        find_run(explainer.model, layer)


def told(explainer: Explainer) -> dict[str, str]:
    """The options that `tell` gave, as a record has them."""
    return {name: str(value) for name in ("augment", "fuse") if (value := getattr(explainer, name)) is not None}


def at_layer(explainer: Explainer, layer: Layer) -> Any:
    """The same explainer at one layer, without fusion."""
    twin: Any = copy.copy(explainer)
    twin._asked, twin.fuse = layer, None
    if "_is_at_input" in twin.__dict__:
        twin._is_at_input = False
    twin.__dict__.pop("is_linear", None)
    return twin


def pinned(explainer: Explainer) -> Any:
    """A copy of an explainer that looks at images of any size where this one looked last."""
    twin: Any = copy.copy(explainer)
    names = [site.name for site in getattr(twin, "_last", ())]
    if twin.fuse is not None:
        twin.fuse = replace(twin.fuse, layers=names)
    elif names and twin._asked is None:
        (twin._asked,) = names
    return twin


# --- fusing layers --------------------------------------------------------------------------------------------------


def maps_of(explainer: Explainer, run: Pass, question: Question, *, differentiable: bool) -> Tensor:
    """The maps `[N,M,h,w]` of a question about a pass: the explainer's, or those of its layers as one."""
    if explainer.fuse is None:
        return explainer._maps(run, question, differentiable=differentiable)
    alone = [replace(run, features=[features], is_shared=True) for features in run.features]
    maps = [explainer._maps(one, question, differentiable=differentiable) for one in alone]
    with torch.set_grad_enabled(differentiable), torch.autocast(run.logits.device.type, enabled=False):
        return fused(maps, explainer.fuse.how)


def fused(maps: Sequence[Tensor], how: str) -> Tensor:
    """One map of those of L layers, `[N,M,h_l,w_l]` each, of the size of the largest.

    Each is divided by its largest magnitude and resized. `mean` is their mean; `max` takes in each cell the value of
    the largest magnitude; `product` is `prod max(x, 0) - prod max(-x, 0)`, rectified before they are resized
    (RefineCAM); `layer_cam` is `max` of `tanh(2 x)` (section III-C of LayerCAM). The result is multiplied by the
    largest magnitude of the last layer's map, so that maps of classes can still be compared.
    """
    size = max((tuple(one.shape[2:]) for one in maps), key=lambda side: side[0] * side[1])
    peaks = [one.abs().amax((2, 3), keepdim=True) for one in maps]
    scaled = [one / peak.where(peak > 0, 1) for one, peak in zip(maps, peaks, strict=True)]

    def stacked(values: Sequence[Tensor]) -> Tensor:
        return torch.stack([_resized(one, size) for one in values])

    if how == "mean":
        found = stacked(scaled).mean(0)
    elif how == "product":
        found = stacked([one.relu() for one in scaled]).prod(0) - stacked([(-one).relu() for one in scaled]).prod(0)
    else:
        values = stacked([torch.tanh(2 * one) for one in scaled] if how == "layer_cam" else scaled)
        found = values.gather(0, values.abs().argmax(0, keepdim=True))[0]
    return found * peaks[-1]


def _resized(maps: Tensor, size: Sequence[int]) -> Tensor:
    if tuple(maps.shape[2:]) == tuple(size):
        return maps
    return heatmaps.resize(maps.flatten(0, 1), (size[0], size[1])).view(*maps.shape[:2], *size)


# --- averaging views ------------------------------------------------------------------------------------------------


def averaged(
    explainer: Explainer, run: Pass, answer: Callable[[Explainer, Pass], Tensor], *, differentiable: bool
) -> Tensor:
    """The mean `[N,M,h,w]` of what `answer(explainer, pass)` gives for the images of a pass, and for each of their
    changed copies, brought back to its place.

    A copy of another size has another number of cells. Where they are shares of the score, or slopes, they are
    multiplied by the ratio.
    """
    total = answer(explainer, run)
    views, size = () if explainer.augment is None else explainer.augment.views, total.shape[2:]
    is_density = explainer.unit.startswith(("share", "slope")) if explainer.is_density is None else explainer.is_density
    is_density = is_density and explainer.fuse is None
    for view in views:
        twin = pinned(explainer)  # a copy, as an explainer notes where it looked last
        with seen_as(view, run.images.shape[2:]):
            found = answer(twin, _pass_of(twin, run.images, view, differentiable=differentiable))
        ratio = found[0, 0].numel() / size.numel() if is_density else 1.0
        total = total + ratio * _resized(found.flip(3) if view.flip else found, size)
    return total / (1 + len(views)) if views else total


def _pass_of(explainer: Explainer, images: Tensor, view: View, *, differentiable: bool) -> Pass:
    """The pass of changed copies of images."""
    copies = changed(images.detach(), view)
    try:
        return explainer._forward(copies, differentiable=differentiable)
    except (RuntimeError, ValueError, AssertionError, IndexError) as error:
        if view.scale == 1:
            raise
        raise ArgumentError(
            f"`augment` scale({view.scale}): {type(explainer.model).__name__} takes no images of {copies.shape[2]} x "
            f"{copies.shape[3]} ({str(error).splitlines()[0]}): leave the scale out."
        ) from error


def changed(images: Tensor, view: View) -> Tensor:
    """The images `[N,C,H,W]` as a view shows them."""
    if view.scale != 1:
        images = F.interpolate(images, view.sides(images.shape[2:]), mode="bilinear", antialias=True)
    images = images.flip(3) if view.flip else images
    return images * view.factor if view.factor != 1 else images
