"""The subject of an evaluation, and what a record says about how it was made."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from contrex import settings
from contrex.data.sample import ImageSet
from contrex.models import Classifier
from contrex.models.fingerprint import weights_sha256 as weights_sha256
from contrex.records import to_plain
from contrex.records.origin import command_line as command_line
from contrex.records.origin import versions as versions


@dataclass(frozen=True, eq=False)
class Subject:
    """What is evaluated: a classifier, the images it is judged on, and where it comes from.

    `checkpoint` says which weights of a training run the classifier has; a record adds their SHA-256.
    """

    name: str
    classifier: Classifier
    images: ImageSet
    data: settings.Data
    augmentation: settings.Augmentation = field(default_factory=settings.Augmentation)
    configuration: Mapping[str, Any] = field(default_factory=dict)
    checkpoint: Mapping[str, Any] = field(default_factory=dict)
    curves: Mapping[str, Sequence[tuple[float, float]]] = field(default_factory=dict)
    sheets: Mapping[str, bytes] = field(default_factory=dict)
    """Pictures of the images that it was trained on: PNG files by title."""
    seed: int = 0
    others: Mapping[str, Classifier] = field(default_factory=dict)
    """Networks of the same task that its maps are compared with, by what names them (`evaluation.others`)."""


def configuration_of(subject: Subject, options: settings.Evaluation) -> dict[str, Any]:
    """How a record was made, as plain values: the subject's configuration, the evaluation, and the checkpoint."""
    checkpoint = {**subject.checkpoint, "sha256": weights_sha256(subject.classifier.network)}
    plain: dict[str, Any] = to_plain({**subject.configuration, "evaluation": options, "checkpoint": checkpoint})
    if subject.others:  # by what they are, as names stay where a run is trained further
        plain["others"] = {name: weights_sha256(one.network) for name, one in subject.others.items()}
    plain["evaluation"].pop("explainers")  # a record is by one explainer, and earlier records do not have the field
    return plain
