"""Checks of what an explainer is given, and of what it gives: images that fit, maps that are finite."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor, nn

from contrex.errors import ArgumentError
from contrex.explain import combined

if TYPE_CHECKING:
    from contrex.explain.explainer import Explainer


def checked_images(images: Tensor, explainer: Explainer) -> Tensor:
    """The images, or `ArgumentError` where they are no batch that this method explains."""
    axes = _axes_of(explainer.model)
    if not isinstance(images, Tensor):
        raise ArgumentError(f"`images` must be a tensor, got {type(images).__name__}: torch.from_numpy(images)?")
    if images.ndim not in axes or not images.numel():
        shape = "[N,C,L]" if axes == {3, 4} else "[N,C,D,H,W]" if axes == {4, 5} else "[N,C,H,W]"
        raise ArgumentError(
            f"`images` must be a batch {shape} with N >= 1, got {list(images.shape)}; add the batch axis with [None]."
        )
    if images.ndim - 2 not in explainer.ranks:
        raise ArgumentError(
            f"{type(explainer).__name__} explains pictures [N,C,H,W], got `images` {list(images.shape)}: GradCAM, "
            "Gradient, IntegratedGradients, RISE and Occlusion explain signals [N,C,L] and volumes [N,C,D,H,W]."
        )
    if images.ndim != 4 and (option := combined.told(explainer)):
        name, text = next(iter(option.items()))
        raise ArgumentError(f"`{name}` '{text}' is for pictures [N,C,H,W], got `images` {list(images.shape)}: drop it.")
    if not images.is_floating_point():
        raise ArgumentError(f"`images` must be floating point, normalised as for the model; got {images.dtype}.")
    return images.clone() if images.is_inference() else images


def _axes_of(model: nn.Module) -> set[int]:
    """How many axes the batches of a network may have: four, and those of its first convolution; without one, any."""
    first = next((module for module in model.modules() if isinstance(module, nn.modules.conv._ConvNd)), None)
    return {3, 4, 5} if first is None else {4, 2 + len(first.kernel_size)}


def finite(heatmap: Tensor) -> Tensor:
    """The maps `[N,...]`, or `ArgumentError` where those of an image are not finite."""
    broken = (~heatmap.isfinite()).flatten(1).any(1).nonzero()
    if len(broken):
        raise ArgumentError(
            f"the heatmap of image {int(broken[0])} is not finite: check `images` and the model's weights for NaN, its "
            "activations for overflow, and its logits of changed images where the method asks for them."
        )
    return heatmap
