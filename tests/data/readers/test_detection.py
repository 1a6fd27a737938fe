"""Detection sets of VOC and COCO: a sample per category of an image, its boxes, and what is left out or refused."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from contrex.data import DetectionImages, image_set
from contrex.data.readers.detection import VOC_CLASSES
from contrex.data.views.squares import view_sizes
from contrex.errors import ArgumentError, DataError, ImageError, UnknownNameError
from contrex.settings import Detection

WIDTH, HEIGHT = 10, 8


def picture(file: Path) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (WIDTH, HEIGHT), "teal").save(file, "JPEG")


def write(file: Path, text: str) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)


def annotation(file: Path, *objects: tuple[str, str, int]) -> None:
    """Objects as name, `xmin ymin xmax ymax` and difficult."""
    parts = ("xmin", "ymin", "xmax", "ymax")
    text = "".join(
        f"<object><name>{name}</name><difficult>{difficult}</difficult><bndbox>"
        + "".join(f"<{part}>{value}</{part}>" for part, value in zip(parts, box.split(), strict=True))
        + "</bndbox><part><name>head</name></part></object>"
        for name, box, difficult in objects
    )
    write(file, f"<annotation>{text}</annotation>")


@pytest.fixture
def voc(tmp_path: Path) -> Path:
    """Four images: a dog with two persons, a difficult cat with a chair, nothing but a difficult cat, and a bus to
    train on."""
    root = tmp_path / "VOCdevkit/VOC2007"
    for name in ("000001", "000002", "000003", "000004"):
        picture(root / f"JPEGImages/{name}.jpg")
    persons = (("person", "1 1 10 8", 0), ("dog", "2 3 4 5", 0), ("person", "3 3 3 3", 0))
    annotation(root / "Annotations/000001.xml", *persons)
    annotation(root / "Annotations/000002.xml", ("cat", "1 1 2 2", 1), ("chair", "1.5 1 2.5 2", 0))
    annotation(root / "Annotations/000003.xml", ("cat", "1 1 2 2", 1))
    annotation(root / "Annotations/000004.xml", ("bus", "1 1 2 2", 0))
    write(root / "ImageSets/Main/val.txt", "000001\n000003\n000002\n")
    write(root / "ImageSets/Main/train.txt", "000004\n")
    write(root / "ImageSets/Main/cat_val.txt", "000001 -1\n000002  0\n")
    return root


CONTENT: dict[str, Any] = {
    "images": [{"id": 9, "file_name": "b.jpg"}, {"id": 4, "file_name": "a.jpg"}, {"id": 5, "file_name": "c.jpg"}],
    "categories": [{"id": 18, "name": "dog"}, {"id": 1, "name": "person"}],
    "annotations": [
        {"image_id": 4, "category_id": 18, "bbox": [1, 2, 3, 4], "iscrowd": 0},
        {"image_id": 9, "category_id": 1, "bbox": [0.5, 0.5, 2, 2.25], "iscrowd": 0},
        {"image_id": 4, "category_id": 1, "bbox": [0, 0, 10, 8], "iscrowd": 1},
        {"image_id": 4, "category_id": 18, "bbox": [0, 0, 1, 0], "iscrowd": 0},
        {"image_id": 4, "category_id": 18, "bbox": [9, 0, 0, 1], "iscrowd": 0},
        {"image_id": 4, "category_id": 18, "bbox": [5, 5, 1, 1]},
    ],
}


@pytest.fixture
def coco(tmp_path: Path) -> Path:
    for name in "abc":
        picture(tmp_path / f"val2017/{name}.jpg")
    write(tmp_path / "annotations/instances_val2017.json", json.dumps(CONTENT))
    write(tmp_path / "annotations/captions_val2017.json", "{}")
    return tmp_path


def read(path: Path, split: str = "val", **options: Any) -> DetectionImages:
    return DetectionImages(Detection(path, **options), split)


def boxes(images: DetectionImages) -> dict[str, list[list[float]]]:
    return {sample.path: sample.boxes.tolist() for sample in images}


# --- Pascal VOC -----------------------------------------------------------------------------------------------------


def test_voc(voc: Path) -> None:
    images = image_set(Detection(voc), "val")
    assert isinstance(images, DetectionImages)
    assert (images.name, images.classes, images.left_out(())) == ("VOC2007/val", VOC_CLASSES, {"difficult": 2})
    assert boxes(images) == {
        "JPEGImages/000001.jpg:dog": [[1, 2, 4, 5]],
        "JPEGImages/000001.jpg:person": [[0, 0, 10, 8], [2, 2, 3, 3]],
        "JPEGImages/000002.jpg:chair": [[0.5, 0, 2.5, 2]],
    }
    assert images.labels.tolist() == [VOC_CLASSES.index(name) for name in ("dog", "person", "chair")]
    assert (images[0].image.size, images[0].also, images[2].index) == ((WIDTH, HEIGHT), (), 2)
    assert len(pickle.loads(pickle.dumps(images))[1].boxes) == 2


def test_the_folders_above_name_it_too(voc: Path) -> None:
    assert boxes(read(voc.parent)) == boxes(read(voc.parent.parent)) == boxes(read(voc))
    assert read(voc.parent).name == "VOCdevkit/val"
    picture(voc.parent / "VOC2012/JPEGImages/1.jpg")
    (voc.parent / "VOC2012/Annotations").mkdir()
    with pytest.raises(DataError, match=r"has several sets: name one as `path`, as in '.*VOC2007'"):
        read(voc.parent)


def test_difficult_objects(voc: Path) -> None:
    images = read(voc, difficult=True)
    assert [path[11:] for path in boxes(images)] == [
        *("000001.jpg:dog", "000001.jpg:person", "000003.jpg:cat", "000002.jpg:cat", "000002.jpg:chair")
    ]
    assert images.left_out(()) == {}


def test_categories_keep_the_classes(voc: Path) -> None:
    images = read(voc, categories=("dog", "chair"))
    assert (len(images), images.classes) == (2, VOC_CLASSES)
    with pytest.raises(UnknownNameError, match=r"`categories` must be one of .*; got 'dogs'. Did you mean 'dog'"):
        read(voc, categories=("dogs",))


def test_other_names_are_the_classes_of_all_splits(voc: Path) -> None:
    annotation(voc / "Annotations/000004.xml", ("zebra", "1 1 2 2", 0))
    annotation(voc / "Annotations/000002.xml", ("okapi", "1 1 2 2", 0))
    assert read(voc).classes == read(voc, "train").classes == ["cat", "dog", "okapi", "person", "zebra"]


def test_limit_and_bad_images(voc: Path) -> None:
    annotation(voc / "Annotations/000002.xml", ("dog", "1 1 2 2", 0))
    assert [path[-3:] for path in boxes(read(voc, limit_per_class=1))] == ["dog", "son"]
    (voc / "JPEGImages/000001.jpg").write_bytes(b"")
    with pytest.raises(ImageError, match=r"000001.jpg.: the file is empty.*--data.on-bad-image skip"):
        read(voc)[1]
    images = read(voc, on_bad_image="skip")
    assert (len(images), len(images.skipped)) == (1, 1)


@pytest.mark.parametrize(
    ("broken", "reason"),
    [
        ("JPEGImages/000002.jpg", r"JPEGImages' has no image '000002' of split 'val'"),
        ("Annotations/000002.xml", r"no annotation '.*000002.xml' of split 'val': it was published without objects"),
        (
            "Annotations",
            r"has no JPEGImages/, Annotations/ and ImageSets/Main/ of Pascal VOC, nor annotations/instances",
        ),
        ("ImageSets", r"ImageSets/Main' has no train.txt, val.txt or other list"),
    ],
)
def test_half_unpacked_voc(voc: Path, broken: str, reason: str) -> None:
    (voc / broken).rename(voc / "elsewhere")
    with pytest.raises(DataError, match=reason):
        read(voc)


def test_unknown_splits_and_paths(voc: Path, coco: Path) -> None:
    with pytest.raises(UnknownNameError, match=r"ImageSets/Main' must be one of train, val; got 'test'"):
        read(voc, "test")
    with pytest.raises(UnknownNameError, match=r"must be one of val2017; got 'test2017'. Did you mean 'val2017'"):
        read(coco, "test2017", layout="coco")
    with pytest.raises(DataError, match="`path` must be a folder with a detection set; there is no folder"):
        read(voc / "nowhere")
    with pytest.raises(DataError, match=r"has no annotations/instances_\*.json of COCO. Name the folder"):
        read(voc, layout="coco")


# --- COCO -----------------------------------------------------------------------------------------------------------


def test_coco(coco: Path) -> None:
    images = read(coco, "val2017")
    assert (images.classes, images.left_out(())) == (["person", "dog"], {"crowd": 1, "without area": 2})
    assert boxes(images) == {
        "val2017/b.jpg:person": [[0.5, 0.5, 2.5, 2.75]],
        "val2017/a.jpg:dog": [[1, 2, 4, 6], [5, 5, 6, 6]],
    }
    assert images.labels.tolist() == [0, 1]
    assert (images.name, boxes(read(coco))) == (f"{coco.name}/val2017", boxes(images))


def test_coco_crowds(coco: Path) -> None:
    images = read(coco, crowd=True)
    assert boxes(images)["val2017/a.jpg:person"] == [[0, 0, 10, 8]]
    assert images.left_out(()) == {"without area": 2}


@pytest.mark.parametrize("folder", ["images/val2017", "val", "images/val", "images", "."])
def test_where_the_images_may_lie(coco: Path, folder: str) -> None:
    (coco / "images").mkdir()
    for name in "abc":
        (coco / folder).mkdir(exist_ok=True)
        (coco / f"val2017/{name}.jpg").rename(coco / folder / f"{name}.jpg")
    (coco / "annotations/instances_val2017.json").rename(coco / "instances_val2017.json")
    assert [sample.image.size for sample in read(coco)] == [(WIDTH, HEIGHT)] * 2


def test_several_years(coco: Path) -> None:
    write(coco / "annotations/instances_val2014.json", json.dumps(CONTENT))
    with pytest.raises(DataError, match="has several 'val' splits: name one of val2014, val2017"):
        read(coco)


def test_missing_images(coco: Path) -> None:
    (coco / "val2017/a.jpg").unlink()
    with pytest.raises(DataError, match=r"val2017' has no a.jpg, of 'instances_val2017.json'. Unpack it again"):
        read(coco)
    (coco / "val2017/b.jpg").unlink()
    with pytest.raises(
        DataError, match=r"has no image 'b.jpg' of 'instances_val2017.json' in val2017/, images/val2017/"
    ):
        read(coco)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"annotations": [{"image_id": 4, "category_id": 2, "bbox": [1, 2, 3, 4]}]}, "annotation 0: KeyError: 2"),
        ({"annotations": [{"image_id": 4, "category_id": 1, "bbox": [1, 2, 3]}]}, "annotation 0: ValueError"),
        (
            {"annotations": [{"image_id": 4, "category_id": 1, "bbox": [1, 2, float("nan"), 4]}]},
            r"annotation 0: ValueError: the box \[1, 2, nan, 4\] is not four numbers",
        ),
        ({"categories": []}, "has 3 images and 0 categories"),
        ({"images": [{"id": 1}]}, "has no 'file_name', which COCO's files of objects have"),
        ({"images": 3}, "is not a readable annotation file"),
    ],
)
def test_bad_coco_files(coco: Path, change: dict[str, Any], reason: str) -> None:
    write(coco / "annotations/instances_val2017.json", json.dumps(CONTENT | change))
    with pytest.raises(DataError, match=reason):
        read(coco)


def test_a_file_that_is_no_json(coco: Path) -> None:
    write(coco / "annotations/instances_val2017.json", '{"images": [')
    with pytest.raises(DataError, match=r"instances_val2017.json' is not a readable annotation file"):
        read(coco)


def test_settings() -> None:
    assert view_sizes(Detection(Path("voc"))) == (256, 224)
    with pytest.raises(ArgumentError, match=r"`data.image_size` must be from 1 to `data.resize`"):
        Detection(Path("voc"), image_size=300)
