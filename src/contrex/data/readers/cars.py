"""Stanford Cars-196, 16,185 photos of 196 models of cars, one box each, in either published layout.

    PATH/cars_train/00001.jpg, PATH/cars_test/00001.jpg
    PATH/devkit/cars_train_annos.mat            struct array `annotations`: bbox_x1 ... bbox_y2, class, fname
    PATH/cars_test_annos_withlabels.mat         the same for the test images; also in devkit/
    PATH/devkit/cars_meta.mat                   `class_names`

    PATH/car_ims/000001.jpg
    PATH/cars_annos.mat                         `annotations`: relative_im_path, bbox_x1 ... bbox_y2, class, test;
                                                `class_names`

PATH may also be the folder above `stanford_cars`. The corners of a box are its first and last pixels, the image's first
being 1 as MATLAB counts; a sample's boxes are edges. Both layouts have the same split, in another order. The devkit's
own cars_test_annos.mat has no classes. Splits: see `TrainTest`.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from contrex.data.files.folders import holds
from contrex.data.files.matlab import matlab_array, matlab_rows, read_matlab
from contrex.data.readers.listed import (
    Boxes,
    Labelled,
    ListedImages,
    archive_folder,
    parse_label,
    part_of_training,
    pixel_box,
    published_part,
)
from contrex.errors import DataError
from contrex.settings import StanfordCars

NAME = "Stanford Cars"
ARCHIVE = "stanford_cars"
CORNERS = ("bbox_x1", "bbox_y1", "bbox_x2", "bbox_y2")
WITH_LABELS = "cars_test_annos_withlabels.mat"


class StanfordCarsImages(ListedImages):
    """One split of a `StanfordCars` as an `ImageSet`; see the module's docstring for the layouts and the boxes.

    `paths` are the samples (`cars_train/file`, `cars_test/file` or `car_ims/file`) in listed order.

    Raises `DataError` for another layout, damaged files and test annotations without classes, `UnknownNameError` for an
    unknown split.
    """

    @classmethod
    def recognises(cls, path: Path, prefix: str) -> bool:
        """Whether what its archive unpacks to is in `path`."""
        return holds(path, "devkit/cars_meta.mat", "cars_annos.mat", below=ARCHIVE)

    def __init__(self, settings: StanfordCars, split: str) -> None:
        part = published_part(settings, split, NAME)
        folder = settings.path / ARCHIVE
        single = any((root / "cars_annos.mat").exists() for root in (settings.path, folder))
        read = _single_file if single else _two_folders
        root, self.classes, found, boxes = read(settings.path, test=part == "test")
        super().__init__(settings, root, part, part_of_training(found, settings, part), boxes=boxes)


def _single_file(path: Path, *, test: bool) -> tuple[Path, Sequence[str], Labelled, Boxes]:
    root = archive_folder(path, ARCHIVE, ("cars_annos.mat", "car_ims"), NAME)
    file = root / "cars_annos.mat"
    variables = read_matlab(file)
    classes = [str(name) for name in matlab_array(file, variables, "class_names")]
    found: Labelled = []
    boxes: Boxes = {}
    rows = matlab_rows(
        file, matlab_array(file, variables, "annotations"), ("relative_im_path", "class", "test", *CORNERS)
    )
    for number, (image, label, in_test, *corners) in rows:
        if in_test not in ("0", "1"):
            raise DataError(f"'{file}', row {number}: `test` must be 0 or 1, got {in_test}")
        if (in_test == "1") == test:
            found.append((image, parse_label(file, number, label, len(classes))))
            boxes[image] = pixel_box(file, number, corners)
    return root, classes, found, boxes


def _two_folders(path: Path, *, test: bool) -> tuple[Path, Sequence[str], Labelled, Boxes]:
    folder = "cars_test" if test else "cars_train"
    needed = [folder, "devkit/cars_meta.mat", *([] if test else ["devkit/cars_train_annos.mat"])]
    root = archive_folder(path, ARCHIVE, needed, NAME)
    meta, file = root / "devkit" / "cars_meta.mat", _test_file(root) if test else root / "devkit/cars_train_annos.mat"
    classes = [str(name) for name in matlab_array(meta, read_matlab(meta), "class_names")]
    found: Labelled = []
    boxes: Boxes = {}
    rows = matlab_rows(file, matlab_array(file, read_matlab(file), "annotations"), ("fname", "class", *CORNERS))
    for number, (name, label, *corners) in rows:
        image = f"{folder}/{name}"
        found.append((image, parse_label(file, number, label, len(classes))))
        boxes[image] = pixel_box(file, number, corners)
    return root, classes, found, boxes


def _test_file(root: Path) -> Path:
    for file in (root / WITH_LABELS, root / "devkit" / WITH_LABELS):
        if file.exists():
            return file
    raise DataError(
        f"'{root}' has no '{WITH_LABELS}': the devkit's cars_test_annos.mat has no classes, so the test images have no "
        f"labels without it. Put it there, or set `val_share` and use split 'val'."
    )
