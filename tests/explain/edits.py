"""Changes in place of maps [N,8,h,w], each beside the same out of place."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn


def _with(x, index, value):
    """`x` with `value` at channels `index`, out of place."""
    first, last = index.start or 0, index.stop or x.shape[1]
    return torch.cat([x[:, :first], value, x[:, last:]], 1)


def _slice_relu(x):
    x[:, :4].relu_()
    return x


def _narrow_relu6(x):
    F.relu6(x.narrow(1, 2, 4), inplace=True)
    return x


def _transposed_relu(x):
    x.transpose(1, 2)[:, :, 5:].relu_()
    return x


def _flattened_relu(x):
    nn.ReLU(inplace=True)(nn.Flatten()(x))
    return x


def _view_of_view(x):
    x.view(len(x), 2, 4, *x.shape[2:])[:, 1].flatten(1)[:, : x[0, 0].numel()].clamp_(min=0)
    return x


def _slice_sum(x):
    x[:, 2:6] += x[:, 4:].clone()
    return x


def _slice_product(x):
    x[:, 3:].mul_(0.5)
    return x


def _constant(x):
    x[:, 1:3] -= 0.25
    return x


def _setitem(x):
    x[:, :4] = x[:, 4:] * 2
    return x


def _overwritten(x):
    old = x[:, :4]
    x.copy_(x.roll(2, 1))
    return torch.cat([old, x[:, 4:]], 1)


def _filled(x):
    out = torch.zeros_like(x)
    out[:, :4] = x[:, :4].relu()
    out[:, 4:].copy_(x[:, 4:])
    return out


def _older_view(x):
    older = x[:, 2:]
    x.relu_()
    return torch.cat([older, x[:, :2]], 1)


def _base_behind_view(x):
    view = x.flatten(2)
    y = view.mul_(0.5)
    y.relu_()
    return x


def _two_views(x):
    left, right = x[:, :5], x[:, 3:]
    left.add_(0.5)
    right.mul_(2.0)
    left.relu_()
    return x


def _dropped(x):
    same = F.dropout(x, 0.5, training=False)
    same[:, :4].relu_()
    return same


def _squeezed(x):
    y = x.unsqueeze(1)
    y.squeeze_(1)
    y[:, 6:].relu_()
    return x


EDITS = {
    "relu_ of a slice": (_slice_relu, lambda x: _with(x, slice(0, 4), x[:, :4].relu())),
    "relu6 of narrow": (_narrow_relu6, lambda x: _with(x, slice(2, 6), F.relu6(x[:, 2:6]))),
    "relu_ of a transposed slice": (_transposed_relu, lambda x: _with(x, slice(5, 8), x[:, 5:].relu())),
    "nn.ReLU behind nn.Flatten": (_flattened_relu, lambda x: x.relu()),
    "clamp_ of a view of views": (_view_of_view, lambda x: _with(x, slice(4, 5), x[:, 4:5].clamp(min=0))),
    "+= on a slice": (_slice_sum, lambda x: _with(x, slice(2, 6), x[:, 2:6] + x[:, 4:])),
    "mul_ of a slice": (_slice_product, lambda x: _with(x, slice(3, 8), x[:, 3:] * 0.5)),
    "-= a constant": (_constant, lambda x: _with(x, slice(1, 3), x[:, 1:3] - 0.25)),
    "setitem": (_setitem, lambda x: _with(x, slice(0, 4), x[:, 4:] * 2)),
    "copy_, and a view from before": (_overwritten, lambda x: x.roll(2, 1)),
    "zeros that are filled": (_filled, lambda x: _with(x, slice(0, 4), x[:, :4].relu())),
    "a view from before relu_": (_older_view, lambda x: torch.cat([x[:, 2:].relu(), x[:, :2].relu()], 1)),
    "the base of a changed view": (_base_behind_view, lambda x: (x * 0.5).relu()),
    "two views that overlap": (
        _two_views,
        lambda x: torch.cat([(x[:, :3] + 0.5).relu(), ((x[:, 3:5] + 0.5) * 2).relu(), x[:, 5:] * 2], 1),
    ),
    "dropout that gives its input": (_dropped, lambda x: _with(x, slice(0, 4), x[:, :4].relu())),
    "squeeze_": (_squeezed, lambda x: _with(x, slice(6, 8), x[:, 6:].relu())),
}
"""Name to the change in place, which gives what goes on, and its twin."""


def _split(x):
    first, _ = x.split(4, 1)
    first.relu_()
    return x


def _chunk_and_unbind(x):
    x.chunk(2, 1)[1].add_(0.5)
    for channel in x.unbind(1)[:2]:
        channel.relu_()
    return x


def _filled_through_a_view(x):
    out = torch.zeros_like(x)
    upper = out[:, 4:]
    out[:, :4] = x[:, :4].relu()
    upper.copy_(x[:, 4:])
    return out


def _changed_after_relu(x):
    y = x.view(-1).relu_()
    y += 0.125
    return x


REFUSED_BY_AUTOGRAD = {
    "zeros that are filled through a view": (_filled_through_a_view, lambda x: _with(x, slice(0, 4), x[:, :4].relu())),
    "a ReLU's output": (_changed_after_relu, lambda x: x.relu() + 0.125),
    "relu_ of a split": (_split, lambda x: _with(x, slice(0, 4), x[:, :4].relu())),
    "add_ of a chunk, relu_ of unbind": (
        _chunk_and_unbind,
        lambda x: torch.cat([x[:, :2].relu(), x[:, 2:4], x[:, 4:] + 0.5], 1),
    ),
}
"""Changes that autograd itself refuses: views that are one of several outputs, what a ReLU needs for its gradient."""


class Edited(nn.Module):
    """`conv`, the change or its twin, `mix`, `act`, and a linear classifier of what is pooled."""

    def __init__(self, edits, *, in_place: bool) -> None:
        super().__init__()
        self.edit = edits[0] if in_place else edits[1]
        self.conv, self.mix = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1)
        self.act, self.fc = nn.ReLU(), nn.Linear(8, 4)

    def forward(self, x):
        x = self.act(self.mix(self.edit(self.conv(x))))
        return self.fc(x.mean((2, 3)))


def twins(edits):
    """The network that changes in place, and its twin with the same weights, float64."""
    networks = []
    for in_place in (True, False):
        torch.manual_seed(5)
        networks.append(Edited(edits, in_place=in_place).double().eval())
    return networks
