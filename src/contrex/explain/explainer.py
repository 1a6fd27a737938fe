"""The front door: one call for every method of explanation.

A method is a subclass that turns one forward pass and a question - which scores of the logits - into maps. Targets,
contrasts, many classes, batching and the promise to leave the model as it was are here.

Legend: N images, M questions per image, K classes, C channels, H W image, h w feature grid.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import ClassVar

import torch
from torch import Tensor, nn

from contrex.errors import ArgumentError, LayerError, NotDifferentiableError
from contrex.explain import capture, diagnosis
from contrex.explain.capture import Pass
from contrex.explain.closed_form import LinearHead
from contrex.explain.explanation import ClassExplanations, Explanation
from contrex.models.compiled import uncompiled
from contrex.models.layers import Layer, Reshape, find_layer, unwrap
from contrex.models.split import check_classifier
from contrex.ops import scores
from contrex.ops.scores import Contrast, Question, Target

Targets = Target | Callable[[Tensor], Tensor]


class Explainer(ABC):
    """Explains any classifier `images [N,C,H,W] -> logits [N,K]`.

    A call leaves the model as it was: `.grad`, `requires_grad`, train / eval flags, batch-norm buffers, hooks, random
    state and memory, also when it raises. It works under `no_grad`, `inference_mode` and autocast, on frozen
    parameters, from several threads, and on models wrapped by `torch.compile` or DDP (it explains the module inside).

    Maps are computed in eval mode. With `differentiable=True` the call is part of a training step instead: the model
    runs in the mode it is in, and batch norm in train mode updates its statistics as in any training forward.
    """

    is_linear: ClassVar[bool] = True
    """Whether the map is linear in the score. Then a contrast is one map of the contrasted score; otherwise it is the
    difference of the signed maps of the classes, as Proposition 3 of "Why Not Other Classes?" asks."""
    is_differentiable: ClassVar[bool] = True
    is_class_specific: ClassVar[bool] = True
    """Whether the map depends on the explained class; otherwise there is no contrast."""

    def __init__(self, model: nn.Module) -> None:
        if not isinstance(model, nn.Module):
            raise ArgumentError(f"`model` must be a torch.nn.Module, got {type(model).__name__}.")
        check_classifier(model)
        self.model = unwrap(model)

    def __call__(
        self,
        images: Tensor,
        *,
        target: Targets = None,
        contrast: Contrast = None,
        score: str = "logit",
        differentiable: bool = False,
    ) -> Explanation:
        """Explain why each image is `target` - and, with a contrast, not another class.

        Args:
            images: `[N,C,H,W]`, floating point, normalised as the model expects.
            target: the explained class: None (top prediction), an int, a sequence or tensor `[N]`, or a function from
                the logits `[N,K]` to classes `[N]`.
            contrast: None, `"mean"`, `"max"`, `"weighted"`, a foil class (an int, or one per image `[N]`), or several
                foils (`[1,F]`, or `[N,F]`).
            score: what is explained of a class: its `"logit"`, `"probability"` or `"log_probability"`.
            differentiable: return maps and logits with a graph to every parameter, for a loss on the explanation.

        Raises:
            ArgumentError: an argument does not fit, or the model gives NaN.
            LayerError: the layer does not give a feature map.
            NotDifferentiableError: the method has no differentiable map; the message names some that have.
        """
        with self._started(images, differentiable=differentiable) as checked:
            run = self._forward(checked, differentiable=differentiable)
            classes = scores.class_indices(target(run.logits) if callable(target) else target, run.logits)
            heatmap = self._answer(run, classes[:, None], contrast, score, differentiable=differentiable)[:, 0]
        return _explanation(heatmap, run.logits, classes, differentiable=differentiable)

    def classes(
        self,
        images: Tensor,
        k: int = 5,
        *,
        classes: Sequence[int] | Sequence[Sequence[int]] | Tensor | None = None,
        contrast: Contrast = None,
        score: str = "logit",
    ) -> ClassExplanations:
        """The signed maps of the `k` most probable classes of each image, most probable first, in one forward pass.

        `classes` names them instead: one list `[M]` for all images, or `[N,M]`. `contrast` and `score` as in a call.
        """
        return self.contrasts(images, [contrast], k, classes=classes, score=score)[0]

    def contrasts(
        self,
        images: Tensor,
        contrasts: Sequence[Contrast],
        k: int = 5,
        *,
        classes: Sequence[int] | Sequence[Sequence[int]] | Tensor | None = None,
        score: str = "logit",
    ) -> list[ClassExplanations]:
        """What `classes` gives for each of several contrasts, from one forward pass for all of them."""
        with self._started(images, differentiable=False) as checked:
            run = replace(self._forward(checked, differentiable=False), is_shared=len(contrasts) > 1)
            wanted = scores.many_classes(classes, run.logits, k)
            answers = [self._answer(run, wanted, contrast, score, differentiable=False) for contrast in contrasts]
        for maps in answers:
            _check_finite(maps)
        return [ClassExplanations(maps.detach(), run.logits.detach(), wanted) for maps in answers]

    @abstractmethod
    def _forward(self, images: Tensor, *, differentiable: bool) -> Pass:
        """One forward pass that keeps what `_maps` needs."""

    @abstractmethod
    def _maps(self, run: Pass, question: Question, *, differentiable: bool) -> Tensor:
        """The maps `[N,M,h,w]` of the M scores per image that `question` asks for."""

    def _answer(self, run: Pass, classes: Tensor, contrast: Contrast, score: str, *, differentiable: bool) -> Tensor:
        """Maps `[N,M,h,w]` of `classes` [N,M], by whichever of Proposition 3's roads is right for the method."""
        if not self.is_class_specific and (contrast is not None or score != "logit"):
            name = "score" if contrast is None else "contrast"
            raise ArgumentError(f"`{name}` means nothing to {type(self).__name__}: its map is the same for any class.")
        rows = torch.stack([scores.cotangent(run.logits, column, contrast) for column in classes.unbind(1)], 1)
        if not differentiable and self.is_class_specific:
            diagnosis.check_scores(run.images, run.logits, Question(rows, score))
        if self.is_linear or contrast is None:
            return self._maps(run, Question(rows, score), differentiable=differentiable)
        kept = replace(run, is_shared=run.is_shared or rows.shape[1] > 1)
        answers = [self._difference(kept, row, score, differentiable=differentiable) for row in rows.unbind(1)]
        return torch.stack(answers, 1)

    def _difference(self, run: Pass, row: Tensor, score: str, *, differentiable: bool) -> Tensor:
        """`sum_s row_s * map_s` over the classes with a weight, [N,h,w]."""
        num_classes = int((row != 0).sum(1).max())
        classes = row.abs().topk(num_classes, dim=1).indices
        one_hot = torch.zeros(*classes.shape, row.shape[1], dtype=row.dtype, device=row.device)
        question = Question(one_hot.scatter(2, classes[..., None], 1.0), score)
        maps = self._maps(run, question, differentiable=differentiable)
        return torch.einsum("nm,nmhw->nhw", row.gather(1, classes).to(maps), maps)

    @contextmanager
    def _started(self, images: Tensor, *, differentiable: bool) -> Iterator[Tensor]:
        """Everything around a call that leaves no trace; gives the checked images."""
        if differentiable and not self.is_differentiable:
            raise NotDifferentiableError(
                f"`differentiable=True`: {type(self).__name__} has no differentiable map; GradCAM and HiResCAM have."
            )
        told = diagnosis.in_our_words(type(self).__name__, self.model)
        with capture.turn(self.model), torch.inference_mode(False), uncompiled(), told:
            checked = _checked(images)
            if differentiable:
                yield checked
            else:
                with capture.undisturbed(self.model, checked.device):
                    yield checked


class InputExplainer(Explainer):
    """Methods that combine the pixels with the gradient that reaches them; maps have the images' size."""

    @abstractmethod
    def combine(self, images: Tensor, gradient: Tensor) -> Tensor:
        """The map `[N,H,W]` of images `[N,C,H,W]` and the gradient there, of the same shape."""

    def _forward(self, images: Tensor, *, differentiable: bool) -> Pass:
        return capture.forward(self.model, images, (), graph="all" if differentiable else "head")

    def _maps(self, run: Pass, question: Question, *, differentiable: bool) -> Tensor:
        gradients = pixel_gradients(run, question, differentiable=differentiable)
        return torch.stack([self.combine(run.images, gradient) for gradient in gradients], 1)


class LayerExplainer(Explainer):
    """Methods that explain at a layer: maps have the size of its grid.

    `layer` is a module or its name; None takes the last feature map before the classifier, found in the first call.
    Feature maps may be `[N,C,h,w]`, channels-last, or tokens whose grid is inferred; `reshape` overrides how the
    layer's output is read.
    """

    def __init__(self, model: nn.Module, layer: Layer = None, *, reshape: Reshape | None = None) -> None:
        super().__init__(model)
        self._layer = None if layer is None else find_layer(self.model, layer)
        self._reshape = reshape

    @property
    def layer(self) -> str | None:
        """The name of the explained layer; None until the first call has found it."""
        return next((name for name, module in self.model.named_modules() if module is self._layer), None)

    def layers(
        self,
        images: Tensor,
        layers: Sequence[str | nn.Module],
        *,
        target: Targets = None,
        contrast: Contrast = None,
        score: str = "logit",
    ) -> Mapping[str, Explanation]:
        """The explanation at each of several layers, from one forward pass; names and arguments as in a call."""
        modules = [find_layer(self.model, layer) for layer in layers]
        if not modules or len(set(modules)) != len(modules):
            raise ArgumentError(f"`layers` must name different layers, at least one; got {list(layers)}.")
        with self._started(images, differentiable=False) as checked:
            run = self._run(checked, modules, graph="head")
            classes = scores.class_indices(target(run.logits) if callable(target) else target, run.logits)
            alone = [replace(run, features=[features], is_shared=True) for features in run.features]
            heatmaps = [
                self._answer(one, classes[:, None], contrast, score, differentiable=False)[:, 0] for one in alone
            ]
        names = {module: name for name, module in self.model.named_modules()}
        return {
            names[module]: _explanation(heatmap, run.logits, classes, differentiable=False)
            for module, heatmap in zip(modules, heatmaps, strict=True)
        }

    def _forward(self, images: Tensor, *, differentiable: bool) -> Pass:
        graph = "all" if differentiable else "head"
        return self._run(images, [self._found_layer(images)], graph=graph)

    def _run(self, images: Tensor, layers: Sequence[nn.Module], *, graph: str) -> Pass:
        """The forward pass of a call, and of `layers`; `graph` as in `capture.forward`."""
        return capture.forward(self.model, images, layers, graph=graph, reshape=self._reshape)

    def _found_layer(self, images: Tensor) -> nn.Module:
        """The layer to explain, found in these images where none was named."""
        if self._layer is None:
            self._layer = self._last_feature_map(images)
        return self._layer

    def _last_feature_map(self, images: Tensor) -> nn.Module:
        """The last layer that gives a map; among tokens, the last whose cells the gradient reaches (the class token of
        a vision transformer takes all of it behind the last attention)."""
        candidates = capture.find_feature_maps(self.model, images)
        if not candidates[0].gives_tokens:
            return candidates[0].module
        for candidate in candidates:
            run = capture.forward(self.model, images[:1], [candidate.module], graph="head", reshape=self._reshape)
            (features,) = run.features
            (gradient,) = torch.autograd.grad(run.logits[:, 0].sum(), features.output)
            if bool((features.maps(gradient) != 0).any()):
                return candidate.module
        raise LayerError(
            f"no gradient reaches any feature map of {type(self.model).__name__} (is its classifier still all zeros?): "
            "pass `layer=` the name of one."
        )


class ActivationExplainer(LayerExplainer):
    """Methods that combine a layer's activation with the gradient that reaches it.

    The gradient is `W^T (dS/dy) / (h w)`, in closed form, where only global average pooling and one linear layer follow
    the layer; that is verified against autograd on the first batch. Otherwise autograd runs through what follows the
    layer, and nothing before it is recorded.
    """

    def __init__(self, model: nn.Module, layer: Layer = None, *, reshape: Reshape | None = None) -> None:
        super().__init__(model, layer, reshape=reshape)
        self._head = LinearHead(self.model)

    @abstractmethod
    def combine(self, activation: Tensor, gradient: Tensor) -> Tensor:
        """The map `[N,h,w]` of an activation `[N,C,h,w]`; the gradient is `[N,C,h,w]`, or `[N,C,1,1]` if constant."""

    def _maps(self, run: Pass, question: Question, *, differentiable: bool) -> Tensor:
        rows, (features,) = question.cotangents(run.logits), run.features
        gradient = self._head.gradient(run, features, rows, differentiable=differentiable)
        activation, dtype, num = features.maps(features.output), rows.dtype, rows.shape[1]
        with torch.set_grad_enabled(differentiable), torch.autocast(activation.device.type, enabled=False):
            repeated = activation.to(dtype).repeat_interleave(num, 0) if num > 1 else activation.to(dtype)
            maps = self.combine(repeated, gradient.to(dtype).flatten(0, 1))
            return maps.reshape(-1, num, *maps.shape[1:])


def pixel_gradients(run: Pass, question: Question, *, differentiable: bool) -> Iterator[Tensor]:
    """`dS/dx` `[N,C,H,W]` of each of the question's M scores, one after the other, at the images of the pass."""
    rows = question.cotangents(run.logits)
    last = rows.shape[1] - 1
    for index, row in enumerate(rows.unbind(1)):
        keep = differentiable or run.is_shared or index < last
        (gradient,) = torch.autograd.grad(run.logits, run.images, row, retain_graph=keep, create_graph=differentiable)
        yield gradient.to(row.dtype)


def _explanation(heatmap: Tensor, logits: Tensor, classes: Tensor, *, differentiable: bool) -> Explanation:
    if differentiable:
        return Explanation(heatmap, logits, classes)
    return Explanation(_check_finite(heatmap.detach()), logits.detach(), classes)


def _checked(images: Tensor) -> Tensor:
    if not isinstance(images, Tensor) or images.ndim != 4 or images.numel() == 0:
        got = list(images.shape) if isinstance(images, Tensor) else type(images).__name__
        raise ArgumentError(
            f"`images` must be a batch [N,C,H,W] with N >= 1, got {got}; add the batch axis with [None]."
        )
    if not images.is_floating_point():
        raise ArgumentError(f"`images` must be floating point, normalised as for the model; got {images.dtype}.")
    return images.clone() if images.is_inference() else images


def _check_finite(heatmap: Tensor) -> Tensor:
    broken = (~heatmap.isfinite()).flatten(1).any(1).nonzero()
    if len(broken):
        raise ArgumentError(
            f"the heatmap of image {int(broken[0])} is not finite: check `images` and the model's weights for NaN, its "
            "activations for overflow, and its logits of changed images where the method asks for them."
        )
    return heatmap
