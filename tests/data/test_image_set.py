"""The one door: a reader for each dataclass of settings."""

from __future__ import annotations

from pathlib import Path
from typing import get_args

import pytest
from PIL import Image

from contrex.data import READERS, DigitImages, FolderImages, image_set
from contrex.errors import ArgumentError
from contrex.settings import Data, Digits, Folder


def test_every_kind_of_settings_has_a_reader() -> None:
    assert set(READERS) == set(get_args(Data))


def test_digits() -> None:
    images = image_set(Digits(num_test=5), "test")
    assert isinstance(images, DigitImages)
    assert (images.name, len(images)) == ("digits/test", 5)


def test_folder(tmp_path: Path) -> None:
    (tmp_path / "val" / "ant").mkdir(parents=True)
    Image.new("RGB", (4, 4)).save(tmp_path / "val" / "ant" / "1.png")
    images = image_set(Folder(tmp_path), "val")
    assert isinstance(images, FolderImages)
    assert images[0].path == "val/ant/1.png"


def test_other_settings_are_refused() -> None:
    with pytest.raises(ArgumentError, match=r"`settings` must be one of Digits, Folder, Cifar, .*; got str"):
        image_set("digits", "val")  # type: ignore[arg-type]
