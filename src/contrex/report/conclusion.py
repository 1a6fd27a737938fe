"""What a comparison found, in words: sentences that are true of its numbers, for whoever does not read tables.

A difference counts where the interval of the paired difference excludes zero. A reason is only given where another
metric of the same records shows it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from contrex.report.cells import cell_value, pairing, verdict
from contrex.report.numbers import NOTHING, count, number
from contrex.report.tables import Cell, Column, Comparison, MethodRow
from contrex.report.words import enumerated, family_title

Outcome = Literal["better", "worse", "rises", "falls", "same", "unpaired"]
CONTENT, AT_SPREAD, SPREAD, INSERTION = "content_heatmap", "content_heatmap_at_spread", "spread", "insertion_auc"
_MOST_NAMED = 3
"""The most metrics of one family that are named one by one."""


@dataclass(frozen=True)
class Finding:
    """One metric of a method beside that of the baseline, and what came out."""

    column: Column
    own: Cell
    other: Cell
    outcome: Outcome

    @property
    def told(self) -> bool:
        """Whether the two are told apart."""
        return self.outcome not in ("same", "unpaired")

    @property
    def fell(self) -> bool:
        """Whether it is told apart, and smaller than the baseline's."""
        return self.told and self.values[0] < self.values[1]

    @property
    def rose(self) -> bool:
        """Whether it is told apart, and larger than the baseline's."""
        return self.told and self.values[0] > self.values[1]

    @property
    def values(self) -> tuple[float, float]:
        """Both values, of the images that both have where these are told apart."""
        change = self.own.difference
        known = None if change is None else change.means
        return known or (self.own.estimate.value, self.other.estimate.value)

    @property
    def numbers(self) -> tuple[str, str]:
        """Both values with their unit, in as few digits as show the difference; where they are of some images only, on
        how many."""
        values, common = self.values, pairing(self.own)
        common = f" {common}" if common.endswith("common images") else ""
        unit = f"\N{NO-BREAK SPACE}{self.column.unit}" if self.column.unit else ""
        return (f"{number(values[0], places(*values))}{unit}", f"{number(values[1], places(*values))}{unit}{common}")

    @property
    def words(self) -> str:
        """The metric with both values: "CGC loss (2.10 instead of 2.44)"."""
        return f"{in_sentence(self.column.title)} ({' instead of '.join(self.numbers)})"


@dataclass(frozen=True)
class Conclusion:
    """What came out for one method: its place among the rows, its name, and sentences."""

    place: int
    name: str
    sentences: Sequence[str]
    is_mixed: bool = False
    """Whether it is better in one metric and worse in another."""


def conclusions(table: Comparison) -> list[Conclusion]:
    """What each method but the first gains and loses against the first; of a single one, its numbers."""
    if len(table.rows) == 1:
        return [Conclusion(0, table.rows[0].group.label, [_alone(table)])] if table.columns else []
    concluded = []
    for place, row in list(enumerate(table.rows))[1:]:
        found = findings(row, table)
        is_mixed = {"better", "worse"} <= {one.outcome for one in found.values()}
        concluded.append(Conclusion(place, row.group.label, _sentences(found, table), is_mixed))
    return concluded


def findings(row: MethodRow, table: Comparison) -> dict[str, Finding]:
    """What came out for each metric that a method and the baseline both have, by its name."""
    found = {}
    for column in table.columns:
        own, other = row.cells[column.name], table.rows[0].cells[column.name]
        values = [one.estimate.value for one in (own, other) if one is not None]
        if own is not None and other is not None and all(map(math.isfinite, values)):
            found[column.name] = Finding(column, own, other, _outcome(own, column))
    return found


def _outcome(own: Cell, column: Column) -> Outcome:
    change = own.difference
    if change is None or math.isnan(change.estimate.low):
        return "unpaired"
    if not change.is_told_apart:
        return "same"
    judged = verdict(own, column)
    if judged in ("better", "worse"):
        return "better" if judged == "better" else "worse"
    return "rises" if change.estimate.value > 0 else "falls"


def places(first: float, second: float) -> int:
    """The fewest decimals that show the difference of two numbers within a tenth of it.

    >>> places(74.43, 55.76), places(0.756, 0.895), places(0.1604, 0.1439)
    (0, 2, 3)
    """
    difference = abs(first - second)
    fit = (n for n in range(12) if abs(abs(round(first, n) - round(second, n)) - difference) <= 0.1 * difference)
    return next(fit, 12) if difference else 0


def in_sentence(title: str) -> str:
    """A title within a sentence: with a small first letter, unless its first word is an abbreviation.

    >>> in_sentence("Insertion AUC"), in_sentence("CGC loss")
    ('insertion AUC', 'CGC loss')
    """
    return title[:1].lower() + title[1:] if title[1:2].islower() or title[1:2] == "-" else title


def _sentences(found: Mapping[str, Finding], table: Comparison) -> list[str]:
    """The sentences on one method, which follow its name and a colon."""
    lists = {outcome: [f for f in found.values() if f.outcome == outcome] for outcome in _WORDS}
    sentences = [_on_content(found), _on_size(found)]
    equal = _equal(found)
    told_of = {SPREAD, *([CONTENT] if sentences[0] else [])}
    if sentences[0] and equal is not None and _at_spread(found):
        told_of.add(equal.column.name)
    for outcome, words in _WORDS.items():
        rest = [f for f in lists[outcome] if f.column.name not in told_of or not (f.told or f.outcome == "unpaired")]
        if rest:
            sentences.append(_list(words, rest, table))
        if outcome == "worse":
            sentences.append(_on_insertion(found))
    if not any(f.told for f in found.values()):
        sentences.insert(0, f"In no number is it told apart from {table.rows[0].group.label}.")
    return [f"{sentence[:1].upper()}{sentence[1:]}" for sentence in sentences if sentence]


_WORDS: dict[Outcome, str] = {
    "better": "Better",
    "worse": "Worse",
    "rises": "Larger, which is neither better nor worse",
    "falls": "Smaller, which is neither better nor worse",
    "same": "Not told apart",
    "unpaired": "Not compared image by image, so not told apart",
}


def _list(words: str, some: Sequence[Finding], table: Comparison) -> str:
    """A sentence on metrics of one outcome. Of a family of many numbers it says how many."""
    parts, sizes = [], {f.column.family.name: 0 for f in some}
    for column in table.columns:
        if column.family.name in sizes:
            sizes[column.family.name] += 1
    for name, size in sizes.items():
        own = [f for f in some if f.column.family.name == name]
        if size > _MOST_NAMED:
            title = in_sentence(family_title(own[0].column.family))
            parts.append(f"{title} (in {count(len(own))} of {count(size)} numbers)")
        else:
            parts += [f.words if f.told else in_sentence(f.column.title) for f in own]
    return f"{words}: {enumerated(parts)}."


def _on_content(found: Mapping[str, Finding]) -> str:
    """How much of the heat lies on the object, and whether maps are better placed or only of another size."""
    content = found.get(CONTENT)
    if content is None or content.outcome not in ("better", "worse"):
        return ""
    is_box = {content.own.region, content.other.region} == {"boxes"}
    first, second = content.numbers
    where = "inside the object's box" if is_box else "on the object"
    return f"it puts {first} of its heat {where} instead of {second}{_at_spread(found)}."


def _at_spread(found: Mapping[str, Finding]) -> str:
    """Whether the content heatmap changed by place or by size, where the content heatmap at equal spread tells."""
    content, equal, spread = found.get(CONTENT), _equal(found), found.get(SPREAD)
    if content is None or equal is None or equal.outcome == "unpaired":
        return ""
    gained = content.outcome == "better"
    if equal.outcome == content.outcome:
        return f", and among maps of equal size {' instead of '.join(equal.numbers)}: {_moved(gained, spread)}"
    # A spread that was measured must have moved in the direction that explains the change.
    if spread is not None and not (spread.fell if gained else spread.rose):
        return ""
    if equal.outcome == "same":
        told = "among maps of equal size the two are not told apart"
    else:
        told = f"among maps of equal size it is {' instead of '.join(equal.numbers)}"
    kind = "smaller, not better placed" if gained else "larger, not worse placed"
    return f": its maps are {kind}, for {told}"


def _equal(found: Mapping[str, Finding]) -> Finding | None:
    """The content heatmap at equal spread, whose name has the spread in it, if there is one alone."""
    several = [one for one in found.values() if one.column.family.name == AT_SPREAD]
    return several[0] if len(several) == 1 else None


def _moved(gained: bool, spread: Finding | None) -> str:
    placed = "better placed" if gained else "worse placed"
    if spread is not None and (spread.fell if gained else spread.rose):
        return f"its maps are {placed}, and not only {'smaller' if gained else 'larger'}"
    return f"its maps are {placed}"


def _on_size(found: Mapping[str, Finding]) -> str:
    """How much of the picture the heatmap covers, if that changed."""
    spread = found.get(SPREAD)
    if spread is None or not spread.told:
        return ""
    word = "smaller" if spread.fell else "larger"
    return f"its maps are {word}: they are spread over {' of the picture instead of '.join(spread.numbers)}."


def _on_insertion(found: Mapping[str, Finding]) -> str:
    """What insertion may have got worse by, where the records show that maps have shrunk."""
    insertion, spread = found.get(INSERTION), found.get(SPREAD)
    if insertion is None or spread is None or insertion.outcome != "worse" or not spread.fell:
        return ""
    return (
        "Insertion gets worse while its maps shrink: a small map ranks the rest of the evidence worse, which insertion "
        "wants early. That may be the reason; the network's answers to changed images are another."
    )


def _alone(table: Comparison) -> str:
    """The numbers of a single method, which is compared with nothing."""
    named = [
        f"{in_sentence(column.title)} {cell_value(cell)}"
        + (f"\N{NO-BREAK SPACE}{column.unit}" if column.unit and cell_value(cell) != NOTHING else "")
        for column in table.columns
        if (cell := table.rows[0].cells[column.name]) is not None
    ]
    more = len(named) - 2 * _MOST_NAMED
    told = named[: 2 * _MOST_NAMED] + ([f"{more} more"] if more > 0 else [])
    return f"There is no other to compare it with. It has {enumerated(told)}."
