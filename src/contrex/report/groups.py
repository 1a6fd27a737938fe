"""Groups of runs: one method with several seeds is one row of a report."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from contrex.errors import ArgumentError
from contrex.records import Record, RunRecord
from contrex.records.scopes import SAME_RESULT, Scope, differing, flat
from contrex.report.methods import method_words

_SEED = re.compile(r"(?:^|[-_. /(])+seed[-_= ]?\d+\)?|[-_]s\d+$", re.IGNORECASE)
_MOST_TOLD = 2
"""The most settings of the evaluation that a label names."""
_MAY_DIFFER: frozenset[Scope] = SAME_RESULT | {"name", "seed", "start"}
"""The scopes in which the runs of one method may differ."""


@dataclass(frozen=True)
class RunGroup:
    """A row of the report: one run, or one method over several seeds."""

    label: str
    runs: Sequence[RunRecord]

    @property
    def record(self) -> Record:
        """The record of the first run."""
        return self.runs[0].record

    @property
    def seeds(self) -> list[int]:
        """The seeds of the runs."""
        return [run.record.seed for run in self.runs]

    @property
    def repeats(self) -> str:
        """The word for the runs: "episodes" where each has drawn other images to train on, else "seeds"."""
        labelled = self.record.configuration.get("labelled") or {}
        is_drawn = any(labelled.get(name) is not None for name in ("share", "per_class"))
        return "episodes" if is_drawn and labelled.get("seed") is None else "seeds"

    @property
    def draws(self) -> dict[int, RunRecord]:
        """The runs by the number of the episode; empty where they are not episodes."""
        return {run.record.seed: run for run in self.runs} if self.repeats == "episodes" else {}


def grouped(runs: Sequence[RunRecord], names: Sequence[str] = ()) -> list[RunGroup]:
    """The groups of `runs`, in order of first appearance, each with a label of its own.

    `names` are labels of your choice, one for each group. Else a run that is named after its recipe, such as
    digits_cgc-seed0, has the name of its method, CGC, as long as no other has it; any other has its own name.

    Runs are one group when four things hold: their names are equal without the seed; their configurations are equal,
    but for names, seeds, weights and machine; they have come equally far; and their seeds all differ. Two runs with one
    seed are two rows.

    Raises:
        ArgumentError: `names` are not one for each group, or not all different.
    """
    equal: dict[tuple[str, str], list[RunRecord]] = {}
    for run in runs:
        equal.setdefault((seedless_name(run.record.name), _signature(run.record.configuration)), []).append(run)
    parts = [part for members in equal.values() for part in _apart(members)]
    labels = _numbered(_told_apart(_labels(parts), parts))
    if names:
        _check_names(names, labels)
    return [RunGroup(label, part) for label, part in zip(names or labels, parts, strict=True)]


def _check_names(names: Sequence[str], labels: Sequence[str]) -> None:
    if len(names) != len(labels):
        raise ArgumentError(
            f"`names` must hold {len(labels)}, one for each row ({', '.join(labels)}), got {len(names)}: "
            f"{', '.join(map(repr, names))}. Runs that differ by their seed alone are one row."
        )
    if len(set(names)) < len(names) or not all(name.strip() for name in names):
        raise ArgumentError(f"`names` must be words that differ, got {', '.join(map(repr, names))}.")


def seedless_name(name: str) -> str:
    """The name of a run without its seed.

    >>> seedless_name("digits-cgc-seed3"), seedless_name("cgc_s0"), seedless_name("resnets18")
    ('digits-cgc', 'cgc', 'resnets18')
    """
    return _SEED.sub("", name).strip() or name


def progress(record: Record) -> str:
    """How far the training of the measured weights had come, in words; empty for the end of a run.

    It follows from the record's `configuration["checkpoint"]`: `name`, `step`, `epochs_done` and `epochs`.
    """
    checkpoint = record.configuration.get("checkpoint", {})
    if "name" not in checkpoint:
        return ""
    done, epochs = checkpoint["epochs_done"], checkpoint["epochs"]
    stopped = f"step {checkpoint['step']}, {done} of {epochs} epochs" if done < epochs else ""
    if checkpoint["name"] == "last":
        return stopped
    return ", ".join(part for part in (f"{checkpoint['name']} checkpoint", stopped) if part)


def _labels(parts: Sequence[Sequence[RunRecord]]) -> list[str]:
    """The labels of the parts, with names of methods where these tell runs of different names apart."""
    plain = [seedless_name(part[0].record.name) if len(part) > 1 else part[0].record.name for part in parts]
    named = [_label(part, _method_name(part[0].record) or own) for part, own in zip(parts, plain, strict=True)]
    return [
        label
        if len({other for other, twin in zip(plain, named, strict=True) if twin == label}) == 1
        else _label(part, own)
        for part, own, label in zip(parts, plain, named, strict=True)
    ]


def _method_name(record: Record) -> str:
    """The name of the method of a run that is named after its recipe; empty for a name of its user's choice."""
    words = method_words(record)
    return words.name if words is not None and seedless_name(record.name).endswith(f"_{words.short}") else ""


def _label(part: Sequence[RunRecord], name: str) -> str:
    record = part[0].record
    return f"{name} ({progress(record)})" if progress(record) else name


def _told_apart(labels: Sequence[str], parts: Sequence[Sequence[RunRecord]]) -> list[str]:
    """The labels; equal ones get the settings of the evaluation in which their records differ."""
    options = [part[0].record.configuration.get("evaluation", {}) for part in parts]
    told = []
    for label, own in zip(labels, options, strict=True):
        rivals = [other for name, other in zip(labels, options, strict=True) if name == label]
        names = dict.fromkeys(name for other in rivals for name in differing(other, own))
        values = dict(flat(own))
        words = [f"{name.replace('_', ' ')} {'none' if values.get(name) is None else values[name]}" for name in names]
        told.append(f"{label} ({', '.join(words)})" if 0 < len(words) <= _MOST_TOLD else label)
    return told


def _apart(members: list[RunRecord]) -> list[list[RunRecord]]:
    distinct = len({run.record.seed for run in members}) == len(members)
    return [members] if distinct else [[run] for run in members]


def _signature(configuration: Mapping[str, Any]) -> str:
    """The settings that must be equal within a group, as one text. The seed of generated data is one of them.

    The last checkpoints of a group have seen equally many epochs; best checkpoints may come from any epoch.
    """
    checkpoint = configuration.get("checkpoint", {})
    trained = checkpoint.get("epochs_done") if checkpoint.get("name") == "last" else None
    others = {key: value for key, value in configuration.items() if key != "checkpoint"}
    settled = [dict(flat(others, _MAY_DIFFER)), checkpoint.get("name"), trained]
    return json.dumps(settled, sort_keys=True, default=str)


def _numbered(labels: Sequence[str]) -> list[str]:
    """The labels, all different: one that repeats gets " (2)", " (3)" and so on."""
    taken: set[str] = set()
    result = []
    for label in labels:
        count, unique = 1, label
        while unique in taken:
            count += 1
            unique = f"{label} ({count})"
        taken.add(unique)
        result.append(unique)
    return result
