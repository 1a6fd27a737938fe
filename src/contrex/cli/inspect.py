"""Commands that look and list: `data`, `recipes`, `explainers`, `metrics` and `doctor`."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

import tyro

from contrex import settings
from contrex.cli.options import Arguments, Nothing, parsed
from contrex.errors import ArgumentError, printable


@dataclass(frozen=True)
class ShowData:
    """Say what a data set holds and what is wrong with it, and draw some of its images with their boxes."""

    data: settings.Data
    split: tuple[str, ...] = ()
    """Splits to look at; none are those of train, val and test that it has."""
    output: Path | None = None
    """Where the picture goes; None is data-NAME-SPLIT.png, or data-KIND-SPLIT.png."""
    num: int = 24
    """How many images are drawn, of as many classes as there are."""
    check: int = 500
    """How many images of each split are read, spread evenly; 0 reads all."""


def data(arguments: Arguments) -> int:
    """Look at a data set before training on it: what is found, what is wrong, a contact sheet."""
    if not arguments or arguments[0].startswith("-"):
        print("usage: contrex data PATH|PREFIX:PATH [--split SPLIT ...] [--num N] [--check N] [--data.FIELD VALUE ...]")
        print(f"prefixes: {', '.join(settings.DATA_PREFIXES)}; a plain PATH is looked at")
        if arguments and arguments[0] in ("-h", "--help"):
            return 0
        raise ArgumentError("name a data set, as PATH or PREFIX:PATH, before the options.")
    from contrex.data.named import data_named

    default = ShowData(data_named(arguments[0]))
    options = parsed(ShowData, f"data {arguments[0]}", arguments[1:], default=default)
    if options.num < 1 or options.check < 0:
        raise ArgumentError(f"--num {options.num} must be at least 1, and --check {options.check} at least 0.")
    from contrex.data_overview import overview

    found = overview(options.data, options.split, check=options.check)
    print(printable("\n".join(found.lines())))
    for output in found.save_sheets(options.output, num=options.num):
        print(f"picture: {output}")
    return 1 if found.problems else 0


def explainers(arguments: Arguments) -> int:
    """List the explainers."""
    tyro.cli(Nothing, prog="contrex explainers", description="List the explainers.", args=arguments)
    from contrex.explain import EXPLAINERS

    width = max(map(len, EXPLAINERS))
    for name, kind in EXPLAINERS.items():
        module = sys.modules[kind.__module__]
        print(f"  {name:{width}}  {(module.__doc__ or '').splitlines()[0]}")
    return 0


def metrics(arguments: Arguments) -> int:
    """List what `evaluation.metrics` may name."""
    tyro.cli(Nothing, prog="contrex metrics", description="List the metrics.", args=arguments)
    from contrex.evaluation import PROTOCOLS

    width = max(map(len, PROTOCOLS))
    for name, kind in PROTOCOLS.items():
        print(f"  {name:{width}}  {(kind.__doc__ or '').splitlines()[0]}")
    return 0


def recipes(arguments: Arguments) -> int:
    """List the recipes."""
    tyro.cli(Nothing, prog="contrex recipes", description="List the recipes.", args=arguments)
    from contrex.recipes import RECIPES

    width = max(map(len, RECIPES))
    for name, recipe in RECIPES.items():
        print(f"  {name:{width}}  {(recipe.__doc__ or '').splitlines()[0]}")
    return 0


def doctor(arguments: Arguments) -> int:
    """Tell what this machine can do and what is wrong with it; exits with 1 when something is."""
    tyro.cli(Nothing, prog="contrex doctor", description="Tell what this machine can do.", args=arguments)
    from contrex.doctor import examine

    findings = examine()
    for finding in findings:
        print(f"{'ok  ' if finding.ok else 'BAD '} {finding.subject:12} {finding.text}")
    return 0 if all(finding.ok for finding in findings) else 1
