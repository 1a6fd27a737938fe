"""The work behind tables: which recipes with which seeds, and how each run is measured.

Rows that are the same run are trained once: the same row of several tables, or, at the tiny scale, rows whose networks
and data sets become the same. Only metrics for which the tables have numbers are measured.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Literal

from contrex.data.labelled import training_images
from contrex.errors import ArgumentError, DataError, WeightsError
from contrex.recipes import RECIPES
from contrex.recipes.published import Measurement
from contrex.recipes.tables import SOURCES, PaperTable, TableLine, reference_of, trials
from contrex.recipes.tiny import NOTES, fitted, tiny, with_epochs
from contrex.records import to_plain
from contrex.records.scopes import flat
from contrex.settings import DATA_PREFIXES, Data, Evaluation, Model, Recipe, Stored

Scale = Literal["paper", "tiny"]


@dataclass(frozen=True)
class Order:
    """The tables to run, and how.

    `data` are the data sets that the user has. At the tiny scale there is one at most, and all rows use it, as they use
    `model`. `weights` is the folder of the weights files that recipes name. With None, seeds and epochs are the
    paper's; at the tiny scale there is one seed.
    """

    tables: Sequence[PaperTable]
    scale: Scale = "paper"
    data: Sequence[Data] = ()
    model: Model | None = None
    weights: Path | None = None
    seeds: int | None = None
    epochs: int | None = None
    limit: int | None = None
    """Measure on the first images only."""
    workers: int | None = None
    device: str = "auto"

    def __post_init__(self) -> None:
        for name in ("seeds", "epochs", "limit"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ArgumentError(f"`{name}` must be at least 1, got {value}.")
        if self.scale == "tiny" and len(self.data) > 1:
            raise ArgumentError(
                f"`data` is one data set for all rows at the scale tiny, got {len(self.data)}: name one."
            )
        if self.scale == "tiny" and self.weights is not None:
            raise ArgumentError("`weights` is for the scale paper: at the scale tiny give `model.weights` a file.")
        if self.scale == "paper" and self.model is not None:
            raise ArgumentError("`model` is for the scale tiny: at the scale paper each row has the paper's network.")


@dataclass(frozen=True)
class Measured:
    """One way of measuring a run; `data` is None for the run's own."""

    evaluation: Evaluation
    data: Data | None = None


@dataclass
class Work:
    """One recipe to train with every seed, and the ways to measure each run."""

    recipe: Recipe
    seeds: int
    measurements: list[Measured] = field(default_factory=list)

    def settle(self) -> None:
        """Put ways of measuring on the run's own data first, and make the first of them the recipe's own evaluation.

        If there is none, it measures accuracy alone.
        """
        self.measurements.sort(key=lambda measured: measured.data is not None)
        if self.measurements[0].data is not None:
            self.measurements.insert(0, Measured(replace(self.recipe.evaluation, metrics=("top1",))))
        self.recipe = replace(self.recipe, evaluation=self.measurements[0].evaluation)

    def recipes(self) -> Iterator[Recipe]:
        """The recipe with each seed."""
        for seed in range(self.seeds):
            yield replace(self.recipe, training=replace(self.recipe.training, seed=seed))


@dataclass(frozen=True)
class Ordered:
    """All works. `places` has, for each line of each table, the indices of its work and of its way of measuring."""

    works: Sequence[Work]
    places: Mapping[tuple[str, TableLine], tuple[int, int]]
    notes: Mapping[str, Sequence[str]]
    """What does not follow the paper, by heading."""


def ordered(order: Order) -> Ordered:
    """The works that `order` asks for.

    Raises:
        DataError: a data set that a row needs was not named, and is not at the path in its recipe.
        WeightsError: a weights file that a row starts from is not there.
    """
    lines = [(table, line) for table in order.tables for line in table.lines]
    prepared = {line.row: _prepared(order, RECIPES[line.row]()) for _, line in lines}
    _check_present(order, prepared, [line.measured for _, line in lines])
    works: dict[str, Work] = {}
    wanted: list[tuple[tuple[str, TableLine], Work, Measured]] = []
    for table, line in lines:
        recipe = prepared[line.row]
        seeds = order.seeds or (trials(line.row) if order.scale == "paper" else 1)
        work = works.setdefault(_identity(recipe), Work(recipe, seeds))
        work.seeds = max(work.seeds, seeds)
        metrics = dict.fromkeys(n.metric for n in table.numbers if TableLine(n.row, n.measured) == line)
        wanted.append(((table.name, line), work, _measured(order, recipe, line.measured, tuple(metrics))))
    for _, work, measured in wanted:
        _add(work.measurements, measured)
    everything = list(works.values())
    for work in everything:
        work.settle()
    places = {key: (everything.index(work), _place(work.measurements, measured)) for key, work, measured in wanted}
    return Ordered(everything, places, _notes(order, prepared))


def _identity(recipe: Recipe) -> str:
    """A text that is equal for two rows that are one run: all settings but name, reference and measuring."""
    return json.dumps(dict(flat(to_plain(recipe), {"name", "reference", "measuring"})), sort_keys=True)


def _prepared(order: Order, recipe: Recipe) -> Recipe:
    """The recipe at the scale of `order`, on the user's data."""
    if order.scale == "tiny":
        small = tiny(recipe, data=next(iter(order.data), None), model=order.model)
        small = fitted(small, len(training_images(small).labelled))
    else:
        small = _with_weights(order, replace(recipe, data=_own(order, recipe.data)))
    if order.epochs is not None:
        small = with_epochs(small, order.epochs)
    workers = small.training.workers if order.workers is None else order.workers
    return replace(
        small,
        training=replace(small.training, workers=workers, device=order.device),
        evaluation=replace(small.evaluation, workers=workers, device=order.device, limit=order.limit),
    )


def _own(order: Order, data: Data) -> Data:
    """The recipe's data with the user's path, and with whatever else the user has changed."""
    given = next((one for one in order.data if type(one) is type(data)), None)
    if given is None:
        return data
    usual = type(given)(given.path) if isinstance(given, Stored) else type(given)()
    values = {field.name: getattr(given, field.name) for field in fields(given)}
    return replace(data, **{n: value for n, value in values.items() if n == "path" or value != getattr(usual, n)})


def _with_weights(order: Order, recipe: Recipe) -> Recipe:
    if recipe.model.weights is None or order.weights is None:
        return recipe
    return replace(recipe, model=replace(recipe.model, weights=order.weights / recipe.model.weights.name))


def _measured(order: Order, recipe: Recipe, measured: Measurement, metrics: tuple[str, ...]) -> Measured:
    """How a line measures its run. The tiny scale has no layers of a ResNet and no other data sets."""
    changes: dict[str, Any] = dict(measured.fields)
    data = None
    if order.scale == "tiny":
        changes = {name: value for name, value in changes.items() if name not in ("layer", "split")}
    elif measured.data is not None:
        data = next(one for one in order.data if isinstance(one, DATA_PREFIXES[measured.data]))
    return Measured(replace(recipe.evaluation, **changes, metrics=metrics), data)


def _add(measurements: list[Measured], measured: Measured) -> None:
    """Add a way of measuring; if it is there already, add its metrics to it."""
    place = _place(measurements, measured)
    if place == len(measurements):
        measurements.append(measured)
        return
    known = measurements[place].evaluation
    metrics = tuple(dict.fromkeys([*known.metrics, *measured.evaluation.metrics]))
    measurements[place] = replace(measured, evaluation=replace(known, metrics=metrics))


def _place(measurements: Sequence[Measured], measured: Measured) -> int:
    """The index of the same way of measuring, whatever its metrics; the number of ways if there is none."""

    def way(one: Measured) -> Measured:
        return replace(one, evaluation=replace(one.evaluation, metrics=("top1",)))

    return next((n for n, one in enumerate(measurements) if way(one) == way(measured)), len(measurements))


def _check_present(order: Order, prepared: Mapping[str, Recipe], measured: Sequence[Measurement]) -> None:
    """Check that all data sets and weights files are there, before anything is trained.

    Raises:
        DataError: data sets are missing; the message names all of them.
        WeightsError: weights files are missing; the message names all of them.
    """
    if order.scale == "tiny":
        return
    needed = {recipe.data.prefix: recipe.data.location or Path() for recipe in prepared.values()}
    missing = [prefix for prefix, path in needed.items() if not path.is_dir()]
    given = {one.prefix for one in order.data}
    missing += [one.data for one in measured if one.data is not None and one.data not in given | set(missing)]
    names = " ".join(table.name for table in order.tables)
    if missing:
        asked = " ".join(f"--data {prefix}:PATH" for prefix in dict.fromkeys(missing))
        looked = ", ".join(f"'{needed[prefix]}'" for prefix in dict.fromkeys(missing) if prefix in needed)
        where = f"; there is no folder {looked}" if looked else ""
        raise DataError(f"{names} needs {asked}{where}. Or try it on built-in data: --scale tiny.")
    files = {recipe.model.weights for recipe in prepared.values() if recipe.model.weights is not None}
    absent = sorted(str(path) for path in files if not path.is_file())
    if absent:
        raise WeightsError(
            f"{names} starts from weights, and there is no {', '.join(absent)}: put them into one folder under these "
            "names, and add --weights FOLDER."
        )


def _notes(order: Order, prepared: Mapping[str, Recipe]) -> dict[str, Sequence[str]]:
    """What does not follow the paper, by heading: what the scale changes, and what the papers leave open."""
    notes: dict[str, Sequence[str]] = {}
    if order.scale == "tiny":
        notes["The scale tiny"] = NOTES
    points: dict[str, dict[str, None]] = {}
    for reference in map(reference_of, prepared):
        points.setdefault(SOURCES[reference.paper], {}).update(dict.fromkeys(reference.open_points))
    for source, own in points.items():
        notes[source] = [f"The paper leaves open, and the recipes choose: {'; '.join(own)}."]
    asked = {"seeds": order.seeds, "epochs": order.epochs, "limit": order.limit}
    changed = [f"--{name} {value}" for name, value in asked.items() if value is not None]
    if changed:
        notes["Asked for"] = [f"{' '.join(changed)} instead of the paper's."]
    return notes
