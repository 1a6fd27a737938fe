"""What the readers of the fine-grained data sets have in common: samples, splits, missing parts, settings."""

from __future__ import annotations

import pickle
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from archives import ALL_SETTINGS, BUILDERS, HEIGHT, WIDTH, read
from contrex.data.readers.listed import part_of_training
from contrex.data.views.squares import view_sizes
from contrex.errors import ArgumentError, DataError, ImageError, UnknownNameError
from contrex.records import from_plain, to_plain
from contrex.settings import CUB200, Data, FGVCAircraft, Flowers102, Food101, OxfordPets, StanfordCars, TrainTest


@pytest.mark.parametrize("kind", ALL_SETTINGS)
def test_samples_agree_with_their_labels_and_travel_to_workers(archives: dict[Any, Path], kind: Any) -> None:
    for split in ("train", "val", "test"):
        images = pickle.loads(pickle.dumps(read(kind(archives[kind]), split)))
        assert (
            [sample.label for sample in images]
            == images.labels.tolist()
            == [images.label(n) for n in range(len(images))]
        )
        assert [sample.index for sample in images] == list(range(len(images)))
        assert [sample.path for sample in images] == images.paths
        assert set(images.labels.tolist()) == set(range(len(images.classes)))
        assert (images.skipped, images[0].image.size) == ([], (WIDTH, HEIGHT))


@pytest.mark.parametrize("kind", ALL_SETTINGS)
def test_val_is_test_and_shares_no_image_with_train(archives: dict[Any, Path], kind: Any) -> None:
    parts = {split: read(kind(archives[kind]), split) for split in ("train", "val", "test")}
    assert parts["val"].paths == parts["test"].paths
    assert parts["val"].name == parts["test"].name == "archive/test"
    assert not set(parts["train"].paths) & set(parts["test"].paths)


@pytest.mark.parametrize("kind", [CUB200, StanfordCars, Food101, OxfordPets])
def test_val_share_is_kept_back_from_training(archives: dict[Any, Path], kind: Any) -> None:
    whole, test = (read(kind(archives[kind]), split).paths for split in ("train", "test"))
    settings = kind(archives[kind], val_share=0.5)
    train, val = read(settings, "train"), read(settings, "val")
    assert sorted(train.paths + val.paths) == sorted(whole)
    assert np.bincount(train.labels).tolist() == np.bincount(val.labels).tolist()
    assert train.paths == [path for path in whole if path in train.paths]
    assert (read(settings, "test").paths, val.name) == (test, "archive/val")


def test_val_seed_draws_other_images() -> None:
    found = [(f"{number}.jpg", 0) for number in range(50)]
    settings = [TrainTest(Path("x"), val_share=0.2, val_seed=seed) for seed in (0, 0, 1)]
    one, again, other = (part_of_training(found, s, "val") for s in settings)
    assert len(one) == 10
    assert one == again != other
    with pytest.raises(DataError, match=r"`val_share` 0.001 of the 50 training images of class 0 is 0; each split"):
        part_of_training(found, TrainTest(Path("x"), val_share=0.001), "train")


@pytest.mark.parametrize("kind", ALL_SETTINGS)
def test_limit_per_class_takes_the_first(archives: dict[Any, Path], kind: Any) -> None:
    images = read(kind(archives[kind]), "train")
    few = read(kind(archives[kind], limit_per_class=1), "train")
    assert sorted(few.paths) == sorted(images.paths[images.labels.tolist().index(n)] for n in set(images.labels))


@pytest.mark.parametrize("kind", ALL_SETTINGS)
def test_bad_and_missing_images(tmp_path: Path, kind: Any) -> None:
    root = BUILDERS[kind](tmp_path)
    good = read(kind(root), "test")
    (root / good.paths[0]).write_bytes(b"")
    with pytest.raises(ImageError, match=r"the file is empty.*--data.on-bad-image skip"):
        read(kind(root), "test")[0]
    (root / good.paths[0]).unlink()
    with pytest.raises(
        DataError, match=rf"lacks 1 of the {len(good)} images of this split: {good.paths[0]}.*Unpack the"
    ):
        read(kind(root), "test")
    images = read(kind(root, on_bad_image="skip"), "test")
    assert (images.paths, len(images.skipped)) == (good.paths[1:], 1)


@pytest.mark.parametrize(
    ("kind", "folder"),
    [(CUB200, "CUB_200_2011"), (FGVCAircraft, "fgvc-aircraft-2013b"), (StanfordCars, "stanford_cars"),
     (Flowers102, "flowers-102"), (Food101, "food-101"), (OxfordPets, "oxford-iiit-pet")],
)  # fmt: skip
def test_the_folder_above_and_other_folders(archives: dict[Any, Path], tmp_path: Path, kind: Any, folder: str) -> None:
    (tmp_path / folder).symlink_to(archives[kind], target_is_directory=True)
    assert read(kind(tmp_path), "train").root == tmp_path / folder
    with pytest.raises(DataError, match=r"`path` must be the folder with .*; there is no folder '.*/nowhere'"):
        read(kind(tmp_path / "nowhere"), "train")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=rf"'.*empty' is not .*: it has none of .*, as '{folder}' of its archive has"):
        read(kind(tmp_path / "empty"), "train")
    with pytest.raises(UnknownNameError, match=r"`split` of .* must be one of train, val, test; got 'trainval'"):
        read(kind(tmp_path), "trainval")


@pytest.mark.parametrize(
    ("kind", "split", "part"),
    [
        *[(CUB200, "train", name) for name in ("images", "images.txt", "classes.txt", "bounding_boxes.txt")],
        (FGVCAircraft, "train", "data/images_variant_trainval.txt"),
        (FGVCAircraft, "test", "data/images_box.txt"),
        (StanfordCars, "train", "car_ims"),
        (Flowers102, "val", "setid.mat"),
        (Food101, "test", "meta/test.txt"),
        (OxfordPets, "train", "annotations/trimaps"),
        (OxfordPets, "train", "annotations/test.txt"),
    ],
)
def test_half_an_archive(archives: dict[Any, Path], tmp_path: Path, kind: Any, split: str, part: str) -> None:
    root = shutil.copytree(archives[kind], tmp_path / "copy")
    (root / part).rename(root / "elsewhere")
    with pytest.raises(DataError, match=rf"has no '{part}', which the archive of .* has: unpack it again"):
        read(kind(root), split)


@pytest.mark.parametrize("kind", ALL_SETTINGS)
def test_settings(kind: Any) -> None:
    settings = kind(Path("somewhere"))
    assert view_sizes(settings) == (256, 224)
    assert view_sizes(kind(Path("x"), image_size=448, resize=512)) == (512, 448)
    assert from_plain(to_plain(settings), Data) == settings
    with pytest.raises(ArgumentError, match=r"`data.image_size` must be from 1 to `data.resize` \(256\)"):
        kind(Path("x"), image_size=448)
    with pytest.raises(ArgumentError, match=r"`data.limit_per_class` must be at least 1"):
        kind(Path("x"), limit_per_class=0)
    if isinstance(settings, TrainTest):
        with pytest.raises(ArgumentError, match=r"`data.val_share` must be a share"):
            kind(Path("x"), val_share=1.0)
        with pytest.raises(ArgumentError, match=r"`data.val_seed` must be at least 0"):
            kind(Path("x"), val_seed=-1)
