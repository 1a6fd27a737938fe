"""The papers' tables as experiments: which recipes are their rows, how often each is trained, what is compared.

A table is called by its paper and number, `cgc-table5`; `recipes/published.py` holds its numbers.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cache

from contrex.errors import ArgumentError, unknown_name
from contrex.recipes import RECIPES
from contrex.recipes.published import NUMBERS, Measurement, Number
from contrex.settings import Reference

SOURCES: Mapping[str, str] = {
    "cgc": "Pillai et al., Consistent Explanations by Contrastive Learning, CVPR 2022",
    "cgc-supplement": "Pillai et al., Consistent Explanations by Contrastive Learning, CVPR 2022, supplement",
    "excon": "ExCon: Explanation-driven Supervised Contrastive Learning for Image Classification, 2021",
    "contrast": "Wang and Wang, Why Not Other Classes?, NeurIPS 2022, appendix",
}

TITLES: Mapping[str, str] = {
    "cgc-table1": "ImageNet: accuracy, content heatmap and CGC loss",
    "cgc-table2": "ImageNet: insertion AUC",
    "cgc-table3": "Networks of ImageNet on UnRel's unusual relations",
    "cgc-table4": "ImageNet: content heatmap of contrastive excitation backprop",
    "cgc-table5": "ImageNet: with and without negatives",
    "cgc-table6": "Fine-grained data sets: accuracy",
    "cgc-table7": "Few images a class: accuracy",
    "cgc-table8": "Few images a class: content heatmap",
    "cgc-table9": "One per cent of ImageNet's labels, the rest unlabelled",
    "cgc-table10": "ImageNet: the weight of the consistency loss",
    "cgc-supplement-table1": "ImageNet-100: with and without negatives",
    "excon-table1a": "CIFAR-100: accuracy",
    "excon-table1b": "Tiny-ImageNet: accuracy",
    "excon-table2a": "CIFAR-100: infidelity",
    "excon-table2b": "Tiny-ImageNet: infidelity",
    "excon-table3a": "CIFAR-100, batch 128: drop and increase, 45 % of the pixels kept",
    "excon-table3b": "CIFAR-100, batch 256: drop and increase, 45 % of the pixels kept",
    "excon-table4": "Tiny-ImageNet: drop and increase, 45 % of the pixels kept",
    "excon-table5a": "CIFAR-100, batch 128: drop and increase, 15 % of the pixels kept",
    "excon-table5b": "CIFAR-100, batch 256: drop and increase, 15 % of the pixels kept",
    "excon-table6a": "CIFAR-100, batch 128: drop and increase, 30 % of the pixels kept",
    "excon-table6b": "CIFAR-100, batch 256: drop and increase, 30 % of the pixels kept",
    "excon-table7": "Tiny-ImageNet: drop and increase, 30 % of the pixels kept",
    "excon-table8": "Tiny-ImageNet: drop and increase, 15 % of the pixels kept",
    "contrast-table2": "AlexNet: relative probability under blurring and masking",
    "contrast-table3": "VGG-16-BN: relative probability under equal blurring and masking",
}

BASELINES = ("cross_entropy", "supcon_ori", "cgc")
"""What the other methods of an experiment are compared with: the first of these that the table has."""


@cache  # a table asks for each of its numbers
def reference_of(row: str) -> Reference:
    """What the recipe of a row says of its paper.

    Raises:
        ArgumentError: it says nothing.
    """
    reference = RECIPES[row]().reference
    if reference is None:
        raise ArgumentError(f"the recipe {row} repeats no row of a paper: give it a `reference`.")
    return reference


@dataclass(frozen=True)
class TableLine:
    """A line of a table: one recipe, measured in one way."""

    row: str
    measured: Measurement

    @property
    def experiment(self) -> str:
        """What the lines that are compared with each other have in common."""
        reference = reference_of(self.row)
        if reference.method:
            return reference.experiment
        return f"{reference.experiment} {dict(self.measured.fields)['explainer']}"

    @property
    def method(self) -> str:
        """What sets it apart from the other lines of its experiment."""
        return reference_of(self.row).method or dict(self.measured.fields).get("contrast", "original")


@dataclass(frozen=True)
class PaperTable:
    """One table of one paper."""

    name: str
    title: str
    source: str
    numbers: tuple[Number, ...]

    @property
    def lines(self) -> tuple[TableLine, ...]:
        """In the order of the paper, lines of one experiment together, each experiment's baseline first."""
        found = dict.fromkeys(TableLine(number.row, number.measured) for number in self.numbers)
        experiments = list(dict.fromkeys(line.experiment for line in found))
        place = {line: number for number, line in enumerate(found)}

        def order(line: TableLine) -> tuple[int, bool, int]:
            return experiments.index(line.experiment), line != self._baseline(line.experiment, found), place[line]

        return tuple(sorted(found, key=order))

    def baseline(self, line: TableLine) -> TableLine | None:
        """The line that `line` is compared with, None for that line itself."""
        found = self._baseline(line.experiment, dict.fromkeys(self.lines))
        return None if found == line else found

    def only(self, patterns: tuple[str, ...]) -> PaperTable:
        """The rows whose names match one of `patterns`, in which * stands for anything; all where there are none."""
        kept = [n for n in self.numbers if not patterns or any(fnmatchcase(n.row, pattern) for pattern in patterns)]
        return PaperTable(self.name, self.title, self.source, tuple(kept))

    @staticmethod
    def _baseline(experiment: str, lines: Mapping[TableLine, None]) -> TableLine:
        own = [line for line in lines if line.experiment == experiment]
        named = (line for method in (*BASELINES, "original") for line in own if line.method == method)
        return next(named, own[0])


def trials(row: str) -> int:
    """How many runs of a row the paper averages.

    >>> trials("cub_5_shot_cgc"), trials("cub_cgc"), trials("excon_cifar100"), trials("imagenet_resnet18_cgc")
    (20, 3, 5, 1)
    """
    return reference_of(row).trials


def table_named(name: str) -> PaperTable:
    """The table called `PAPER-tableNUMBER`; underscores may stand for hyphens.

    >>> table_named("cgc-table5").lines[0].row
    'imagenet_resnet18_cgc'
    """
    key = name.replace("_", "-").lower()
    if key not in TITLES:
        raise unknown_name("the table", name, TITLES)
    paper, _, table = key.rpartition("-table")
    numbers = tuple(number for number in NUMBERS if (number.paper, number.table) == (paper, table))
    return PaperTable(key, TITLES[key], f"{SOURCES[paper]}, Table {table}", numbers)


def tables_named(names: tuple[str, ...], rows: tuple[str, ...] = ()) -> list[PaperTable]:
    """Several tables, of which only `rows` (patterns) are wanted.

    Raises:
        UnknownNameError: no such table.
        ArgumentError: no table is named, one twice, or a pattern matches no row of them.
    """
    if not names or len(set(names)) < len(names):
        raise ArgumentError(f"`tables` must name one table or more, each once, got {' '.join(names) or 'none'}.")
    tables = [table_named(name) for name in names]
    known = list(dict.fromkeys(number.row for table in tables for number in table.numbers))
    for pattern in rows:
        if not any(fnmatchcase(row, pattern) for row in known):
            raise unknown_name("`rows`", pattern, known)
    return [table for table in (table.only(rows) for table in tables) if table.numbers]
