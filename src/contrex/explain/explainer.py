"""The front door: one call for every method that explains a score by the gradient at a layer or at the input.

A method is a subclass that says how activation and gradient become a map; contrasts, targets, batching,
differentiability and the promise to leave the model as it was are here.

Legend: N images, K classes, C channels, H W image, h w feature grid.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import ExitStack

import torch
from torch import Tensor, nn

from contrex.errors import ArgumentError
from contrex.explain import capture
from contrex.explain.closed_form import LinearHead
from contrex.explain.explanation import Explanation
from contrex.models.layers import Layer, find_layer, unwrap
from contrex.ops import scores
from contrex.ops.scores import Contrast, Target


class Explainer(ABC):
    """Explains any classifier `images [N,C,H,W] -> logits [N,K]`.

    A call leaves the model as it was: `.grad`, `requires_grad`, train / eval flags, batch-norm buffers, hooks, random
    state and memory, also when it raises. It works under `no_grad`, `inference_mode` and autocast, on frozen
    parameters, from several threads, and on models wrapped by `torch.compile` or DDP (it explains the module inside).

    Maps are computed in eval mode. With `differentiable=True` the call is part of a training step instead: the model
    runs in the mode it is in, and batch norm in train mode updates its statistics as in any training forward.
    """

    def __init__(self, model: nn.Module) -> None:
        if not isinstance(model, nn.Module):
            raise ArgumentError(f"`model` must be a torch.nn.Module, got {type(model).__name__}.")
        self.model = unwrap(model)

    def __call__(
        self,
        images: Tensor,
        *,
        target: Target | Callable[[Tensor], Tensor] = None,
        contrast: Contrast = None,
        differentiable: bool = False,
    ) -> Explanation:
        """Explain why each image is `target` - and, with a contrast, not another class.

        Args:
            images: `[N,C,H,W]`, floating point, normalised as the model expects.
            target: the explained class: None (top prediction), an int, a sequence or tensor `[N]`, or a function from
                the logits `[N,K]` to classes `[N]`.
            contrast: None, `"mean"`, `"max"`, `"weighted"`, or a foil class (an int, or one per image `[N]`).
            differentiable: return maps and logits with a graph to every parameter, for a loss on the explanation.

        Raises:
            ArgumentError: an argument does not fit, or the model gives NaN.
            LayerError: the layer does not give a feature map.
        """
        with ExitStack() as stack:
            stack.enter_context(capture.turn(self.model))
            stack.enter_context(torch.inference_mode(False))
            images = _checked(images)
            if not differentiable:
                stack.enter_context(capture.undisturbed(self.model, images.device))
            run = self._forward(images, differentiable=differentiable)
            classes = scores.class_indices(target(run.logits) if callable(target) else target, run.logits)
            row = scores.cotangent(run.logits, classes, contrast)
            heatmap = self._heatmap(run, row, differentiable=differentiable)
        if differentiable:
            return Explanation(heatmap, run.logits, classes)
        return Explanation(_finite(heatmap.detach()), run.logits.detach(), classes)

    @abstractmethod
    def _forward(self, images: Tensor, *, differentiable: bool) -> capture.Pass:
        """One forward pass that keeps what `_heatmap` needs."""

    @abstractmethod
    def _heatmap(self, run: capture.Pass, cotangent: Tensor, *, differentiable: bool) -> Tensor:
        """The map `[N,h,w]` of the score whose gradient at the logits is `cotangent` `[N,K]`."""


class ActivationExplainer(Explainer):
    """Methods that combine a layer's activation with the gradient that reaches it.

    `layer` is a module or its name; None takes the last feature map before the classifier, found in the first call.

    The gradient is `W^T (dS/dy) / (h w)`, in closed form, where only global average pooling and one linear layer follow
    the layer; that is verified against autograd on the first batch. Otherwise autograd runs through what follows the
    layer, and nothing before it is recorded.
    """

    def __init__(self, model: nn.Module, layer: Layer = None) -> None:
        super().__init__(model)
        self._layer = None if layer is None else find_layer(self.model, layer)
        self._head = LinearHead(self.model)

    @property
    def layer(self) -> str | None:
        """The name of the explained layer; None until the first call has found it."""
        return next((name for name, module in self.model.named_modules() if module is self._layer), None)

    @abstractmethod
    def combine(self, activation: Tensor, gradient: Tensor) -> Tensor:
        """The map `[N,h,w]` of an activation `[N,C,h,w]`; the gradient is `[N,C,h,w]`, or `[N,C,1,1]` if constant."""

    def _forward(self, images: Tensor, *, differentiable: bool) -> capture.Pass:
        if self._layer is None:
            self._layer = capture.find_feature_map(self.model, images)
        if differentiable:
            return capture.forward(self.model, images, self._layer, graph="all")
        if self._head.is_known():
            run = capture.forward(self.model, images, self._layer, graph="none")
            if self._head.fits(run):
                return run
        return capture.forward(self.model, images, self._layer, graph="head")

    def _heatmap(self, run: capture.Pass, cotangent: Tensor, *, differentiable: bool) -> Tensor:
        gradient = self._head.gradient(run, cotangent, differentiable=differentiable)
        dtype = cotangent.dtype
        with torch.set_grad_enabled(differentiable), torch.autocast(run.activation.device.type, enabled=False):
            return self.combine(run.activation.to(dtype), gradient.to(dtype))


def _checked(images: Tensor) -> Tensor:
    if not isinstance(images, Tensor) or images.ndim != 4 or images.numel() == 0:
        got = list(images.shape) if isinstance(images, Tensor) else type(images).__name__
        raise ArgumentError(
            f"`images` must be a batch [N,C,H,W] with N >= 1, got {got}; add the batch axis with [None]."
        )
    if not images.is_floating_point():
        raise ArgumentError(f"`images` must be floating point, normalised as for the model; got {images.dtype}.")
    return images.clone() if images.is_inference() else images


def _finite(heatmap: Tensor) -> Tensor:
    broken = (~heatmap.isfinite()).flatten(1).any(1).nonzero()
    if len(broken):
        raise ArgumentError(
            f"the heatmap of image {int(broken[0])} is not finite: check `images` and the model's weights for NaN."
        )
    return heatmap
