"""Photos whose class stands in their name, `PATH/train/cat-17.jpg`: a data set of one's own, in one file.

contrex data docs/examples/photos_by_name.py:PhotosByName:PATH
contrex train digits_cgc --data docs/examples/photos_by_name.py:PhotosByName:PATH --data.image-size 64
"""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from contrex.data import Annotation, ImageFiles, image_names
from contrex.settings import Photos, Skipping


@dataclass(frozen=True)
class PhotosByName(Skipping, Photos):
    """Photos `PATH/SPLIT/CLASS-NUMBER.jpg`; in CLASS-NUMBER.txt beside one may be its boxes, xmin ymin xmax ymax."""

    implementation: ClassVar[str] = ":PhotosByNameImages"

    separator: str = "-"
    """What stands between class and number."""


class PhotosByNameImages(ImageFiles):
    """One split of `PhotosByName`."""

    def __init__(self, settings: PhotosByName, split: str) -> None:
        every = {folder.name: image_names(folder) for folder in settings.path.iterdir() if folder.is_dir()}
        of_class = {name: name.partition(settings.separator)[0] for names in every.values() for name in names}
        self.classes = sorted(set(of_class.values()))  # of all splits, so that they agree on the labels
        found = [(f"{split}/{name}", self.classes.index(of_class[name])) for name in every.get(split, ())]
        super().__init__(
            settings.path,
            split,
            found,
            boxes={},
            limit_per_class=settings.limit_per_class,
            on_bad_image=settings.on_bad_image,
        )

    def annotation(self, index: int) -> Annotation:
        """Read the boxes of one photo; training never asks for them."""
        file = (self.root / self.paths[index]).with_suffix(".txt")
        return Annotation(np.loadtxt(file, np.float32, ndmin=2)) if file.is_file() else Annotation()
