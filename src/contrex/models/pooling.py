"""Global pooling other than the mean, in front of a linear classifier.

    mean          sum_k a_k / n
    max           max_k a_k
    logsumexp     T log( sum_k exp(a_k / T) / n )

for the n cells a_k of one channel. Log-sum-exp (Pinheiro and Collobert, CVPR 2015, eq. 6, with r = 1 / T) lies between
the two: a small T is nearly the maximum, a large one nearly the mean. No weights are added, so weights files fit.

The gradient of the maximum is in its cell alone (shared by cells that are equal), that of log-sum-exp is largest there.
So Grad-CAM, which averages it over the cells, and HiResCAM, which does not, are two maps; behind the mean they are one.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from contrex.errors import ArgumentError, LayerError
from contrex.models.convnet import ConvNet
from contrex.models.modes import eval_mode
from contrex.models.split import classifier_head
from contrex.settings import Pooling


class GlobalPooling(nn.Module):
    """Pool `[N,C,h,w]` over its cells by `kind`, to `[N,C,1,1]`, or `[N,C]` without `keepdim`; other layouts by `dims`.

    >>> maps = torch.tensor([[[[0.0, 2.0]]]])
    >>> GlobalPooling("max")(maps).item(), round(GlobalPooling("logsumexp", 0.01)(maps).item(), 3)
    (2.0, 1.993)
    """

    def __init__(
        self, kind: Pooling, temperature: float = 1.0, dims: tuple[int, ...] = (2, 3), *, keepdim: bool = True
    ) -> None:
        super().__init__()
        self.kind, self.temperature, self.dims, self.keepdim = kind, temperature, dims, keepdim

    def forward(self, maps: Tensor) -> Tensor:
        """The pooled channels, in the dtype of `maps`."""
        if self.kind == "mean":
            return maps.mean(self.dims, keepdim=self.keepdim)
        if self.kind == "max":
            return maps.amax(self.dims, keepdim=self.keepdim)
        scaled = maps.to(torch.promote_types(maps.dtype, torch.float32)) / self.temperature
        count = math.prod(maps.shape[dim] for dim in self.dims)
        pooled = scaled.logsumexp(self.dims, keepdim=self.keepdim) - math.log(count)
        return (self.temperature * pooled).to(maps.dtype)

    def extra_repr(self) -> str:
        """What is pooled, and how."""
        return f"{self.kind}, temperature={self.temperature}" if self.kind == "logsumexp" else self.kind


def with_pooling(network: nn.Module, kind: Pooling, temperature: float = 1.0) -> nn.Module:
    """Put another pooling in the place of a network's global average pooling, in place; the same network.

    Raises:
        ArgumentError: its last linear layer does not get what one module (`nn.AdaptiveAvgPool2d` to 1 x 1, as of
            torchvision and timm, or timm's own) has averaged.
    """
    if kind == "mean":
        return network
    if isinstance(network, ConvNet):
        network.pooling = GlobalPooling(kind, temperature, keepdim=False)
        return network
    name, shape = _global_average(network)
    _put(network, name, GlobalPooling(kind, temperature, **shape))
    return network


def _global_average(network: nn.Module) -> tuple[str, Mapping[str, Any]]:
    """The name of the module whose means the classifier gets, and what it takes and gives."""
    candidates = {name: shape for name, module in network.named_modules() if (shape := _averages(module)) is not None}
    try:
        head, _ = classifier_head(network)
    except LayerError as error:
        raise _refused(network, str(error)) from None
    with _watched(network, [*candidates, head]) as seen, eval_mode(network), torch.no_grad():
        network(_some_image(network))
    # Flattened, and behind dropout in eval mode, it is still the same memory; whatever computes with it makes new. The
    # tensors are kept until here, as memory that is free is given to others.
    given = [call.given for name, call in seen.items() if name == head]
    found = [name for name in candidates if name in seen and _is_same_memory(seen[name].output, *given)]
    if not found:
        raise _refused(network, "something else comes between, or it averages in its own code")
    return found[0], candidates[found[0]]


class _Call(NamedTuple):
    given: Tensor
    output: Tensor


class _Watched(nn.Module):
    """Stands in for a module and notes what it is given and returns."""

    def __init__(self, module: nn.Module, note: Callable[[_Call], None]) -> None:
        super().__init__()
        self.module, self._note = module, note

    def forward(self, given: Tensor) -> Tensor:
        output: Tensor = self.module(given)
        self._note(_Call(given, output))
        return output


@contextmanager
def _watched(network: nn.Module, names: Iterable[str]) -> Iterator[dict[str, _Call]]:
    """Note the last call of each module of these names, for a while."""
    seen: dict[str, _Call] = {}
    modules = {name: network.get_submodule(name) for name in names}
    try:
        for name, module in modules.items():
            _put(network, name, _Watched(module, partial(seen.__setitem__, name)))
        yield seen
    finally:
        for name, module in modules.items():
            _put(network, name, module)


def _put(network: nn.Module, name: str, module: nn.Module) -> None:
    place, _, last = name.rpartition(".")
    setattr(network.get_submodule(place), last, module)


def _is_same_memory(one: Tensor, *others: Tensor) -> bool:
    return any(one.untyped_storage()._cdata == other.untyped_storage()._cdata for other in others)


def _averages(module: nn.Module) -> Mapping[str, Any] | None:
    """The axes that a module takes the mean of, and whether they stay; None of one that does something else."""
    if isinstance(module, nn.AdaptiveAvgPool2d) and module.output_size in (1, (1, 1)):
        return {"dims": (-2, -1), "keepdim": True}
    if type(module).__name__ == "FastAdaptiveAvgPool" and type(module).__module__.startswith("timm."):
        return {"dims": vars(module)["dim"], "keepdim": not vars(module)["flatten"]}
    return None


def _some_image(network: nn.Module) -> Tensor:
    """An image of the size that timm says the network takes, or 224."""
    known = getattr(network, "pretrained_cfg", None)
    size = known.get("input_size", (3, 224, 224)) if isinstance(known, Mapping) else (3, 224, 224)
    like = next(network.parameters())
    return torch.zeros((1, *size), device=like.device, dtype=like.dtype)


def _refused(network: nn.Module, reason: str) -> ArgumentError:
    return ArgumentError(
        f"`model.pooling` changes a global average pooling in front of the last linear layer, and "
        f"{type(network).__name__} has none that can be changed ({reason}): keep `model.pooling` mean, or take a "
        "network that has one, such as torchvision:resnet18 or timm:mobilenetv2_100."
    )
