"""Hugging Face data sets, with a stand-in for their library: columns, names, splits, offline, and what is refused."""

from __future__ import annotations

import io
import pickle
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from contrex.data import HuggingFaceImages, image_set
from contrex.data.views.squares import view_sizes
from contrex.errors import ArgumentError, DataError, ImageError, UnknownNameError
from contrex.settings import HuggingFace


class ImageFeature:
    def __init__(self, *, decode: bool = True) -> None:
        self.decode = decode


class ClassLabel:
    def __init__(self, *names: str) -> None:
        self.names = list(names)


class Rows:
    """What the reader uses of `datasets.Dataset`."""

    def __init__(self, columns: dict[str, list[Any]], features: dict[str, Any]) -> None:
        self.columns, self.features, self.column_names = columns, features, list(columns)

    def __getitem__(self, key: int | str) -> Any:
        if isinstance(key, str):
            return self.columns[key]
        return {name: values[key] for name, values in self.columns.items()}

    def cast_column(self, name: str, feature: ImageFeature) -> Rows:
        assert not feature.decode
        return Rows(self.columns, self.features | {name: feature})


def encoded(color: str, orientation: int = 1, size: tuple[int, int] = (6, 4)) -> dict[str, Any]:
    exif, stream = Image.Exif(), io.BytesIO()
    exif[274] = orientation
    Image.new("RGB", size, color).save(stream, "PNG", exif=exif)
    return {"bytes": stream.getvalue(), "path": None}


def rows(labels: list[Any], *names: str, image: str = "image", label: str = "label") -> Rows:
    images = [encoded("teal", 6 if number else 1) for number in range(len(labels))]
    return Rows(
        {image: images, label: labels}, {image: ImageFeature(), label: ClassLabel(*names) if names else "int64"}
    )


@pytest.fixture
def library(monkeypatch: pytest.MonkeyPatch) -> types.SimpleNamespace:
    """The stand-in, whose `found` is what it loads; `calls` says how, `online` whether the network was allowed."""
    state = types.SimpleNamespace(
        found={"train": rows([1, 0, 1], "cat", "dog"), "validation": rows([0], "cat", "dog")}, calls=[], online=[]
    )
    datasets, config, hub = (types.ModuleType(name) for name in ("datasets", "datasets.config", "huggingface_hub"))
    constants = types.ModuleType("huggingface_hub.constants")
    config.HF_DATASETS_OFFLINE, constants.HF_HUB_OFFLINE = False, False  # type: ignore[attr-defined]

    def loads(name: str) -> Callable[..., Any]:
        def load(*arguments: Any, **options: Any) -> Any:
            state.calls.append((name, *arguments, options))
            state.online.append((not config.HF_DATASETS_OFFLINE, not constants.HF_HUB_OFFLINE))  # type: ignore[attr-defined]
            if isinstance(state.found, Exception):
                raise state.found
            return state.found

        return load

    datasets.Image = ImageFeature  # type: ignore[attr-defined]
    datasets.load_dataset, datasets.load_from_disk = loads("load_dataset"), loads("load_from_disk")  # type: ignore[attr-defined]
    for module in (datasets, config, hub, constants):
        monkeypatch.setitem(sys.modules, module.__name__, module)
    state.constants = constants
    return state


def read(path: str | Path = "org/pets", split: str = "train", **options: Any) -> HuggingFaceImages:
    return HuggingFaceImages(HuggingFace(Path(path), **options), split)


# --- samples --------------------------------------------------------------------------------------------------------


def test_images_labels_and_names(library: types.SimpleNamespace) -> None:
    images = image_set(HuggingFace(Path("org/pets")), "train")
    assert isinstance(images, HuggingFaceImages)
    assert (images.name, images.classes, images.skipped, len(images)) == ("pets/train", ("cat", "dog"), (), 3)
    assert [sample.label for sample in images] == [images.label(index) for index in range(3)] == [1, 0, 1]
    assert [sample.image.size for sample in images] == [(6, 4), (4, 6), (4, 6)]
    assert (images[2].path, images[2].index, images[2].boxes.shape) == ("train/00002", 2, (0, 4))
    assert images[0].image.getpixel((0, 0)) == (0, 128, 128)
    with pytest.raises(IndexError):
        images[3]


def test_val_is_validation_unless_said_otherwise(library: types.SimpleNamespace) -> None:
    assert read(split="val")[0].path == "validation/00000"
    assert read(split="val", splits={"val": "train"}).labels.tolist() == [1, 0, 1]
    library.found["val"] = rows([1, 1], "cat", "dog")
    assert len(read(split="val")) == 2


def test_other_columns_and_a_limit(library: types.SimpleNamespace) -> None:
    library.found = {"train": rows([2, 2, 0, 2, 0], "a", "b", "c", image="img", label="fine")}
    images = read(image="img", label="fine", limit_per_class=1)
    assert [sample.path[-1] for sample in images] == ["0", "2"]
    assert images.labels.tolist() == [2, 0]


def test_numbers_are_their_own_names_in_every_split(library: types.SimpleNamespace) -> None:
    library.found = {"train": rows([0, 3]), "test": rows([1])}
    assert read(split="test").classes == ("0", "1", "2", "3")


def test_it_travels_to_workers(library: types.SimpleNamespace) -> None:
    images = read()
    images._rows.features = {}
    assert pickle.loads(pickle.dumps(images))[1].image.size == (4, 6)


# --- where from -----------------------------------------------------------------------------------------------------


def test_names_come_from_the_cache(library: types.SimpleNamespace) -> None:
    read(config="full", revision="v2")
    assert library.calls == [("load_dataset", "org/pets", "full", {"revision": "v2"})]
    assert library.online == [(False, False)]
    assert not library.constants.HF_HUB_OFFLINE
    read(download=True)
    assert library.online[1] == (True, True)


def test_saved_folders(library: types.SimpleNamespace, tmp_path: Path) -> None:
    read(tmp_path)
    (tmp_path / "state.json").touch()
    library.found = rows([0], "cat")
    assert read(tmp_path).classes == ("cat",)
    assert [call[0] for call in library.calls] == ["load_dataset", "load_from_disk"]
    with pytest.raises(UnknownNameError, match=r"`split` of .* \(see `splits`\) must be one of train; got 'val'"):
        read(tmp_path, "val", splits={"val": "val"})


# --- refused --------------------------------------------------------------------------------------------------------


def test_without_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(DataError, match=r'need an extra \(.*\): pip install "contrex\[hf\]"'):
        read()


def test_what_cannot_be_loaded(library: types.SimpleNamespace, tmp_path: Path) -> None:
    library.found = ConnectionError("couldn't reach it")
    with pytest.raises(DataError, match=r"cannot load 'org/pets': couldn't reach it.*--data.download to fetch"):
        read()
    assert not library.constants.HF_HUB_OFFLINE
    with pytest.raises(DataError, match=r"couldn't reach it$"):
        read(tmp_path)


def test_columns(library: types.SimpleNamespace) -> None:
    with pytest.raises(UnknownNameError, match="`image`, the column, must be one of image, label; got 'img'"):
        read(image="img")
    with pytest.raises(UnknownNameError, match="`label`, the column, must be one of image, label; got 'fine'"):
        read(label="fine")
    with pytest.raises(DataError, match=r"`image` column 'label' holds .*, not images"):
        read(image="label")
    with pytest.raises(UnknownNameError, match="must be one of train, validation; got 'test'"):
        read(split="test")


@pytest.mark.parametrize(
    ("labels", "reason"),
    [
        ([0, -1], r"has rows without a label \(-1\). Choose another split"),
        ([0, None], "must hold a class or a whole number"),
        ([0.5, 1.0], "must hold a class or a whole number"),
        ([[0], [0, 1]], "must hold a class or a whole number"),
        (["cat", "dog"], "must hold a class or a whole number"),
        ([0, 2], r"holds the label 2, which is not in 0..1, the classes of the column"),
        ([0, 2**31], r"holds 2147483648, too large to be a class"),
        ([2**63], r"holds 9223372036854775808, too large to be a class"),
    ],
)
def test_labels(library: types.SimpleNamespace, labels: list[Any], reason: str) -> None:
    library.found = {"train": rows(labels, "cat", "dog")}
    with pytest.raises(DataError, match=reason):
        read()


def test_a_large_label_does_not_fill_the_memory_with_names(library: types.SimpleNamespace) -> None:
    library.found = {"train": rows([0, 2**31 - 1])}
    with pytest.raises(DataError, match="`label` column 'label' has the label 2147483647, too large to be the number"):
        read()


def test_unreadable_images(library: types.SimpleNamespace, tmp_path: Path) -> None:
    images = read()
    images._rows.columns["image"][0] = {"bytes": b"", "path": None}
    with pytest.raises(ImageError, match="cannot read image 'org/pets: train/00000': the file is empty"):
        images[0]
    images._rows.columns["image"][0] = {"bytes": None, "path": None}
    with pytest.raises(ImageError, match="train/00000': the row holds none"):
        images[0]
    Image.new("RGB", (3, 2)).save(tmp_path / "1.png")
    images._rows.columns["image"][0] = {"bytes": None, "path": str(tmp_path / "1.png")}
    assert images[0].image.size == (3, 2)


def test_settings() -> None:
    assert view_sizes(HuggingFace(Path("org/pets"), image_size=32, resize=32)) == (32, 32)
    with pytest.raises(ArgumentError, match=r"`data.image_size` must be from 1 to `data.resize`"):
        HuggingFace(Path("org/pets"), resize=100)
