"""Classes by name."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from contrex.errors import ArgumentError, DataError, unknown_name
from contrex.settings.contrast import CONTRAST_NAMES


def imagenet_names() -> tuple[str, ...]:
    """The 1000 class names of ImageNet, which come with torchvision."""
    from torchvision.models import ResNet50_Weights

    return tuple(ResNet50_Weights.IMAGENET1K_V1.meta["categories"])


@cache
def _imagenet_synonyms() -> tuple[str, ...]:
    """The names of ImageNet's classes with their synonyms, "tabby, tabby cat", which come with timm; none without."""
    found = find_spec("timm")  # its files are read without importing it, which takes seconds
    folders = [] if found is None else list(found.submodule_search_locations or ())
    if not folders:
        return ()
    files = [Path(folders[0]) / "data" / "_info" / f"imagenet_{part}.txt" for part in ("synsets", "synset_to_lemma")]
    if not all(map(Path.is_file, files)):
        return ()
    synsets, lemmas = (file.read_text(encoding="utf-8").splitlines() for file in files)
    names = dict(line.split("\t", 1) for line in lemmas)
    own = imagenet_names()
    return tuple(
        ", ".join(dict.fromkeys([name, *(part.strip() for part in names.get(synset, name).split(","))]))
        for name, synset in zip(own, synsets, strict=True)
    )


Names = Sequence[str] | Mapping[int, str] | str
"""Names of classes: one for each, by its index (a configuration's `id2label`), or `"imagenet"`."""


def checked_names(names: Names | None) -> tuple[str, ...]:
    """Names in the order of their classes; none for None.

    Raises:
        ArgumentError: they are no texts, or not one for each class from 0 on.
    """
    if names is None:
        return ()
    if isinstance(names, str):
        if names != "imagenet":
            raise ArgumentError(f"`names` must be a list of names, or 'imagenet'; got {names!r}.")
        return imagenet_names()
    if isinstance(names, Mapping):
        if set(names) != set(range(len(names))):
            raise ArgumentError(f"`names` must have each class from 0 to {len(names) - 1}, got {list(names)[:5]}...")
        names = [names[index] for index in range(len(names))]
    found = tuple(names)
    wrong = [name for name in found if not isinstance(name, str)]
    if wrong:
        raise ArgumentError(f"`names` must be texts, got {wrong[0]!r}.")
    return found


def class_names(num_classes: int) -> tuple[str, ...]:
    """Names for a classifier that brings none: ImageNet's for 1000 classes, otherwise the indices as text."""
    return imagenet_names() if num_classes == 1000 else tuple(str(index) for index in range(num_classes))


def check_order(names: Sequence[str], classes: Sequence[str], images: str) -> None:
    """Refuse `images` of `classes` for a network that has classes of these names at other places: labels would be read
    as other classes. A name that one of them has not, or has twice, tells nothing.

    Raises:
        DataError: a class is at another place.
    """
    theirs = _places(classes)
    for name, place in _places(names).items():
        if theirs.get(name, place) != place:
            raise DataError(
                f"{images} has '{name}' as class {theirs[name]}, the network as class {place}, so labels would be read "
                "as other classes: order them with `data.classes`, or give the folder a labels.csv with the network's "
                "class indices and a classes.txt with its names."
            )


def _places(names: Sequence[str]) -> Mapping[str, int]:
    """The place of each name that is there once."""
    times = Counter(names)
    return {name: place for place, name in enumerate(names) if times[name] == 1}


def class_index(text: str, names: Sequence[str], *, what: str = "`target`") -> int:
    """The class that `text` means: an index, a name, or one of a name's synonyms ("goldfish, Carassius auratus").

    Raises:
        ArgumentError: an index is out of range, or several classes share the name (ImageNet has two cranes).
        UnknownNameError: no class has that name; the message lists the nearest.

    >>> class_index("Tiger cat", ["tabby, tabby cat", "tiger cat"])
    1
    """
    # A class may be called "7": a name goes before an index.
    if text.isdecimal() and text not in names:
        if int(text) >= len(names):
            raise ArgumentError(f"{what} must be a class between 0 and {len(names) - 1} or a name, got {text}.")
        return int(text)
    wanted = text.strip().lower()
    found = [index for index, name in enumerate(names) if wanted in _synonyms(name)]
    known = [synonym for name in names for synonym in _synonyms(name)]
    if "contrast" in what:
        known = [*CONTRAST_NAMES, *known]
    if not found and len(names) == 1000 and tuple(names) == imagenet_names():
        names = _imagenet_synonyms() or names  # "tabby cat" is the tabby
        found = [index for index, name in enumerate(names) if wanted in _synonyms(name)]
    if not found:
        raise unknown_name(what, text, known, near=_with_word(wanted, names))
    if len(found) > 1:
        raise ArgumentError(f"{what} {text!r} names several classes, {found}: pass the index of one of them.")
    return found[0]


def by_name(value: Any, names: Sequence[str], what: str) -> Any:
    """`value` with each name in it, alone or in lists, as the index of its class; what is no text stays as it is.

    Raises:
        ArgumentError: there are no names, or several classes share one.
        UnknownNameError: no class has a name; the message lists the nearest.
    """
    if isinstance(value, str):
        if not names:
            raise ArgumentError(f"{what} {value!r} is a name, and the explainer knows none: pass it `names=`.")
        return class_index(value, names, what=what)
    if isinstance(value, (list, tuple)):
        return [by_name(one, names, what) for one in value]
    return value


def _with_word(wanted: str, names: Sequence[str]) -> list[str]:
    """The names that have a text as a word of theirs: "cat" is one of "tiger cat", and not of "crate"."""
    word = re.compile(rf"(?<!\w){re.escape(wanted)}(?!\w)")
    return [part for name in names for part in map(str.strip, name.split(",")) if wanted and word.search(part.lower())]


def _synonyms(name: str) -> list[str]:
    lowered = name.lower()
    return list(dict.fromkeys([lowered, *(part.strip() for part in lowered.split(","))]))
