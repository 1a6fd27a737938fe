"""The fine-grained data sets in the layouts of their archives, a few tiny images each, and what their tests share."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from scipy.io import savemat

from contrex.data import image_set
from contrex.data.files.folders import ImageFiles
from contrex.settings import CUB200, Data, FGVCAircraft, FineGrained, Flowers102, Food101, OxfordPets, StanfordCars

WIDTH, HEIGHT = 40, 30


def picture(file: Path, orientation: int = 1) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    exif = Image.Exif()
    exif[274] = orientation
    Image.new("RGB", (WIDTH, HEIGHT), "teal").save(file, exif=exif)


def mask_picture(file: Path, values: np.ndarray) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(values.astype(np.uint8)).save(file, quality=95)


def write(file: Path, *lines: str) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


def read(settings: Data, split: str) -> ImageFiles:
    images = image_set(settings, split)
    assert isinstance(images, ImageFiles)
    return images


def boxes(images: ImageFiles) -> list[list[list[float]]]:
    return [sample.boxes.tolist() for sample in images]


BIRDS = ("001.Black_footed_Albatross", "002.Laysan_Albatross")


def cub(root: Path) -> Path:
    """Two species of four photos: the first two of each train."""
    rows = [(number, (number - 1) // 4, f"Bird_{number:04d}_{number * 7}") for number in range(1, 9)]
    for _, label, name in rows:
        picture(root / "images" / BIRDS[label] / f"{name}.jpg")
    write(root / "images.txt", *[f"{number} {BIRDS[label]}/{name}.jpg" for number, label, name in rows])
    write(root / "image_class_labels.txt", *[f"{number} {label + 1}" for number, label, _ in rows])
    write(root / "train_test_split.txt", *[f"{number} {int((number - 1) % 4 < 2)}" for number, _, _ in rows])
    write(root / "bounding_boxes.txt", *[f"{number} {number}.0 2.5 20.0 10.0" for number, _, _ in rows])
    write(root / "classes.txt", *[f"{label + 1} {name}" for label, name in enumerate(BIRDS)])
    write(root / "attributes" / "attributes.txt", "1 has_bill_shape::curved_(up_or_down)")
    return root


PLANES = {"train": ("1025794", "0056978"), "val": ("0034309", "2031775"), "test": ("0481847", "1514522")}


def aircraft(root: Path) -> Path:
    """Two variants with a space and a slash, of one manufacturer; one photo of each in every part."""
    data = root / "data"
    variants = ("Boeing 737 \u2013 200", "F/A-18")
    for level, names in (("variant", variants), ("family", variants), ("manufacturer", ("Boeing",) * 2)):
        listed = {part: [f"{n} {name}" for n, name in zip(PLANES[part], names, strict=True)] for part in PLANES}
        for part, lines in (*listed.items(), ("trainval", listed["train"] + listed["val"])):
            write(data / f"images_{level}_{part}.txt", *lines)
    for name in ("variants", "families"):
        write(data / f"{name}.txt", *variants)
    write(data / "manufacturers.txt", "Boeing")
    numbers = [number for part in PLANES.values() for number in part]
    for number in numbers:
        picture(data / "images" / f"{number}.jpg")
    write(data / "images_box.txt", *[f"{n} {place} 2 {WIDTH} 25" for place, n in enumerate(numbers)])
    return root


CARS = ("AM General Hummer SUV 2000", "Ram C/V Cargo Van Minivan 2012")


def annotations(fields: dict[str, Any], rows: Sequence[tuple[Any, ...]]) -> np.ndarray:
    """A struct array as MATLAB writes one: 1 x n, every field a cell."""
    return np.array(rows, dtype=[(name, object) for name in fields]).reshape(1, -1)


CORNERS = dict.fromkeys(("bbox_x1", "bbox_y1", "bbox_x2", "bbox_y2"))


def old_cars(root: Path) -> Path:
    """Four training and two test photos in folders of their own, numbered anew in each."""
    names = np.array(CARS, dtype=object)
    (root / "devkit").mkdir(parents=True)
    savemat(root / "devkit" / "cars_meta.mat", {"class_names": names.reshape(1, -1)})
    for part, labels in (("train", (2, 1, 2, 1)), ("test", (1, 2))):
        rows = [(1, 5, np.uint8(WIDTH), 20, label, f"{n:05d}.jpg") for n, label in enumerate(labels, start=1)]
        for *_, name in rows:
            picture(root / f"cars_{part}" / name)
        array = annotations(CORNERS | {"class": None, "fname": None}, rows)
        file = "devkit/cars_train_annos.mat" if part == "train" else "cars_test_annos_withlabels.mat"
        savemat(root / file, {"annotations": array})
    savemat(root / "devkit" / "cars_test_annos.mat", {"annotations": np.zeros((1, 0))})
    return root


def cars(root: Path) -> Path:
    """The same in one folder and one file."""
    rows = [
        (f"car_ims/{n:06d}.jpg", 1, 5, WIDTH, 20, np.uint8(label), np.uint8(test))
        for n, (label, test) in enumerate(((1, 0), (1, 0), (1, 1), (2, 0), (2, 0), (2, 1)), start=1)
    ]
    for name, *_ in rows:
        picture(root / name)
    array = annotations({"relative_im_path": None} | CORNERS | {"class": None, "test": None}, rows)
    names = np.array(CARS, dtype=object).reshape(1, -1)
    savemat(root / "cars_annos.mat", {"annotations": array, "class_names": names})
    return root


def flowers(root: Path) -> Path:
    """Two species; images 5 and 6 are trnid, 1 and 2 valid, the other four tstid."""
    for number in range(1, 9):
        picture(root / "jpg" / f"image_{number:05d}.jpg")
    savemat(root / "imagelabels.mat", {"labels": np.array([[1, 2, 1, 2, 1, 2, 1, 2]], dtype=np.uint8)})
    parts = {"trnid": [5, 6], "valid": [1, 2], "tstid": [3, 4, 7, 8]}
    savemat(root / "setid.mat", {name: np.array([numbers], dtype=np.uint16) for name, numbers in parts.items()})
    return root


def food(root: Path) -> Path:
    """Two dishes, of four training photos and one test photo each."""
    write(root / "meta" / "classes.txt", "apple_pie", "cr\u00e8me_br\u00fbl\u00e9e")
    write(root / "meta" / "labels.txt", "Apple pie", "Cr\u00e8me br\u00fbl\u00e9e")
    for part, numbers in (("train", (1005649, 1014775, 38, 4)), ("test", (1011328,))):
        listed = [f"{name}/{n}" for name in ("apple_pie", "cr\u00e8me_br\u00fbl\u00e9e") for n in numbers]
        write(root / "meta" / f"{part}.txt", *listed)
        for name in listed:
            picture(root / "images" / f"{name}.jpg")
    return root


def pets(root: Path) -> Path:
    """Two breeds of two training photos and one test photo; MATLAB files among the images, as in the archive."""
    trimap = np.full((HEIGHT, WIDTH), 2)
    trimap[5:20, 10:30] = 3
    trimap[7:18, 12:28] = 1
    for part, numbers in (("trainval", (100, 12)), ("test", (7,))):
        rows = [
            (f"{breed}_{n}", label, label)
            for label, breed in ((1, "Abyssinian"), (2, "american_bulldog"))
            for n in numbers
        ]
        write(root / "annotations" / f"{part}.txt", *[f"{name} {label} {species} 1" for name, label, species in rows])
        for name, *_ in rows:
            picture(root / "images" / f"{name}.jpg")
            mask_picture(root / "annotations" / "trimaps" / f"{name}.png", trimap)
    (root / "images" / "Abyssinian_100.mat").touch()
    (root / "annotations" / "trimaps" / "._Abyssinian_100.png").touch()
    head = "<bndbox><xmin>11</xmin><ymin>6</ymin><xmax>20</xmax><ymax>12</ymax></bndbox>"
    write(
        root / "annotations" / "xmls" / "Abyssinian_100.xml",
        f"<annotation><object><name>cat</name>{head}</object></annotation>",
    )
    return root


BUILDERS = {CUB200: cub, FGVCAircraft: aircraft, StanfordCars: cars, Flowers102: flowers, Food101: food,
            OxfordPets: pets}  # fmt: skip

ALL_SETTINGS: Sequence[Callable[[Path], FineGrained]] = (
    CUB200, FGVCAircraft, StanfordCars, Flowers102, Food101, OxfordPets
)  # fmt: skip
