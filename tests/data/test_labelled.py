"""Few labels: the draw, its images, and that no label of the others can be seen."""

from __future__ import annotations

import hashlib
import zlib
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from contrex.data import image_set
from contrex.data.labelled import draw_labelled, draw_of, read_list, run_images, training_images
from contrex.errors import ArgumentError, DataError
from contrex.settings import CrossEntropy, Digits, Folder, Labelled, Model, Recipe, Training

DATA = Digits(num_train=60, num_val=7, num_test=5, image_size=32, digit_size=(14, 18))
ALL = image_set(DATA, "train")


def recipe(data=DATA, *, seed=3, **labelled):
    return Recipe("r", data, Model(), CrossEntropy(), training=Training(seed=seed), labelled=Labelled(**labelled))


def paths(images):
    return [images.path(index) for index in range(len(images))]


def labels(images):
    return [images.label(index) for index in range(len(images))]


# --- the draw -------------------------------------------------------------------------------------------------------


def test_a_share_is_of_each_class_and_at_least_one():
    counts = {0: 200, 1: 149, 4: 3}
    every = np.random.default_rng(0).permutation(np.repeat(list(counts), list(counts.values())))
    chosen = draw_labelled(every, seed=1, share=0.01)
    assert dict(zip(*np.unique(every[chosen], return_counts=True), strict=True)) == {0: 2, 1: 1, 4: 1}
    assert chosen.tolist() == sorted(set(chosen.tolist()))


def test_images_without_a_label_are_never_drawn():
    every = np.array([-1] * 30 + [0] * 3)
    assert draw_labelled(every, seed=0, share=1.0).tolist() == [30, 31, 32]


def test_a_larger_draw_holds_the_smaller_one_and_other_seeds_are_others():
    every = np.repeat(np.arange(6), 50)
    one, five, ten = (set(draw_labelled(every, seed=2, per_class=num).tolist()) for num in (1, 5, 10))
    assert one < five < ten
    assert len(ten) == 60
    draws = {tuple(draw_labelled(every, seed=seed, per_class=5)) for seed in range(20)}
    assert len(draws) == 20


def test_a_draw_is_spread_over_its_class():
    """Not the first images, and no image more often than another: 40 draws of 5 of 50 give each about 4 times."""
    every = np.repeat(np.arange(2), 50)
    times = np.bincount(
        np.concatenate([draw_labelled(every, seed=seed, per_class=5) for seed in range(40)]), minlength=100
    )
    assert times.sum() == 400
    assert times.max() <= 13  # four and a half standard deviations from 4
    assert abs(times[:25].sum() - times[25:50].sum()) < 60  # of 200: four and a half, too


def test_the_draw_is_this_one():
    """Written down a second time: another draw would silently make every few-shot number another one."""
    every = np.repeat(np.arange(3), 4)
    expected = []
    for label in range(3):
        generator = np.random.Generator(np.random.PCG64((zlib.crc32(b"labelled"), 2, 7, label)))
        expected += generator.permutation(np.arange(4 * label, 4 * label + 4))[:2].tolist()
    assert draw_labelled(every, seed=7, per_class=2).tolist() == sorted(expected)


# --- its images -----------------------------------------------------------------------------------------------------


def test_all_none_is_every_image():
    images, validation, unlabelled = training_images(recipe())
    assert (images.name, len(images), validation.name, unlabelled) == ("digits/train", 60, "digits/val", None)
    assert draw_of(images) is None


@pytest.mark.parametrize("rest", ["val", "unlabelled"])
def test_labelled_and_rest_are_disjoint_and_whole(rest):
    images, validation, unlabelled = training_images(recipe(per_class=2, rest=rest))
    others = validation if rest == "val" else unlabelled
    assert sorted(labels(images)) == sorted([*range(10)] * 2)
    assert not set(paths(images)) & set(paths(others))
    assert sorted(paths(images) + paths(others)) == sorted(paths(ALL))
    assert (images.name, others.name) == ("digits/train (20 labelled)", "digits/train (40 others)")
    assert list(others.classes) == list(ALL.classes)


def test_a_sample_is_the_sets_own_at_its_place_in_the_draw():
    images = run_images(recipe(per_class=2), "train")
    where = {path: index for index, path in enumerate(paths(ALL))}
    for index in (0, 7, -1):
        sample = images[index]
        own = ALL[where[sample.path]]
        assert sample.index == range(20)[index]
        assert sample.label == own.label == images.label(index)
        assert sample.path == images.path(index)
        assert np.array_equal(np.asarray(sample.image), np.asarray(own.image))
        assert np.array_equal(sample.boxes, own.boxes)
    with pytest.raises(IndexError):
        images[20]


def test_no_label_of_an_unlabelled_image_can_be_seen():
    unlabelled = training_images(recipe(share=0.3, rest="unlabelled")).unlabelled
    assert len(unlabelled) > 30
    assert set(labels(unlabelled)) == {-1}
    for index in range(len(unlabelled)):
        assert (unlabelled[index].label, unlabelled[index].also, unlabelled[index].index) == (-1, (), index)


@pytest.mark.parametrize(
    ("rest", "names"),
    [
        ("unused", ("digits/train (20 labelled)", "digits/val", "digits/test")),
        ("unlabelled", ("digits/train (20 labelled)", "digits/val", "digits/test")),
        ("val", ("digits/train (20 labelled)", "digits/train (40 others)", "digits/test")),
    ],
)
def test_what_a_split_means_to_a_run(rest, names):
    asked = recipe(per_class=2, rest=rest)
    assert tuple(run_images(asked, split).name for split in ("train", "val", "test")) == names
    images, validation, _ = training_images(asked)
    assert paths(images) == paths(run_images(asked, "train"))
    assert paths(validation) == paths(run_images(asked, "val"))


def test_the_draw_depends_on_data_and_seed_alone():
    first = draw_of(run_images(recipe(per_class=2), "train"))
    other_method = replace(recipe(per_class=2), name="other", training=Training(seed=3, epochs=1, batch_size=4))
    assert draw_of(run_images(other_method, "train")) == first
    another_run = replace(other_method, training=Training(seed=4))
    assert draw_of(run_images(another_run, "train")) != first
    assert draw_of(run_images(replace(another_run, labelled=Labelled(per_class=2, seed=3)), "train")) == first


# --- lists ----------------------------------------------------------------------------------------------------------


def test_a_draw_given_back_as_a_list_is_the_same(tmp_path):
    images = run_images(recipe(share=0.2), "train")
    draw_of(images).write(tmp_path)
    text = (tmp_path / "labelled.txt").read_bytes()
    assert hashlib.sha256(text).hexdigest() == draw_of(images).sha256
    again = run_images(recipe(file=tmp_path / "labelled.txt"), "train")
    assert paths(again) == paths(images)
    assert draw_of(again) == draw_of(images)


@pytest.fixture
def folder(tmp_path):
    """Two classes; one file name is in both."""
    for place in ("ant/n1_1.png", "ant/same.png", "bee/n2_1.png", "bee/n2_2.png", "bee/same.png"):
        file = tmp_path / "data" / "train" / place
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (4, 4)).save(file)
    return image_set(Folder(tmp_path / "data"), "train")


def written(tmp_path, text):
    file = tmp_path / "list.txt"
    file.write_bytes(text)
    return file


def test_a_list_names_paths_or_files_in_any_order(folder, tmp_path):
    file = written(tmp_path, "\ufeffn2_1.png\r\n\r\ntrain/ant/same.png\r\nn1_1.png".encode())
    assert [folder.path(index) for index in read_list(folder, file)] == [
        "train/ant/n1_1.png",
        "train/ant/same.png",
        "train/bee/n2_1.png",
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"n1_1.png\n\nn9.png\n", r"list.txt', line 3: there is no image 'n9.png' in data/train, which has such as"),
        (b"same.png", r"line 1: 2 images are called 'same.png': write the path of one, train/ant/same.png"),
        (b"n1_1.png\ntrain/ant/n1_1.png", r"line 2: 'train/ant/n1_1.png' is in line 1 already. Take one out"),
        (b"\n \n", r"`labelled.file` '.*list.txt' names no images: write one on each line"),
    ],
)
def test_a_list_that_cannot_be_meant(folder, tmp_path, text, message):
    with pytest.raises(DataError, match=message):
        read_list(folder, written(tmp_path, text))


def test_a_list_that_is_not_there(folder, tmp_path):
    with pytest.raises(DataError, match=r"`labelled.file` '.*nowhere.txt' cannot be read: No such file"):
        read_list(folder, tmp_path / "nowhere.txt")


def test_a_list_may_name_no_image_without_a_label(tmp_path):
    class Unlabelled:
        name = "u"

        def __len__(self):
            return 2

        def path(self, index):
            return f"{index}.png"

        def label(self, index):
            return -index

    with pytest.raises(DataError, match=r"line 1: '1.png' has no label in u. Take it out"):
        read_list(Unlabelled(), written(tmp_path, b"1.png"))


def test_names_that_are_no_unicode_come_back(tmp_path):
    file = tmp_path / "data" / "train" / "ant" / "caf\udce9 \u2028x.png"
    file.parent.mkdir(parents=True)
    Image.new("RGB", (4, 4)).save(tmp_path / "a.png")
    (tmp_path / "a.png").rename(file)
    asked = recipe(Folder(tmp_path / "data"), share=1.0)
    draw_of(run_images(asked, "train")).write(tmp_path)
    again = recipe(Folder(tmp_path / "data"), file=tmp_path / "labelled.txt")
    assert paths(run_images(again, "train")) == ["train/ant/caf\udce9 \u2028x.png"]


# --- what cannot be -------------------------------------------------------------------------------------------------


def test_too_few_of_a_class(folder, tmp_path):
    message = r"`labelled.per_class` 3 is more than data/train has of every class: 'ant' 2. Draw fewer"
    with pytest.raises(DataError, match=message):
        run_images(recipe(Folder(tmp_path / "data"), per_class=3), "train")


def test_no_rest():
    with pytest.raises(
        DataError, match=r"all 60 images of digits/train are labelled, none is left for `labelled.rest`"
    ):
        training_images(recipe(share=1.0, rest="val"))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"share": 0.0}, r"`labelled.share` must be a share, above 0 and up to 1, got 0.0"),
        ({"share": 1.5}, r"`labelled.share` must be"),
        ({"per_class": 0}, r"`labelled.per_class` must be at least 1, got 0"),
        ({"per_class": 1, "seed": -1}, r"`labelled.seed` must be at least 0, got -1"),
        (
            {"share": 0.1, "per_class": 1},
            r"`labelled.share` and `labelled.per_class` exclude each other: set all but one",
        ),
        ({"rest": "val"}, r"`labelled.rest` val is for images that were not drawn: set `labelled.share`"),
        ({"seed": 1}, r"`labelled.seed` 1 draws nothing: set `labelled.share`"),
        ({"seed": 1, "file": "list.txt"}, r"`labelled.seed` 1 draws nothing"),
    ],
)
def test_settings_that_are_refused(options, message):
    with pytest.raises(ArgumentError, match=message):
        Labelled(**options)
