"""The papers' tables as experiments: which recipes are the rows, how often each is trained, what is compared.

A table is named by its paper and number, as in `cgc-table5`. Its numbers are in `recipes/published.py`.
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
"""The methods that the others are compared with: in each experiment the first of these that it has."""


@cache  # asked for each number of a table
def reference_of(row: str) -> Reference:
    """The reference of the recipe that is a row.

    Raises:
        ArgumentError: the recipe has no reference.
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
        """The name of its experiment, which it shares with the lines that it is compared with."""
        reference = reference_of(self.row)
        if reference.method:
            return reference.experiment
        return f"{reference.experiment} {dict(self.measured.fields)['explainer']}"

    @property
    def method(self) -> str:
        """The name of what sets it apart from the other lines of its experiment."""
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
        """The lines in the order of the paper, but those of one experiment together, its baseline first."""
        own = dict.fromkeys(TableLine(number.row, number.measured) for number in self.numbers)
        experiments = list(dict.fromkeys(line.experiment for line in own))
        place = {line: number for number, line in enumerate(own)}

        def order(line: TableLine) -> tuple[int, bool, int]:
            return experiments.index(line.experiment), line != self._baseline(line.experiment, own), place[line]

        return tuple(sorted(own, key=order))

    def baseline(self, line: TableLine) -> TableLine | None:
        """The line that `line` is compared with; None if `line` is the baseline."""
        baseline = self._baseline(line.experiment, dict.fromkeys(self.lines))
        return None if baseline == line else baseline

    def only(self, patterns: tuple[str, ...]) -> PaperTable:
        """The table with the rows whose names match one of `patterns` (* stands for anything), all without patterns."""
        kept = [n for n in self.numbers if not patterns or any(fnmatchcase(n.row, pattern) for pattern in patterns)]
        return PaperTable(self.name, self.title, self.source, tuple(kept))

    @staticmethod
    def _baseline(experiment: str, lines: Mapping[TableLine, None]) -> TableLine:
        own = [line for line in lines if line.experiment == experiment]
        named = (line for method in (*BASELINES, "original") for line in own if line.method == method)
        return next(named, own[0])


def trials(row: str) -> int:
    """The number of runs of a row that the paper averages.

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
    """The tables called `names`, with only the rows that match one of the patterns `rows`.

    Raises:
        UnknownNameError: there is no such table, or a pattern matches no row.
        ArgumentError: no table is named, or one is named twice.
    """
    if not names or len(set(names)) < len(names):
        raise ArgumentError(f"`tables` must name one table or more, each once, got {' '.join(names) or 'none'}.")
    tables = [table_named(name) for name in names]
    known = list(dict.fromkeys(number.row for table in tables for number in table.numbers))
    for pattern in rows:
        if not any(fnmatchcase(row, pattern) for row in known):
            raise unknown_name("`rows`", pattern, known)
    return [table for table in (table.only(rows) for table in tables) if table.numbers]
