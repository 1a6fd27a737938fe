"""The papers' numbers: against the text of the papers where that is there, and against the recipes and metrics."""

from __future__ import annotations

import re

import pytest

from conftest import shared
from contrex.errors import UnknownNameError
from contrex.recipes import RECIPES, cgc, contrast, few_labels, few_shot, fine_grained
from contrex.recipes.published import NUMBERS, PAPERS, published

FILES = {
    "cgc": "cgc.txt",
    "cgc-supplement": "cgc-supplement.txt",
    "excon": "excon.txt",
    "contrast": "class-contrast-appendix.txt",
}
HEADINGS = {
    "1": "Arch Method Top-1",
    "2": "Method Insertion AUC",
    "3": "Model Top-1 Acc (%) CH (%)",
    "4": "Method CH (%) using cMWP",
    "5": "Model ResNet18 ResNet50",
    "6": "Method CUB-200 FGVC-Aircraft",
    "7": "CUB200 Cars196",
    "8": "CUB-200 Cars-196\nMethod",
    "9": "Model Top-1 (%) Top-5 (%)",
    "10": "λ 0 0.01 0.1",
}
"""How the body of each of CGC's tables begins; its caption follows it."""

MISREAD = {"O001": "0.001", "±026": "±0.26", "1e-0Γ": "1e-05"}
"""What the text of ExCon has for three of its deviations."""


def text_of(paper, table):
    """The text of one table, from its first word or caption to what follows it."""
    text = shared("papers", FILES[paper]).read_text(encoding="utf-8")
    caption = f"Table {table.rstrip('ab')}"
    if paper == "cgc":
        body = text[text.index(HEADINGS[table]) :]
        return body[: body.index(f"{caption}.")]
    if paper == "cgc-supplement":
        return text[text.index("Model\tResNet50 ImageNet-100") : text.index(f"{caption}.")]
    body = text[text.index(f"{caption}:") + len(caption) :]
    if paper == "contrast":
        return body[: body.index("G Equal" if table == "2" else "\n18")]
    first, second = (body.find(f"\n({letter})") for letter in "ab")
    if table[-1] in "ab":
        return body[:first] if table[-1] == "a" else body[first:second]
    return body[: re.search(r"\n(?:4\.4|Table|15$)|\Z", body).start()]


def numbers_in(text):
    for read, meant in MISREAD.items():
        text = text.replace(read, meant)
    return [float(word) for word in re.findall(r"(?<![\w.])\d+(?:\.\d+)?(?:e-\d+)?", text)]


def in_reading_order(numbers, table):
    columns = list(dict.fromkeys(number.column for number in numbers))
    if table == "10":  # lambda runs along its columns
        numbers = sorted(numbers, key=lambda number: columns.index(number.column))
    return [value for n in numbers for value in (n.value, n.deviation) if value is not None]


@pytest.mark.parametrize(("paper", "table"), [(paper, table) for paper, tables in PAPERS.items() for table in tables])
def test_every_number_stands_in_its_table_in_this_order(paper, table):
    found = iter(numbers_in(text_of(paper, table)))
    missing = [value for value in in_reading_order(published(paper, table), table) if value not in found]
    assert not missing


def test_the_tables_are_whole():
    """Rows times columns, deviations where the paper prints them."""
    counts = {(paper, table): len(published(paper, table)) for paper, tables in PAPERS.items() for table in tables}
    assert list(counts.values()) == [18, 2, 4, 3, 8, 8, 24, 16, 6, 12, 6, 8, 4, 8, 4, *[16] * 9, 260, 260]
    assert all(n.deviation is not None for n in NUMBERS if n.paper == "excon" or n.table in ("6", "7"))
    assert len({(n.paper, n.table, n.row, n.column, n.measured) for n in NUMBERS}) == len(NUMBERS)


def test_rows_are_recipes_whose_metrics_the_columns_are():
    for number in NUMBERS:
        assert number.metric in RECIPES[number.row]().evaluation.metrics, number
    rows = {number.row for number in NUMBERS}
    for module in (cgc, few_labels, few_shot, fine_grained, contrast):
        assert {name for name, recipe in RECIPES.items() if recipe.__module__ == module.__name__} <= rows


def test_shares_are_scaled_to_percent():
    number = published("excon", "3a")[0]
    assert number.column == "drop_percent_45"
    assert number.in_our_unit == pytest.approx((72.6, 8.1))
    assert published("excon", "3a")[1].scale == 1.0


def test_unknown_tables():
    with pytest.raises(
        UnknownNameError, match="`paper` must be one of cgc, cgc-supplement, excon, contrast; got 'ccg'"
    ):
        published("ccg", "1")
    with pytest.raises(UnknownNameError, match="`table` of contrast must be one of 2, 3; got '1'"):
        published("contrast", "1")
