"""Image folders on disk: labels, names, boxes, masks, selection, unreadable files, and every refused layout."""

from __future__ import annotations

import pickle
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from conftest import shared
from contrex.data.readers.folder import FolderImages
from contrex.errors import DataError, ImageError, UnknownNameError
from contrex.settings import Folder

WIDTH, HEIGHT = 12, 8


def picture(path: Path, orientation: int = 1) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    exif = Image.Exif()
    exif[274] = orientation
    Image.new("RGB", (WIDTH, HEIGHT), "teal").save(path, exif=exif)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Two splits of three classes with three images each."""
    for split in ("train", "val"):
        for folder in ("ant", "bee", "cat"):
            for name in ("1.jpg", "2.PNG", "10.jpeg"):
                picture(tmp_path / split / folder / name)
    return tmp_path


def write(root: Path, name: str, *lines: str) -> None:
    (root / name).write_text("\n".join(lines) + "\n", encoding="utf-8")


# --- labels, names and order ----------------------------------------------------------------------------------------


def test_labels_are_the_sorted_folders(root: Path) -> None:
    images = FolderImages(Folder(root), "val")
    assert (images.name, images.classes, images.skipped) == (f"{root.name}/val", ["ant", "bee", "cat"], [])
    assert images.paths[:4] == ["val/ant/1.jpg", "val/ant/10.jpeg", "val/ant/2.PNG", "val/bee/1.jpg"]
    assert images.labels.tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2]


def test_a_sample_without_tables(root: Path) -> None:
    sample = FolderImages(Folder(root), "train")[4]
    assert (sample.image.mode, sample.image.size) == ("RGB", (WIDTH, HEIGHT))
    assert (sample.label, sample.path, sample.index) == (1, "train/bee/10.jpeg", 4)
    assert (sample.boxes.shape, sample.boxes.dtype, sample.mask) == ((0, 4), np.float32, None)


def test_it_is_a_sequence_that_travels_to_workers(root: Path) -> None:
    images = pickle.loads(pickle.dumps(FolderImages(Folder(root), "val")))
    assert [sample.label for sample in images] == [images.label(i) for i in range(len(images))]
    assert images[-1].index == 8
    with pytest.raises(IndexError):
        images[9]


def test_other_and_hidden_files_are_ignored(root: Path) -> None:
    for name in ("Thumbs.db", "notes.txt", ".hidden.jpg", "._1.jpg"):
        (root / "val" / "ant" / name).write_text("not an image")
    (root / "val" / ".cache").mkdir()
    (root / "val" / "ant" / "folder.jpg").mkdir()
    (root / "val" / "list.txt").touch()
    images = FolderImages(Folder(root), "val")
    assert (len(images), len(images.classes)) == (9, 3)


def test_unicode_names(root: Path) -> None:
    picture(root / "solo" / "Äffchen 猿" / "größe ½.jpg")
    write(root, "boxes.csv", "path,xmin,ymin,xmax,ymax", "solo/Äffchen 猿/größe ½.jpg,1,2,3,4")
    images = FolderImages(Folder(root), "solo")
    assert (images.classes, images[0].path) == (["Äffchen 猿"], "solo/Äffchen 猿/größe ½.jpg")
    assert images[0].boxes.tolist() == [[1, 2, 3, 4]]


def test_classes_select_and_reorder(root: Path) -> None:
    images = FolderImages(Folder(root, classes=("cat", "ant")), "val")
    assert (images.classes, images.labels.tolist()) == (["cat", "ant"], [0, 0, 0, 1, 1, 1])
    assert images.paths[0] == "val/cat/1.jpg"


def test_limit_per_class(root: Path) -> None:
    images = FolderImages(Folder(root, limit_per_class=2), "val")
    assert images.paths[:3] == ["val/ant/1.jpg", "val/ant/10.jpeg", "val/bee/1.jpg"]
    assert images.labels.tolist() == [0, 0, 1, 1, 2, 2]


def test_names_come_from_classes_txt_by_folder(root: Path) -> None:
    write(root, "classes.txt", "0\tant\tant, emmet", "1\tcat\thouse cat, tabby")
    images = FolderImages(Folder(root), "val")
    assert images.classes == ["ant, emmet", "bee", "house cat, tabby"]
    assert images.folders == ["ant", "bee", "cat"]


@pytest.mark.parametrize("lines", [("0\tcat\thouse cat", "1\tant\temmet"), ("cat", "ant", "bee")])
def test_indices_that_are_not_those_of_the_labels_are_refused(root: Path, lines: tuple[str, ...]) -> None:
    """A network in the order of the file would be measured with the classes exchanged."""
    write(root, "classes.txt", *lines)
    with pytest.raises(DataError, match=r"classes.txt' has the classes in another order than their folders \(cat, ant"):
        FolderImages(Folder(root), "val")
    chosen = FolderImages(Folder(root, classes=("cat", "ant", "bee")), "val")
    assert chosen.labels.tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2]


def test_rows_that_contradict_each_other_are_refused(root: Path) -> None:
    indexed(root)
    text = (root / "labels.csv").read_text().rstrip("\n")
    (root / "labels.csv").write_text(f"{text}\nval/ant/1.jpg,4,the same once more\n")
    assert FolderImages(Folder(root), "val").labels[0] == 4
    (root / "labels.csv").write_text(f"{text}\nval/ant/1.jpg,0,another\n")
    with pytest.raises(
        DataError, match=r"labels.csv', line 20: a second row for 'val/ant/1.jpg', class_index 0, which is 4"
    ):
        FolderImages(Folder(root), "val")


# --- labels.csv -----------------------------------------------------------------------------------------------------


def indexed(root: Path) -> None:
    """ant is 4, bee is 2, cat is 0, out of five classes."""
    write(root, "classes.txt", "0\tcat\tcats", "3\tdog\tdogs", "1\teel\teels", "2\tbee\tbees", "4\tant\tants")
    rows = [
        f"{split}/{folder}/{name},{index},extra"
        for split in ("train", "val")
        for folder, index in (("ant", 4), ("bee", 2), ("cat", 0))
        for name in ("1.jpg", "2.PNG", "10.jpeg")
    ]
    write(root, "labels.csv", "path,class_index,note", *rows)


def test_class_index_rules(root: Path) -> None:
    indexed(root)
    images = FolderImages(Folder(root), "val")
    assert images.classes == ["cats", "eels", "bees", "dogs", "ants"]
    assert images.labels.tolist() == [4, 4, 4, 2, 2, 2, 0, 0, 0]


def test_with_class_index_classes_only_filter(root: Path) -> None:
    indexed(root)
    (root / "val" / "empty").mkdir()
    images = FolderImages(Folder(root, classes=("cat", "empty", "ant")), "val")
    assert (len(images.classes), images.labels.tolist()) == (5, [0, 0, 0, 4, 4, 4])


def test_class_index_with_a_plain_list_of_names(root: Path) -> None:
    indexed(root)
    write(root, "classes.txt", "cats", "eels", "bees", "dogs", "ants")
    assert FolderImages(Folder(root), "val").classes == ["cats", "eels", "bees", "dogs", "ants"]


def test_splits_may_differ_when_the_index_rules(root: Path) -> None:
    indexed(root)
    (root / "train" / "eel").mkdir()
    assert len(FolderImages(Folder(root), "val")) == 9


def test_class_index_out_of_range(root: Path) -> None:
    indexed(root)
    write(root, "classes.txt", "cats", "eels", "bees", "dogs")
    with pytest.raises(DataError, match=r"labels.csv', line 11: class_index 4 is not in 0..3"):
        FolderImages(Folder(root), "val")


def test_class_index_not_a_number(root: Path) -> None:
    write(root, "labels.csv", "path,class_index", "val/ant/1.jpg,ant")
    with pytest.raises(DataError, match="line 2: expected a whole number as class index, got 'ant'"):
        FolderImages(Folder(root), "val")


def test_class_index_needs_classes_txt(root: Path) -> None:
    indexed(root)
    (root / "classes.txt").unlink()
    with pytest.raises(DataError, match=r"classes.txt' must name the classes; it is missing"):
        FolderImages(Folder(root), "val")


def test_class_index_needs_every_image(root: Path) -> None:
    indexed(root)
    picture(root / "val" / "bee" / "new.jpg")
    with pytest.raises(DataError, match=r"has no row for 'val/bee/new.jpg'"):
        FolderImages(Folder(root), "val")


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["0\tant\tants", "bee"], "line 2: expected index<TAB>folder<TAB>name"),
        (["0\tant\tants", "2\tbee\tbees"], "the indices must be 0..1, each once"),
        (["0\tant\tants", "0\tbee\tbees"], "the indices must be 0..1, each once"),
        (["one\tant\tants"], "line 1: expected a whole number"),
    ],
)
def test_bad_classes_txt(root: Path, lines: list[str], message: str) -> None:
    write(root, "classes.txt", *lines)
    with pytest.raises(DataError, match=message):
        FolderImages(Folder(root), "val")


# --- boxes ----------------------------------------------------------------------------------------------------------

HEADER = "path,xmin,ymin,xmax,ymax"


def test_several_boxes_per_image_and_extra_columns(root: Path) -> None:
    (root / "boxes.csv").write_text(
        "\ufeffpath, note,xmin,ymin,xmax,ymax\n"
        "val/ant/1.jpg,a,0,0,12,8\n"
        "train/ant/1.jpg,b,5,5,6,6\n"
        "\n"
        "./val/ant/1.jpg,c,1.5,2,3.25,4\n"
        "val\\bee\\1.jpg,d,1,2,3,4\n",
        encoding="utf-8",
    )
    images = FolderImages(Folder(root), "val")
    assert images[0].boxes.tolist() == [[0, 0, 12, 8], [1.5, 2, 3.25, 4]]
    assert images[1].boxes.shape == (0, 4)
    assert images[3].boxes.tolist() == [[1, 2, 3, 4]]


def test_inclusive_boxes(root: Path) -> None:
    write(root, "boxes.csv", HEADER, "val/ant/1.jpg,0,6,11,7", "val/ant/1.jpg,3,3,3,3")
    images = FolderImages(Folder(root, inclusive_boxes=True), "val")
    assert images[0].boxes.tolist() == [[0, 6, 12, 8], [3, 3, 4, 4]]


def test_box_kinds(root: Path) -> None:
    rows = ["val/ant/1.jpg,0,0,1,1,head", "val/ant/1.jpg,0,0,2,2,body", "train/ant/1.jpg,0,0,3,3,tail"]
    write(root, "boxes.csv", HEADER + ",kind", *rows)
    assert len(FolderImages(Folder(root), "val")[0].boxes) == 2
    assert FolderImages(Folder(root, box_kinds=("body",)), "val")[0].boxes.tolist() == [[0, 0, 2, 2]]
    assert FolderImages(Folder(root, box_kinds=("tail",)), "val")[0].boxes.shape == (0, 4)
    with pytest.raises(UnknownNameError, match=r"`box_kinds` must be one of body, head, tail; got 'heads'"):
        FolderImages(Folder(root, box_kinds=("heads",)), "val")


def test_box_kinds_need_their_column(root: Path) -> None:
    with pytest.raises(DataError, match=r"`box_kinds` needs '.*boxes.csv', which is missing"):
        FolderImages(Folder(root, box_kinds=("body",)), "val")
    write(root, "boxes.csv", HEADER)
    with pytest.raises(DataError, match=r"needs a column 'kind' .* has path, xmin, ymin, xmax, ymax"):
        FolderImages(Folder(root, box_kinds=("body",)), "val")


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("val/ant/1.jpg,0,0,x,1", "line 2: xmax must be a number, got 'x'"),
        ("val/ant/1.jpg,0,0,nan,1", "line 2: xmax must be a number, got 'nan'"),
        ("val/ant/1.jpg,0,0,1", "line 2: ymax must be a number, got ''"),
        ("val/ant/1.jpg,3,0,3,1", r"line 2: the box 3, 0, 3, 1 is empty; .* `inclusive_boxes`"),
        ("val/ant/1.jpg,0,4,3,1", "line 2: the box 0, 4, 3, 1 is empty"),
        ("val/ant/3.jpg,0,0,1,1", r"line 2: there is no file 'val/ant/3.jpg'"),
    ],
)
def test_bad_boxes_name_the_line(root: Path, row: str, message: str) -> None:
    write(root, "boxes.csv", HEADER, row)
    with pytest.raises(DataError, match=message):
        FolderImages(Folder(root), "val")


def test_rows_about_other_splits_and_left_out_images_are_fine(root: Path) -> None:
    write(root, "boxes.csv", HEADER, "test/ant/1.jpg,0,0,1,1", "val/bee/1.jpg,0,0,1,1", "val/ant/2.PNG,0,0,1,1")
    images = FolderImages(Folder(root, classes=("ant",), limit_per_class=1), "val")
    assert [sample.path for sample in images] == ["val/ant/1.jpg"]


def test_missing_columns_and_wrong_encoding(root: Path) -> None:
    write(root, "boxes.csv", "path,xmin,ymin,width,height")
    with pytest.raises(DataError, match="has no column xmax, ymax; it needs path,xmin,ymin,xmax,ymax"):
        FolderImages(Folder(root), "val")
    (root / "boxes.csv").write_bytes(HEADER.encode() + b"\nval/ant/\xff.jpg,0,0,1,1\n")
    with pytest.raises(DataError, match="not a readable UTF-8 table"):
        FolderImages(Folder(root), "val")
    write(root, "labels.csv", "file,class_index")
    with pytest.raises(DataError, match=r"labels.csv' has no column path"):
        FolderImages(Folder(root), "val")


# --- masks and orientation ------------------------------------------------------------------------------------------


def trimap(root: Path, values: np.ndarray) -> None:
    (root / "trimaps" / "ant").mkdir(parents=True)
    Image.fromarray(values.astype(np.uint8)).save(root / "trimaps" / "ant" / "1.png")
    write(root, "labels.csv", "path,trimap", "val/ant/1.jpg,trimaps/ant/1.png", "val/ant/2.PNG,")


def test_mask_is_object_and_border(root: Path) -> None:
    values = np.full((HEIGHT, WIDTH), 2)
    values[2:5, 3:9], values[3, 4:8] = 3, 1
    trimap(root, values)
    images = FolderImages(Folder(root), "val")
    np.testing.assert_array_equal(images[0].mask, values != 2)
    assert images[0].mask.dtype == np.bool_
    assert images[2].mask is None
    assert images.labels.tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2]


@pytest.mark.parametrize("orientation", range(1, 9))
def test_boxes_and_masks_turn_with_the_image(root: Path, orientation: int) -> None:
    values = np.full((HEIGHT, WIDTH), 2)
    values[1:4, 2:7] = 1
    trimap(root, values)
    write(root, "boxes.csv", HEADER, "val/ant/1.jpg,2,1,7,4")
    picture(root / "val" / "ant" / "1.jpg", orientation)
    sample = FolderImages(Folder(root), "val")[0]
    assert sample.image.size == ((HEIGHT, WIDTH) if orientation > 4 else (WIDTH, HEIGHT))
    assert sample.mask.shape == sample.image.size[::-1]
    rows, columns = np.nonzero(sample.mask)
    assert sample.boxes.tolist() == [[columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (np.ones((HEIGHT, WIDTH + 1)), "is 13x8 pixels, its image 'val/ant/1.jpg' is stored as 12x8"),
        (np.full((HEIGHT, WIDTH), 255), r"has the values \[255\]; it must hold only 1 \(object\)"),
    ],
)
def test_bad_trimap(root: Path, values: np.ndarray, message: str) -> None:
    trimap(root, values)
    with pytest.raises(DataError, match=message):
        FolderImages(Folder(root), "val")[0]


def test_missing_trimap(root: Path) -> None:
    write(root, "labels.csv", "path,trimap", "val/ant/1.jpg,trimaps/ant/1.png")
    with pytest.raises(DataError, match=r"labels.csv', line 2: there is no file 'trimaps/ant/1.png'"):
        FolderImages(Folder(root), "val")


# --- unreadable images ----------------------------------------------------------------------------------------------


def test_bad_image_stops_when_read(root: Path) -> None:
    (root / "val" / "ant" / "10.jpeg").write_bytes(b"")
    images = FolderImages(Folder(root), "val")
    assert len(images) == 9
    with pytest.raises(
        ImageError, match=r"10.jpeg.: the file is empty.*leave such files out: --data.on-bad-image skip"
    ):
        images[1]


def test_bad_images_are_skipped_and_listed(root: Path) -> None:
    (root / "val" / "ant" / "1.jpg").write_bytes(b"")
    broken = root / "val" / "cat" / "10.jpeg"
    broken.write_bytes(broken.read_bytes()[:-60])
    write(root, "boxes.csv", HEADER, "val/ant/1.jpg,0,0,1,1", "val/ant/2.PNG,0,0,2,2")
    images = FolderImages(Folder(root, on_bad_image="skip", limit_per_class=2), "val")
    assert images.paths[:3] == ["val/ant/10.jpeg", "val/ant/2.PNG", "val/bee/1.jpg"]
    assert images.labels.tolist() == [0, 0, 1, 1, 2, 2]
    assert images.paths[-1] == "val/cat/2.PNG"
    assert images[1].boxes.tolist() == [[0, 0, 2, 2]]
    assert ["1.jpg" in images.skipped[0], "10.jpeg" in images.skipped[1], len(images.skipped)] == [True, True, 2]
    assert "the file is empty" in images.skipped[0]


def test_nothing_left_to_read(root: Path) -> None:
    for file in (root / "val").rglob("*.*"):
        file.write_bytes(b"")
    with pytest.raises(DataError, match=r"no readable images. Left out: .* and 4 more"):
        FolderImages(Folder(root, on_bad_image="skip"), "val")


# --- refused layouts and settings -----------------------------------------------------------------------------------


def test_missing_path_split_and_classes(root: Path) -> None:
    with pytest.raises(DataError, match=r"`path` must be a folder .* there is no folder '.*nowhere'"):
        FolderImages(Folder(root / "nowhere"), "val")
    (root / "trimaps").mkdir()
    with pytest.raises(DataError, match="has no split 'test'; it has train, val"):
        FolderImages(Folder(root), "test")
    (root / "test").mkdir()
    with pytest.raises(DataError, match="test' has no class folders"):
        FolderImages(Folder(root), "test")


def test_empty_class_folder_is_named(root: Path) -> None:
    for split in ("train", "val"):
        (root / split / "dog").mkdir()
    with pytest.raises(DataError, match="dog' has no images"):
        FolderImages(Folder(root), "val")


def test_splits_with_other_classes_are_refused(root: Path) -> None:
    """Otherwise bee would be 1 in one split and 2 in the other."""
    picture(root / "train" / "bat" / "1.jpg")
    for split in ("train", "val"):
        with pytest.raises(DataError, match=r"different class folders.*only one of them has bat"):
            FolderImages(Folder(root), split)
    assert FolderImages(Folder(root, classes=("ant", "bee")), "train").classes == ["ant", "bee"]


def test_unknown_classes(root: Path) -> None:
    with pytest.raises(UnknownNameError, match=r"`classes` of split 'val' must be one of .* Did you mean 'cat'"):
        FolderImages(Folder(root, classes=("ant", "cats")), "val")


# --- real data ------------------------------------------------------------------------------------------------------


def test_tiny_imagenet() -> None:
    settings = Folder(shared("data", "tiny_imagenet_100"), inclusive_boxes=True, limit_per_class=3)
    images = FolderImages(settings, "train")
    assert (len(images), len(images.classes), images.classes[0]) == (300, 100, "goldfish, Carassius auratus")
    assert (images[0].path, images[0].boxes.tolist()) == ("train/n01443537/n01443537_107.JPEG", [[0, 6, 64, 50]])
    assert FolderImages(settings, "val").classes == images.classes
    with pytest.raises(DataError, match=r"line 71: the box 9, 63, 18, 63 is empty.*`inclusive_boxes`"):
        FolderImages(replace(settings, inclusive_boxes=False), "train")


def test_oxford_pets() -> None:
    images = FolderImages(Folder(shared("data", "oxford_pets_sample"), box_kinds=("body_from_trimap",)), "train")
    assert (len(images), images.classes) == (450, ["Abyssinian", "Bengal", "american_bulldog"])
    sample = images[0]
    rows, columns = np.nonzero(sample.mask)
    assert sample.mask.shape == sample.image.size[::-1] == (224, 336)
    assert sample.boxes.tolist() == [[52, 37, 258, 192]]
    assert [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1] == pytest.approx([52, 37, 258, 192], abs=2)


def test_imagenet() -> None:
    images = FolderImages(Folder(shared("data", "imagenet_val_500")), "val")
    assert (len(images), len(images.classes)) == (500, 1000)
    first = images.paths.index("val/n01751748/ILSVRC2012_val_00000001.jpg")
    sample = images[first]
    assert (sample.label, images.classes[65].split(",")[0]) == (65, "sea snake")
    np.testing.assert_allclose(sample.boxes, [[75.7, 73.7, 300.8, 131.8]], rtol=1e-6)
    chosen = FolderImages(Folder(images.settings.path, classes=("n09193705",)), "val")
    assert set(chosen.labels.tolist()) == {970}
    assert len(chosen.classes) == 1000
