"""The API reference: a page for each package with public names, made of its docstrings."""

from __future__ import annotations

import ast
import importlib
import inspect
import re
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

from docstrings import as_rst, inline
from public import own_names, packages

CLASS_OPTIONS = ("members:", "undoc-members:", "special-members: __call__", "member-order: bysource")
HEADINGS = {"autoclass": "Classes", "autofunction": "Functions", "data": "Tables and constants"}


def pages() -> Iterator[tuple[Path, str]]:
    """The page of each package, and the list of them."""
    names = [package.__name__ for package in packages()]
    rows = "\n".join(
        f"| [{package.__name__}]({package.__name__}.rst) | {first_line(package)} |" for package in packages()
    )
    yield Path("index.md"), INDEX.format(rows=rows, names="\n".join(names))
    for package in packages():
        yield Path(f"{package.__name__}.rst"), "\n".join(_package(package)) + "\n"


INDEX = """# API reference

What may be relied on: a name that is listed here stays, or keeps an alias that warns. Everything of `contrex.explain`
is in `contrex` too. The commands and their options are on the pages about them, and in `contrex COMMAND --help`.

| package | |
|---|---|
{rows}

```{{toctree}}
:hidden:
{names}
```
"""


def first_line(thing: object) -> str:
    """The first sentence of a docstring, in one line; a full stop inside of code ends none."""
    paragraph = " ".join((inspect.getdoc(thing) or "").partition("\n\n")[0].split())
    match = re.match(r"(?:`[^`]*`|[^`])*?[^\s.]\.(?= [A-Z`]|$)", paragraph)
    return (match[0] if match else paragraph).rstrip(":.")


def _package(package: ModuleType) -> Iterator[str]:
    name = package.__name__
    yield from (name, "=" * len(name), "", f".. automodule:: {name}", "", f".. currentmodule:: {name}", "")
    by_kind: dict[str, list[str]] = {kind: [] for kind in HEADINGS}
    for one in own_names(package):
        by_kind[_kind(getattr(package, one))].append(one)
    for kind, names in by_kind.items():
        if names:
            yield from (HEADINGS[kind], "-" * len(HEADINGS[kind]), "")
            yield from _data(package, names) if kind == "data" else _documented(package, kind, names)


def _kind(thing: object) -> str:
    if inspect.isclass(thing):
        return "autoclass"
    return "autofunction" if inspect.isroutine(thing) else "data"  # a Literal can be called, too


def _documented(package: ModuleType, kind: str, names: list[str]) -> Iterator[str]:
    """A table of the names, then what is known of each."""
    yield from (".. list-table::", "   :class: names", "")
    for name in names:
        yield from (f"   * - :py:obj:`{name}`", f"     - {inline(first_line(getattr(package, name)))}")
    for name in names:
        yield from ("", f".. {kind}:: {name}")
        yield from (f"   :{option}" for option in (CLASS_OPTIONS if kind == "autoclass" else ()))
    yield ""


def _data(package: ModuleType, names: list[str]) -> Iterator[str]:
    """Values: what stands below them in the module that they come from."""
    for name in names:
        yield from (f".. py:data:: {name}", "")
        yield from (f"   {line}" for line in as_rst(_below(package.__name__, name)))


def _below(module: str, name: str) -> list[str]:
    """The docstring of a value, in its module or in the one that it is imported from."""
    from sphinx.pycode import ModuleAnalyzer  # the rest of this file does without Sphinx, for tests

    found = ModuleAnalyzer.for_module(module).find_attr_docs().get(("", name))
    if found:
        return found
    for node in ast.walk(ast.parse(inspect.getsource(importlib.import_module(module)))):
        if isinstance(node, ast.ImportFrom) and name in (alias.asname or alias.name for alias in node.names):
            return _below(str(node.module), name)
    return []
