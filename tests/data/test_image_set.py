"""The one door: a reader for each dataclass of settings."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

import contrex.data
from contrex.data import READERS, DigitImages, FolderImages, image_set
from contrex.errors import ArgumentError
from contrex.settings import Digits, Folder


def test_every_kind_of_settings_has_a_reader() -> None:
    assert len(READERS) == 16
    for kind, found in READERS.items():
        assert f"{found.__module__}:{found.__name__}" == kind.implementation
        assert getattr(contrex.data, found.__name__) is found


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
    with pytest.raises(ArgumentError, match=r"`settings` must derive from contrex.settings.Data; got str"):
        image_set("digits", "val")  # type: ignore[arg-type]
