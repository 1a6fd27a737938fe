"""Infidelity: how far a heatmap is from predicting what small changes of the image do to the network's output.

Axes: N images, C channels, H W pixels, K classes, S samples.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import islice

import torch
from torch import Tensor

from contrex.errors import ArgumentError, unknown_name
from contrex.metrics.per_sample import PerSampleMetric
from contrex.metrics.probing import OUTPUTS, Answers, Output, asking, check_finite, check_saliency, check_seeds


@asking("target", "logits", "batch_size", "task")
def infidelity(
    answers: Answers,
    saliency: Tensor,
    *,
    num_samples: int = 10,
    noise_std: float = 0.1,
    seeds: Sequence[int],
    output: Output = "probability",
    normalise: bool = True,
) -> Tensor:
    """Mean squared error of a heatmap as a linear prediction of the network's response to Gaussian noise.

    `infidelity_n = mean_s ( beta <I_s, phi_n> - (f(x_n) - f(x_n - I_s)) )^2`, `I_s ~ N(0, noise_std^2)` at every pixel
    and channel, f the probability or the logit of the target class. `beta` is the scale of each image's phi that fits
    best, `sum_s <I_s, phi> (f(x) - f(x - I_s)) / sum_s <I_s, phi>^2`, or 1 without `normalise`.

    Yeh et al. (NeurIPS 2019), section 2. `captum.metrics.infidelity` with the same perturbations gives the same, with
    and without scaling. *Deviations* from the authors' published code: its "Gaussian" replaces the image by noise,
    `I = x - z` cut to the range of pixels; here I is the noise itself. It always scales phi; here that can be left out,
    and a phi of zeros, where it divides by 0, has the error of predicting no response at all.

    **Heatmaps** `[N,H,W]` count for every channel: `<I, phi> = sum_c sum_hw I_chw phi_hw`, as in ExCon's code and in
    Quantus. Their scale is arbitrary, so only numbers with `normalise` can be compared.

    **Randomness**: image n has its own generator, seeded with `seeds[n]`, on the device of `images`, and draws its S
    samples from it one by one. Its value therefore depends on neither its neighbours nor their order nor `batch_size`
    (but for the rounding of larger matrix products), and the global generators are left alone. Another kind of device
    draws other numbers.

    The network sees `N (S + 1)` images, `N S` when its logits are known.

    Args:
        answers: the model and the images, as an `Answers`, or in short (see there).
        saliency: heatmaps `[N,H,W]` at the size of the images, or attributions `[N,C,H,W]`; signed.
        num_samples: S; captum's default is 10, the authors' code draws 10,000.
        noise_std: standard deviation of the noise, in units of the normalised input.
        seeds: a seed in `0..2^63-1` for each image, such as a hash of the run's seed and the image's index.
        output: what f is, `"logit"` or `"probability"`.
        normalise: whether phi is scaled to its best fit.

    Returns:
        float64 `[N]`, 0 or larger, in squared units of f, on the images' device.

    Raises:
        ArgumentError: a shape, a number or a target does not fit, or the saliency is not finite.
        UnknownNameError: `output` is neither of the two.

    >>> from torch import nn
    >>> model = nn.Sequential(nn.Flatten(), nn.Linear(4, 1, bias=False))  # linear: its weights are faithful
    >>> image, weights = torch.randn(1, 1, 2, 2), model[1].weight.data.view(1, 2, 2)
    >>> answers = Answers(model, image, target=torch.tensor([1]))
    >>> infidelity(answers, weights, seeds=[0], output="logit", normalise=False).item() < 1e-12
    True
    >>> infidelity(answers, 9 * weights, seeds=[0], output="logit").item() < 1e-12
    True
    """
    images, saliency = answers.images, saliency.detach()
    _check_saliency(images, saliency)
    check_sampling(images, num_samples, seeds)
    if not 0 < noise_std < float("inf"):
        raise ArgumentError(f"`noise_std` must be a positive number, got {noise_std}.")
    if output not in OUTPUTS:
        raise unknown_name("`output`", output, OUTPUTS)
    phi = (saliency[:, None].expand_as(images) if saliency.ndim == 3 else saliency).to(images.device)
    with answers.session():
        before = answers.whole(output).double()
        draws = image_noise(images, seeds, num_samples, lambda shape, **to: noise_std * torch.randn(shape, **to))
        predicted, response = [], []
        for index, noise in noise_batches(draws, num_samples, answers.batch_size):
            # Summed in float64: over all pixels products of both signs nearly cancel.
            predicted.append(torch.einsum("nchw,nchw->n", noise.double(), phi[index].double()))
            response.append(before[index] - answers.of(images[index] - noise, index, output).double())
        shape = (len(images), num_samples)
        errors = _errors(torch.cat(predicted).view(shape), torch.cat(response).view(shape), normalise)
    return errors.clone()  # outside inference mode: an ordinary tensor


def image_noise(
    images: Tensor, seeds: Sequence[int], num_samples: int, draw: Callable[..., Tensor]
) -> Iterator[Tensor]:
    """Noise for copies of images: `num_samples` tensors `[C,H,W]` for the first, as many for the second, and so on.

    Each image has its own generator on its device, so its noise depends on its seed alone. `draw` is a function of
    torch's, called with the shape, `generator`, `dtype` and `device`.

    >>> images = torch.zeros(2, 1, 1, 2)
    >>> noise = list(image_noise(images, [7, 7], 3, torch.rand))
    >>> len(noise), noise[0].equal(noise[3]), noise[0].equal(noise[1])
    (6, True, False)
    """
    for image, seed in zip(images, seeds, strict=True):
        # One for each image: its noise depends on its seed alone, not on the batch or the process it is in.
        generator = torch.Generator(image.device).manual_seed(seed)
        for _ in range(num_samples):
            yield draw(image.shape, generator=generator, dtype=image.dtype, device=image.device)


def noise_batches(draws: Iterator[Tensor], num_samples: int, num_images: int) -> Iterator[tuple[Tensor, Tensor]]:
    """The draws of `image_noise`, some at a time: the places `[n]` of their images, n <= `num_images`, and `[n,C,H,W]`.

    >>> draws = image_noise(torch.zeros(2, 1, 1, 2), [0, 1], 3, torch.rand)
    >>> [index.tolist() for index, noise in noise_batches(draws, num_samples=3, num_images=4)]
    [[0, 0, 0, 1], [1, 1]]
    """
    first = 0
    while chunk := list(islice(draws, num_images)):
        index = torch.arange(first, first + len(chunk), device=chunk[0].device) // num_samples
        first += len(chunk)
        yield index, torch.stack(chunk)


def check_sampling(images: Tensor, num_samples: int, seeds: Sequence[int]) -> None:
    """Raise `ArgumentError` unless there is at least one sample, and a seed that torch takes for each image."""
    if num_samples < 1:
        raise ArgumentError(f"`num_samples` must be at least 1, got {num_samples}.")
    check_seeds(seeds, len(images))


class Infidelity(PerSampleMetric):
    """Mean infidelity over images, lower is better: `infidelity`.

    >>> metric = Infidelity()
    >>> metric.update(torch.tensor([0.25, 0.75]))
    >>> metric.compute()
    tensor(0.5000, dtype=torch.float64)
    """

    name = "infidelity"
    title = "Infidelity"
    skip_reason = "the network's output is not finite"
    higher_is_better = False

    def update(self, values: Tensor) -> None:
        """Count the `values [N]` that `infidelity` returns; those that are not finite are skipped."""
        self.append(values.where(values.isfinite(), torch.nan))


def _errors(predicted: Tensor, response: Tensor, normalise: bool) -> Tensor:
    """The mean squared errors `mean_s (beta a_s - b_s)^2`, [N], of predictions a of responses b, both [N,S]."""
    if normalise:
        squares = predicted.square().sum(dim=1)
        beta = (predicted * response).sum(dim=1) / squares.where(squares > 0, 1.0)  # of zeros any scale is best
        predicted = beta[:, None] * predicted
    return (predicted - response).square().mean(dim=1)


def _check_saliency(images: Tensor, saliency: Tensor) -> None:
    if saliency.ndim != 4:
        check_saliency(images, saliency)
    elif saliency.shape != images.shape:
        raise ArgumentError(
            f"`saliency` must be [N,H,W], or [N,C,H,W] = {list(images.shape)} as the images, "
            f"got {list(saliency.shape)}."
        )
    check_finite("saliency", saliency)
