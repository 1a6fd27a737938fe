"""Asking a model about images and changed copies of them: the one place where metrics do it.

Axes: N images, C channels, H W pixels, K logits, n changed copies. `task` says what the logits are, as in
`contrex.ops.scores`: None is a sigmoid, hence the classes 0 and 1, for one logit, and a softmax for more.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Concatenate, Literal, ParamSpec, Protocol, TypeVar, overload

import torch
from torch import Tensor, nn

from contrex.devices import images_at_once
from contrex.errors import ArgumentError, unknown_name
from contrex.models import Classifier, eval_mode, model_logits
from contrex.models.classifier import network_of
from contrex.ops import scores

Output = Literal["logit", "probability"]
OUTPUTS = ("logit", "probability")
"""What a model says of a class."""

P = ParamSpec("P")
R = TypeVar("R", covariant=True)


class Answers:
    """What a model says about images, and how it is asked: of which class, and how many images in a pass.

    A metric that changes images is a function of an `Answers` and of what it changes. It may be written in short:
    `insertion_curve(model, images, saliency, step=8, target=target)` stands for
    `insertion_curve(Answers(model, images, target=target), saliency, step=8)`. Several metrics of one `Answers` share
    the logits of the images as they are.

    The model runs in eval mode; every module's own mode is restored, also after an exception, and no `.grad` is
    written.

    Args:
        model: maps `[N,C,H,W]` to logits `[N,K]`.
        images: `[N,C,H,W]`, normalised as the model expects.
        target: the class of each image that is asked about, integers `[N]`; None is the one predicted.
        logits: the model's logits of the images `[N,K]`, in eval mode, if known; that saves a pass.
        batch_size: images per pass; None is 8 on a CPU and 64 elsewhere.
        task: what the logits are, "multiclass", "binary" or "multilabel", as in `contrex.ops.scores`; None is binary
            for one logit, whose classes are 0 and 1, and multiclass for more.

    Raises:
        ArgumentError: `images` is not `[N,C,H,W]` with N >= 1, or `batch_size` is below 1; later, where they are
            needed, that `logits`, `target` or `task` do not fit.

    >>> model = nn.Sequential(nn.Flatten(), nn.Linear(2, 2, bias=False))
    >>> _ = model[1].weight.data.copy_(torch.eye(2))
    >>> answers = Answers(model, torch.tensor([[[[0.0, 3.0]]]]))
    >>> answers.target, answers.whole("logit"), answers.whole("probability")
    (tensor([1]), tensor([3.]), tensor([0.9526]))
    """

    def __init__(
        self,
        model: nn.Module | Classifier,
        images: Tensor,
        *,
        target: Tensor | None = None,
        logits: Tensor | None = None,
        batch_size: int | None = None,
        task: str | None = None,
    ) -> None:
        check_images(images)
        self.model, self.images, self.task = network_of(model), images.detach(), task
        self.batch_size = images_at_once(images.device, batch_size)
        self._target, self._logits = target, logits

    def __len__(self) -> int:
        return len(self.images)

    @contextmanager
    def session(self) -> Iterator[None]:
        """Put the model into eval mode, recording no gradients: inside, it can be asked."""
        with eval_mode(self.model), torch.inference_mode():
            yield

    @functools.cached_property
    def logits(self) -> Tensor:
        """The logits `[N,K]` of the images as they are."""
        logits = self._logits
        if logits is None:
            with self.session():
                parts = torch.split(self.images, self.batch_size)
                logits = torch.cat([model_logits(self.model, some.clone()) for some in parts])  # it may write into them
        if logits.ndim != 2 or len(logits) != len(self):
            raise ArgumentError(f"`logits` must be [N,K] with N = {len(self)}, got {list(logits.shape)}.")
        with torch.inference_mode(False):  # an ordinary tensor, which may outlive the session that asked for it
            return logits.detach().to(self.images.device).clone()

    @functools.cached_property
    def target(self) -> Tensor:
        """The class of each image that is asked about, integers `[N]`."""
        return chosen_target(self._target, self.logits, self.task)

    def target_or(self, labels: Tensor) -> Tensor:
        """The classes `[N]` that were given as `target`, else `labels`, not those that are predicted."""
        return self.target if self._target is not None else chosen_target(labels, self.logits, self.task)

    def whole(self, output: Output = "probability") -> Tensor:
        """The probability, or the logit, of the class for the images as they are, `[N]`, float32 or better."""
        return self._value(self.logits, self.target, output)

    def of(self, changed: Tensor, index: Tensor, output: Output = "probability") -> Tensor:
        """The probability, or the logit, of the class for changed copies `[n,C,H,W]` of the images `index` [n].

        To be called inside a `session`. Nothing is split: the copies are one pass.
        """
        return self._value(model_logits(self.model, changed), self.target[index], output)

    def refuse(self, *names: str) -> None:
        """Raise `ArgumentError` where `target` or `task` has a value that a metric would not look at."""
        if "target" in names and self._target is not None:
            raise ArgumentError("`target` means nothing to this metric, which has its own classes: leave it out.")
        if "task" in names and self.task not in (None, "multiclass"):
            raise ArgumentError(f"`task` means nothing to this metric, got {self.task}: leave it out.")

    def _value(self, logits: Tensor, target: Tensor, output: Output) -> Tensor:
        if output == "logit":
            return scores.logit(logits, target, self.task)
        if output == "probability":
            return class_probability(logits, target, self.task)
        raise unknown_name("`output`", output, OUTPUTS)


class Asking(Protocol[P, R]):
    """A metric that takes an `Answers`, or in short a model, images and the options of `Answers` in its place."""

    @overload
    def __call__(self, answers: Answers, /, *args: P.args, **options: P.kwargs) -> R: ...

    @overload
    def __call__(self, model: nn.Module | Classifier, /, *args: Any, **options: Any) -> R: ...


def asking(*options: str) -> Callable[[Callable[Concatenate[Answers, P], R]], Asking[P, R]]:
    """A decorator that lets a function of `answers` be called in short, with those `options` of `Answers` it uses.

    An `Answers` with a `target` or a `task` that the function would not look at is refused.
    """
    unused = {"target", "task"}.difference(options)

    def decorate(function: Callable[Concatenate[Answers, P], R]) -> Asking[P, R]:
        @functools.wraps(function)
        def ask(*args: Any, **given: Any) -> R:
            if "answers" in given:
                args = (given.pop("answers"), *args)
            elif not (args and isinstance(args[0], Answers)):
                taken = {name: given.pop(name) for name in ("model", "images", *options) if name in given}
                num_places = 2 - len(taken.keys() & {"model", "images"})
                args = (Answers(*args[:num_places], **taken), *args[num_places:])
            args[0].refuse(*unused)
            return function(*args, **given)

        return ask

    return decorate


def check_images(images: Tensor) -> None:
    """Raise `ArgumentError` unless `images` is `[N,C,H,W]` with N >= 1."""
    if images.ndim != 4 or not len(images):
        raise ArgumentError(f"`images` must be [N,C,H,W] with N >= 1, got {list(images.shape)}.")


def check_seeds(seeds: Sequence[int], num_images: int) -> None:
    """Raise `ArgumentError` unless there is a seed for each image, and one that torch takes."""
    if len(seeds) != num_images:
        raise ArgumentError(f"`seeds` must hold one integer per image, {num_images}; got {len(seeds)}.")
    for seed in seeds:
        if not 0 <= seed < 2**63:
            raise ArgumentError(f"`seeds` must lie in 0..2^63-1, got {seed}.")


def check_saliency(images: Tensor, saliency: Tensor) -> None:
    """Raise `ArgumentError` unless `saliency` is `[N,H,W]` at the size of `images` and free of NaN."""
    expected = (images.shape[0], *images.shape[2:])
    if saliency.shape != expected:
        raise ArgumentError(
            f"`saliency` must be [N,H,W] = {list(expected)}, got {list(saliency.shape)}: resize the heatmaps first."
        )
    check_no_nan("saliency", saliency)


def check_no_nan(name: str, values: Tensor) -> None:
    """Raise `ArgumentError` with the first place along the first axis of `values` where there is NaN."""
    _refuse_rows(values.isnan(), f"`{name}` must not be NaN, got NaN at index")


def check_finite(name: str, values: Tensor) -> None:
    """Raise `ArgumentError` with the first place along the first axis of `values` where one is not finite."""
    _refuse_rows(~values.isfinite(), f"`{name}` must be finite, got NaN or infinity at index")


def _refuse_rows(is_wrong: Tensor, message: str) -> None:
    rows = is_wrong.flatten(1).any(dim=1) if is_wrong.ndim > 1 else is_wrong
    if rows.any():
        raise ArgumentError(f"{message} {int(rows.nonzero()[0])}.")


def chosen_target(target: Tensor | None, logits: Tensor, task: str | None = None) -> Tensor:
    """The class of each image, integers [N]: `target`, or the class with the largest probability.

    Raises:
        ArgumentError: `target` is not integers `[N]` among the classes, or `task` does not fit the logits.
    """
    num_classes = scores.class_logits(logits, task).shape[1]
    if target is None:
        return scores.predicted(logits, task)
    if not isinstance(target, Tensor):
        raise ArgumentError(f"`target` must be a tensor of integers [{len(logits)}], got {target!r}.")
    if target.shape != logits.shape[:1] or target.is_floating_point() or target.dtype == torch.bool:
        raise ArgumentError(
            f"`target` must be integers [{len(logits)}], one class per image, got {target.dtype} {list(target.shape)}."
        )
    if ((target < 0) | (target >= num_classes)).any():
        raise ArgumentError(f"`target` must lie in 0..{num_classes - 1}, got {target.tolist()}.")
    return target.to(logits.device)


def class_probability(logits: Tensor, target: Tensor, task: str | None = None) -> Tensor:
    """The probability of the target, by softmax or sigmoids as `task` says, [N], float32 or better.

    >>> class_probability(torch.tensor([[0.0, 0.0], [0.0, 100.0]]), torch.tensor([0, 1]))
    tensor([0.5000, 1.0000])
    """
    return scores.probability(logits.to(torch.promote_types(logits.dtype, torch.float32)), target, task)


def in_chunks(function: Callable[..., Tensor], *columns: Tensor, num_images: int) -> Tensor:
    """What `function(*columns)` gives, asked for `num_images` rows of the columns at a time and joined again.

    >>> in_chunks(torch.add, torch.arange(5), torch.arange(5), num_images=2)
    tensor([0, 2, 4, 6, 8])
    """
    parts = zip(*(torch.split(column, num_images) for column in columns), strict=True)
    return torch.cat([function(*part) for part in parts])
