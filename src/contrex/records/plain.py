"""Turning dataclasses into plain values for JSON and back, and writing files that are whole or not there."""

from __future__ import annotations

import dataclasses
import json
import os
import types
import typing
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from contrex.errors import RecordError, unknown_name
from contrex.outside import is_outside, outside, outside_name


def write_atomically(path: Path, content: bytes) -> None:
    """Write `content` to `path`; even after a crash the file is the old one or the whole new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def write_json(path: Path, value: object) -> None:
    """Write `value` (dataclasses, mappings, sequences, paths, scalars) as readable JSON, atomically."""
    text = json.dumps(to_plain(value), indent=2, allow_nan=False, ensure_ascii=False)
    write_atomically(path, f"{text}\n".encode(errors="backslashreplace"))  # a file's name need not be Unicode


def to_plain(value: object) -> Any:
    """The plain values of `value`: dataclasses as dicts (with the class as "kind"), paths as text, NaN and infinity as
    None. A dataclass may say itself how it is written (`written`)."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        names = [f.name for f in dataclasses.fields(value)]
        own = value.written() if hasattr(value, "written") else {name: getattr(value, name) for name in names}
        plain = {name: to_plain(item) for name, item in own.items()}
        return {"kind": kind_name(type(value)), **plain}
    if isinstance(value, Mapping):
        return {str(key): to_plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [to_plain(item) for item in value]
    if isinstance(value, float) and not np.isfinite(value):
        return None
    return value if isinstance(value, (str, int, float, bool, type(None))) else str(value)


def kind_name(kind: type) -> str:
    """The "kind" of a dataclass: its name, or `FILE.py:NAME` for a member of a family from outside of contrex."""
    is_outside = hasattr(kind, "is_family") and kind.__module__.partition(".")[0] != "contrex"
    return outside_name(kind) if is_outside else kind.__name__


def from_plain(plain: Any, kind: Any, *, where: str = "value") -> Any:
    """Build a value of the type `kind` from plain values: the inverse of `to_plain`.

    `kind` may be a dataclass, a union or a family of them (their "kind" tells which), a tuple, dict, literal, path or
    scalar. Types that JSON keeps apart are not converted: "false" is not a bool, and 1.9 is not an int.

    A family is a dataclass with `is_family`; its members derive from it. A "kind" of the form `FILE.py:NAME` loads
    that file, as importing it does.

    Raises:
        RecordError: a field is missing, or a value has another type; `where` names it.
        UnknownNameError: there is no such field or kind.
        ArgumentError: the dataclass itself refuses a value, or the file of a kind cannot be loaded.
    """
    origin, parts = typing.get_origin(kind), typing.get_args(kind)
    if origin in (typing.Union, types.UnionType):
        return _from_union(plain, parts, where)
    if isinstance(kind, type) and "is_family" in vars(kind):
        return _from_family(plain, kind, where)
    if dataclasses.is_dataclass(kind) and isinstance(kind, type):
        return _from_fields(plain, kind, where)
    if origin is tuple:
        return _from_list(plain, parts, where)
    if origin is dict:
        _expect(isinstance(plain, Mapping), where, "names with values", plain)
        return {key: from_plain(value, parts[1], where=f"{where}.{key}") for key, value in plain.items()}
    if origin is typing.Literal:
        _expect(plain in parts, where, f"one of {', '.join(map(str, parts))}", plain)
        return plain
    accepted = {float: (float, int), Path: (str,)}.get(kind, (kind,))
    fits = isinstance(plain, accepted) and (kind is bool or not isinstance(plain, bool))
    _expect(fits, where, getattr(kind, "__name__", str(kind)), plain)
    return kind(plain)


def _expect(ok: bool, where: str, what: str, plain: object) -> None:
    if not ok:
        raise RecordError(f"{where} must be {what}, got {plain!r}.")


def _from_union(plain: Any, kinds: Sequence[Any], where: str) -> Any:
    if plain is None and type(None) in kinds:
        return None
    names = {kind_name(kind): kind for kind in kinds if kind is not type(None)}
    if len(names) == 1:
        return from_plain(plain, *names.values(), where=where)
    _expect(isinstance(plain, Mapping) and "kind" in plain, where, f"fields with the kind {' or '.join(names)}", plain)
    if plain["kind"] not in names:
        raise unknown_name(f"{where}.kind", plain["kind"], names)
    return from_plain(plain, names[plain["kind"]], where=where)


def _from_family(plain: Any, family: type, where: str) -> Any:
    kinds = list(_members(family))
    tag = plain.get("kind") if isinstance(plain, Mapping) else None
    if isinstance(tag, str) and is_outside(tag) and tag not in map(kind_name, kinds):
        named: Any = outside(tag, f"{where}.kind")
        fits = isinstance(named, type) and issubclass(named, family)
        _expect(fits, f"{where}.kind", f"a class that derives from contrex.settings.{family.__name__}", tag)
        return _from_fields({**plain, "kind": kind_name(named)}, named, where)
    return _from_union(plain, kinds, where)


def _members(family: type) -> Iterator[type]:
    """All dataclasses that derive from `family`, without those that only hold shared fields (no implementation)."""
    derived: list[type] = family.__subclasses__()
    for kind in derived:
        if getattr(kind, "implementation", True):
            yield kind
        yield from _members(kind)


def _from_list(plain: Any, parts: Sequence[Any], where: str) -> tuple[Any, ...]:
    """A tuple from a list: of one type and any length, `tuple[int, ...]`, or with a type for each position."""
    _expect(isinstance(plain, (list, tuple)), where, "a list", plain)
    kinds = [parts[0]] * len(plain) if parts[-1] is Ellipsis else parts
    _expect(len(plain) == len(kinds), where, f"a list of {len(kinds)}", plain)
    return tuple(from_plain(value, kind, where=where) for value, kind in zip(plain, kinds, strict=True))


def _from_fields(plain: Any, kind: type, where: str) -> Any:
    fits = isinstance(plain, Mapping) and plain.get("kind", kind_name(kind)) == kind_name(kind)
    _expect(fits, where, f"the fields of {kind.__name__}", plain)
    every = typing.get_type_hints(kind)
    hints = {
        field.name: every[field.name] for field in dataclasses.fields(kind)
    }  # without the hints of class variables
    # Fields that are no more: as they stood unless asked for, they mean nothing.
    formerly = getattr(kind, "formerly", {})
    values = {}
    for name, value in plain.items():
        if name == "kind" or (name in formerly and value == formerly[name]):
            continue
        if name not in hints:
            raise unknown_name(where, name, hints)
        values[name] = from_plain(value, hints[name], where=f"{where}.{name}")
    try:
        return kind(**values)
    except TypeError as error:
        raise RecordError(f"{where}: {error}.") from None
