"""Food-101 as its archive unpacks: 101,000 photos of 101 dishes, without boxes.

    PATH/meta/classes.txt                       one folder per line, in label order
    PATH/meta/labels.txt                        its name, on the same line
    PATH/meta/train.txt, PATH/meta/test.txt     folder/number
    PATH/images/apple_pie/1005649.jpg

PATH may also be the folder above `food-101`. The training images were left uncleaned by its authors: some labels are
wrong. Splits: see `TrainTest`.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from contrex.data.files.folders import holds
from contrex.data.files.tables import read_classes, read_spaced
from contrex.data.readers.listed import Labelled, ListedImages, archive_folder, part_of_training, published_part
from contrex.errors import DataError
from contrex.settings import Food101

NAME = "Food-101"
ARCHIVE = "food-101"


class Food101Images(ListedImages):
    """One split of a `Food101` as an `ImageSet`; see the module's docstring for the layout.

    `folders` are the class folders and `classes` their names, `paths` the samples (`images/folder/file`) as listed.

    Raises `DataError` for another layout and for lists that do not agree, `UnknownNameError` for an unknown split.
    """

    @classmethod
    def recognises(cls, path: Path, prefix: str) -> bool:
        """Whether what its archive unpacks to is in `path`."""
        return holds(path, "meta/classes.txt", below=ARCHIVE)

    def __init__(self, settings: Food101, split: str) -> None:
        part = published_part(settings, split, NAME)
        listed = "meta/test.txt" if part == "test" else "meta/train.txt"
        needed = ("meta/classes.txt", "meta/labels.txt", listed, "images")
        root = archive_folder(settings.path, ARCHIVE, needed, NAME)
        self.folders = [name for name, _ in read_classes(root / "meta/classes.txt")]
        self.classes: Sequence[str] = _names(root / "meta/labels.txt", self.folders)
        found = _labelled(root / listed, self.folders)
        super().__init__(settings, root, part, part_of_training(found, settings, part), boxes={})


def _names(file: Path, folders: Sequence[str]) -> list[str]:
    names = [name for _, name in read_classes(file)]
    if len(names) != len(folders):
        raise DataError(f"'{file}' has {len(names)} names, classes.txt has {len(folders)}. Unpack the archive again.")
    return names


def _labelled(file: Path, folders: Sequence[str]) -> Labelled:
    labels = {folder: label for label, folder in enumerate(folders)}
    found: dict[str, int] = {}
    for line, (image,) in read_spaced(file, ("folder/number",)):
        folder, _, number = image.rpartition("/")
        if not number or folder not in labels:
            raise DataError(f"'{file}', line {line}: expected folder/number of a folder in classes.txt, got '{image}'")
        if f"images/{image}.jpg" in found:
            raise DataError(f"'{file}', line {line}: a second row for '{image}'")
        found[f"images/{image}.jpg"] = labels[folder]
    if not found:
        raise DataError(f"'{file}' lists no images. Unpack the archive again.")
    return list(found.items())
