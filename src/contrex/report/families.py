"""Which metrics share a table: those of one entry of `evaluation.metrics`, where it gives several.

Metrics that stand alone share the main table; a family of several has one of its own. Methods are rows where metrics
are few, and metrics are where they are many, so that no table grows wide with what is measured.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from contrex.report.tables import Column, Comparison

MOST_COLUMNS = 7
"""Metrics that stand side by side."""


@dataclass(frozen=True)
class Section:
    """Rows of a table of metrics that belong together; `columns` are metrics, under what sets them apart here."""

    title: str
    columns: Sequence[Column]


@dataclass(frozen=True)
class Family:
    """Metrics of one kind, all methods: `across` has tables of methods x metrics by their captions, `down` the sections
    of one table of metrics x methods. One of the two is empty."""

    name: str
    columns: Sequence[Column]
    across: Mapping[str, Comparison]
    down: Sequence[Section]


def singles(table: Comparison) -> Family:
    """The metrics that are alone in their family, as a family without a name."""
    columns = [column for column in table.columns if len(_members(table, column.family)) == 1]
    if len(columns) > MOST_COLUMNS:
        return Family("", columns, {}, [Section("", columns)])
    return Family("", columns, {"": replace(table, columns=columns)} if columns else {}, ())


def families(table: Comparison) -> list[Family]:
    """The families of several metrics, in order of first appearance."""
    names = dict.fromkeys(column.family for column in table.columns)
    found = {name: _members(table, name) for name in names}
    return [_family(table, name, columns) for name, columns in found.items() if len(columns) > 1]


def _members(table: Comparison, family: str) -> list[Column]:
    return [column for column in table.columns if column.family == family]


def _family(table: Comparison, name: str, columns: Sequence[Column]) -> Family:
    across = _by_fraction(columns)
    if across is None and len(columns) <= MOST_COLUMNS:
        across = {"": shortened(columns)}
    if across is not None:
        return Family(name, columns, {title: replace(table, columns=part) for title, part in across.items()}, ())
    return Family(name, columns, {}, _down(columns))


def _down(columns: Sequence[Column]) -> list[Section]:
    """The sections of metrics whose names have known parts; otherwise one section."""
    for place in (_relative_probability, _gradient_sign):
        placed = [found for column in columns if (found := place(column)) is not None]
        if len(placed) == len(columns):
            return _sections(placed)
    return [Section("", shortened(columns))]


def shortened(columns: Sequence[Column]) -> list[Column]:
    """The columns without what all titles say up to their first comma."""
    heads = {column.title.partition(", ")[0] for column in columns}
    if len(heads) > 1 or any(", " not in column.title for column in columns):
        return list(columns)
    return [_titled(column, column.title.partition(", ")[2]) for column in columns]


def _titled(column: Column, words: str) -> Column:
    return replace(column, title=words[:1].upper() + words[1:])


def _by_fraction(columns: Sequence[Column]) -> dict[str, list[Column]] | None:
    """Drop and increase as in ExCon's Tables 3 to 8: a table per share of pixels kept, the four measures across."""
    parts: dict[str, list[Column]] = {}
    for column in columns:
        if not re.fullmatch(r"(drop|increase)_(percent|magnitude)_\d+(_\d+)?", column.name):
            return None
        measure, _, share = column.title.partition(", ")
        parts.setdefault(share, []).append(_titled(column, measure))
    return parts


_Placed = tuple[str, Column]
"""A section's title and the metric under its title there."""

_BASELINES = {"blur": "rest blurred", "zero": "rest zero", "mean": "rest mean colour"}


def _relative_probability(column: Column) -> _Placed | None:
    """The rows of Tables 1 to 3 of "Why Not Other Classes?": baseline and class, under what is kept."""
    found = re.fullmatch(r"relative_probability(?:_(positive|negative)_(\w+))?_(t1|t2)", column.name)
    if found is None:
        return None
    sign, baseline, target = found.groups()
    if sign is None:
        return "Whole image", replace(column, title=target)
    words = f"{_BASELINES.get(baseline, f'rest {baseline}')}, {target}"
    return f"{sign.capitalize()} features kept", replace(column, title=words)


def _gradient_sign(column: Column) -> _Placed | None:
    """The explanations under each other, for each quantity and size."""
    found = re.fullmatch(r"gradient_sign_(\w+)_(accuracy|logit|probability)_([\d_]+)", column.name)
    if found is None:
        return None
    explanation, quantity, size = found.groups()
    title = f"Change of {quantity}, epsilon {size.replace('_', '.')}"
    return title, replace(column, title=explanation.replace("_", " "))


def _sections(placed: Sequence[_Placed]) -> list[Section]:
    titles = dict.fromkeys(title for title, _ in placed)
    return [Section(title, [column for where, column in placed if where == title]) for title in titles]
