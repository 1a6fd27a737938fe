"""Small float64 networks with every kind of head."""

from __future__ import annotations

import torch
from torch import nn


class Net(nn.Module):
    """`features` then `head`; K = 4 classes."""

    def __init__(self, head: nn.Module, *, inplace: bool = False) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(3, 5, 3, stride=2, padding=1), nn.ReLU(), nn.Conv2d(5, 6, 3, padding=1), nn.BatchNorm2d(6)
        )
        self.act = nn.ReLU(inplace=inplace)
        self.head = head

    def forward(self, x):
        return self.head(self.act(self.features(x)))


class Pooled(nn.Module):
    """Global average pooling and one linear layer: the closed form holds."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(6, 4)

    def forward(self, a):
        return self.fc(a.mean((2, 3)))


def pooled_head():
    return Pooled()


def mlp_head():
    return nn.Sequential(nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(24, 8), nn.Tanh(), nn.Linear(8, 4))


def scaled_head():
    """Pooling, a nonlinearity, and a linear layer of the closed form's shape: it must not be taken for one."""
    return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Softplus(), nn.Linear(6, 4))


def dropout_head():
    return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(0.5), nn.Linear(6, 4))


HEADS = {"pooled": pooled_head, "mlp": mlp_head, "scaled": scaled_head, "dropout": dropout_head}


def network(head: str = "pooled", *, inplace: bool = False) -> Net:
    """A float64 network in eval mode, with batch-norm statistics that matter."""
    torch.manual_seed(1)
    net = Net(HEADS[head](), inplace=inplace).double()
    net.features[3].running_mean.uniform_(-0.2, 0.2)
    net.features[3].running_var.uniform_(0.5, 1.5)
    return net.eval()


class SwitchedOff(nn.Module):
    """A network whose last class is switched off: by a bias of -1e4, or behind it by a mask of -1e9 or -inf."""

    HOW = ("bias", "mask", "infinite")

    def __init__(self, net, how):
        super().__init__()
        self.net, self.how = net.eval(), how

    def forward(self, x):
        logits = self.net(x)
        is_last = torch.arange(logits.shape[1]) == logits.shape[1] - 1
        if self.how == "bias":
            return logits - 1e4 * is_last
        return logits.masked_fill(is_last, -1e9 if self.how == "mask" else -torch.inf)


def images(num: int = 3, size: tuple[int, int] = (8, 12)) -> torch.Tensor:
    return torch.randn(num, 3, *size, generator=torch.Generator().manual_seed(2), dtype=torch.float64)


class TwoGrids(nn.Module):
    """Feature maps of two sizes, 8 x 12 and 4 x 6 for images of that size, through both of which all evidence comes."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.early = nn.Sequential(nn.Conv2d(3, 5, 3, padding=1), nn.ReLU())
        self.late = nn.Sequential(nn.Conv2d(5, 6, 3, stride=2, padding=1), nn.ReLU())
        self.head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 4))

    def forward(self, x):
        return self.head(self.late(self.early(x)))


def two_grids() -> TwoGrids:
    """A float64 network of two resolutions in eval mode."""
    return TwoGrids().double().eval()
