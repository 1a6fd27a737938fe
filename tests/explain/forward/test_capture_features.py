"""What the classifier gets, read from an ordinary forward pass."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from contrex.errors import ArgumentError, LayerError
from contrex.explain.forward.head import forward_features, head_rows
from explain import networks


def test_features_are_what_the_head_gets():
    net, images = networks.network(), networks.images()
    features, logits = forward_features(net, images, net.head.fc)
    expected = net.act(net.features(images)).mean((2, 3))
    assert torch.equal(features, expected)
    assert torch.equal(logits, net(images))
    assert torch.equal(logits, net.head.fc(features))


def test_both_are_in_the_graph():
    """The gradient of a loss on the features and the logits is that of the network written out."""
    net, images = networks.network("mlp"), networks.images()
    features, logits = forward_features(net, images, net.head[4])
    expected = net.head[:4](net.act(net.features(images)))
    written_out = expected.pow(3).sum() + net.head[4](expected).pow(2).sum()
    found = torch.autograd.grad(features.pow(3).sum() + logits.pow(2).sum(), list(net.parameters()))
    for gradient, wanted in zip(found, torch.autograd.grad(written_out, list(net.parameters())), strict=True):
        assert wanted.any()
        torch.testing.assert_close(gradient, wanted)


def test_gradients_reach_the_images_and_stay_out_of_no_grad():
    net, images = networks.network(), networks.images().requires_grad_()
    features, _ = forward_features(net, images, net.head.fc)
    assert torch.autograd.grad(features.sum(), images)[0].any()
    with torch.no_grad():
        features, logits = forward_features(net, images, net.head.fc)
    assert not features.requires_grad
    assert not logits.requires_grad


def test_it_is_a_training_forward():
    """Batch statistics are used and updated and dropout drops, as in a plain call; nothing else stays behind."""
    ours, plain = networks.network("dropout").train(), networks.network("dropout").train()
    ours.features[3].eval()
    plain.features[3].eval()
    images = networks.images()
    torch.manual_seed(5)
    features, logits = forward_features(ours, images, ours.head[3])
    drawn_after = torch.rand(1)
    torch.manual_seed(5)
    assert torch.equal(logits, plain(images))
    assert torch.equal(torch.rand(1), drawn_after)
    assert (features == 0).any()
    assert [m.training for m in ours.modules()] == [m.training for m in plain.modules()]
    assert all(torch.equal(a, b) for a, b in zip(ours.buffers(), plain.buffers(), strict=True))
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in ours.modules())


def test_batch_statistics_move():
    net, images = networks.network().train(), networks.images()
    before = net.features[3].running_mean.clone()
    forward_features(net, images, net.head.fc)
    assert not torch.equal(net.features[3].running_mean, before)
    assert net.features[3].num_batches_tracked == 1


def test_a_convolution_gets_its_channels_as_features():
    net = networks.Net(nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(6, 4, 1), nn.Flatten())).double()
    features, logits = forward_features(net, networks.images(), net.head[1])
    assert features.shape == (3, 6)
    torch.testing.assert_close(logits, features @ net.head[1].weight[:, :, 0, 0].T + net.head[1].bias)


def test_under_autocast_logits_are_float32():
    net, images = networks.network().float(), networks.images().float()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        features, logits = forward_features(net, images, net.head.fc)
    assert logits.dtype == torch.float32
    torch.testing.assert_close(features.float(), forward_features(net, images, net.head.fc)[0], rtol=0.05, atol=0.05)


def test_images_are_not_changed_in_place():
    class Centred(networks.Pooled):
        def forward(self, images):
            return self.fc(images.sub_(1).mean((2, 3)).repeat(1, 2))

    net, images = Centred().double(), networks.images()
    before = images.clone()
    forward_features(net, images, net.fc)
    assert torch.equal(images, before)


class Twice(nn.Module):
    """Applies `fc` as often as it is told, to `shape` or by keyword."""

    def __init__(self, num: int, *, per_token: bool = False, by_keyword: bool = False) -> None:
        super().__init__()
        self.fc = nn.Linear(3, 3)
        self.num, self.per_token, self.by_keyword = num, per_token, by_keyword

    def forward(self, images):
        x = images.flatten(2).mT if self.per_token else images.mean((2, 3))
        for _ in range(self.num):
            x = self.fc(input=x) if self.by_keyword else self.fc(x)
        return x.mean(1) if self.per_token else x


def test_refuses():
    images = torch.randn(2, 3, 4, 4)
    for num in (0, 2):
        net = Twice(num)
        with pytest.raises(LayerError, match=rf"`head` 'fc' must run once in a forward pass, it ran {num} times"):
            forward_features(net, images, net.fc)
        assert not net.fc._forward_hooks
    net = Twice(1, per_token=True)
    with pytest.raises(LayerError, match=r"one row of features per image, \[2,D\], it gets a tensor \[2, 16, 3\]"):
        forward_features(net, images, net.fc)
    net = Twice(1, by_keyword=True)
    with pytest.raises(LayerError, match="it gets 0 inputs"):
        forward_features(net, images, net.fc)
    net = nn.Sequential(nn.Flatten(), nn.Linear(48, 4), nn.Unflatten(1, (2, 2)))
    with pytest.raises(
        ArgumentError, match=r"`model` must return logits \[N,K\], Sequential returned a tensor \[2, 2, 2\]"
    ):
        forward_features(net, images, net[1])


def test_head_rows_of_every_pass_and_no_hook_afterwards():
    net, images = networks.network(), networks.images()
    with head_rows(net.head.fc) as seen:
        net(images)
        net(2 * images)
    net(images)
    assert len(seen) == 2
    for scale, (rows, logits) in zip((1, 2), seen, strict=True):
        assert torch.equal(rows, net.act(net.features(scale * images)).mean((2, 3)))
        assert torch.equal(logits, net(scale * images))
        assert not rows.requires_grad
        assert not logits.requires_grad
    with pytest.raises(ZeroDivisionError), head_rows(net.head.fc):
        raise ZeroDivisionError
    assert not net.head.fc._forward_hooks
