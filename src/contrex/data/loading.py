"""Loaders: what reads images for a run, in this process or in workers that stay from one epoch to the next.

A worker that is started anew costs tenths of a second where processes are forked, and seconds where they are not
(macOS, Windows, Linux from Python 3.14 on), as it imports torch first; so workers stay. They keep nothing of an epoch:
what they are asked for says all.
"""

from __future__ import annotations

import itertools
import signal
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import replace
from functools import partial
from types import FrameType
from typing import Any, Generic, TypeVar

import torch
from torch.utils.data import DataLoader, Dataset

from contrex.data.views.batch import Batch
from contrex.data.views.training import Position, TrainingViews
from contrex.data.views.unlabelled import Cycle
from contrex.errors import ContrexError, unwrapped

T = TypeVar("T")


class Loader(Generic[T]):
    """Reads lists of items of a data set and joins each; the same workers read whatever is asked for.

    The workers start at the first `read` and end at `close`.
    """

    def __init__(
        self, items: Dataset[Any], join: Callable[[list[Any]], T], *, workers: int, pin_memory: bool = False
    ) -> None:
        self._wanted: list[list[Any]] = []
        self._reading: Generator[T] | None = None
        self._loader: DataLoader[T] = DataLoader(
            items,
            batch_sampler=self._wanted,
            collate_fn=join,
            num_workers=workers,
            persistent_workers=workers > 0,
            worker_init_fn=_leave_signals_to_the_run,
            pin_memory=pin_memory,
            generator=torch.Generator(),  # its own, so that the loader draws nothing from the global one
        )

    def read(self, wanted: list[list[Any]]) -> Iterator[T]:
        """Read the items at each list of positions, and join each list. It ends the `read` before it.

        An error of contrex's own is raised as it is, also where a worker found it.
        """
        self._end_reading()
        self._wanted[:] = wanted
        self._reading = _items_of(self._loader)
        return self._reading

    def _end_reading(self) -> None:
        if self._reading is not None:
            # A reading that was left in the middle would still hold the workers, and give its batches to the next.
            self._reading.close()
            self._reading = None

    def close(self) -> None:
        """End the workers; after that there is nothing to read."""
        self._end_reading()
        workers: Any = self._loader._iterator
        if workers is not None:
            workers._shutdown_workers()  # torch has no public name for it; tracebacks keep the iterator alive


def _items_of(loader: DataLoader[T]) -> Generator[T]:
    try:
        yield from loader
    except ContrexError as error:
        raise unwrapped(error) from None


GRACE = 60
"""Seconds that a worker outlives a signal by, at most."""


def _leave_signals_to_the_run(_worker: int) -> None:
    """Let the run decide about the signals that reach all its processes at once: Ctrl-C in a terminal, SIGTERM from
    torchrun or SLURM. A worker that ended by itself would take the step along that the run still makes."""

    def outlive(_number: int, _frame: FrameType | None) -> None:
        signal.alarm(GRACE)  # it does not hold up an interpreter that ends, and waits for its processes, for ever

    if hasattr(signal, "alarm"):  # on Windows nobody sends SIGTERM
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, outlive)


class TrainingLoader:
    """Reads the training batches of a run, one epoch after the other, for each of its phases.

    All phases have the same images; each has `views` of its own. Of each batch only `parts` are read, each as a batch
    of its own, one after the other, with its part of the unlabelled images of `cycle` beside it, where there are some.
    The same workers read both.
    """

    def __init__(
        self,
        views: Sequence[TrainingViews],
        *,
        batch_size: int,
        parts: Sequence[slice] = (slice(None),),
        cycle: Cycle | None = None,
        workers: int = 0,
        pin_memory: bool = False,
    ) -> None:
        self._views = views
        self._batch_size = batch_size
        self._parts = parts
        self._cycle = cycle
        # One data set of all phases and of the unlabelled images, so that one set of workers serves them all.
        every = _EachPhase([*views, *([] if cycle is None else [cycle.views])])
        self._loader = Loader(every, partial(_joined, unlabelled=len(views)), workers=workers, pin_memory=pin_memory)

    def batches(self, epoch: int, *, phase: int = 0, start: int = 0, step: int = 0) -> Iterator[Batch]:
        """The batches `start`, `start + 1`, ... of an epoch of a phase; the incomplete last batch is dropped.

        `step` is the number of the run's step that has the first of them: it tells which unlabelled images come.

        Raises:
            ImageError: an image cannot be read.
        """
        views, size = self._views[phase], self._batch_size
        positions = [(phase, (epoch, index)) for index in views.order(epoch)]
        batches = [positions[i : i + size] for i in range(0, len(positions) - size + 1, size)][start:]
        wanted = [batch[part] for batch in batches for part in self._parts]
        if self._cycle is not None:
            beside = self._cycle.positions(step, step + len(batches))
            number = len(self._views)
            wanted = [
                own + [(number, position) for position in others] for own, others in zip(wanted, beside, strict=True)
            ]
        return self._loader.read(wanted)

    def close(self) -> None:
        """End the workers."""
        self._loader.close()


class _EachPhase(Dataset[tuple[int, Batch]]):
    """The items of all phases: at the number of a phase and a position, what the views of that phase have there."""

    def __init__(self, views: Sequence[TrainingViews]) -> None:
        self._views = views

    def __getitem__(self, place: tuple[int, Position]) -> tuple[int, Batch]:
        phase, position = place
        return phase, self._views[phase][position]

    def __getitems__(self, places: Sequence[tuple[int, Position]]) -> list[tuple[int, Batch]]:
        """What torch's loaders ask for, where there is such a function: the images of each phase as one batch."""
        return [
            (phase, self._views[phase].batch([position for _, position in same]))
            for phase, same in itertools.groupby(places, key=lambda place: place[0])
        ]


def _joined(images: list[tuple[int, Batch]], unlabelled: int) -> Batch:
    """Join single images to one batch; those of the phase number `unlabelled` lie beside the others."""
    labelled = Batch.join([batch for phase, batch in images if phase != unlabelled])
    beside = [batch for phase, batch in images if phase == unlabelled]
    return replace(labelled, unlabelled=Batch.join(beside)) if beside else labelled
