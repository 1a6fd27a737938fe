"""Flowers-102, Food-101 and Oxford-IIIT Pet: labels, names, boxes, masks, and lists that do not agree."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.io import savemat

from archives import HEIGHT, WIDTH, boxes, flowers, food, mask_picture, pets, read, write
from contrex.data.files.masks import mask_box
from contrex.data.readers.flowers import flower_mask
from contrex.errors import DataError
from contrex.settings import Flowers102, Food101, OxfordPets

# --- Flowers-102 ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("train_on", "train", "val", "test"),
    [
        ("trainval", [5, 6, 1, 2], [3, 4, 7, 8], [3, 4, 7, 8]),
        ("train", [5, 6], [1, 2], [3, 4, 7, 8]),
        ("test", [3, 4, 7, 8], [1, 2], [5, 6]),
    ],
)
def test_flowers(archives: dict[Any, Path], train_on: Any, train: list[int], val: list[int], test: list[int]) -> None:
    for split, numbers in (("train", train), ("val", val), ("test", test)):
        images = read(Flowers102(archives[Flowers102], train_on=train_on), split)
        assert images.paths == [f"jpg/image_{number:05d}.jpg" for number in numbers]
        assert images.labels.tolist() == [(number - 1) % 2 for number in numbers]
        assert (images.classes, images[0].mask, images[0].boxes.shape) == (["1", "2"], None, (0, 4))


def test_flower_names_and_masks(tmp_path: Path) -> None:
    root = flowers(tmp_path)
    write(root / "classes.txt", "pink primrose", "h\u00e9l\u00e9nie")
    segmentation = np.full((HEIGHT, WIDTH, 3), (0, 0, 254))
    segmentation[8:24, 16:32] = (120, 60, 230)
    for number in (3, 4):
        mask_picture(root / "segmim" / f"segmim_{number:05d}.jpg", segmentation)
    images = read(Flowers102(root), "test")
    assert images.classes == ["pink primrose", "h\u00e9l\u00e9nie"]
    assert images[0].mask is not None
    assert images[2].mask is None
    assert mask_box(images[0].mask).tolist() == [[16, 8, 32, 24]]
    assert images[0].mask.sum() == 16 * 16


def test_flower_mask_of_blue_flowers() -> None:
    """Violet and pale blue are petals; what JPEG makes of (0, 0, 255) is not."""
    pixels = np.array([[[0, 0, 255], [10, 5, 240], [64, 64, 191]], [[65, 0, 255], [120, 110, 255], [30, 20, 180]]])
    assert flower_mask(pixels.astype(np.uint8)).tolist() == [[False] * 3, [True] * 3]


@pytest.mark.parametrize(
    ("file", "variables", "reason"),
    [
        ("setid.mat", {"tstid": [[9]]}, r"setid.mat' lists image 9, and imagelabels.mat has labels for 8"),
        ("setid.mat", {"tstid": [[3, 3]]}, r"setid.mat' lists some images of tstid more than once"),
        ("setid.mat", {"tstid": [[0, 1]]}, r"setid.mat': `tstid` must hold whole numbers from 1 on"),
        ("setid.mat", {"trnid": [[1]]}, r"setid.mat' has no variable 'tstid', it has trnid"),
        ("imagelabels.mat", {"labels": [[1.5, 2]]}, r"imagelabels.mat': `labels` must hold whole numbers from 1 on"),
    ],
)
def test_flowers_bad_lists(tmp_path: Path, file: str, variables: dict[str, Any], reason: str) -> None:
    savemat(flowers(tmp_path) / file, variables)
    with pytest.raises(DataError, match=reason):
        read(Flowers102(tmp_path), "test")


def test_a_large_label_does_not_fill_the_memory_with_names(tmp_path: Path) -> None:
    savemat(flowers(tmp_path) / "imagelabels.mat", {"labels": [[1, 1e15]]})
    (tmp_path / "classes.txt").unlink(missing_ok=True)
    with pytest.raises(DataError, match=r"imagelabels.mat' has the label 1000000000000000, too large to be the number"):
        read(Flowers102(tmp_path), "test")


def test_flowers_with_too_few_names(tmp_path: Path) -> None:
    write(flowers(tmp_path) / "classes.txt", "pink primrose")
    with pytest.raises(DataError, match=r"classes.txt' has 1 names, imagelabels.mat has 2 classes"):
        read(Flowers102(tmp_path), "test")


# --- Food-101 -------------------------------------------------------------------------------------------------------


def test_food(archives: dict[Any, Path]) -> None:
    images = read(Food101(archives[Food101]), "train")
    assert images.classes == ["Apple pie", "Cr\u00e8me br\u00fbl\u00e9e"]
    assert images.paths[3:5] == ["images/apple_pie/4.jpg", "images/cr\u00e8me_br\u00fbl\u00e9e/1005649.jpg"]
    assert images.labels.tolist() == [0] * 4 + [1] * 4
    assert (images[0].boxes.shape, images[0].mask) == ((0, 4), None)


@pytest.mark.parametrize(
    ("name", "lines", "reason"),
    [
        ("labels.txt", ["Apple pie"], r"labels.txt' has 1 names, classes.txt has 2"),
        (
            "test.txt",
            ["waffles/1"],
            r"test.txt', line 1: expected folder/number of a folder in classes.txt, got 'waffl",
        ),
        ("test.txt", ["apple_pie/1011328"] * 2, r"test.txt', line 2: a second row for 'apple_pie/1011328'"),
        ("test.txt", [""], r"test.txt' lists no images"),
    ],
)
def test_food_lists_that_do_not_agree(tmp_path: Path, name: str, lines: list[str], reason: str) -> None:
    write(food(tmp_path) / "meta" / name, *lines)
    with pytest.raises(DataError, match=reason):
        read(Food101(tmp_path), "test")


# --- Oxford-IIIT Pet ------------------------------------------------------------------------------------------------


def test_pets(archives: dict[Any, Path]) -> None:
    images = read(OxfordPets(archives[OxfordPets]), "train")
    assert images.classes == ["Abyssinian", "american bulldog"]
    assert images.paths[:2] == ["images/Abyssinian_100.jpg", "images/Abyssinian_12.jpg"]
    assert boxes(images) == [[[10, 5, 30, 20]]] * 4
    inner = read(OxfordPets(archives[OxfordPets], border="background"), "train")
    assert boxes(inner) == [[[12, 7, 28, 18]]] * 4
    assert (images[0].mask.sum(), inner[0].mask.sum()) == (20 * 15, 16 * 11)


def test_pet_heads(archives: dict[Any, Path]) -> None:
    images = read(OxfordPets(archives[OxfordPets], boxes="head"), "train")
    assert boxes(images) == [[[10, 5, 20, 12]], [], [], []]
    assert images[0].mask.sum() == 20 * 15
    assert boxes(read(OxfordPets(archives[OxfordPets], boxes="head"), "test")) == [[], []]


def test_pets_without_trimaps_or_heads(tmp_path: Path) -> None:
    root = pets(tmp_path)
    (root / "annotations" / "xmls").rename(root / "elsewhere")
    assert len(read(OxfordPets(root), "train")) == 4
    with pytest.raises(DataError, match=r"has no 'annotations/xmls', which the archive of Oxford-IIIT Pet has"):
        read(OxfordPets(root, boxes="head"), "train")
    (root / "annotations" / "trimaps" / "Abyssinian_7.png").unlink()
    with pytest.raises(
        DataError, match=r"lacks 1 of the 2 trimaps of this split: annotations/trimaps/Abyssinian_7.png"
    ):
        read(OxfordPets(root), "test")


@pytest.mark.parametrize(
    ("lines", "reason"),
    [
        (["Abyssinian_7 1 1 1"] * 2, r"test.txt', line 2: a second row for 'Abyssinian_7'"),
        (["Abyssinian_7 1 1"], r"test.txt', line 1: expected name class species breed, got 'Abyssinian_7 1 1'"),
        (["Bengal_7 1 1 1"], r"class 1 has photos of 'Abyssinian' and of 'Bengal'"),
        (["Bengal_7 4 1 1"], r"the lists have the classes \[1, 2, 4\]; expected 1..3"),
        ([], r"test.txt' lists no images"),
    ],
)
def test_pets_lists_that_do_not_agree(tmp_path: Path, lines: list[str], reason: str) -> None:
    write(pets(tmp_path) / "annotations" / "test.txt", *lines)
    with pytest.raises(DataError, match=reason):
        read(OxfordPets(tmp_path), "test")


def test_mask_box_of_an_empty_mask() -> None:
    assert mask_box(np.zeros((3, 4), dtype=np.bool_)).shape == (0, 4)
