"""Reading options, naming a data set and printing a summary, for all commands."""

from __future__ import annotations

import contextlib
import io
import os
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, TypeVar

import tyro
from tyro.constructors import ConstructorRegistry, PrimitiveConstructorSpec, PrimitiveTypeInfo

from contrex import settings
from contrex.errors import ArgumentError, printable

if TYPE_CHECKING:
    from rich.console import Console

    from contrex.records import RunRecord

Arguments = Sequence[str]
T = TypeVar("T")
Evaluation = Annotated[settings.Evaluation, tyro.conf.arg(name="")]
"""The evaluation with short option names: `--metrics` instead of `--evaluation.metrics`."""

DATA_HELP = (
    "--data PREFIX:PATH reads another data set, and has the options --data.FIELD of its kind: "
    f"{', '.join(settings.DATA_PREFIXES)}. With --data PATH the folder's layout tells the kind; "
    "--data FILE.py:NAME:PATH reads a data set of your own."
)


WRONG_DATA = "--data takes one data set, PREFIX:PATH or PATH, and is given once; its options follow it."


def named_data(arguments: Arguments) -> tuple[settings.Data | None, Arguments]:
    """The data set that `--data PREFIX:PATH` or `--data PATH` names (None without it), and the other arguments."""
    named, rest = named_data_sets(arguments)
    if len(named) > 1:
        raise ArgumentError(WRONG_DATA)
    return (named[0] if named else None), rest


def named_data_sets(arguments: Arguments) -> tuple[list[settings.Data], Arguments]:
    """The data sets that `--data` names, given any number of times, and the other arguments."""
    names, rest, words = [], [], iter(arguments)
    for word in words:
        if word == "--data":
            names.append(next(words, "-"))
        elif word.startswith("--data="):
            names.append(word.removeprefix("--data="))
        else:
            rest.append(word)
    if not names:
        return [], arguments
    if any(name.startswith("-") for name in names):
        raise ArgumentError(WRONG_DATA)
    from contrex.data.named import data_named

    return [data_named(name) for name in names], rest


def parsed(
    kind: type[T], command: str, arguments: Arguments, *, default: T | None = None, reads_data: bool = False
) -> T:
    """Parse the options of a command. It exits with 2 and a message on an unknown option, with 0 after --help.

    Raises:
        ArgumentError: the dataclass refuses a value. tyro would print that in its own words and exit.
    """
    prog, config, printed = f"contrex {command}", (tyro.conf.AvoidSubcommands,), io.StringIO()
    about = f"{kind.__doc__}\n\n{DATA_HELP}" if reads_data else None
    # tyro colours what goes to a terminal, and knows no NO_COLOR (https://no-color.org): then nothing of it goes there
    shown = io.TextIOWrapper(io.BytesIO(), "utf-8") if os.environ.get("NO_COLOR") else sys.stdout
    try:
        with contextlib.redirect_stderr(printed), contextlib.redirect_stdout(shown), RULES:
            if default is None:
                return tyro.cli(kind, prog=prog, args=arguments, config=config)
            return tyro.cli(kind, prog=prog, args=arguments, default=default, config=config, description=about)
    except SystemExit as stop:
        refusal = _refusal(stop)
        if refusal is not None:
            raise refusal from None
        print(printed.getvalue(), end="", file=sys.stderr)
        if shown is not sys.stdout:
            shown.seek(0)
            print(shown.read(), end="")
        raise


def _refusal(error: BaseException | None) -> ArgumentError | None:
    """The `ArgumentError` that led to `error`, or None."""
    while error is not None and not isinstance(error, ArgumentError):
        error = error.__context__
    return error


RULES = ConstructorRegistry()
"""The rules in which our command line differs from tyro's own."""


@RULES.primitive_rule
def _pairs(info: PrimitiveTypeInfo) -> PrimitiveConstructorSpec[dict[str, str]] | None:
    """Read a dictionary as `KEY VALUE KEY VALUE ...`. It replaces the whole default; without a word it is empty."""
    if info.type != dict[str, str]:
        return None
    return PrimitiveConstructorSpec(
        nargs="*",
        metavar="[KEY VALUE ...]",
        instance_from_str=_paired,
        is_instance=lambda value: isinstance(value, dict),
        str_from_instance=lambda value: [word for pair in value.items() for word in pair],
    )


def _paired(words: Sequence[str]) -> dict[str, str]:
    if len(words) % 2:
        raise ArgumentError(f"options come as KEY VALUE KEY VALUE ...: {words[-1]!r} has no value.")
    return dict(zip(words[::2], words[1::2], strict=True))


def console() -> Console:
    """A console on stderr, so that progress does not mix with the output."""
    from rich.console import Console

    return Console(stderr=True)


def print_summary(runs: Sequence[RunRecord], title: str, names: Sequence[str] = ()) -> None:
    """Print the table of `runs` that compares them with the first; `names` are what its columns are called."""
    from rich.console import Console
    from rich.text import Text

    from contrex.report import summary_table

    table = summary_table(runs, names)
    table.title = Text(printable(title)) if title else None
    Console().print(table)
