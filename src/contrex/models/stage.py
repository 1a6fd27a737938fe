"""The last stage of a network: what works at the size of its last feature map.

Found in the modules as they are registered, without running them: the last convolution or pooling that makes the map
smaller and has a convolution behind it begins the stage, with the block that it is in. That is `layer4` of a ResNet,
and everything from the last block of stride 2 on in a MobileNet or EfficientNet. Where that would be nearly all of the
network, as in a vision transformer, whose map keeps its size, it is the last quarter of its blocks and what follows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress

from torch import nn

from contrex.errors import LayerError
from contrex.models.split import classifier_heads

_POOLINGS = (nn.MaxPool2d, nn.AvgPool2d)
_LISTS = (nn.Sequential, nn.ModuleList)


def last_stage(network: nn.Module) -> Sequence[nn.Parameter]:
    """The parameters of the last stage of `network` and of its classifier, in their order.

    >>> from contrex.models import build_network
    >>> network = build_network("torchvision:resnet18", {})
    >>> own = [*network.layer4.parameters(), *network.fc.parameters()]
    >>> [id(p) for p in last_stage(network)] == [id(p) for p in own]
    True
    """
    modules = dict(network.named_modules())
    order = list(modules)
    learned = [name for name in order if list(modules[name].parameters(recurse=False))]
    start = _start_of_smallest_map(modules, learned) or _start_of_last_blocks(modules)
    own = {p for name in learned if order.index(name) >= order.index(start) for p in modules[name].parameters(False)}
    with suppress(LayerError):  # a classifier that is no linear layer is at the end, where others have theirs
        own |= {parameter for head in classifier_heads(network).values() for parameter in head.parameters()}
    return [parameter for parameter in network.parameters() if parameter in own]


def _start_of_smallest_map(modules: Mapping[str, nn.Module], learned: Sequence[str]) -> str | None:
    """The block with which the last feature map gets its size; None where most of the network comes behind it."""
    pooling = start = None
    for name, module in modules.items():
        if isinstance(module, _POOLINGS) and _stride(module) > 1:
            pooling = name
        elif isinstance(module, nn.Conv2d):
            start = name if _stride(module) > 1 else pooling or start
            pooling = None
    if start is None:
        return None
    order, parts = list(modules), start.split(".")
    around = [".".join(parts[:depth]) for depth in range(1, len(parts) + 1)]
    late = [one for one in around if sum(order.index(n) < order.index(one) for n in learned) >= len(learned) / 4]
    return next((one for one in late if not isinstance(modules[one], _LISTS)), None)


def _stride(module: nn.Module) -> int:
    """The larger stride of a convolution or a pooling."""
    stride: int | tuple[int, ...] = module.stride  # type: ignore[assignment]
    return max(stride) if isinstance(stride, tuple) else stride


def _start_of_last_blocks(modules: Mapping[str, nn.Module]) -> str:
    """The first of the last quarter of the modules in the list with the most parameters; without one, the network."""
    found = [
        (name, blocks) for name, module in modules.items() if type(module) in _LISTS if (blocks := _learned(module))
    ]
    if not found:
        return ""
    name, blocks = max(found, key=lambda one: sum(p.numel() for p in modules[one[0]].parameters()))
    return ".".join(filter(None, (name, blocks[-max(1, len(blocks) // 4)])))


def _learned(module: nn.Module) -> list[str]:
    """The names of the children with parameters."""
    return [name for name, child in module.named_children() if next(child.parameters(), None) is not None]
