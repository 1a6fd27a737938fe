"""A classifier as an encoder and its last linear layer, and the projection head of contrastive learning.

Contrastive methods train `e = Proj(Enc(x))` and classify with `fc(Enc(x))`. Any classifier that ends in one linear
layer is such a pair: the encoder is what comes before it. Nothing is cut apart, so names, weights files and explainers
stay as they are; `forward_features` of `contrex.explain.forward.capture` reads what the linear layer gets in an
ordinary pass.

Legend: N images, D features, K classes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import takewhile

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules import activation

from contrex.errors import ArgumentError, LayerError
from contrex.models.layers import unwrap

_CLASSIFIERS = ("fc", "classifier", "head", "heads", "last_linear")
"""What torchvision's and other people's networks call the part that makes the logits; timm's tell by themselves."""
_PASSED = (nn.Dropout, nn.Identity, nn.Flatten)
"""Layers that may follow the linear one."""
_ACTIVATIONS = tuple(vars(activation)[name] for name in activation.__all__)
"""What the features of an encoder come from, and logits do not."""


def classifier_head(network: nn.Module) -> tuple[str, nn.Linear]:
    """The name and the layer of the linear classifier at a network's end; D is its `in_features`, K its `out_features`.

    Looked up in this order: `network.get_classifier()` (timm); the last child called `fc`, `classifier`, `head`,
    `heads` or `last_linear`; the end of a `nn.Sequential`; the only linear layer. Of several layers the last is meant,
    so VGG's D is 4096. Wrappers are looked through, and the name is that in the plain network.

    Raises:
        LayerError: the classifier is no linear layer (the 1x1 convolution of SqueezeNet, DPN or DLA), there are several
            (CrossViT, distilled transformers), or none was found.

    >>> from contrex.models import build_network
    >>> classifier_head(build_network("contrex:convnet", {}, num_classes=3))
    ('fc', Linear(in_features=128, out_features=3, bias=True))
    """
    network = unwrap(network)
    linear = _linear_at_end(_classifier(network), network)
    return next(name for name, module in network.named_modules() if module is linear), linear


def classifier_heads(network: nn.Module) -> Mapping[str, nn.Linear]:
    """The linear classifiers by name, found as `classifier_head` finds the only one: distilled transformers have two.

    Raises:
        LayerError: the classifier is no linear layer, or none was found.
    """
    network = unwrap(network)
    part = _classifier(network)
    parts = list(part) if isinstance(part, (tuple, list, nn.ModuleList)) else [part]
    linears = [_linear_at_end(one, network) for one in parts]
    return {name: module for name, module in network.named_modules() if any(module is one for one in linears)}


def check_classifier(network: nn.Module) -> None:
    """Refuse a network whose classifier was left out or taken off: it gives embeddings, which are no scores of classes.

    Known by `nn.Identity` where its last layer should be: what `num_classes=0` and `reset_classifier(0)` leave (timm),
    `network.fc = nn.Identity()`, or one behind an activation or norm at the end of a `nn.Sequential`.

    Raises:
        ArgumentError: there is no classifier.
    """
    network = unwrap(network)
    part = _part_of_classes(network)
    if getattr(network, "num_classes", None) == 0 or _is_cut(part, is_whole=part is network):
        raise ArgumentError(
            f"`model` {type(network).__name__} has no classifier (num_classes=0, or nn.Identity in its place): it "
            "gives embeddings, not scores of classes. Build it with `num_classes`, call `reset_classifier(K)`, or put "
            "the nn.Linear that was trained on them at its end."
        )


class ProjectionHead(nn.Module):
    """Features `[N,D]` to embeddings `[N,E]` of unit length: linear, ReLU, linear, L2 (SupCon, section 3.1).

    The hidden layer is as wide as its input where `dim_hidden` is None, as in SupCon's published code. The length is
    divided out in float32 or better, also under autocast and of a bfloat16 module.

    Raises:
        ArgumentError: a dimension is below 1.

    >>> ProjectionHead(4, dim_out=2)(torch.ones(3, 4)).shape
    torch.Size([3, 2])
    """

    def __init__(self, dim_in: int, dim_hidden: int | None = None, dim_out: int = 128) -> None:
        super().__init__()
        dim_hidden = dim_in if dim_hidden is None else dim_hidden
        if min(dim_in, dim_hidden, dim_out) < 1:
            raise ArgumentError(
                f"`dim_in`, `dim_hidden` and `dim_out` must be at least 1, got {dim_in}, {dim_hidden} and {dim_out}."
            )
        self.hidden = nn.Linear(dim_in, dim_hidden)
        self.out = nn.Linear(dim_hidden, dim_out)

    def forward(self, features: Tensor) -> Tensor:
        """The embeddings `[...,E]` of features `[...,D]`."""
        embeddings: Tensor = self.out(self.hidden(features).relu())
        return F.normalize(embeddings.to(torch.promote_types(embeddings.dtype, torch.float32)), dim=-1)


def _classifier(network: nn.Module) -> object:
    """The part of the network that makes the logits."""
    if callable(own := getattr(network, "get_classifier", None)):
        return own()
    named = [module for name, module in network.named_children() if name in _CLASSIFIERS]
    if named:
        return named[-1]
    return network if isinstance(network, nn.Sequential) else _only(_linears(network), network)


def _part_of_classes(network: nn.Module) -> object:
    """The part of the network that makes the logits; None where nothing tells."""
    try:
        return _classifier(network)
    except Exception:  # a stranger's `get_classifier` may raise anything
        return None


def _is_cut(part: object, *, is_whole: bool = False) -> bool:
    """Whether the last layer of a part that should make logits has been taken off."""
    if isinstance(part, (tuple, list, nn.ModuleList)):
        return len(part) > 0 and all(_is_cut(one) for one in part)
    if not isinstance(part, (nn.Identity, nn.Sequential)):
        return False
    layers = [part] if isinstance(part, nn.Identity) else [layer for layer in part.modules() if _is_leaf(layer)]
    passed = list(takewhile(_is_passed, reversed(layers)))
    if len(passed) == len(layers):  # nothing that could make logits
        return not is_whole
    before = layers[-1 - len(passed)]
    is_feature = isinstance(before, _ACTIVATIONS) or "Norm" in type(before).__name__
    return is_feature and any(isinstance(layer, nn.Identity) for layer in passed)


def _is_leaf(module: nn.Module) -> bool:
    return not list(module.children()) and not isinstance(module, nn.Sequential)


def _is_passed(layer: nn.Module) -> bool:
    return isinstance(layer, _PASSED) or "Pool" in type(layer).__name__


def _linear_at_end(part: object, network: nn.Module) -> nn.Linear:
    """The linear layer that gives what `part` gives."""
    if isinstance(part, (tuple, list, nn.ModuleList)):
        raise _no_single(network, f"{len(part)} classifiers")
    linears = _linears(part) if isinstance(part, nn.Module) else []
    if not isinstance(part, nn.Module) or not linears:
        raise _no_single(network, _last_layer(part))
    if isinstance(part, nn.Sequential):
        return _linear_at_end(next(layer for layer in reversed(part) if not isinstance(layer, _PASSED)), network)
    return _only([layer for layer in linears if layer.weight.shape == linears[-1].weight.shape], network)


def _last_layer(part: object) -> str:
    """The type of the last layer with parameters, or of `part`."""
    layers = list(part.modules()) if isinstance(part, nn.Module) else []
    learned = [layer for layer in layers if list(layer.parameters(recurse=False))]
    return type([part, *learned][-1]).__name__


def _only(linears: Sequence[nn.Linear], network: nn.Module) -> nn.Linear:
    if len(linears) == 1:
        return linears[0]
    found = f"{len(linears)} linear layers of which any may be it" if linears else _last_layer(network)
    raise _no_single(network, found)


def _linears(module: nn.Module) -> list[nn.Linear]:
    return [layer for layer in module.modules() if isinstance(layer, nn.Linear)]


def _no_single(network: nn.Module, found: str) -> LayerError:
    return LayerError(
        f"`network` must end in one linear classifier, {type(network).__name__} ends in {found}: choose a network that "
        "does (torchvision:resnet18), give it classes, or in your own call its last nn.Linear `fc`."
    )
