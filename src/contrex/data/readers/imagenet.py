"""ImageNet (ILSVRC 2012), as image folders or as Kaggle's archive unpacks, with the boxes of either release.

    PATH/train/n01440764/*.JPEG                     a folder per class, as PyTorch's examples and torchvision have it
    PATH/val/n01440764/*.JPEG                       the same, or all in val/ where a table or annotations name them
    PATH/Annotations/CLS-LOC/val/ILSVRC2012_val_00000001.xml
    PATH/Annotations/CLS-LOC/train/n01440764/n01440764_18.xml

    PATH/ILSVRC/Data/CLS-LOC/train, val             Kaggle's archive; val is flat, PATH may be ILSVRC/ itself
    PATH/ILSVRC/Annotations/CLS-LOC/...
    PATH/LOC_synset_mapping.txt                     folder, space, name: of all 1000 classes
    PATH/LOC_val_solution.csv, LOC_train_solution.csv     ImageId,PredictionString: `folder xmin ymin xmax ymax ...`

Labels are the places of the class folders in sorted order: of all 1000, that is the order of every pretrained network.
With a list of classes, as ImageNet-100 is, they are the places among those. Names are those of LOC_synset_mapping.txt;
without it torchvision's where the folders are the 1000 of ImageNet, else the folders'.

Boxes: the tables', where there are tables, else the annotations', read when a sample is. Coordinates count pixels from
0 and the maxima are the last pixels inside (of 770 boxes of validation images minima begin at 0, and maxima end at
width - 1 and never at the width), so one is added there; some boxes of training images end one pixel outside. Boxes of
another class than the image's are left out, and `left_out` counts them.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np
from numpy.typing import NDArray

from contrex.data.files.annotations import Object, edges, read_objects
from contrex.data.files.folders import ImageFiles, holds, image_names, image_names_below, shortened, subfolders
from contrex.data.files.tables import read_columns, read_records, read_spaced
from contrex.errors import DataError, unknown_name
from contrex.models.classes import imagenet_names
from contrex.settings import ImageNet

SPLITS = ("train", "val")
WNID = re.compile(r"n\d{8}")
ARCHIVE = "ILSVRC"
MAPPING = "LOC_synset_mapping.txt"
COLUMNS = ("ImageId", "PredictionString")

FOLDERS_SHA256 = "385e0240499426c022b773be1ae4da780f057b89c9694c7f47199f62746b6edd"
"""Of the 1000 class folders, sorted, one a line."""


class ImageNetImages(ImageFiles):
    """One split of an `ImageNet` as an `ImageSet`; see the module's docstring for the layouts.

    `wnids` are the class folders and `classes` their names, both in label order; `paths` the samples, by class and then
    by name: `val/n01440764/ILSVRC2012_val_00000293.JPEG`, or without the folder where val is flat. `details` holds name
    and SHA-256 of a list of classes. Unreadable images: see `ImageFiles`.

    Raises `DataError` for another layout, for class folders or images that are missing, and for the test split, whose
    labels were never published; `UnknownNameError` for an unknown split.
    """

    @classmethod
    def recognises(cls, path: Path, prefix: str) -> bool:
        """Whether it is Kaggle's archive, or has WordNet's class folders and, unlike image folders, no tables."""
        if any((path / name).is_dir() for name in ("ILSVRC/Data/CLS-LOC", "Data/CLS-LOC")):
            return True
        if holds(path, "boxes.csv", "labels.csv", "classes.txt"):
            return False
        named = [subfolders(path / split) for split in SPLITS if (path / split).is_dir()]
        return any(named) and all(WNID.fullmatch(name) for names in named for name in names)

    def __init__(self, settings: ImageNet, split: str) -> None:
        self.settings = settings
        layout = _layout(settings.path, split)
        known = _known_classes(layout, split)
        self.wnids = sorted(_listed_classes(settings.classes, known)) if settings.classes else list(known)
        self.classes: Sequence[str] = [known[wnid] for wnid in self.wnids]
        self.details: Mapping[str, object] = _details(settings.classes)
        self._objects = _Objects(layout, split)
        super().__init__(
            layout.data,
            split,
            _flat_images(layout, self.wnids, known, self._objects)
            if self._objects.flat
            else _images(layout, split, self.wnids),
            boxes=_Boxes(self._objects),
            limit_per_class=settings.limit_per_class,
            on_bad_image=settings.on_bad_image,
        )
        self.name = f"{settings.path.name}/{split}"

    def left_out(self, indices: Iterable[int]) -> Mapping[str, int]:
        """How many boxes of these samples are of another class than the image's."""
        paths = [self.paths[index] for index in indices]
        number = sum(object_.name != wnid for path in paths for wnid, object_ in self._objects.named(path))
        return {"of another class than the image's": number} if number else {}


# --- where things are -----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Layout:
    """The folder of train/ and val/, and those of tables and annotations, which may be missing."""

    data: Path
    tables: Path
    annotations: Path


def _layout(root: Path, split: str) -> _Layout:
    if split == "test":
        raise DataError("the test images of ImageNet have no labels: they were never published. Use split 'val'.")
    if split not in SPLITS:
        raise unknown_name("`split` of ImageNet", split, SPLITS)
    if not root.is_dir():
        raise DataError(f"`path` must be a folder with ImageNet's train/ and val/; there is no folder '{root}'")
    bases = (root / ARCHIVE, root, root.parent.parent if root.name == "CLS-LOC" else root)
    base = next((base for base in bases if (base / "Data/CLS-LOC").is_dir()), None)
    data = root if base is None else base / "Data/CLS-LOC"
    base = base or root
    tables = base.parent if base.name == ARCHIVE and (base.parent / MAPPING).is_file() else root
    if not (data / split).is_dir():
        has = f"it has {shortened(subfolders(data))}" if subfolders(data) else "it has no folders"
        raise DataError(
            f"'{data}' has no '{split}/'; {has}. Expected '{split}/n01440764/*.JPEG' in it, or Kaggle's "
            f"'{ARCHIVE}/Data/CLS-LOC/{split}'."
        )
    return _Layout(data, tables, base / "Annotations/CLS-LOC")


# --- classes --------------------------------------------------------------------------------------------------------


def _known_classes(layout: _Layout, split: str) -> dict[str, str]:
    """Names by class folder, sorted by folder."""
    file = layout.tables / MAPPING
    if file.is_file():
        return dict(sorted((wnid, name) for _, (wnid, name) in read_spaced(file, ("folder", "name"))))
    found = {name: subfolders(layout.data / name) for name in SPLITS if (layout.data / name).is_dir()}
    wnids = found[split] or next(filter(None, found.values()), [])
    if not wnids:
        raise DataError(
            f"'{layout.data / split}' has no class folders such as n01440764{_unpacked(layout.data / split)}, and "
            f"there is no '{file}' to say what its images are. Sort them into class folders, or add Kaggle's tables."
        )
    _check_splits_agree(layout, found)
    if hashlib.sha256("\n".join(wnids).encode()).hexdigest() == FOLDERS_SHA256:
        return dict(zip(wnids, imagenet_names(), strict=True))
    return {wnid: wnid for wnid in wnids}


def _check_splits_agree(layout: _Layout, found: Mapping[str, list[str]]) -> None:
    """Refuse splits with different folders: labels are places among them, and all behind a missing one would shift."""
    several = [set(wnids) for wnids in found.values() if wnids]
    different = sorted(several[0].symmetric_difference(several[-1]))
    if different:
        raise DataError(
            f"'{layout.data}' has other class folders in train/ than in val/: only one has {shortened(different)}. "
            f"Unpack the archive again, or add Kaggle's {MAPPING} and list the folders to read in `classes`."
        )


def _unpacked(folder: Path) -> str:
    return ", but tar files: unpack each into a folder of its name" if any(folder.glob("n*.tar")) else ""


def _listed_classes(file: Path, known: Mapping[str, str]) -> list[str]:
    wnids = [text.split()[0] for text in _text(file).splitlines() if text.strip()]
    if not wnids:
        raise DataError(f"`classes` '{file}' lists no class folders: name one on each line, as n01440764.")
    unknown = [wnid for wnid in wnids if wnid not in known]
    if unknown:
        raise DataError(f"`classes` '{file}' lists {shortened(unknown)}, which ImageNet's folders do not have.")
    repeated = sorted({wnid for wnid in wnids if wnids.count(wnid) > 1})
    if repeated:
        raise DataError(f"`classes` '{file}' lists {shortened(repeated)} more than once.")
    return wnids


def _details(file: Path | None) -> dict[str, str]:
    if file is None:
        return {}
    return {"classes_file": file.name, "classes_sha256": hashlib.sha256(file.read_bytes()).hexdigest()}


def _text(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise DataError(f"`classes` must be a file with a class folder on each line; there is no '{file}'") from None
    except UnicodeDecodeError as error:
        raise DataError(f"`classes` '{file}' is not UTF-8 text: {error}") from error


# --- images ---------------------------------------------------------------------------------------------------------


def _images(layout: _Layout, split: str, wnids: Sequence[str]) -> Iterator[tuple[str, int]]:
    """Path and label of each image in a class folder."""
    listed = image_names_below(layout.data, [f"{split}/{wnid}" for wnid in wnids], split=split)
    for label, (wnid, names) in enumerate(zip(wnids, listed, strict=True)):
        folder = layout.data / split / wnid
        if not names:
            archive = folder.with_suffix(".tar")
            advice = f"Unpack '{archive.name}' into it." if archive.exists() else "Unpack the archive again."
            raise DataError(f"'{folder}' has no images. {advice}")
        for name in names:
            yield f"{split}/{wnid}/{name}", label


def _flat_images(
    layout: _Layout, wnids: Sequence[str], known: Mapping[str, str], objects: _Objects
) -> list[tuple[str, int]]:
    """Path and label of each image that lies in val/ itself, by label."""
    labels = {wnid: label for label, wnid in enumerate(wnids)}
    found = []
    for name in image_names(layout.data / "val"):
        wnid = objects.wnid(f"val/{name}")
        if wnid not in known:
            raise DataError(f"{objects.source} gives '{name}' the class {wnid}, which '{layout.tables}' does not have.")
        if wnid in labels:
            found.append((f"val/{name}", labels[wnid]))
    missing = sorted(set(objects.ids()).difference(Path(path).stem for path, _ in found)) if objects.rows else []
    missing = [stem for stem in missing if objects.wnid(f"val/{stem}") in labels]
    if missing:
        raise DataError(f"'{layout.data / 'val'}' has no image {shortened(missing)} of {objects.source}: unpack again.")
    return sorted(found, key=lambda pair: (pair[1], pair[0]))


# --- boxes ----------------------------------------------------------------------------------------------------------


class _Objects:
    """What table or annotations say about the images of a split; `flat` where their class is found nowhere else."""

    def __init__(self, layout: _Layout, split: str) -> None:
        self.flat = split == "val" and not subfolders(layout.data / split)
        self.split = split
        self._annotations = layout.annotations / split
        self._table = layout.tables / f"LOC_{split}_solution.csv"
        self.rows = _rows(self._table) if self._table.is_file() else {}
        self.source = f"'{self._table if self.rows else self._annotations}'"
        if self.flat and not self.rows and not self._annotations.is_dir():
            raise DataError(
                f"the images in '{layout.data / split}' are in no class folders: their classes must be in "
                f"'{self._table}' or '{self._annotations}/*.xml', and neither is there."
            )

    def ids(self) -> list[str]:
        return list(self.rows)

    def named(self, path: str) -> list[tuple[str, Object]]:
        """The class of the image and each of its objects."""
        objects = self.of(path)
        return [(self._wnid(path, objects), object_) for object_ in objects]

    def wnid(self, path: str) -> str:
        """The class of a flat image: that of its objects."""
        objects = self.of(path)
        if not objects:
            raise DataError(f"{self.source} says nothing about '{path}', so its class is unknown. Add or remove it.")
        return objects[0].name

    def of(self, path: str) -> list[Object]:
        """The objects of an image; none where nothing is written about it."""
        image = PurePosixPath(path)
        if self.rows:
            return _parsed(self._table, image.stem, self.rows.get(image.stem, ""))
        folder = self._annotations / image.parent.name if self.split == "train" else self._annotations
        file = folder / f"{image.stem}.xml"
        return read_objects(file, first_pixel=0) if file.is_file() else []

    def _wnid(self, path: str, objects: Sequence[Object]) -> str:
        return objects[0].name if self.flat else PurePosixPath(path).parent.name


class _Boxes(Mapping[str, NDArray[np.float32]]):
    """Boxes float32 [M,4] by image path, read when they are asked for: there are half a million files of them."""

    def __init__(self, objects: _Objects) -> None:
        self._objects = objects

    def __getitem__(self, path: str) -> NDArray[np.float32]:
        boxes = [object_.box for wnid, object_ in self._objects.named(path) if object_.name == wnid]
        if not boxes:
            raise KeyError(path)
        return np.array(boxes, dtype=np.float32)

    def __iter__(self) -> Iterator[str]:
        return iter(self._objects.ids())

    def __len__(self) -> int:
        return len(self._objects.ids())


def _rows(file: Path) -> dict[str, str]:
    missing = [name for name in COLUMNS if name not in read_columns(file)]
    if missing:
        raise DataError(f"'{file}' has no column {', '.join(missing)}; it needs {','.join(COLUMNS)} in its first line")
    return {row[COLUMNS[0]]: row[COLUMNS[1]] for _, row in read_records(file)}


def _parsed(file: Path, image: str, text: str) -> list[Object]:
    words = text.split()
    try:
        if len(words) % 5:
            raise ValueError("it is not five words per box")
        return [
            Object(words[i], edges([float(word) for word in words[i + 1 : i + 5]], first_pixel=0))
            for i in range(0, len(words), 5)
        ]
    except ValueError as error:
        raise DataError(f"'{file}', image {image}: expected 'folder xmin ymin xmax ymax ...'; {error}") from None
