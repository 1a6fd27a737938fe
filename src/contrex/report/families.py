"""The tables of metrics: a family of several metrics has its own, and metrics that stand alone share the main one.

A family is what one entry of `evaluation.metrics` gives. Where the metrics are few, methods are the rows; where they
are many, metrics are the rows, so that no table grows too wide.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from contrex.report.tables import Column, Comparison
from contrex.report.words import family_meaning, family_title

MOST_COLUMNS = 7
"""The most metrics that stand side by side."""


@dataclass(frozen=True)
class TableSection:
    """Rows of a table of metrics that belong together. Each of the `columns` is a row, named as in this section."""

    title: str
    columns: Sequence[Column]


@dataclass(frozen=True)
class FamilyTables:
    """The tables of one family, for all methods.

    `across` has tables of methods x metrics by their captions, `down` the sections of one table of metrics x methods.
    One of the two is empty.
    """

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
    several = [_members(table, name) for name in names]
    return [_family(table, columns) for columns in several if len(columns) > 1]


def _members(table: Comparison, family: str) -> list[Column]:
    return [column for column in table.columns if column.family.name == family]


def _family(table: Comparison, columns: Sequence[Column]) -> FamilyTables:
    """The tables of one family: a table for each `MetricFamily.table`, a single one for few metrics, or sections."""
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
    """The columns with the titles that they have in their table or section."""
    return [replace(column, title=column.family.row or column.title) for column in columns]


def shortened(columns: Sequence[Column]) -> list[Column]:
    """The columns with shorter titles: without the words before the first comma, where all have the same."""
    heads = {column.title.partition(", ")[0] for column in columns}
    if len(heads) > 1 or any(", " not in column.title for column in columns):
        return list(columns)
    return [_titled(column, column.title.partition(", ")[2]) for column in columns]


def _titled(column: Column, words: str) -> Column:
    return replace(column, title=words[:1].upper() + words[1:])
