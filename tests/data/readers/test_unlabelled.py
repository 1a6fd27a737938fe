"""Which unlabelled images a step has: a function of seed and step alone; and those of a folder."""

import itertools
import os
import shutil
import zlib
from contextlib import closing

import pytest
import torch
from PIL import Image

from contrex.data.labelled import training_images
from contrex.data.loading import TrainingLoader
from contrex.data.readers.unlabelled import UnlabelledFolder, UnlabelledImages
from contrex.data.views.training import TrainingViews
from contrex.data.views.unlabelled import Cycle
from contrex.errors import ArgumentError, DataError, ImageError
from contrex.settings import CGC, Augmentation, Digits, Labelled, Model, Recipe, UnlabelledPhotos

DATA = Digits(num_train=26, image_size=32, digit_size=(14, 18), num_clutter=2)


def few(**labelled):
    options = {"per_class": 1, "rest": "unlabelled", **labelled}
    return Recipe("few", DATA, Model("contrex:convnet"), CGC(), labelled=Labelled(**options))


@pytest.fixture(scope="module")
def images():
    return training_images(few())


def views_of(images, seed=5):
    augmentation = Augmentation(scale=(0.4, 1.0), where="device")
    return TrainingViews(images, resize=32, size=32, augmentation=augmentation, seed=seed)


def joint(
    images, *, number=0, epoch=0, batch_size=4, labelled_seed=5, beside=5, beside_parts=(slice(None),), **options
):
    """The batches of an epoch whose first has the run's step `number`."""
    cycle = Cycle(views_of(images.unlabelled, 7), beside, beside_parts)
    start = options.pop("start", 0)
    views = [views_of(images.labelled, labelled_seed)]
    with closing(TrainingLoader(views, batch_size=batch_size, cycle=cycle, **options)) as loader:
        return list(loader.batches(epoch, start=start, step=number))


def fingerprint(batch):
    return batch.paths, batch.views[0].crop.left.tolist(), batch.views[0].crop.flip.tolist(), batch.images.sum().item()


def test_the_labelled_images_are_those_without_others_beside_them(images):
    alone = list(TrainingLoader([views_of(images.labelled)], batch_size=4).batches(1))
    found = joint(images, epoch=1)
    assert [fingerprint(batch) for batch in found] == [fingerprint(batch) for batch in alone]
    assert all(batch.unlabelled is None for batch in alone)
    assert [len(batch.unlabelled) for batch in found] == [5, 5]
    assert not {p for b in found for p in b.paths} & {p for b in found for p in b.unlabelled.paths}
    assert all(batch.unlabelled.labels.tolist() == [-1] * 5 for batch in found)


def test_passes_go_on_over_epochs_and_each_has_every_image_once(images):
    """17 images, 3 batches of 5 a pass, 2 steps an epoch: a pass ends in the middle of one."""
    steps = [batch.unlabelled for epoch in range(6) for batch in joint(images, epoch=epoch, number=2 * epoch)]
    passes = [list(itertools.chain(*(step.paths for step in steps[i : i + 3]))) for i in range(0, 12, 3)]
    assert [len(set(paths)) for paths in passes] == [15] * 4
    assert len({tuple(paths) for paths in passes}) == 4
    crops = [dict(zip(step.paths, step.views[0].crop.left.tolist(), strict=True)) for step in steps]
    assert crops[0] != {path: left for step in crops[3:6] for path, left in step.items() if path in crops[0]}


def test_they_depend_on_the_step_alone(images):
    """Not on the labelled images' seed, epoch or batch size, not on workers, nor on where the run was resumed."""
    expected = [fingerprint(batch.unlabelled) for batch in joint(images, number=4)]
    for options in ({"labelled_seed": 1}, {"epoch": 3}, {"batch_size": 3}, {"workers": 2}):
        found = [fingerprint(batch.unlabelled) for batch in joint(images, number=4, **options)]
        assert found[:2] == expected, options
    (resumed,) = joint(images, number=5, start=1)
    assert fingerprint(resumed) == fingerprint(joint(images, number=4)[1])
    assert fingerprint(resumed.unlabelled) == expected[1]
    assert fingerprint(joint(images, number=3)[1].unlabelled) == expected[0]


def test_processes_and_parts_share_a_step(images):
    whole = joint(images, number=1, beside=6)
    parts = joint(images, number=1, beside=6, parts=[slice(0, 2), slice(2, 4)], beside_parts=[slice(0, 3), slice(3, 6)])
    assert [len(part) for part in parts] == [2] * 4
    for step, first, second in zip(whole, parts[::2], parts[1::2], strict=True):
        assert step.paths == [*first.paths, *second.paths]
        assert step.unlabelled.paths == [*first.unlabelled.paths, *second.unlabelled.paths]


def test_a_batch_goes_to_its_device_with_what_is_beside_it(images):
    batch = joint(images)[0].to(torch.device("cpu"), channels_last=True)
    assert batch.unlabelled.images.dtype == torch.float32
    assert batch.unlabelled.views[0].pixels.shape == (5, 3, 32, 32)
    assert batch.unlabelled.views[0].pixels.is_contiguous(memory_format=torch.channels_last)


# --- a folder -------------------------------------------------------------------------------------------------------


def picture(path):
    """Write a picture that no other path has."""
    path.parent.mkdir(parents=True, exist_ok=True)
    colour = zlib.crc32(str(path).encode()) % 2**24
    Image.new("RGB", (40, 36), (colour >> 16, colour >> 8 & 255, colour & 255)).save(path)


@pytest.fixture
def root(tmp_path):
    for name in ("b.png", "a/x.png", "a/deep/y.PNG", ".hidden/z.png", ".z.png"):
        picture(tmp_path / "root" / name)
    picture(tmp_path / "elsewhere" / "linked.png")
    (tmp_path / "root" / "a" / "notes.txt").write_text("no picture")
    (tmp_path / "root" / "link").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "root" / "a" / "loop").symlink_to(tmp_path / "root")
    return tmp_path / "root"


def test_a_folder_is_all_images_below_it(root):
    images = UnlabelledFolder(root, on_bad_image="error")
    assert images.paths == ["a/deep/y.PNG", "a/x.png", "b.png", "link/linked.png"]
    assert {images.label(i) for i in range(4)} == {images[i].label for i in range(4)} == {-1}
    assert images.name == "root (4 unlabelled)"
    assert images[3].image.size == (40, 36)


def test_pipes_are_no_pictures(root):
    """Opening one would wait for ever."""
    os.mkfifo(root / "a" / "pipe.png")
    (root / "a" / "nothing.png").symlink_to(root / "nothing.png")
    assert len(UnlabelledFolder(root, on_bad_image="error")) == 4


def test_a_folder_below_that_may_not_be_read_is_named(root, monkeypatch):
    real = os.scandir

    def scandir(folder):
        if str(folder).endswith("deep"):
            raise PermissionError(13, "Permission denied", str(folder))
        return real(folder)

    monkeypatch.setattr(os, "scandir", scandir)
    with pytest.raises(DataError, match=r"folder '.*a/deep' cannot be read: Permission denied. Allow it, or leave"):
        UnlabelledFolder(root, on_bad_image="error")


def test_images_of_a_folder_beside_all_labelled_ones_or_a_draw(root):
    for options, num in (({"per_class": None, "rest": "unused"}, 26), ({"rest": "unused"}, 9), ({"rest": "val"}, 9)):
        found = training_images(few(unlabelled=root, **options))
        assert (len(found.labelled), len(found.unlabelled)) == (num, 4)


def test_unreadable_images_of_a_folder(root):
    (root / "a" / "broken.png").write_bytes(b"no picture")
    with pytest.raises(ImageError, match=r"cannot read image '.*broken\.png'"):
        list(UnlabelledFolder(root, on_bad_image="error"))
    images = UnlabelledFolder(root, on_bad_image="skip")
    assert len(images) == 4
    assert "broken.png" in images.skipped[0]
    assert len(training_images(few(rest="unused", unlabelled=root)).unlabelled) == 4, "digits have no setting for it"


def test_no_such_folder_and_no_images(tmp_path):
    with pytest.raises(
        DataError, match=r"`labelled.unlabelled` must be a folder with images; there is no folder '.*x'"
    ):
        UnlabelledFolder(tmp_path / "x", on_bad_image="error")
    (tmp_path / "deep" / "er").mkdir(parents=True)
    with pytest.raises(DataError, match=r"`labelled.unlabelled` '.*deep' has no images, nor have the folders below it"):
        UnlabelledFolder(tmp_path / "deep", on_bad_image="error")


def test_settings_that_say_nothing_or_too_much(root):
    with pytest.raises(
        ArgumentError, match=r"`labelled.rest` unlabelled and `labelled.unlabelled` .* exclude each other: set one"
    ):
        few(unlabelled=root)
    with pytest.raises(ArgumentError, match=r"`labelled.unlabelled_batch_size` 8 needs images without labels: set"):
        few(rest="unused", unlabelled_batch_size=8)
    with pytest.raises(ArgumentError, match=r"`labelled.unlabelled_batch_size` must be at least 1, got 0"):
        few(unlabelled_batch_size=0)
    assert few(unlabelled_batch_size=8).labelled.has_unlabelled


# --- photos alone, some kept out ------------------------------------------------------------------------------------


def drawn(*folders, **options):
    data = UnlabelledPhotos(folders[0], further=folders[1:], val_share=0.3, **options)
    return UnlabelledImages(data, "train"), UnlabelledImages(data, "val")


def test_a_photo_that_is_there_twice_is_one(tmp_path):
    """Else it could be trained on by one name and kept out by another."""
    for number in range(10):
        picture(tmp_path / "one" / f"{number}.png")
        picture(tmp_path / "two" / f"{number}.png")
        (tmp_path / "one" / f"again{number}.png").symlink_to(tmp_path / "one" / f"{number}.png")
        (tmp_path / "two" / f"other{number}.png").symlink_to(tmp_path / "one" / f"{number}.png")
    os.link(tmp_path / "one" / "0.png", tmp_path / "two" / "hard.png")
    shutil.copy(tmp_path / "one" / "1.png", tmp_path / "two" / "copy.png")
    found = [path for split in drawn(tmp_path / "one", tmp_path / "two") for path in split.paths]
    assert sorted(found) == sorted([f"{n}.png" for n in range(10)] + [f"../two/{n}.png" for n in range(10)])


def test_a_draw_is_told_from_another(tmp_path):
    """By the names of the photos in their folders, wherever those are, and by which of them are kept out."""
    for number in range(10):
        picture(tmp_path / "one" / f"{number}.png")
        picture(tmp_path / "two" / f"{number}.png")
    first = {split.draw_sha256 for split in drawn(tmp_path / "one", tmp_path / "two")}
    assert len(first) == 1
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "two").rename(tmp_path / "elsewhere" / "moved")
    assert {split.draw_sha256 for split in drawn(tmp_path / "one", tmp_path / "elsewhere" / "moved")} == first
    others = [
        drawn(tmp_path / "elsewhere" / "moved", tmp_path / "one", val_seed=1),
        drawn(tmp_path / "one", tmp_path / "elsewhere" / "moved", val_seed=1),
        drawn(tmp_path / "one"),
    ]
    (tmp_path / "one" / "3.png").rename(tmp_path / "one" / "a.png")
    others.append(drawn(tmp_path / "one", tmp_path / "elsewhere" / "moved"))
    assert not first & {split.draw_sha256 for draw in others for split in draw}
