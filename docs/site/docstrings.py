"""Docstrings as Sphinx reads them: contrex writes them in plain Markdown, Sphinx reads reStructuredText.

What differs is changed before napoleon reads the sections: `code` in one pair of backticks, indented lines of code,
tables, lists that begin without an empty line, and signs that mean something in reStructuredText alone.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import groupby
from typing import TYPE_CHECKING

from public import full_names

if TYPE_CHECKING:
    from sphinx.application import Sphinx

SECTION = re.compile(r"^(Args|Returns|Raises|Yields):$")
CODE = re.compile(r"(`[^`]+`)")


def as_rst(lines: list[str]) -> list[str]:
    """The lines of a docstring in reStructuredText.

    >>> as_rst(["The mean of `x_i`.", "", "    mean(x)"])
    ['The mean of ``x_i``.', '', '::', '', '    mean(x)', '']
    """
    return [line for is_code, block in _blocks(lines) for line in [*_block(block, is_code), ""]]


def _blocks(lines: list[str]) -> list[tuple[bool, list[str]]]:
    """Runs of lines without an empty one between them, and whether each is code; code keeps its empty lines."""
    found: list[tuple[bool, list[str]]] = []
    is_section = False  # below "Args:", indented lines are no code
    for has_text, run in groupby(lines, key=lambda line: bool(line.strip())):
        block = list(run)
        if not has_text:
            continue
        is_code = block[0].startswith("    ") and not is_section
        if is_code and found and found[-1][0]:
            found[-1][1].extend(["", *block])
        else:
            found.append((is_code, block))
        heads = [line for line in block if not line.startswith(" ")]
        is_section = bool(SECTION.match(heads[-1])) if heads else is_section
    return found


def _block(block: list[str], is_code: bool) -> list[str]:
    if block[0].startswith(">>>"):
        return block
    if is_code:
        return ["::", "", *block]
    if SECTION.match(block[0]):
        return [block[0], *_text(block[1:])]
    if block[0][0] not in "- " and any(line.startswith("    ") for line in block[1:]):  # a tree of folders
        return ["::", "", *(f"    {line}" for line in block)]
    if block[0].startswith("|"):
        return list(_table(block))
    doctest = next((number for number, line in enumerate(block) if line.startswith(">>>")), len(block))
    return [*_text(list(_spaced(block[:doctest]))), *([""] if doctest < len(block) else []), *block[doctest:]]


def _spaced(block: list[str]) -> Iterator[str]:
    """A list has an empty line before it."""
    in_list = False
    for number, line in enumerate(block):
        is_item = line.startswith("- ")
        if is_item and not in_list and number:
            yield ""
        in_list = is_item or (in_list and line.startswith("  "))
        yield line


def inline(line: str) -> str:
    """One line of a docstring in reStructuredText."""
    return _text([line])[0]


def _text(lines: list[str]) -> list[str]:
    parts = CODE.split("\n".join(lines))
    return "".join(_code(part) if number % 2 else _plain(part) for number, part in enumerate(parts)).split("\n")


def _code(span: str) -> str:
    """Code, or the link to a public name; a line break inside it stays one."""
    name = span[1:-1]
    short = name.removeprefix("contrex.").rpartition(".")[2] if re.fullmatch(r"[\w.]+", name) else ""
    is_word = name.islower() and name.isalpha()  # an argument or plain English rather than a function
    if short and not is_word and full_names().get(short, "").endswith(name):
        return f":py:obj:`{name} <{full_names()[short]}>`"
    return f"`{span}`"


def _plain(text: str) -> str:
    text = re.sub(r"(?<!\*)\*(?!\*)", r"\\*", text)
    text = re.sub(r"(?<=\w)_(?!\w)", r"\\_", text)
    return text.replace("|", r"\|")


def _table(block: list[str]) -> Iterator[str]:
    """A table of Markdown, with its head."""
    yield from (".. list-table::", "   :header-rows: 1", "")
    for line in block:
        cells = [cell.strip() for cell in line.strip().strip("|").split("|")]
        if set("".join(cells)) <= set("-: "):
            continue
        for number, cell in enumerate(cells):
            yield f"{'     ' if number else '   * '}- {inline(cell)}"


def rewrite(app: Sphinx, what: str, name: str, thing: object, options: object, lines: list[str]) -> None:
    """Put the changed lines in the place of a docstring's. Sections are napoleon's to read, but not what stands below a
    field: there it takes all before a colon for a type."""
    from sphinx.ext.napoleon import Config, GoogleDocstring

    rst = as_rst(lines)
    has_sections = what not in ("attribute", "property", "data")
    known = {"app": app, "what": what, "name": name, "obj": thing, "options": options}
    lines[:] = GoogleDocstring(rst, Config(napoleon_use_rtype=False), **known).lines() if has_sections else rst


def setup(app: Sphinx) -> dict[str, bool]:
    """Let the docstrings be changed before others read them."""
    app.setup_extension("sphinx.ext.autodoc")
    app.connect("autodoc-process-docstring", rewrite)
    return {"parallel_read_safe": True}
