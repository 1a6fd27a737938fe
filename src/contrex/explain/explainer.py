"""The front door: one call for every method of explanation.

A method is a subclass that turns one forward pass and a question - which scores of the logits - into maps. Targets,
contrasts, many classes, batching and the promise to leave the model as it was are here.

Legend: N images, M questions per image, K classes, C channels, H W image, h w feature grid.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import cached_property
from typing import Any, ClassVar, Unpack

import torch
from torch import Tensor, nn

from contrex.errors import ArgumentError, NotDifferentiableError
from contrex.explain import combined
from contrex.explain.activation.closed_form import LinearHead
from contrex.explain.asked import Asked, Targets
from contrex.explain.checked import checked_images, finite
from contrex.explain.explanation import ClassExplanations, Explanation
from contrex.explain.forward import capture, diagnosis
from contrex.explain.forward.capture import Features, Pass
from contrex.explain.forward.sites import Sites
from contrex.explain.forward.survey import Survey
from contrex.explain.options import About, default_options, in_words, made_with
from contrex.explain.scored import Rival, Scoring, Wanted, of_classes, wanted
from contrex.models import beside
from contrex.models.beside import Inputs
from contrex.models.classes import Names, by_name, checked_names
from contrex.models.classifier import Classifier, network_of
from contrex.models.compiled import uncompiled
from contrex.models.layers import Layer, Reshape, Site, find_run, layer_name, unwrap
from contrex.ops import scores
from contrex.ops.scores import Contrast, Question
from contrex.settings.combination import Augment, Fuse


class Explainer(ABC):
    """Explains any classifier `images [N,C,H,W] -> logits [N,K]`, and with a `score` whatever else a network returns.

    A call leaves the model as it was: `.grad`, `requires_grad`, train / eval flags, batch-norm buffers, hooks, random
    state and memory, also when it raises. It works under `no_grad`, `inference_mode` and autocast, on frozen
    parameters, from several threads, and on models wrapped by `torch.compile` or DDP (it explains the module inside).

    `model` may be a `contrex.models.Classifier` (`contrex.load`), which has names; images are normalised as ever.
    `names` are those of the classes, one for each, a mapping from indices, or `"imagenet"`: targets and contrasts may
    then be names, and explanations are shown with them. `output` is a function from what the model returns to the
    logits [N,K], where that is more than logits and contrex cannot tell (`models/outputs.py`).

    `augment` averages the maps of changed copies of each image, "flip, scale(0.75, 1.25), times(0.9, 1.1)"; `fuse`
    makes one map of those of several layers, "mean(layer3, layer4)" (`settings/combination.py`).

    Maps are computed in eval mode. With `differentiable=True` the call is part of a training step instead: the model
    runs in the mode it is in, and batch norm in train mode updates its statistics as in any training forward.
    """

    name: ClassVar[str] = ""
    """What lists and commands call the method; empty for bases, and for methods that need more than a model."""
    unit: ClassVar[str] = ""
    """What a cell of the map is worth, in words, with `{score}` for what is explained: "share of the {score}" where the
    map is made of the score, cell by cell; empty where its scale means nothing."""
    is_density: bool | None = None
    """Whether cells share something out, so that a map of more cells has less in each; None where `unit` says it: those
    of shares and slopes do."""
    is_linear: bool = True
    """Whether the map is linear in the score. Then a contrast is one map of the contrasted score; otherwise it is the
    difference of the signed maps of the classes, as Proposition 3 of "Why Not Other Classes?" asks."""
    is_differentiable: ClassVar[bool] = True
    is_class_specific: ClassVar[bool] = True
    """Whether the map depends on the explained class; otherwise there is no contrast."""
    augment: Augment | None = None
    """Changed copies of the images whose maps are averaged, told by the option of that name."""
    fuse: Fuse | None = None
    """Layers whose maps are fused, told by the option of that name."""
    default_fuse: ClassVar[str | None] = None
    ranks: ClassVar[tuple[int, ...]] = (2,)
    """What is explained: 1 for signals `[N,C,L]`, 2 for pictures, 3 for volumes `[N,C,D,H,W]`."""

    @property
    def place(self) -> str | None:
        """The layer that was explained last, in words; None where it is the pixels, or nothing yet."""
        return None

    def __init__(
        self,
        model: nn.Module | Classifier,
        *,
        names: Names | None = None,
        output: Callable[[Any], Tensor] | None = None,
        augment: str | None = None,
        fuse: str | None = None,
    ) -> None:
        if isinstance(model, Classifier):
            names = model.names if names is None else names
        model = network_of(model)
        if output is not None and not callable(output):
            raise ArgumentError(f"`output` must be a function of what the model returns, got {type(output).__name__}.")
        self.model = unwrap(model)
        self.names = checked_names(names)
        self.output = output
        combined.tell(self, augment, self.default_fuse if fuse is None else fuse)

    @property
    def options(self) -> Mapping[str, Any]:
        """The options that the explainer was made with, without its layer; in words what is no number or text."""
        return made_with(self)

    @cached_property
    def configured(self) -> tuple[str, Mapping[str, Any]]:
        """The name with the options that differ from their defaults, as in `--explainer`, and all options."""
        kind, options = type(self), {**self.options, **combined.told(self)}
        defaults = {**default_options(kind), "fuse": self.default_fuse}
        return in_words(self.name or kind.__name__, options, defaults), options

    def __call__(
        self,
        images: Tensor,
        *,
        target: Targets = None,
        contrast: Rival = None,
        score: Scoring = "logit",
        task: str | None = None,
        differentiable: bool = False,
        inputs: Inputs | None = None,
    ) -> Explanation:
        """Explain why each image is `target` - and, with a contrast, not another class.

        Args:
            images: `[N,C,H,W]`, floating point, normalised as the model expects. Most methods also explain signals
                `[N,C,L]` and volumes `[N,C,D,H,W]`; their maps are `[N,l]` and `[N,d,h,w]`.
            target: the explained class: None (top prediction), an int, a sequence or tensor `[N]`, or a function from
                the logits `[N,K]` to classes `[N]`; where the explainer has `names`, also a name, or one per image.
            contrast: None, `"mean"`, `"max"`, `"weighted"` or `"nearest"`, with options as in
                `"nearest(k=3, alpha=1.0)"` and `"weighted(strength=0.5)"`; another class (an int, or one per image
                `[N]`; by name as the target), or several other classes (`[1,F]`, or `[N,F]`).
            score: what is explained of a class: its `"logit"`, `"probability"` or `"log_probability"`. Or what is
                explained in its place: a function from what the model returns - or what `output` makes of it - to one
                number per image [N], or one of `contrex.explain.targets`: a region, a detection, a likeness. Then the
                contrast is another function, whose explanation is taken off, and there are no classes.
            task: what the logits are: `"multiclass"` (a softmax over K >= 2), `"binary"` (a sigmoid of one) or
                `"multilabel"` (a sigmoid of each, also of one, whose only class is 0); None is binary for one logit,
                multiclass for more. One logit y has the classes 0 and 1, with the logits -y and y: class 1 is the
                prediction where y > 0, and a contrast is with the other side, y itself. Labels do not compete, so the
                weighted contrast of one is its logit; the other contrasts are those of the logits.
            differentiable: return maps and logits with a graph to every parameter, for a loss on the explanation.
            inputs: what the model's forward gets behind the images: a tensor, a tuple, or a mapping by name; or
                `contrex.models.Arguments`, which says where among them the images go. Tensors have a row for each image
                and go with it, whatever a method asks about it (captum's `additional_forward_args`); other values are
                the same for all.

        Raises:
            ArgumentError: an argument does not fit, or the model gives NaN.
            LayerError: the layer does not give a feature map.
            NotDifferentiableError: the method has no differentiable map; the message names some that have.
        """
        asking = wanted(score, target, contrast, task)
        with self._started(images, inputs, asking, differentiable=differentiable) as checked:
            run = self._forward(checked, differentiable=differentiable)
            asked = Asked.by(asking, self.names, run.logits)
            classes = asked.classes(asking.target, run.logits)
            heatmap = self._answer(run, classes[:, None], asked, differentiable=differentiable)[:, 0]
            known = kept_of(self, asked)
        return _explanation(heatmap, run.logits, classes, known, differentiable=differentiable)

    def classes(
        self,
        images: Tensor,
        k: int | None = None,
        *,
        classes: Sequence[int] | Sequence[str] | Sequence[Sequence[int]] | Tensor | None = None,
        contrast: Contrast = None,
        score: Scoring = "logit",
        task: str | None = None,
        threshold: float | None = None,
        inputs: Inputs | None = None,
    ) -> ClassExplanations:
        """The signed maps of the `k` most probable classes of each image, most probable first, in one forward pass.

        `classes` names them instead: one list `[M]` for all images, or `[N,M]`. Without `k` they are the first 5, or
        both sides of one logit; `contrast`, `score`, `task` and `inputs` as in a call. With `task="multilabel"` they
        are the labels with a probability above `threshold` (0.5): images differ in their number, maps are `[N,M]`, so M
        is that of the image with the most, at least 1, and `present` [N,M] of the result says which count.
        """
        asked = {"classes": classes, "score": score, "task": task, "threshold": threshold, "inputs": inputs}
        return self.contrasts(images, [contrast], k, **asked)[0]  # type: ignore[arg-type]

    def contrasts(
        self,
        images: Tensor,
        contrasts: Sequence[Contrast],
        k: int | None = None,
        *,
        classes: Sequence[int] | Sequence[str] | Sequence[Sequence[int]] | Tensor | None = None,
        score: Scoring = "logit",
        task: str | None = None,
        threshold: float | None = None,
        inputs: Inputs | None = None,
    ) -> list[ClassExplanations]:
        """What `classes` gives for each of several contrasts, from one forward pass for all of them."""
        asking = of_classes(score, contrasts, task)
        with self._started(images, inputs, asking, differentiable=False) as checked:
            run = replace(self._forward(checked, differentiable=False), is_shared=len(contrasts) > 1)
            questions = [Asked.by(replace(asking, contrast=one), self.names, run.logits) for one in contrasts]
            task = scores.task_of(run.logits, task)
            chosen = scores.many_classes(by_name(classes, self.names, "`classes`"), run.logits, k, task, threshold)
            least = scores.checked_threshold(threshold, task)
            answers = [self._answer(run, chosen, asked, differentiable=False) for asked in questions]
            known = [kept_of(self, asked) for asked in questions]
        logits = run.logits.detach()
        return [
            ClassExplanations(finite(maps).detach(), logits, chosen, threshold=least, **about)
            for maps, about in zip(answers, known, strict=True)
        ]

    @abstractmethod
    def _forward(self, images: Tensor, *, differentiable: bool) -> Pass:
        """Run the model once and keep what `_maps` needs."""

    @abstractmethod
    def _maps(self, run: Pass, question: Question, *, differentiable: bool) -> Tensor:
        """The maps `[N,M,h,w]` of the M scores per image that `question` asks for."""

    def _answer(self, run: Pass, classes: Tensor, asked: Asked, *, differentiable: bool) -> Tensor:
        """Maps `[N,M,h,w]` of `classes` [N,M], by whichever of Proposition 3's roads is right for the method."""
        if not self.is_class_specific and (asked.contrast is not None or asked.score != "logit" or asked.told):
            name = "score" if asked.contrast is None else "contrast"
            raise ArgumentError(f"`{name}` means nothing to {type(self).__name__}: its map is the same for any class.")
        question = asked.question(run.logits, classes)
        if not differentiable and self.is_class_specific:
            diagnosis.check_scores(run.images, run.logits, question)

        def answer(explainer: Explainer, run: Pass) -> Tensor:
            if explainer.is_linear or asked.contrast is None:
                return run.at_grid(combined.maps_of(explainer, run, question, differentiable=differentiable))
            # Each question runs backwards through the same graph, which the first must not free.
            kept = replace(run, is_shared=run.is_shared or classes.shape[1] > 1)
            alone = [replace(question, rows=row[:, None]) for row in question.rows.unbind(1)]
            maps = [explainer._difference(kept, one, differentiable=differentiable) for one in alone]
            return run.at_grid(torch.stack(maps, 1))

        return combined.averaged(self, run, answer, differentiable=differentiable)

    def _difference(self, run: Pass, question: Question, *, differentiable: bool) -> Tensor:
        """`sum_s row_s * map_s` over the classes with a weight, [N,h,w], for a question of one row."""
        row = question.rows[:, 0]
        # Waits for the device, but nearly always it leaves a few of all the classes, each of which costs a map.
        num_classes = int((row != 0).sum(1).max())
        classes = row.abs().topk(num_classes, dim=1).indices
        one_hot = torch.zeros(*classes.shape, row.shape[1], dtype=row.dtype, device=row.device)
        single = replace(question, rows=one_hot.scatter(2, classes[..., None], 1.0))
        maps = combined.maps_of(self, run, single, differentiable=differentiable)
        return torch.einsum("nm,nm...->n...", row.gather(1, classes).to(maps), maps)

    @contextmanager
    def _started(
        self, images: Tensor, inputs: Inputs | None, asking: Wanted | None = None, *, differentiable: bool
    ) -> Iterator[Tensor]:
        """Surround a call so that it leaves no trace; gives the checked images. Outputs are read as what it is asking,
        logits where it does not say."""
        if differentiable and not self.is_differentiable:
            raise NotDifferentiableError(
                f"`differentiable=True`: {type(self).__name__} has no differentiable map; GradCAM and HiResCAM have."
            )
        told = diagnosis.in_our_words(type(self).__name__, self.model)
        # Tensors of inference mode can never be in a graph: it is switched off, and `checked_images` copies such ones.
        with capture.turn(self.model), torch.inference_mode(False), uncompiled(), told:
            checked, asking = checked_images(images, self), asking or wanted("logit", None, None, None)
            with asking.read(self.model, checked, self.output), beside.given(inputs, len(checked)):
                if differentiable:
                    yield checked
                else:
                    with capture.undisturbed(self.model, checked.device):
                        yield checked


class InputExplainer(Explainer):
    """Methods that combine the pixels with the gradient that reaches them; maps have the images' size."""

    ranks: ClassVar[tuple[int, ...]] = (1, 2, 3)

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

    `layer` is a module or its name; None takes the last feature map that the logits come through: with it detached, no
    gradient would reach the pixels. That is looked up for each size of the images, and again once a module of the model
    was replaced or changed its mode. A layer that is named is used as it is; where more than a tenth of the gradient
    flows past it a `LayerWarning` says how much. A module that runs several times in a pass is named with the number of
    a run, from 0 on: "act:1", "act:-1" for the last.

    Feature maps may be `[N,C,h,w]`, channels-last, or tokens of a grid, as the network's own graph tells; `reshape`
    overrides how the layer's output is read.
    """

    def __init__(
        self,
        model: nn.Module | Classifier,
        layer: Layer = None,
        *,
        reshape: Reshape | None = None,
        **about: Unpack[About],
    ) -> None:
        super().__init__(model, **about)
        if layer is not None:
            find_run(self.model, layer)
        self._asked = layer
        self._reshape = reshape
        self._sites = Sites(self.model, reshape)
        self._site: Site | None = None
        self._last: Sequence[Site] = ()
        combined.check_fuse(self)

    @property
    def layer(self) -> str | None:
        """The name of the layer that was explained last; before the first call, the one that was asked for."""
        if self._site is None:
            return None if self._asked is None else _name_of(self._asked, self.model)
        return self._site.name

    @property
    def grid(self) -> tuple[int, ...] | None:
        """Rows and columns of the map that was explained last; None before the first call."""
        return None if self._site is None else self._site.grid

    @property
    def place(self) -> str | None:
        """The layer that was explained last, and its grid, in words: "layer4, 7 x 7"."""
        return None if self.grid is None else f"{self.layer}, {' x '.join(map(str, self.grid))}"

    def layers(
        self,
        images: Tensor,
        layers: Sequence[str | nn.Module],
        *,
        target: Targets = None,
        contrast: Rival = None,
        score: Scoring = "logit",
        task: str | None = None,
        inputs: Inputs | None = None,
    ) -> Mapping[str, Explanation]:
        """The explanation at each of several layers, from one forward pass; names and arguments as in a call."""
        runs = [find_run(self.model, layer) for layer in layers]
        if not runs or len(set(runs)) != len(runs):
            raise ArgumentError(f"`layers` must name different layers, at least one; got {list(layers)}.")
        asking = wanted(score, target, contrast, task)
        with self._started(images, inputs, asking, differentiable=False) as checked:
            sites = self._sites.find(checked, layers)
            run = self._checked_run(checked, sites, graph="head")
            asked = Asked.by(asking, self.names, run.logits)
            classes = asked.classes(asking.target, run.logits)
            heatmaps = [
                combined.at_layer(self, layer)._answer(
                    replace(run, features=[features], is_shared=True), classes[:, None], asked, differentiable=False
                )[:, 0]
                for layer, features in zip(layers, run.features, strict=True)
            ]
        return {
            site.name: _explanation(
                heatmap,
                run.logits,
                classes,
                {**kept_of(self, asked), "layer": site.name, "grid": site.grid},
                differentiable=False,
            )
            for site, heatmap in zip(sites, heatmaps, strict=True)
        }

    def _forward(self, images: Tensor, *, differentiable: bool) -> Pass:
        if differentiable:
            return self._run(images, self._found_sites(images), graph="all")
        known = None
        if self._asked is None and self.fuse is None:
            known = self._sites.run_as_seen(images, lambda site: self._run(images, [site], graph="head"))
        sites = self._found_sites(images)
        return known or self._checked_run(images, sites, graph="head")

    def _checked_run(self, images: Tensor, layers: Sequence[Site], *, graph: str) -> Pass:
        """Run a pass in eval mode, and compare the first one of its kind with the model's own."""
        run = self._run(images, layers, graph=graph)
        self._sites.check_pass(run)
        return run

    def _run(self, images: Tensor, layers: Sequence[Site], *, graph: str) -> Pass:
        """The forward pass of a call, and of `layers`; `graph` as in `capture.forward`."""
        return capture.forward(self.model, images, layers, graph=graph)

    def _found_sites(self, images: Tensor) -> Sequence[Site]:
        """The layer to explain for images of this size, or those to fuse, and how their outputs are read."""
        if self.fuse is None:
            (self._site,) = self._last = self._sites.find(images, [self._asked], choose=self._choose)
            return self._last
        sites = self._sites.find(images, self.fuse.layers) if self.fuse.layers else self._sites.find_each(images)
        self._last = sites
        finest = max(sites, key=lambda site: math.prod(site.grid))
        self._site = replace(finest, name=", ".join(site.name for site in sites))
        return sites

    def _choose(self, survey: Survey) -> Site:
        """Choose the layer for a caller who named none."""
        return survey.choose(self._reshape)


class ActivationExplainer(LayerExplainer):
    """Methods that combine a layer's activation with the gradient that reaches it.

    The gradient is `W^T (dS/dy) / (h w)`, in closed form, where only global average pooling and one linear layer follow
    the layer; that is verified against autograd on the first batch. Otherwise autograd runs through what follows the
    layer, and nothing before it is recorded. Of signals maps have h = 1; of volumes h are the rows of all slices.
    """

    ranks: ClassVar[tuple[int, ...]] = (1, 2, 3)

    def __init__(
        self,
        model: nn.Module | Classifier,
        layer: Layer = None,
        *,
        reshape: Reshape | None = None,
        **about: Unpack[About],
    ) -> None:
        super().__init__(model, layer, reshape=reshape, **about)
        self._head = LinearHead(self.model)

    @abstractmethod
    def combine(self, activation: Tensor, gradient: Tensor) -> Tensor:
        """The map `[N,h,w]` of an activation `[N,C,h,w]`; the gradient is `[N,C,h,w]`, or `[N,C,1,1]` if constant."""

    def _gradient(self, run: Pass, features: Features, question: Question, *, differentiable: bool) -> Tensor:
        """What is combined with the activation, for each score: `[N,M,C,h,w]`, or `[N,M,C,1,1]` if constant."""
        return self._head.gradient(run, features, question.cotangents(run.logits), differentiable=differentiable)

    def _maps(self, run: Pass, question: Question, *, differentiable: bool) -> Tensor:
        (features,), dtype, num = run.features, question.rows.dtype, question.rows.shape[1]
        gradient = self._gradient(run, features, question, differentiable=differentiable)
        activation = features.maps(features.output)
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


def _name_of(layer: str | nn.Module, model: nn.Module) -> str:
    """The name of a layer, with the number of its run where one was named."""
    module, run = find_run(model, layer)
    return layer_name(module, model) if run is None else f"{layer_name(module, model)}:{run}"


def kept_of(explainer: Explainer, asked: Asked) -> dict[str, Any]:
    """What an explanation keeps of the explainer and the question: all is at hand, nothing waits for the device."""
    name, options = explainer.configured
    score = "score" if asked.task == scores.ALONE else asked.score.replace("_", "-")
    layer, grid = (explainer.layer, explainer.grid) if isinstance(explainer, LayerExplainer) else (None, None)
    return {
        "task": asked.task,
        "contrast": asked.contrast,
        "score": asked.told or asked.score,
        "explainer": name,
        "options": options,
        "layer": layer,
        "grid": grid,
        "names": asked.names,
        "unit": "" if explainer.fuse is not None else explainer.unit.format(score=score),
    }


def _explanation(
    heatmap: Tensor, logits: Tensor, classes: Tensor, known: dict[str, Any], *, differentiable: bool
) -> Explanation:
    if differentiable:
        return Explanation(heatmap, logits, classes, **known)
    return Explanation(finite(heatmap.detach()), logits.detach(), classes, **known)
