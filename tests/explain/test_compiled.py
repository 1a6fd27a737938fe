"""Networks with compiled parts are explained as they are written, and stay compiled."""

from __future__ import annotations

import threading
from functools import cache

import pytest
import torch
from torch import nn

import contrex
from contrex.explain import EXPLAINERS
from contrex.explain.forward.head import forward_features
from contrex.models.compiled import compiled_as_it_is, uncompiled
from explain.networks import images, network
from sampling import crossed

METHODS = ("grad_cam", "score_cam", "gradient", "guided_backprop", "full_grad", "lrp", "excitation_backprop")


class Counting:
    """A backend that counts how often compiled code runs."""

    def __init__(self):
        self.num = 0

    def __call__(self, graph, inputs):
        def run(*arguments):
            self.num += 1
            return graph.forward(*arguments)

        return run


class Within(nn.Module):
    """Its forward calls a compiled function."""

    def __init__(self, backend):
        super().__init__()
        self.net = network("mlp")
        self.run = torch.compile(self.net, backend=backend)

    def forward(self, x):
        return self.run(x)


def in_place(backend):
    net = network("mlp")
    net.compile(backend=backend)
    return net


def parts(backend):
    net = network("mlp")
    net.features.compile(backend=backend)
    net.act.compile(backend=backend)
    return net


def child(backend):
    net = network("mlp")
    net.features = torch.compile(net.features, backend=backend)
    return net


def forward(backend):
    net = network("mlp")
    net.forward = torch.compile(net.forward, backend=backend)
    return net


@cache
def plain(name):
    return EXPLAINERS[name](network("mlp"))(images(), target=1).heatmap


@pytest.fixture(autouse=True)
def _fresh():
    yield
    torch.compiler.reset()


@pytest.mark.parametrize("kind", crossed([in_place, parts, child, forward, Within], one_in=2))
def test_warm_networks_give_the_maps_of_those_that_are_not_compiled(kind):
    backend, x = Counting(), images()
    net = kind(backend).eval()
    with torch.no_grad():
        net(x)
    warm, compiled = backend.num, {name: m._compiled_call_impl for name, m in net.named_modules()}
    assert warm > 0
    for name in METHODS:
        torch.testing.assert_close(EXPLAINERS[name](net)(x, target=1).heatmap, plain(name), msg=name)
    assert backend.num == warm
    with torch.no_grad():
        net(x)
    assert backend.num > warm  # compiled as before
    assert {name: m._compiled_call_impl for name, m in net.named_modules()} == compiled


def test_a_loss_on_the_map_of_a_compiled_network():
    x, net = images(), in_place("eager")
    net(x)
    gradients = []
    for each in (net, network("mlp")):
        why = contrex.HiResCAM(each)(x, target=1, differentiable=True)
        gradients.append(torch.autograd.grad(why.heatmap.square().sum(), list(each.parameters()), allow_unused=True))
    torch.testing.assert_close(*[[g for g in each if g is not None] for each in gradients])


def test_features_before_the_head_of_a_compiled_network():
    net = network()
    x, expected = images(), forward_features(net, images(), net.head.fc)[0]
    net.compile(backend="eager")
    with torch.no_grad():
        net(x)
    torch.testing.assert_close(forward_features(net, x, net.head.fc)[0], expected)


def test_the_stance_is_put_back_by_the_last_thread_and_on_errors():
    backend = Counting()
    run = torch.compile(lambda x: x + 1, backend=backend)
    run(torch.ones(2))
    entered, leave = threading.Event(), threading.Event()

    def other():
        with uncompiled():
            entered.set()
            leave.wait()

    def fail():
        with uncompiled():
            thread.start()
            entered.wait()
            raise ZeroDivisionError

    thread = threading.Thread(target=other)
    with pytest.raises(ZeroDivisionError):
        fail()
    run(torch.ones(2))
    assert backend.num == 1  # the other thread is still inside
    leave.set()
    thread.join()
    run(torch.ones(2))
    assert backend.num == 2


def test_training_keeps_what_it_compiled():
    backend = Counting()
    run = torch.compile(lambda x: x + 1, backend=backend)
    with compiled_as_it_is(), uncompiled():
        run(torch.ones(2))
    assert backend.num == 1
    with uncompiled():
        run(torch.ones(2))
    assert backend.num == 1
