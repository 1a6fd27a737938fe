"""Adversarial images by the fast gradient sign method, and the accuracy on them.

Axes: N images, C channels, H W pixels, K classes.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from contrex.errors import ArgumentError
from contrex.metrics.accuracy import top_k_correct
from contrex.metrics.per_sample import PerSampleMetric
from contrex.metrics.probing import Answers, asking, in_chunks
from contrex.models import eval_mode, model_logits
from contrex.ops import scores

Channels = float | Sequence[float] | Tensor
"""One number for all channels, or one for each, [C]."""


@asking("batch_size")
def fgsm(
    answers: Answers,
    labels: Tensor,
    *,
    epsilon: float,
    std: Channels,
    lower: Channels,
    upper: Channels,
    direction: Tensor | None = None,
) -> Tensor:
    """The images after one step of the size epsilon that raises the cross-entropy of their labels.

    `x' = clamp(x + (epsilon / std) sign(grad_x CE(model(x), label)), lower, upper)`: every pixel moves by `epsilon`, in
    units of pixel values in [0, 1], and stays a valid one. x is normalised, `(pixel - mean) / std`, hence the division.

    Goodfellow et al., "Explaining and Harnessing Adversarial Examples" (ICLR 2015), section 4. *How*: `grad CE` is
    `(1 - p_t)` times the gradient of `logsumexp_{s != t} y_s - y_t`, so both have one sign, and the latter is taken: it
    remains where a confident network's `1 - p_t` rounds to 0, which would make the network look robust. Where the
    gradient is exactly 0 the pixel stays.

    The network sees N images, once forwards and once backwards, or none where `direction` is given. It may be called
    under `no_grad` or `inference_mode`.

    Args:
        answers: the model, which must be differentiable, and the images, as an `Answers`, or in short (see there). One
            logit is a sigmoid with the labels 0 and 1.
        labels: ground truth, integers `[N]`.
        epsilon: in 0..1; 4/255 is usual.
        std: what normalisation divides pixel values in [0, 1] by: a number, or one per channel; 1 if not normalised.
        lower: the normalised value of a pixel of 0, `(0 - mean) / std`: see `pixel_bounds`.
        upper: the normalised value of a pixel of 1, `(1 - mean) / std`.
        direction: what `fgsm_direction` gives for these images, if known: it serves every epsilon.

    Returns:
        Adversarial images in the shape, dtype and memory format of `images`, without a graph.

    Raises:
        ArgumentError: a shape, a label or a number does not fit, images leave their bounds, or there is no gradient.

    >>> model = nn.Sequential(nn.Flatten(), nn.Linear(2, 2, bias=False))
    >>> _ = model[1].weight.data.copy_(torch.tensor([[1.0, -1.0], [0.0, 0.0]]))
    >>> images = torch.tensor([[[[0.5, 0.0]]]])
    >>> fgsm(model, images, torch.tensor([0]), epsilon=0.25, std=1.0, lower=0.0, upper=1.0)
    tensor([[[[0.2500, 0.2500]]]])
    """
    images = answers.images
    if not 0 <= epsilon <= 1:
        raise ArgumentError(f"`epsilon` must lie in 0..1, in units of pixel values in [0, 1]; got {epsilon}: 4 / 255?")
    deviation, low, high = (_per_channel(*pair, images) for pair in (("std", std), ("lower", lower), ("upper", upper)))
    if not (deviation > 0).all():
        raise ArgumentError(f"`std` must be positive, got {std}.")
    _check_bounds(images, low, high)
    if direction is None:
        direction = fgsm_direction(answers, labels)
    elif direction.shape != images.shape:
        raise ArgumentError(f"`direction` must be {list(images.shape)} as the images, got {list(direction.shape)}.")
    moved = images + epsilon / deviation * direction.to(images)
    return torch.minimum(torch.maximum(moved, low), high)


@asking("batch_size")
def fgsm_direction(answers: Answers, labels: Tensor) -> Tensor:
    """The direction in which `fgsm` moves each pixel, however far: `sign(grad_x CE(model(x), label))`, -1, 0 or 1.

    All else is as in `fgsm`; the network sees N images, once forwards and once backwards.

    Returns:
        `[N,C,H,W]`, in the dtype and memory format of the images, without a graph.

    Raises:
        ArgumentError: a shape or a label does not fit, or there is no gradient.

    >>> model = nn.Sequential(nn.Flatten(), nn.Linear(2, 2, bias=False))
    >>> _ = model[1].weight.data.copy_(torch.tensor([[1.0, -1.0], [0.0, 0.0]]))
    >>> fgsm_direction(model, torch.tensor([[[[0.5, 0.0]]]]), torch.tensor([0]))
    tensor([[[[-1.,  1.]]]])
    """
    images = answers.images
    _check_labels(images, labels)

    def sign(some: Tensor, label: Tensor) -> Tensor:
        return _ascent(answers.model, some, label).sign()

    with eval_mode(answers.model):
        return in_chunks(sign, images, labels.to(images.device), num_images=answers.batch_size)


def pixel_bounds(mean: Sequence[float], std: Sequence[float]) -> tuple[Tensor, Tensor]:
    """The normalised values of pixels of 0 and of 1, `(lower, upper)`, `[C]` each.

    >>> pixel_bounds(mean=(0.5, 0.25), std=(0.5, 0.25))
    (tensor([-1., -1.]), tensor([1., 3.]))
    """
    mean_values, std_values = (torch.tensor(values, dtype=torch.float32, device="cpu") for values in (mean, std))
    return (0 - mean_values) / std_values, (1 - mean_values) / std_values


class RobustAccuracy(PerSampleMetric):
    """Top-1 accuracy on the images that `fgsm` makes, in %; higher is better.

    Named `fgsm_top1_<n>_255` where epsilon is n / 255, else `fgsm_top1_<decimals>`.

    >>> metric = RobustAccuracy(epsilon=4 / 255)
    >>> metric.update(torch.eye(4), torch.tensor([0, 1, 2, 0]))
    >>> metric.name, metric.compute().item()
    ('fgsm_top1_4_255', 75.0)
    """

    unit = "%"
    higher_is_better = True

    def __init__(self, epsilon: float) -> None:
        if not 0 <= epsilon <= 1:
            raise ArgumentError(f"`epsilon` must lie in 0..1, got {epsilon}: 4 / 255?")
        steps = round(255 * epsilon)
        size = f"{steps}/255" if abs(255 * epsilon - steps) < 1e-6 else f"{epsilon:.6g}"
        self.epsilon = epsilon
        self.name = f"fgsm_top1_{size.replace('/', '_').replace('.', '_').replace('-', '_')}"
        self.title = f"Top-1 accuracy under FGSM, epsilon {size}"
        super().__init__()

    def update(self, logits: Tensor, labels: Tensor) -> None:
        """Count a batch: `logits [N,K]` of the adversarial images in eval mode, `labels [N]`."""
        self.append(100.0 * top_k_correct(logits, labels, 1).double())


def _ascent(model: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
    """A positive multiple of the gradient of the cross-entropy for each image."""
    with torch.inference_mode(False), torch.enable_grad():
        leaf = images.clone().requires_grad_()  # a clone also because inference mode may have made it
        logits = model_logits(model, leaf)
        if not logits.requires_grad:
            raise ArgumentError("`model` must be differentiable: its logits have no gradient of the images.")
        num_classes = scores.class_logits(logits).shape[1]
        outside = (labels < 0) | (labels >= num_classes)
        if outside.any() and logits.shape[1] == 1:
            raise ArgumentError(
                f"`model` must return logits [N,K] of at least 2 classes, got {list(logits.shape)} and the label "
                f"{int(labels[outside][0])}: one logit is a sigmoid, whose labels are 0 and 1."
            )
        if outside.any():
            raise ArgumentError(f"`labels` must lie in 0..{num_classes - 1}, got {int(labels[outside][0])}.")
        precise = logits.to(torch.promote_types(logits.dtype, torch.float32))
        # In float32 or better: in half precision the gap between two logits rounds to 0 early. The labels are cloned,
        # as inference mode may have made them.
        log_odds = scores.score(precise, labels.clone(), "weighted")
        return torch.autograd.grad(-log_odds.sum(), leaf)[0]


def _per_channel(name: str, value: Channels, images: Tensor) -> Tensor:
    """A number for each channel, `[C,1,1]`, or one for all, in the images' dtype and on their device."""
    values = torch.as_tensor(value, dtype=torch.float64, device=images.device)
    if values.ndim and values.shape != images.shape[1:2]:
        raise ArgumentError(
            f"`{name}` must be a number, or [C] = [{images.shape[1]}], one for each channel; got {list(values.shape)}."
        )
    return values.to(images).reshape(-1, 1, 1)


def _check_bounds(images: Tensor, low: Tensor, high: Tensor) -> None:
    if not (low < high).all():
        raise ArgumentError(
            f"`lower` must be below `upper`, got {low.flatten().tolist()} and {high.flatten().tolist()}."
        )
    slack = 0.01 * (high - low)  # interpolation and half precision overshoot a little
    outside = ~((images >= low - slack) & (images <= high + slack))
    if outside.any():
        index, channel = outside.nonzero()[0, :2].tolist()
        raise ArgumentError(
            f"`images` must lie between `lower` and `upper`, got {images[outside][0].item():g} in channel {channel} of "
            f"image {index}: both bounds are of normalised pixels, see `pixel_bounds`."
        )


def _check_labels(images: Tensor, labels: Tensor) -> None:
    if labels.shape != images.shape[:1] or labels.is_floating_point() or labels.dtype == torch.bool:
        raise ArgumentError(
            f"`labels` must be integers [{len(images)}], one per image, got {labels.dtype} {list(labels.shape)}."
        )
