"""What was run and what each number means, in plain words."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

from contrex.records import Record
from contrex.report.groups import Group
from contrex.report.numbers import count
from contrex.report.tables import Column

MEANINGS = {
    "top1": "How often the most probable class is the right one.",
    "top5": "How often the right class is among the five most probable ones.",
    "calibration": "How far the network's confidence is from how often it is right, averaged over bins of equal "
    "confidence.",
    "fgsm": "How often the most probable class is still the right one after every pixel took one small step, of the "
    "size given, against the network.",
    "content_heatmap": "How much of the positive heatmap lies inside the object's box, averaged over images: at 100 % "
    "the explanation looks at nothing but the object.",
    "pointing_game": "How often the heatmap's maximum lies on the object, or within the tolerance of it.",
    "stochastic_pointing_game": "How many of the points drawn from the positive heatmap, as if it were a distribution, "
    "lie on the object, or within the tolerance of it.",
    "relative_probability": "The probability of one of the two most probable classes, t1 and t2, as if there were no "
    "others, when only the pixels that its own heatmap keeps are left of the image. Kept positive pixels should raise "
    "it above that of the whole image, kept negative ones lower it.",
    "gradient_sign": "What changes when every pixel takes one small step along the sign of the input gradient of a "
    "score: the class's logit alone (original), or against the other classes (mean, max, weighted). The logit's own "
    "gradient moves the logit most, the weighted contrast should move probability and accuracy most.",
    "insertion_auc": "The mean probability while pixels return to a blurred image, most important first: high when the "
    "heatmap found what the network needs.",
    "deletion_auc": "The mean probability while pixels are removed, most important first: low when the heatmap found "
    "what the network uses.",
    "drop_increase": "What happens to the probability of the predicted class when only the most salient pixels are "
    "kept: on how many images it falls or rises (percent), and by what share of itself (magnitude). Good explanations "
    "lose little and gain much.",
    "infidelity": "How far the heatmap is from predicting what happens to the logit when noise is taken off the image "
    "(mean squared error).",
    "max_sensitivity": "How far the heatmap moves, relative to its size, under the worst of some tiny changes of the "
    "image. A constant map does not move at all, so read it beside the others.",
    "cgc_loss": "How hard it is to find an image's heatmap, once cropped and flipped, among those of the other images "
    "of its batch: low when explanations move with the picture and tell images apart.",
    "equivariance": "How far the heatmap of a cropped or flipped image is from the cropped or flipped heatmap of the "
    "image: 0 when the explanation moves with the picture, 1 when the two have nothing in common.",
    "parameter_randomization": "How alike heatmaps stay when the network's parameters are drawn anew: an explanation "
    "that hardly changes does not depend on what the network has learnt.",
    "embedding": "How near the features of an image are to those of its random view, and of the part of it that its "
    "heatmap keeps (cosine similarity).",
}
"""A sentence per entry of `evaluation.metrics`, which may give several metrics."""

TITLES = {
    "fgsm": "Accuracy under attack (FGSM)",
    "pointing_game": "Pointing game",
    "stochastic_pointing_game": "Stochastic pointing game",
    "relative_probability": "Relative probability under masking",
    "gradient_sign": "Gradient sign perturbation",
    "drop_increase": "Drop and increase",
    "equivariance": "Equivariance error",
    "parameter_randomization": "Parameter randomisation",
    "embedding": "Features of an image and its views",
}
"""What a family of several metrics is called."""


def meaning(column: Column) -> str:
    """The sentence for a metric, with its direction."""
    sentence = MEANINGS.get(column.family, f"{column.title}, averaged over images.")
    if column.higher_is_better is None:
        return sentence
    return f"{sentence} {'Higher' if column.higher_is_better else 'Lower'} is better."


def family_title(name: str) -> str:
    """What a family is called.

    >>> family_title("drop_increase"), family_title("my_metrics")
    ('Drop and increase', 'My metrics')
    """
    words = name.replace("_", " ")
    return TITLES.get(name, words[:1].upper() + words[1:])


def family_meaning(name: str) -> str:
    """The sentence for a family, empty for one that contrex does not know."""
    return MEANINGS.get(name, "")


def summary(groups: Sequence[Group]) -> str:
    """One paragraph: methods, network, data, training and measurement."""
    records = [run.record for group in groups for run in group.runs]
    subject = f"{_enumerated([group.label for group in groups])} on {_enumerated(_unique(map(_dataset, records)))}"
    network = _unique(name for name in map(_network, records) if name)
    sentences = [
        f"This report {'compares ' if len(groups) > 1 else 'shows '}{subject}.",
        f"Network: {_enumerated(network)}." if network else "",
        _training(records),
        _measurement(records),
    ]
    return " ".join(sentence for sentence in sentences if sentence)


_PARTS = {"num_train": "training images", "num_val": "validation images", "num_test": "test images"}


def _dataset(record: Record) -> str:
    """The data set's name and counts."""
    name = str(record.dataset.get("name", "an unnamed data set"))
    counts = [
        f"{count(value)} {_PARTS.get(key, key.removeprefix('num_').replace('_', ' '))}"
        for key, value in record.dataset.items()
        if key.startswith("num_") and isinstance(value, int) and key != "num_classes"
    ]
    return f"{name} ({', '.join([f'{count(len(record.classes))} classes', *counts])})"


def _network(record: Record) -> str:
    return str(_setting(record.configuration, "model", "name") or "")


def _training(records: Sequence[Record]) -> str:
    seeds = _unique(str(record.seed) for record in records)
    epochs = _unique(text for text in map(_epochs, records) if text)
    with_seeds = f"with seed{'s' if len(seeds) > 1 else ''} {_enumerated(seeds)}"
    if not epochs:
        return f"Evaluated {with_seeds}; this report knows nothing of the training."
    return f"Trained for {_enumerated(epochs)} epochs {with_seeds}."


def _epochs(record: Record) -> str:
    """How many epochs the measured weights have seen, and of how many where that is not all; empty when unknown."""
    done, epochs = (_setting(record.configuration, "checkpoint", key) for key in ("epochs_done", "epochs"))
    if done is None:
        return ""
    return str(done) if done == epochs else f"{done} of {epochs}"


def _measurement(records: Sequence[Record]) -> str:
    splits = _unique(str(s) for r in records if (s := _setting(r.configuration, "evaluation", "split")))
    explainers = _unique(str(e) for r in records if (e := _setting(r.configuration, "evaluation", "explainer")))
    if not splits or not explainers:
        return ""
    return f"Measured on the {_enumerated(splits)} split; heatmaps by {_enumerated(explainers)}."


def _setting(configuration: Mapping[str, Any], *keys: str) -> Any:
    value: Any = configuration
    for key in keys:
        value = value.get(key) if isinstance(value, Mapping) else None
    return value


def _unique(texts: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(texts))


def _enumerated(texts: Sequence[str]) -> str:
    """
    >>> _enumerated(["a"]), _enumerated(["a", "b", "c"])
    ('a', 'a, b and c')
    """
    return f"{', '.join(texts[:-1])} and {texts[-1]}" if len(texts) > 1 else texts[0]


def period(groups: Sequence[Group]) -> str:
    """When: the first and the last time stamp."""
    stamps = sorted(run.record.created for group in groups for run in group.runs)
    first, last = date(stamps[0]), date(stamps[-1])
    return first if first == last else f"{first} to {last}"


def date(stamp: str) -> str:
    """A time stamp to the minute; as it is when it is not ISO 8601.

    >>> date("2026-11-20T10:04:31.123+00:00"), date("yesterday")
    ('2026-11-20 10:04 UTC', 'yesterday')
    """
    try:
        moment = datetime.fromisoformat(stamp)
    except ValueError:
        return stamp
    return f"{moment:%Y-%m-%d %H:%M} {moment:%Z}".strip()
