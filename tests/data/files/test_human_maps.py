"""Maps by people are found by the names of images, cut as these are, and refused by name."""

import numpy as np
import pytest

from contrex.data.files.human_maps import HumanMaps
from contrex.errors import DataError


def test_the_nearest_folder_goes_first(tmp_path):
    maps, image = HumanMaps(tmp_path), "val/tabby/104.jpg"
    assert maps.file(image) is None
    for place in ("104.png", "104.npy", "tabby/104.png", "val/tabby/104.npy"):
        file = tmp_path / place
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()
        assert maps.file(image) == file


def test_a_map_is_cut_as_its_image_is(tmp_path):
    wide = np.tile(np.arange(40, dtype=np.float32), (20, 1))
    np.save(tmp_path / "a.npy", wide)
    np.save(tmp_path / "b.npy", wide[:, :20])
    maps = HumanMaps(tmp_path)
    cut = maps.square("val/x/a.jpg", (200, 400), resize=20, size=10)
    assert np.array_equal(cut, wide[5:15, 15:25])
    whole = maps.square("b.jpg", (200, 400), resize=20, size=20)
    assert np.array_equal(whole, wide[:, :20]), "a square map of an image that is not is that of the square"
    assert maps.square("c.jpg", (200, 400), resize=20, size=10) is None


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (np.ones((3, 4, 5)), r"a.npy' must be an array \[H,W\] of numbers, got float64 \[3, 4, 5\]"),
        (np.array([[1.0, np.nan]] * 2), "a.npy' must have finite numbers"),
        (np.ones((2, 9)), "a.npy' is 9x2 .width x height., its image 'a.jpg' 20x10"),
        (np.array([["a"]]), "must be an array"),
        (b"no array", "a.npy' cannot be read"),
        (b"", "a.npy' cannot be read"),
    ],
)
def test_a_bad_map_is_named(tmp_path, content, message):
    file = tmp_path / "a.npy"
    file.write_bytes(content) if isinstance(content, bytes) else np.save(file, content)
    with pytest.raises(DataError, match=message):
        HumanMaps(tmp_path).square("a.jpg", (10, 20), resize=8, size=8)


def test_a_bad_picture_of_a_map_is_named(tmp_path):
    (tmp_path / "a.png").write_bytes(b"no picture")
    with pytest.raises(DataError, match=r"the map '.*a.png' cannot be read: cannot read image"):
        HumanMaps(tmp_path).square("a.jpg", (10, 20), resize=8, size=8)
