"""What explainers and metrics there are, read from their source: importing them imports torch, which takes seconds.

What is read are facts that stand there as they are: names, first lines of docstrings, defaults of constructors. A test
compares all of it with the classes themselves.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path

import contrex
from contrex.errors import ArgumentError
from contrex.outside import installed

ROOT = Path(contrex.__file__).parent
OUTSIDE = "of installed packages"
"""The heading of names that installed packages add."""

NO_OPTIONS = {"self", "model", "reshape", "names", "output", "augment", "fuse"}
"""Parameters of constructors that are no options of one explainer, as in `contrex.explain.options`."""


@dataclass(frozen=True)
class Entry:
    """A name that the command line takes, what it stands for, and the family that it belongs to."""

    name: str
    about: str
    family: str


@dataclass(frozen=True)
class Source:
    """The source of one module of contrex."""

    tree: ast.Module

    @property
    def title(self) -> str:
        """The first line of the docstring."""
        return first_line(self.tree)

    @cached_property
    def classes(self) -> Mapping[str, ast.ClassDef]:
        """The classes of the module by name."""
        return {node.name: node for node in self.tree.body if isinstance(node, ast.ClassDef)}

    @cached_property
    def imported(self) -> Mapping[str, str]:
        """The module that each name is imported from."""
        nodes = (node for node in self.tree.body if isinstance(node, ast.ImportFrom) and node.module)
        return {alias.name: node.module or "" for node in nodes for alias in node.names}

    @cached_property
    def values(self) -> Mapping[str, ast.expr]:
        """The values of the module's own names."""
        return assigned(self.tree.body)

    def constant(self, node: ast.expr) -> object:
        """The value of an expression: a literal, or a name that stands for one."""
        if not isinstance(node, ast.Name):
            return ast.literal_eval(node)
        if node.id in self.values:
            return self.constant(self.values[node.id])
        return source(self.imported[node.id]).constant(node)


@cache
def source(module: str) -> Source:
    """The source of a module of contrex, by its name."""
    path = ROOT.joinpath(*module.split(".")[1:])
    file = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    return Source(ast.parse(file.read_text(encoding="utf-8")))


def assigned(body: Sequence[ast.stmt]) -> dict[str, ast.expr]:
    """The values that names are given in the body of a module or a class."""
    found = {}
    for node in body:
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and node.value is not None:
            found[node.target.id] = node.value
        elif isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            found[node.targets[0].id] = node.value
    return found


def first_line(node: ast.Module | ast.ClassDef) -> str:
    """The first line of a docstring."""
    return (ast.get_docstring(node) or "").partition("\n")[0]


def _name(node: ast.ClassDef) -> str | None:
    """The `name` that the body of a class says, or None."""
    value = assigned(node.body).get("name")
    return value.value if isinstance(value, ast.Constant) and isinstance(value.value, str) else None


# --- explainers -----------------------------------------------------------------------------------------------------


def explainers() -> list[Entry]:
    """The explainers with their options, family by family, as `contrex.explain.EXPLAINERS` has them."""
    front = source("contrex.explain")
    public = ast.literal_eval(front.values["__all__"])
    found = []
    for kind in public:
        module = front.imported.get(kind, "")
        name = _name(source(module).classes[kind]) if module and kind in source(module).classes else None
        if name:
            room = _heading(module.rpartition(".")[0])
            options = ", ".join(f"{option}={value!r}" for option, value in default_options(module, kind).items())
            title = source(module).title.rstrip(".")
            found.append(Entry(name, f"{title}: {options}" if options else title, room))
    return [*found, *_installed("explainers")]


def default_options(module: str, kind: str) -> dict[str, object]:
    """The options of an explainer's constructor, its own or the one that it inherits, with their defaults."""
    where, make = _constructor(module, kind)
    given = make.args
    by_place = given.args[len(given.args) - len(given.defaults) :]
    pairs = [*zip(by_place, given.defaults, strict=True), *zip(given.kwonlyargs, given.kw_defaults, strict=True)]
    return {
        one.arg: where.constant(default) for one, default in pairs if default is not None and one.arg not in NO_OPTIONS
    }


def _constructor(module: str, kind: str) -> tuple[Source, ast.FunctionDef]:
    """The `__init__` that a class has, and the source that it stands in."""
    here = source(module)
    for node in here.classes[kind].body:
        if isinstance(node, ast.FunctionDef) and node.name == "__init__":
            return here, node
    for base in here.classes[kind].bases:
        if isinstance(base, ast.Name):
            where = module if base.id in here.classes else here.imported.get(base.id, "")
            if where.startswith("contrex."):
                return _constructor(where, base.id)
    raise LookupError(f"{module}.{kind} has no constructor")


# --- metrics --------------------------------------------------------------------------------------------------------


def metrics() -> list[Entry]:
    """The protocols, module by module, as `contrex.evaluation.PROTOCOLS` has them."""
    order = source("contrex.evaluation.protocols").values["_MODULES"]
    modules = [node.id for node in ast.walk(order) if isinstance(node, ast.Name)]
    found = [entry for module in sorted(modules, key=modules.index) for entry in _protocols(module)]
    return [*found, *_installed("protocols"), *_installed("metrics")]


def _protocols(module: str) -> Iterator[Entry]:
    here = source(f"contrex.evaluation.{module}")
    for node in here.classes.values():
        name = _name(node)
        if name:
            yield Entry(name, first_line(node), module.replace("_", " "))


# --- recipes, and what lists show -----------------------------------------------------------------------------------


def recipes() -> list[Entry]:
    """The recipes, paper by paper or data set by data set; they are imported, as they need no torch."""
    from contrex.recipes import RECIPES

    own = [
        Entry(name, (make.__doc__ or "").partition("\n")[0], _heading(make.__module__))
        for name, make in RECIPES.items()
    ]
    return [*own, *_installed("recipes")]


def _heading(module: str) -> str:
    """What a module has, in a few words: the first line of its docstring, up to a colon."""
    return source(module).title.rstrip(".").partition(": ")[0]


def _installed(group: str) -> list[Entry]:
    return [Entry(name, place, OUTSIDE) for name, place in installed(group).items()]


def chosen(entries: Sequence[Entry], words: Sequence[str], what: str) -> list[Entry]:
    """The entries that have every word in their name, description or family; `what` is the command that lists them.

    Raises:
        ArgumentError: there is none.
    """
    found = [one for one in entries if all(_has(one, word) for word in words)]
    if not found:
        told = " and ".join(map(repr, words))
        raise ArgumentError(f"nothing among the {what} has {told} in it: contrex {what} lists all of them.")
    return found


def _has(entry: Entry, word: str) -> bool:
    words, text = (one.lower().replace("-", "_") for one in (word, f"{entry.name} {entry.about} {entry.family}"))
    return words in text


def lines(entries: Sequence[Entry]) -> Iterator[str]:
    """A heading for each family, and below it a line for each of its names."""
    width = max(len(one.name) for one in entries)
    for family in dict.fromkeys(one.family for one in entries):
        yield f"\n{family}"
        yield from (f"  {one.name:{width}}  {one.about}" for one in entries if one.family == family)
