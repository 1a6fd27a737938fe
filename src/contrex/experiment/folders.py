"""Where a record goes: one folder for each way of measuring, and never over a record of other settings."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from contrex.errors import RecordError
from contrex.records import read_run, to_plain
from contrex.settings import Data, Evaluation, Recipe

MACHINE = frozenset({"device", "workers", "checkpoint_minutes"})
"""Settings that do not make a record another one."""

PROGRESS = frozenset({"checkpoint.step", "checkpoint.epochs_done", "checkpoint.sha256", "checkpoint.file"})
"""How far a run has come: its last checkpoint, measured again later, replaces its record."""

Configuration = Mapping[str, Any]


def record_name(recipe: Recipe, options: Evaluation, data: Data) -> str:
    """The name of a record's folder: `evaluation-SPLIT`, and what differs from the recipe's own evaluation; at most
    120 long."""
    own, asked = to_plain(replace(recipe.evaluation, split=options.split)), to_plain(options)
    parts = [f"{field}={as_word(asked[field])}" for field in different(own, asked)]
    if data != recipe.data:
        parts.append(f"data={as_word(data_name(data))}")
    return "-".join([f"evaluation-{options.split}", *parts])[:120]


def data_name(data: Data) -> str:
    """What a data set is called in a folder's name: its folder's, or its kind's where it has none."""
    path: Path | None = getattr(data, "path", None)
    return type(data).__name__ if path is None else path.name


def record_folder(output: Path | None, default: Path, configuration: Configuration) -> Path:
    """The folder that a record goes to: `output` or the default; where that holds another record, one of its own."""
    folder = default if output is None else output
    recorded = recorded_configuration(folder)
    if recorded is None:
        return folder
    ignored = PROGRESS if "name" in configuration["checkpoint"] else frozenset()
    others = [name for name in different(recorded, configuration) if name not in ignored]
    if not others:
        return folder
    if output is not None:
        raise RecordError(
            f"`output` {output} holds another record, which differs in {listed(others)}: choose another folder."
        )
    settings = {name: value for name, value in _flat(configuration) if name not in ignored}
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()
    return default.with_name(f"{default.name}-{digest[:6]}")


def recorded_configuration(folder: Path) -> Configuration | None:
    """The configuration of the record in `folder`, None without one; empty for a record that cannot be read."""
    if not (folder / "record.json").is_file():
        return None
    try:
        return read_run(folder).record.configuration
    except RecordError:
        return {}


def different(old: Configuration, new: Configuration) -> Iterator[str]:
    """The dotted names of the settings that differ, but for those of the machine."""
    before, after = dict(_flat(old)), dict(_flat(new))
    return (name for name in {**after, **before} if before.get(name) != after.get(name))


def _flat(plain: Configuration, prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in plain.items():
        if isinstance(value, Mapping) and value:
            yield from _flat(value, f"{prefix}{key}.")
        elif key not in MACHINE:
            yield f"{prefix}{key}", value


def as_word(value: object) -> str:
    """A value as a part of a folder's name.

    >>> as_word(["top1", "top5"]), as_word("timm:resnet18"), as_word(None)
    ('top1+top5', 'timm-resnet18', 'None')
    """
    text = "+".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)
    return re.sub(r"[^\w.+=-]+", "-", text)


def listed(names: Sequence[str], most: int = 5) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
