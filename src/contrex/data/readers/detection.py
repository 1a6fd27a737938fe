"""Detection sets, in the layout of Pascal VOC or of COCO, for judging heatmaps by the boxes of the explained category.

    PATH/JPEGImages/2007_000027.jpg                 Pascal VOC; PATH may also be the folder above, with one VOC* in it
    PATH/Annotations/2007_000027.xml
    PATH/ImageSets/Main/train.txt, val.txt, ...     the splits: a name on each line

    PATH/annotations/instances_val2017.json         COCO; also directly in PATH
    PATH/val2017/000000000139.jpg                   or images/val2017/, or images/

An image with a dog and two persons is two samples: `dog` with one box, `person` with two. A sample's path is the
image's with the category behind it, `JPEGImages/2007_000027.jpg:person`. Images without objects give none.

Pascal VOC counts pixels from 1 and its maxima are the last pixels inside; its classes are the published twenty, or
where an annotation names another one, the sorted names of all annotations. Objects marked difficult are left out unless
`difficult` is set, as VOC's own evaluation does. COCO's boxes are x, y, width, height, and its classes the categories
in the order of their ids; boxes around crowds are left out unless `crowd` is set, and boxes without area always.
`left_out` counts both.

A split of COCO is the name in its file, as `val2017`, or the part before the year where only one file has it. The test
images of VOC 2008-2012 and of COCO were published without objects and are refused.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import isfinite
from pathlib import Path
from typing import Any

from contrex.data.files.annotations import Box, Object, read_objects
from contrex.data.files.folders import image_names, shortened
from contrex.data.readers.categories import Category, CategoryFiles
from contrex.errors import DataError, unknown_name
from contrex.settings import Detection

VOC_CLASSES = (
    *("aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow", "diningtable", "dog"),
    *("horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor"),
)


@dataclass(frozen=True)
class _Found:
    """What a split holds: its classes, and the objects by image file, relative to `root`."""

    root: Path
    classes: Sequence[str]
    objects: Mapping[str, Sequence[Object]]
    left_out: Mapping[str, int]


class DetectionImages(CategoryFiles):
    """One split of a `Detection` as an `ImageSet`; see the module's docstring for layouts and samples.

    Unreadable images: see `ImageFiles`.

    Raises `DataError` for another layout, missing images or annotations and damaged ones; `UnknownNameError` for a
    split or category that is not there.
    """

    @classmethod
    def recognises(cls, path: Path, prefix: str) -> bool:
        """Whether there is a set in the layout that `prefix` is of."""
        return bool(voc_folders(path) if prefix == "voc" else coco_files(path))

    def __init__(self, settings: Detection, split: str) -> None:
        self.settings = settings
        voc, coco = voc_folders(settings.path), coco_files(settings.path)
        layout = settings.layout or ("voc" if voc else "coco")
        if not (voc if layout == "voc" else coco):
            raise _nothing_found(settings.path, settings.layout)
        found = _voc(voc, split, settings) if layout == "voc" else _coco(settings.path, coco, split, settings)
        self.classes: Sequence[str] = found.classes
        self._left_out = found.left_out
        super().__init__(
            found.root,
            split,
            _categories(found, settings.categories),
            limit_per_class=settings.limit_per_class,
            on_bad_image=settings.on_bad_image,
        )
        self.name = f"{settings.path.name}/{split}"

    def left_out(self, indices: Iterable[int]) -> Mapping[str, int]:
        """How many boxes of the whole split are left out: difficult ones, those of crowds and those without area."""
        return self._left_out


def _nothing_found(path: Path, layout: str | None) -> DataError:
    if not path.is_dir():
        return DataError(f"`path` must be a folder with a detection set; there is no folder '{path}'")
    voc, coco = "JPEGImages/, Annotations/ and ImageSets/Main/ of Pascal VOC", "annotations/instances_*.json of COCO"
    wanted = {"voc": voc, "coco": coco, None: f"{voc}, nor {coco}"}[layout]
    return DataError(f"'{path}' has no {wanted}. Name the folder that has them, or unpack the archive again.")


def _categories(found: _Found, wanted: Sequence[str]) -> Iterator[Category]:
    """The samples: by image in the order of the split, then by class."""
    for name in wanted:
        if name not in found.classes:
            raise unknown_name("`categories`", name, found.classes)
    labels = {name: label for label, name in enumerate(found.classes)}
    for file, objects in found.objects.items():
        boxes: dict[str, list[Box]] = {}
        for one in objects:
            boxes.setdefault(one.name, []).append(one.box)
        for name in sorted(boxes, key=labels.__getitem__):
            if not wanted or name in wanted:
                yield Category(file, name, labels[name], boxes[name])


# --- Pascal VOC -----------------------------------------------------------------------------------------------------


def voc_folders(path: Path) -> list[Path]:
    """The folders in the layout of Pascal VOC at or below `path`."""
    candidates = [path, *sorted(path.glob("VOC*")), *sorted(path.glob("VOCdevkit/VOC*"))]
    return [one for one in candidates if all((one / name).is_dir() for name in ("JPEGImages", "Annotations"))]


def _voc(folders: Sequence[Path], split: str, settings: Detection) -> _Found:
    if len(folders) > 1:
        raise DataError(f"'{settings.path}' has several sets: name one as `path`, as in '{folders[0]}'.")
    root = folders[0]
    names = {Path(name).stem: name for name in image_names(root / "JPEGImages")}
    objects: dict[str, list[Object]] = {}
    left_out: Counter[str] = Counter()
    for image in _voc_split(root / "ImageSets/Main", split):
        if image not in names:
            raise DataError(f"'{root / 'JPEGImages'}' has no image '{image}' of split '{split}'. Unpack it again.")
        every = read_objects(_voc_annotation(root, image, split), first_pixel=1)
        kept = [one for one in every if settings.difficult or not one.difficult]
        left_out["difficult"] += len(every) - len(kept)
        objects[f"JPEGImages/{names[image]}"] = kept
    return _Found(root, _voc_classes(root, objects.values()), objects, +left_out)


def _voc_split(folder: Path, split: str) -> list[str]:
    """The images of a split, whose file has a name on each line and nothing, or a number, behind it."""
    splits = sorted(file.stem for file in folder.glob("*.txt") if "_" not in file.stem)
    if not splits:
        raise DataError(f"'{folder}' has no train.txt, val.txt or other list of images. Unpack the archive again.")
    if split not in splits:
        raise unknown_name(f"`split` of '{folder}'", split, splits)
    return [line.split()[0] for line in (folder / f"{split}.txt").read_text("utf-8").splitlines() if line.strip()]


def _voc_annotation(root: Path, image: str, split: str) -> Path:
    file = root / "Annotations" / f"{image}.xml"
    if file.is_file():
        return file
    raise DataError(
        f"there is no annotation '{file}' of split '{split}': it was published without objects, as the test images of "
        f"VOC 2008-2012, or is not unpacked. Choose another split, or unpack the annotations."
    )


def _voc_classes(root: Path, objects: Iterable[Sequence[Object]]) -> Sequence[str]:
    if {one.name for several in objects for one in several} <= set(VOC_CLASSES):
        return VOC_CLASSES
    files = sorted((root / "Annotations").glob("*.xml"))
    return sorted({one.name for file in files for one in read_objects(file, first_pixel=1)})


# --- COCO -----------------------------------------------------------------------------------------------------------


def coco_files(path: Path) -> dict[str, Path]:
    """The annotation files of COCO at `path` by the split in their name, as `val2017`."""
    files = [*path.glob("instances_*.json"), *path.glob("annotations/instances_*.json")]
    return {file.stem.removeprefix("instances_"): file for file in sorted(files)}


def _coco(path: Path, files: Mapping[str, Path], split: str, settings: Detection) -> _Found:
    name = _coco_split(files, split, path)
    content = _Coco(files[name])
    folder = _coco_images(path, name, split, content)
    objects: dict[str, list[Object]] = {f"{folder}{file}": [] for file in content.images.values()}
    left_out: Counter[str] = Counter()
    for image, crowd, one in content.objects():
        if crowd and not settings.crowd:
            left_out["crowd"] += 1
        elif one.box[2] <= one.box[0] or one.box[3] <= one.box[1]:
            left_out["without area"] += 1
        else:
            objects[f"{folder}{image}"].append(one)
    return _Found(path, list(content.categories.values()), objects, +left_out)


def _coco_split(files: Mapping[str, Path], split: str, path: Path) -> str:
    """The name of the split's file: `split` itself, or with a year behind it."""
    if split in files:
        return split
    dated = [name for name in files if name.rstrip("0123456789") == split]
    if len(dated) > 1:
        raise DataError(f"'{path}' has several '{split}' splits: name one of {', '.join(dated)}.")
    if not dated:
        raise unknown_name(f"`split` of '{path}'", split, files)
    return dated[0]


def _coco_images(path: Path, name: str, split: str, content: _Coco) -> str:
    """The folder of the images relative to `path`, with a slash behind it; all of them must be there."""
    folders = list(dict.fromkeys((f"{name}/", f"images/{name}/", f"{split}/", f"images/{split}/", "images/", "")))
    first = next(iter(content.images.values()), "")
    folder = next((folder for folder in folders if (path / folder / first).is_file()), None)
    if folder is None:
        raise DataError(f"'{path}' has no image '{first}' of '{content.file.name}' in {', '.join(folders[:-1])}.")
    missing = [file for file in content.images.values() if not (path / folder / file).is_file()]
    if missing:
        raise DataError(f"'{path / folder}' has no {shortened(missing)}, of '{content.file.name}'. Unpack it again.")
    return folder


class _Coco:
    """An annotation file: `images` are file names by id, `categories` class names by id, in the order of their ids."""

    def __init__(self, file: Path) -> None:
        self.file = file
        try:
            content = json.loads(file.read_bytes())
            self.images: dict[int, str] = {one["id"]: str(one["file_name"]) for one in content["images"]}
            self.categories = dict(sorted((int(one["id"]), str(one["name"])) for one in content["categories"]))
            self._annotations: list[dict[str, Any]] = content["annotations"]
        except (ValueError, TypeError, RecursionError) as error:
            raise DataError(f"'{file}' is not a readable annotation file: {error}") from None
        except KeyError as error:
            raise DataError(f"'{file}' has no {error}, which COCO's files of objects have.") from None
        if not self.images or not self.categories:
            raise DataError(f"'{file}' has {len(self.images)} images and {len(self.categories)} categories.")

    def objects(self) -> Iterator[tuple[str, bool, Object]]:
        """Each object's image file, whether it is a crowd, and the object; its box may have no area."""
        for number, one in enumerate(self._annotations):
            try:
                x, y, width, height = (float(side) for side in one["bbox"])
                if not all(map(isfinite, (x, y, width, height))):
                    raise ValueError(f"the box {one['bbox']} is not four numbers")
                name, image = self.categories[one["category_id"]], self.images[one["image_id"]]
            except (KeyError, TypeError, ValueError) as error:
                raise DataError(f"'{self.file}', annotation {number}: {type(error).__name__}: {error}") from None
            yield image, bool(one.get("iscrowd", 0)), Object(name, (x, y, x + width, y + height))
