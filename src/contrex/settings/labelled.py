"""Which of the training images have a label."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from contrex.errors import ArgumentError
from contrex.settings.ranges import check, check_at_least


@dataclass(frozen=True)
class Labelled:
    """Which training images have a label: all of them, or those that `share`, `per_class` or `file` draw."""

    share: float | None = None
    """Draw this share of each class's training images, one of each class at least."""
    per_class: int | None = None
    """Draw this many training images of each class."""
    file: Path | None = None
    """A list of the labelled images, a path or a file's name on each line, such as SimCLR's 1percent.txt."""
    seed: int | None = None
    """Which images are drawn; None is `training.seed`, so that each seed is another episode."""
    rest: Literal["unused", "unlabelled", "val"] = "unused"
    """What the other training images are: unused, images without labels for methods that take some, or the validation
    images, in place of the data set's own."""
    unlabelled: Path | None = None
    """A folder whose images, those in folders below it too, are used without labels, instead of the rest."""
    unlabelled_batch_size: int | None = None
    """Images without labels of one step, beside `training.batch_size` with one; None is as many."""

    def __post_init__(self) -> None:
        given = [f"labelled.{name}" for name in ("share", "per_class", "file") if getattr(self, name) is not None]
        if len(given) > 1:
            names = " and ".join(f"`{name}`" for name in given)
            raise ArgumentError(f"{names} are not for one run: set one of them to None.")
        check(self.share is None or 0 < self.share <= 1, "labelled.share", self.share, "a share, above 0 and up to 1")
        check_at_least(1, "labelled", per_class=self.per_class, unlabelled_batch_size=self.unlabelled_batch_size)
        check_at_least(0, "labelled", seed=self.seed)
        if self.rest != "unused" and not given:
            raise ArgumentError(
                f"`labelled.rest` {self.rest} is of images that are not drawn: set `labelled.share`, "
                "`labelled.per_class` or `labelled.file`."
            )
        if self.rest == "unlabelled" and self.unlabelled is not None:
            raise ArgumentError(
                f"`labelled.rest` unlabelled and `labelled.unlabelled` {self.unlabelled} are not for one run: take the "
                "rest, or the images of a folder."
            )
        if self.unlabelled_batch_size is not None and not self.has_unlabelled:
            raise ArgumentError(
                f"`labelled.unlabelled_batch_size` {self.unlabelled_batch_size} is of no images: set `labelled.rest` "
                "unlabelled or `labelled.unlabelled`, or leave it out."
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
        """Whether some images are chosen, instead of all."""
        return self.share is not None or self.per_class is not None or self.file is not None
