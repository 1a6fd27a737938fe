"""What lies in real folders beside good pictures: loops, links, forbidden folders, bombs, and names of every kind."""

from __future__ import annotations

import os
import struct
import zlib
from pathlib import Path

import pytest
from PIL import Image

from contrex.data.files.folders import image_names, subfolders
from contrex.data.files.images import read_image
from contrex.data.readers.folder import FolderImages
from contrex.errors import DataError, ImageError
from contrex.settings import Folder


def picture(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (12, 8), "teal").save(path)
    return path


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for name in ("ant/1.png", "bee/1.png"):
        picture(tmp_path / "photos" / "train" / name)
    return tmp_path / "photos"


def train(root: Path, **options: str) -> FolderImages:
    return FolderImages(Folder(root, **options), "train")


def test_links_that_lead_round_in_circles_end(root: Path) -> None:
    """A class folder is listed to one level, so a folder that holds itself is no endless set."""
    ant = root / "train" / "ant"
    (ant / "again").symlink_to(root)
    (ant / "loop.png").symlink_to(ant / "loop.png")
    (ant / "parent.png").symlink_to(root / "train")
    (ant / "nothing.png").symlink_to(root / "nothing.png")
    (root / "train" / "self").symlink_to(root / "train" / "self")
    assert train(root).paths == ["train/ant/1.png", "train/bee/1.png"]
    (root / "train" / "loop").symlink_to(root)
    with pytest.raises(DataError, match=r"class folder '.*train/loop' has no images"):
        train(root)


def test_linked_pictures_and_folders_are_read(root: Path, tmp_path: Path) -> None:
    (root / "train" / "ant" / "2.png").symlink_to(picture(tmp_path / "elsewhere" / "x.png"))
    (root / "train" / "cat").symlink_to(tmp_path / "elsewhere")
    images = train(root)
    assert images.paths == ["train/ant/1.png", "train/ant/2.png", "train/bee/1.png", "train/cat/x.png"]
    assert len(list(images)) == 4


def test_pipes_and_devices_are_no_pictures(root: Path) -> None:
    """Opening them would wait, or read, for ever."""
    os.mkfifo(root / "train" / "ant" / "pipe.png")
    (root / "train" / "ant" / "zero.png").symlink_to("/dev/zero")
    assert len(train(root)) == 2


@pytest.mark.parametrize("listing", [image_names, subfolders])
def test_a_folder_that_may_not_be_read_is_named(root: Path, listing, monkeypatch) -> None:
    def denied(folder):
        raise PermissionError(13, "Permission denied", str(folder))

    monkeypatch.setattr(os, "scandir", denied)
    monkeypatch.setattr(os, "listdir", denied)
    with pytest.raises(
        DataError, match=r"folder '.*train' cannot be read: Permission denied. Allow it, or leave it out"
    ):
        listing(root / "train")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_forbidden_folders_and_files_of_a_real_file_system(root: Path) -> None:
    (root / "train" / "ant" / "1.png").chmod(0)
    with pytest.raises(ImageError, match="Permission denied"):
        train(root)[0]
    (root / "train" / "ant").chmod(0)
    try:
        with pytest.raises(DataError, match=r"folder '.*ant' cannot be read: Permission denied"):
            train(root)
    finally:
        (root / "train" / "ant").chmod(0o700)


LONGEST = "é" * 125 + ".png"
"""254 bytes, one less than file systems allow."""

ODD = [
    LONGEST,
    "new\nline.png",
    "tab\t, comma \"quote\".png",
    "\x1b[2Jclears the screen.png",
    "<script>alert(1)<\u2215script>.png",
    "{{ 7 * 7 }}.png",
    "$\\frac{1}.png",
    "%s %n ~ * ? [a-z].png",
    "-rf.png",
    "\u202egnp.png",
    os.fsdecode(b"no unicode \xff\xfe.png"),
    "猿.png",
    "\u00c4.png",
    "A\u0308.png",
]  # fmt: skip


def test_names_of_every_kind(root: Path) -> None:
    folder = root / "train" / "bee"
    for name in ODD:
        picture(folder / name)
    images = train(root)
    names = ["1.png", *ODD]
    assert images.paths == ["train/ant/1.png", *sorted(f"train/bee/{name}" for name in names)]
    assert all(sample.image.size == (12, 8) for sample in images)


def test_faults_are_listed_without_what_steers_a_terminal(root: Path) -> None:
    for name in ("\x1b[2J.png", "\u202e.png", os.fsdecode(b"\xff.png"), LONGEST):
        (root / "train" / "ant" / name).touch()
    faults = train(root, on_bad_image="skip").skipped
    assert len(faults) == 4
    assert all(fault.isprintable() for fault in faults)
    assert any(r"ant/\x1b[2J.png': the file is empty" in fault for fault in faults)
    assert any(LONGEST in fault for fault in faults)


def bomb(path: Path, width: int, height: int) -> Path:
    """A PNG of a few hundred bytes that says it is huge."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    pixels = zlib.compress(b"\0" * 10_000)
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b""))
    return path


@pytest.mark.parametrize(("width", "height"), [(20_000, 20_000), (2**31 - 1, 1), (7_100, 7_100)])
def test_bombs_are_left_out_before_they_are_decoded(root: Path, width: int, height: int) -> None:
    file = bomb(root / "train" / "ant" / "2.png", width, height)
    with pytest.raises(ImageError, match=r"2.png': it has more than 50 megapixels"):
        read_image(file)
    images = train(root, on_bad_image="skip")
    assert (len(images), len(images.skipped)) == (2, 1)
    assert "more than 50 megapixels" in images.skipped[0]


def test_text_that_unpacks_to_much_more_is_not_unpacked(root: Path) -> None:
    """A compressed comment of a PNG can be a bomb too."""
    file = root / "train" / "ant" / "1.png"
    content = file.read_bytes()
    text = b"Comment\0\0" + zlib.compress(b"x" * 3_000_000)
    chunk = struct.pack(">I", len(text)) + b"zTXt" + text + struct.pack(">I", zlib.crc32(b"zTXt" + text))
    file.write_bytes(content[:33] + chunk + content[33:])
    with pytest.raises(ImageError, match=r"1.png': Decompressed data too large"):
        train(root)[0]
