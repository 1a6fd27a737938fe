"""The small network of the built-in data: a few convolutions, global average pooling, one linear layer."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from contrex.errors import ArgumentError


class ConvNet(nn.Module):
    """3x3 Conv-BN-ReLU blocks and one pointwise (1x1) block, then global average pooling and a linear classifier.

    An image of 64 x 64 gives, by default, a last feature map `features` of 8 x 8: large enough for a heatmap to point
    at a digit, small enough to train in seconds per epoch on two CPU cores. The pointwise block adds features without
    adding field: a cell sees 31 x 31 pixels, about one digit. Where a cell sees much more than its object, it can
    answer for one that lies beside it, and a heatmap can be consistent without being on the object.
    """

    def __init__(
        self,
        num_classes: int = 10,
        widths: Sequence[int] = (16, 32, 64, 96),
        strides: Sequence[int] = (2, 2, 2, 1),
        pointwise: int = 128,
    ) -> None:
        super().__init__()
        if min(num_classes, pointwise) < 1 or not widths or len(widths) != len(strides):
            raise ArgumentError(
                f"`num_classes` and `pointwise` must be positive, `widths` and `strides` of one length; "
                f"got {num_classes}, {pointwise}, {widths} and {strides}."
            )
        blocks = [_block(*block, kernel=3) for block in zip((3, *widths), widths, strides, strict=False)]
        # Another pooling than the mean, which `contrex.models.pooling` puts here.
        self.pooling: nn.Module | None = None
        self.features = nn.Sequential(*blocks, _block(widths[-1], pointwise, stride=1, kernel=1))
        self.fc = nn.Linear(pointwise, num_classes)

    def forward(self, images: Tensor) -> Tensor:
        """The logits `[N,K]` of images `[N,3,H,W]`."""
        features: Tensor = self.features(images)
        pooled = features.mean((2, 3)) if self.pooling is None else self.pooling(features)
        logits: Tensor = self.fc(pooled)
        return logits


def _block(width_in: int, width: int, stride: int, *, kernel: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(width_in, width, kernel, stride=stride, padding=kernel // 2, bias=False),
        nn.BatchNorm2d(width),
        nn.ReLU(inplace=True),
    )
