"""The small network of the built-in data: five 3x3 convolutions, global average pooling, one linear layer."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from contrex.errors import ArgumentError


class ConvNet(nn.Module):
    """Conv-BN-ReLU blocks, then global average pooling and a linear classifier.

    With the default strides an image of 64 x 64 gives a last feature map `features` of 8 x 8: large enough for a
    heatmap to point at a digit, small enough to train in seconds per epoch on two CPU cores. Its cells see 47 x 47
    pixels, more than a digit, so nothing but training decides where in that field a cell looks.
    """

    def __init__(
        self,
        num_classes: int = 10,
        widths: Sequence[int] = (16, 32, 64, 96, 96),
        strides: Sequence[int] = (2, 2, 2, 1, 1),
    ) -> None:
        super().__init__()
        if num_classes < 1 or not widths or len(widths) != len(strides):
            raise ArgumentError(
                f"`num_classes` must be positive, `widths` and `strides` of one length; "
                f"got {num_classes}, {widths} and {strides}."
            )
        blocks = zip((3, *widths), widths, strides, strict=False)
        self.features = nn.Sequential(*(_block(*block) for block in blocks))
        self.fc = nn.Linear(widths[-1], num_classes)

    def forward(self, images: Tensor) -> Tensor:
        """Images `[N,3,H,W]` to logits `[N,K]`."""
        features: Tensor = self.features(images)
        logits: Tensor = self.fc(features.mean((2, 3)))
        return logits


def _block(width_in: int, width: int, stride: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(width_in, width, 3, stride=stride, padding=1, bias=False),
        nn.BatchNorm2d(width),
        nn.ReLU(inplace=True),
    )
