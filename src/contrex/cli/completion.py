"""The command `completion`: what a shell offers when a person presses TAB behind `contrex`."""

from __future__ import annotations

import contextlib
import io
import re
from collections.abc import Callable, Iterable, Mapping, Sequence

from contrex.cli import listing
from contrex.cli.options import Arguments
from contrex.errors import ArgumentError, ContrexError

SCRIPTS: Mapping[str, str] = {
    "bash": """\
_contrex() {
    local IFS=$'\\n'
    COMPREPLY=($(contrex completion words "${COMP_WORDS[@]:1:COMP_CWORD}" 2>/dev/null))
}
complete -o default -F _contrex contrex
""",
    "zsh": """\
#compdef contrex
_contrex() {
    local -a found
    found=(${(f)"$(contrex completion words "${(@)words[2,CURRENT]}" 2>/dev/null)"})
    if (( ${#found} )); then compadd -a found; else _files; fi
}
compdef _contrex contrex
""",
    "fish": """\
complete -c contrex -a '(contrex completion words (commandline -opc)[2..-1] (commandline -ct) 2>/dev/null)'
""",
}
"""They ask contrex itself, so that they offer what there is; where it has nothing to offer, files are."""


def completion(arguments: Arguments) -> int:
    """Print what makes TAB complete commands, options and names: for bash, zsh or fish."""
    asked = list(arguments)
    if asked[:1] == ["words"]:
        print("\n".join(completions(asked[1:])))
        return 0
    usage = f"contrex completion {'|'.join(SCRIPTS)}"
    if asked and asked[0] in ("-h", "--help"):
        print(f'usage: {usage}\n\nbash: add to ~/.bashrc the line   eval "$(contrex completion bash)"')
        print('zsh: add to ~/.zshrc, after compinit, the line   eval "$(contrex completion zsh)"')
        print("fish: contrex completion fish > ~/.config/fish/completions/contrex.fish")
        return 0
    if len(asked) != 1 or asked[0] not in SCRIPTS:
        raise ArgumentError(f"name the shell, got {' '.join(asked) or 'nothing'!r}: {usage}")
    print(SCRIPTS[asked[0]], end="")
    return 0


def completions(words: Sequence[str]) -> list[str]:
    """What may stand for the last of `words`, which follow `contrex`; nothing where only files may."""
    *before, last = words or [""]
    return [one for one in dict.fromkeys(_offers(before, last)) if one.startswith(last)]


def _offers(before: Sequence[str], last: str) -> Iterable[str]:
    from contrex.cli import COMMANDS

    if not before:
        return COMMANDS
    option = next((word for word in reversed(before) if word.startswith("--")), None)
    if not last.startswith("-") and (option or before[0]) in _NAMES:
        return _NAMES[option or before[0]]()
    if before[0] not in COMMANDS or (option is None and not last.startswith("-")):
        return ()
    text = _help(COMMANDS[before[0]], before)
    if last.startswith("-"):
        return re.findall(r"(?<![\w-])--[a-z][\w.-]*", text)
    choices = re.search(rf"{re.escape(str(option))}\s+\{{([^}}]+)\}}", text)
    return choices[1].split(",") if choices else ()


def _help(command: Callable[[Arguments], int], before: Sequence[str]) -> str:
    """What the command says of its options; those of a recipe are its own."""
    named = list(before[1:2]) if before[0] == "train" else []
    with contextlib.redirect_stdout(io.StringIO()) as text, contextlib.suppress(SystemExit, ContrexError):
        command([*named, "--help"])
    return text.getvalue()


def _tables() -> Iterable[str]:
    from contrex.recipes.tables import TITLES

    return TITLES


def _names(entries: Callable[[], Sequence[listing.Entry]]) -> Callable[[], Iterable[str]]:
    return lambda: [one.name for one in entries()]


_NAMES: Mapping[str, Callable[[], Iterable[str]]] = {
    "train": _names(listing.recipes),
    "reproduce": _tables,
    "completion": lambda: SCRIPTS,
    **dict.fromkeys(("--explainer", "--explainers", "--method.explainer"), _names(listing.explainers)),
    "--metrics": _names(listing.metrics),
}
"""The names that follow a command or an option."""
