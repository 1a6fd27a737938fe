"""Every kind of file is read right or refused with the reason; nothing warns (warnings are errors here)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from contrex.data.files import images
from contrex.data.files.images import Header, is_image, read_header, read_image, read_indices, upright, upright_boxes
from contrex.errors import ImageError
from sampling import sampled

WIDTH, HEIGHT = 12, 8
GREY = np.arange(WIDTH * HEIGHT, dtype=np.uint8).reshape(HEIGHT, WIDTH)


def pixels(path: Path) -> np.ndarray:
    image = read_image(path)
    assert image.mode == "RGB"
    return np.asarray(image)


def saved(path: Path, image: Image.Image, **options: object) -> Path:
    image.save(path, **options)
    return path


def noise(size: int = 64) -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(256, size=(size, size, 3), dtype=np.uint8))


@pytest.mark.parametrize("name", ["a.jpg", "a.JPEG", "a.Png", "a.bmp", "a.gif", "a.webp", "a.tif", "a.TIFF", "a.ppm"])
def test_image_suffixes_count_in_either_case(name: str) -> None:
    assert is_image(Path("folder") / name)


@pytest.mark.parametrize("name", ["Thumbs.db", "notes.txt", ".hidden.jpg", ".DS_Store", "jpg", "a.jpg.part", "a.npy"])
def test_other_files_do_not_count(name: str) -> None:
    assert not is_image(name)


# --- read right -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", ["png", "bmp", "ppm", "tif"])
def test_lossless_rgb_is_exact(tmp_path: Path, suffix: str) -> None:
    image = noise()
    np.testing.assert_array_equal(pixels(saved(tmp_path / f"a.{suffix}", image)), np.asarray(image))


@pytest.mark.parametrize("suffix", ["png", "bmp", "jpg", "gif", "tif", "webp"])
def test_grey_becomes_three_equal_channels(tmp_path: Path, suffix: str) -> None:
    read = pixels(saved(tmp_path / f"a.{suffix}", Image.fromarray(GREY)))
    np.testing.assert_allclose(read, np.stack([GREY] * 3, axis=-1), atol=6)


def test_bilevel(tmp_path: Path) -> None:
    read = pixels(saved(tmp_path / "a.png", Image.fromarray(GREY % 2 == 0)))
    np.testing.assert_array_equal(read[..., 0], np.where(GREY % 2 == 0, 255, 0))


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_16_bit_grey_is_scaled_not_clipped(tmp_path: Path, suffix: str) -> None:
    values = np.array([[0, 128, 129, 257, 32768, 65406, 65407, 65535]], dtype=np.uint16)
    read = pixels(saved(tmp_path / f"a.{suffix}", Image.fromarray(values)))
    np.testing.assert_array_equal(read[0, :, 1], [0, 0, 1, 1, 128, 254, 255, 255])


def test_16_bit_grey_in_32_bit_pixels(tmp_path: Path) -> None:
    values = np.array([[0, 257, 65535]], dtype=np.int32)
    read = pixels(saved(tmp_path / "a.tif", Image.fromarray(values)))
    np.testing.assert_array_equal(read[0, :, 2], [0, 1, 255])


def test_big_endian_16_bit_pgm(tmp_path: Path) -> None:
    file = tmp_path / "a.ppm"
    file.write_bytes(b"P5 3 1 65535\n" + np.array([0, 257, 65535], dtype=">u2").tobytes())
    np.testing.assert_array_equal(pixels(file)[0, :, 0], [0, 1, 255])


def test_16_bit_key_colour_becomes_white(tmp_path: Path) -> None:
    values = np.array([[0, 25700, 51400]], dtype=np.uint16)
    read = pixels(saved(tmp_path / "a.png", Image.fromarray(values), transparency=25700))
    np.testing.assert_array_equal(read[0, :, 0], [0, 255, 200])


@pytest.mark.parametrize("suffix", ["jpg", "tif"])
def test_cmyk(tmp_path: Path, suffix: str) -> None:
    red = Image.new("RGB", (8, 8), (255, 0, 0)).convert("CMYK")
    np.testing.assert_allclose(pixels(saved(tmp_path / f"a.{suffix}", red))[4, 4], [255, 0, 0], atol=4)


def test_palette(tmp_path: Path) -> None:
    image = Image.fromarray(np.array([[0, 1, 2]], dtype=np.uint8)).convert("P")
    image.putpalette([255, 0, 0, 0, 255, 0, 0, 0, 255])
    np.testing.assert_array_equal(pixels(saved(tmp_path / "a.png", image))[0], 255 * np.eye(3))


def test_palette_with_several_transparent_entries_is_composited(tmp_path: Path) -> None:
    image = Image.fromarray(np.array([[0, 1, 2]], dtype=np.uint8)).convert("P")
    image.putpalette([255, 0, 0, 0, 255, 0, 0, 0, 255])
    read = pixels(saved(tmp_path / "a.png", image, transparency=bytes([0, 255, 128])))
    np.testing.assert_allclose(read[0], [[255, 255, 255], [0, 255, 0], [127, 127, 255]], atol=1)


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
@pytest.mark.parametrize(("alpha", "expected"), [(0, 255), (255, 40), (128, 147)])
def test_transparency_is_composited_on_white(tmp_path: Path, mode: str, alpha: int, expected: int) -> None:
    image = Image.new(mode, (4, 4), (40, 40, 40, alpha) if mode == "RGBA" else (40, alpha))
    np.testing.assert_allclose(pixels(saved(tmp_path / "a.png", image)), expected, atol=1)


def test_key_colour_of_rgb_becomes_white(tmp_path: Path) -> None:
    image = Image.fromarray(np.array([[[9, 8, 7], [1, 2, 3]]], dtype=np.uint8))
    read = pixels(saved(tmp_path / "a.png", image, transparency=(9, 8, 7)))
    np.testing.assert_array_equal(read[0], [[255, 255, 255], [1, 2, 3]])


@pytest.mark.parametrize("suffix", ["gif", "webp", "tif"])
def test_an_animation_gives_its_first_frame(tmp_path: Path, suffix: str) -> None:
    frames = [Image.new("RGB", (16, 16), colour) for colour in ("red", "lime", "blue")]
    options = {} if suffix == "tif" else {"duration": 50}
    file = saved(tmp_path / f"a.{suffix}", frames[0], save_all=True, append_images=frames[1:], **options)
    np.testing.assert_allclose(pixels(file)[8, 8], [255, 0, 0], atol=6)


def test_path_may_be_text(tmp_path: Path) -> None:
    assert read_image(str(saved(tmp_path / "ä ö 猫.png", noise()))).size == (64, 64)


def test_damaged_exif_is_ignored_without_a_warning(tmp_path: Path) -> None:
    file = saved(tmp_path / "a.jpg", noise(), exif=b"Exif\x00\x00MM\x00*\x00\x00\x00\x08\x00\x05\x01\x12\xff\xff")
    image, orientation = read_image(file), read_header(file).orientation
    assert (image.size, orientation) == ((64, 64), 1)


# --- refused --------------------------------------------------------------------------------------------------------


def refuses(path: Path, reason: str) -> None:
    with pytest.raises(ImageError, match=reason) as caught:
        read_image(path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("suffix", ["jpg", "png", "bmp", "gif", "webp", "tif", "ppm"])
@pytest.mark.parametrize("share", [0.05, 0.5, 0.95])
def test_truncated_file(tmp_path: Path, suffix: str, share: float) -> None:
    file = saved(tmp_path / f"a.{suffix}", noise())
    whole = file.read_bytes()
    file.write_bytes(whole[: int(share * len(whole))])
    refuses(file, "truncated|Truncated|it is none of|decoder")


def test_empty_file(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").touch()
    refuses(tmp_path / "a.jpg", "the file is empty")


def test_missing_file_and_folder(tmp_path: Path) -> None:
    refuses(tmp_path / "a.jpg", "there is no such file")
    (tmp_path / "folder.jpg").mkdir()
    refuses(tmp_path / "folder.jpg", "[Dd]irectory|denied")


@pytest.mark.parametrize("content", [b"not a picture", b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n" + bytes(40)])
def test_not_an_image(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.jpg").write_bytes(content)
    refuses(tmp_path / "a.jpg", "Replace or remove it")


@sampled(one_in=2)
@pytest.mark.parametrize(
    ("kind", "name"), [("EPS", "a.png"), ("ICO", "a.jpg"), ("ICNS", "a.png"), ("JPEG2000", "a.jpg")]
)
def test_a_file_is_only_taken_for_what_is_named(tmp_path: Path, kind: str, name: str) -> None:
    """Pillow goes by the content: a PostScript file called .png would run Ghostscript."""
    with (tmp_path / name).open("wb") as file:
        noise(64).save(file, format=kind)
    refuses(tmp_path / name, "it is none of JPEG, PNG, BMP, GIF, WEBP, TIFF, PPM, or its header is damaged")


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp"])
def test_the_content_counts_and_not_the_suffix(tmp_path: Path, suffix: str) -> None:
    with (tmp_path / f"a.{suffix}").open("wb") as file:
        noise().save(file, format="BMP")
    np.testing.assert_array_equal(np.asarray(read_image(tmp_path / f"a.{suffix}")), np.asarray(noise()))


@pytest.mark.parametrize("size", [(100_000, 1), (1, 100_000), (201, 2)])
def test_long_thin_images_are_refused_before_they_are_resized(tmp_path: Path, size: tuple[int, int]) -> None:
    """A row of 100,000 pixels, its shorter side resized to 256, would have 20 GB."""
    file = saved(tmp_path / "a.png", Image.new("RGB", size))
    refuses(file, f"it is {size[0]} x {size[1]} pixels, one side more than 100 times as long as the other")


def test_the_longest_image_is_read(tmp_path: Path) -> None:
    assert read_image(saved(tmp_path / "a.png", Image.new("RGB", (200, 2)))).size == (200, 2)


def test_no_pixels(tmp_path: Path) -> None:
    (tmp_path / "a.ppm").write_bytes(b"P6 0 4 255\n")
    refuses(tmp_path / "a.ppm", "it is none of|no pixels")


@pytest.mark.parametrize("side", [7100, pytest.param(10_000, marks=pytest.mark.slow), 14_000])
def test_too_many_pixels_are_refused_before_decoding(
    tmp_path: Path, side: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Below, above and twice above the limits of Pillow's own warning and error."""
    file = saved(tmp_path / "a.png", Image.new("1", (side, side)))
    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", lambda self: pytest.fail("decoded"))
    refuses(file, "more than 50 megapixels")


def test_the_largest_image_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = saved(tmp_path / "a.png", noise(64))
    monkeypatch.setattr(images, "MAX_PIXELS", 64 * 64)
    assert read_image(file).size == (64, 64)
    monkeypatch.setattr(images, "MAX_PIXELS", 64 * 64 - 1)
    refuses(file, "megapixels")


def test_floating_point_pixels(tmp_path: Path) -> None:
    refuses(saved(tmp_path / "a.tif", Image.fromarray(GREY.astype(np.float32))), "floating-point")


@pytest.mark.parametrize("value", [-1, 65536])
def test_integers_outside_16_bit(tmp_path: Path, value: int) -> None:
    refuses(saved(tmp_path / "a.tif", Image.fromarray(np.array([[0, value]], dtype=np.int32))), "do not fit 16 bit")


# --- orientation ----------------------------------------------------------------------------------------------------

STORED_TO_UPRIGHT = {
    1: lambda x, y: (x, y),
    2: lambda x, y: (WIDTH - 1 - x, y),
    3: lambda x, y: (WIDTH - 1 - x, HEIGHT - 1 - y),
    4: lambda x, y: (x, HEIGHT - 1 - y),
    5: lambda x, y: (y, x),
    6: lambda x, y: (HEIGHT - 1 - y, x),
    7: lambda x, y: (HEIGHT - 1 - y, WIDTH - 1 - x),
    8: lambda x, y: (y, WIDTH - 1 - x),
}
"""Where a stored pixel is shown (EXIF 2.32, tag 274), written out one by one."""


def oriented(path: Path, image: Image.Image, orientation: int) -> Path:
    exif = Image.Exif()
    exif[274] = orientation
    return saved(path, image, exif=exif)


@pytest.mark.parametrize("suffix", ["png", "tif"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_moves_every_pixel_where_it_belongs(tmp_path: Path, suffix: str, orientation: int) -> None:
    file = oriented(tmp_path / f"a.{suffix}", Image.fromarray(GREY), orientation)
    image, applied = read_image(file), read_header(file).orientation
    shown = np.asarray(image)[..., 0]
    assert applied == orientation
    assert read_header(file) == Header(WIDTH, HEIGHT, orientation)
    for y in range(HEIGHT):
        for x in range(WIDTH):
            u, v = STORED_TO_UPRIGHT[orientation](x, y)
            assert shown[v, u] == GREY[y, x]


def test_orientation_of_a_photo(tmp_path: Path) -> None:
    file = oriented(tmp_path / "a.jpg", Image.fromarray(GREY), 6)
    image, applied = read_image(file), read_header(file).orientation
    assert (image.size, applied) == ((HEIGHT, WIDTH), 6)


@pytest.mark.parametrize("value", [0, 9])
def test_orientation_out_of_range_is_ignored(tmp_path: Path, value: int) -> None:
    file = oriented(tmp_path / "a.png", Image.fromarray(GREY), value)
    image, applied = read_image(file), read_header(file).orientation
    assert (image.size, applied) == ((WIDTH, HEIGHT), 1)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_boxes_turn_with_the_pixels(orientation: int) -> None:
    """The turned box encloses exactly the pixels that the box enclosed before."""
    box = np.array([[2, 1, 7, 4]], dtype=np.float32)
    inside = np.zeros((HEIGHT, WIDTH), dtype=np.uint8)
    inside[1:4, 2:7] = 255
    rows, columns = np.nonzero(np.asarray(upright(Image.fromarray(inside), orientation)))
    expected = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
    turned = upright_boxes(box, Header(WIDTH, HEIGHT, orientation))
    np.testing.assert_array_equal(turned, [expected])
    assert turned.dtype == np.float32


def test_no_boxes_stay_no_boxes() -> None:
    assert upright_boxes(np.zeros((0, 4), dtype=np.float32), Header(WIDTH, HEIGHT, 6)).shape == (0, 4)


# --- raw values -----------------------------------------------------------------------------------------------------


def test_indices_are_raw_values(tmp_path: Path) -> None:
    file = saved(tmp_path / "a.png", Image.fromarray(GREY))
    np.testing.assert_array_equal(read_indices(file), GREY)


def test_indices_of_a_colour_image_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="one 8-bit value per pixel, got mode RGB"):
        read_indices(saved(tmp_path / "a.png", noise()))
