"""What a call of an explainer asks: of classes, or of scores that are no class's, and how outputs are read for it."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn

from contrex.errors import ArgumentError, unknown_name
from contrex.explain.targets import ClassScore, Own, Score, Several, as_score
from contrex.models import beside
from contrex.models.outputs import Network, Read, Reader, Reading, applied, described, logits_in, read_as, read_by
from contrex.models.split import check_classifier
from contrex.ops import scores
from contrex.ops.scores import Contrast
from contrex.settings.combination import View

Scoring = str | Score | Callable[[Any], Tensor]
"""What is explained: of a class its `"logit"`, `"probability"` or `"log_probability"`; or a function from what the
network returns for n images to a number for each, [n], such as those of `contrex.explain.targets`."""
Rival = Contrast | Score | Callable[[Any], Tensor]
"""What a target is explained against: other classes, or another score."""


_VIEW: ContextVar[tuple[View, Sequence[int]] | None] = ContextVar("_VIEW", default=None)
"""The changed copies that the passes right now are of, and the sides of the images themselves, in this thread."""


@contextmanager
def seen_as(view: View, sides: Sequence[int]) -> Iterator[None]:
    """Ask scores about copies of images with these sides, as `view` changes them, for a while.

    Raises:
        ArgumentError: the network gets maps or masks beside the images, which would stay as they are.
    """
    if view.moves and (name := beside.name_of_map(sides)) is not None:
        raise ArgumentError(
            f"`augment` moves what is in the images, and `inputs` {name!r} has their sides and would stay as it is: "
            "leave flip and scale out."
        )
    token = _VIEW.set((view, sides))
    try:
        yield
    finally:
        _VIEW.reset(token)


@dataclass(frozen=True, eq=False)
class Wanted:
    """What is asked, before the network has run. `own` are scores of no class, or one that gives logits of classes;
    `told` is what records call them."""

    target: Any
    contrast: Contrast
    score: str
    task: str | None
    own: Sequence[Score] = ()
    told: str = ""
    names: Sequence[str] | None = None
    _seen: list[tuple[Sequence[Score], object, Tensor]] = field(default_factory=list, repr=False)
    """The scores, the output and the numbers of the first pass of all images, until they were checked."""
    _placed: list[str] = field(default_factory=list, repr=False)
    """The names of functions that read a place of the output's maps."""

    @property
    def has_classes(self) -> bool:
        """Whether targets and contrasts are classes."""
        return self.task != scores.ALONE

    @contextmanager
    def read(self, model: nn.Module, images: Tensor, reader: Reader | None) -> Iterator[None]:
        """Read outputs of `model` as what is asked; `reader` is the explainer's `output`."""
        if not self.own:
            check_classifier(model)
            with read_by(reader):
                yield
            return
        fitted = [score.fitted(images) for score in self.own]
        kind = tuple(score.kind for score in self.own)
        with read_as(Reading(self._reading(fitted, len(images), reader), kind, self.told)):
            yield

    def _reading(self, fitted: Sequence[Score], num: int, reader: Reader | None) -> Read:
        def read(output: object, model: Network, n: int) -> Tensor:
            given = output if reader is None else applied(reader, output, model, "`output`")
            places = beside.places(n, f"`score` {self.told} has something")
            parts = [score.of(places) for score in fitted]
            if (view := _VIEW.get()) is not None:
                self._check_view(view[0])
                parts = [score.seen(*view) for score in parts]
            if self.has_classes:
                (part,) = parts
                assert isinstance(part, ClassScore)
                return logits_in(applied(part.logits, given, model, f"`score` {part.name}"), model, n)
            found = torch.stack([_numbers(part, given, model, n) for part in parts], 1)
            if n == num and not self._seen:
                self._seen.append((parts, given, found.detach()))
            return found

        return read

    def check(self) -> None:
        """Refuse scores of the images that the passes so far have shown to be none.

        Raises:
            ArgumentError: a function's number of an image depends on the other images, or a score has nothing to
                explain.
        """
        for parts, output, found in self._seen:
            for score, values in zip(parts, found.unbind(1), strict=True):
                score.check(values)
                if isinstance(score, Own) and len(values) > 1:
                    _check_alone(score, output, values)
                self._placed.extend(one.name for one in _functions_in(score) if _reads_a_place(one, output))
        self._seen.clear()

    def _check_view(self, view: View) -> None:
        """Refuse to ask a function about another place than that of the image itself."""
        if view.moves and self._placed:
            raise ArgumentError(
                f"`augment` moves what is in the images, and `score` {self._placed[0]} reads a place of what the "
                "network returns, which would stay: leave flip and scale out, or pass a contrex.explain.targets.Score "
                "whose `seen` moves it, as Region."
            )


def wanted(score: Scoring, target: Any, contrast: Rival, task: str | None) -> Wanted:
    """What a call asks.

    Raises:
        UnknownNameError: there is no such score, or no such task.
        ArgumentError: classes are asked of a score that has none.
    """
    if isinstance(score, str):
        if callable(contrast):
            raise ArgumentError(
                f"`contrast` is a function, and `score` is {score!r} of a class: pass a function as both, score=f and "
                "contrast=g, or classes as the contrast."
            )
        if task is not None and task not in scores.TASKS:
            raise unknown_name("`task`", task, scores.TASKS)
        return Wanted(target, contrast, score, task)
    if not callable(score):
        raise ArgumentError(
            f"`score` must be one of {', '.join(scores.SCORES)}, or a function from what the network returns to one "
            f"number per image; got {type(score).__name__}."
        )
    one = as_score(score)
    if isinstance(one, ClassScore) and not callable(contrast):
        if target is not None and one.target is not None:
            raise ArgumentError(f"`target` and `score` {one.name} both name a class: give one of them.")
        chosen = one.target if target is None else target
        return Wanted(chosen, contrast, "logit", task, [one], one.name)
    return _of_no_class(one, target, contrast, task)


def _of_no_class(one: Score, target: Any, contrast: Rival, task: str | None) -> Wanted:
    told = f"`score` {one.name} is one number per image"
    if target is not None:
        raise ArgumentError(f"`target` means nothing here, {told}, of no class: leave it out.")
    if task is not None:
        raise ArgumentError(f"`task` means nothing here, {told}, of no class: leave it out.")
    if contrast is None:
        return Wanted(0, None, "logit", scores.ALONE, [one], one.name, [one.name])
    if not callable(contrast):
        raise ArgumentError(f"`contrast` {contrast!r} needs classes, {told}: pass another score, contrast=g, or None.")
    own = [one, as_score(contrast)]
    return Wanted(0, 1, "logit", scores.ALONE, own, one.name, [score.name for score in own])


def of_classes(score: Scoring, contrasts: Sequence[Rival], task: str | None) -> Wanted:
    """What a call about several classes asks, or `ArgumentError` where the score, or a contrast, has none."""
    if any(map(callable, contrasts)):
        raise ArgumentError("`classes` needs classes, and a contrast is a function: call the explainer itself.")
    asked = wanted(score, None, None, task) if isinstance(score, (str, ClassScore)) else None
    if asked is None:
        name = as_score(score).name if callable(score) else repr(score)
        raise ArgumentError(
            f"`classes` needs classes, and `score` {name} has none: call the explainer itself, or pass a score that "
            "gives logits (contrex.explain.targets.Region)."
        )
    return replace(asked, target=None)


def _numbers(score: Score, output: object, model: Network, n: int) -> Tensor:
    """The numbers `[n]` of a score, float32 or better, or `ArgumentError`."""
    found: object = applied(score, output, model, f"`score` {score.name}")
    if isinstance(found, Tensor) and found.shape == (n,) and found.is_floating_point():
        return found.to(torch.promote_types(found.dtype, torch.float32))
    raise ArgumentError(
        f"`score` {score.name} must give one number per image, a floating-point tensor [{n}] for {n} image(s), it "
        f"gave {described(found)} of {described(output)}. Methods ask about one image and about copies too: what a "
        "score has for each image of the call goes into `of` of a contrex.explain.targets.Score."
    )


def _check_alone(score: Score, output: object, values: Tensor) -> None:
    """Refuse a function whose number of the first image is another one beside the other images."""
    with torch.no_grad():
        try:
            alone = score(_first(output))
        except Exception:  # an output of a kind that cannot be cut: nothing is known
            return
    if not isinstance(alone, Tensor) or alone.shape != (1,):
        return
    one, beside_others = float(alone), float(values[0])
    if one == one and abs(one - beside_others) > 1e-2 * max(abs(one), abs(beside_others)):
        raise ArgumentError(
            f"`score` {score.name} gives {one:.4g} for the first image alone, and {beside_others:.4g} beside the "
            "others: each number must come from the row of its image alone, `output[:, k]`, `.softmax(1)`, not (0)."
        )


def _functions_in(score: Score) -> list[Own]:
    """The functions that a score is made of."""
    parts = score.parts if isinstance(score, Several) else []
    return [score] if isinstance(score, Own) else [one for part in parts for one in _functions_in(part)]


def _reads_a_place(score: Own, output: object) -> bool:
    """Whether the numbers of a function change where maps are mirrored that the network returned."""
    if isinstance(output, Tensor) and output.ndim < 3:
        return False
    with torch.no_grad():
        try:
            own, *others = (score(_mirrored(output, axis)) for axis in (None, -1, -2))
            step = 1e3 * torch.finfo(own.dtype).eps
            far = [(one - own).abs() > step * own.abs().max() for one in others]
        except Exception:  # an output of a kind that cannot be made again: nothing is known
            return False
    return any(bool(one.any()) for one in far)


def _mirrored(output: Any, axis: int | None, is_alone: bool = False) -> Any:
    """What a network returned, with its maps mirrored along one of their last axes; of what it returned for an image
    alone (detections) boxes too."""
    if isinstance(output, Tensor):
        is_map = output.ndim > 2 or (is_alone and output.ndim == 2)
        return output.detach() if axis is None or not is_map else output.detach().flip(axis)
    if isinstance(output, dict):  # also transformers' outputs, which keep attributes of these names
        twin = copy.copy(output)
        for key, value in output.items():
            twin[key] = _mirrored(value, axis, is_alone)
        return twin
    if isinstance(output, (list, tuple)):
        parts = [_mirrored(part, axis, not isinstance(part, Tensor)) for part in output]
        return type(output)(*parts) if hasattr(output, "_fields") else type(output)(parts)
    if hasattr(output, "__dict__"):
        twin = copy.copy(output)
        twin.__dict__.update({key: _mirrored(value, axis, is_alone) for key, value in vars(output).items()})
        return twin
    return output


def _first(output: Any) -> Any:
    """What a network returned for the first image of several."""
    if isinstance(output, Tensor):
        return output[:1].detach() if output.ndim else output
    if isinstance(output, dict):  # also transformers' outputs, which are made again of their entries
        return type(output)(**{key: _first(value) for key, value in output.items()})
    if isinstance(output, (list, tuple)) and all(isinstance(part, Tensor) for part in output):
        parts = [_first(part) for part in output]
        return type(output)(*parts) if hasattr(output, "_fields") else type(output)(parts)
    raise TypeError(type(output).__name__)
