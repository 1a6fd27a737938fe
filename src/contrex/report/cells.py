"""The texts of table cells, the same on the page and in the terminal."""

from __future__ import annotations

import re
from collections.abc import Sequence

from contrex.report.numbers import (
    Estimate,
    count,
    decimals,
    interval_text,
    number,
    p_text,
    value_text,
)
from contrex.report.tables import Cell, Column, Difference


def pieces(text: str) -> list[str]:
    """The parts of a name between which a narrow column may break it: after - _ / . and spaces, and before options; not
    within a number.

    >>> pieces("digits_no-negatives (best)"), pieces("rise(seed=1)"), pieces("net.layer.3: 18.7")
    (['digits_', 'no-', 'negatives ', '(best)'], ['rise(', 'seed=1)'], ['net.', 'layer.', '3: ', '18.7'])
    """
    return re.split(r"(?<=[-_/ ])|(?<=\D\.)|(?<=\.)(?!\d)|(?<=\w\()", text)


def heading(column: Column) -> str:
    """The heading of a metric: title, unit, and an arrow in the direction that is better."""
    unit = f" ({column.unit})" if column.unit else ""
    return f"{column.title}{unit} {arrow(column)}".rstrip()


def arrow(column: Column) -> str:
    """An arrow up where higher is better, down where lower is, empty where neither."""
    if column.higher_is_better is None:
        return ""
    return "\N{UPWARDS ARROW}" if column.higher_is_better else "\N{DOWNWARDS ARROW}"


def cell_value(cell: Cell) -> str:
    """The value as text, with the decimals of its metric. A mean over seeds has as many as its standard deviation."""
    return value_text(cell.estimate, cell.own_places if cell.places is None else cell.places)


def cell_spread(cell: Cell) -> str:
    """The 95 % interval of one run, or the standard deviation over seeds, as text."""
    if not cell.is_aggregate:
        return interval_text(cell.estimate, cell.places)
    places = cell.own_places if cell.places is None or not cell.deviation else cell.places
    return f"\N{PLUS-MINUS SIGN} {number(cell.deviation, places)}"


def cell_count(cell: Cell) -> str:
    """How many images were counted and skipped: "n=997, 3 skipped: all-zero map" or "3 seeds, n=1,000 each"."""
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
    """How many images all methods counted and skipped; empty where they differ in it."""
    texts = {cell_count(cell) for cell in cells if cell is not None}
    return texts.pop() if len(texts) == 1 else ""


def difference_parts(difference: Difference) -> tuple[str, str]:
    """The signed difference and its interval as texts; without common images the interval is empty."""
    estimate: Estimate = difference.estimate
    places = decimals(estimate.half_width) if difference.places is None else difference.places
    return number(estimate.value, places, signed=True), interval_text(estimate, difference.places, signed=True)


def pairing(cell: Cell) -> str:
    """What a reader must know of the pairs behind a difference: that they are episodes, too few images, or none."""
    if cell.difference is None:
        return ""
    num_pairs = cell.difference.num_pairs
    if cell.difference.over == "episodes":
        return f"over {count(num_pairs)} episodes"
    if not num_pairs:
        return "not paired"
    most = max(*cell.num_counted, cell.difference.num_counted)
    return f"on {count(num_pairs)} common images" if num_pairs < most else ""


def sign_text(cell: Cell) -> str:
    """The sign test in words, empty without one: "higher on 70, lower on 48 images, p = 0.031"."""
    if cell.difference is None or cell.difference.signs is None:
        return ""
    signs = cell.difference.signs
    p_value = p_text(signs.p_value).replace(" ", "\N{NO-BREAK SPACE}")
    counts = f"higher on {count(signs.num_above)}, lower on {count(signs.num_below)} {cell.difference.over}"
    return f"{counts}, {p_value}"


def verdict(cell: Cell, column: Column) -> str:
    """The word "better" or "worse" where the interval of the difference excludes zero, otherwise empty."""
    if cell.difference is None or not cell.difference.is_told_apart or column.higher_is_better is None:
        return ""
    return "better" if (cell.difference.estimate.value > 0) == column.higher_is_better else "worse"
