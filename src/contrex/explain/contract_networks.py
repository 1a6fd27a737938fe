"""Networks that the contract puts explainers to: what they change, and where their head stops being linear."""

from __future__ import annotations

import copy
import itertools

import torch
from torch import Tensor, nn


class Changing(nn.Module):
    """Convolutions, each output changed through a view or, in the twin, not, and a classifier of what is pooled."""

    def __init__(self, images: Tensor, *, in_place: bool) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            sizes = (images.shape[1], 4, 4, 4, 4)
            self.convs = nn.ModuleList(nn.Conv2d(*ends, 3, padding=1) for ends in itertools.pairwise(sizes))
            self.act, self.fc = nn.ReLU(), nn.Linear(4, 3)
        self.to(images)
        self.eval()
        self._in_place = in_place

    def forward(self, images: Tensor) -> Tensor:
        *convs, last = self.convs
        for conv, change in zip(convs, (_change_slices, _change_flattened, _change_what_is_old), strict=True):
            images = change(conv(images), self._in_place)
        logits: Tensor = self.fc(self.act(last(images)).mean((2, 3)))
        return logits


def _change_slices(x: Tensor, in_place: bool) -> Tensor:
    if not in_place:
        return torch.cat([x[:, :2].relu(), x[:, 2:3], x[:, 3:] * 2], 1)
    x[:, 3:] *= 2
    x[:, :2].relu_()
    return x


def _change_flattened(x: Tensor, in_place: bool) -> Tensor:
    if not in_place:
        return x.relu()
    x.flatten(1).relu_()
    return x


def _change_what_is_old(x: Tensor, in_place: bool) -> Tensor:
    if not in_place:
        return (torch.cat([x[:, 2:], x[:, 2:]], 1) * 2).relu()
    older = x[:, 2:]
    x *= 2
    x[:, :2] = older
    x.transpose(1, 2).relu_()
    return x


class Clipping(nn.Module):
    """Small logits, linear in the features of the images that it is made for, not in those of brighter ones."""

    def __init__(self, images: Tensor) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            self.conv, fc = nn.Conv2d(images.shape[1], 4, 3, padding=1, bias=False), nn.Linear(4, 3, bias=False)
        fc.weight.data *= 1e-4
        self.act, self.fc = nn.ReLU(), fc
        self.to(images)
        self.eval()
        with torch.no_grad():
            self.limit = 2 * float(self.act(self.conv(images)).mean((2, 3)).max())

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.fc(self.act(self.conv(images)).mean((2, 3)).clamp(max=self.limit))
        return logits


def turn_classifier(model: nn.Module) -> None:
    """Another last linear layer in the place of the one there is: the same classes in the opposite order."""
    children = [(module, *child) for module in model.modules() for child in module.named_children()]
    linears = [(parent, name, child) for parent, name, child in children if isinstance(child, nn.Linear)]
    for parent, name, linear in linears[-1:]:
        turned = copy.deepcopy(linear)
        turned.weight.data = linear.weight.data.flip(0)
        setattr(parent, name, turned)
