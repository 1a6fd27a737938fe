"""Any attribution class of captum behind this front door; needs the extra `captum`."""

from __future__ import annotations

import contextlib
import importlib
import inspect
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from contrex.errors import ArgumentError, ContrexError, LayerError, unknown_name
from contrex.explain import combined
from contrex.explain.adaptors import unseen
from contrex.explain.explainer import Explainer
from contrex.explain.forward import capture
from contrex.explain.forward.capture import Pass
from contrex.explain.forward.sites import Sites
from contrex.explain.options import in_words, plain
from contrex.models.beside import about
from contrex.models.classes import Names
from contrex.models.classifier import Classifier
from contrex.models.layers import Reshape, Site, find_layer, layer_name
from contrex.models.outputs import model_logits
from contrex.ops.scores import Question, weighed

_LINEAR = {
    "IntegratedGradients",
    "DeepLift",
    "DeepLiftShap",
    "GradientShap",
    "InputXGradient",
    "FeatureAblation",
    "Occlusion",
    "ShapleyValues",
    "ShapleyValueSampling",
    "LayerIntegratedGradients",
    "LayerDeepLift",
    "LayerDeepLiftShap",
    "LayerGradientShap",
    "LayerGradientXActivation",
    "LayerConductance",
}
"""Methods whose attribution is linear in the score: a contrast costs them one call, not one per class."""
_SHARES = {
    "Conductance",
    "Deconvolution",
    "DeepLift",
    "DeepLiftShap",
    "GradCam",
    "GradientShap",
    "GradientXActivation",
    "GuidedBackprop",
    "InputXGradient",
    "IntegratedGradients",
    "InternalInfluence",
    "LRP",
    "Saliency",
}
"""Methods, of the pixels or a layer, whose cells are shares of the score or slopes."""
_LOGITS_ONLY = ("DeepLift", "LRP")
"""Parts of the names of methods that replace the backward rule of modules; softmax and sigmoid of a score are none."""


_AT_PIXELS = ("GuidedGradCam", "NeuronConductance")
"""Methods that have a `layer`, and give a map of the pixels."""
_MEAN_OVER_CELLS = ("LayerGradCam", "GuidedGradCam")
"""Methods that average a layer's gradient over all axes but the second, as if that were always the channels."""


class Captum(Explainer):
    """`sum_c a_c` of captum's attribution a of the score to the pixels, or to the channels of a layer.

        Captum(model, "IntegratedGradients", n_steps=64)
        Captum(model, "GradientShap", baselines=torch.zeros(8, 3, 224, 224), stdevs=0.1)
        Captum(model, "LayerGradCam", layer="layer3")

    `attribution` is the name of a class in `captum.attr` that attributes an output; `options` are those of its
    constructor and of its `attribute()`, a `layer` also by name. Which axis of the layer is the channels is told by the
    network's graph, as everywhere, or by `reshape`. Images are explained one at a time, so that memory and
    results do not depend on the batch. captum draws from the global generators of torch and numpy: they start from
    `seed` for each image and are put back afterwards.

    Raises:
        CaptumMissingError: captum is not installed.
        ArgumentError: an option does not belong to the class or is missing.
        LayerError: the layer gives no map, or not one that captum's class can read; or captum's class changes the rules
            of modules (guided backprop, DeepLift, LRP), and the network calls functions that it does not see.
    """

    is_linear = False
    is_differentiable = False
    ranks = (1, 2, 3)

    def __init__(
        self,
        model: nn.Module | Classifier,
        attribution: str,
        /,
        *,
        seed: int = 0,
        names: Names | None = None,
        output: Callable[[Any], Tensor] | None = None,
        augment: str | None = None,
        reshape: Reshape | None = None,
        **options: Any,
    ) -> None:
        super().__init__(model, names=names, output=output, augment=augment)
        self._kind = _attribution_class(attribution)
        if "layer" in options:
            options["layer"] = find_layer(self.model, options["layer"])
        if reshape is not None and ("layer" not in options or attribution in _AT_PIXELS):
            raise ArgumentError(f"`reshape` reads a layer, and captum's {attribution} gives no map of one: drop it.")
        self._layer, self._sites = options.get("layer"), Sites(self.model, reshape)
        _, *made_with = inspect.signature(self._kind).parameters.values()
        called_with = inspect.signature(self._kind.attribute).parameters.values()
        self._made_with, self._called_with = _sorted(attribution, options, made_with, list(called_with)[2:])
        self._name, self._seed = attribution, seed
        self.is_density = attribution.removeprefix("Layer") in _SHARES
        told = {name: plain(value) for name, value in options.items()}
        told |= {"layer": layer_name(options["layer"], self.model)} if "layer" in options else {}
        told |= {} if reshape is None else {"reshape": plain(reshape)}
        self._told = {**told, "seed": seed}

    @cached_property
    def configured(self) -> tuple[str, Mapping[str, Any]]:
        """The name with its options, as in `--explainer`, and all that it was told."""
        options = {**self._told, **combined.told(self)}
        return in_words(f"captum:{self._name}", options, {"seed": 0}), options

    def _forward(self, images: Tensor, *, differentiable: bool) -> Pass:
        layer = None if self._name in _AT_PIXELS else self._layer
        with unseen.checked(self._name, self.model, layer):
            run = capture.forward(self.model, images, (), graph="none")
        if unseen.changes_in_place(self._name, self.model):
            with unseen.apart(self._name, self.model):
                copied = capture.forward(self.model, images, (), graph="none").logits
            if not torch.allclose(copied, run.logits, 1e-3, 1e-3 * float(run.logits.abs().max()), equal_nan=True):
                raise LayerError(
                    f"{type(self.model).__name__} goes on with what an activation changed in place, which captum's "
                    f"{self._name} takes for unchanged: set inplace=False, with what follows as it is meant."
                )
        return run

    def _maps(self, run: Pass, question: Question, *, differentiable: bool) -> Tensor:
        if question.score != "logit" and any(part in self._name for part in _LOGITS_ONLY):
            raise ArgumentError(
                f"`score` must be 'logit' for captum's {self._name}, which has no rule for a softmax or sigmoid; got "
                f"{question.score!r}."
            )
        maps, site = [], self._site(run.images)
        for n, (image, rows) in enumerate(zip(run.images.detach(), question.rows, strict=True)):
            with about(n):
                maps.append(
                    torch.stack([self._attribute(image, replace(question, rows=row[None, None]), site) for row in rows])
                )
        return torch.stack(maps)

    def _difference(self, run: Pass, question: Question, *, differentiable: bool) -> Tensor:
        if self._name in _LINEAR and "custom_attribution_func" not in self._called_with:
            return self._maps(run, question, differentiable=differentiable)[:, 0]
        return super()._difference(run, question, differentiable=differentiable)

    def _site(self, images: Tensor) -> Site | None:
        """Where the layer's maps are read; None for maps of the pixels."""
        if self._layer is None or self._name == "NeuronConductance":
            return None
        if self._called_with.get("attribute_to_layer_input"):
            site = self._sites.entering(images, self._layer)
        else:
            (site,) = self._sites.find(images, [self._layer])
        if site.run is not None:
            raise LayerError(
                f"`layer` {site.name!r} is one of several runs, which captum takes for one: choose another."
            )
        if self._name in _MEAN_OVER_CELLS and not _is_channels_first(site):
            raise LayerError(
                f"captum's {self._name} reads a layer as [N,C,h,w], and {site.name!r} is none: use contrex.GradCAM or "
                "GuidedGradCAM, or choose another `layer`."
            )
        return None if self._name in _AT_PIXELS else site

    def _attribute(self, image: Tensor, question: Question, site: Site | None) -> Tensor:
        """The map `[h,w]` of one image `[C,H,W]` for a question of one row `[1,1,Z]`."""
        attribution = self._kind(_Score(self.model, question), **self._made_with)
        usual = torch.device("cpu")  # the default device that captum is written for, whatever the caller's is
        # Seeded for each image, so that a map does not depend on the images before it.
        with _seeded(self._seed), torch.enable_grad(), usual, unseen.apart(self._name, self.model):
            found = attribution.attribute(image[None].clone().requires_grad_(), **self._called_with)
        # Grad-CAM's has no channels any more.
        shapes = [image.shape] if site is None else [site.shape, (1, *(site.shape or ())[1:])]
        if not isinstance(found, Tensor) or found.shape[1:] not in shapes:
            got = list(found.shape) if isinstance(found, Tensor) else type(found).__name__
            raise LayerError(f"captum's {self._name} gave {got}, no map [1,C,h,w]: choose another `layer`.")
        found = found.detach()
        if site is not None:
            found = found.flatten(2) if self._name in _MEAN_OVER_CELLS else site.maps(found)
            found = found.reshape(*found.shape[:2], *site.grid)
        return found[0].sum(0).to(question.rows.dtype)


def _is_channels_first(site: Site) -> bool:
    """Whether a layer's output is its maps as it stands: channels, and then the cells."""
    assert site.shape is not None
    entries = torch.arange(site.shape.numel(), device="cpu").reshape(1, *site.shape)
    return torch.equal(site.maps(entries).flatten(2), entries.flatten(2))


class CaptumMissingError(ContrexError, ImportError):
    """Raised where the package captum is not installed."""


class _Score(nn.Module):
    """A model whose only output is the score of a question, [N]."""

    def __init__(self, model: nn.Module, question: Question) -> None:
        super().__init__()
        self.model = model
        self._question = question

    def forward(self, images: Tensor) -> Tensor:
        rows = self._question.rows
        outputs = self._question.outputs(model_logits(self.model, images.clone()).to(rows.dtype))
        return weighed(rows[0], outputs)[0]


def _attribution_class(name: str) -> Any:
    """captum's class of that name, if it attributes an output of a model."""
    try:
        attr = importlib.import_module("captum.attr")
    except ModuleNotFoundError as error:
        if error.name not in ("captum", "captum.attr"):
            raise
        raise CaptumMissingError("Captum needs the package captum: pip install 'contrex[captum]'.") from None
    kinds = {each: kind for each, kind in vars(attr).items() if inspect.isclass(kind) and _attributes_outputs(kind)}
    if name not in kinds:
        raise unknown_name("`attribution`", name, kinds)
    return kinds[name]


def _attributes_outputs(kind: Any) -> bool:
    """Whether a class is made from a model and explains an output of it - not a neuron, nor through another method -
    for one image: permutations exchange features between images."""
    if "Permutation" in kind.__name__:
        return False
    made_with = next(iter(inspect.signature(kind).parameters), None)
    return (
        made_with in ("model", "forward_func")
        and "target" in inspect.signature(getattr(kind, "attribute", lambda: None)).parameters
    )


def _sorted(
    name: str, options: dict[str, Any], made_with: list[inspect.Parameter], called_with: list[inspect.Parameter]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Sort options into those of the constructor of captum's class `name` and those of its `attribute()`."""
    ours = ("target", "additional_forward_args", "return_convergence_delta")
    kinds = [
        {each.name: each for each in parameters if each.kind is not each.VAR_KEYWORD and each.name not in ours}
        for parameters in (made_with, called_with)
    ]
    for option in options:
        if all(option not in known for known in kinds):
            raise unknown_name(f"option of captum's {name}", option, [*kinds[0], *kinds[1]])
    for each in [*kinds[0].values(), *kinds[1].values()]:
        if each.default is each.empty and each.name not in options:
            raise ArgumentError(f"captum's {name} needs `{each.name}`: pass Captum(model, {name!r}, {each.name}=...).")
    made, called = ({option: options[option] for option in known if option in options} for known in kinds)
    return made, called


@contextlib.contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """The global generators start from `seed`; numpy's is put back here, torch's by the front door."""
    state = np.random.get_state()  # noqa: NPY002 - the one that captum draws from
    try:
        torch.manual_seed(seed)
        np.random.seed(seed)  # noqa: NPY002
        yield
    finally:
        np.random.set_state(state)  # noqa: NPY002
