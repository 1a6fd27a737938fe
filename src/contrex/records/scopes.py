"""Which settings differ between two runs, and which of them matter for what.

A setting is called by its dotted name in a recipe's or a record's plain values (`training.seed`), as `to_plain` gives
them. `SCOPES` says of some what they are about; whoever compares leaves out the scopes that do not matter to him:

| asked | left out |
|---|---|
| is this the record of the same measurement? | `machine`, `reference` |
| may a run go on with this recipe? | `machine`, `reference`, `place`, `measuring` |
| are these two runs of one method? | `machine`, `reference`, `name`, `seed`, `start` |
| are two rows of a table one run? | `reference`, `name`, `measuring` |
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Literal

Scope = Literal["machine", "name", "place", "seed", "start", "progress", "measuring", "each", "reference"]
Plain = Mapping[str, Any]

SCOPES: Mapping[str, Scope] = {
    "device": "machine",
    "workers": "machine",
    "checkpoint_minutes": "machine",
    "name": "name",
    "data.path": "place",
    "labelled.file": "place",
    "labelled.unlabelled": "place",
    "training.seed": "seed",
    "labelled.seed": "seed",
    "evaluation.seed": "seed",
    "model.weights": "start",
    "checkpoint.step": "progress",
    "checkpoint.epochs_done": "progress",
    "checkpoint.sha256": "progress",
    "checkpoint.file": "progress",
    "evaluation": "measuring",
    "explainers": "each",
    "reference": "reference",
}
"""What settings are about: the machine that does the work, what a run is called, where the same files lie, what is
drawn at random, the weights that a run starts from, how far it has come, how it is measured, the paper that it follows.

A dotted name is that setting with all its parts; a word of the machine is a setting of that name wherever it is. The
seed of generated data is none of these: it makes other images."""

SAME_RESULT: frozenset[Scope] = frozenset({"machine", "each", "reference"})
"""What never makes a result another one."""

ANYWHERE: frozenset[Scope] = frozenset({"machine", "each"})
"""The scopes whose names may stand at the end of any dotted name."""


def scopes(name: str) -> set[Scope]:
    """What the setting of a dotted name is about, nothing for most: they make a run what it is.

    >>> sorted(scopes("evaluation.seed")), scopes("data.seed"), scopes("training.workers")
    (['measuring', 'seed'], set(), {'machine'})
    """
    parts = name.split(".")
    found = {SCOPES.get(".".join(parts[:length])) for length in range(1, len(parts) + 1)}
    anywhere = SCOPES.get(parts[-1])
    return {scope for scope in (*found, anywhere if anywhere in ANYWHERE else None) if scope is not None}


def flat(plain: Plain, ignoring: Iterable[str] = (), prefix: str = "") -> Iterator[tuple[str, Any]]:
    """The settings by their dotted names, but for those of the scopes `ignoring`; an empty mapping is a value.

    >>> dict(flat({"training": {"seed": 3, "epochs": 2}}, ignoring={"seed"}))
    {'training.epochs': 2}
    """
    for key, value in plain.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping) and value:
            yield from flat(value, ignoring, f"{name}.")
        elif scopes(name).isdisjoint(ignoring):
            yield name, value


def differing(old: Plain, new: Plain, ignoring: Iterable[str] = SAME_RESULT) -> list[str]:
    """The dotted names of the settings that differ; one that is None differs in nothing from one that is not there.

    Parts of another kind are named as a whole, as their fields mean other things.

    >>> differing({"method": {"kind": "CGC", "weight": 1}}, {"method": {"kind": "GCC", "weight": 25}})
    ['method']
    """
    return [name for name in _differing(old, new, "") if scopes(name).isdisjoint(ignoring)]


def _differing(old: Any, new: Any, name: str) -> Iterator[str]:
    if not (isinstance(old, Mapping) and isinstance(new, Mapping)) or (name and old.get("kind") != new.get("kind")):
        if old != new:
            yield name
        return
    for key in {**new, **old}:
        yield from _differing(old.get(key), new.get(key), f"{name}.{key}".lstrip("."))
