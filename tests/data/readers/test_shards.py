"""Tar archives: labels, boxes and order, what is refused, and reading by any number of workers."""

from __future__ import annotations

import io
import json
import os
import pickle
import subprocess
import sys
import tarfile
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from contrex.data import image_set
from contrex.data.files import index_cache
from contrex.data.loading import TrainingLoader
from contrex.data.readers.folder import FolderImages
from contrex.data.readers.shards import ShardImages
from contrex.data.views.training import TrainingViews
from contrex.errors import ArgumentError, DataError, ImageError
from contrex.settings import Augmentation, Folder, Shards

WIDTH, HEIGHT = 12, 8


def picture(colour="teal", orientation=1, suffix="png"):
    stream = io.BytesIO()
    exif = Image.Exif()
    exif[274] = orientation
    Image.new("RGB", (WIDTH, HEIGHT), colour).save(stream, format={"jpg": "jpeg"}.get(suffix, suffix), exif=exif)
    return stream.getvalue()


def write_tar(path, members):
    """An archive of (name, bytes or text)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as archive:
        for name, content in members:
            stored = content.encode() if isinstance(content, str) else content
            member = tarfile.TarInfo(name)
            member.size = len(stored)
            archive.addfile(member, io.BytesIO(stored))
    return path


@pytest.fixture
def root(tmp_path):
    """Five training images in two archives, two to validate on."""
    red, blue = picture("red"), picture("blue", suffix="jpg")
    write_tar(
        tmp_path / "set" / "train-000000.tar",
        [("b/1.png", red), ("b/1.cls", "1"), ("a/2.jpg", blue), ("a/2.cls", "0\n"), ("a/2.seg.png", b"ignored")],
    )
    boxes = {"label": 2, "boxes": [[1, 2, 3, 4.5], [0, 0, 12, 8]], "caption": "two birds"}
    write_tar(
        tmp_path / "set" / "train-000001.tar",
        [("3.cls", "2"), ("3.json", json.dumps(boxes)), ("3.png", red), ("größe 猿.JPG", blue),
         ("größe 猿.json", '{"label": 0}'), (".hidden.png", red), ("4.PNG", red), ("4.cls", "1")],
    )  # fmt: skip
    write_tar(tmp_path / "set" / "val-000000.tar", [("x.png", red), ("x.cls", "2"), ("y.png", red), ("y.cls", "1")])
    return tmp_path / "set"


def shards(root, split="train", **options):
    return ShardImages(Shards(root, **options), split)


# --- reading --------------------------------------------------------------------------------------------------------


def test_samples_in_the_order_they_are_stored(root):
    images = shards(root)
    assert images.name == "set/train"
    assert images.classes == ["0", "1", "2"]
    assert images.labels.tolist() == [1, 0, 2, 0, 1] == [images.label(i) for i in range(len(images))]
    assert [sample.path for sample in images] == [
        "train-000000.tar/b/1.png", "train-000000.tar/a/2.jpg", "train-000001.tar/3.png",
        "train-000001.tar/größe 猿.JPG", "train-000001.tar/4.PNG",
    ]  # fmt: skip
    assert [sample.image.getpixel((0, 0))[0] > 100 for sample in images] == [True, False, True, False, True]
    assert [sample.index for sample in images] == list(range(5))
    assert images[-1].label == 1
    with pytest.raises(IndexError):
        images[5]


def test_boxes_come_from_json_and_turn_with_the_image(root):
    assert [len(sample.boxes) for sample in shards(root)] == [0, 0, 2, 0, 0]
    assert shards(root)[2].boxes.tolist() == [[1, 2, 3, 4.5], [0, 0, 12, 8]]
    turned = picture(orientation=6)
    write_tar(root / "train-000002.tar", [("5.png", turned), ("5.json", '{"label": 1, "boxes": [[0, 0, 2, 1]]}')])
    sample = shards(root)[5]
    assert sample.image.size == (HEIGHT, WIDTH)
    assert sample.boxes.tolist() == [[7, 0, 8, 2]]


def test_names_of_classes(root):
    (root / "classes.txt").write_text("ants\nbees\ncats\ndogs\n")
    assert shards(root).classes == ["ants", "bees", "cats", "dogs"]
    assert shards(root, "val").classes == ["ants", "bees", "cats", "dogs"]


def test_limit_per_class_and_the_registry(root):
    images = image_set(Shards(root, limit_per_class=1), "train")
    assert [sample.path[-5:] for sample in images] == ["1.png", "2.jpg", "3.png"]
    assert images.labels.tolist() == [1, 0, 2]
    assert images[2].boxes.shape == (2, 4)


def test_other_names(root):
    (root / "deep" / "train").mkdir(parents=True)
    for number in (0, 1):
        (root / f"train-00000{number}.tar").rename(root / "deep" / "train" / f"{number}.tar")
    assert shards(root, pattern="deep/{split}/*.tar")[0].path == "deep/train/0.tar/b/1.png"
    for pattern in ("*.tar", "{split}-{000..001}.tar", "{0}{split}", "/{split}.tar", "../{split}.tar"):
        with pytest.raises(
            ArgumentError, match=r"`data.pattern` must be archives below `path`, with {split} and no oth"
        ):
            Shards(root, pattern=pattern)
    with pytest.raises(ArgumentError, match=r"`data.image_size` must be from 1"):
        Shards(root, image_size=300)


def views_of(images):
    return TrainingViews(images, resize=8, size=8, augmentation=Augmentation(), seed=3)


def test_the_same_pictures_in_folders_give_the_same_batches(root, tmp_path):
    images = shards(root)
    for number, sample in enumerate(images):
        folder = tmp_path / "folders" / "train" / str(sample.label)
        folder.mkdir(parents=True, exist_ok=True)
        sample.image.save(folder / f"{number}.png")
    as_files = FolderImages(Folder(tmp_path / "folders"), "train")
    order = [int(Path(path).stem) for path in as_files.paths]
    assert [images.label(number) for number in order] == as_files.labels.tolist()
    for place, number in enumerate(order):
        assert np.array_equal(np.asarray(images[number].image), np.asarray(as_files[place].image))


@pytest.mark.slow
@pytest.mark.parametrize("start_method", ["fork", "spawn"])
def test_workers_read_what_one_process_does(root, start_method):
    images = shards(root)
    assert pickle.loads(pickle.dumps(images))[4].path == images[4].path
    torch.multiprocessing.set_start_method(start_method, force=True)
    found = []
    for workers in (0, 2):
        loader = TrainingLoader([views_of(images)], batch_size=2, workers=workers)
        found.append([batch for epoch in (1, 2) for batch in loader.batches(epoch)])
        loader.close()
    torch.multiprocessing.set_start_method(None, force=True)
    assert len(found[0]) == len(found[1]) == 4
    for one, other in zip(*found, strict=True):
        assert one.paths == other.paths
        assert torch.equal(one.images, other.images)
        assert torch.equal(one.views[0].pixels, other.views[0].pixels)


# --- what is refused ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ([("1.png", b"x")], r"train-9.tar' has no label of '1.png': add '1.cls' or a \"label\" in '.json'"),
        ([("1.png", b"x"), ("1.json", "{}")], r"has no label of '1.png'"),
        ([("1.png", b"x"), ("1.cls", "cat")], r"member '1.cls': expected a whole number, got b'cat'"),
        ([("1.png", b"x"), ("1.cls", "")], r"member '1.cls': expected a whole number, got b''"),
        ([("1.png", b"x"), ("1.cls", "1" * 1_000_001)], r"member '1.cls': expected a whole number, got b''"),
        ([("1.png", b"x"), ("1.cls", "9" * 11)], r"member '1.cls': expected a whole number"),
        ([("1.png", b"x"), ("1.json", "[" * 100_000)], r"member '1.json': expected {\"label\": 7, \"boxes\""),
        ([("1.png", b"x"), ("1.json", "[1]")], r"has no label of '1.png'"),
        ([("1.png", b"x"), ("1.json", "7")], r"member '1.json': expected {"),
        ([("1.png", b"x"), ("1.json", '{"label": true}')], r"member '1.json': expected {"),
        ([("1.png", b"x"), ("1.json", '{"label": 1.0}')], r"member '1.json': expected {"),
        ([("1.png", b"x"), ("1.json", '{"label": 1, "boxes": [[1, 2, 1, 3]]}')], r"member '1.json': expected {"),
        ([("1.png", b"x"), ("1.json", '{"label": 1, "boxes": [[1, 2, NaN, 3]]}')], r"member '1.json': expected {"),
        ([("1.png", b"x"), ("1.json", '{"label": 1, "boxes": 3}')], r"member '1.json': expected {"),
        ([("1.png", b"x"), ("1.jpg", b"x"), ("1.cls", "1")], r"has two images of '1': 1.png, 1.jpg"),
    ],
)  # fmt: skip
def test_bad_members_are_named(root, members, message):
    write_tar(root / "train-9.tar", members)
    with pytest.raises(DataError, match=message):
        shards(root)


def test_a_large_label_does_not_fill_the_memory_with_names(root):
    write_tar(root / "train-9.tar", [("z/1.png", b"x"), ("z/1.cls", str(2**31 - 1))])
    with pytest.raises(DataError, match=r"train-9.tar/z/1.png' has the label 2147483647, too large to be the number"):
        shards(root)


@pytest.mark.parametrize("label", ["-1", "3"])
def test_labels_out_of_range(root, label):
    (root / "classes.txt").write_text("ants\nbees\ncats\n")
    write_tar(root / "train-9.tar", [("z/1.png", b"x"), ("z/1.cls", label)])
    with pytest.raises(
        DataError, match=rf"train-9.tar/z/1.png' has the label {label}, which is not in 0..2, the classes"
    ):
        shards(root)


def test_damaged_archives(root):
    whole = (root / "train-000001.tar").read_bytes()
    for content in (whole[:1800], b"not a tar", b"", b"\x1f\x8b" + whole):
        (root / "train-000001.tar").write_bytes(content)
        with pytest.raises(DataError, match=r"train-000001.tar' cannot be read: .* must be a whole, uncompressed tar"):
            shards(root)


def test_missing_folders_and_archives(root):
    with pytest.raises(DataError, match=r"`path` must be the folder with the archives; there is no folder 'nowhere'"):
        shards(Path("nowhere"))
    with pytest.raises(
        DataError, match=r"has no archives 'test-\*.tar' of the split 'test'. Name them so, or set `patt"
    ):
        shards(root, "test")
    write_tar(root / "empty-0.tar", [("readme.txt", "no images")])
    with pytest.raises(DataError, match=r"split 'empty' of '.*' has no readable images"):
        shards(root, "empty")


def test_bad_images_stop_with_their_place_or_are_left_out(root):
    write_tar(root / "train-000000.tar", [("1.png", b""), ("1.cls", "0"), ("2.png", picture()[:-40]), ("2.cls", "0")])
    with pytest.raises(ImageError, match=r"train-000000.tar/1.png': the file is empty.*--data.on-bad-image skip"):
        shards(root)[0]
    images = shards(root, on_bad_image="skip")
    assert [sample.path[-5:] for sample in images] == ["3.png", "猿.JPG", "4.PNG"]
    assert [Path(fault.split("'")[1]).name for fault in images.skipped] == ["1.png", "2.png"]
    assert images[0].boxes.shape == (2, 4)


def test_links_and_sparse_members_are_no_images(root):
    with tarfile.open(root / "train-9.tar", "w") as archive:
        for name, kind in (("1.png", tarfile.SYMTYPE), ("2.png", tarfile.LNKTYPE), ("3.png", tarfile.DIRTYPE)):
            member = tarfile.TarInfo(name)
            member.type, member.linkname = kind, "/etc/passwd"
            archive.addfile(member)
    assert len(shards(root)) == 5


def test_an_archive_that_changes_is_noticed(root):
    """Its offsets would give other bytes."""
    images = shards(root)
    write_tar(root / "train-000001.tar", [("3.png", picture("blue")), ("3.cls", "2")])
    assert images[0].label == 1
    with pytest.raises(DataError, match=r"train-000001.tar' has changed since this run read its index: start again"):
        images[2]
    assert len(shards(root)) == 3


# --- the cache ------------------------------------------------------------------------------------------------------


def test_headers_are_read_once(root, tmp_path, monkeypatch):
    monkeypatch.delenv("CONTREX_NO_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(index_cache, "SMALLEST", 0)
    monkeypatch.setattr(index_cache.time, "time_ns", lambda: int((time.time() + 3600) * 1e9))
    opened, real = [], tarfile.open

    def noting(name, *rest, **more):
        opened.append(name.name)
        return real(name, *rest, **more)

    monkeypatch.setattr(tarfile, "open", noting)
    first = [(sample.path, sample.label, sample.boxes.tolist()) for sample in shards(root)]
    assert opened == ["train-000000.tar", "train-000001.tar"]
    assert [(sample.path, sample.label, sample.boxes.tolist()) for sample in shards(root)] == first
    assert len(opened) == 2
    os.utime(root / "train-000001.tar")
    shards(root)
    assert opened[2:] == ["train-000001.tar"]


def test_nothing_is_unpickled(root, tmp_path):
    """Members that WebDataset's own decoder would unpickle are not even read."""
    marker = tmp_path / "executed"
    code = f"cos\nsystem\n(S'touch {marker}'\ntR.".encode()
    write_tar(root / "train-9.tar", [("1.png", picture()), ("1.cls", "1"), ("1.pyd", code), ("1.pickle", code)])
    assert len(list(shards(root))) == 6
    subprocess.run(
        [sys.executable, "-c", "import pickle, sys; pickle.loads(sys.stdin.buffer.read())"], input=code, check=True
    )
    assert marker.exists()  # the payload works
