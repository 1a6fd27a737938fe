"""The settings in which two runs differ, and what each setting is about.

A setting has a dotted name (`training.seed`) in the plain values of a recipe or record, as `to_plain` gives them.
`SCOPES` says what some settings are about. Whoever compares two runs leaves out the scopes that do not matter:

| question | scopes left out |
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
    "loggers": "machine",
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
"""What some settings are about: the machine that does the work, the run's name, the place of the same files, what is
drawn at random, the weights that a run starts from, how far it has come, how it is measured, the paper that it repeats.

A dotted name stands for that setting with all its parts. The names of the scopes in `ANYWHERE` count wherever they
stand. The seed of generated data (`data.seed`) is not here: it makes other images."""

SAME_RESULT: frozenset[Scope] = frozenset({"machine", "each", "reference"})
"""The scopes that do not change a result."""

ANYWHERE: frozenset[Scope] = frozenset({"machine", "each"})
"""The scopes whose names may stand at the end of any dotted name."""


def scopes(name: str) -> set[Scope]:
    """The scopes of a setting. Most settings have none: they make a run what it is.

    >>> sorted(scopes("evaluation.seed")), scopes("data.seed"), scopes("training.workers")
    (['measuring', 'seed'], set(), {'machine'})
    """
    parts = name.split(".")
    own = {SCOPES.get(".".join(parts[:length])) for length in range(1, len(parts) + 1)}
    anywhere = SCOPES.get(parts[-1])
    return {scope for scope in (*own, anywhere if anywhere in ANYWHERE else None) if scope is not None}


def flat(plain: Plain, ignoring: Iterable[str] = (), prefix: str = "") -> Iterator[tuple[str, Any]]:
    """The settings by their dotted names, without those in the scopes `ignoring`. An empty mapping counts as a value.

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
    """The dotted names of the settings that differ. None and a missing setting are equal.

    Parts of different kinds are named as a whole, as their fields mean different things.

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
