"""The first layers of a ResNet, for small images."""

from __future__ import annotations

from torch import nn

from contrex.errors import ArgumentError


def cifar_stem(network: nn.Module) -> nn.Module:
    """Change a ResNet's 7x7 stride-2 `conv1` to 3x3 stride 1 and its `maxpool` to nothing, in place; the same network.

    ResNets for images of 32 x 32 have this stem (SupCon and ExCon on CIFAR): `layer4` then gives 4 x 4 cells instead of
    1. Names stay, so of a state_dict of the original only `conv1.weight` does not fit; the new one is drawn as the
    networks draw theirs, Kaiming normal, fan-out, for a ReLU. Channels, bias, device and dtype stay.

    Args:
        network: a ResNet of torchvision or timm (also ResNeXt and wide ones) with its original stem.

    Raises:
        ArgumentError: it is no such network, or its stem is another (deep, or changed already).

    >>> import torchvision.models
    >>> network = cifar_stem(torchvision.models.resnet18())
    >>> network.conv1, network.maxpool
    (Conv2d(3, 64, kernel_size=(3, 3), stride=(1, 1), padding=(1, 1), bias=False), Identity())
    """
    conv = _large_convolution(network)
    smaller = nn.Conv2d(
        conv.in_channels,
        conv.out_channels,
        kernel_size=3,
        padding=1,
        bias=conv.bias is not None,
        device=conv.weight.device,
        dtype=conv.weight.dtype,
    )
    nn.init.kaiming_normal_(smaller.weight, mode="fan_out", nonlinearity="relu")
    if smaller.bias is not None:
        nn.init.zeros_(smaller.bias)
    network.conv1, network.maxpool = smaller, nn.Identity()
    return network


def _large_convolution(network: nn.Module) -> nn.Conv2d:
    """The `conv1` of a ResNet with the original stem."""
    conv, pool = getattr(network, "conv1", None), getattr(network, "maxpool", None)
    if not _is_resnet(network) or not isinstance(conv, nn.Conv2d) or not isinstance(pool, nn.MaxPool2d):
        stem = f"{type(network).__name__} with `conv1` {type(conv).__name__} and `maxpool` {type(pool).__name__}"
    elif conv.kernel_size != (7, 7) or conv.stride != (2, 2):
        stem = f"{type(network).__name__} with `conv1` {conv.kernel_size}, stride {conv.stride}"
    else:
        return conv
    raise ArgumentError(
        "the stem 'cifar' is one for ResNets of torchvision and timm that begin with a 7x7 convolution `conv1` of "
        f"stride 2 and a max pooling `maxpool`, got {stem}: take one, or keep the built-in stem (`model.stem`)."
    )


def _is_resnet(network: nn.Module) -> bool:
    import torchvision.models

    if isinstance(network, torchvision.models.ResNet):
        return True
    import timm.models.resnet

    return isinstance(network, timm.models.resnet.ResNet)
