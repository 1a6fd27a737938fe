"""Sentences for a report: what was run, and what each number means."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

from contrex.records import MetricFamily, Record
from contrex.report.groups import RunGroup
from contrex.report.methods import method_sentence
from contrex.report.numbers import count
from contrex.report.tables import Column


def meaning(column: Column) -> str:
    """What a metric says, and whether higher or lower is better."""
    sentence = family_meaning([column]) or f"{column.title}, averaged over images."
    if column.higher_is_better is None:
        return sentence
    return f"{sentence} {'Higher' if column.higher_is_better else 'Lower'} is better."


def family_title(family: MetricFamily) -> str:
    """The title of a family of metrics.

    >>> family_title(MetricFamily("drop_increase", "Drop and increase")), family_title(MetricFamily("my_metrics"))
    ('Drop and increase', 'My metrics')
    """
    words = family.name.replace("_", " ")
    return family.title or words[:1].upper() + words[1:]


def family_meaning(columns: Sequence[Column]) -> str:
    """What the metrics of a family say; empty if their records do not tell.

    It is one text for all methods; if they were measured in different ways, a text for each way with its methods.
    """
    labels: dict[str, dict[str, None]] = {}
    for column in columns:
        for text, own in column.meanings.items():
            labels.setdefault(text, {}).update(dict.fromkeys(own))
    if len(labels) < 2:
        return "".join(labels)
    return " ".join(f"{enumerated(list(own))}: {text}" for text, own in labels.items())


def compared(groups: Sequence[RunGroup]) -> str:
    """What is compared, in a sentence: the methods, the first of which is the baseline, and the data."""
    records = [run.record for group in groups for run in group.runs]
    data = enumerated(_unique(map(_dataset, records)))
    first, *others = [group.label for group in groups]
    if not others:
        return f"This report shows {first} on {data}."
    return f"This report compares {enumerated(others)} with {first}, the baseline, on {data}."


def circumstances(groups: Sequence[RunGroup]) -> str:
    """A paragraph on network, training and measurement."""
    records = [run.record for group in groups for run in group.runs]
    network = _unique(name for name in map(_network, records) if name)
    sentences = [
        f"Network: {enumerated(network)}." if network else "",
        _training(records),
        _measurement(records),
    ]
    return " ".join(sentence for sentence in sentences if sentence)


def sentences_on_methods(groups: Sequence[RunGroup]) -> dict[str, str]:
    """What each method is, by its name, as the rest of a sentence; those that say nothing are left out."""
    told = {group.label: method_sentence(group.record) for group in groups}
    return {name: sentence for name, sentence in told.items() if sentence}


_PARTS = {"num_train": "training images", "num_val": "validation images", "num_test": "test images"}


def _dataset(record: Record) -> str:
    """The name of the data set, with its numbers of classes and images."""
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
    with_seeds = f"with seed{'s' if len(seeds) > 1 else ''} {enumerated(seeds)}"
    if not epochs:
        return f"Evaluated {with_seeds}; this report knows nothing of the training."
    return f"Trained for {enumerated(epochs)} epochs {with_seeds}."


def _epochs(record: Record) -> str:
    """How many epochs the measured weights have seen, such as "3" or "3 of 10"; empty if unknown."""
    done, epochs = (_setting(record.configuration, "checkpoint", key) for key in ("epochs_done", "epochs"))
    if done is None:
        return ""
    return str(done) if done == epochs else f"{done} of {epochs}"


def _measurement(records: Sequence[Record]) -> str:
    splits = _unique(str(s) for r in records if (s := _setting(r.configuration, "evaluation", "split")))
    explainers = _unique(str(e) for r in records if (e := _setting(r.configuration, "evaluation", "explainer")))
    if not splits or not explainers:
        return ""
    chosen = _unique(str(record.dataset["chosen"]) for record in records if "chosen" in record.dataset)
    limited = f" ({enumerated(chosen)})" if chosen else ""
    return f"Measured on the {enumerated(splits)} split{limited}; heatmaps by {enumerated(explainers)}."


def _setting(configuration: Mapping[str, Any], *keys: str) -> Any:
    value: Any = configuration
    for key in keys:
        value = value.get(key) if isinstance(value, Mapping) else None
    return value


def _unique(texts: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(texts))


def enumerated(texts: Sequence[str]) -> str:
    """The texts as a list in a sentence.

    >>> enumerated(["a"]), enumerated(["a", "b", "c"])
    ('a', 'a, b and c')
    """
    return f"{', '.join(texts[:-1])} and {texts[-1]}" if len(texts) > 1 else texts[0]


def period(groups: Sequence[RunGroup]) -> str:
    """When the records were made: the first and the last time stamp."""
    stamps = sorted(run.record.created for group in groups for run in group.runs)
    first, last = date(stamps[0]), date(stamps[-1])
    return first if first == last else f"{first} to {last}"


def date(stamp: str) -> str:
    """A time stamp to the minute; unchanged if it is not ISO 8601.

    >>> date("2026-11-20T10:04:31.123+00:00"), date("yesterday")
    ('2026-11-20 10:04 UTC', 'yesterday')
    """
    try:
        moment = datetime.fromisoformat(stamp)
    except ValueError:
        return stamp
    return f"{moment:%Y-%m-%d %H:%M} {moment:%Z}".strip()
