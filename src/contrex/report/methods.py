"""What training methods are called, and what each does in one sentence, from the settings in a record."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from contrex.records import Record


@dataclass(frozen=True)
class MethodWords:
    """The words for one kind of method: its name and a sentence. `short` is its name in the names of recipes.

    `options` are what its settings must have, for kinds that papers call by several names.
    """

    kind: str
    short: str
    name: str
    sentence: str
    options: Mapping[str, Any] = field(default_factory=dict)


_BOTH_VIEWS = "learns the labels, and that the heatmaps of an image and of its changed view agree"
KNOWN = (
    MethodWords(
        "CrossEntropy", "cross_entropy", "Cross-entropy", "learns the labels alone; nothing is asked of heatmaps."
    ),
    MethodWords("CGC", "cgc", "CGC", f"{_BOTH_VIEWS}, more than with those of other images."),
    MethodWords(
        "CGCNoNegatives", "cgc_no_negatives", "CGC without negatives", f"{_BOTH_VIEWS}; other images play no part."
    ),
    MethodWords(
        "GCC",
        "gcc",
        "GCC",
        "learns the labels, and that an image has the same heatmap alone and within a composite of several images.",
    ),
    MethodWords(
        "SupCon",
        "simclr",
        "SimCLR",
        "learns that views of one image are alike and others are not, without labels; a linear classifier follows.",
        {"labels": False},
    ),
    MethodWords(
        "SupCon",
        "supcon_ori",
        "SupConOri",
        "learns first that images of one class are alike, and then a linear classifier.",
        {"order": "encoder-first"},
    ),
    MethodWords(
        "SupCon", "supcon", "SupCon", "learns in turns that images of one class are alike, and a linear classifier."
    ),
    MethodWords(
        "ExCon",
        "exconb",
        "ExConB",
        "is ExCon with masked images that are classified wrongly as examples of what an image is not.",
        {"background": True},
    ),
    MethodWords(
        "ExCon", "excon", "ExCon", "is SupCon, where one view of an image is the part that its own heatmap keeps."
    ),
    MethodWords(
        "EnergyGuided",
        "energy",
        "Energy loss on boxes",
        "learns the labels, and that heatmaps lie within the annotated boxes.",
    ),
    MethodWords(
        "BCEHead", "bce_head", "BCE head", "trains the last layer alone, with sigmoids in the place of the softmax."
    ),
    MethodWords(
        "Retrofit",
        "retrofit",
        "Retrofit",
        "tunes a trained network on photos without labels: its outputs stay, and heatmaps of views agree.",
    ),
)
"""The methods of this package; where several fit the settings, the first is meant."""


def method_words(record: Record) -> MethodWords | None:
    """The words for the method of a record; None for one from elsewhere, or where the record does not tell."""
    settings = record.configuration.get("method") or {}
    return next(
        (
            words
            for words in KNOWN
            if settings.get("kind") == words.kind
            and all(settings.get(name) == value for name, value in words.options.items())
        ),
        None,
    )


def method_sentence(record: Record) -> str:
    """What a record's method is, as the rest of a sentence that begins with its name; empty where it does not tell."""
    words = method_words(record)
    kind = (record.configuration.get("method") or {}).get("kind")
    if words is not None:
        return words.sentence
    return f"is trained with the method {kind}." if kind else ""
