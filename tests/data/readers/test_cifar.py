"""CIFAR as it is published and as npz: pixels, labels, names, the split of the training images, and every refusal."""

from __future__ import annotations

import hashlib
import pickle
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from torchvision import datasets

from conftest import shared
from contrex.data import CifarImages, image_set
from contrex.data.views.squares import view_sizes
from contrex.errors import ArgumentError, DataError, UnknownNameError
from contrex.settings import Cifar


def pictures(labels: list[int], seed: int = 0) -> np.ndarray:
    """Noise whose first pixel, upper left, is (label, 1, 2)."""
    images = np.random.default_rng(seed).integers(256, size=(len(labels), 32, 32, 3), dtype=np.uint8)
    images[:, 0, 0] = [(label, 1, 2) for label in labels]
    return images


def published(file: Path, content: dict[str, object]) -> list[str]:
    """Write a pickle and return its name with its MD5, as torchvision lists them."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(pickle.dumps(content))
    return [file.name, hashlib.md5(file.read_bytes()).hexdigest()]


def rows(labels: list[int]) -> np.ndarray:
    """Channel by channel, as the published files store a picture."""
    return pictures(labels).transpose(0, 3, 1, 2).reshape(len(labels), 3072)


@pytest.fixture
def cifar10(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Five training batches of four pictures and one of three for testing."""
    folder = tmp_path / "cifar-10-batches-py"
    parts = [[i, (i + 1) % 10, (i + 2) % 10, 9] for i in range(5)]
    train = [
        published(folder / f"data_batch_{i}", {"batch_label": f"{i}", "labels": part, "data": rows(part)})
        for i, part in enumerate(parts, start=1)
    ]
    test = [published(folder / "test_batch", {"batch_label": "t", "labels": [3, 0, 9], "data": rows([3, 0, 9])})]
    names = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]
    _, md5 = published(folder / "batches.meta", {"num_cases_per_batch": 4, "label_names": names, "num_vis": 3072})
    monkeypatch.setattr(datasets.CIFAR10, "train_list", train)
    monkeypatch.setattr(datasets.CIFAR10, "test_list", test)
    monkeypatch.setattr(datasets.CIFAR10, "meta", {**datasets.CIFAR10.meta, "md5": md5})
    return folder


@pytest.fixture
def cifar100(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "cifar-100-python"
    fine = [99, 4, 50, 4]
    labels = {"fine_labels": fine, "coarse_labels": [1, 2, 3, 2]}
    train = published(folder / "train", {"filenames": ["a.png"] * 4, **labels, "data": rows(fine)})
    test = published(folder / "test", {"filenames": [], "fine_labels": [4], "coarse_labels": [2], "data": rows([4])})
    names = {"fine_label_names": [f"fine {i}" for i in range(100)], "coarse_label_names": ["coarse"] * 20}
    _, md5 = published(folder / "meta", names)
    monkeypatch.setattr(datasets.CIFAR100, "train_list", [train])
    monkeypatch.setattr(datasets.CIFAR100, "test_list", [test])
    monkeypatch.setattr(datasets.CIFAR100, "meta", {**datasets.CIFAR100.meta, "md5": md5})
    return folder


def unpacked(folder: Path, train: list[int], test: list[int] | None = None) -> Path:
    np.savez(folder / "train.npz", x=pictures(train), y=np.array(train, dtype=np.uint8))
    if test is not None:
        np.savez(folder / "test.npz", x=pictures(test, 1), y=np.array(test, dtype=np.uint8))
    return folder


@pytest.fixture
def npz(tmp_path: Path) -> Path:
    """Ten pictures of class 0, five of class 2 and a test split."""
    return unpacked(tmp_path, [0, 2, 0] * 5, [2, 0, 1])


# --- the published files --------------------------------------------------------------------------------------------


def test_cifar10_as_published(cifar10: Path) -> None:
    images = image_set(Cifar(cifar10), "train")
    assert isinstance(images, CifarImages)
    assert (images.name, len(images), images.classes[9]) == ("cifar-10-batches-py/train", 20, "truck")
    assert images.labels[:8].tolist() == [0, 1, 2, 9, 1, 2, 3, 9]
    sample = images[6]
    assert (sample.label, sample.path, sample.index, sample.mask) == (3, "train/00006", 6, None)
    assert (sample.image.mode, sample.image.size, sample.boxes.shape) == ("RGB", (32, 32), (0, 4))
    assert sample.image.getpixel((0, 0)) == (3, 1, 2)
    np.testing.assert_array_equal(np.asarray(sample.image)[1:], pictures([1, 2, 3, 9])[2, 1:])


def test_the_folder_above_does_too(cifar10: Path) -> None:
    images = CifarImages(Cifar(cifar10.parent), "test")
    assert (images.name, images.labels.tolist()) == ("cifar-10-batches-py/test", [3, 0, 9])
    assert images[-1].path == "test/00002"


def test_cifar100_has_its_fine_classes(cifar100: Path) -> None:
    images = CifarImages(Cifar(cifar100), "train")
    assert (images.labels.tolist(), len(images.classes), images.classes[99]) == ([99, 4, 50, 4], 100, "fine 99")
    assert CifarImages(Cifar(cifar100), "test").labels.tolist() == [4]


def test_both_in_one_folder(cifar10: Path, cifar100: Path) -> None:
    assert cifar10.parent == cifar100.parent
    with pytest.raises(DataError, match=r"several data sets: name one as `path`, as in '.*cifar-10-batches-py'"):
        CifarImages(Cifar(cifar10.parent), "train")
    assert len(CifarImages(Cifar(cifar100), "train")) == 4


@pytest.mark.parametrize("name", ["data_batch_3", "test_batch", "batches.meta"])
def test_a_missing_or_damaged_published_file_is_named(cifar10: Path, name: str) -> None:
    """Nothing with another MD5 is unpickled."""
    file = cifar10 / name
    file.write_bytes(b"cos\nsystem\n(S'exit 1'\ntR.")
    with pytest.raises(
        DataError, match=rf"{name}' is not the published file: its MD5 must be \w+\. Unpack cifar-10-py"
    ):
        CifarImages(Cifar(cifar10), "train")
    file.unlink()
    with pytest.raises(DataError, match=rf"cifar-10-batches-py' has no file '{name}'\. Unpack .* from https://"):
        CifarImages(Cifar(cifar10), "train")


# --- npz ------------------------------------------------------------------------------------------------------------


def test_npz(npz: Path) -> None:
    images = CifarImages(Cifar(npz), "train")
    assert (images.name, images.classes, images.skipped) == (f"{npz.name}/train", ("0", "1", "2"), ())
    assert images.labels.tolist() == [0, 2, 0] * 5
    np.testing.assert_array_equal(np.asarray(images[4].image), pictures([0, 2, 0] * 5)[4])
    assert CifarImages(Cifar(npz), "test").classes == images.classes


def test_it_is_a_sequence_that_travels_to_workers(npz: Path) -> None:
    images = pickle.loads(pickle.dumps(CifarImages(Cifar(npz), "test")))
    assert [sample.label for sample in images] == [images.label(i) for i in range(3)] == [2, 0, 1]
    with pytest.raises(IndexError):
        images[3]


def test_names_of_npz_classes(npz: Path) -> None:
    (npz / "classes.txt").write_text("ant\nbee\ncat\ndog\n")
    assert CifarImages(Cifar(npz), "test").classes == ("ant", "bee", "cat", "dog")
    (npz / "classes.txt").write_text("ant\nbee\n")
    with pytest.raises(DataError, match=r"classes.txt' names 2 classes, but there are labels up to 2"):
        CifarImages(Cifar(npz), "test")
    (npz / "classes.txt").unlink()
    assert CifarImages(Cifar(unpacked(npz, list(range(10)), [0])), "test").classes[:2] == ("airplane", "automobile")


def test_classes_agree_where_one_split_lacks_some(tmp_path: Path) -> None:
    settings = Cifar(unpacked(tmp_path, [0, 1], [4]))
    assert CifarImages(settings, "train").classes == CifarImages(settings, "test").classes == tuple("01234")


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"x": pictures([0])}, "has no array y; it needs x, the images, and y"),
        ({"y": np.zeros(1, np.uint8)}, "has no array x"),
        ({"x": pictures([0]) / 255, "y": np.zeros(1, int)}, r"x must be uint8 \[1,32,32,3\].*got float64"),
        ({"x": pictures([0, 0]), "y": np.zeros(1, int)}, r"x must be uint8 \[1,32,32,3\], an image for each label"),
        ({"x": pictures([0]).transpose(0, 3, 1, 2), "y": np.zeros(1, int)}, r"got uint8 \[1, 3, 32, 32\]"),
        ({"x": pictures([0]), "y": np.zeros(1)}, r"y must be class indices \[N\], from 0 on; got float64"),
        ({"x": pictures([0]), "y": np.array([-1])}, "y must be class indices"),
        ({"x": pictures([0]), "y": np.array([2**31 - 1])}, "has the label 2147483647, too large to be the number"),
        ({"x": pictures([0]), "y": np.array([2**63], np.uint64)}, "got 9223372036854775808, too large to be one"),
        ({"x": pictures([0]), "y": np.zeros((1, 10), int)}, r"got int64 \[1, 10\]"),
        ({"x": pictures([0]), "y": np.array([{}])}, "is not a readable npz file: .*allow_pickle"),
    ],
)
def test_bad_arrays(tmp_path: Path, arrays: dict[str, np.ndarray], message: str) -> None:
    np.savez(tmp_path / "train.npz", **arrays)
    with pytest.raises(DataError, match=message):
        CifarImages(Cifar(tmp_path), "train")


def test_damaged_npz(npz: Path) -> None:
    whole = (npz / "train.npz").read_bytes()
    for content in (b"", b"text", whole[:2000], pickle.dumps([1])):
        (npz / "train.npz").write_bytes(content)
        with pytest.raises(DataError, match=r"train.npz' is not a readable npz file"):
            CifarImages(Cifar(npz), "train")
    np.save(npz / "one.npy", np.zeros(3))
    (npz / "one.npy").rename(npz / "train.npz")
    with pytest.raises(DataError, match=r"train.npz' is not a readable npz file"):
        CifarImages(Cifar(npz), "train")


def test_missing_files(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"has none of cifar-10-batches-py/, cifar-100-python/, train.npz and test.npz"):
        CifarImages(Cifar(tmp_path), "train")
    with pytest.raises(DataError, match=r"there is no folder '.*nowhere'"):
        CifarImages(Cifar(tmp_path / "nowhere"), "train")
    with pytest.raises(DataError, match=r"has no 'test.npz' with x uint8 \[N,32,32,3\] and y \[N\]"):
        CifarImages(Cifar(unpacked(tmp_path, [0])), "val")


def test_unknown_split(npz: Path) -> None:
    with pytest.raises(UnknownNameError, match=r"`split` of CIFAR must be one of train, val, test; got 'valid'"):
        CifarImages(Cifar(npz), "valid")


# --- splits ---------------------------------------------------------------------------------------------------------


def test_val_is_the_test_split_and_says_so(npz: Path) -> None:
    val = CifarImages(Cifar(npz), "val")
    assert (val.name, [sample.path for sample in val]) == (f"{npz.name}/test", [f"test/{i:05d}" for i in range(3)])


def test_val_share_divides_every_class(npz: Path) -> None:
    settings = Cifar(npz, val_share=0.2)
    train, val = CifarImages(settings, "train"), CifarImages(settings, "val")
    assert val.name == f"{npz.name}/val"
    assert sorted(val.labels.tolist()) == [0, 0, 2]
    assert sorted(sample.path for images in (train, val) for sample in images) == [f"train/{i:05d}" for i in range(15)]
    for images in (train, val):
        for sample in images:
            assert sample.image.getpixel((0, 0)) == (sample.label, 1, 2)
            assert sample.label == [0, 2, 0][int(sample.path[-5:]) % 3]
    assert CifarImages(settings, "test").labels.tolist() == [2, 0, 1]


def test_val_share_is_drawn_by_its_seed(npz: Path) -> None:
    def kept(seed: int) -> list[str]:
        return [sample.path for sample in CifarImages(Cifar(npz, val_share=0.4, val_seed=seed), "val")]

    assert kept(0) == kept(0)
    assert len({tuple(kept(seed)) for seed in range(5)}) > 2


def test_val_share_that_empties_a_class(npz: Path) -> None:
    for share, num in ((0.05, 0), (0.95, 5)):
        for split in ("train", "val"):
            with pytest.raises(DataError, match=rf"of the 5 training images of class 2 is {num}: each split needs one"):
                CifarImages(Cifar(unpacked(npz, [0, 2, 0] * 5 + [0] * 15), val_share=share), split)
    assert len(CifarImages(Cifar(npz, val_share=0.05), "test")) == 3


def test_limit_per_class(npz: Path) -> None:
    images = CifarImages(Cifar(npz, limit_per_class=2), "train")
    assert [sample.path for sample in images] == ["train/00000", "train/00001", "train/00002", "train/00004"]
    settings = Cifar(npz, limit_per_class=2, val_share=0.2)
    train, val = CifarImages(settings, "train"), CifarImages(settings, "val")
    assert (sorted(train.labels), sorted(val.labels)) == ([0, 0, 2, 2], [0, 0, 2])
    assert not {sample.path for sample in train} & {sample.path for sample in val}


# --- settings and real data -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "value"),
    [("val_share", 1.0), ("val_share", -0.1), ("val_share", float("nan")), ("val_seed", -1), ("image_size", 0),
     ("limit_per_class", 0)],
)  # fmt: skip
def test_settings_out_of_range(name: str, value: float) -> None:
    with pytest.raises(ArgumentError, match=rf"`data.{name}` must be"):
        replace(Cifar(Path("cifar")), **{name: value})


def test_view_sizes() -> None:
    assert view_sizes(Cifar(Path("cifar"))) == (32, 32)
    assert view_sizes(Cifar(Path("cifar"), image_size=64)) == (64, 64)


def test_real_npz() -> None:
    settings = Cifar(shared("data", "cifar10"))
    images = CifarImages(settings, "val")
    assert (images.name, len(images), np.bincount(images.labels).tolist()) == ("cifar10/test", 2000, [200] * 10)
    assert images.classes == ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
    assert len(CifarImages(replace(settings, val_share=0.2), "val")) == 1200
