"""The settings in which runs differ: configuration, versions, data and protocols, by dotted names."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from contrex.records import Record
from contrex.records.scopes import flat
from contrex.report.groups import RunGroup

ABSENT = "\N{EN DASH}"


@dataclass(frozen=True)
class SettingRow:
    """A setting that differs between runs, with a text for each group."""

    name: str
    values: Sequence[str]


def differences(groups: Sequence[RunGroup]) -> list[SettingRow]:
    """The settings in which any two runs differ."""
    flat = [[dict(settings(run.record)) for run in group.runs] for group in groups]
    names = dict.fromkeys(name for group in flat for run in group for name in run)
    rows = [SettingRow(name, [_joined(run.get(name, ABSENT) for run in group) for group in flat]) for name in names]
    return [row for row in rows if _differs(row.name, flat)]


def settings(record: Record) -> Iterator[tuple[str, str]]:
    """All settings of a record as (dotted name, text)."""
    own = flat(record.configuration, ignoring={"name", "reference"})
    parts = {"data set": record.dataset, "versions": record.versions}
    parts |= {f"protocol of {metric.name}": metric.protocol for metric in record.metrics}
    for name, value in (*own, *flat(parts)):
        if name != "checkpoint.file":  # its weights have a sha256
            yield name.removesuffix(".kind"), as_text(value)[: 12 if name.endswith("sha256") else None]


def as_text(value: Any) -> str:
    """The text of a setting's value.

    >>> as_text("cosine"), as_text(True), as_text([1, 2]), as_text(None)
    ('cosine', 'true', '[1, 2]', 'none')
    """
    if value is None:
        return "none"
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)


def as_json(record: Record) -> str:
    """The whole configuration as JSON, for reading and copying."""
    return json.dumps(record.configuration, indent=2, ensure_ascii=False, default=str)


def _joined(values: Iterator[str]) -> str:
    return ", ".join(dict.fromkeys(values))


def _differs(name: str, flat: Sequence[Sequence[Mapping[str, str]]]) -> bool:
    return len({run.get(name, ABSENT) for group in flat for run in group}) > 1
