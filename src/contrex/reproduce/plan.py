"""The plan of a reproduction: its commands, its numbers of images, and its time from a trial of a few steps."""

from __future__ import annotations

import shlex
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from contrex.data import image_set
from contrex.data.labelled import run_images
from contrex.evaluation import Subject, evaluate
from contrex.models import load_classifier
from contrex.records import to_plain, write_json
from contrex.records.scopes import differing, flat
from contrex.reproduce.order import Measured, Ordered, Work
from contrex.settings import Evaluation, run_name
from contrex.training.trial import Trial, trial

MEASURED_IMAGES = 8
"""How many images are measured in a trial."""


@dataclass(frozen=True)
class PlannedWork:
    """One recipe of a plan: how many runs it has, how many images they see, and how long they take."""

    name: str
    seeds: int
    training: Trial
    num_measured: int
    """How many images a run is measured on, in all ways of measuring together."""
    seconds_measuring: float
    commands: Sequence[str]

    @property
    def seconds(self) -> float:
        """The time of all its runs."""
        return self.seeds * (self.training.seconds + self.seconds_measuring)


@dataclass(frozen=True)
class ReproductionPlan:
    """The plan of a reproduction: what each recipe takes."""

    works: Sequence[PlannedWork]

    @property
    def seconds(self) -> float:
        """The time of all runs, one after the other."""
        return sum(work.seconds for work in self.works)

    def lines(self) -> Iterator[str]:
        """The plan as text: the commands, then a table."""
        for work in self.works:
            yield from work.commands
        yield ""
        width = max(len(work.name) for work in self.works)
        yield f"{'':{width}}  seeds  training images  s / step  measured images       time"
        for work in self.works:
            trained, measured = work.seeds * work.training.num_images, work.seeds * work.num_measured
            yield (
                f"{work.name:{width}}  {work.seeds:5}  {trained:15,}  {work.training.seconds_per_step:8.3g}  "
                f"{measured:15,}  {duration(work.seconds):>9}"
            )
        yield f"{'all, one after the other':{width + 51}}  {duration(self.seconds):>9}"
        yield ""
        yield (
            "Times come from a few real steps on this machine, multiplied by their number, and may be off by a factor "
            "of two. Validation after each epoch and the start of each run are not included."
        )


def planned(ordered: Ordered, folder: Path) -> ReproductionPlan:
    """The plan of `ordered`. Its recipes are written to FOLDER/recipes, so that each command can be run by itself.

    It raises what a run would raise at its start: for a wrong path, a missing file or an unknown layer.
    """
    return ReproductionPlan([_planned(work, folder) for work in ordered.works])


def _planned(work: Work, folder: Path) -> PlannedWork:
    path = folder / "recipes" / f"{work.recipe.name}.json"
    write_json(path, work.recipe)
    tried = [_measuring(work, measured) for measured in work.measurements]
    return PlannedWork(
        name=work.recipe.name,
        seeds=work.seeds,
        training=trial(work.recipe),
        num_measured=sum(num for num, _ in tried),
        seconds_measuring=sum(num * seconds for num, seconds in tried),
        commands=list(_commands(work, path, folder)),
    )


def _measuring(work: Work, measured: Measured) -> tuple[int, float]:
    """The number of images of one way of measuring, and the seconds that an untrained network takes for each."""
    data = work.recipe.data if measured.data is None else measured.data
    split = measured.evaluation.split
    images = run_images(work.recipe, split) if measured.data is None else image_set(data, split)
    model = replace(work.recipe.model, weights=None, pretrained=False, layout="plain", fresh=())
    subject = Subject(
        name=work.recipe.name,
        classifier=load_classifier(model, num_classes=len(images.classes)),
        images=images,
        data=data,
        augmentation=work.recipe.augmentation,
    )
    few = min(MEASURED_IMAGES, len(images))
    began = time.perf_counter()
    evaluate(subject, replace(measured.evaluation, limit=few, gallery=0, num_bootstrap=1, checkpoint="last"))
    taken = time.perf_counter() - began
    return min(len(images), measured.evaluation.limit or len(images)), taken / few


def _commands(work: Work, path: Path, folder: Path) -> Iterator[str]:
    for recipe in work.recipes():
        run, seed = folder / run_name(recipe), recipe.training.seed
        yield _shell("train", path, "--training.seed", seed, "--folder", run)
        for measured in work.measurements[1:]:
            yield _shell("evaluate", run, *_options(recipe.evaluation, measured))


def _options(own: Evaluation, measured: Measured) -> Iterator[str]:
    """The options of `contrex evaluate RUN` for a way of measuring other than the recipe's own."""
    if measured.data is not None:
        yield from ("--data", measured.data.command_name)
    before, after = to_plain(own), to_plain(measured.evaluation)
    values = dict(flat(after))
    for name in differing(before, after, ignoring=()):
        yield f"--{name.replace('_', '-')}"
        yield from map(str, values[name]) if isinstance(values[name], list) else (str(values[name]),)


def _shell(*words: object) -> str:
    return shlex.join(["contrex", *map(str, words)])


def duration(seconds: float) -> str:
    """A time as text, in a unit that suits it.

    >>> duration(42.0), duration(600.0), duration(7200.0), duration(400000.0)
    ('42 s', '10 min', '2.0 h', '4.6 days')
    """
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 5400:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h" if seconds < 48 * 3600 else f"{seconds / 86400:.1f} days"
