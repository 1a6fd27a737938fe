"""The texts of one table cell, the same on the page and in the terminal."""

from __future__ import annotations

import re
from collections.abc import Sequence

from contrex.report.numbers import (
    Estimate,
    count,
    decimals,
    interval_text,
    number,
    one_digit,
    p_text,
    value_text,
)
from contrex.report.tables import Cell, Column, Difference


def pieces(text: str) -> list[str]:
    """The parts between which a narrow column may break a name: after - _ / and dots, between words, and before
    options.

    >>> pieces("digits_no-negatives (best)"), pieces("rise(seed=1)")
    (['digits_', 'no-', 'negatives ', '(best)'], ['rise(', 'seed=1)'])
    """
    return re.split(r"(?<=[-_/. ])|(?<=\w\()", text)


def heading(column: Column) -> str:
    """Title, unit and the direction that is better."""
    unit = f" ({column.unit})" if column.unit else ""
    return f"{column.title}{unit} {arrow(column)}".rstrip()


def arrow(column: Column) -> str:
    if column.higher_is_better is None:
        return ""
    return "\N{UPWARDS ARROW}" if column.higher_is_better else "\N{DOWNWARDS ARROW}"


def cell_value(cell: Cell) -> str:
    """The value; a mean over seeds has the decimals of its standard deviation."""
    return number(cell.estimate.value, one_digit(cell.deviation)) if cell.is_aggregate else value_text(cell.estimate)


def cell_spread(cell: Cell) -> str:
    """The 95 % interval of one run, or the standard deviation over seeds."""
    if not cell.is_aggregate:
        return interval_text(cell.estimate)
    return f"\N{PLUS-MINUS SIGN} {number(cell.deviation, one_digit(cell.deviation))}"


def cell_count(cell: Cell) -> str:
    """Images counted and skipped, e.g. "n=997, 3 skipped: all-zero map" or "3 seeds, n=1,000 each"."""
    counted = sorted(set(cell.num_counted))
    span = "\N{EN DASH}".join(count(n) for n in ([counted[0], counted[-1]] if len(counted) > 1 else counted))
    skipped = sum(cell.num_skipped)
    reason = f": {cell.skip_reason or 'not defined'}"
    if not cell.is_aggregate:
        return f"n={span}" + (f", {count(skipped)} skipped{reason}" if skipped else "")
    return f"{len(cell.num_counted)} {cell.repeats}, n={span} each" + (
        f", {count(skipped)} skipped in all{reason}" if skipped else ""
    )


def shared_count(cells: Sequence[Cell | None]) -> str:
    """How many images every method counted and skipped; empty where methods differ."""
    texts = {cell_count(cell) for cell in cells if cell is not None}
    return texts.pop() if len(texts) == 1 else ""


def difference_parts(difference: Difference) -> tuple[str, str]:
    """The signed difference, and its interval, which is empty when the images are not the same."""
    estimate: Estimate = difference.estimate
    places = decimals(estimate.half_width)
    return number(estimate.value, places, signed=True), interval_text(estimate, signed=True)


def pairing(cell: Cell) -> str:
    """What a reader must know about the images behind a difference: not the same ones, fewer than the value's, or other
    ones in each episode."""
    if cell.difference is None:
        return ""
    num_pairs = cell.difference.num_pairs
    if cell.difference.over == "episodes":
        return f"over {count(num_pairs)} episodes"
    if not num_pairs:
        return "not paired"
    return f"on {count(num_pairs)} common images" if num_pairs < max(cell.num_counted) else ""


def sign_text(cell: Cell) -> str:
    """The sign test in words, e.g. "sign test: p = 0.031, higher on 70 and lower on 48 of 120 images"; empty without
    one."""
    if cell.difference is None or cell.difference.signs is None:
        return ""
    signs = cell.difference.signs
    counts = f"higher on {count(signs.num_above)} and lower on {count(signs.num_below)}"
    return f"sign test: {p_text(signs.p_value)}, {counts} of {count(cell.difference.num_pairs)} {cell.difference.over}"


def verdict(cell: Cell, column: Column) -> str:
    """ "better" or "worse" than the baseline when the interval excludes zero, otherwise empty."""
    if cell.difference is None or not cell.difference.num_pairs or column.higher_is_better is None:
        return ""
    estimate = cell.difference.estimate
    if not (estimate.low > 0 or estimate.high < 0):
        return ""
    return "better" if (estimate.value > 0) == column.higher_is_better else "worse"
