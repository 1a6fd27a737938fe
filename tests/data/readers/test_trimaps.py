"""Trimaps in a folder beside image folders."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from archives import HEIGHT, WIDTH, mask_picture, picture, write
from conftest import shared
from contrex.data.files.masks import mask_box
from contrex.data.readers.folder import FolderImages
from contrex.errors import DataError
from contrex.settings import Folder


def image_folder(root: Path) -> Path:
    for split, name in (("train", "1"), ("val", "2")):
        for breed in ("cat", "dog"):
            picture(root / split / breed / f"{name}.jpg")
    return root


def trimap(file: Path, rows: int) -> None:
    values = np.full((HEIGHT, WIDTH), 2)
    values[:rows], values[rows] = 1, 3
    mask_picture(file, values)


def test_trimaps_by_name(tmp_path: Path) -> None:
    root = image_folder(tmp_path)
    trimap(root / "masks" / "cat" / "1.png", 4)
    trimap(root / "masks" / "1.png", 9)
    images = FolderImages(Folder(root, trimaps=Path("masks")), "train")
    assert [sample.mask.sum() for sample in images] == [5 * WIDTH, 10 * WIDTH]
    assert FolderImages(Folder(root, trimaps=Path("masks") / "cat"), "train")[1].mask.sum() == 5 * WIDTH


def test_labels_csv_rules_over_trimaps(tmp_path: Path) -> None:
    root = image_folder(tmp_path)
    trimap(root / "masks" / "cat" / "1.png", 4)
    trimap(root / "special.png", 7)
    write(root / "labels.csv", "path,trimap", "train/cat/1.jpg,special.png")
    images = FolderImages(Folder(root, trimaps=Path("masks")), "train")
    assert (images[0].mask.sum(), images[1].mask) == (8 * WIDTH, None)


def test_missing_trimaps(tmp_path: Path) -> None:
    root = image_folder(tmp_path)
    with pytest.raises(DataError, match=r"`trimaps` must be a folder below `path`; there is no folder '.*masks'"):
        FolderImages(Folder(root, trimaps=Path("masks")), "train")
    trimap(root / "masks" / "cat" / "3.png", 4)
    with pytest.raises(DataError, match=r"masks' has no trimap of any image of this split; .*for 'train/cat/1.jpg'"):
        FolderImages(Folder(root, trimaps=Path("masks")), "train")


def test_trimaps_of_real_pets(tmp_path: Path) -> None:
    """The body boxes of the sample were made from its trimaps, with the border as object."""
    pets_sample = shared("data", "oxford_pets_sample")
    for name in ("train", "val", "trimaps", "boxes.csv"):
        (tmp_path / name).symlink_to(pets_sample / name)
    settings = Folder(tmp_path, box_kinds=("body_from_trimap",), trimaps=Path("trimaps"))
    for split, count in (("train", 450), ("val", 150)):
        images = FolderImages(settings, split)
        assert len(images) == count
        for index in range(0, count, 90):
            sample = images[index]
            np.testing.assert_array_equal(mask_box(sample.mask), sample.boxes)
