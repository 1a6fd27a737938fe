"""ImageNet in both of its layouts: labels, names, boxes from tables and annotations, subsets, and what is refused."""

from __future__ import annotations

import hashlib
import pickle
import shutil
from pathlib import Path

import pytest
from PIL import Image

from conftest import shared
from contrex.data import FolderImages, ImageNetImages, image_set
from contrex.data.files.tables import read_records
from contrex.data.readers.imagenet import FOLDERS_SHA256
from contrex.data.views.squares import view_sizes
from contrex.errors import ArgumentError, DataError, UnknownNameError
from contrex.models.classes import imagenet_names
from contrex.settings import Folder, ImageNet

TENCH, SHARK, SNAKE = "n01440764", "n01484850", "n01751748"
NAMES = {TENCH: "tench, Tinca tinca", SHARK: "great white shark", SNAKE: "sea snake"}
WIDTH, HEIGHT = 10, 8


def picture(file: Path) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (WIDTH, HEIGHT), "teal").save(file, "JPEG")


def write(file: Path, text: str) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)
    return file


def annotation(file: Path, *objects: tuple[str, int, int, int, int]) -> None:
    boxes = "".join(
        f"<object><name>{name}</name><difficult>0</difficult><bndbox><xmin>{xmin}</xmin><ymin>{ymin}</ymin>"
        f"<xmax>{xmax}</xmax><ymax>{ymax}</ymax></bndbox></object>"
        for name, xmin, ymin, xmax, ymax in objects
    )
    write(file, f"<annotation><folder>val</folder><size><width>{WIDTH}</width></size>{boxes}</annotation>")


@pytest.fixture
def folders(tmp_path: Path) -> Path:
    """A folder per class in both splits: two training images of each class, and one or two to validate on."""
    for number, wnid in enumerate((SNAKE, TENCH, SHARK)):
        for image in range(2):
            picture(tmp_path / "train" / wnid / f"{wnid}_{image}.JPEG")
        for image in range(1 + (wnid == SHARK)):
            picture(tmp_path / "val" / wnid / f"ILSVRC2012_val_0000000{2 * number + image}.JPEG")
    return tmp_path


@pytest.fixture
def kaggle(folders: Path) -> Path:
    """The same images as Kaggle's archive has them, with its tables: 0 is a snake, 2 a tench, 4 and 5 are sharks."""
    data = folders / "ILSVRC/Data/CLS-LOC"
    (data / "test").mkdir(parents=True)
    (folders / "train").rename(data / "train")
    for file in (folders / "val").glob("*/*"):
        picture(data / "val" / file.name)
    shutil.rmtree(folders / "val")
    write(folders / "LOC_synset_mapping.txt", "".join(f"{wnid} {NAMES[wnid]}\n" for wnid in reversed(NAMES)))
    rows = [f"4,{SHARK} 0 0 9 7 {SNAKE} 1 1 2 2 ", f"0,{SNAKE} 3 2 5 4 {SNAKE} 0 1 0 1 ", f"2,{TENCH} 1 1 9 7 "]
    rows.append(f"5,{SHARK} 2 2 4 4 ")
    text = "".join(f"ILSVRC2012_val_0000000{row}\n" for row in rows)
    write(folders / "LOC_val_solution.csv", f"ImageId,PredictionString\n{text}")
    write(folders / "LOC_train_solution.csv", f"ImageId,PredictionString\n{TENCH}_1,{TENCH} 4 4 5 5 \n")
    return folders


def read(path: Path, split: str = "val", **options: object) -> ImageNetImages:
    return ImageNetImages(ImageNet(path, **options), split)


# --- layouts --------------------------------------------------------------------------------------------------------


def test_a_folder_per_class(folders: Path) -> None:
    images = image_set(ImageNet(folders), "train")
    assert isinstance(images, ImageNetImages)
    assert (images.name, images.wnids, images.skipped) == (f"{folders.name}/train", [TENCH, SHARK, SNAKE], [])
    assert images.classes == [TENCH, SHARK, SNAKE]
    assert images.labels.tolist() == [0, 0, 1, 1, 2, 2]
    assert images.paths[:2] == [f"train/{TENCH}/{TENCH}_{number}.JPEG" for number in (0, 1)]
    assert (images[0].image.size, images[0].boxes.shape) == ((WIDTH, HEIGHT), (0, 4))
    assert read(folders).paths == FolderImages(Folder(folders), "val").paths


def test_the_archive_of_kaggle(kaggle: Path) -> None:
    images = read(kaggle)
    assert (images.name, images.classes) == (f"{kaggle.name}/val", list(NAMES.values()))
    assert images.paths == [f"val/ILSVRC2012_val_0000000{number}.JPEG" for number in (2, 4, 5, 0)]
    assert images.labels.tolist() == [0, 1, 1, 2]
    assert [sample.boxes.tolist() for sample in images] == [
        [[1, 1, 10, 8]],
        [[0, 0, 10, 8]],
        [[2, 2, 5, 5]],
        [[3, 2, 6, 5], [0, 1, 1, 2]],
    ]
    assert images.left_out(range(len(images))) == {"of another class than the image's": 1}
    train = read(kaggle, "train")
    assert [sample.boxes.tolist() for sample in train][:3] == [[], [[4, 4, 6, 6]], []]
    assert train.paths[0] == f"train/{TENCH}/{TENCH}_0.JPEG"


def test_the_archive_may_be_named_by_any_of_its_folders(kaggle: Path) -> None:
    for path in (kaggle / "ILSVRC", kaggle / "ILSVRC/Data/CLS-LOC"):
        images = read(path)
        assert (images.paths, images.classes) == (read(kaggle).paths, list(NAMES.values()))
        assert len(images[3].boxes) == 2


def test_boxes_of_annotations(folders: Path) -> None:
    annotation(
        folders / f"Annotations/CLS-LOC/val/{Path(read(folders).paths[0]).stem}.xml",
        (TENCH, 0, 0, 9, 7),
        (SHARK, 1, 1, 2, 2),
    )
    annotation(folders / f"Annotations/CLS-LOC/train/{SHARK}/{SHARK}_1.xml", (SHARK, 3, 2, 3, 2))
    images = read(folders)
    assert [sample.boxes.tolist() for sample in images] == [[[0, 0, 10, 8]], [], [], []]
    assert images.left_out(range(len(images))) == {"of another class than the image's": 1}
    assert read(folders, "train")[3].boxes.tolist() == [[3, 2, 4, 3]]
    assert pickle.loads(pickle.dumps(images))[0].boxes.tolist() == [[0, 0, 10, 8]]


def test_annotations_name_the_classes_of_a_flat_val(kaggle: Path) -> None:
    (kaggle / "LOC_val_solution.csv").unlink()
    for number, wnid in ((0, SNAKE), (2, TENCH), (4, SHARK), (5, SHARK)):
        annotation(kaggle / f"ILSVRC/Annotations/CLS-LOC/val/ILSVRC2012_val_0000000{number}.xml", (wnid, 1, 2, 3, 4))
    images = read(kaggle)
    assert (images.labels.tolist(), images[0].boxes.tolist()) == ([0, 1, 1, 2], [[1, 2, 4, 5]])


def test_the_thousand_folders_have_their_names(tmp_path: Path) -> None:
    file = shared("data", "imagenet_val_500", "classes.txt")
    wnids = [line.split("\t")[1] for line in file.read_text().splitlines()]
    assert hashlib.sha256("\n".join(wnids).encode()).hexdigest() == FOLDERS_SHA256
    for wnid in wnids:
        (tmp_path / "val" / wnid).mkdir(parents=True)
    picture(tmp_path / "val" / SNAKE / "1.JPEG")
    listed = write(tmp_path / "list.txt", f"{SNAKE}\n")
    assert read(tmp_path, classes=listed).classes == [imagenet_names()[65]] == ["sea snake"]


def test_the_published_boxes_end_at_the_last_pixel() -> None:
    """Of 500 validation photos minima begin at 0, and maxima end one before the size: the last pixels inside."""
    root = shared("data", "imagenet_val_500")
    sizes = {row["path"]: row for _, row in read_records(root / "labels.csv")}
    lowest, gaps = [], []
    for _, row in read_records(root / "boxes.csv"):
        size = {name: float(sizes[row["path"]][name]) for name in ("orig_w", "orig_h", "w", "h")}
        for axis, side in (("x", "w"), ("y", "h")):
            scale = size[f"orig_{side}"] / size[side]
            lowest.append(round(float(row[f"{axis}min"]) * scale))
            gaps.append(round(size[f"orig_{side}"] - float(row[f"{axis}max"]) * scale))
    assert (min(lowest), min(gaps)) == (0, 1)
    assert gaps.count(1) > 100


# --- subsets --------------------------------------------------------------------------------------------------------


def test_a_list_of_classes(folders: Path, kaggle: Path) -> None:
    file = write(folders / "imagenet2.txt", f"{SNAKE}\n\n{TENCH} and more\n")
    images = read(kaggle, classes=file)
    assert (images.wnids, images.classes) == ([TENCH, SNAKE], [NAMES[TENCH], NAMES[SNAKE]])
    assert (images.labels.tolist(), [path[-6] for path in images.paths]) == ([0, 1], ["2", "0"])
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    assert images.details == {"classes_file": "imagenet2.txt", "classes_sha256": digest}
    assert read(kaggle, "train", classes=file).labels.tolist() == [0, 0, 1, 1]
    assert read(kaggle, "train").details == {}


def test_a_list_needs_only_its_own_folders(kaggle: Path) -> None:
    shutil.rmtree(kaggle / "ILSVRC/Data/CLS-LOC/train" / SHARK)
    file = write(kaggle / "list.txt", f"{SNAKE}\n{TENCH}\n")
    assert len(read(kaggle, "train", classes=file)) == 4
    with pytest.raises(DataError, match=rf"{SHARK}' has no images. Unpack the archive again"):
        read(kaggle, "train")


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (f"{TENCH}\nn99999999\n", r"list.txt' lists n99999999, which ImageNet's folders do not have"),
        (f"{TENCH}\n{SHARK}\n{TENCH}\n", rf"list.txt' lists {TENCH} more than once"),
        ("\n \n", r"list.txt' lists no class folders"),
        (None, r"`classes` must be a file with a class folder on each line; there is no '.*list.txt'"),
    ],
)
def test_bad_lists(folders: Path, text: str | None, reason: str) -> None:
    file = folders / "list.txt"
    if text is not None:
        file.write_text(text)
    with pytest.raises(DataError, match=reason):
        read(folders, classes=file)


def test_limit_per_class_and_bad_images(folders: Path) -> None:
    (folders / "train" / SHARK / f"{SHARK}_0.JPEG").write_bytes(b"")
    images = read(folders, "train", limit_per_class=1, on_bad_image="skip")
    assert [path[-6] for path in images.paths] == ["0", "1", "0"]
    assert len(images.skipped) == 1


# --- refused --------------------------------------------------------------------------------------------------------


def refuses(path: Path, reason: str, split: str = "val") -> None:
    with pytest.raises(DataError, match=reason):
        read(path, split)


def test_splits(kaggle: Path) -> None:
    refuses(kaggle, "test images of ImageNet have no labels.*Use split 'val'", "test")
    with pytest.raises(UnknownNameError, match="`split` of ImageNet must be one of train, val; got 'valid'"):
        read(kaggle, "valid")


def test_missing_folders(kaggle: Path) -> None:
    refuses(kaggle / "nowhere", r"`path` must be a folder with ImageNet's train/ and val/; there is no folder")
    shutil.rmtree(kaggle / "ILSVRC/Data/CLS-LOC/val")
    refuses(kaggle, r"CLS-LOC' has no 'val/'; it has test, train. Expected 'val/n01440764/\*.JPEG' in it, or Kaggle's")
    (kaggle / "empty").mkdir()
    refuses(kaggle / "empty", "has no 'val/'; it has no folders")


def test_half_unpacked_archives(folders: Path) -> None:
    shutil.rmtree(folders / "val" / TENCH)
    refuses(folders, f"other class folders in train/ than in val/: only one has {TENCH}")
    shutil.rmtree(folders / "train" / TENCH)
    (folders / "train" / TENCH).mkdir()
    (folders / "val" / TENCH).mkdir()
    (folders / "train" / f"{TENCH}.tar").touch()
    refuses(folders, rf"{TENCH}' has no images. Unpack '{TENCH}.tar' into it", "train")
    refuses(folders, rf"{TENCH}' has no images. Unpack the archive again")
    write(folders / "tars/train/n01440764.tar", "")
    refuses(folders / "tars", "no class folders such as n01440764, but tar files: unpack each", "train")


def test_flat_images_need_their_classes(kaggle: Path) -> None:
    (kaggle / "LOC_val_solution.csv").unlink()
    refuses(kaggle, r"in no class folders: their classes must be in '.*LOC_val_solution.csv' or '.*CLS-LOC/val/\*.xml'")
    (kaggle / "LOC_synset_mapping.txt").unlink()
    shutil.rmtree(kaggle / "ILSVRC/Data/CLS-LOC/train")
    refuses(kaggle, "val' has no class folders such as n01440764, and there is no '.*LOC_synset_mapping.txt'")


def test_the_table_and_the_images_must_agree(kaggle: Path) -> None:
    file = kaggle / "LOC_val_solution.csv"
    rows = file.read_text()
    file.write_text(rows.replace(f"val_00000004,{SHARK}", f"val_00000007,{SHARK}"))
    refuses(kaggle, "LOC_val_solution.csv' says nothing about 'val/ILSVRC2012_val_00000004.JPEG'")
    file.write_text(rows + f"ILSVRC2012_val_00000009,{SHARK} 0 0 1 1 \n")
    refuses(kaggle, "has no image ILSVRC2012_val_00000009 of '.*LOC_val_solution.csv'")
    file.write_text(rows.replace(f"2,{TENCH}", "2,n99999999"))
    refuses(kaggle, "LOC_val_solution.csv' gives 'ILSVRC2012_val_00000002.JPEG' the class n99999999")


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (f"{SHARK} 0 0 9", "image ILSVRC2012_val_00000005: expected 'folder xmin .*it is not five words per box"),
        (f"{SHARK} 0 0 x 7", "could not convert string to float: 'x'"),
        (f"{SHARK} 0 0 nan 7", "the box 0, 0, nan, 7 is empty"),
        (f"{SHARK} 5 0 4 7", "the box 5, 0, 4, 7 is empty"),
        (f"{SHARK} 0 5 4 4", "the box 0, 5, 4, 4 is empty"),
    ],
)
def test_bad_rows(kaggle: Path, row: str, reason: str) -> None:
    file = kaggle / "LOC_val_solution.csv"
    file.write_text(file.read_text().replace(f"5,{SHARK} 2 2 4 4 ", f"5,{row} "))
    refuses(kaggle, reason)
    file.write_text("ImageId,Prediction\n")
    refuses(kaggle, "has no column PredictionString; it needs ImageId,PredictionString")


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("<annotation><object>", "is not a readable annotation: no element found|unclosed"),
        (
            '<!DOCTYPE a [<!ENTITY b "bb"><!ENTITY c "&b;&b;">]><annotation><object><name>&c;</name></object>'
            "</annotation>",
            "is not a readable annotation: it has a document type declaration",
        ),
        ("<annotation><object><name> </name></object></annotation>", "object 1: it has no name"),
        ("<annotation><object><name>a</name></object></annotation>", "object 1: it has no bndbox"),
        (
            "<annotation><object><name>a</name><bndbox><xmin>1</xmin></bndbox></object></annotation>",
            "1, nan.* is empty",
        ),
    ],
)
def test_bad_annotations(folders: Path, text: str, reason: str) -> None:
    images = read(folders)
    write(folders / f"Annotations/CLS-LOC/val/{Path(images.paths[0]).stem}.xml", text)
    with pytest.raises(DataError, match=reason):
        read(folders)[0]


def test_settings() -> None:
    assert view_sizes(ImageNet(Path("imagenet"))) == (256, 224)
    with pytest.raises(ArgumentError, match=r"`data.image_size` must be from 1 to `data.resize` \(128\).*, got 224"):
        ImageNet(Path("imagenet"), resize=128)
    with pytest.raises(ArgumentError, match=r"`data.limit_per_class` must be at least 1"):
        ImageNet(Path("imagenet"), limit_per_class=0)
