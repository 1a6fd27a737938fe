"""Reading the text of an explainer with options: `rise`, `rise(num_masks=500, seed=1)`, `mine.py:MyCAM(power=2)`.

Options are keywords with Python literals, as in a call. Python's parser reads them, and nothing is evaluated. The class
is not loaded either, so that a wrong text is refused before anything heavy is imported.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from contrex.errors import ArgumentError

_TEXT = re.compile(r"(?P<name>(?:(?:.+?\.py|[\w.]+):)?\w+)\s*(?:\((?P<options>.*)\))?", re.DOTALL)


@dataclass(frozen=True)
class ExplainerText:
    """An explainer by name, and the options for its constructor."""

    name: str
    options: Mapping[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        given = ", ".join(f"{name}={value!r}" for name, value in self.options.items())
        return f"{self.name}({given})" if given else self.name


EXAMPLE = "rise(num_masks=500, seed=1)"


def read_explainer(text: str, what: str = "`explainer`", example: str = EXAMPLE) -> ExplainerText:
    """Read a name with options; `what` is the argument's name and `example` one that fits, for the error.

    Raises:
        ArgumentError: the text is not a name with options, or an option is not a keyword with a literal, or is given
            twice.

    >>> read_explainer("rise(num_masks=500, keep=0.3)").options
    {'num_masks': 500, 'keep': 0.3}
    >>> str(read_explainer(" lrp( rules = 'epsilon' ) ")), str(read_explainer("mine.py:MyCAM()"))
    ("lrp(rules='epsilon')", 'mine.py:MyCAM')
    """
    match, told = _TEXT.fullmatch(text.strip()), (what, example)
    if match is None:
        if text.strip().isprintable() and "(" not in text:
            return ExplainerText(text)  # no explainer has such a name: the look-up says which there are
        raise _refused(text, told, "it is no name with options")
    options: dict[str, Any] = {}
    for keyword in _keywords(text, match["options"] or "", told):
        if keyword.arg is None or keyword.arg in options:
            raise _refused(text, told, f"{keyword.arg!r} is given twice" if keyword.arg else "** stands for no option")
        try:
            options[keyword.arg] = ast.literal_eval(keyword.value)
        except (ValueError, TypeError):
            wrong = f"{keyword.arg}={ast.unparse(keyword.value)} is no literal"
            raise _refused(text, told, f"{wrong} (a number, 'text', True, None, or a tuple of such)") from None
    return ExplainerText(match["name"], options)


def _keywords(text: str, options: str, told: tuple[str, str]) -> list[ast.keyword]:
    try:
        call = ast.parse(f"_({options})", mode="eval").body
    except (SyntaxError, ValueError) as error:
        raise _refused(text, told, str(error).partition(" (")[0]) from None
    if not isinstance(call, ast.Call) or not isinstance(call.func, ast.Name) or call.args:
        raise _refused(text, told, "each option needs its name")
    return call.keywords


def _refused(text: str, told: tuple[str, str], reason: str) -> ArgumentError:
    what, example = told
    return ArgumentError(f'{what} must be a name, or a name with options as in "{example}"; got {text!r}: {reason}.')
