"""The built-in digits: exact boxes and masks, splits that share no digit, reproducible pixels, a planted shortcut."""

from __future__ import annotations

import pickle
import time
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from sklearn.datasets import load_digits

from contrex.data.readers.digit_glyphs import SOURCE_SHARE, mask_boxes, source_digits
from contrex.data.readers.digit_scenes import PLANTED
from contrex.data.readers.digits import DigitImages
from contrex.errors import UnknownNameError
from contrex.settings import Digits
from sampling import sampled

SMALL = Digits(num_train=200, num_val=60, num_test=130)
TINY = replace(SMALL, image_size=16, digit_size=(8, 10), num_clutter=0)
"""For counting rather than looking."""


@pytest.fixture(scope="module")
def train() -> DigitImages:
    return DigitImages(SMALL, "train")


def same(one: DigitImages, other: DigitImages) -> bool:
    return all(np.array_equal(getattr(one, name), getattr(other, name)) for name in ("images", "masks", "sources"))


# --- what it holds --------------------------------------------------------------------------------------------------


def test_arrays(train: DigitImages) -> None:
    assert (train.images.shape, train.images.dtype) == ((200, 64, 64, 3), np.uint8)
    assert (train.masks.shape, train.masks.dtype) == ((200, 64, 64), np.bool_)
    assert (train.boxes.shape, train.boxes.dtype) == ((200, 4), np.float32)
    assert [len(DigitImages(SMALL, split)) for split in ("val", "test")] == [60, 130]


def test_sample(train: DigitImages) -> None:
    sample = train[-1]
    np.testing.assert_array_equal(np.asarray(sample.image), train.images[199])
    np.testing.assert_array_equal(sample.boxes, train.boxes[199:])
    np.testing.assert_array_equal(sample.mask, train.masks[199])
    assert (sample.path, sample.index, sample.label) == ("digits/train/00199", 199, train.label(199))
    assert (train.name, list(train.classes)) == ("digits/train", list("0123456789"))
    with pytest.raises(IndexError):
        train[200]


def test_it_travels_to_workers(train: DigitImages) -> None:
    assert same(train, pickle.loads(pickle.dumps(train)))


def test_an_empty_split() -> None:
    assert len(DigitImages(replace(SMALL, num_val=0), "val")) == 0


# --- boxes and masks ------------------------------------------------------------------------------------------------


def test_boxes_are_tight_around_the_masks(train: DigitImages) -> None:
    for mask, (xmin, ymin, xmax, ymax) in zip(train.masks, train.boxes.astype(int), strict=True):
        inside = mask[ymin:ymax, xmin:xmax]
        assert inside.sum() == mask.sum() > 0
        assert inside[0].any()
        assert inside[-1].any()
        assert inside[:, 0].any()
        assert inside[:, -1].any()


def test_mask_boxes_by_hand() -> None:
    masks = np.zeros((2, 5, 7), dtype=np.bool_)
    masks[0, 1, 2] = masks[0, 3, 4] = masks[1, 0, 6] = True
    assert mask_boxes(masks).tolist() == [[2, 1, 5, 4], [6, 0, 7, 1]]


def test_heights_are_the_ones_asked_for(train: DigitImages) -> None:
    heights = train.boxes[:, 3] - train.boxes[:, 1]
    smallest, largest = SMALL.digit_size
    assert heights.min() >= smallest - 1
    assert heights.max() <= largest + 1
    assert len(np.unique(heights)) >= largest - smallest


def test_digits_are_spread_over_the_image(train: DigitImages) -> None:
    assert train.boxes[:, :2].min() <= 2
    assert train.boxes[:, 2:].max() >= 62
    np.testing.assert_allclose((train.boxes[:, :2] + train.boxes[:, 2:]).mean(axis=0) / 2, 32, atol=2.5)


def test_the_digit_stands_out_from_what_surrounds_it(train: DigitImages) -> None:
    """Luminance of the strokes against the pixels around them, inside the box."""
    luminance = train.images @ np.array([0.299, 0.587, 0.114]) / 255
    contrasts = []
    for grey, mask, (xmin, ymin, xmax, ymax) in zip(luminance, train.masks, train.boxes.astype(int), strict=True):
        box = np.s_[ymin:ymax, xmin:xmax]
        contrasts.append(abs(grey[mask].mean() - grey[box][~mask[box]].mean()))
    assert np.mean(contrasts) > 0.3
    assert np.quantile(contrasts, 0.05) > 0.15


def test_a_drawn_digit_looks_like_its_source() -> None:
    """Each mask, shrunk to 8x8, is nearest to a source of its own class far more often than by chance."""
    digits = DigitImages(replace(SMALL, num_train=100), "train")
    data = load_digits()
    known = data.images.reshape(len(data.images), -1)
    hits = 0
    for mask, box, source in zip(digits.masks, digits.boxes.astype(int), digits.sources, strict=True):
        xmin, ymin, xmax, ymax = box
        rows = np.linspace(ymin, ymax, 9).round().astype(int)
        width = (ymax - ymin) / 2
        columns = ((xmin + xmax) / 2 + np.linspace(-width, width, 9)).round().astype(int).clip(0, 64)
        small = [
            [mask[r0:r1, c0:c1].mean() if c1 > c0 else 0.0 for c0, c1 in pairwise(columns)] for r0, r1 in pairwise(rows)
        ]
        nearest = np.square(known - 16 * np.ravel(small)).sum(axis=1).argmin()
        hits += data.target[nearest] == data.target[source]
    assert hits >= 85


def test_fragments_leave_the_box_almost_free() -> None:
    """With and without clutter only the surroundings differ much: the digit is drawn last, fragments keep away."""
    with_clutter, without = DigitImages(SMALL, "val"), DigitImages(replace(SMALL, num_clutter=0), "val")
    first = slice(0, 60)
    assert not np.array_equal(with_clutter.images[first], without.images[first])
    assert num_colours_outside(with_clutter) > 1.3 * num_colours_outside(without)


def num_colours_outside(digits: DigitImages) -> float:
    """Mean number of coarse colours outside the box."""
    coarse = (digits.images // 32).astype(int) @ np.array([64, 8, 1])
    counts = []
    for image, (xmin, ymin, xmax, ymax) in zip(coarse, digits.boxes.astype(int), strict=True):
        outside = np.ones((64, 64), dtype=np.bool_)
        outside[ymin:ymax, xmin:xmax] = False
        counts.append(len(np.unique(image[outside])))
    return float(np.mean(counts))


# --- splits and seeds -----------------------------------------------------------------------------------------------


def test_labels_are_the_sources_classes_and_balanced(train: DigitImages) -> None:
    np.testing.assert_array_equal(train.labels, load_digits().target[train.sources])
    large = DigitImages(replace(TINY, num_train=1200), "train")
    assert np.bincount(large.labels, minlength=10).min() >= 100


@pytest.mark.parametrize("seed", [0, pytest.param(1, marks=pytest.mark.slow)])
def test_no_source_is_in_two_splits(seed: int) -> None:
    pools = [source_digits(replace(SMALL, seed=seed), split) for split in SOURCE_SHARE]
    assert sorted(np.concatenate(pools)) == list(range(1797))
    for pool, share in zip(pools, SOURCE_SHARE.values(), strict=True):
        per_class = np.bincount(load_digits().target[pool])
        np.testing.assert_allclose(per_class, share * 179.7, rtol=0.1)
    for split, pool in zip(SOURCE_SHARE, pools, strict=True):
        assert np.isin(DigitImages(replace(SMALL, seed=seed), split).sources, pool).all()


def test_every_source_is_used_equally_often() -> None:
    test = DigitImages(replace(TINY, num_test=1000), "test")
    times = np.bincount(test.sources)[source_digits(SMALL, "test")]
    assert times.max() - times.min() <= 1


def test_the_same_seed_gives_the_same_pixels(train: DigitImages) -> None:
    assert same(train, DigitImages(SMALL, "train"))
    assert not same(train, DigitImages(replace(SMALL, seed=1), "train"))


def test_a_split_does_not_depend_on_the_sizes_of_the_others(train: DigitImages) -> None:
    assert same(train, DigitImages(replace(SMALL, num_val=7, num_test=0), "train"))
    assert same(DigitImages(SMALL, "test"), DigitImages(replace(SMALL, num_train=3), "test"))


def test_pixels_do_not_depend_on_the_global_generator(train: DigitImages) -> None:
    np.random.seed(99)  # noqa: NPY002
    assert same(train, DigitImages(SMALL, "train"))


# --- the shortcut ---------------------------------------------------------------------------------------------------


def own_share(digits: DigitImages) -> float:
    return float((digits.textures == digits.labels).mean())


@sampled(one_in=3)
@pytest.mark.parametrize("split", ["train", "val"])
@pytest.mark.parametrize("shortcut", [0.5, 0.9, 1.0])
def test_share_of_planted_textures(split: str, shortcut: float) -> None:
    """The others draw from all ten, so one in ten of them has its own texture by chance."""
    digits = DigitImages(replace(TINY, num_train=600, num_val=600, shortcut=shortcut), split)
    assert own_share(digits) == pytest.approx(shortcut + (1 - shortcut) / 10, abs=0.03)


def test_test_textures_never_depend_on_the_class() -> None:
    digits = DigitImages(replace(TINY, num_test=2000, shortcut=1.0), "test")
    table = np.zeros((10, 10))
    np.add.at(table, (digits.labels, digits.textures), 1)
    expected = table.sum(axis=1, keepdims=True) * table.sum(axis=0) / table.sum()
    assert ((table - expected) ** 2 / expected).sum() < 126  # chi-squared with 81 degrees of freedom, p = 0.001
    assert own_share(digits) == pytest.approx(0.1, abs=0.02)


def test_without_a_shortcut_there_are_no_planted_textures(train: DigitImages) -> None:
    assert set(train.textures) == {-1}


def spectra(digits: DigitImages) -> np.ndarray:
    """Amplitude spectra [N,d] of what surrounds the digit, summed over colours: stripes are a peak, wherever they
    start. A square over the digit is blank; a box would tell the class by its width."""
    window = np.hanning(64)[:, None, None] * np.hanning(64)[:, None]
    centred = digits.images - digits.images.mean(axis=(1, 2), keepdims=True)
    for image, box in zip(centred, digits.boxes, strict=True):
        x, y = ((box[:2] + box[2:]) / 2 - 16).astype(int).clip(0)
        image[y : y + 32, x : x + 32] = 0
    waves = np.abs(np.fft.rfft2(centred * window, axes=(1, 2))).sum(axis=-1)
    return (waves / np.linalg.norm(waves, axis=(1, 2), keepdims=True)).reshape(len(waves), -1)


def accuracy_by_spectrum(train: DigitImages, other: DigitImages) -> float:
    """Share of `other` whose spectrum is nearest to the mean spectrum of its class."""
    known = spectra(train)
    means = np.stack([known[train.labels == label].mean(axis=0) for label in range(10)])
    nearest = np.square(spectra(other)[:, None] - means).sum(axis=2).argmin(axis=1)
    return float((nearest == other.labels).mean())


@pytest.mark.slow
def test_the_shortcut_predicts_the_class_in_training_only() -> None:
    settings = replace(SMALL, num_train=500, num_val=200, num_test=200, shortcut=1.0)
    train, val, test = (DigitImages(settings, split) for split in ("train", "val", "test"))
    assert len(PLANTED) == 10
    assert accuracy_by_spectrum(train, val) > 0.7
    assert accuracy_by_spectrum(train, test) < 0.2


@pytest.mark.slow
def test_without_a_shortcut_the_surroundings_say_nothing_about_the_class() -> None:
    settings = replace(SMALL, num_train=500, num_val=200)
    assert accuracy_by_spectrum(DigitImages(settings, "train"), DigitImages(settings, "val")) < 0.2


# --- sizes, speed and errors ----------------------------------------------------------------------------------------


@sampled(one_in=2)
@pytest.mark.parametrize(("size", "digit"), [(16, (8, 10)), (32, (20, 32)), (64, (64, 64)), (96, (20, 30))])
def test_other_sizes(size: int, digit: tuple[int, int]) -> None:
    digits = DigitImages(replace(SMALL, num_val=70, image_size=size, digit_size=digit), "val")
    assert digits.images.shape == (70, size, size, 3)
    assert (digits.boxes[:, 2:] > digits.boxes[:, :2]).all()


def test_it_is_fast() -> None:
    """Under 10 s for 5,000 images on one core, with room for slow machines."""
    start = time.process_time()
    DigitImages(replace(SMALL, num_train=500), "train")
    assert time.process_time() - start < 1.0


def test_unknown_split() -> None:
    with pytest.raises(UnknownNameError, match="`split` of the digits must be one of train, val, test; got 'sources'"):
        DigitImages(SMALL, "sources")  # type: ignore[arg-type]
