"""The commands that show and list things: `data`, `recipes`, `explainers`, `metrics` and `doctor`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import tyro

from contrex import settings
from contrex.cli import listing
from contrex.cli.options import Arguments, parsed
from contrex.errors import ArgumentError, printable


@dataclass(frozen=True)
class ShowData:
    """Say what is in a data set and what is wrong with it, and draw some of its images with their boxes."""

    data: settings.Data
    split: tuple[str, ...] = ()
    """Splits to look at. If none are given, those of train, val and test that the data set has."""
    output: Path | None = None
    """The file of the picture; None is data-NAME-SPLIT.png, or data-KIND-SPLIT.png."""
    num: int = 24
    """How many images are drawn, from as many classes as possible."""
    check: int = 500
    """How many images of each split are read, evenly spread; 0 reads all."""


def data(arguments: Arguments) -> int:
    """Look at a data set before training on it: what is in it, what is wrong, and a contact sheet."""
    if not arguments or arguments[0].startswith("-"):
        print("usage: contrex data PATH|PREFIX:PATH [--split SPLIT ...] [--num N] [--check N] [--data.FIELD VALUE ...]")
        print(f"prefixes: {', '.join(settings.DATA_PREFIXES)}, or FILE.py:NAME of your own; a plain PATH is recognised")
        if arguments and arguments[0] in ("-h", "--help"):
            return 0
        raise ArgumentError("name a data set, as PATH or PREFIX:PATH, before the options.")
    from contrex.data.named import data_named

    default = ShowData(data_named(arguments[0]))
    options = parsed(ShowData, f"data {arguments[0]}", arguments[1:], default=default)
    if options.num < 1 or options.check < 0:
        raise ArgumentError(f"--num {options.num} must be at least 1, and --check {options.check} at least 0.")
    from contrex.data_overview import overview

    shown = overview(options.data, options.split, check=options.check)
    print(printable("\n".join(shown.lines())))
    for output in shown.save_sheets(options.output, num=options.num):
        print(f"picture: {output}")
    return 1 if shown.problems else 0


@dataclass(frozen=True)
class Explainers:
    """List the explainers with their options and defaults. Set them as in 'rise(num_masks=500, seed=1)'."""

    words: tyro.conf.Positional[tuple[str, ...]] = ()
    """Only those with these words in their name, family or description."""


@dataclass(frozen=True)
class Metrics:
    """List the metrics, by the names that --metrics takes."""

    words: tyro.conf.Positional[tuple[str, ...]] = ()
    """Only those with these words in their name, family or description."""


@dataclass(frozen=True)
class Recipes:
    """List the recipes."""

    words: tyro.conf.Positional[tuple[str, ...]] = ()
    """Only those with these words in their name, group or description: contrex recipes cgc imagenet"""


GENERAL = "any of them with augment='flip, scale(0.75, 1.25), times(0.9, 1.1)'; those of a layer with fuse='mean(A, B)'"
"""What `contrex explainers` says of the options of all."""


def explainers(arguments: Arguments) -> int:
    """List the explainers and their options; words choose among them."""
    return _listed(Explainers, listing.explainers, arguments, f"a subclass of contrex.Explainer\n{GENERAL}")


def metrics(arguments: Arguments) -> int:
    """List the metrics, by the names that `evaluation.metrics` takes; words choose among them."""
    return _listed(Metrics, listing.metrics, arguments, "a protocol, a metric, or a function of a group of images")


def recipes(arguments: Arguments) -> int:
    """List the recipes; words choose among them, as in contrex recipes cgc."""
    return _listed(Recipes, listing.recipes, arguments, "a function that returns a recipe")


def _listed(
    kind: type[Explainers | Metrics | Recipes],
    entries: Callable[[], Sequence[listing.Entry]],
    arguments: Arguments,
    outside: str,
) -> int:
    """Print the entries that the words in `arguments` choose, and without words what a name from outside may be."""
    words = tuple(arguments)
    if any(word.startswith("-") for word in words):  # only then there is something to parse, in a tenth of a second
        words = parsed(kind, kind.__name__.lower(), arguments).words
    print("\n".join(listing.lines(listing.chosen(entries(), words, kind.__name__.lower()))).lstrip("\n"))
    if not words:
        print(f"\nor FILE.py:NAME, MODULE:NAME: {outside}")
    return 0


@dataclass(frozen=True)
class Doctor:
    """Tell what this machine can do."""


def doctor(arguments: Arguments) -> int:
    """Tell what this machine can do and what is wrong with it; the exit code is 1 if something is."""
    parsed(Doctor, "doctor", arguments)
    from contrex.doctor import examine

    findings = examine()
    for finding in findings:
        print(f"{'ok  ' if finding.ok else 'BAD '} {finding.subject:12} {finding.text}")
    return 0 if all(finding.ok for finding in findings) else 1
