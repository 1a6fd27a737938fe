"""Tiny-ImageNet as its archive unpacks: 200 classes of 64 x 64 photos, one box each.

    PATH/wnids.txt                              one class folder per line
    PATH/words.txt                              folder<TAB>name, of all of WordNet
    PATH/train/n01443537/images/n01443537_0.JPEG
    PATH/train/n01443537/n01443537_boxes.txt    file<TAB>xmin<TAB>ymin<TAB>xmax<TAB>ymax; may be missing
    PATH/val/images/val_0.JPEG
    PATH/val/val_annotations.txt                file<TAB>folder<TAB>xmin<TAB>ymin<TAB>xmax<TAB>ymax
    PATH/test/images/test_0.JPEG                without labels: no split here

Labels are the places of the classes in sorted order, as image folders number them, and not the order of wnids.txt. The
maxima of the boxes are the last pixels inside; a sample's boxes are edges, one larger.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from contrex.data.files.folders import ImageFiles, image_names, image_names_below, subfolders
from contrex.data.files.tables import EDGES, parse_box, read_classes, read_tabbed
from contrex.errors import DataError, unknown_name
from contrex.settings import TinyImageNet

IMAGES, ANNOTATIONS = "images", "val_annotations.txt"
SPLITS = ("train", "val")

Boxes = dict[str, NDArray[np.float32]]
"""Boxes float32 [1,4] by image path, edges in stored pixels."""


class TinyImageNetImages(ImageFiles):
    """One split of a `TinyImageNet` as an `ImageSet`; see the module's docstring for the layout.

    `classes` are the names of words.txt, `wnids` the class folders, both in label order; `paths` the samples, by class
    and then by name. Unreadable images: see `ImageFiles`.

    Raises `DataError` for another layout and for the test split, `UnknownNameError` for an unknown one.
    """

    @classmethod
    def recognises(cls, path: Path, prefix: str) -> bool:
        """Whether both tables of its archive are in `path`."""
        return (path / "wnids.txt").exists() and (path / "words.txt").exists()

    def __init__(self, settings: TinyImageNet, split: str) -> None:
        self.settings = settings
        root = settings.path
        _check_layout(root, split)
        self.wnids = sorted({name for name, _ in read_classes(root / "wnids.txt")})
        self.classes: Sequence[str] = _class_names(root / "words.txt", self.wnids)
        found, boxes = _train_images(root, self.wnids) if split == "train" else _val_images(root, self.wnids)
        super().__init__(
            root,
            split,
            found,
            boxes=boxes,
            limit_per_class=settings.limit_per_class,
            on_bad_image=settings.on_bad_image,
        )


def _check_layout(root: Path, split: str) -> None:
    if split == "test":
        raise DataError("the test images of Tiny-ImageNet have no labels: they were never published. Use split 'val'.")
    if split not in SPLITS:
        raise unknown_name("`split` of Tiny-ImageNet", split, SPLITS)
    if not root.is_dir():
        raise DataError(f"`path` must be the unpacked folder of Tiny-ImageNet; there is no folder '{root}'")
    if _has_plain_classes(root / split):
        raise DataError(
            f"'{root / split}' has images directly in its class folders, which is not the layout of Tiny-ImageNet's "
            f"archive: use `Folder` with its `inclusive_boxes`, or unpack the archive again."
        )
    needed = ("wnids.txt", "words.txt", *((f"val/{IMAGES}", f"val/{ANNOTATIONS}") if split == "val" else ("train",)))
    for name in needed:
        if not (root / name).exists():
            raise DataError(f"'{root}' has no '{name}', which Tiny-ImageNet's archive has: unpack it again.")


def _has_plain_classes(folder: Path) -> bool:
    names = subfolders(folder) if folder.is_dir() else []
    return any(name != IMAGES and image_names(folder / name) for name in names)


def _class_names(file: Path, wnids: Sequence[str]) -> list[str]:
    """Readable names; a folder that words.txt lacks stands for itself."""
    names = {wnid: name for _, (wnid, name) in read_tabbed(file, ("folder", "name"))}
    return [names.get(wnid, wnid) for wnid in wnids]


# --- train ----------------------------------------------------------------------------------------------------------


def _train_images(root: Path, wnids: Sequence[str]) -> tuple[list[tuple[str, int]], Boxes]:
    """The training images: paths with labels, and boxes."""
    found: list[tuple[str, int]] = []
    boxes: Boxes = {}
    folders = [f"train/{wnid}/{IMAGES}" for wnid in wnids]
    listed = image_names_below(root, folders, split="train")
    for label, (wnid, folder, names) in enumerate(zip(wnids, folders, listed, strict=True)):
        if not names:
            raise DataError(f"'{root / folder}' has no images, although wnids.txt lists {wnid}: unpack it again.")
        found.extend((f"{folder}/{name}", label) for name in names)
        boxes.update(_class_boxes(root / f"train/{wnid}/{wnid}_boxes.txt", folder, frozenset(names)))
    return found, boxes


def _class_boxes(file: Path, folder: str, names: frozenset[str]) -> Iterator[tuple[str, NDArray[np.float32]]]:
    if file.is_file():
        for line, (name, *edges) in read_tabbed(file, ("file", *EDGES)):
            _check_image(file, line, name, names, folder)
            yield f"{folder}/{name}", _box(file, line, edges)


# --- val ------------------------------------------------------------------------------------------------------------


def _val_images(root: Path, wnids: Sequence[str]) -> tuple[list[tuple[str, int]], Boxes]:
    """The validation images: paths with labels, and boxes."""
    folder, file = f"val/{IMAGES}", root / "val" / ANNOTATIONS
    names = frozenset(image_names(root / folder))
    labels: dict[str, int] = {}
    boxes: Boxes = {}
    for line, (name, wnid, *edges) in read_tabbed(file, ("file", "folder", *EDGES)):
        _check_image(file, line, name, names, folder)
        path = f"{folder}/{name}"
        if wnid not in wnids:
            raise DataError(f"'{file}', line {line}: the class {wnid} is not in wnids.txt")
        if path in labels:
            raise DataError(f"'{file}', line {line}: a second row for '{name}'")
        labels[path], boxes[path] = wnids.index(wnid), _box(file, line, edges)
    unlabelled = sorted(name for name in names if f"{folder}/{name}" not in labels)
    if unlabelled:
        raise DataError(
            f"'{file}' has no row for '{unlabelled[0]}', which lies in '{root / folder}'. Add or remove it."
        )
    return sorted(labels.items(), key=lambda item: (item[1], item[0])), boxes


def _check_image(file: Path, line: int, name: str, names: frozenset[str], folder: str) -> None:
    if name not in names:
        raise DataError(f"'{file}', line {line}: there is no image '{name}' in '{folder}'")


def _box(file: Path, line: int, edges: Sequence[str]) -> NDArray[np.float32]:
    return np.array([parse_box(file, line, edges, inclusive=True)], dtype=np.float32)
