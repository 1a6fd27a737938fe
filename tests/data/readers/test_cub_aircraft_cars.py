"""CUB-200-2011, FGVC-Aircraft and Stanford Cars: labels, names, boxes, masks, and lists that do not agree."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from scipy.io import savemat

from archives import (
    BIRDS,
    CARS,
    CORNERS,
    HEIGHT,
    PLANES,
    WIDTH,
    aircraft,
    annotations,
    boxes,
    cars,
    cub,
    mask_picture,
    old_cars,
    picture,
    read,
    write,
)
from contrex.errors import DataError
from contrex.settings import CUB200, FGVCAircraft, StanfordCars

# --- CUB-200-2011 ---------------------------------------------------------------------------------------------------


def test_cub(archives: dict[Any, Path]) -> None:
    images = read(CUB200(archives[CUB200]), "train")
    assert images.classes == ["Black footed Albatross", "Laysan Albatross"]
    assert images.paths == [f"images/{BIRDS[n // 5]}/Bird_{n:04d}_{n * 7}.jpg" for n in (1, 2, 5, 6)]
    assert boxes(images) == [[[n, 2.5, n + 20, 12.5]] for n in (1, 2, 5, 6)]
    assert images[0].mask is None


@pytest.mark.parametrize("beside", [False, True])
def test_cub_segmentations(tmp_path: Path, beside: bool) -> None:
    """Grey is the share of annotators: three of five make a pixel object, two do not."""
    root = cub(tmp_path / "CUB_200_2011")
    images = read(CUB200(root), "train")
    folder = (tmp_path if beside else root) / "segmentations"
    votes = np.zeros((HEIGHT, WIDTH))
    votes[:10], votes[10:12] = 153, 102
    picture(root / images.paths[0], orientation=6)
    for path in images.paths:
        mask_picture((folder / Path(path).relative_to("images")).with_suffix(".png"), votes)
    upright, plain = (read(CUB200(tmp_path), "train")[n].mask for n in (0, 1))
    np.testing.assert_array_equal(plain, votes > 127)
    np.testing.assert_array_equal(upright, np.rot90(votes > 127, -1))
    missing = folder / BIRDS[0] / "Bird_0001_7.png"
    mask_picture(missing, votes[1:])
    with pytest.raises(DataError, match=r"Bird_0001_7.png' is 40x29 pixels, its image 'images/.*' is stored as 40x30"):
        read(CUB200(root), "train")[0]
    missing.write_bytes(b"")
    with pytest.raises(DataError, match=r"the segmentation of 'images/.*': cannot read image .*empty.*Unpack"):
        read(CUB200(root), "train")[0]
    missing.unlink()
    with pytest.raises(DataError, match=r"lacks 1 of the 4 segmentations of this split: .*Bird_0001_7.png"):
        read(CUB200(root), "train")


@pytest.mark.parametrize(
    ("name", "lines", "reason"),
    [
        (
            "train_test_split.txt",
            ["1 1", "2 0"],
            r"has 2 rows and images.txt has 8: only one of them has image 3, 4, 5",
        ),
        ("bounding_boxes.txt", ["9 1 1 1 1"], r"bounding_boxes.txt' has 1 rows and images.txt has 8"),
        ("images.txt", ["1 a.jpg", "1 b.jpg"], r"images.txt', line 2: a second row for 1"),
        ("images.txt", ["one a.jpg"], r"images.txt', line 1: expected a whole number.*got 'one'"),
        ("images.txt", ["1"], r"images.txt', line 1: expected number images, got '1'"),
        ("classes.txt", ["1 001.A", "3 003.C"], r"classes.txt': the class numbers must be 1..2, each once"),
        ("classes.txt", ["1 001.A"], r"image_class_labels.txt', line 5: class 2 is not in 1..1"),
    ],
)
def test_cub_tables_that_do_not_agree(tmp_path: Path, name: str, lines: list[str], reason: str) -> None:
    write(cub(tmp_path) / name, *lines)
    with pytest.raises(DataError, match=reason):
        read(CUB200(tmp_path), "train")


@pytest.mark.parametrize(
    ("name", "row", "reason"),
    [
        ("train_test_split.txt", "1 yes", r"line 1: expected 1 \(training\) or 0 \(test\), got 'yes'"),
        ("bounding_boxes.txt", "1 1 1 5", r"line 1: expected number x y width height, got '1 1 5' after the number"),
        ("bounding_boxes.txt", "1 1 1 0 5", r"line 1: the box 1 1 0 5 is empty; width and height must be positive"),
        ("bounding_boxes.txt", "1 1 nan 5 5", r"line 1: y must be a number, got 'nan'"),
    ],
)
def test_cub_bad_rows(tmp_path: Path, name: str, row: str, reason: str) -> None:
    file = cub(tmp_path) / name
    write(file, row, *file.read_text().splitlines()[1:])
    with pytest.raises(DataError, match=reason):
        read(CUB200(tmp_path), "train")


# --- FGVC-Aircraft --------------------------------------------------------------------------------------------------


def test_aircraft(archives: dict[Any, Path]) -> None:
    images = read(FGVCAircraft(archives[FGVCAircraft]), "train")
    assert (images.name, images.classes) == ("archive/train", ["Boeing 737 \u2013 200", "F/A-18"])
    assert images.paths == [f"data/images/{number}.jpg" for number in (*PLANES["train"], *PLANES["val"])]
    assert images.labels.tolist() == [0, 1, 0, 1]
    assert boxes(images) == [[[xmin, 1, 40, 25]] for xmin in (0, 0, 1, 2)]


def test_aircraft_levels_and_parts(archives: dict[Any, Path]) -> None:
    settings = FGVCAircraft(archives[FGVCAircraft], level="manufacturer", train_on="train")
    parts = {split: read(settings, split) for split in ("train", "val", "test")}
    assert all(images.classes == ["Boeing"] for images in parts.values())
    assert {split: [Path(path).stem for path in images.paths] for split, images in parts.items()} == {
        split: list(numbers) for split, numbers in PLANES.items()
    }
    assert parts["val"].name == "archive/val"


def test_aircraft_banner(archives: dict[Any, Path]) -> None:
    kept, cut = (read(FGVCAircraft(archives[FGVCAircraft], remove_banner=cut), "test")[0] for cut in (False, True))
    assert (kept.image.size, cut.image.size) == ((40, 30), (40, 10))
    assert kept.boxes.tolist() == [[3, 1, 40, 25]]
    assert cut.boxes.tolist() == [[3, 1, 40, 10]]
    assert (cut.label, cut.path) == (kept.label, kept.path)


def test_aircraft_banner_of_small_images_and_boxes_in_it(tmp_path: Path) -> None:
    root = aircraft(tmp_path)
    small, inside = (root / "data" / "images" / f"{number}.jpg" for number in PLANES["test"])
    Image.new("RGB", (8, 20)).save(small)
    write(root / "data" / "images_box.txt", "0481847 1 1 8 20", "1514522 5 15 20 30")
    images = read(FGVCAircraft(root, remove_banner=True), "test")
    assert (images[0].image.size, images[0].boxes.tolist()) == ((8, 20), [[0, 0, 8, 20]])
    assert (images[1].image.size, images[1].boxes.shape) == ((40, 10), (0, 4))
    assert inside.is_file()


@pytest.mark.parametrize(
    ("name", "lines", "reason"),
    [
        ("images_variant_test.txt", ["0481847 Airbus"], r"line 1: the class 'Airbus' is not in variants.txt"),
        ("images_variant_test.txt", ["0481847 F/A-18"] * 2, r"line 2: a second row for '0481847'"),
        ("images_variant_test.txt", [], r"images_variant_test.txt' lists no images"),
        (
            "images_box.txt",
            ["0481847 1 1 5 5"],
            r"images_box.txt' has no box for 1 of 2 images, such as '.*1514522.jpg",
        ),
        ("images_box.txt", ["0481847 9 1 5 5"], r"images_box.txt', line 1: the box 9, 1, 5, 5 is empty"),
        ("images_box.txt", ["0481847 9 1 5"], r"line 1: expected number xmin ymin xmax ymax, got '0481847 9 1 5'"),
    ],
)
def test_aircraft_lists_that_do_not_agree(tmp_path: Path, name: str, lines: list[str], reason: str) -> None:
    write(aircraft(tmp_path) / "data" / name, *lines)
    with pytest.raises(DataError, match=reason):
        read(FGVCAircraft(tmp_path), "test")


# --- Stanford Cars --------------------------------------------------------------------------------------------------


def test_cars_in_one_file(archives: dict[Any, Path]) -> None:
    images = read(StanfordCars(archives[StanfordCars]), "train")
    assert (images.classes, images.labels.tolist()) == (list(CARS), [0, 0, 1, 1])
    assert images.paths == [f"car_ims/{number:06d}.jpg" for number in (1, 2, 4, 5)]
    assert boxes(images) == [[[0, 4, 40, 20]]] * 4
    assert read(StanfordCars(archives[StanfordCars]), "test").paths == ["car_ims/000003.jpg", "car_ims/000006.jpg"]


def test_cars_in_two_folders(tmp_path: Path) -> None:
    root = old_cars(tmp_path / "stanford_cars")
    train, test = (read(StanfordCars(tmp_path), split) for split in ("train", "test"))
    assert (train.classes, train.labels.tolist(), test.labels.tolist()) == (list(CARS), [1, 0, 1, 0], [0, 1])
    assert train.paths[0] == "cars_train/00001.jpg"
    assert test.paths == ["cars_test/00001.jpg", "cars_test/00002.jpg"]
    assert boxes(train) == [[[0, 4, 40, 20]]] * 4
    file = root / "cars_test_annos_withlabels.mat"
    file.rename(root / "devkit" / file.name)
    assert read(StanfordCars(root), "test").paths == test.paths
    (root / "devkit" / file.name).unlink()
    with pytest.raises(DataError, match=r"has no 'cars_test_annos_withlabels.mat': the devkit's .* has no classes"):
        read(StanfordCars(root), "val")
    assert len(read(StanfordCars(root, val_share=0.5), "val")) == 2
    (root / "devkit" / "cars_train_annos.mat").unlink()
    with pytest.raises(
        DataError, match=r"has no 'devkit/cars_train_annos.mat', which the archive of Stanford Cars has"
    ):
        read(StanfordCars(root), "train")


def test_one_car_is_a_list_too(tmp_path: Path) -> None:
    root = old_cars(tmp_path)
    array = annotations(CORNERS | {"class": None, "fname": None}, [(1, 1, 9, 9, 1, "00001.jpg")])
    savemat(root / "devkit" / "cars_train_annos.mat", {"annotations": array})
    savemat(root / "devkit" / "cars_meta.mat", {"class_names": np.array([["Only"]], dtype=object)})
    images = read(StanfordCars(root), "train")
    assert (images.classes, images.paths, boxes(images)) == (["Only"], ["cars_train/00001.jpg"], [[[0, 0, 9, 9]]])


@pytest.mark.parametrize(
    ("variables", "reason"),
    [
        ({"other": 1}, r"has no variable '.*', it has other. Unpack it again"),
        (
            {"class_names": "A", "annotations": np.zeros((1, 2))},
            r"its rows have no field relative_im_path, class, test",
        ),
    ],
)
def test_cars_other_matlab_files(tmp_path: Path, variables: dict[str, Any], reason: str) -> None:
    savemat(cars(tmp_path) / "cars_annos.mat", variables)
    with pytest.raises(DataError, match=reason):
        read(StanfordCars(tmp_path), "train")


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (("car_ims/000001.jpg", 1, 5, 40, 20, 3, 0), r"line 1: class 3 is not in 1..2"),
        (("car_ims/000001.jpg", 1, 5, 40, 20, 2, 2), r"row 1: `test` must be 0 or 1, got 2"),
        (("car_ims/000001.jpg", 7, 5, 5, 20, 2, 0), r"line 1: the box 7, 5, 5, 20 is empty"),
    ],
)
def test_cars_bad_rows(tmp_path: Path, row: tuple[Any, ...], reason: str) -> None:
    array = annotations({"relative_im_path": None} | CORNERS | {"class": None, "test": None}, [row])
    names = np.array(CARS, dtype=object)
    savemat(cars(tmp_path) / "cars_annos.mat", {"annotations": array, "class_names": names})
    with pytest.raises(DataError, match=reason):
        read(StanfordCars(tmp_path), "train")


def test_damaged_matlab_files(tmp_path: Path) -> None:
    file = cars(tmp_path) / "cars_annos.mat"
    for content in (file.read_bytes()[:300], b"", b"MATLAB 7.3 MAT-file".ljust(124) + b"\x00\x02IM" + bytes(500)):
        file.write_bytes(content)
        with pytest.raises(DataError, match=r"cars_annos.mat' is not a readable MATLAB file: .*Unpack it again"):
            read(StanfordCars(tmp_path), "train")
