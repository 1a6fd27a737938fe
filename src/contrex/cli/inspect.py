"""The commands that show and list things: `data`, `recipes`, `explainers`, `metrics` and `doctor`."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import tyro

from contrex import settings
from contrex.cli.options import Arguments, Nothing, parsed
from contrex.errors import ArgumentError, printable
from contrex.outside import installed


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


def explainers(arguments: Arguments) -> int:
    """List the explainers and their options."""
    about = "List the explainers with their options and defaults. Set them as in 'rise(num_masks=500, seed=1)'."
    tyro.cli(Nothing, prog="contrex explainers", description=about, args=arguments)
    from contrex.explain import EXPLAINERS
    from contrex.explain.options import default_options

    width = max(map(len, EXPLAINERS))
    for name, kind in EXPLAINERS.items():
        title = (sys.modules[kind.__module__].__doc__ or "").splitlines()[0].rstrip(".")
        options = ", ".join(f"{option}={value!r}" for option, value in default_options(kind).items())
        print(f"  {name:{width}}  {title}{f': {options}' if options else ''}")
    return 0


def metrics(arguments: Arguments) -> int:
    """List the metrics, by the names that `evaluation.metrics` takes."""
    tyro.cli(Nothing, prog="contrex metrics", description="List the metrics.", args=arguments)
    from contrex.evaluation import PROTOCOLS

    _print_listed(PROTOCOLS, "protocols", "metrics")
    print("or FILE.py:NAME, MODULE:NAME: a protocol, a metric, or a function of a group of images")
    return 0


def recipes(arguments: Arguments) -> int:
    """List the recipes."""
    tyro.cli(Nothing, prog="contrex recipes", description="List the recipes.", args=arguments)
    from contrex.recipes import RECIPES

    _print_listed(RECIPES, "recipes")
    print("or FILE.py:NAME, MODULE:NAME: a function that returns a recipe")
    return 0


def _print_listed(own: Mapping[str, object], *groups: str) -> None:
    """Print the names in `own` with their first docstring lines, then the names that installed packages add."""
    words = {name: (thing.__doc__ or "").partition("\n")[0] for name, thing in own.items()}
    words = {**{name: place for group in groups for name, place in installed(group).items()}, **words}
    width = max(map(len, words))
    for name in [*own, *(name for name in words if name not in own)]:
        print(f"  {name:{width}}  {words[name]}")


def doctor(arguments: Arguments) -> int:
    """Tell what this machine can do and what is wrong with it; the exit code is 1 if something is."""
    tyro.cli(Nothing, prog="contrex doctor", description="Tell what this machine can do.", args=arguments)
    from contrex.doctor import examine

    findings = examine()
    for finding in findings:
        print(f"{'ok  ' if finding.ok else 'BAD '} {finding.subject:12} {finding.text}")
    return 0 if all(finding.ok for finding in findings) else 1
