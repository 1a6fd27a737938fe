"""UnRel: a sample per category of a photo, with ImageNet's classes of it, and what is left out or refused."""

from __future__ import annotations

import csv
import pickle
import re
from collections import Counter
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from scipy.io import savemat

from conftest import shared
from contrex.data import UnRelImages, image_set
from contrex.data.readers.unrel import category_classes
from contrex.errors import DataError, UnknownNameError
from contrex.models.classes import imagenet_names
from contrex.settings import UnRel

WIDTH, HEIGHT = 10, 8


def cell(parts: Sequence[Any]) -> np.ndarray:
    """MATLAB's {N,1}."""
    array = np.empty((len(parts), 1), dtype=object)
    array[:, 0] = parts
    return array


def annotation(name: str, *objects: tuple[str, list[int]]) -> dict[str, Any]:
    boxes = [{"category": category, "box": np.array([box], dtype=np.uint16)} for category, box in objects]
    return {"filename": name, "im_id": 1, "objects": cell(boxes), "relationships": cell([])}


ANNOTATIONS = [
    annotation("7.jpg", ("person", [1, 1, 10, 8]), ("traffic_light", [1, 1, 10, 8]), ("dog", [2, 3, 4, 5])),
    annotation("12.jpg", ("elephant", [3, 3, 3, 3]), ("dog", [1, 1, 2, 2]), ("dog", [5, 6, 7, 8])),
    annotation("3.jpg", ("pizza", [1, 2, 3, 4])),
    annotation("4.jpg"),
    annotation("5.jpg", ("giraffe", [1, 2, 3, 4])),
]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "unrel-dataset"
    (folder / "images").mkdir(parents=True)
    for number in (7, 12, 3, 4, 5):
        Image.new("RGB", (WIDTH, HEIGHT), "teal").save(folder / f"images/{number}.jpg")
    savemat(folder / "annotations.mat", {"annotations": cell(ANNOTATIONS)})
    return folder


def read(path: Path, **options: Any) -> UnRelImages:
    return UnRelImages(UnRel(path, **options), "test")


# --- samples --------------------------------------------------------------------------------------------------------


def test_a_sample_for_each_category(root: Path) -> None:
    images = image_set(UnRel(root), "test")
    assert isinstance(images, UnRelImages)
    assert {sample.path: sample.boxes.tolist() for sample in images} == {
        "images/7.jpg:dog": [[1, 2, 4, 5]],
        "images/7.jpg:traffic light": [[0, 0, 10, 8]],
        "images/12.jpg:dog": [[0, 0, 2, 2], [4, 5, 7, 8]],
        "images/12.jpg:elephant": [[2, 2, 3, 3]],
        "images/3.jpg:pizza": [[0, 1, 3, 4]],
    }
    assert (images.name, images.skipped) == ("unrel-dataset/test", [])
    assert images[0].image.size == (WIDTH, HEIGHT)
    assert len(pickle.loads(pickle.dumps(images))[2].boxes) == 2


def test_labels_are_sets_of_imagenets_classes(root: Path) -> None:
    images = read(root)
    assert tuple(images.classes) == imagenet_names()
    assert [images.classes[label] for label in images.labels] == [
        *("Chihuahua", "traffic light", "Chihuahua", "African elephant", "pizza")
    ]
    dog, light, _, elephant, _ = images
    assert (dog.label, dog.also) == (151, tuple(range(152, 269)))
    assert (light.label, light.also) == (920, ())
    assert {images.classes[index] for index in elephant.also} == {"Indian elephant", "tusker"}
    assert set(images.details) == {"categories", "classes_sha256"}


def test_chosen_categories(root: Path) -> None:
    images = read(root.parent, categories=("pizza", "dog"), limit_per_class=1)
    assert [sample.path for sample in images] == ["images/7.jpg:dog", "images/3.jpg:pizza"]
    assert images.details["categories"] == "dog, pizza"
    with pytest.raises(UnknownNameError, match=r"`categories` of UnRel, those with classes of ImageNet, .*'giraffe'"):
        read(root, categories=("giraffe",))


def test_unreadable_images_are_listed_once(root: Path) -> None:
    (root / "images/7.jpg").write_bytes(b"")
    images = read(root, on_bad_image="skip")
    assert (len(images), len(images.skipped)) == (3, 1)


# --- the table of classes -------------------------------------------------------------------------------------------


def test_the_table_names_imagenets_classes() -> None:
    """Every row agrees with torchvision's names, but for hyphens and blanks, and no category repeats a class."""
    rows = list(csv.DictReader((files("contrex.data") / "unrel_classes.csv").read_text().splitlines()))
    names = imagenet_names()
    assert [letters(row["class"]) for row in rows] == [letters(names[int(row["class_index"])]) for row in rows]
    pairs = Counter((row["category"], row["class_index"]) for row in rows)
    assert max(pairs.values()) == 1
    assert len(category_classes()) == 68


def letters(name: str) -> str:
    return re.sub("[^a-z]", "", name.lower())


def test_the_table_agrees_with_the_published_classes() -> None:
    published = [
        line.split("\t") for line in shared("data", "imagenet_val_500", "classes.txt").read_text().splitlines()
    ]
    rows = csv.DictReader((files("contrex.data") / "unrel_classes.csv").read_text().splitlines())
    for row in rows:
        _, folder, synonyms = published[int(row["class_index"])]
        assert (folder, synonyms.split(",")[0]) == (row["folder"], row["class"])


# --- refused --------------------------------------------------------------------------------------------------------


def refuses(root: Path, reason: str) -> None:
    with pytest.raises(DataError, match=reason):
        read(root)


def test_missing_parts(root: Path) -> None:
    refuses(root / "nowhere", "`path` must be the folder with UnRel; there is no folder")
    refuses(root / "images", r"is not UnRel: it has none of images, annotations.mat, as 'unrel-dataset'")
    (root / "images/12.jpg").unlink()
    refuses(root, "lacks 1 of the 3 images of this split: images/12.jpg. Unpack the archive again. Or leave them out")
    (root / "annotations.mat").unlink()
    refuses(root, r"has no 'annotations.mat', which the archive of UnRel has: unpack it again")


def test_splits(root: Path) -> None:
    with pytest.raises(UnknownNameError, match="`split` of UnRel must be one of test; got 'val'"):
        UnRelImages(UnRel(root), "val")


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ({"triplets": cell(["dog-ride-bike"])}, "has no variable 'annotations', it has triplets"),
        ({"annotations": cell([{"im_id": 3}])}, "annotation 1: .*filename"),
        ({"annotations": cell([annotation("3.jpg", ("dog", [1, 2, 3]))])}, "annotation 1: not enough values"),
        (
            {"annotations": cell([annotation("3.jpg", ("dog", [5, 2, 3, 4]))])},
            "annotation 1: the box 5, 2, 3, 4 is empty",
        ),
    ],
)
def test_bad_annotations(root: Path, content: dict[str, Any], reason: str) -> None:
    savemat(root / "annotations.mat", content)
    refuses(root, reason)


def test_a_file_that_matlab_did_not_write(root: Path) -> None:
    (root / "annotations.mat").write_text("annotations")
    refuses(root, r"annotations.mat' is not a readable MATLAB file")
