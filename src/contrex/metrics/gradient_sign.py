"""Gradient sign perturbation: which explanation of the input moves the class probability, and which only the logit.

Axes: N images, C channels, H W pixels, K classes, E perturbation sizes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from contrex.devices import images_at_once
from contrex.errors import ArgumentError, unknown_name
from contrex.metrics.accuracy import top_k_correct
from contrex.metrics.per_sample import PerSampleMetric
from contrex.metrics.probing import Answers, asking, check_images, chosen_target, in_chunks
from contrex.models import Classifier, eval_mode, model_logits
from contrex.models.classifier import network_of
from contrex.ops.scores import Contrast, score

InputGradient = Callable[[Tensor, Tensor], Tensor]
"""A function of images `[n,C,H,W]` and targets `[n]` that gives the gradient of the score at them, of their shape."""

Gradient = Tensor | InputGradient | tuple[InputGradient, Tensor]
"""The gradients at the images as they are, the function that gives them, or both."""

QUANTITIES = ("accuracy", "logit", "probability")
"""What changes under the perturbation."""


@dataclass(frozen=True, eq=False)
class GradientSignCurves:
    """What one explanation's perturbation of every size does to each image; float64."""

    correct_before: Tensor
    """1 where the label has the largest logit of the image as it is, else 0, `[N]`."""
    correct: Tensor
    """1 where it has that of the perturbed image, `[N,E]`."""
    logit_change: Tensor
    """The logit `y_t` of the perturbed image minus that of the image, `[N,E]`."""
    probability_change: Tensor
    """The probability `p_t` of the perturbed image minus that of the image, in -1..1, `[N,E]`."""


@asking("target", "logits", "batch_size")
def gradient_sign_curves(
    answers: Answers,
    labels: Tensor,
    gradients: Mapping[str, Gradient],
    epsilons: Sequence[float],
    *,
    num_steps: int = 1,
    mean: Tensor | Sequence[float] | None = None,
    std: Tensor | Sequence[float] | None = None,
    clamp: bool = True,
) -> dict[str, GradientSignCurves]:
    """How logit, probability and prediction move when each pixel takes a small step along the sign of its gradient.

    `x_{i+1} = clamp(x_i + (eps / n) sign(phi(x_i)), 0, 1)` for `i = 0 .. n - 1`, in units of images in 0..1; reported
    are whether `argmax y(x_n)` is the label, `y_t(x_n) - y_t(x_0)` and `p_t(x_n) - p_t(x_0)`.

    "Why Not Other Classes?" (NeurIPS 2022), section 5.1 and figure 3, with n = 1, 2 and 10. The paper gives eps = 1e-3;
    a reproduction (arXiv 2501.11096, section 4.1) was told 3e-3 by its authors, and corrects the clamping to the above
    (and to `x_0 +- eps`, which n steps of `eps / n` never leave). The published scripts leave this experiment out.
    Expected: the gradient of the logit moves `y_t` most, that of the weighted contrast `p_t` and the accuracy.

    The network sees each image E times per explanation, and once more unless its logits are known. A function among
    `gradients` is asked about each image once as it is, unless its answer is given with it, and `E (n - 1)` times on
    its way.

    Args:
        answers: the model and the images, as an `Answers`, or in short (see there); float32 or better: lower precision
            rounds the step away. Its `target` are the classes t; None is the labels, as in the paper, and *not* the
            predicted class.
        labels: integers `[N]`, what `correct` counts.
        gradients: by name, `[N,C,H,W]` with respect to the images, for `num_steps=1` only; or functions, as
            `score_gradient` gives them; or pairs of a function and what it gives for the images as they are, of which
            `score_gradients` makes those of several scores in one forward pass. Where a gradient is 0 the pixel stays.
        epsilons: sizes of the whole perturbation in units of images in 0..1, not negative.
        num_steps: n.
        mean: of the normalisation `(x - mean) / std`, one number per channel; None is 0.
        std: of the normalisation, one number per channel; None is 1. A step of the network's input is `eps / n / std`.
        clamp: keep the perturbed pixels in 0..1.

    Returns:
        The curves of each name, on the images' device.

    Raises:
        ArgumentError: a shape, a class or a number does not fit; a gradient or a logit is NaN; or the images leave 0..1
            although the result is to be clamped to it.

    >>> model = nn.Sequential(nn.Flatten(), nn.Linear(2, 2, bias=False))
    >>> _ = model[1].weight.data.copy_(torch.tensor([[1.0, 0.0], [3.0, -1.0]]))
    >>> phi = {"original": score_gradient(model), "weighted": score_gradient(model, "weighted")}
    >>> curves = gradient_sign_curves(model, torch.full((1, 1, 1, 2), 0.5), torch.tensor([0]), phi, [0.0, 0.25])
    >>> curves["original"].logit_change, curves["weighted"].logit_change
    (tensor([[0.0000, 0.2500]], dtype=torch.float64), tensor([[ 0.0000, -0.2500]], dtype=torch.float64))
    >>> curves["original"].probability_change, curves["weighted"].probability_change
    (tensor([[ 0.0000, -0.1086]], dtype=torch.float64), tensor([[0.0000, 0.1846]], dtype=torch.float64))
    """
    images = answers.images
    _check_numbers(gradients, epsilons, num_steps)
    low, high, scale = _valid_range(images, mean, std)
    if clamp and ((images < low - 1e-3 * scale) | (images > high + 1e-3 * scale)).any():
        raise ArgumentError(
            "`images` leave 0..1 when `mean` and `std` are undone: pass those of their normalisation, or clamp=False."
        )
    if answers.logits.shape[1] < 2:
        raise ArgumentError(
            "`model` must give at least 2 logits, it gives one (a sigmoid), of which all four scores are the same: "
            "there is nothing to compare."
        )
    before, curves = top_k_correct(answers.logits, labels, k=1).double(), {}
    target, bounds = answers.target_or(labels), (low, high) if clamp else None
    with eval_mode(answers.model), torch.no_grad():
        for name, gradient in gradients.items():
            walk = _Walk(name, gradient, num_steps, scale, bounds)
            ends = torch.cat(list(_ends(answers, walk, target, epsilons)))
            curves[name] = _curves(ends, answers.logits, before, labels.to(images.device), target)
    return curves


def score_gradient(model: nn.Module | Classifier, contrast: Contrast = None) -> InputGradient:
    """The function from images and targets to the gradient of the score, in eval mode: one forward and backward pass.

    `phi(x) = dS/dx` with S the logit (None), or a contrast as `contrex.ops.scores.score` takes it: the explanations of
    section 5.1 are None (original), `"mean"`, `"max"` and `"weighted"`. *Deviation*: the code of the reproduction takes
    the gradient of `p_t` for the weighted contrast; that is a positive multiple of this one (Proposition 2), so the
    signs agree, but in float32 it is 0 from about `p_t > 1 - 1e-7`, and then nothing moves.

    Parameters and their gradients are left as they are.

    >>> model = nn.Sequential(nn.Flatten(), nn.Linear(2, 2, bias=False))
    >>> _ = model[1].weight.data.copy_(torch.tensor([[1.0, 0.0], [3.0, -1.0]]))
    >>> score_gradient(model, "max")(torch.zeros(1, 1, 1, 2), torch.tensor([0]))
    tensor([[[[-2.,  1.]]]])
    """

    def gradient(images: Tensor, target: Tensor) -> Tensor:
        return _gradients(network_of(model), images, target, [contrast])[0]

    return gradient


def score_gradients(
    model: nn.Module | Classifier,
    images: Tensor,
    target: Tensor,
    contrasts: Mapping[str, Contrast],
    *,
    batch_size: int | None = None,
) -> dict[str, Tensor]:
    """What `score_gradient` gives for each of several contrasts, by name, from one forward pass for all of them.

    Args:
        model: maps `[N,C,H,W]` to logits `[N,K]`, differentiably.
        images: `[N,C,H,W]`, normalised as the network expects.
        target: the classes t, integers `[N]`.
        contrasts: by name, as `score_gradient` takes them.
        batch_size: images per pass; None is 8 on a CPU and 64 elsewhere.

    Returns:
        `[N,C,H,W]` for each name.

    Raises:
        ArgumentError: the images, the batch size or a contrast do not fit.

    >>> model = nn.Sequential(nn.Flatten(), nn.Linear(2, 2, bias=False))
    >>> _ = model[1].weight.data.copy_(torch.tensor([[1.0, 0.0], [3.0, -1.0]]))
    >>> images, target = torch.zeros(1, 1, 1, 2), torch.tensor([0])
    >>> score_gradients(model, images, target, {"original": None, "max": "max"})
    {'original': tensor([[[[1., 0.]]]]), 'max': tensor([[[[-2.,  1.]]]])}
    """
    check_images(images)
    num_images, wanted = images_at_once(images.device, batch_size), list(contrasts.values())

    def chunk(some: Tensor, classes: Tensor) -> Tensor:
        return torch.stack(_gradients(network_of(model), some, classes, wanted), dim=1)

    found = in_chunks(chunk, images.detach(), target.to(images.device), num_images=num_images)
    return dict(zip(contrasts, found.unbind(1), strict=True))


def _gradients(model: nn.Module, images: Tensor, target: Tensor, contrasts: Sequence[Contrast]) -> list[Tensor]:
    """The gradient of each score at the images: one pass forwards, and one backwards for each."""
    with eval_mode(model), torch.enable_grad():
        pixels = images.detach().requires_grad_()
        logits = model_logits(model, pixels.clone())  # a clone: the model may write into it
        classes = chosen_target(target, logits)
        totals = [score(logits, classes, contrast).sum() for contrast in contrasts]
        last = totals[-1]
        # All scores share the graph of one forward pass; the last backward pass frees it.
        return [torch.autograd.grad(total, pixels, retain_graph=total is not last)[0] for total in totals]


class GradientSign(PerSampleMetric):
    """Mean change under one explanation's perturbation of one size: of the accuracy in %, of `y_t`, or of `p_t`.

    Named `gradient_sign_<explanation>_<quantity>_<epsilon>`. More is better: the perturbation is in favour of t.

    Args:
        explanation: the name in `gradients` of `gradient_sign_curves`.
        quantity: `"accuracy"`, `"logit"` or `"probability"`.
        epsilon: one of its `epsilons`.

    >>> metric = GradientSign("weighted", "accuracy", epsilon=3e-3)
    >>> change, right = torch.zeros(2, 1), torch.tensor([[1.0], [1.0]])
    >>> metric.update(GradientSignCurves(torch.tensor([0.0, 1.0]), right, change, change), epsilons=[3e-3])
    >>> metric.name, metric.compute().item()
    ('gradient_sign_weighted_accuracy_0_003', 50.0)
    """

    higher_is_better = True

    def __init__(self, explanation: str, quantity: str, *, epsilon: float) -> None:
        if quantity not in QUANTITIES:
            raise unknown_name("`quantity`", quantity, QUANTITIES)
        if not 0 <= epsilon < math.inf:
            raise ArgumentError(f"`epsilon` must be a number that is not negative, got {epsilon}.")
        self.quantity, self.epsilon = quantity, epsilon
        size = f"{epsilon:.12f}".rstrip("0").rstrip(".")
        self.name = f"gradient_sign_{explanation}_{quantity}_{size.replace('.', '_')}"
        self.title = f"Change of {quantity}, gradient sign of {explanation}, epsilon {epsilon:g}"
        self.unit = "%" if quantity == "accuracy" else ""
        super().__init__()

    def update(self, curves: GradientSignCurves, epsilons: Sequence[float]) -> None:
        """Count a batch: the explanation's curves, computed with these `epsilons`.

        Raises:
            ArgumentError: the metric's epsilon is not among them, or a shape does not fit.
        """
        columns = [index for index, size in enumerate(epsilons) if math.isclose(size, self.epsilon)]
        if not columns:
            raise ArgumentError(f"`epsilons` must hold {self.epsilon:g}, that of {self.name}, got {list(epsilons)}.")
        if curves.correct.shape != (len(curves.correct_before), len(epsilons)):
            raise ArgumentError(f"`curves` must have E = {len(epsilons)} sizes, got {list(curves.correct.shape)}.")
        values = {
            "accuracy": 100.0 * (curves.correct - curves.correct_before[:, None]),
            "logit": curves.logit_change,
            "probability": curves.probability_change,
        }[self.quantity]
        self.append(values[:, columns[0]])


@dataclass(frozen=True, eq=False)
class _Walk:
    """Steps along the sign of one explanation."""

    name: str
    gradient: Gradient
    num_steps: int
    scale: Tensor  # [1,C,1,1], 1 / std
    bounds: tuple[Tensor, Tensor] | None  # of the pixels

    def first(self, answers: Answers, target: Tensor) -> Tensor:
        """The gradient at the images themselves, which every epsilon starts with."""
        known = self.gradient[1] if isinstance(self.gradient, tuple) else self.gradient
        if isinstance(known, Tensor):
            return self._checked(known.detach().to(answers.images.device), answers.images)
        return in_chunks(self._asked, answers.images, target, num_images=answers.batch_size)

    def end(self, images: Tensor, target: Tensor, first: Tensor, epsilon: Tensor) -> Tensor:
        """Each image after all its steps, `x_n`; `epsilon [n]` is the size of its walk."""
        step = epsilon[:, None, None, None].to(images.dtype) * self.scale / self.num_steps
        pixels = self._stepped(images, step, first)
        for _ in range(self.num_steps - 1):
            pixels = self._stepped(pixels, step, self._asked(pixels, target))
        return pixels

    def _stepped(self, pixels: Tensor, step: Tensor, gradient: Tensor) -> Tensor:
        moved = pixels + step * gradient.sign()
        return moved if self.bounds is None else torch.minimum(torch.maximum(moved, self.bounds[0]), self.bounds[1])

    def _asked(self, images: Tensor, target: Tensor) -> Tensor:
        function = self.gradient[0] if isinstance(self.gradient, tuple) else self.gradient
        assert not isinstance(function, Tensor)
        return self._checked(function(images, target).detach(), images)

    def _checked(self, gradient: Tensor, images: Tensor) -> Tensor:
        if gradient.shape != images.shape:
            raise ArgumentError(
                f"`gradients[{self.name!r}]` must be {list(images.shape)} as the images, got {list(gradient.shape)}."
            )
        if gradient.isnan().any():
            raise ArgumentError(f"`gradients[{self.name!r}]` must not be NaN.")
        return gradient


def _ends(answers: Answers, walk: _Walk, target: Tensor, epsilons: Sequence[float]) -> Iterator[Tensor]:
    """Logits of `x_n`, image after image and epsilon after epsilon, one pass after another."""
    images, first = answers.images, walk.first(answers, target)
    sizes = torch.tensor(list(epsilons), dtype=torch.float64, device=images.device)
    for rows in torch.split(torch.arange(len(sizes) * len(images), device=images.device), answers.batch_size):
        epsilon, image = sizes[rows // len(images)], rows % len(images)
        pixels = walk.end(images[image], target[image], first[image], epsilon)
        with torch.inference_mode():  # not around the walk, whose gradients it would forbid
            logits = model_logits(answers.model, pixels)
        yield logits


def _curves(ends: Tensor, whole: Tensor, before: Tensor, labels: Tensor, target: Tensor) -> GradientSignCurves:
    """The curves that the logits `[E N,K]` of perturbed images make with those `[N,K]` of the images."""
    number = len(ends) // len(whole)
    classes, start = target.repeat(number)[:, None], whole.double().repeat(number, 1)
    logit = ends.double().gather(1, classes) - start.gather(1, classes)
    probability = ends.double().softmax(1).gather(1, classes) - start.softmax(1).gather(1, classes)
    correct = top_k_correct(ends, labels.repeat(number), k=1).double()
    return GradientSignCurves(before, *(values.view(number, -1).T for values in (correct, logit, probability)))


def _valid_range(
    images: Tensor, mean: Tensor | Sequence[float] | None, std: Tensor | Sequence[float] | None
) -> tuple[Tensor, Tensor, Tensor]:
    """What 0, 1 and a step of 1 are in the network's space, each `[1,C,1,1]`."""
    shift, scale = (
        torch.as_tensor(default if given is None else given, dtype=torch.float64, device=images.device).flatten()
        for given, default in ((mean, 0.0), (std, 1.0))
    )
    for name, values in (("mean", shift), ("std", scale)):
        if len(values) not in (1, images.shape[1]) or not values.isfinite().all():
            raise ArgumentError(
                f"`{name}` must be one number or one for each of {images.shape[1]} channels, got {values.tolist()}."
            )
    if not (scale > 0).all():
        raise ArgumentError(f"`std` must be positive, got {scale.tolist()}.")
    ends = (-shift / scale, (1 - shift) / scale, 1 / scale)
    low, high, step = (values.view(1, -1, 1, 1).to(images.dtype) for values in ends)
    return low, high, step


def _check_numbers(gradients: Mapping[str, Gradient], epsilons: Sequence[float], num_steps: int) -> None:
    if not gradients:
        raise ArgumentError("`gradients` must hold at least one explanation, got none.")
    if not len(epsilons) or not all(0 <= epsilon < math.inf for epsilon in epsilons):
        raise ArgumentError(f"`epsilons` must be at least one number, none negative, got {list(epsilons)}.")
    if num_steps < 1:
        raise ArgumentError(f"`num_steps` must be at least 1, got {num_steps}.")
    fixed = [name for name, gradient in gradients.items() if isinstance(gradient, Tensor)]
    if num_steps > 1 and fixed:
        raise ArgumentError(
            f"`gradients[{fixed[0]!r}]` must be a function for num_steps={num_steps}: it is asked again on the way."
        )
