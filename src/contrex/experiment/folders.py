"""The folders of records: one for each way of measuring. A record of other settings is never written over."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from contrex.errors import RecordError
from contrex.records import read_run, to_plain
from contrex.records.scopes import SAME_RESULT, differing, flat
from contrex.settings import Data, Evaluation, Recipe

Configuration = Mapping[str, Any]


def record_name(recipe: Recipe, options: Evaluation, data: Data) -> str:
    """The name of the folder for one explainer's record, at most 120 characters.

    It is `evaluation-SPLIT`, followed by the settings that differ from the recipe's own evaluation.
    """
    own, asked = (to_plain(replace(way, split=options.split, explainers=())) for way in (recipe.evaluation, options))
    values = dict(flat(asked))
    parts = [f"{name}={as_word(_value(name, values))}" for name in differing(own, asked)]
    if data != recipe.data:
        parts.append(f"data={as_word(data_name(data))}")
    return "-".join([f"evaluation-{options.split}", *parts])[:120]


def _value(name: str, values: Mapping[str, Any]) -> Any:
    """The value of a setting by its dotted name, or those of its parts."""
    parts = [part for key, part in values.items() if key.startswith(f"{name}.") and not key.endswith(".kind")]
    return parts or values.get(name)


def data_name(data: Data) -> str:
    """The name of a data set in a folder's name: that of its own folder, or of its kind where it has none."""
    return type(data).__name__ if data.location is None else data.location.name


def record_folder(output: Path | None, default: Path, configuration: Configuration, taken: Sequence[Path] = ()) -> Path:
    """The folder for a record: `output`, or `default`.

    If the default is `taken` or holds a record of other settings, six characters are added to its name.

    Raises:
        RecordError: `output` holds a record of other settings.
    """
    folder = default if output is None else output
    recorded = {} if folder in taken else recorded_configuration(folder)
    if recorded is None:
        return folder
    # A record of a run's last checkpoint may be replaced by one of a later checkpoint, so progress may differ.
    ignored = SAME_RESULT | {"progress"} if "name" in configuration["checkpoint"] else SAME_RESULT
    others = differing(recorded, configuration, ignored)
    if not others:
        return folder
    if output is not None:
        raise RecordError(
            f"`output` {output} holds another record, which differs in {listed(others)}: choose another folder."
        )
    settings = json.dumps(dict(flat(configuration, ignored)), sort_keys=True)
    digest = hashlib.sha256(settings.encode()).hexdigest()
    return default.with_name(f"{default.name}-{digest[:6]}")


def recorded_configuration(folder: Path) -> Configuration | None:
    """The configuration of the record in `folder`: None where there is no record, empty where it cannot be read."""
    if not (folder / "record.json").is_file():
        return None
    try:
        return read_run(folder).record.configuration
    except RecordError:
        return {}


def as_word(value: object) -> str:
    """The text of a value as a part of a folder's name.

    >>> as_word(["top1", "top5"]), as_word("timm:resnet18"), as_word("rise(num_masks=200)"), as_word(None)
    ('top1+top5', 'timm-resnet18', 'rise-num_masks=200', 'None')
    """
    text = "+".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)
    return re.sub(r"[^\w.+=-]+", "-", text).rstrip("-")


def listed(names: Sequence[str], most: int = 5) -> str:
    """The first names in a sentence, and how many more there are."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
