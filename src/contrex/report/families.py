"""Which metrics share a table: those of one entry of `evaluation.metrics`, where it gives several.

Metrics that stand alone share the main table; a family of several has one of its own. Methods are rows where metrics
are few, and metrics are where they are many, so that no table grows wide with what is measured.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from contrex.report.tables import Column, Comparison
from contrex.report.words import family_meaning, family_title

MOST_COLUMNS = 7
"""Metrics that stand side by side."""


@dataclass(frozen=True)
class TableSection:
    """Rows of a table of metrics that belong together; `columns` are metrics, under what sets them apart here."""

    title: str
    columns: Sequence[Column]


@dataclass(frozen=True)
class FamilyTables:
    """Metrics of one kind, all methods: `across` has tables of methods x metrics by their captions, `down` the sections
    of one table of metrics x methods. One of the two is empty."""

    title: str
    meaning: str
    columns: Sequence[Column]
    across: Mapping[str, Comparison]
    down: Sequence[TableSection]


def singles(table: Comparison) -> FamilyTables:
    """The metrics that are alone in their family, as a family without a title."""
    columns = [column for column in table.columns if len(_members(table, column.family.name)) == 1]
    if len(columns) > MOST_COLUMNS:
        return FamilyTables("", "", columns, {}, [TableSection("", columns)])
    return FamilyTables("", "", columns, {"": replace(table, columns=columns)} if columns else {}, ())


def families(table: Comparison) -> list[FamilyTables]:
    """The families of several metrics, in order of first appearance."""
    names = dict.fromkeys(column.family.name for column in table.columns)
    found = [_members(table, name) for name in names]
    return [_family(table, columns) for columns in found if len(columns) > 1]


def _members(table: Comparison, family: str) -> list[Column]:
    return [column for column in table.columns if column.family.name == family]


def _family(table: Comparison, columns: Sequence[Column]) -> FamilyTables:
    """A table of methods x metrics for each `MetricFamily.table`, or a single one where the metrics are few; otherwise
    one of metrics x methods in sections."""
    words = family_title(columns[0].family), family_meaning(columns)
    titles = dict.fromkeys(column.family.table for column in columns)
    if any(titles):
        tables = {title: _placed([column for column in columns if column.family.table == title]) for title in titles}
    elif len(columns) <= MOST_COLUMNS:
        tables = {"": shortened(columns)}
    else:
        return FamilyTables(*words, columns, {}, _sections(columns))
    return FamilyTables(*words, columns, {title: replace(table, columns=part) for title, part in tables.items()}, ())


def _sections(columns: Sequence[Column]) -> list[TableSection]:
    titles = dict.fromkeys(column.family.section for column in columns)
    if list(titles) == [""] and not any(column.family.row for column in columns):
        return [TableSection("", shortened(columns))]
    return [
        TableSection(title, _placed([column for column in columns if column.family.section == title]))
        for title in titles
    ]


def _placed(columns: Sequence[Column]) -> list[Column]:
    """The columns under what they are called in their table or section."""
    return [replace(column, title=column.family.row or column.title) for column in columns]


def shortened(columns: Sequence[Column]) -> list[Column]:
    """The columns without what all titles say up to their first comma."""
    heads = {column.title.partition(", ")[0] for column in columns}
    if len(heads) > 1 or any(", " not in column.title for column in columns):
        return list(columns)
    return [_titled(column, column.title.partition(", ")[2]) for column in columns]


def _titled(column: Column, words: str) -> Column:
    return replace(column, title=words[:1].upper() + words[1:])
