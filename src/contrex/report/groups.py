"""Which runs are one method: the same name and settings, repeated with other seeds."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from contrex.records import Record, RunRecord

_SEED = re.compile(r"(?:^|[-_. /(])+seed[-_= ]?\d+\)?|[-_]s\d+$", re.IGNORECASE)
_MAY_DIFFER = frozenset({"name", "seed", "weights", "device", "workers"})


@dataclass(frozen=True)
class Group:
    """A row of the report: one run, or one method over several seeds."""

    label: str
    runs: Sequence[RunRecord]

    @property
    def record(self) -> Record:
        """The record of the first run."""
        return self.runs[0].record

    @property
    def seeds(self) -> list[int]:
        return [run.record.seed for run in self.runs]


def grouped(runs: Sequence[RunRecord]) -> list[Group]:
    """The runs as groups, in order of first appearance, each under a label of its own.

    Runs are one group when their names are equal without the seed, their configurations are equal apart from
    names, seeds, weights and machine, and their seeds all differ. Two runs of one seed are two rows.
    """
    found: dict[tuple[str, str], list[RunRecord]] = {}
    for run in runs:
        found.setdefault((seedless_name(run.record.name), _signature(run.record.configuration)), []).append(run)
    parts = [part for members in found.values() for part in _apart(members)]
    labels = [seedless_name(part[0].record.name) if len(part) > 1 else part[0].record.name for part in parts]
    return [Group(label, part) for label, part in zip(_numbered(labels), parts, strict=True)]


def seedless_name(name: str) -> str:
    """The name of a run without its seed.

    >>> seedless_name("digits-cgc-seed3"), seedless_name("cgc_s0"), seedless_name("resnets18")
    ('digits-cgc', 'cgc', 'resnets18')
    """
    return _SEED.sub("", name).strip() or name


def _apart(members: list[RunRecord]) -> list[list[RunRecord]]:
    distinct = len({run.record.seed for run in members}) == len(members)
    return [members] if distinct else [[run] for run in members]


def _signature(configuration: Mapping[str, Any]) -> str:
    """The settings that must be equal within a group; the seed of the data is one of them."""
    kept = {key: _settled(value) if key != "data" else value for key, value in configuration.items()}
    return json.dumps(_settled(kept), sort_keys=True, default=str)


def _settled(value: Any) -> Any:
    if not isinstance(value, Mapping):
        return value
    return {k: (v if k == "data" else _settled(v)) for k, v in value.items() if k not in _MAY_DIFFER}


def _numbered(labels: Sequence[str]) -> list[str]:
    """The labels, with " (2)", " (3)" after those that came before."""
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
