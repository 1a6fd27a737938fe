"""The ways to put the loss of a heatmap, a gradient that is differentiated again, into DDP, FSDP2 and torch.compile.

A small network, two views, cross-entropy and InfoNCE over the maps, contrasted with those of all processes; float64.
None of this is contrex: it is what its steps could have been.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import nn
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor
from torch.nn.parallel import DistributedDataParallel

from contrex.ranks import gathered_rows

ITERATIONS = 3
NUM = 6
"""Images of the whole batch."""


class Net(nn.Module):
    """Features, global average pooling and a head: one linear layer, or one with a hidden layer."""

    def __init__(self, head="linear", returns_activation=False):
        super().__init__()
        self.returns_activation = returns_activation
        self.features = nn.Sequential(nn.Conv2d(3, 5, 3, 2), nn.Softplus(), nn.Conv2d(5, 4, 3, 2), nn.Softplus())
        linear, hidden = nn.Linear(4, 3), nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 3))
        self.head = linear if head == "linear" else hidden

    def classify(self, activation):
        return self.head(activation.mean((2, 3)))

    def forward(self, images):
        activation = self.features(images)
        logits = self.classify(activation)
        return (activation, logits) if self.returns_activation else logits


# --- heatmaps: [N,C,h,w], [N,K] and [N] to [N,hw] -------------------------------------------------------------------


def by_autograd(net, activation, logits, target):
    score = logits.gather(1, target[:, None]).sum()
    (gradient,) = torch.autograd.grad(score, activation, create_graph=True)
    return (gradient * activation).sum(1).flatten(1)


def by_vjp(net, activation, logits, target):
    _, pull = torch.func.vjp(net.classify, activation)
    (gradient,) = pull(F.one_hot(target, logits.shape[1]).to(logits.dtype))
    return (gradient * activation).sum(1).flatten(1)


def in_closed_form(net, activation, logits, target):
    weights = net.head.weight[target] / activation[0, 0].numel()
    return torch.einsum("nc,nchw->nhw", weights, activation).flatten(1)


# --- the loss -------------------------------------------------------------------------------------------------------


def detached_gather(own):
    """Everyone's rows, of which this process can differentiate its own."""
    parts = [torch.empty_like(own) for _ in range(dist.get_world_size())]
    dist.all_gather(parts, own.detach().contiguous())
    parts[dist.get_rank()] = own
    return parts


def objective(logits, maps, maps_view, labels, gather, *, cross_entropy):
    """InfoNCE of each map with its transformed one among those of all processes, and the cross-entropy."""
    everyones, first = gather(maps_view), dist.get_rank() * len(maps) if gather is not alone else 0
    similarity = F.normalize(maps) @ F.normalize(torch.cat(tuple(everyones))).T / 0.5
    loss = F.cross_entropy(similarity, torch.arange(len(maps)) + first)
    return loss + F.cross_entropy(logits, labels) if cross_entropy else loss


def alone(own):
    return [own]


class Inside(nn.Module):
    """All of it in one forward."""

    def __init__(self, net, heatmaps=by_autograd, gather=gathered_rows, *, cross_entropy=True, zero=False):
        super().__init__()
        self.net = net
        self.options = heatmaps, gather, cross_entropy, zero

    def forward(self, images, views, labels):
        heatmaps, gather, cross_entropy, zero = self.options
        found = []
        for part in (images, views):
            activation = self.net.features(part)
            logits = self.net.classify(activation)
            found.append((logits, heatmaps(self.net, activation, logits, labels)))
        (logits, maps), (_, maps_view) = found
        loss = objective(logits, maps, maps_view, labels, gather, cross_entropy=cross_entropy)
        return loss + 0.0 * logits.sum() if zero else loss


@dataclass
class Outside:
    """The loss is made of what a wrapped network returns, of maps made outside, of an activation that a hook has seen
    (or that the network returns)."""

    wrapped: nn.Module
    net: Net
    gather: object = gathered_rows
    cross_entropy: bool = True
    zero: bool = False

    def __call__(self, images, views, labels):
        found, seen = [], []
        for part in (images, views):
            with self.net.features.register_forward_hook(lambda *given: seen.append(given[2])):
                output = self.wrapped(part)
            activation, logits = output if self.net.returns_activation else (seen[-1], output)
            found.append((logits, by_autograd(self.net, activation, logits, labels)))
        (logits, maps), (_, maps_view) = found
        loss = objective(logits, maps, maps_view, labels, self.gather, cross_entropy=self.cross_entropy)
        return loss + 0.0 * logits.sum() if self.zero else loss


# --- what becomes of them -------------------------------------------------------------------------------------------


def batch(seed):
    generator = torch.Generator().manual_seed(seed)
    images, views = torch.rand(2, NUM, 3, 16, 16, generator=generator, dtype=torch.float64)
    return images, views, torch.randint(3, (NUM,), generator=generator)


def network(head="linear", returns_activation=False):
    torch.manual_seed(4)
    return Net(head, returns_activation).double()


def outcome(arrange, *, head="linear", returns_activation=False, cross_entropy=True, create_graph=False):
    """The greatest relative error of a gradient in three iterations, against one process with the whole batch, and
    whether the processes agree; or the message of an error.

    `arrange` takes the network and gives what takes a batch and returns a loss."""
    net = network(head, returns_activation)
    expected = [whole_gradient(copy.deepcopy(net), batch(seed), cross_entropy) for seed in range(ITERATIONS)]
    own = slice(dist.get_rank() * NUM // dist.get_world_size(), (dist.get_rank() + 1) * NUM // dist.get_world_size())
    error, agree = 0.0, True
    try:
        run = arrange(net)
        for seed in range(ITERATIONS):
            net.zero_grad()
            run(*(part[own] for part in batch(seed))).backward(create_graph=create_graph)
            found = torch.cat([gradient_of(parameter) for parameter in net.parameters()])
            error = max(error, ((found - expected[seed]).norm() / expected[seed].norm()).item())
            everyones = [torch.empty_like(found) for _ in range(dist.get_world_size())]
            dist.all_gather(everyones, found)
            agree = agree and all(torch.equal(found, other) for other in everyones)
    except RuntimeError as problem:
        return str(problem)
    return error, agree


def gradient_of(parameter):
    gradient = parameter.grad
    if gradient is None:
        gradient = torch.zeros_like(parameter)
    return (gradient.full_tensor() if isinstance(gradient, DTensor) else gradient).flatten().clone()


def whole_gradient(net, everything, cross_entropy):
    step = Inside(net, gather=alone, cross_entropy=cross_entropy)
    step(*everything).backward()
    return torch.cat([gradient_of(parameter) for parameter in net.parameters()])


def replicated(**options):
    """The network inside DDP, all else outside."""
    ddp = {name: options.pop(name) for name in ("find_unused_parameters", "static_graph") if name in options}
    return lambda net: Outside(DistributedDataParallel(net, **ddp), net, **options)


def replicated_step(*, heatmaps=by_autograd, compiled=False, cross_entropy=True, zero=False, **ddp):
    """One step that holds everything inside DDP."""

    def arrange(net):
        step = DistributedDataParallel(Inside(net, heatmaps, cross_entropy=cross_entropy, zero=zero), **ddp)
        return torch.compile(step, backend="aot_eager") if compiled else step

    return arrange


def sharded(net):
    """The network by FSDP2, all else outside."""
    return Outside(fully_shard(net), net)


def sharded_step(heatmaps):
    return lambda net: fully_shard(Inside(net, heatmaps))


def bypassing(cross_entropy=True):
    """DDP is there, the forward pass goes around it."""

    def arrange(net):
        return Outside(DistributedDataParallel(net).module, net, cross_entropy=cross_entropy)

    return arrange


only_maps = {"cross_entropy": False}
CASES = {
    "DDP": (replicated(), {}),
    "DDP, maps only": (replicated(**only_maps), only_maps),
    "DDP, find unused": (replicated(find_unused_parameters=True), {}),
    "DDP, find unused, maps only": (replicated(find_unused_parameters=True, **only_maps), only_maps),
    "DDP, zero, maps only": (replicated(zero=True, **only_maps), only_maps),
    "DDP, static": (replicated(static_graph=True), {}),
    "DDP, static, maps only": (replicated(static_graph=True, **only_maps), only_maps),
    "bypassed": (bypassing(), {}),
    "bypassed, maps only": (bypassing(False), only_maps),
    "detached gather": (replicated(gather=detached_gather), {}),
    "backward(create_graph)": (replicated(), {"create_graph": True}),
    "activation returned": (replicated(), {"returns_activation": True}),
    "activation returned, static": (replicated(static_graph=True), {"returns_activation": True}),
    "activation returned, find unused": (replicated(find_unused_parameters=True), {"returns_activation": True}),
    "step": (replicated_step(), {}),
    "step, maps only": (replicated_step(**only_maps), only_maps),
    "step, static, maps only": (replicated_step(static_graph=True, **only_maps), only_maps),
    "step, find unused, maps only": (replicated_step(find_unused_parameters=True, **only_maps), only_maps),
    "step, zero, maps only": (replicated_step(zero=True, **only_maps), only_maps),
    "step, vjp, hidden": (replicated_step(heatmaps=by_vjp), {"head": "hidden"}),
    "step, vjp, hidden, static, maps only": (
        replicated_step(heatmaps=by_vjp, static_graph=True, **only_maps),
        {"head": "hidden", **only_maps},
    ),
    "step, vjp, hidden, compiled": (replicated_step(heatmaps=by_vjp, compiled=True), {"head": "hidden"}),
    "FSDP2": (sharded, {}),
    "FSDP2, hidden": (sharded, {"head": "hidden"}),
    "FSDP2 step, vjp, hidden": (sharded_step(by_vjp), {"head": "hidden"}),
    "FSDP2 step, autograd, hidden": (sharded_step(by_autograd), {"head": "hidden"}),
    "FSDP2 step, closed form": (sharded_step(in_closed_form), {}),
}


def outcomes():
    return {name: outcome(arrange, **options) for name, (arrange, options) in CASES.items()}


# --- torch.compile --------------------------------------------------------------------------------------------------


def compiled(part, **options):
    torch._dynamo.reset()
    return torch.compile(part, backend="aot_eager", **options)


def whole(heatmaps, fullgraph=True):
    return lambda net: compiled(Inside(net, heatmaps, alone), fullgraph=fullgraph)


def pieces(*names):
    """Some modules of the network are compiled, the rest is not."""

    def arrange(net):
        step = Inside(net, gather=alone)
        for name in names:
            setattr(net, name, compiled(getattr(net, name)))
        return step

    return arrange


def as_one(net):
    """The network is compiled, and the maps are made of what it returns."""
    return Outside(compiled(net), net, gather=alone)


COMPILED = {
    "autograd, one graph": (whole(by_autograd), {}),
    "autograd": (whole(by_autograd, fullgraph=False), {}),
    "vjp": (whole(by_vjp), {"head": "hidden"}),
    "closed form": (whole(in_closed_form), {}),
    "features": (pieces("features"), {"head": "hidden"}),
    "head": (pieces("head"), {"head": "hidden"}),
    "features and head": (pieces("features", "head"), {"head": "hidden"}),
    "network that returns both": (as_one, {"returns_activation": True}),
}


def outcome_compiled(arrange, *, head="linear", returns_activation=False):
    """As `outcome`, in one process."""
    net = network(head, returns_activation)
    expected = [whole_gradient(copy.deepcopy(net), batch(seed), True) for seed in range(ITERATIONS)]
    parameters, error = list(net.parameters()), 0.0
    try:
        run = arrange(net)
        for seed in range(ITERATIONS):
            gradients = torch.autograd.grad(run(*batch(seed)), parameters)
            found = torch.cat([gradient.flatten() for gradient in gradients])
            error = max(error, ((found - expected[seed]).norm() / expected[seed].norm()).item())
    except RuntimeError as problem:
        return f"{type(problem).__name__}: {problem}"
    return error
