"""Image folders on disk: `PATH/split/class/*.jpg`, with what is known about the pictures in tables beside them.

    PATH/train/tabby/001.jpg        a class folder holds images; hidden and other files are ignored
    PATH/val/tabby/104.jpg
    PATH/boxes.csv                  path,xmin,ymin,xmax,ymax[,kind]: pixels of the stored image, any rows per image
    PATH/labels.csv                 path[,class_index][,trimap]
    PATH/classes.txt                index<TAB>folder<TAB>name, or one name per line in index order
    PATH/trimaps/tabby/001.png      1 object, 2 background, 3 border; found through labels.csv or `trimaps`

Paths in the tables are relative to PATH, with forward slashes. Tables may have more columns, and rows about other
splits; a row about this split must name a file that exists. Boxes and trimaps are turned with the EXIF orientation.

Labels: without `class_index`, label 0..n-1 is the position of the class folder, sorted by name or as `classes` lists
them. With it, the table rules: labels are its indices into classes.txt, of which only some may occur (500 photos of
ImageNet's 1000 classes), and `classes` only filters.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

import numpy as np
from numpy.typing import NDArray

from contrex.data.files.folders import ImageFiles, image_names, image_names_below, shortened, subfolders
from contrex.data.files.images import Header
from contrex.data.files.masks import trimap_mask
from contrex.data.files.tables import EDGES, parse_box, parse_integer, read_classes, read_columns, read_records
from contrex.errors import DataError, unknown_name
from contrex.settings import Folder

TRIMAPS = "trimaps"
"""The one folder below PATH that is no split, and what `trimaps` names."""


class FolderImages(ImageFiles):
    """One split of a `Folder` as an `ImageSet`; see the module's docstring for the layout.

    `classes` are readable names: from classes.txt where it knows the folder, else the folder's name. `folders` are the
    class folders read, `paths` the samples (`split/folder/file`), `labels` int64 [N]. A sample's boxes are as written
    in boxes.csv (plus 1 at the maxima with `inclusive_boxes`) and may reach beyond the image; its mask, where there is
    a trimap, is True on object and border. Unreadable images: see `ImageFiles`.

    Raises `DataError` for folders or tables not laid out as above, `UnknownNameError` for a class or kind they lack.
    """

    @classmethod
    def recognises(cls, path: Path, prefix: str) -> bool:
        """Whether any class folder of any split holds an image; looks at few of them."""
        splits = [path / name for name in subfolders(path)]
        return any(image_names(split / name) for split in splits for name in subfolders(split)[:3])

    def __init__(self, settings: Folder, split: str) -> None:
        self.settings = settings
        _check_split(settings, split)
        table = _read_labels(settings.path, split)
        self.folders = _class_folders(settings, split, indexed=table.indexed)
        self.classes: Sequence[str] = _class_names(settings, self.folders, indexed=table.indexed)
        found = list(_labelled_files(settings.path, split, self.folders, table, len(self.classes)))
        self._trimaps = _find_trimaps(settings, found) | table.trimaps
        super().__init__(
            settings.path,
            split,
            found,
            boxes=_read_boxes(settings, split),
            limit_per_class=settings.limit_per_class,
            on_bad_image=settings.on_bad_image,
        )

    def _mask(self, path: str) -> Callable[[Header], NDArray[np.bool_]] | None:
        if path not in self._trimaps:
            return None
        return lambda stored: trimap_mask(self.settings.path / self._trimaps[path], path, stored, border=True)


# --- folders and files ----------------------------------------------------------------------------------------------


def _check_split(settings: Folder, split: str) -> None:
    root = settings.path
    if not root.is_dir():
        raise DataError(f"`path` must be a folder with PATH/split/class/*.jpg; there is no folder '{root}'")
    splits = _splits(settings)
    if split not in splits:
        found = f"it has {', '.join(splits)}" if splits else "it has no folders at all"
        raise DataError(f"'{root}' has no split '{split}'; {found}. Expected '{root / split}/class/*.jpg'.")


def _splits(settings: Folder) -> list[str]:
    others = {TRIMAPS, *(settings.trimaps.parts[:1] if settings.trimaps else ())}
    return [name for name in subfolders(settings.path) if name not in others]


def _class_folders(settings: Folder, split: str, *, indexed: bool) -> list[str]:
    """The class folders to read, in label order."""
    found = subfolders(settings.path / split)
    if not found:
        raise DataError(f"'{settings.path / split}' has no class folders. Expected '{split}/class/*.jpg' below it.")
    for name in settings.classes:
        if name not in found:
            raise unknown_name(f"`classes` of split '{split}'", name, found)
    if not settings.classes and not indexed:
        _check_splits_agree(settings, split, found)
    return list(settings.classes) or found


def _check_splits_agree(settings: Folder, split: str, found: list[str]) -> None:
    """Refuse splits with different folders: labels are places among them, and all behind a missing one would shift."""
    root = settings.path
    for other in _splits(settings):
        theirs = set(subfolders(root / other))
        different = sorted(theirs.symmetric_difference(found))
        if different and theirs.intersection(found):
            raise DataError(
                f"splits '{split}' and '{other}' of '{root}' have different class folders, so their labels would not "
                f"agree: only one of them has {shortened(different)}. List the folders to read in `classes`, or give "
                f"labels.csv a class_index column."
            )


def _labelled_files(
    root: Path, split: str, folders: list[str], table: _Labels, num_classes: int
) -> Iterator[tuple[str, int]]:
    """Each image's path and label, by class folder, then by name."""
    listed = image_names_below(root, [f"{split}/{folder}" for folder in folders], split=split)
    for position, (folder, names) in enumerate(zip(folders, listed, strict=True)):
        if not names and not table.indexed:
            raise DataError(f"class folder '{root / split / folder}' has no images. Fill it or leave it out.")
        for name in names:
            path = f"{split}/{folder}/{name}"
            yield path, table.label(path, num_classes) if table.indexed else position


# --- labels.csv and classes.txt -------------------------------------------------------------------------------------


@dataclass
class _Labels:
    """What labels.csv says about one split."""

    file: Path
    indexed: bool = False
    indices: dict[str, tuple[int, int]] = field(default_factory=dict)
    """Class index and line number by path."""
    trimaps: dict[str, str] = field(default_factory=dict)

    def label(self, path: str, num_classes: int) -> int:
        if path not in self.indices:
            raise DataError(f"'{self.file}' has no row for '{path}'. Add one, or drop the class_index column.")
        index, line = self.indices[path]
        if not 0 <= index < num_classes:
            raise DataError(
                f"'{self.file}', line {line}: class_index {index} is not in 0..{num_classes - 1}, the classes of "
                f"classes.txt"
            )
        return index


def _read_labels(root: Path, split: str) -> _Labels:
    table = _Labels(root / "labels.csv")
    if not table.file.exists():
        return table
    for line, path, row in _rows(table.file, split, ("path",)):
        if "class_index" in row:
            index, (before, first) = (
                parse_integer(table.file, line, row["class_index"]),
                table.indices.get(path, (-1, 0)),
            )
            if first and index != before:
                raise DataError(
                    f"'{table.file}', line {line}: a second row for '{path}', class_index {index}, which is {before} "
                    f"in line {first}: take one of them out."
                )
            table.indices[path] = (index, line)
        if row.get("trimap"):
            _check_exists(table.file, line, row["trimap"])
            table.trimaps[path] = row["trimap"]
    table.indexed = "class_index" in read_columns(table.file)
    return table


def _class_names(settings: Folder, folders: list[str], *, indexed: bool) -> list[str]:
    """Readable names by label."""
    file = settings.path / "classes.txt"
    if not file.exists():
        if indexed:
            raise DataError(f"labels.csv has a class_index column, so '{file}' must name the classes; it is missing")
        return folders
    names = read_classes(file)
    if indexed:
        return [name for _, name in names]
    readable = dict(names)
    listed = [folder for folder, _ in names if folder in folders]
    if not settings.classes and listed != [folder for folder in folders if folder in readable]:
        raise DataError(
            f"'{file}' has the classes in another order than their folders ({', '.join(listed[:3])} ...), and labels "
            "are places among these. Name all folders in that order in `data.classes`, give each image a class_index "
            "in labels.csv, or sort the file."
        )
    return [readable.get(folder, folder) for folder in folders]


# --- trimaps --------------------------------------------------------------------------------------------------------


def _find_trimaps(settings: Folder, found: Iterable[tuple[str, int]]) -> dict[str, str]:
    """The trimaps in the folder `trimaps`, below PATH, by image path; a name with its class folder goes first."""
    folder = settings.trimaps
    if folder is None:
        return {}
    if not (settings.path / folder).is_dir():
        raise DataError(f"`trimaps` must be a folder below `path`; there is no folder '{settings.path / folder}'")
    present = {name: set(image_names(settings.path / name)) for name in _trimap_folders(settings.path, folder)}
    trimaps: dict[str, str] = {}
    for path, _ in found:
        _, class_folder, name = PurePosixPath(path).with_suffix(".png").parts
        for place in ((folder / class_folder).as_posix(), folder.as_posix()):
            if name in present.get(place, ()):
                trimaps.setdefault(path, f"{place}/{name}")
    if not trimaps:
        raise DataError(
            f"'{settings.path / folder}' has no trimap of any image of this split; expected NAME.png or CLASS/NAME.png "
            f"for '{next(iter(found), ('it',))[0]}'"
        )
    return trimaps


def _trimap_folders(root: Path, folder: Path) -> list[str]:
    return [folder.as_posix(), *((folder / name).as_posix() for name in subfolders(root / folder))]


# --- boxes.csv ------------------------------------------------------------------------------------------------------


def _read_boxes(settings: Folder, split: str) -> dict[str, NDArray[np.float32]]:
    """Read the boxes, float32 [M,4], by image path; edges are in stored pixels."""
    file = settings.path / "boxes.csv"
    if not file.exists():
        if settings.box_kinds:
            raise DataError(f"`box_kinds` needs '{file}', which is missing")
        return {}
    _check_kinds(file, settings.box_kinds)
    boxes: dict[str, list[list[float]]] = {}
    for line, path, row in _rows(file, split, ("path", *EDGES)):
        box = parse_box(file, line, [row[name] for name in EDGES], inclusive=settings.inclusive_boxes)
        if not settings.box_kinds or row["kind"] in settings.box_kinds:
            boxes.setdefault(path, []).append(box)
    return {path: np.array(several, dtype=np.float32) for path, several in boxes.items()}


def _check_kinds(file: Path, kinds: Sequence[str]) -> None:
    if not kinds:
        return
    if "kind" not in read_columns(file):
        raise DataError(f"`box_kinds` needs a column 'kind' in '{file}', which has {', '.join(read_columns(file))}")
    present = sorted({row["kind"] for _, row in read_records(file)})
    for kind in kinds:
        if kind not in present:
            raise unknown_name("`box_kinds`", kind, present)


# --- tables ---------------------------------------------------------------------------------------------------------


def _rows(file: Path, split: str, needed: Sequence[str]) -> Iterator[tuple[int, str, dict[str, str]]]:
    """Line number, image path and fields of the rows about `split`, whose files must exist."""
    missing = [name for name in needed if name not in read_columns(file)]
    if missing:
        raise DataError(
            f"'{file}' has no column {', '.join(missing)}; it needs {','.join(needed)} in its first line and has "
            f"{','.join(read_columns(file))}"
        )
    for line, row in read_records(file):
        path = PurePosixPath(row["path"].replace("\\", "/"))
        if path.parts and path.parts[0] == split:
            _check_exists(file, line, str(path))
            yield line, str(path), row


def _check_exists(file: Path, line: int, path: str) -> None:
    if not (file.parent / path).is_file():
        raise DataError(f"'{file}', line {line}: there is no file '{path}' in '{file.parent}'")
