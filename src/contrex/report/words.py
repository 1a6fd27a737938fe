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
    "content_heatmap": "How much of the positive heatmap lies inside the object's box, averaged over images: at 100 % "
    "the explanation looks at nothing but the object.",
    "cgc_loss": "How hard it is to find an image's heatmap, once cropped and flipped, among those of the other images "
    "of its batch: low when explanations move with the picture and tell images apart.",
    "insertion_auc": "The mean probability while pixels return to a blurred image, most important first: high when the "
    "heatmap found what the network needs.",
    "deletion_auc": "The mean probability while pixels are removed, most important first: low when the heatmap found "
    "what the network uses.",
}
"""A sentence per metric of `contrex.metrics`, by name."""


def meaning(column: Column) -> str:
    """The sentence for a metric, with its direction."""
    sentence = MEANINGS.get(column.name, f"{column.title}, averaged over images.")
    return f"{sentence} {'Higher' if column.higher_is_better else 'Lower'} is better."


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
