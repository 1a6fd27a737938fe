"""Data sets by name, `--data` in front of their options, and `contrex data`: what it says and what it draws."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import contrex.data_overview
import contrex.experiment
from contrex.cli import main
from contrex.data.named import MARKS, data_named, detect
from contrex.data.sample import NO_BOXES, Annotation, ImageSet
from contrex.data_overview import BOX, MARGIN, SIDE, contact_sheet, overview, printable
from contrex.errors import ArgumentError, DataError, ImageError, UnknownNameError
from contrex.recipes import recipe_named
from contrex.settings import DATA_PREFIXES, Cifar, Detection, Digits, Folder, HuggingFace, ImageNet


def picture(file: Path, size: tuple[int, int] = (12, 8)) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    image = Image.new("RGB", size, "teal")
    image.putpixel((0, 0), tuple(zlib.crc32(str(file).encode()).to_bytes(4)[:3]))  # no copy of another file
    image.save(file)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Two splits of two classes, with boxes on two of the three images to validate on."""
    root = tmp_path / "photos"
    for path in ("train/ant/1.png", "train/bee/1.png", "train/bee/2.png", "val/ant/1.png", "val/bee/1.png"):
        picture(root / path)
    picture(root / "val/bee/2.png", (24, 8))
    (root / "boxes.csv").write_text("path,xmin,ymin,xmax,ymax\nval/ant/1.png,0,0,6,4\nval/bee/2.png,2,2,24,8\n")
    return root


def test_photos_without_labels_are_no_problem(photos: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    monkeypatch.chdir(photos.parent)  # where the sheets go
    assert main(["data", f"photos:{photos}"]) == 0
    said = capsys.readouterr().out
    assert "5 images, none with a label" in said
    assert "PROBLEM" not in said


# --- data sets by name ----------------------------------------------------------------------------------------------


def test_every_kind_has_a_prefix() -> None:
    assert set(MARKS) == set(DATA_PREFIXES) - {"digits", "photos"}, "any folder may hold photos without labels"
    assert list(MARKS)[-2:] == ["imagenet", "folder"]


@pytest.mark.parametrize("prefix", [name for name in DATA_PREFIXES if name != "digits"])
def test_a_prefix_names_the_kind(prefix: str) -> None:
    data = data_named(f"{prefix}:some/where:else")
    assert type(data) is DATA_PREFIXES[prefix]
    assert data.path == Path("some/where:else")
    assert getattr(data, "layout", prefix) == prefix


def test_digits_and_mistakes(tmp_path: Path) -> None:
    assert data_named("digits") == Digits()
    with pytest.raises(
        UnknownNameError, match=r"the kind of data in PREFIX:PATH must be one of .*; got 'cubs'. Did you"
    ):
        data_named("cubs:x")
    with pytest.raises(ArgumentError, match="'cub:' needs a path behind it: cub:PATH"):
        data_named("cub:")
    with pytest.raises(ArgumentError, match="Digits has no path, got 'digits:x': name it `digits`"):
        data_named("digits:x")
    with pytest.raises(DataError, match="there is no folder 'C:"):
        data_named("C:\\photos")


CREATED = {
    "tiny-imagenet": ("wnids.txt", "words.txt", "train/n01443537/images/1.JPEG"),
    "cub": ("CUB_200_2011/image_class_labels.txt", "CUB_200_2011/images/001.Albatross/1.jpg"),
    "aircraft": ("data/images_box.txt", "data/images/1.jpg"),
    "cars": ("devkit/cars_meta.mat", "cars_train/1.jpg"),
    "flowers": ("setid.mat", "jpg/1.jpg"),
    "food": ("meta/classes.txt", "images/apple_pie/1.jpg"),
    "pets": ("annotations/trimaps/1.png", "images/1.jpg"),
    "unrel": ("unrel-dataset/annotations.mat", "unrel-dataset/images/1.jpg"),
    "voc": ("VOCdevkit/VOC2012/JPEGImages/1.jpg", "VOCdevkit/VOC2012/Annotations/1.xml"),
    "coco": ("annotations/instances_val2017.json", "val2017/1.jpg"),
    "cifar": ("cifar-100-python/train",),
    "hf": ("train/state.json", "dataset_dict.json"),
    "shards": ("train-000000.tar", "val-000000.tar"),
    "imagenet": ("train/n01440764/1.JPEG", "val/1.JPEG"),
    "folder": ("val/ant/1.jpg",),
}


def touch(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    return root


@pytest.mark.parametrize("prefix", list(CREATED))
def test_a_folder_is_known_by_its_layout(prefix: str, tmp_path: Path) -> None:
    assert set(MARKS) == set(CREATED)
    root = touch(tmp_path / "a:b", *CREATED[prefix])
    assert data_named(str(root)) == data_named(f"{prefix}:{root}")


def test_folders_of_imagenets_classes(tmp_path: Path) -> None:
    """Kaggle's archive is ImageNet; class folders of WordNet with tables beside them are image folders."""
    assert type(detect(touch(tmp_path / "a", "ILSVRC/Data/CLS-LOC/val/1.JPEG"))) is ImageNet
    assert type(detect(touch(tmp_path / "b", "val/n01440764/1.JPEG", "boxes.csv"))) is Folder
    assert type(detect(touch(tmp_path / "c", "val/n01440764/1.JPEG", "val/other/1.JPEG"))) is Folder
    assert type(detect(touch(tmp_path / "cifar-10-batches-py", "test_batch"))) is Cifar


def test_what_was_looked_for(tmp_path: Path) -> None:
    with pytest.raises(
        DataError, match=r"does not look like a data set. Looked for: .*cub \(image_class_labels.txt\); "
    ):
        detect(tmp_path)
    with pytest.raises(DataError, match=r"there is no folder '.*nowhere'. Name a data set as PATH or PREFIX:PATH"):
        detect(tmp_path / "nowhere")


# --- --data in front of a command's options -------------------------------------------------------------------------


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What `train` and `evaluate` would have read, had they gone on."""
    found: list[Any] = []

    def stops(place: int) -> Callable[..., Any]:
        def stop(*arguments: Any, **options: Any) -> None:
            found.append(options.get("data", arguments[place]))
            raise DataError("stopped")

        return stop

    monkeypatch.setattr("contrex.training.train", stops(0))
    monkeypatch.setattr("contrex.experiment.evaluate_model_by_each", stops(1))
    monkeypatch.setattr("contrex.experiment.evaluate_run_by_each", stops(0))
    monkeypatch.setattr("contrex.models.load_classifier", lambda model: None)
    monkeypatch.setattr("contrex.training.saved_recipe", lambda folder: recipe_named("digits_cgc"))
    return found


def test_train_reads_the_named_data(asked: list[Any], photos: Path) -> None:
    words = ["train", "digits_cgc", "--no-evaluate", "--folder", str(photos / "run")]
    assert main([*words, "--data", "voc:x", "--data.difficult", "--training.epochs", "3"]) == 2
    assert main([*words, f"--data={photos}", "--data.resize", "300"]) == 2
    assert main([*words, "--data.num-train", "7"]) == 2
    default = recipe_named("digits_cgc").data
    expected = [Detection(Path("x"), "voc", difficult=True), Folder(photos, resize=300), replace(default, num_train=7)]
    assert [recipe.data for recipe in asked] == expected
    assert asked[0].training.epochs == 3


def test_evaluate_reads_the_named_data(asked: list[Any]) -> None:
    weights = ["--model.weights", "w.pth"]
    assert main(["evaluate", *weights, "--data", "hf:org/pets", "--data.splits", "val", "validation"]) == 2
    assert main(["evaluate", *weights, "--data.path", "x", "--data.resize", "300"]) == 2
    assert main(["evaluate", "run", "--data", "cifar:y", "--data.val-share", "0.1"]) == 2
    assert asked == [
        HuggingFace(Path("org/pets"), splits={"val": "validation"}),
        Folder(Path("x"), resize=300),
        Cifar(Path("y"), val_share=0.1),
    ]


@pytest.mark.parametrize("words", [["--data"], ["--data", "--limit"], ["--data", "cub:x", "--data=cub:y"]])
def test_data_is_given_once(words: list[str], asked: list[Any], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["evaluate", "run", *words]) == 2
    assert "--data takes one data set, PREFIX:PATH or PATH, and is given once" in capsys.readouterr().err
    assert asked == []


def test_options_of_another_kind_are_refused(asked: list[Any], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["evaluate", "run", "--data", "cifar:y", "--data.resize", "300"])
    with pytest.raises(SystemExit):
        main(["evaluate", "--model.weights", "w.pth"])
    assert "--data.path" in capsys.readouterr().err


@pytest.mark.parametrize("words", [["train", "digits_cgc"], ["evaluate", "run"]])
def test_help_names_the_prefixes(words: list[str], asked: list[Any], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main([*words, "--help"])
    text = " ".join(capsys.readouterr().out.split())
    assert f"the options --data.FIELD of its kind: {', '.join(DATA_PREFIXES)}." in text


# --- what is said ---------------------------------------------------------------------------------------------------


def test_it_says_what_it_found(photos: Path) -> None:
    lines = overview(Folder(photos)).lines()
    assert lines == [
        f"Folder {photos}",
        "  train  3 images, 1 to 2 of each class, 2 of 2 classes: ant; bee",
        "         looked at 3: 12 x 8 pixels",
        "         boxes: none; masks: none",
        "  val    3 images, 1 to 2 of each class, 2 of 2 classes: ant; bee",
        "         looked at 3: 12 x 8 to 24 x 8 pixels",
        "         boxes: 2 on 2 of 3 images; masks: none",
        f"  test   not read: '{photos}' has no split 'test'; it has train, val. Expected '{photos}/test/class/*.jpg'.",
    ]
    assert overview(Folder(photos), ["val"], check=1).lines()[2] == "         looked at 1 of 3: 12 x 8 pixels"


def test_splits_that_are_the_same_and_errors(photos: Path) -> None:
    found = overview(Digits(num_train=20, num_val=10, num_test=10), ["test"])
    assert found.lines()[3] == "         boxes: 10 on 10 of 10 images; masks: on 10 of 10 images"
    with pytest.raises(DataError, match="has no split 'test'"):
        overview(Folder(photos), ["val", "test"])
    with pytest.raises(DataError, match="there is no folder"):
        overview(Folder(photos / "nowhere"))
    with pytest.raises(DataError, match="digits/val has no images"):
        overview(Digits(num_val=0), ["val"])


@dataclass
class Images(ImageSet):
    """A set of black images, made of what the reader of a damaged one would say."""

    name: str
    labels: list[int]
    classes: tuple[str, ...] = ("ant", "bee", "cat")
    boxes: tuple[float, ...] = ()
    faults: frozenset[int] = frozenset()
    skipped: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.labels)

    def image(self, index: int) -> Image.Image:
        if index in self.faults:
            raise ImageError(f"cannot read image '{index}.jpg': empty")
        return Image.new("RGB", (20, 10))

    def annotation(self, index: int) -> Annotation:
        boxes = np.array([self.boxes], np.float32) if self.boxes else NO_BOXES
        return Annotation(boxes, np.zeros((10, 20), np.bool_))

    def also(self, index: int) -> tuple[int, ...]:
        return (0, 1)

    def path(self, index: int) -> str:
        return f"{index}.jpg"

    def label(self, index: int) -> int:
        return self.labels[index]


def problems(monkeypatch: pytest.MonkeyPatch, **splits: Images) -> list[str]:
    monkeypatch.setattr(contrex.data_overview, "image_set", lambda data, split: splits[split])
    return overview(Digits(), tuple(splits)).problems


def test_problems_of_a_split(monkeypatch: pytest.MonkeyPatch) -> None:
    damaged = Images("a", [0, 1, -1, 2], boxes=(0, 0, 22, 5), faults=frozenset({1}), skipped=("x.jpg: empty",))
    assert problems(monkeypatch, val=damaged) == [
        "val: 1 image cannot be read: cannot read image '1.jpg': empty",
        "val: 1 image left out as unreadable: x.jpg: empty",
        "val: 1 image without a label",
        "val: 3 images with boxes outside of it: 0.jpg; 2.jpg; 3.jpg",
    ]
    assert problems(monkeypatch, val=Images("a", [0, 1], boxes=(-1, 0, 21, 11))) == []


def test_problems_between_splits(monkeypatch: pytest.MonkeyPatch) -> None:
    train, val = Images("train", [0, 0, 1]), Images("val", [1, 2])
    assert problems(monkeypatch, train=train, val=val) == [
        "val has images of 1 class without training images: cat",
        "train has no image of 1 of its 3 classes: cat",
    ]
    assert problems(monkeypatch, train=replace(train, labels=[0, 1, 2]), val=val) == []
    other = replace(val, classes=("ant", "bee", "dog, hound"))
    assert "train and val have different classes: cat; dog" in problems(monkeypatch, train=train, val=other)


def test_names_cannot_command_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    assert printable("\x1b]0;x\x07 \u202egpj\udcff") == "\\x1b]0;x\\x07 \\u202egpj\\udcff"
    images = Images("a", [0], classes=("\x1b[2Jant", "b\nee", "cat"))
    monkeypatch.setattr(contrex.data_overview, "image_set", lambda data, split: images)
    found = overview(Digits(), ("val",))
    assert "\\x1b[2Jant; b\\nee; cat" in found.lines()[1]
    assert contact_sheet(found.splits[0], num=1).width > SIDE


# --- what is drawn --------------------------------------------------------------------------------------------------


def test_boxes_and_masks_are_where_they_belong(monkeypatch: pytest.MonkeyPatch) -> None:
    """A 20 x 10 image is drawn 192 x 96 at the bottom of its square; the box is its right half, the mask is empty."""
    monkeypatch.setattr(contrex.data_overview, "image_set", lambda data, split: Images("a", [0], boxes=(10, 0, 20, 10)))
    sheet = np.asarray(contact_sheet(overview(Digits(), ("val",)).splits[0], num=5))
    square = sheet[32 : 32 + SIDE, MARGIN : MARGIN + SIDE]
    orange = np.all(square == [int(BOX[i : i + 2], 16) for i in (1, 3, 5)], axis=-1)
    rows, columns = np.nonzero(orange)
    assert [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1] == [96, 96, 192, 192]
    assert (square[:96] == 255).all()
    assert square[140, 40].tolist() == [178, 178, 178]


def test_a_sheet_shows_as_many_classes_as_it_can(monkeypatch: pytest.MonkeyPatch) -> None:
    images = Images("a", [0] * 5 + [1, 2], faults=frozenset({5}))
    shown: list[int] = []
    read = Images.__getitem__
    monkeypatch.setattr(Images, "__getitem__", lambda self, index: (shown.append(index), read(self, index))[1])
    monkeypatch.setattr(contrex.data_overview, "image_set", lambda data, split: images)
    (split,) = overview(Digits(), ("val",), check=1).splits
    for num, expected in ((4, [0, 1, 5, 6]), (2, [0, 6]), (3, [0, 5, 6]), (90, list(range(7)))):
        shown.clear()
        sheet = contact_sheet(split, num=num)
        assert shown == expected
        assert sheet.width == min(len(expected), 6) * (SIDE + MARGIN) + MARGIN


def test_the_command(photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["data", str(photos)]) == 0
    assert capsys.readouterr().out.endswith("picture: data-photos-train.png\npicture: data-photos-val.png\n")
    (photos / "val/ant/1.png").write_bytes(b"")
    assert main(["data", f"folder:{photos}", "--split", "val", "--num", "2", "--output", "sheet.png"]) == 1
    assert "PROBLEM val: 1 image cannot be read: " in capsys.readouterr().out
    with Image.open("sheet.png") as sheet:
        assert sheet.width == 2 * (SIDE + MARGIN) + MARGIN
    assert sorted(path.name for path in tmp_path.glob("*.png")) == [
        *("data-photos-train.png", "data-photos-val.png", "sheet.png")
    ]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "name a data set, as PATH or PREFIX:PATH, before the options"),
        (["--split", "val"], "name a data set"),
        (["digits", "--num", "0"], "--num 0 must be at least 1"),
        (["nowhere"], "there is no folder 'nowhere'"),
        (
            ["digits", "--data.num-val", "9", "--split", "val", "--output", "sheet.what"],
            "`output` 'sheet.what' needs the",
        ),
    ],
)
def test_mistakes(words: list[str], message: str, tmp_path: Path, monkeypatch: Any, capsys: Any) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["data", *words]) == 2
    assert message in capsys.readouterr().err


def test_help_of_the_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "--help"]) == 0
    assert "usage: contrex data PATH|PREFIX:PATH" in capsys.readouterr().out
