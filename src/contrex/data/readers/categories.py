"""Images with several labelled objects as samples of one label: one for each category of an image, with its boxes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from contrex.data.files.annotations import Box
from contrex.data.files.folders import ImageFiles


@dataclass(frozen=True)
class Category:
    """The objects of one category in one image `file`, a path relative to the data set's folder."""

    file: str
    name: str
    label: int
    boxes: Sequence[Box]
    also: tuple[int, ...] = ()
    """Further classes that are as right as `label`."""


class CategoryFiles(ImageFiles):
    """A sample for each of `found`; its path is `file:name`, so that samples of one image differ in it."""

    def __init__(
        self, root: Path, split: str, found: Iterable[Category], *, limit_per_class: int | None, on_bad_image: str
    ) -> None:
        self._categories: Mapping[str, Category] = {f"{one.file}:{one.name}": one for one in found}
        super().__init__(
            root,
            split,
            [(path, one.label) for path, one in self._categories.items()],
            boxes={path: np.array(one.boxes, dtype=np.float32) for path, one in self._categories.items()},
            limit_per_class=limit_per_class,
            on_bad_image=on_bad_image,
        )

    def _file(self, path: str) -> Path:
        return self.root / self._categories[path].file

    def also(self, index: int) -> tuple[int, ...]:
        """Further classes that are as right as the label of sample `index`: all of its category."""
        return self._categories[self.paths[index]].also
