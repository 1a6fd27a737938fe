"""Random small networks, each a program of steps, and the same out of place."""

from __future__ import annotations

import random

import torch
from torch import nn

from explain.edits import EDITS

_WIDTH = 8


def _conv(size=3, width=_WIDTH):
    return nn.Conv2d(_WIDTH, width, size, padding=size // 2)


class Step(nn.Module):
    """One step from maps [N,8,h,w] to maps; `carries` names the modules inside whose output all that follows sees."""

    carries: tuple[str, ...] = ()

    def __init__(self, rng: random.Random, *, in_place: bool) -> None:
        super().__init__()
        self.in_place = in_place
        self.build(rng)

    def build(self, rng):
        self.conv = _conv()


class Edit(Step):
    """A convolution whose output is changed in place."""

    carries = ("conv",)

    def build(self, rng):
        super().build(rng)
        self.name = rng.choice(sorted(EDITS))

    def forward(self, x):
        found = self.conv(x).contiguous()  # a view that flattens channels-last maps is none, so the layout would tell
        return EDITS[self.name][0 if self.in_place else 1](found)


class Rectify(Step):
    """Convolution, batch norm or none, ReLU."""

    carries = ("conv", "act")

    def build(self, rng):
        self.conv, self.act = _conv(rng.choice([1, 3])), nn.ReLU(inplace=self.in_place)
        self.norm = nn.BatchNorm2d(_WIDTH) if rng.random() < 0.5 else nn.Identity()
        if isinstance(self.norm, nn.BatchNorm2d):
            self.norm.running_mean.uniform_(-0.2, 0.2)
            self.norm.running_var.uniform_(0.5, 1.5)

    def forward(self, x):
        return self.act(self.norm(self.conv(x)))


class Residual(Step):
    """`x + branch(x)`, on half of the channels or on all."""

    def build(self, rng):
        self.half = rng.random() < 0.5
        self.conv = _conv(width=_WIDTH // 2 if self.half else _WIDTH)

    def forward(self, x):
        branch = self.conv(x)
        if not self.half:
            if self.in_place:
                branch += x
                return branch
            return branch + x
        if self.in_place:
            x = x.clone()
            x[:, ::2] += branch
            return x
        both = torch.stack([x[:, ::2] + branch, x[:, 1::2]], 2)
        return both.flatten(1, 2)


class Concatenate(Step):
    """Two branches side by side, written into one tensor or concatenated."""

    def build(self, rng):
        self.left, self.right = _conv(width=3), _conv(1, width=5)

    def forward(self, x):
        left, right = self.left(x).relu(), self.right(x)
        if not self.in_place:
            return torch.cat([left, right], 1)
        out = torch.zeros_like(x)
        out[:, :3] = left
        out.narrow(1, 3, 5).copy_(right)
        return out


class Gate(Step):
    """`x * sigmoid(conv(x))`: few methods have a rule for it."""

    def forward(self, x):
        gate = self.conv(x).mean((2, 3), keepdim=True)
        return x * (gate.sigmoid_() if self.in_place else gate.sigmoid())


class Scales(Step):
    """A coarse scale beside the fine one."""

    def forward(self, x):
        coarse = self.conv(nn.functional.max_pool2d(x, 2)).relu()
        wide = coarse[:, :, :, None, :, None].expand(-1, -1, -1, 2, -1, 2)
        return x + wide.reshape(x.shape)


class Tokens(Step):
    """Maps as tokens, a linear layer on each, and back; in place through the transposed view."""

    def build(self, rng):
        self.linear = nn.Linear(_WIDTH, _WIDTH)

    def forward(self, x):
        tokens = self.linear(x.flatten(2).transpose(1, 2))
        if self.in_place:
            tokens.transpose(1, 2)[:, :5].relu_()
        else:
            tokens = torch.cat([tokens[:, :, :5].relu(), tokens[:, :, 5:]], 2)
        return tokens.transpose(1, 2).reshape(x.shape)


STEPS = (Edit, Edit, Rectify, Residual, Concatenate, Scales, Tokens)


class Program(nn.Module):
    """A stem, the steps of a seed, `last`, ReLU, and a linear classifier of what is pooled; float64, in eval mode.

    `has_gates` lets a gate be among the steps.
    """

    def __init__(self, seed: int, *, in_place: bool, has_gates: bool = False) -> None:
        super().__init__()
        torch.manual_seed(seed)
        rng = random.Random(seed)
        self.stem = nn.Conv2d(3, _WIDTH, 3, padding=1)
        kinds = [rng.choice((*STEPS, Gate) if has_gates else STEPS) for _ in range(rng.randint(2, 4))]
        self.steps = nn.ModuleList(kind(rng, in_place=in_place) for kind in kinds)
        self.last, self.act, self.fc = _conv(), nn.ReLU(), nn.Linear(_WIDTH, 4)
        carrying = [f"steps.{i}.{name}" for i, step in enumerate(self.steps) for name in step.carries]
        self.layer = rng.choice(["stem", "last", "act", *carrying])
        self.double().eval()

    def forward(self, x):
        x = self.stem(x)
        for step in self.steps:
            x = step(x)
        return self.fc(self.act(self.last(x)).mean((2, 3)))

    def __str__(self) -> str:
        return f"{[getattr(step, 'name', type(step).__name__) for step in self.steps]} at {self.layer}"
