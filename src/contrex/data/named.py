"""Data sets by name: `cub:PATH` names the kind, `my_data.py:MyData:PATH` one of your own, a plain path is looked at.

    digits                                          the built-in set, which has no path
    folder: cifar: tiny-imagenet: imagenet: cub: aircraft: cars: flowers: food: pets: unrel: voc: coco: hf: shards:
    photos:                                         a folder of photos without labels
    FILE.py:NAME FILE.py:NAME:PATH                  settings in a file, and so for MODULE:NAME
    NAME NAME:PATH                                  settings that an installed package adds (`contrex.data`)

Looking at a folder reads a few names, never an image or a table: what its archive unpacks to tells them apart. Options
beyond the path keep their defaults.
"""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

from contrex.data import reader
from contrex.errors import ArgumentError, DataError
from contrex.outside import find, installed
from contrex.settings import DATA_PREFIXES, Data, Stored

DRIVE = re.compile(r"[A-Za-z]:[\\/]")
"""How a path on Windows begins, which is no prefix."""

OUTSIDE = re.compile(r"(?P<source>.+?\.py|[A-Za-z_][\w.]*):(?P<name>[A-Za-z_]\w*)(:(?P<path>.+))?")
"""A class in a file or a module, perhaps with a path behind it."""

MARKS: dict[str, str] = {
    prefix: mark
    for kind in sorted(dict.fromkeys(DATA_PREFIXES.values()), key=lambda kind: kind.generality)
    for prefix, mark in kind.marks.items()
    if mark
}
"""What each layout is known by, in words, in the order in which they are looked for."""


def data_named(text: str) -> Data:
    """The settings of the data set that `PREFIX:PATH`, `digits`, `FILE.py:NAME:PATH` or a plain path names.

    Raises `UnknownNameError` for an unknown prefix, `ArgumentError` for one without its path, or with one that it does
    not have, and `DataError` for a folder that does not look like any data set.

    >>> data_named("cub:birds/CUB_200_2011").path.as_posix()
    'birds/CUB_200_2011'
    """
    prefix, colon, path = text.partition(":")
    own, outside = DATA_PREFIXES.get(prefix), OUTSIDE.fullmatch(text)
    if own is not None and (colon or not issubclass(own, Stored)):
        return _settings(prefix, path, text)
    if (DRIVE.match(text) and ".py:" not in text) or Path(text).exists():
        return detect(Path(text))
    if outside is not None and _has_source(outside["source"]):
        return _settings(f"{outside['source']}:{outside['name']}", outside["path"] or "", text)
    if colon or prefix in installed("data"):
        return _settings(prefix, path, text)
    return detect(Path(text))


def detect(path: Path) -> Data:
    """The settings of the data set whose layout the folder `path` has.

    Raises `DataError` where there is no folder, or none of the layouts.
    """
    if not path.is_dir():
        raise DataError(f"there is no folder '{path}'. Name a data set as PATH or PREFIX:PATH.")
    for prefix in MARKS:
        if reader(DATA_PREFIXES[prefix]).recognises(path, prefix):
            return _settings(prefix, str(path), f"{prefix}:{path}")
    looked_for = "; ".join(f"{prefix} ({mark})" for prefix, mark in MARKS.items())
    raise DataError(
        f"'{path}' does not look like a data set. Looked for: {looked_for}. Unpack its archive there, name the folder "
        f"that holds it, or say what it is: PREFIX:PATH."
    )


def _settings(name: str, path: str, text: str) -> Data:
    """The settings of the kind `name` at `path`; `text` is what was written, for the error."""
    kind = find(name, "the kind of data in PREFIX:PATH", DATA_PREFIXES, "data")
    if not isinstance(kind, type) or not issubclass(kind, Data):
        raise ArgumentError(f"--data {name} must be a class that derives from contrex.settings.Data, got {kind!r}.")
    if issubclass(kind, Stored):
        if not path:
            raise ArgumentError(f"{text!r} needs a path behind it: {name}:PATH")
        return kind.at(Path(path), name)
    if path:
        raise ArgumentError(f"{kind.__name__} has no path, got {text!r}: name it `{name}`.")
    return kind()


def _has_source(source: str) -> bool:
    """Whether there may be a file or a module of that name, which is then loaded."""
    try:
        return source.endswith(".py") or importlib.util.find_spec(source) is not None
    except (ImportError, ValueError):  # of a package that is not there
        return False
