"""A loss of one's own on heatmaps: what the five training loops share.

The heatmap of the right class must not lie outside of the object. Everything that a loop needs is in `Step`, a module
from a batch to its loss, so that whatever wraps modules (DDP, Fabric, Accelerate) can wrap it.
"""

import argparse

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.utils.data import TensorDataset

import contrex
from contrex.data import image_set
from contrex.settings import Digits


def outside_loss(heatmap: Tensor, masks: Tensor) -> Tensor:
    """The share of the positive heatmap [N,H,W] outside of the objects [N,H,W], the mean over the images."""
    positive = heatmap.relu()
    outside = (positive * ~masks).sum((1, 2)) / positive.sum((1, 2)).clamp(min=1e-8)
    return outside.mean()


class Step(nn.Module):
    """`L = CE + weight * outside_loss`, from one forward pass of the network."""

    def __init__(self, network: nn.Module, weight: float = 1.0) -> None:
        super().__init__()
        self.network, self.weight = network, weight
        self.explain = contrex.HiResCAM(network)

    def forward(self, images: Tensor, labels: Tensor, masks: Tensor) -> dict[str, Tensor]:
        """The loss of a batch, and what it is made of."""
        why = self.explain(images, target=labels, differentiable=True)  # maps and logits, with a graph
        outside = outside_loss(why.resize(images.shape[2:]).heatmap, masks)
        return {
            "loss": cross_entropy(why.logits, labels) + self.weight * outside,
            "logits": why.logits.detach(),
            "outside": outside.detach(),
        }


def digits(num_images: int) -> TensorDataset:
    """Built-in digits on clutter: images [3,48,48], labels, masks [48,48]."""
    samples = image_set(Digits(num_train=num_images, num_val=0, num_test=0, image_size=48), "train")
    pixels = np.stack([np.array(one.image) for one in samples])
    images = torch.from_numpy(pixels).permute(0, 3, 1, 2) / 255
    labels = torch.tensor([one.label for one in samples])
    return TensorDataset((images - 0.5) / 0.25, labels, torch.from_numpy(np.stack([one.mask for one in samples])))


def network() -> nn.Module:
    """A small classifier with maps of 12 x 12 cells; always the same weights."""
    torch.manual_seed(0)
    widths = ((3, 32, 2), (32, 64, 2), (64, 64, 1))
    blocks = [
        nn.Sequential(nn.Conv2d(one, next_, 3, stride=by, padding=1), nn.BatchNorm2d(next_), nn.ReLU())
        for one, next_, by in widths
    ]
    return nn.Sequential(*blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 10))


def options() -> argparse.Namespace:
    """What can be said on the command line: `--images 512 --epochs 4`."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--images", type=int, default=512)
    parser.add_argument("--epochs", type=int, default=4)
    return parser.parse_args()


def report(step: Step, data: TensorDataset) -> None:
    """Print the loss on the training images and the share of the heatmaps outside of the objects."""
    step.eval().cpu()
    with torch.no_grad():
        found = step(*data.tensors)
    print(f"loss {found['loss']:.6f}, outside {found['outside']:.1%}")
