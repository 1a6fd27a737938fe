"""Verifying the record of an explanation: made again from the same photo and weights, does it still hold?"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from contrex.errors import ArgumentError, NotVerifiedError, RecordError
from contrex.explain import Explanation
from contrex.explanation_record import KIND, VERSION, Plain, array_of, cells_of, file_sha256, probabilities_of, score_of
from contrex.models.fingerprint import weights_sha256
from contrex.ops.scores import Contrast
from contrex.photos import Asked, NamedClassifier, Photographer, Questions, classifier_of
from contrex.records import from_plain, to_plain
from contrex.records.origin import versions
from contrex.settings import Model

TOLERANCE = 1e-3
"""How far probabilities, and maps as shares of their largest value, may be off: other machines, versions and
numbers of threads round otherwise (0.0003 was seen in single pixels of integrated gradients)."""


@dataclass(frozen=True)
class Verdict:
    """Whether a record holds, in words. `probability` and `maps` are how far the new numbers are off, at most:
    probabilities and scores, and maps as a share of their largest value."""

    failed: Sequence[str]
    remarks: Sequence[str]
    probability: float
    maps: float
    num_maps: int
    tolerance: float

    @property
    def holds(self) -> bool:
        """Whether everything is as it was, within the tolerance."""
        return not self.failed

    def lines(self) -> list[str]:
        """The verdict, and what it rests on."""
        count = f"{self.num_maps} map{'s' if self.num_maps > 1 else ''}"
        off = f"probabilities and scores within {self.probability:.1e}, {count} within {self.maps:.1e} of the largest"
        told = f"{off} value (tolerance {self.tolerance:g})"
        if self.holds and not self.probability and not self.maps:
            told = f"probabilities, scores and {count} are the same to the last bit"
        head = f"holds: {told}" if self.holds else f"does not hold (tolerance {self.tolerance:g}):"
        return [head, *(f"  {line}" for line in (*self.failed, *self.remarks))]


def verify(
    path: Path,
    *,
    photo: Path | None = None,
    weights: Path | None = None,
    run: Path | None = None,
    tolerance: float = TOLERANCE,
) -> Verdict:
    """Compute the explanations of a record again, and compare.

    The photo, the weights file and the run are looked for where the record says, or where the caller says.

    Raises:
        RecordError: the file is no record of `contrex explain`.
        NotVerifiedError: the photo, the weights or the maps' file have changed, or are gone.
        ArgumentError: `tolerance` is negative, or the explainer of the record cannot be made.
    """
    if not 0 <= tolerance < 1:
        raise ArgumentError(f"`tolerance` must be from 0 to below 1, got {tolerance}: the default is {TOLERANCE:g}.")
    record, places = read_record(path), _Places(path, photo, weights, run)
    with _reading(path):
        where = places.file("photo", record["photo"]["file"], record["photo"]["sha256"])
        told = record["maps"] or {"file": None, "sha256": None}
        maps = places.file("file of maps", told["file"], told["sha256"])
        named = _classifier_again(record["classifier"], places)
        again, questions = _photographer_again(record, named), _questions(record["explanations"][0]["questions"])
    rows = again.explain(where or path, questions).rows
    compared = _Compared(tolerance)
    with _reading(path), np.load(maps) if maps else contextlib.nullcontext({}) as arrays:
        for row, now in zip(record["explanations"], rows, strict=True):
            _compare_row(compared, row, now, arrays)
        _compare_classes(compared, record["classes"], rows[0][0], "of the photo")
        return compared.verdict(_other_versions(record["versions"]))


@contextlib.contextmanager
def _reading(path: Path) -> Iterator[None]:
    """Answer in words where a record lacks something, while its content is read."""
    try:
        yield
    except (KeyError, IndexError, AttributeError, TypeError) as error:
        raise RecordError(f"{path} is damaged: it lacks {error}, or has another kind of value there.") from error


def read_record(path: Path) -> Plain:
    """Read a record of `contrex explain`, or raise `RecordError`."""
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise RecordError(
            f"{path} is no record of an explanation: {getattr(error, 'strerror', None) or error}."
        ) from None
    kind = record.get("kind") if isinstance(record, dict) else None
    if kind in ("Explanation", "ClassExplanations"):
        raise RecordError(
            f"{path} is an explanation saved in Python, which does not know where its classifier came from: records "
            "that can be verified are written by contrex explain."
        )
    if kind != KIND:
        raise RecordError(f"{path} is no record of an explanation: contrex explain writes one beside each picture.")
    if record.get("version") != VERSION:
        raise RecordError(f"{path} has version {record.get('version')}, this contrex reads {VERSION}: install another.")
    return dict(record)


@dataclass(frozen=True)
class _Places:
    """Where the files of a record are."""

    record: Path
    photo: Path | None
    weights: Path | None
    run: Path | None

    def file(self, what: str, told: str | None, sha256: str | None) -> Path | None:
        """A file of the record, unchanged; None where the record has none."""
        given: Path | None = getattr(self, what, None)
        if told is None:
            self._refuse(what, given)
            return None
        path = given or Path(os.path.normpath(self.record.parent / told))
        option = f" Pass --{what} FILE if it is elsewhere." if what in ("photo", "weights") else ""
        if not path.is_file():
            raise NotVerifiedError(f"{self.record}: the {what} {path} is gone.{option}")
        found = file_sha256(path)
        if found != sha256:
            raise NotVerifiedError(
                f"{self.record}: the {what} {path} has changed: its SHA-256 is {found[:12]}..., in the record "
                f"{str(sha256)[:12]}...{option}"
            )
        return path

    def _refuse(self, what: str, given: Path | None) -> None:
        if given is not None:
            raise ArgumentError(f"`{what}` {given}: the record {self.record} names no {what}. Leave it out.")

    def folder(self, told: str | None) -> Path | None:
        """The run of the record; None where it has none."""
        if told is None:
            self._refuse("run", self.run)
            return None
        path = self.run or Path(os.path.normpath(self.record.parent / told))
        if not path.is_dir():
            raise NotVerifiedError(f"{self.record}: the run {path} is gone. Pass --run RUN if it is elsewhere.")
        return path


@dataclass
class _Compared:
    """What was found so far."""

    tolerance: float
    probability: float = 0.0
    maps: float = 0.0
    num_maps: int = 0
    failed: list[str] = field(default_factory=list)

    def same(self, what: str, now: object, before: object) -> None:
        """Compare what must be equal."""
        if now != before:
            self.failed.append(f"{what} is {now} now, in the record {before}")

    def close(self, what: str, now: float, before: float) -> None:
        """Compare two probabilities, or two scores: large ones by their size."""
        off = abs(now - before) / max(1.0, abs(before))
        self.probability = max(self.probability, off)
        if not off <= self.tolerance:
            self.failed.append(f"{what} is {now:.4g} now, in the record {before:.4g}")

    def map(self, what: str, now: NDArray[np.floating], before: NDArray[np.floating], largest: float) -> None:
        """Compare two maps, by the largest value of the old one."""
        self.num_maps += 1
        if now.shape != before.shape:
            self.failed.append(f"{what}: the map has {now.shape} cells now, in the record {before.shape}")
            return
        off = float(np.abs(now.astype(np.float64) - before).max()) / (largest or 1.0)
        self.maps = max(self.maps, off)
        if not off <= self.tolerance:
            self.failed.append(f"{what}: the map differs by {off:.2g} of its largest value")

    def verdict(self, remarks: Sequence[str]) -> Verdict:
        """The verdict on all that was compared."""
        return Verdict(self.failed, remarks, self.probability, self.maps, self.num_maps, self.tolerance)


def _compare_row(compared: _Compared, row: Plain, again: Sequence[Explanation], arrays: Mapping[str, Any]) -> None:
    """Compare what one explainer says now with what it said."""
    name = row["explainer"]
    compared.same(f"{name}: the explained layer", again[0].layer, row["layer"])
    compared.same(f"{name}: its grid", list(again[0].grid or ()), list(row["grid"] or ()))
    compared.same(f"{name}: its options", to_plain(again[0].options), row["options"])
    for asked, why in zip(row["questions"], again, strict=True):
        what, kept, now = f"{name}: {asked['question']}", asked["map"], array_of(why)
        _compare_classes(compared, [asked["target"], *asked["foils"]], why, f"in {what}")
        compared.close(f"the score of {what}", score_of(why), asked["value"])
        before = np.asarray(kept["cells"], now.dtype)
        if kept["name"] in arrays:
            before = arrays[kept["name"]]
        else:
            now = cells_of(now)
        compared.map(what, now, before, kept["largest"])


def _compare_classes(compared: _Compared, classes: Sequence[Plain], why: Explanation, what: str) -> None:
    probabilities = probabilities_of(why)
    for one in classes:
        compared.close(
            f"the probability of {one['name']} {what}", float(probabilities[one["index"]]), one["probability"]
        )


def _classifier_again(told: Plain, places: _Places) -> NamedClassifier:
    """The classifier of the record, with the weights that it had."""
    run, weights = places.folder(told["run"]), told["weights"]
    file = places.file("weights", weights["file"], weights["file_sha256"])
    model = Model() if told["model"] is None else replace(from_plain(told["model"], Model), weights=file)
    named = classifier_of(run, model, told["names"] or ())
    found = weights_sha256(named.classifier.network)
    if found != weights["sha256"]:
        where = f"run {run}" if run else "network"
        raise NotVerifiedError(
            f"{places.record}: the weights of the {where} have changed: their SHA-256 is {found[:12]}..., in the "
            f"record {weights['sha256'][:12]}..."
        )
    return replace(named, names=tuple(map(str, range(told["num_classes"]))))


def _photographer_again(record: Plain, named: NamedClassifier) -> Photographer:
    """The explainers of the record."""
    texts = [row["asked"] for row in record["explanations"]]
    asked = Asked(texts, layer=record["layer_asked"], task=record["task"])
    return Photographer(named, asked, side=record["photo"]["seen_as"]["short_side"])


def _questions(asked: Sequence[Plain]) -> list[Questions]:
    """The classes of a row, and the contrasts that each has: those after each other that have the same, at once."""

    def contrast(one: Plain) -> Contrast:
        return [[foil["index"] for foil in one["foils"]]] if one["contrast"] == "foils" else one["contrast"]

    # A class that comes again later, `--target 3 5 3`, is asked about again later.
    of_classes = itertools.groupby(asked, key=lambda one: one["target"]["index"])
    pairs = [(index, [contrast(one) for one in questions]) for index, questions in of_classes]
    alike = itertools.groupby(pairs, key=lambda pair: pair[1])
    return [Questions([index for index, _ in same], contrasts) for contrasts, same in alike]


def _other_versions(told: Mapping[str, str]) -> list[str]:
    """The versions that were others when the record was made."""
    now = versions("timm", "pillow")
    other = [f"{name} {value}, now {now.get(name)}" for name, value in told.items() if now.get(name) != value]
    return [f"made with {'; '.join(other)}"] if other else []
