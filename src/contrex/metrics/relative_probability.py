"""Relative probability: which of two classes the network leans to when it sees only what a heatmap keeps.

Axes: N images, n of them selected, C channels, H W pixels, h w heatmap cells, K classes, S signs, B baselines; the last
axis of size 2 is `t1` and `t2`, the two classes compared.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import product

import torch
from torch import Tensor

from contrex.errors import ArgumentError, unknown_name
from contrex.metrics.masking import SIGNS, kept_pixels, upsample
from contrex.metrics.per_sample import PerSampleMetric
from contrex.metrics.probing import Answers, asking, check_finite, check_no_nan, chosen_target
from contrex.metrics.removal import PAIR_BASELINES, baseline_images
from contrex.models import model_logits

TARGETS = ("t1", "t2")
"""The two most probable classes, the most probable first."""


def two_most_probable(logits: Tensor) -> Tensor:
    """The classes `t1, t2` with the largest logits, integers `[N,2]`; of equal logits the lower class comes first.

    Raises:
        ArgumentError: `logits` is not `[N,K]` with K >= 2.

    >>> two_most_probable(torch.tensor([[0.0, 3.0, 1.0, 3.0]]))
    tensor([[1, 3]])
    """
    if logits.ndim != 2 or logits.shape[1] < 2:
        raise ArgumentError(
            f"`logits` must be [N,K] with at least 2 classes, got {list(logits.shape)}; of one logit (a sigmoid) both "
            "classes have the same contrast, so there is nothing to compare."
        )
    return logits.argsort(dim=1, descending=True, stable=True)[:, :2]


def relative_probability(logits: Tensor, target: Tensor, top2: Tensor) -> Tensor:
    """The probability of `target` if only the two classes of `top2` existed, float64 `[N]` in 0..1.

    `exp(y_t) / (exp(y_t1) + exp(y_t2))`, t one of t1 and t2.

    "Why Not Other Classes?" (NeurIPS 2022), section 5.2. *Deviation* from the published code: it exponentiates the
    logits one by one, which overflows in float32 beyond 88; here only their difference counts.

    Args:
        logits: `[N,K]`.
        target: integers `[N]`, of each image one of its two classes.
        top2: integers `[N,2]`, two different classes of each image, as from `two_most_probable`.

    Raises:
        ArgumentError: a shape or a class does not fit, or a logit is NaN.

    >>> relative_probability(torch.tensor([[0.0, 1000.0, 1000.0]]), torch.tensor([2]), torch.tensor([[1, 2]]))
    tensor([0.5000], dtype=torch.float64)
    """
    _check_pair(logits, top2)
    target = chosen_target(target, logits)
    top2 = top2.to(logits.device)
    is_target = top2 == target[:, None]
    if not is_target.any(dim=1).all():
        index = int((~is_target.any(dim=1)).nonzero()[0])
        raise ArgumentError(
            f"`target` must be one of the two classes {top2[index].tolist()}, "
            f"got {int(target[index])} at index {index}."
        )
    return _of_pair(logits, top2)[is_target]


@asking("logits", "batch_size")
def masked_relative_probability(
    answers: Answers,
    heatmaps: Tensor,
    other: Tensor | None = None,
    *,
    top2: Tensor,
    signs: Sequence[str] = SIGNS,
    baselines: Mapping[str, Tensor] | None = None,
    protocol: str = "same-area",
    threshold: float = 0.1,
) -> Tensor:
    """Relative probability of two classes when only the pixels that their own heatmaps keep are left of the image.

    `value[n, s, b, i] = relative_probability(model(z), t_i, (t1, t2))` with `z` the image n where
    `kept_pixels(heatmap_ni, other_ni, sign=signs[s])` holds, and baseline b elsewhere.

    "Why Not Other Classes?" (NeurIPS 2022), section 5.2 and appendix G: what is positive in a good map of `t_i` speaks
    for it and not for its rival, so keeping it raises the value; keeping what is negative lowers it. One row of the
    paper's tables is this function for the ordinary maps with the contrastive ones as `other` and then with the two
    swapped, averaged over n, beside the mean of the relative probability of the whole images.
    *Deviations* from the published code: `sigma` of the blur, see `reflected_blur`, drawn there anew for each class and
    sign; and see `kept_pixels`.

    The network sees `2 S B` images for each selected one, and all N once more unless its logits are known.

    Args:
        answers: the model and the images, as an `Answers`, or in short (see there).
        heatmaps: `[N,2,h,w]`, the signed maps of `t1` and `t2` of one method; `upsample` brings them to H x W.
        other: those of the method it is compared with, of the same shape; only `protocol="paper"` goes without.
        top2: integers `[N,2]`, the classes `t1, t2`, two different ones.
        signs: any of `"positive"` and `"negative"`.
        baselines: from `baseline_images`, or others of the images' shape or broadcast to it; None is all of the former.
        protocol: see `kept_pixels`.
        threshold: an image counts where the probability of `t2` exceeds it: elsewhere there is no second class to
            contrast with. 0.1 in the reproduction, 0.4 by default in the published script.

    Returns:
        float64 `[N,S,B,2]` in 0..1 on the images' device, signs and baselines in the order given; NaN for images
        that do not count. An image of which nothing is kept has the value of the bare baseline.

    Raises:
        ArgumentError: a shape, a class, the threshold or the batch size does not fit, or a heatmap is not finite.
        UnknownNameError: a sign or the protocol is unknown.

    >>> from torch import nn
    >>> model = nn.Sequential(nn.Flatten(), nn.Linear(2, 2, bias=False))
    >>> _ = model[1].weight.data.copy_(torch.eye(2))
    >>> image, heatmaps = torch.ones(1, 1, 1, 2), torch.tensor([[[[1.0, -1.0]], [[-1.0, 1.0]]]])
    >>> zero, top2 = {"zero": torch.zeros(1)}, torch.tensor([[0, 1]])
    >>> masked_relative_probability(model, image, heatmaps, heatmaps, top2=top2, baselines=zero)[0, :, 0]
    tensor([[0.7311, 0.7311],
            [0.2689, 0.2689]], dtype=torch.float64)
    """
    images = answers.images
    for name, maps in (("heatmaps", heatmaps), ("other", other)):
        if maps is not None:
            _check_maps(images, maps, name)
    if not 0 <= threshold < 1:
        raise ArgumentError(f"`threshold` must be a probability in 0..1, below 1, got {threshold}.")
    with answers.session():
        _check_pair(answers.logits, top2)
        top2 = top2.to(images.device)
        second = answers.logits.double().softmax(dim=1).gather(1, top2[:, 1:])[:, 0]
        chosen = (second > threshold).nonzero()[:, 0]
        if baselines is None:
            fillings = list(baseline_images(images[chosen]).values())
        else:
            fillings = [_expand(filling, images, name)[chosen] for name, filling in baselines.items()]
        values = images.new_full((len(images), len(signs), len(fillings), 2), torch.nan, dtype=torch.float64)
        kept = _kept(heatmaps, other, chosen, images, signs, protocol)
        values[chosen] = _of_masked(answers, chosen, kept, fillings, top2)
    if values[chosen].isnan().any():
        raise ArgumentError("`model` gave logits without a relative probability (NaN or infinite) for a masked image.")
    return values.clone()  # outside inference mode: an ordinary tensor


class RelativeProbability(PerSampleMetric):
    """Mean relative probability of one class, sign and baseline, 0..1: one column of the paper's tables.

    Named `relative_probability_<sign>_<baseline>_<target>`; higher is better with positive pixels kept, lower with
    negative ones. Without `sign` and `baseline` it is the tables' first column, `relative_probability_<target>`: that
    of the whole images, which those numbers are to be compared with, and of which none is better.

    Args:
        target: `"t1"` or `"t2"`.
        sign: `"positive"`, `"negative"`, or None for the whole images.
        baseline: `"blur"`, `"zero"`, `"mean"`, or None for the whole images.
        threshold: as in `masked_relative_probability`, for the words about skipped images.

    >>> metric = RelativeProbability("t1", "positive", "blur")
    >>> metric.update(torch.tensor([0.5, 0.75, torch.nan]))
    >>> metric.name, metric.compute().item()
    ('relative_probability_positive_blur_t1', 0.625)
    """

    def __init__(
        self,
        target: str,
        sign: str | None = None,
        baseline: str | None = None,
        *,
        threshold: float = 0.1,
    ) -> None:
        for name, value, choices in (
            ("target", target, TARGETS),
            ("sign", sign or SIGNS[0], SIGNS),
            ("baseline", baseline or "blur", tuple(PAIR_BASELINES)),
        ):
            if value not in choices:
                raise unknown_name(f"`{name}`", value, choices)
        if (sign is None) != (baseline is None):
            raise ArgumentError(
                f"`sign` and `baseline` go together, got {sign!r} and {baseline!r}: pass both or neither."
            )
        self.name = "_".join(["relative_probability", *filter(None, (sign, baseline)), target])
        kept = f"{sign} pixels kept, rest {_IN_WORDS[baseline]}" if baseline else "whole image"
        self.title = f"Relative probability of {target}, {kept}"
        self.skip_reason = f"probability of the second class not above {threshold:g}"
        self.higher_is_better = None if sign is None else sign == "positive"
        super().__init__()

    def update(self, values: Tensor) -> None:
        """Count `values [N]`, a column of `masked_relative_probability`, NaN for images that do not count.

        Raises:
            ArgumentError: `values` is not `[N]`, or one lies outside 0..1.
        """
        outside = (values < 0) | (values > 1)
        if outside.any():
            raise ArgumentError(
                f"`values` must lie in 0..1, got {float(values[outside][0]):g}: they are no percentages."
            )
        self.append(values)


_IN_WORDS = {"blur": "blurred", "zero": "zero", "mean": "the channels' mean"}


def _of_pair(logits: Tensor, top2: Tensor) -> Tensor:
    """The relative probabilities of both classes, `[N,2]`."""
    return logits.gather(1, top2).double().softmax(dim=1)


def _kept(
    heatmaps: Tensor, other: Tensor | None, chosen: Tensor, images: Tensor, signs: Sequence[str], protocol: str
) -> Tensor:
    """What each map of the chosen images keeps, boolean `[S,n,2,H,W]`."""
    size = (images.shape[2], images.shape[3])
    # Where no image counts one is looked at all the same, so that names of signs and protocol are checked.
    some = chosen if len(chosen) else chosen.new_zeros(1)
    own = upsample(heatmaps.to(images.device)[some], size).flatten(0, 1)
    rival = None if other is None else upsample(other.to(images.device)[some], size).flatten(0, 1)
    kept = [kept_pixels(own, rival, sign=sign, protocol=protocol) for sign in signs]
    return torch.stack(kept).view(len(signs), len(some), 2, *size)[:, : len(chosen)]


def _of_masked(answers: Answers, chosen: Tensor, kept: Tensor, fillings: list[Tensor], top2: Tensor) -> Tensor:
    """The values `[n,S,B,2]` of the `chosen` images, in as many variants at once as a pass has room for."""
    images, top2, num_images = answers.images[chosen], top2[chosen], answers.batch_size
    variants = list(product(range(len(kept)), range(len(fillings)), range(2)))
    total = len(variants) * len(images)
    memory_format = torch.channels_last if images.is_contiguous(memory_format=torch.channels_last) else None
    parts = []
    for first in range(0, total, num_images):
        batch, pairs = [], []
        # A pass is filled with the end of one variant and the beginning of the next, so none runs half empty.
        for variant in range(first // len(images), -(-min(first + num_images, total) // len(images))):
            sign, filling, which = variants[variant]
            start = variant * len(images)
            some = slice(max(first - start, 0), first + num_images - start)
            batch.append(torch.where(kept[sign, some, which, None], images[some], fillings[filling][some]))
            pairs.append(top2[some])
        ready = torch.cat(batch).contiguous(memory_format=memory_format or torch.contiguous_format)
        parts.append(_of_pair(model_logits(answers.model, ready), torch.cat(pairs)))
    both = torch.cat([images.new_zeros(0, 2, dtype=torch.float64), *parts])
    both = both.view(len(kept), len(fillings), 2, len(images), 2)
    return both.diagonal(dim1=2, dim2=4).movedim(2, 0)  # of each map the probability of its own class


def _expand(filling: Tensor, images: Tensor, name: str) -> Tensor:
    try:
        return filling.detach().to(images).expand_as(images)
    except RuntimeError:
        raise ArgumentError(
            f"`baselines[{name!r}]` must have the images' shape {list(images.shape)} or broadcast to it, "
            f"got {list(filling.shape)}."
        ) from None


def _check_maps(images: Tensor, maps: Tensor, name: str) -> None:
    if maps.ndim != 4 or maps.shape[:2] != (len(images), 2):
        raise ArgumentError(
            f"`{name}` must be [N,2,h,w] = [{len(images)}, 2, h, w], the maps of t1 and t2, got {list(maps.shape)}."
        )
    check_finite(name, maps)


def _check_pair(logits: Tensor, top2: Tensor) -> None:
    if logits.ndim == 2 and logits.shape[1] == 1:
        raise ArgumentError(
            "`logits` must have at least 2 classes, got one logit (a sigmoid), both classes of which have the same "
            "contrast, so there is nothing to compare."
        )
    if logits.ndim != 2 or top2.shape != (len(logits), 2) or top2.is_floating_point() or top2.dtype == torch.bool:
        raise ArgumentError(
            f"`top2` must be integers [N,2], two classes for each of the logits [N,K] {list(logits.shape)}, "
            f"got {top2.dtype} {list(top2.shape)}."
        )
    if ((top2 < 0) | (top2 >= logits.shape[1])).any() or (top2[:, 0] == top2[:, 1]).any():
        raise ArgumentError(
            f"`top2` must hold two different classes in 0..{logits.shape[1] - 1} per image, got {top2.tolist()}."
        )
    check_no_nan("logits", logits)
