"""What an explanation says in words: the question that its map answers, the probabilities behind it, its method."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from contrex.ops import scores
from contrex.settings.contrast import read_contrast

if TYPE_CHECKING:
    from contrex.explain.explanation import Explained, Explanation

HARDLY = 0.01
"""A class with a smaller probability is one that the network does not see."""

LISTED = 3
"""Foils, or images, that are named before the others are only counted."""


NUM_TOP = 5
"""Most probable classes that are told of an image."""


@dataclass(frozen=True)
class Words:
    """What is said of one image: the question, its classes with their probabilities, that of the target alone, and what
    makes the question doubtful."""

    question: str
    answer: str
    share: str
    note: str = ""

    @property
    def title(self) -> str:
        """The question and, in a line of its own, what makes it doubtful."""
        return f"{self.question}\n{self.note}".strip()


def class_name(names: Sequence[str], index: int) -> str:
    """The name of a class, or "class 281" where there are no names."""
    return names[index] if names else f"class {index}"


def question(names: Sequence[str], target: int, contrast: str | Sequence[int] | None) -> str:
    """The question that a map answers; `contrast` is the name of one, or foils.

    >>> question(["cat", "dog", "fox"], 0, [1, 2])
    'why cat rather than dog or fox?'
    >>> question(["cat", "dog", "fox"], 0, "nearest(alpha=0.6)")
    'why cat and not the nearest classes (nearest(alpha=0.6))?'
    """
    name = class_name(names, target)
    if contrast is None:
        return f"why {name}?"
    if isinstance(contrast, str):
        return f"why {name} and not {_others(contrast)}?"
    foils = [class_name(names, foil) for foil in contrast]
    if len(foils) > LISTED:
        foils = [*foils[: LISTED - 1], f"{len(foils) - LISTED + 1} others"]
    listed = " or ".join([", ".join(foils[:-1]), foils[-1]] if len(foils) > 1 else foils)
    return f"why {name} rather than {listed}?"


def _others(contrast: str) -> str:
    asked = read_contrast(contrast)
    others = "the nearest classes" if asked.name == "nearest" else "the others"
    return others if str(asked) == "nearest" else f"{others} ({contrast})"


def percent(probability: float) -> str:
    """A probability, as precise as it is interesting.

    >>> percent(0.634), percent(0.021), percent(0.9987), percent(1e-9)
    ('63%', '2.1%', '99.9%', '<0.1%')
    """
    if probability < 0.001:
        return "<0.1%"
    return f"{probability:.0%}" if 0.1 <= probability < 0.995 or probability == 1 else f"{min(probability, 0.999):.1%}"


def in_words(why: Explanation) -> list[Words]:
    """The words for each image of an explanation; they wait for the device."""
    logits = why.logits.detach()
    if why.task == scores.ALONE:
        return [_words_of_scores(why.names, values) for values in logits.tolist()]
    probabilities, targets = scores.probabilities(logits, why.task).tolist(), why.target.tolist()
    foils = why.foils
    against = [None] * len(why) if foils is None else foils.tolist()
    return [_words(why, p, t, f) for p, t, f in zip(probabilities, targets, against, strict=True)]


def _words(why: Explanation, probabilities: Sequence[float], target: int, foils: Sequence[int] | None) -> Words:
    contrast = why.contrast if foils is None or isinstance(why.contrast, str) else foils
    asked = question(why.names, target, contrast)  # type: ignore[arg-type]
    beside = foils[:LISTED] if foils else _strongest_other(probabilities, target)
    shown = [f"{class_name(why.names, index)} {percent(probabilities[index])}" for index in [target, *beside]]
    share = percent(probabilities[target])
    return Words(asked, ", ".join(shown), share, _note(why.names, probabilities, [target, *(foils or [])]))


def _words_of_scores(names: Sequence[str], values: Sequence[float]) -> Words:
    """The words where no class is explained: a score by its name, with its value, and the one it is set against."""
    shown = [f"{name} {value:.3g}" for name, value in zip(names, values, strict=True)]
    return Words(question(names, 0, [1] if len(names) > 1 else None), ", ".join(shown), f"{values[0]:.3g}")


def _strongest_other(probabilities: Sequence[float], target: int) -> list[int]:
    others = [index for index in range(len(probabilities)) if index != target]
    return [max(others, key=lambda index: probabilities[index])] if others else []


def _note(names: Sequence[str], probabilities: Sequence[float], classes: Sequence[int]) -> str:
    unseen = [index for index in classes if probabilities[index] < HARDLY]
    if len(unseen) == len(classes) > 1:
        return "the network sees neither" if len(classes) == 2 else "the network sees none of them"
    return f"the network does not see {class_name(names, unseen[0])}" if unseen else ""


def most_probable(why: Explanation) -> list[tuple[str, float]]:
    """The most probable classes of one image, by name, with their probabilities; none where no class is explained."""
    if why.task == scores.ALONE:
        return []
    probabilities = scores.probabilities(why.logits.detach(), why.task)[0]
    order = probabilities.sort(descending=True, stable=True).indices[:NUM_TOP].tolist()
    return [(class_name(why.names, index), float(probabilities[index])) for index in order]


def method_in_words(why: Explained) -> str:
    """What made the maps, and where: "grad_cam at layer4, 7 x 7"."""
    known = f"the {why.score.replace('_', '-')}" if why.score in scores.SCORES else why.score
    score = "" if why.score == "logit" else f" of {known}"
    place = f" at {why.place}" if why.place else ""
    return f"{why.explainer}{score}{place}".strip()


def summary(why: Explained) -> str:
    """One line that says what is explained, as `repr` shows it."""
    columns = why.columns()
    if len(why) == 1:
        words = [in_words(column)[0] for column in columns]
        told = f"{words[0].question} {words[0].answer}" if len(words) == 1 else ", ".join(w.question for w in words)
    else:
        targets = [class_name(why.names, index) for index in columns[0].target.tolist()[:LISTED]] if columns else []
        targets = targets[:1] if why.task == scores.ALONE else targets
        more = ", ..." if len(why) > LISTED and len(targets) > 1 else ""
        kind = "" if len(columns) == 1 else f", {len(columns)} classes each"
        told = f"{len(why)} images{kind}: {', '.join(targets)}{more}{_contrast_in_words(why)}"
    method = method_in_words(why)
    return f"{type(why).__name__}({told}{'; ' if method else ''}{method})"


def _contrast_in_words(why: Explained) -> str:
    if why.contrast is None:
        return ""
    if why.task == scores.ALONE:
        return f" rather than {why.names[1]}"
    return f" and not {_others(why.contrast)}" if isinstance(why.contrast, str) else " rather than others"
