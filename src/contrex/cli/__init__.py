"""The command line: parse, call, print.

`contrex --help` lists the commands, `contrex COMMAND --help` the options of one. Nothing heavy is imported before a
command runs.
"""

from __future__ import annotations

import atexit
import contextlib
import gc
import os
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from contrex._version import __version__
from contrex.cli.completion import completion
from contrex.cli.explain import explain
from contrex.cli.explore import explore
from contrex.cli.export import export
from contrex.cli.inspect import data, doctor, explainers, metrics, recipes
from contrex.cli.measure import compare, evaluate, report
from contrex.cli.options import Arguments
from contrex.cli.reproduce import reproduce
from contrex.cli.retrofit import retrofit
from contrex.cli.train import quickstart, train
from contrex.cli.verify import verify
from contrex.errors import (
    ArgumentError,
    ContrexError,
    GlyphWarning,
    LayerWarning,
    NormalisationWarning,
    printable,
    unknown_name,
    unwrapped,
)

COMMANDS: dict[str, Callable[[Arguments], int]] = {
    "quickstart": quickstart,
    "train": train,
    "retrofit": retrofit,
    "reproduce": reproduce,
    "evaluate": evaluate,
    "explain": explain,
    "explore": explore,
    "verify": verify,
    "export": export,
    "report": report,
    "compare": compare,
    "data": data,
    "recipes": recipes,
    "explainers": explainers,
    "metrics": metrics,
    "doctor": doctor,
    "completion": completion,
}


def main(arguments: Arguments | None = None) -> int:
    """Run one command and return its exit code: 2 for a wrong argument, 3 for a NaN loss, 128 + n after signal n."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    if arguments is None:
        # an interpreter that ends looks through all objects for garbage, which takes a second for torch's
        atexit.register(gc.freeze)
    if not words or words[0] in ("-h", "--help"):
        print(_overview())
        return 0
    if words[0] in ("-V", "--version"):
        print(f"contrex {__version__}")
        return 0
    try:
        if words[0] not in COMMANDS:
            raise unknown_name("the command", words[0], COMMANDS)
        with _warnings_in_words(), _processes(words[0]):
            return COMMANDS[words[0]](words[1:])
    except ContrexError as error:
        print(f"contrex: {printable(unwrapped(error))}", file=sys.stderr)
        return error.exit_code
    except OSError as error:
        told = f"{error.strerror or error}{f': {error.filename}' if error.filename else ''}"
        print(f"contrex: {printable(told)}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("contrex: stopped", file=sys.stderr)
        return 130


@contextlib.contextmanager
def _warnings_in_words() -> Iterator[None]:
    """Print contrex's own warnings as its errors, without a place in the code, while a command runs."""
    shown = warnings.showwarning

    def show(message: Warning | str, category: type[Warning], *place: Any, **options: Any) -> None:
        if issubclass(category, (GlyphWarning, LayerWarning, NormalisationWarning)):
            print(f"contrex: {printable(message)}", file=sys.stderr)
        else:
            shown(message, category, *place, **options)

    with warnings.catch_warnings():
        warnings.showwarning = show
        yield


@contextlib.contextmanager
def _processes(command: str) -> Iterator[None]:
    """Connect the processes that torchrun has started, while a command runs; only the first one prints."""
    if "RANK" not in os.environ or os.environ.get("WORLD_SIZE", "1") == "1":
        yield
        return
    if command not in ("train", "evaluate", "reproduce"):
        raise ArgumentError(
            f"contrex {command} is for one process: start it without torchrun, which runs train, evaluate, reproduce."
        )
    os.environ.setdefault(
        "TORCH_CPP_LOG_LEVEL", "ERROR"
    )  # else torch advises each process to trade exactness for speed
    from contrex import ranks

    with ranks.process_group(), contextlib.ExitStack() as silenced:
        if ranks.rank() > 0:
            nowhere = silenced.enter_context(Path(os.devnull).open("w"))
            silenced.enter_context(contextlib.redirect_stdout(nowhere))
            silenced.enter_context(contextlib.redirect_stderr(nowhere))
        yield


def _overview() -> str:
    lines = [f"  {name:11} {(command.__doc__ or '').splitlines()[0]}" for name, command in COMMANDS.items()]
    head = ["usage: contrex COMMAND [OPTIONS]", "", "Contrastive explanations of image classifiers.", ""]
    foot = ["", "contrex COMMAND --help lists the options of a command; contrex --version prints the version."]
    return "\n".join([*head, *lines, *foot])
