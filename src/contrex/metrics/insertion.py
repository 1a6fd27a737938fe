"""Insertion and deletion: what happens to a prediction when the most salient pixels come first, or go first.

Axes: N images, C channels, H W pixels, K classes, S steps (a curve has S+1 points).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice

import torch
from torch import Tensor

from contrex.errors import ArgumentError, unknown_name
from contrex.metrics import removal
from contrex.metrics.per_sample import PerSampleMetric
from contrex.metrics.probing import Answers, asking, check_finite, check_saliency


@asking("target", "logits", "batch_size", "task")
def insertion_curve(
    answers: Answers,
    saliency: Tensor,
    *,
    step: int,
    baseline: Tensor | str = "blur",
    seeds: Sequence[int] | None = None,
) -> Tensor:
    """Probability of the target class while pixels of the image are put into a baseline, the most salient first.

    `curve[n, s] = p(model(z_ns))[target_n]`, p the softmax (or sigmoids, by `task`), `z_ns` the baseline with the
    `s * step` most salient pixels of image n in their place, in all channels: `z_n0` is the baseline, `z_nS` the image,
    `S = ceil(H W / step)`.

    RISE (Petsiuk et al., BMVC 2018), as CGC (CVPR 2022, section 4) uses it. *Deviations* from the published
    code: there numpy's unstable sort orders equal saliency, here the pixel index does, row by row. The last step is
    shorter where `step` does not divide `H W`. Everything stays on the device of `images`.

    The network sees `N (S + 1)` images, `N S` when its logits are known: they are this curve's last point and the first
    one of `deletion_curve`.

    Args:
        answers: the model and the images, as an `Answers`, or in short (see there).
        saliency: `[N,H,W]`, any scale, at the size of the images. What is not salient at all is still ordered, so
            use signed maps or rectified ones deliberately and say which.
        step: pixels per step; 8 rows in the papers (224 * 8).
        baseline: what the curve starts from: a name of `contrex.metrics.removal` ("blur", "reflected_blur", "zero",
            "mean", "road"), or an image `[N,C,H,W]` or broadcast to it. "blur" is RISE's, an 11x11 Gaussian blur of
            sigma 5; "road" imputes the missing pixels anew at every step, from those that are there.
        seeds: one integer per image, for the noise of "road"; None is 0 for each.

    Returns:
        Probabilities `[N,S+1]`, at least float32, on the images' device, without a graph.

    Raises:
        UnknownNameError: there is no such baseline.
        ArgumentError: a shape, the step, the batch size, a target or the seeds do not fit, or the saliency is NaN.

    >>> from torch import nn
    >>> model = nn.Sequential(nn.Flatten(), nn.Linear(4, 2, bias=False))
    >>> _ = model[1].weight.data.copy_(torch.tensor([[1.0, 2.0, 3.0, 4.0], [0.0, 0.0, 0.0, 0.0]]))
    >>> image, saliency = torch.ones(1, 1, 2, 2), torch.tensor([[[1.0, 2.0], [3.0, 4.0]]])
    >>> insertion_curve(model, image, saliency, step=2, baseline=torch.zeros(1, 1, 2, 2))
    tensor([[0.5000, 0.9991, 1.0000]])
    """
    return _curve(answers, saliency, baseline, inserting=True, step=step, seeds=seeds)


@asking("target", "logits", "batch_size", "task")
def deletion_curve(
    answers: Answers,
    saliency: Tensor,
    *,
    step: int,
    baseline: Tensor | str = "zero",
    seeds: Sequence[int] | None = None,
) -> Tensor:
    """Probability of the target class while pixels of the image are replaced by a baseline, the most salient first.

    `curve[n, s] = p(model(z_ns))[target_n]`, p the softmax (or sigmoids, by `task`), `z_ns` the image with its
    `s * step` most salient pixels taken from the baseline: `z_n0` is the image, `z_nS` the baseline. That is "zero", in
    the network's normalised input space (the mean colour), as in the published code; with "road" the curve is ROAD's,
    most relevant first (Rong et al., ICML 2022). All else is as in `insertion_curve`.

    >>> from torch import nn
    >>> model = nn.Sequential(nn.Flatten(), nn.Linear(4, 2, bias=False))
    >>> _ = model[1].weight.data.copy_(torch.tensor([[1.0, 2.0, 3.0, 4.0], [0.0, 0.0, 0.0, 0.0]]))
    >>> image, saliency = torch.ones(1, 1, 2, 2), torch.tensor([[[1.0, 2.0], [3.0, 4.0]]])
    >>> deletion_curve(model, image, saliency, step=2)
    tensor([[1.0000, 0.9526, 0.5000]])
    """
    return _curve(answers, saliency, baseline, inserting=False, step=step, seeds=seeds)


def curve_fractions(num_pixels: int, step: int) -> Tensor:
    """Share of the pixels replaced at each point of a curve, float64 `[S+1]` from 0 to 1.

    >>> curve_fractions(num_pixels=10, step=4)
    tensor([0.0000, 0.4000, 0.8000, 1.0000], dtype=torch.float64)
    """
    if num_pixels < 1 or step < 1:
        raise ArgumentError(f"`num_pixels` and `step` must be at least 1, got {num_pixels} and {step}.")
    num_steps = -(-num_pixels // step)
    return (torch.arange(num_steps + 1, dtype=torch.float64, device="cpu") * step).clamp(max=num_pixels) / num_pixels


def area_under_curve(curves: Tensor, fractions: Tensor | None = None) -> Tensor:
    """Trapezoid area under each curve over an axis from 0 to 1, so that a constant probability is its own area.

    `sum_s (f_{s+1} - f_s) (p_s + p_{s+1}) / 2`. Without `fractions` the points are equally spaced, as RISE's published
    code has it even when the last step is shorter; `curve_fractions` gives their exact places.

    Args:
        curves: `[N,S+1]`, S at least 1.
        fractions: `[S+1]` from 0 to 1, or None.

    Returns:
        float64 `[N]`, in 0..1.

    Raises:
        ArgumentError: a shape does not fit, or the fractions do not rise from 0 to 1.

    >>> area_under_curve(torch.tensor([[0.0, 1.0, 1.0]]))
    tensor([0.7500], dtype=torch.float64)
    """
    if curves.ndim != 2 or curves.shape[1] < 2:
        raise ArgumentError(f"`curves` must be [N,S+1] with at least one step, got {list(curves.shape)}.")
    if fractions is None:
        fractions = torch.linspace(0, 1, curves.shape[1], dtype=torch.float64, device=curves.device)
    if fractions.shape != curves.shape[1:]:
        raise ArgumentError(f"`fractions` must be [{curves.shape[1]}] as the curves, got {list(fractions.shape)}.")
    if fractions[0] != 0 or fractions[-1] != 1 or (fractions.diff() < 0).any():
        raise ArgumentError(
            f"`fractions` must rise from 0 to 1, got {fractions.tolist()}: `curve_fractions` gives them."
        )
    return torch.trapezoid(curves.double(), fractions.to(curves.device, torch.float64), dim=1)


class CurveArea(PerSampleMetric):
    """Area under the curve of each image: `area_under_curve`.

    `baseline` names the baseline of the curves where it is not the default one, and so the metric:
    `insertion_auc_road`.
    """

    def __init__(self, baseline: str | None = None) -> None:
        if baseline is not None:
            if baseline not in removal.BASELINES:
                raise unknown_name("`baseline`", baseline, removal.BASELINES)
            self.name, self.title = f"{self.name}_{baseline}", f"{self.title} ({baseline})"
        super().__init__()

    def update(self, curves: Tensor, fractions: Tensor | None = None) -> None:
        """Count `curves [N,S+1]`; `fractions` as in `area_under_curve`.

        Raises:
            ArgumentError: the shape is wrong, or a value is not finite.
        """
        areas = area_under_curve(curves, fractions)
        check_finite("curves", areas)  # an area is finite where all points of its curve are
        self.append(areas)


class InsertionAUC(CurveArea):
    """Area under the insertion curve, 0..1; higher is better: `area_under_curve` of `insertion_curve`.

    >>> metric = InsertionAUC()
    >>> metric.update(torch.tensor([[0.0, 1.0, 1.0], [0.0, 0.0, 1.0]]))
    >>> metric.compute()
    tensor(0.5000, dtype=torch.float64)
    """

    name = "insertion_auc"
    title = "Insertion AUC"
    higher_is_better = True


class DeletionAUC(CurveArea):
    """Area under the deletion curve, 0..1; lower is better: `area_under_curve` of `deletion_curve`.

    >>> metric = DeletionAUC()
    >>> metric.update(torch.tensor([[1.0, 0.0, 0.0]]))
    >>> metric.compute()
    tensor(0.2500, dtype=torch.float64)
    """

    name = "deletion_auc"
    title = "Deletion AUC"
    higher_is_better = False


def _curve(
    answers: Answers,
    saliency: Tensor,
    baseline: Tensor | str,
    *,
    inserting: bool,
    step: int,
    seeds: Sequence[int] | None,
) -> Tensor:
    check_saliency(answers.images, saliency)
    if step < 1:
        raise ArgumentError(f"`step` must be at least 1 pixel, got {step}.")
    changes = _Changes(answers.images, saliency.detach(), baseline, inserting=inserting, step=step, seeds=seeds)
    with answers.session():
        ends = answers.whole()[:, None]
        inner = _inner_points(answers, changes)
        curve = torch.cat([inner, ends] if inserting else [ends, inner], dim=1)
    return curve.clone()  # outside inference mode: an ordinary tensor


class _Changes:
    """The S images between the whole one and the baseline, both ends counted but the whole one left out."""

    def __init__(
        self,
        images: Tensor,
        saliency: Tensor,
        baseline: Tensor | str,
        *,
        inserting: bool,
        step: int,
        seeds: Sequence[int] | None,
    ) -> None:
        self.images, self.inserting, self.step = images, inserting, step
        self.order = removal.pixel_order(saliency).to(images.device)
        self.num_steps = -(-self.order.shape[1] // step)
        self.imputes = removal.is_road(baseline)
        # What an image turns into: the noise of its imputations, or the baseline.
        self.other = (
            removal.imputation_noise(images, seeds) if self.imputes else removal.baseline_image(images, baseline)
        )

    def states(self, some: slice) -> Iterator[Tensor]:
        """S batches of changed images; one buffer may be behind all of them."""
        images, other, order = self.images[some], self.other[some], self.order[some]
        # The whole image is known already: it is the last state of an insertion and the first of a deletion.
        skip = 0 if self.inserting else 1
        if self.imputes:
            states = _imputed_states(images, other, order, self.step, inserting=self.inserting)
        else:
            start, end = (other, images) if self.inserting else (images, other)
            states = _states(start, end, order, self.step)
        return islice(states, skip, skip + self.num_steps)


def _inner_points(answers: Answers, changes: _Changes) -> Tensor:
    """The points of the curves at the S successive states, `[N,S]`."""
    num, size = len(answers), answers.batch_size
    places = torch.arange(num, device=answers.images.device)
    chunks = (slice(first, first + size) for first in range(0, num, size))
    return torch.cat([_points(answers, changes.states(some), places[some]) for some in chunks])


def _imputed_states(images: Tensor, noise: Tensor, order: Tensor, step: int, *, inserting: bool) -> Iterator[Tensor]:
    """States 0..S with the missing pixels imputed, each from the images as they are."""
    rank, road = removal.ranks_of(order).view(len(images), *images.shape[2:]), removal.Road(images, noise)
    for num_pixels in range(0, order.shape[1] + step, step):
        yield road(rank >= num_pixels if inserting else rank < num_pixels)


def _states(start: Tensor, end: Tensor, order: Tensor, step: int) -> Iterator[Tensor]:
    """States 0..S from `start` to `end`, in one buffer that is changed in place."""
    # Each step writes its own pixels only, so S steps cost as much as one copy of the image.
    pixels, source = start.flatten(2).clone(), end.flatten(2)
    state = pixels.view(start.shape)
    yield state
    for index in torch.split(order, step, dim=1):
        every_channel = index[:, None].expand(-1, start.shape[1], -1)
        pixels.scatter_(2, every_channel, source.gather(2, every_channel))
        yield state


def _points(answers: Answers, states: Iterator[Tensor], index: Tensor) -> Tensor:
    """The points `[n,S]` of the images `index [n]`, as many states at once as a pass has room for."""
    columns = []
    # Clones: the states are one buffer that the next one changes.
    while chunk := [state.clone() for state in islice(states, max(1, answers.batch_size // len(index)))]:
        batch = chunk[0] if len(chunk) == 1 else torch.cat(chunk)
        if chunk[0].is_contiguous(memory_format=torch.channels_last):  # `cat` forgets it for chunks of one image
            batch = batch.contiguous(memory_format=torch.channels_last)
        columns.append(answers.of(batch, index.repeat(len(chunk))).view(len(chunk), -1))
    return torch.cat(columns).T
