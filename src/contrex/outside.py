"""Things from outside of contrex: `FILE.py:NAME`, `MODULE:NAME`, or a name that an installed package adds.

A package adds names by entry points, with a group for each kind of thing (`contrex.explainers`, `contrex.protocols`):

    [project.entry-points."contrex.explainers"]
    my_cam = "my_package.cams:MyCAM"

To name something is to load its file, as an import does. Nothing else is loaded.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
import zlib
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any, SupportsIndex

from contrex.errors import ArgumentError, unknown_name

_SOURCE = "__contrex_source__"
"""The attribute of a module loaded from a file with the path as the user wrote it, which records keep."""


def is_outside(name: str) -> bool:
    """Whether `name` has the form `FILE.py:NAME` or `MODULE:NAME`.

    >>> is_outside("mean_teacher.py:MeanTeacher"), is_outside("digits_cgc")
    (True, False)
    """
    return ":" in name


def outside(name: str, what: str) -> object:
    """Load what `FILE.py:NAME` or `MODULE:NAME` names; a file is loaded once. `what` is the argument, for the error.

    Raises:
        ArgumentError: the file or module cannot be loaded, or has nothing of that name.
    """
    source, _, attribute = name.rpartition(":")
    try:
        module = _from_file(source) if source.endswith(".py") else importlib.import_module(source)
    except (ImportError, OSError, ValueError) as error:
        raise ArgumentError(f"{what} {name!r} cannot be loaded from {source}: {error}") from None
    if not hasattr(module, attribute):
        raise ArgumentError(f"{what} {name!r}: {source} has nothing called {attribute!r}.")
    return getattr(module, attribute)


def find(name: str, what: str, own: Mapping[str, object], group: str) -> object:
    """Find what `name` means: a thing in `own`, one that an installed package adds, or `FILE.py:NAME`.

    `what` is the argument, for the error. `group` is the group of the entry points, without "contrex.".

    Raises:
        UnknownNameError: nothing has that name.
        ArgumentError: a file, module or package cannot be loaded, or lacks the name.

    >>> find("one", "`number`", {"one": 1}, "numbers")
    1
    """
    if is_outside(name):
        return outside(name, what)
    if name in own:
        return own[name]
    added = installed(group)
    if name not in added:
        raise unknown_name(what, name, [*own, *added])
    return outside(added[name], what)


@cache  # reading the metadata of all packages takes tenths of a second
def installed(group: str) -> Mapping[str, str]:
    """List the names that installed packages add to a group, each with the `MODULE:NAME` that it stands for."""
    import importlib.metadata  # which itself takes a twentieth of a second

    return {point.name: point.value for point in importlib.metadata.entry_points(group=f"contrex.{group}")}


def outside_name(kind: type) -> str:
    """The name by which `outside` finds a class again."""
    module = sys.modules[kind.__module__]
    source = getattr(module, _SOURCE, None)
    if source is None and kind.__module__ == "__main__":
        source = getattr(module, "__file__", None)  # the file of a script can be loaded again, "__main__" cannot
    return f"{source or kind.__module__}:{kind.__qualname__}"


def is_from_file(kind: type) -> bool:
    """Whether `outside` has loaded a class from a file, which no other process can import."""
    return hasattr(sys.modules.get(kind.__module__), _SOURCE)


class FromAnywhere:
    """A base that lets objects be pickled for other processes, even if their class is from a file."""

    def __reduce_ex__(self, protocol: SupportsIndex) -> str | tuple[Any, ...]:
        if not is_from_file(type(self)):
            return super().__reduce_ex__(protocol)
        return remade, (outside_name(type(self)), vars(self))  # other processes load the file for themselves


def remade(name: str, fields: Mapping[str, Any]) -> object:
    """Make an instance of the class called `name` with these fields again, in another process."""
    kind: Any = outside(name, "the class")
    instance = object.__new__(kind)
    vars(instance).update(fields)
    return instance


def _from_file(source: str) -> ModuleType:
    path = Path(source).resolve()
    main = sys.modules.get("__main__")
    if main is not None and Path(getattr(main, "__file__", None) or ".").resolve() == path:
        return main  # the script that runs: loaded again, its classes would be different ones
    name = f"contrex_outside_{path.stem}_{zlib.crc32(str(path).encode()):08x}"
    if name in sys.modules:
        return sys.modules[name]
    specification = importlib.util.spec_from_file_location(name, path)
    if specification is None or specification.loader is None:
        raise ImportError("it is no Python file")
    module = importlib.util.module_from_spec(specification)
    setattr(module, _SOURCE, source)
    sys.modules[name] = module  # dataclasses look their module up there
    try:
        specification.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module
