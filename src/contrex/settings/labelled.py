"""The settings of few labels: which of the training images have one."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from contrex.errors import ArgumentError
from contrex.settings.ranges import check, check_at_least


@dataclass(frozen=True)
class Labelled:
    """Which training images have a label: all of them, or those that `share`, `per_class` or `file` chooses."""

    share: float | None = None
    """Draw this share of each class's training images, at least one of each class."""
    per_class: int | None = None
    """Draw this many training images of each class."""
    file: Path | None = None
    """A list of the labelled images, with a path or a file's name on each line, such as SimCLR's 1percent.txt."""
    seed: int | None = None
    """The seed of the draw. None is `training.seed`, so that each seed is another episode."""
    rest: Literal["unused", "unlabelled", "val"] = "unused"
    """What the other training images are used for: nothing, images without labels (for methods that take some), or
    validation, instead of the data set's own validation images."""
    unlabelled: Path | None = None
    """A folder whose images, also those in folders below it, are used without labels instead of the rest."""
    unlabelled_batch_size: int | None = None
    """Images without labels in one step, beside `training.batch_size` with labels. None is as many."""

    def __post_init__(self) -> None:
        given = [f"labelled.{name}" for name in ("share", "per_class", "file") if getattr(self, name) is not None]
        if len(given) > 1:
            names = " and ".join(f"`{name}`" for name in given)
            raise ArgumentError(f"{names} exclude each other: set all but one to None.")
        check(self.share is None or 0 < self.share <= 1, "labelled.share", self.share, "a share, above 0 and up to 1")
        check_at_least(1, "labelled", per_class=self.per_class, unlabelled_batch_size=self.unlabelled_batch_size)
        check_at_least(0, "labelled", seed=self.seed)
        if self.rest != "unused" and not given:
            raise ArgumentError(
                f"`labelled.rest` {self.rest} is for images that were not drawn: set `labelled.share`, "
                "`labelled.per_class` or `labelled.file`."
            )
        if self.rest == "unlabelled" and self.unlabelled is not None:
            raise ArgumentError(
                f"`labelled.rest` unlabelled and `labelled.unlabelled` {self.unlabelled} exclude each other: set one "
                "of them."
            )
        if self.unlabelled_batch_size is not None and not self.has_unlabelled:
            raise ArgumentError(
                f"`labelled.unlabelled_batch_size` {self.unlabelled_batch_size} needs images without labels: set "
                "`labelled.rest` to unlabelled, or `labelled.unlabelled`, or leave it out."
            )
        if self.seed is not None and given in ([], ["labelled.file"]):
            raise ArgumentError(
                f"`labelled.seed` {self.seed} draws nothing: set `labelled.share` or `labelled.per_class`, or leave "
                "it out."
            )

    @property
    def has_unlabelled(self) -> bool:
        """Whether a run has images without labels beside the labelled ones."""
        return self.rest == "unlabelled" or self.unlabelled is not None

    @property
    def is_draw(self) -> bool:
        """Whether only some images are chosen."""
        return self.share is not None or self.per_class is not None or self.file is not None
