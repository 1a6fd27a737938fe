"""Tiny-ImageNet as its archive unpacks: labels, names, boxes, and every refused layout."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from contrex.data import FolderImages, TinyImageNetImages, image_set
from contrex.data.views.squares import view_sizes
from contrex.errors import ArgumentError, DataError, ImageError, UnknownNameError
from contrex.settings import Folder, TinyImageNet

GOLDFISH, FROG, PIZZA = "n01443537", "n01644900", "n07873807"


def picture(file: Path, mode: str = "RGB") -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, (64, 64), "teal" if mode == "RGB" else 90).save(file)


def write(file: Path, *lines: str) -> None:
    file.write_text("".join(f"{line}\n" for line in lines))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Three classes of three training images, four validation images and two test images, laid out as published."""
    write(tmp_path / "wnids.txt", PIZZA, GOLDFISH, FROG)
    write(
        tmp_path / "words.txt",
        "n00001740\tentity",
        f"{GOLDFISH}\tgoldfish, Carassius auratus",
        f"{FROG}\ttailed frog, bell toad",
        f"{PIZZA}\tpizza, pizza pie",
    )
    for wnid in (PIZZA, GOLDFISH, FROG):
        for number in (0, 2, 10):
            picture(tmp_path / "train" / wnid / "images" / f"{wnid}_{number}.JPEG")
        boxes = [f"{wnid}_{number}.JPEG\t{number}\t10\t63\t58" for number in (0, 2, 10)]
        write(tmp_path / "train" / wnid / f"{wnid}_boxes.txt", *boxes)
    for number in range(4):
        picture(tmp_path / "val" / "images" / f"val_{number}.JPEG")
    wnids = (PIZZA, GOLDFISH, PIZZA, FROG)
    rows = [f"val_{number}.JPEG\t{wnid}\t0\t32\t44\t{62 - number}" for number, wnid in enumerate(wnids)]
    write(tmp_path / "val" / "val_annotations.txt", *rows)
    for number in range(2):
        picture(tmp_path / "test" / "images" / f"test_{number}.JPEG")
    return tmp_path


def test_train(root: Path) -> None:
    images = image_set(TinyImageNet(root), "train")
    assert isinstance(images, TinyImageNetImages)
    assert (images.name, images.wnids, images.skipped) == (f"{root.name}/train", [GOLDFISH, FROG, PIZZA], [])
    assert images.classes == ["goldfish, Carassius auratus", "tailed frog, bell toad", "pizza, pizza pie"]
    assert images.labels.tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2]
    assert images.paths[:3] == [f"train/{GOLDFISH}/images/{GOLDFISH}_{number}.JPEG" for number in (0, 10, 2)]
    assert [sample.boxes.tolist() for sample in images][6:] == [[[number, 10, 64, 59]] for number in (0, 10, 2)]
    assert (images[0].image.mode, images[0].image.size, images[0].mask) == ("RGB", (64, 64), None)


def test_val(root: Path) -> None:
    images = TinyImageNetImages(TinyImageNet(root), "val")
    assert images.classes == TinyImageNetImages(TinyImageNet(root), "train").classes
    assert images.paths == [f"val/images/val_{number}.JPEG" for number in (1, 3, 0, 2)]
    assert images.labels.tolist() == [0, 1, 2, 2]
    assert [sample.boxes.tolist() for sample in images] == [[[0, 32, 45, 63 - number]] for number in (1, 3, 0, 2)]


def test_labels_are_those_of_image_folders(root: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    """A run on one layout can be measured on the other."""
    plain = tmp_path_factory.mktemp("plain")
    for wnid in (PIZZA, GOLDFISH, FROG):
        picture(plain / "val" / wnid / "1.JPEG")
    assert FolderImages(Folder(plain), "val").folders == TinyImageNetImages(TinyImageNet(root), "val").wnids


def test_a_class_may_lack_its_boxes(root: Path) -> None:
    (root / "train" / FROG / f"{FROG}_boxes.txt").unlink()
    images = TinyImageNetImages(TinyImageNet(root), "train")
    assert [len(sample.boxes) for sample in images] == [1, 1, 1, 0, 0, 0, 1, 1, 1]


def test_an_image_may_lack_its_box_and_its_class_a_name(root: Path) -> None:
    file = root / "train" / FROG / f"{FROG}_boxes.txt"
    write(file, *file.read_text().splitlines()[:2], "")
    write(root / "words.txt", f"{PIZZA}\tpizza")
    images = TinyImageNetImages(TinyImageNet(root), "train")
    assert [len(sample.boxes) for sample in images][3:6] == [1, 0, 1]
    assert images.classes == [GOLDFISH, FROG, "pizza"]


def test_grey_images_and_limit_per_class(root: Path) -> None:
    picture(root / "train" / GOLDFISH / "images" / f"{GOLDFISH}_0.JPEG", mode="L")
    images = TinyImageNetImages(TinyImageNet(root, limit_per_class=1), "train")
    assert (len(images), images[0].image.mode, images[0].path[-6:]) == (3, "RGB", "0.JPEG")


def test_bad_images(root: Path) -> None:
    (root / "val" / "images" / "val_0.JPEG").write_bytes(b"")
    with pytest.raises(ImageError, match=r"val_0.JPEG.: the file is empty.*--data.on-bad-image skip"):
        TinyImageNetImages(TinyImageNet(root), "val")[2]
    images = TinyImageNetImages(TinyImageNet(root, on_bad_image="skip"), "val")
    assert (images.labels.tolist(), len(images.skipped)) == ([0, 1, 2], 1)


# --- refused --------------------------------------------------------------------------------------------------------


def refuses(root: Path, split: str, reason: str) -> None:
    with pytest.raises(DataError, match=reason):
        TinyImageNetImages(TinyImageNet(root), split)


def test_splits_without_labels(root: Path) -> None:
    refuses(root, "test", "test images of Tiny-ImageNet have no labels.*Use split 'val'")
    with pytest.raises(UnknownNameError, match=r"`split` of Tiny-ImageNet must be one of train, val; got 'valid'"):
        TinyImageNetImages(TinyImageNet(root), "valid")


def test_image_folders_are_for_folder(root: Path) -> None:
    for split in ("train", "val"):
        picture(root / "plain" / split / GOLDFISH / "1.JPEG")
        refuses(root / "plain", split, "images directly in its class folders.*use `Folder` with its `inclusive_boxes`")
    picture(root / "val" / GOLDFISH / "val_1.JPEG")
    refuses(root, "val", "use `Folder`")


@pytest.mark.parametrize(
    ("split", "name"),
    [("train", "wnids.txt"), ("val", "words.txt"), ("val", "val/val_annotations.txt"), ("val", "val/images")],
)
def test_missing_parts(root: Path, split: str, name: str) -> None:
    (root / name).rename(root / "elsewhere")
    refuses(root, split, rf"has no '{name}', which Tiny-ImageNet's archive has: unpack it again")


def test_missing_folders(root: Path) -> None:
    refuses(root / "nowhere", "train", "`path` must be the unpacked folder of Tiny-ImageNet; there is no folder")
    (root / "train" / FROG / "images").rename(root / "elsewhere")
    refuses(root, "train", rf"{FROG}/images' has no images, although wnids.txt lists {FROG}")
    (root / "train").rename(root / "gone")
    refuses(root, "train", "has no 'train'")


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (f"{FROG}_1.JPEG\t0\t0\t1\t1", rf"line 1: there is no image '{FROG}_1.JPEG' in 'train/{FROG}/images'"),
        (f"{FROG}_0.JPEG\t5\t0\t3\t1", "line 1: the box 5, 0, 3, 1 is empty; xmax and ymax must be larger than xmin"),
        (f"{FROG}_0.JPEG\t5\t0\tx\t1", "line 1: xmax must be a number, got 'x'"),
        (f"{FROG}_0.JPEG 5 0 7 1", "line 1: expected file<TAB>xmin<TAB>ymin<TAB>xmax<TAB>ymax, got"),
    ],
)
def test_bad_rows_of_boxes(root: Path, row: str, reason: str) -> None:
    write(root / "train" / FROG / f"{FROG}_boxes.txt", row)
    refuses(root, "train", reason)


@pytest.mark.parametrize(
    ("rows", "reason"),
    [
        ([], "has no row for 'val_0.JPEG'"),
        ([f"val_9.JPEG\t{FROG}\t0\t0\t1\t1"], "line 1: there is no image 'val_9.JPEG' in 'val/images'"),
        (["val_0.JPEG\tn00000000\t0\t0\t1\t1"], "line 1: the class n00000000 is not in wnids.txt"),
        ([f"val_0.JPEG\t{FROG}\t0\t0\t1\t1"] * 2, "line 2: a second row for 'val_0.JPEG'"),
    ],
)
def test_bad_annotations(root: Path, rows: list[str], reason: str) -> None:
    write(root / "val" / "val_annotations.txt", *rows)
    refuses(root, "val", reason)


def test_settings() -> None:
    assert view_sizes(TinyImageNet(Path("tiny"))) == (64, 64)
    with pytest.raises(ArgumentError, match=r"`data.image_size` must be at least 1"):
        TinyImageNet(Path("tiny"), image_size=0)
    with pytest.raises(ArgumentError, match=r"`data.limit_per_class` must be at least 1"):
        TinyImageNet(Path("tiny"), limit_per_class=0)
