"""Images without labels beside the labelled ones (CGC, section 4.3): which of them a step has, and those of a folder.

A run's unlabelled images come over and over, in passes. Step `number` of the run (from 0) has batch `number % n` of
pass `number // n`, for n complete batches in a pass; an epoch is one pass over the labelled images. Order and crops are
functions of (seed, pass, index), of a seed of their own, so they do not depend on the labelled images, and a run
resumed anywhere goes on where it was. The published code starts a new pass with each epoch, so that a pass longer than
an epoch never ends; and its unlabelled images are all of the training set, the labelled ones among them.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from contrex.data.files.folders import ImageFiles
from contrex.data.files.images import is_image
from contrex.data.views.training import Position, TrainingViews, num_batches
from contrex.errors import DataError


@dataclass(frozen=True, eq=False)
class Cycle:
    """Images without labels, over and over: `views` of them, `batch_size` in a step; a process reads `parts`."""

    views: TrainingViews
    batch_size: int
    parts: Sequence[slice] = (slice(None),)

    def positions(self, first: int, last: int) -> Iterator[list[Position]]:
        """Pass and index of what each part of the steps `first` up to, not including, `last` of the run holds."""
        size, per_pass = self.batch_size, num_batches(self.views.images, self.batch_size)
        for number in range(first, last):
            passed, place = divmod(number, per_pass)
            if number == first or place == 0:
                order = self.views.order(passed)
            batch = [(passed, index) for index in order[place * size : (place + 1) * size]]
            yield from (batch[part] for part in self.parts)


class UnlabelledFolder(ImageFiles):
    """The images of a folder and of all folders below it, in the order of their paths, without labels.

    Hidden files and folders are left out, links to folders are followed, each folder once.

    Raises `DataError` where there is no such folder, or no image in it.
    """

    classes: Sequence[str] = ()

    def __init__(self, root: Path, *, on_bad_image: str) -> None:
        if not root.is_dir():
            raise DataError(f"`labelled.unlabelled` must be a folder with images; there is no folder '{root}'.")
        found = sorted(_images_below(root))
        if not found:
            raise DataError(f"`labelled.unlabelled` '{root}' has no images, nor have the folders below it.")
        every = ((path, -1) for path in found)
        super().__init__(root, "unlabelled", every, boxes={}, limit_per_class=None, on_bad_image=on_bad_image)
        self.name = f"{root.name} ({len(self)} unlabelled)"


def _images_below(root: Path) -> Iterator[str]:
    """The paths of images below `root`, with forward slashes."""
    seen: set[Path] = set()
    for folder, folders, files in os.walk(root, onerror=_unreadable, followlinks=True):
        real = Path(folder).resolve()
        if real in seen:
            folders.clear()
            continue
        seen.add(real)
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        below = Path(folder).relative_to(root)
        yield from ((below / name).as_posix() for name in files if is_image(name) and Path(folder, name).is_file())


def _unreadable(error: OSError) -> None:
    raise DataError(f"folder '{error.filename}' cannot be read: {error.strerror}. Allow it, or leave it out.") from None
