"""Drop and increase: what becomes of a prediction when only the most salient pixels are kept.

Axes: N images, C channels, H W pixels, K classes, F fractions.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from contrex.errors import ArgumentError
from contrex.metrics.per_sample import PerSampleMetric
from contrex.metrics.probing import Answers, asking, check_saliency, in_chunks
from contrex.metrics.removal import baseline_image, pixel_ranks

SKIPPED = "the whole image has probability 0"


@asking("target", "logits", "batch_size", "task")
def kept_probabilities(
    answers: Answers,
    saliency: Tensor,
    *,
    fractions: Sequence[float] = (0.15, 0.30, 0.45),
    baseline: Tensor | str = "zero",
) -> tuple[Tensor, Tensor]:
    """Probability of the target class on the whole image, `p`, and on its most salient pixels alone, `p'`.

    `p_n = p(model(x_n))[t_n]`, `p'_nf = p(model(z_nf))[t_n]`, p the softmax (sigmoids by `task`), `z_nf` the image with
    only the `floor(fraction_f H W)` most salient pixels, in all channels; the others come from the baseline.

    ExCon (ICLR 2022 submission, section 4.3.1), after Ramaswamy et al. (Ablation-CAM, WACV 2020). The number of pixels
    is that of the published code, `int(threshold * H W)`: a count, not a threshold on the saliency. *Deviations* from
    it: of equally salient pixels those with the lower index, row by row, are kept, where its unstable sort leaves that
    open, and a product that misses a whole number by a rounding error counts as whole.

    The network sees `N (F + 1)` images, `N F` when its logits are known.

    Args:
        answers: the model and the images, as an `Answers`, or in short (see there).
        saliency: `[N,H,W]`, any scale, signed or rectified, at the size of the images; of the target class.
        fractions: shares of the pixels that are kept, each in (0, 1]; Tables 3 to 8 of the paper have the default ones.
        baseline: what replaces the other pixels: a name of `contrex.metrics.removal` that is one image ("zero", the
            mean colour, as in the published code), or an image `[N,C,H,W]` or broadcast to it.

    Returns:
        `(p [N], p' [N,F])`, at least float32, on the images' device, without a graph.

    Raises:
        ArgumentError: a shape, a fraction, the batch size or a target does not fit, or the saliency is NaN.

    >>> from torch import nn
    >>> model = nn.Sequential(nn.Flatten(), nn.Linear(4, 2, bias=False))
    >>> _ = model[1].weight.data.copy_(torch.tensor([[1.0, 2.0, 3.0, 4.0], [0.0, 0.0, 0.0, 0.0]]))
    >>> image, saliency = torch.ones(1, 1, 2, 2), torch.tensor([[[1.0, 4.0], [3.0, 2.0]]])
    >>> kept_probabilities(model, image, saliency, fractions=[0.25, 0.5])
    (tensor([1.0000]), tensor([[0.8808, 0.9933]]))
    """
    images, saliency = answers.images, saliency.detach()
    check_saliency(images, saliency)
    counts = _counts(fractions, saliency[0].numel()).to(images.device)
    baseline = baseline_image(images, baseline)
    ranks = pixel_ranks(saliency).to(images.device)

    def kept(pair: Tensor) -> Tensor:
        image, fraction = pair // len(counts), pair % len(counts)
        mask = (ranks[image] < counts[fraction, None, None])[:, None]
        return answers.of(torch.where(mask, images[image], baseline[image]), image)

    with answers.session():
        whole = answers.whole()
        pairs = torch.arange(len(images) * len(counts), device=images.device)
        probs = in_chunks(kept, pairs, num_images=answers.batch_size).view(len(images), -1)
    return whole.clone(), probs.clone()  # outside inference mode: ordinary tensors


def drop_percent(probs: Tensor, kept_probs: Tensor) -> Tensor:
    """100 where the probability has become smaller, else 0: its mean is the share of images with `p' < p`, in %.

    ExCon's "drop percent"; its tables print the share between 0 and 1. An equal probability is neither drop nor
    increase.

    Args:
        probs: p, `[N]`, of the whole images.
        kept_probs: p', `[N]` or `[N,F]`, of the kept pixels.

    Returns:
        float64, the shape of `kept_probs`.

    Raises:
        ArgumentError: the shapes do not match, or a value is not a probability.

    >>> drop_percent(torch.tensor([0.5, 0.5]), torch.tensor([[0.25, 0.5], [0.75, 0.125]]))
    tensor([[100.,   0.],
            [  0., 100.]], dtype=torch.float64)
    """
    before, after = _checked_probabilities(probs, kept_probs)
    return 100.0 * (after < before).double()


def drop_magnitude(probs: Tensor, kept_probs: Tensor) -> Tensor:
    """The share of the probability that is lost, `max(0, p - p') / p`, in 0..1; NaN where p is 0.

    Arguments and errors are those of `drop_percent`. ExCon's "drop mag": the mean is over all images, those
    without a drop count as 0.

    >>> drop_magnitude(torch.tensor([0.5, 0.5]), torch.tensor([0.125, 0.75]))
    tensor([0.7500, 0.0000], dtype=torch.float64)
    """
    before, after = _checked_probabilities(probs, kept_probs)
    return (before - after).clamp(min=0) / before.where(before > 0, torch.nan)


def increase_percent(probs: Tensor, kept_probs: Tensor) -> Tensor:
    """100 where the probability has become larger, else 0: its mean is the share of images with `p' > p`, in %.

    Arguments and errors are those of `drop_percent`.

    >>> increase_percent(torch.tensor([0.5, 0.5]), torch.tensor([0.125, 0.75]))
    tensor([  0., 100.], dtype=torch.float64)
    """
    before, after = _checked_probabilities(probs, kept_probs)
    return 100.0 * (after > before).double()


def increase_magnitude(probs: Tensor, kept_probs: Tensor) -> Tensor:
    """The gain as a share of the probability, `max(0, p' - p) / p`, from 0 without bound; NaN where p is 0.

    Arguments and errors are those of `drop_percent`.

    >>> increase_magnitude(torch.tensor([0.5, 0.125]), torch.tensor([0.125, 0.75]))
    tensor([0., 5.], dtype=torch.float64)
    """
    before, after = _checked_probabilities(probs, kept_probs)
    return (after - before).clamp(min=0) / before.where(before > 0, torch.nan)


class ProbabilityChange(PerSampleMetric):
    """One of the four measures at one fraction, named `<measure>_<fraction in %>`; its subclasses say which.

    All of them take the same arguments, so one call of `kept_probabilities` serves every fraction and measure.
    """

    measure: Callable[[Tensor, Tensor], Tensor]

    def __init__(self, *, fraction: float) -> None:
        _check_fraction(fraction)
        share, words = f"{100 * fraction:.6g}", type(self).measure.__name__
        self.fraction = fraction
        self.name = f"{words}_{share.replace('.', '_')}"
        self.title = f"{words.replace('_', ' ').capitalize()}, {share} % kept"
        super().__init__()

    def update(self, probs: Tensor, kept_probs: Tensor, fractions: Sequence[float]) -> None:
        """Count a batch: what `kept_probabilities` returns for these `fractions`.

        Raises:
            ArgumentError: the metric's fraction is not among them, a shape is wrong or a value is no probability.
        """
        if kept_probs.ndim != 2 or kept_probs.shape[1] != len(fractions):
            raise ArgumentError(f"`kept_probs` must be [N,F] with F = {len(fractions)}, got {list(kept_probs.shape)}.")
        columns = [index for index, fraction in enumerate(fractions) if math.isclose(fraction, self.fraction)]
        if not columns:
            raise ArgumentError(f"`fractions` must hold {self.fraction}, the fraction of {self.name}, got {fractions}.")
        self.append(type(self).measure(probs, kept_probs[:, columns[0]]))


class DropPercent(ProbabilityChange):
    """Share of images whose probability falls, in %; lower is better: `drop_percent`.

    >>> metric = DropPercent(fraction=0.15)
    >>> metric.update(torch.tensor([0.5, 0.5]), torch.tensor([[0.25, 0.5], [0.75, 0.5]]), fractions=[0.15, 0.3])
    >>> metric.name, metric.compute().item()
    ('drop_percent_15', 50.0)
    """

    measure = staticmethod(drop_percent)
    unit = "%"
    higher_is_better = False


class DropMagnitude(ProbabilityChange):
    """Mean relative fall of the probability, 0..1; lower is better: `drop_magnitude`."""

    measure = staticmethod(drop_magnitude)
    skip_reason = SKIPPED
    higher_is_better = False


class IncreasePercent(ProbabilityChange):
    """Share of images whose probability rises, in %; higher is better: `increase_percent`."""

    measure = staticmethod(increase_percent)
    unit = "%"
    higher_is_better = True


class IncreaseMagnitude(ProbabilityChange):
    """Mean relative rise of the probability, from 0 without bound; higher is better: `increase_magnitude`."""

    measure = staticmethod(increase_magnitude)
    skip_reason = SKIPPED
    higher_is_better = True


def _counts(fractions: Sequence[float], num_pixels: int) -> Tensor:
    """The number of pixels that each fraction keeps, [F]."""
    if not len(fractions):
        raise ArgumentError("`fractions` must hold at least one share of the pixels, got none: (0.15, 0.3, 0.45).")
    counts = []
    for fraction in fractions:
        _check_fraction(fraction)
        counts.append(math.floor(round(fraction * num_pixels, 6)))  # 0.57 * 100 is 56.99999999999999
        if not counts[-1]:
            raise ArgumentError(f"`fractions` must keep a pixel: {fraction} of {num_pixels} pixels is less than one.")
    return torch.tensor(counts, device="cpu")


def _check_fraction(fraction: float) -> None:
    if not 0 < fraction <= 1:
        raise ArgumentError(f"`fraction` must lie in (0, 1], got {fraction}: 0.15 keeps 15 % of the pixels.")


def _checked_probabilities(probs: Tensor, kept_probs: Tensor) -> tuple[Tensor, Tensor]:
    """`probs` and `kept_probs`, checked, in float64 and in shapes that broadcast."""
    if probs.ndim != 1 or kept_probs.ndim not in {1, 2} or len(kept_probs) != len(probs):
        raise ArgumentError(
            f"`probs` must be [N] and `kept_probs` [N] or [N,F], got {list(probs.shape)} and {list(kept_probs.shape)}."
        )
    for name, values in (("probs", probs), ("kept_probs", kept_probs)):
        # A softmax in float32 may sum to a little more than 1.
        if not ((values >= 0) & (values <= 1.0001)).all():
            raise ArgumentError(f"`{name}` must be probabilities in 0..1, got {values.tolist()}.")
    before = probs.double() if kept_probs.ndim == 1 else probs.double()[:, None]
    return before, kept_probs.double()
