"""What differs between runs: settings, versions, data and protocols as dotted names."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from contrex.records import Record
from contrex.report.groups import Group

ABSENT = "\N{EN DASH}"


@dataclass(frozen=True)
class SettingRow:
    """A setting that is not the same everywhere, with one text per group."""

    name: str
    values: Sequence[str]


def differences(groups: Sequence[Group]) -> list[SettingRow]:
    """The settings in which any two runs differ."""
    flat = [[dict(settings(run.record)) for run in group.runs] for group in groups]
    names = dict.fromkeys(name for group in flat for run in group for name in run)
    rows = [SettingRow(name, [_joined(run.get(name, ABSENT) for run in group) for group in flat]) for name in names]
    return [row for row in rows if _differs(row.name, flat)]


def settings(record: Record) -> Iterator[tuple[str, str]]:
    """Every setting of a record as (dotted name, text)."""
    own = _flat({key: value for key, value in record.configuration.items() if key != "name"})
    yield from ((name, text) for name, text in own if name != "checkpoint.file")  # its weights have a sha256
    yield from _flat({"data set": record.dataset, "versions": record.versions})
    for metric in record.metrics:
        yield from _flat({f"protocol of {metric.name}": metric.protocol})


def _flat(plain: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    for key, value in plain.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping) and value:
            yield from _flat(value, f"{name}.")
        else:
            yield name.removesuffix(".kind"), as_text(value)[: 12 if key.endswith("sha256") else None]


def as_text(value: Any) -> str:
    """A setting's value for reading.

    >>> as_text("cosine"), as_text(True), as_text([1, 2]), as_text(None)
    ('cosine', 'true', '[1, 2]', 'none')
    """
    if value is None:
        return "none"
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)


def as_json(record: Record) -> str:
    """The whole configuration for reading and copying."""
    return json.dumps(record.configuration, indent=2, ensure_ascii=False, default=str)


def _joined(values: Iterator[str]) -> str:
    return ", ".join(dict.fromkeys(values))


def _differs(name: str, flat: Sequence[Sequence[Mapping[str, str]]]) -> bool:
    return len({run.get(name, ABSENT) for group in flat for run in group}) > 1
