"""The index cache: what is scanned again, what is not, and that nothing wrong or foreign is ever believed."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from contrex.data.files import folders as files
from contrex.data.files import images, index_cache
from contrex.data.files.folders import image_names_below
from contrex.data.files.index_cache import read_index
from contrex.data.readers.folder import FolderImages
from contrex.settings import Folder


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """The folder of the cache files, which keep however little was found, an hour after the test."""
    monkeypatch.delenv("CONTREX_NO_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(index_cache, "SMALLEST", 0)
    later(monkeypatch, 3600)
    return tmp_path / "cache" / "contrex" / "index"


def later(monkeypatch, seconds):
    monkeypatch.setattr(index_cache.time, "time_ns", lambda: int((time.time() + seconds) * 1e9))


@pytest.fixture
def root(tmp_path):
    for folder in ("train/ant", "train/bee", "val/ant", "val/bee"):
        (tmp_path / "photos" / folder).mkdir(parents=True)
        for name in ("2.jpg", "10.PNG", "größe \udcff½.jpg", "notes.txt", ".hidden.jpg"):
            (tmp_path / "photos" / folder / name).touch()
    return tmp_path / "photos"


@pytest.fixture
def scans(monkeypatch):
    """The folders that were listed."""
    seen, scandir = [], os.scandir

    def noting(folder):
        seen.append(Path(folder).name)
        return scandir(folder)

    monkeypatch.setattr(os, "scandir", noting)
    return seen


def names(root, split="train", folders=("ant", "bee")):
    return image_names_below(root, [f"{split}/{folder}" for folder in folders], split=split)


FOUND = ["10.PNG", "2.jpg", "größe \udcff½.jpg"]


def test_folders_are_listed_once(root, cache, scans):
    assert names(root) == [FOUND, FOUND]
    assert scans == ["ant", "bee"]
    assert names(root) == [FOUND, FOUND]
    assert scans == ["ant", "bee"]
    assert len(list(cache.iterdir())) == 1
    assert names(root, "val") == [FOUND, FOUND]
    assert scans == ["ant", "bee"] * 2
    assert len(list(cache.iterdir())) == 2
    assert not any(path.suffix == ".npz" for path in root.rglob("*"))


@pytest.mark.parametrize("change", ["added", "removed", "renamed", "replaced"])
def test_a_changed_folder_is_listed_again_and_only_it(root, cache, scans, change):
    names(root)
    folder = root / "train" / "bee"
    expected = {
        "added": ["1.gif", *FOUND],
        "removed": FOUND[1:],
        "renamed": ["3.jpg", *FOUND[1:]],
        "replaced": ["4.jpg"],
    }
    if change == "added":
        (folder / "1.gif").touch()
    elif change == "removed":
        (folder / "10.PNG").unlink()
    elif change == "renamed":
        (folder / "10.PNG").rename(folder / "3.jpg")
    else:  # by another folder with the very same times
        times = folder.stat()
        folder.rename(root / "elsewhere")
        folder.mkdir()
        (folder / "4.jpg").touch()
        os.utime(folder, ns=(times.st_atime_ns, times.st_mtime_ns))
    scans.clear()
    assert names(root) == [FOUND, sorted(expected[change])]
    assert scans == ["bee"]
    assert names(root) == [FOUND, sorted(expected[change])]
    assert scans == ["bee"]


def test_a_time_set_back_does_not_hide_a_change(root, cache):
    names(root)
    times = (root / "train" / "ant").stat()
    (root / "train" / "ant" / "1.jpg").touch()
    os.utime(root / "train" / "ant", ns=(times.st_atime_ns, times.st_mtime_ns))
    assert "1.jpg" in names(root)[0]


def test_a_folder_changed_just_now_is_not_kept(root, cache, scans, monkeypatch):
    """Two changes within the clock's tick leave the same times."""
    later(monkeypatch, 1)
    names(root)
    assert not cache.exists()
    assert names(root) == [FOUND, FOUND]
    assert scans == ["ant", "bee"] * 2


def test_a_folder_that_changes_while_it_is_listed_is_not_kept(root, cache):
    def scan(part):
        (root / part / "late.jpg").touch()
        return b"early", True

    assert read_index(root, "x", ["train/ant"], scan) == [b"early"]
    assert read_index(root, "x", ["train/ant"], lambda part: (b"late", True)) == [b"late"]


def test_links_are_looked_up_again(root, cache, scans):
    """What they point to goes without a change of their folder."""
    target = root / "elsewhere.jpg"
    target.touch()
    (root / "train" / "ant" / "link.jpg").symlink_to(target)
    (root / "train" / "ant" / "loop.jpg").symlink_to(root / "train" / "ant" / "loop.jpg")
    (root / "train" / "ant" / "broken.jpg").symlink_to(root / "nothing")
    assert names(root)[0] == sorted([*FOUND, "link.jpg"])
    target.unlink()
    assert names(root)[0] == FOUND
    assert scans == ["ant", "bee", "ant"]


def test_some_classes_do_not_push_out_the_others(root, cache, scans):
    names(root)
    assert names(root, folders=["bee"]) == [FOUND]
    assert names(root, folders=["bee", "wasp"]) == [FOUND, []]
    assert names(root) == [FOUND, FOUND]
    assert scans == ["ant", "bee"]


class Payload:
    """Makes a file when it is unpickled."""

    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return os.system, (f"touch {self.marker}",)


def damaged(file, how):
    content = bytearray(file.read_bytes())
    if how == "flip":
        content[-content[::-1].find(b"gpj.") - 2] ^= 1  # in the middle of a name
    elif how == "truncate":
        content = content[:-40]
    elif how == "empty":
        content = b""
    elif how == "text":
        content = b"not an archive"
    if how in ("pickle", "version", "lengths"):
        with np.load(file) as arrays:
            header, names = json.loads(arrays["header"].tobytes()), arrays["content"]
        if how == "pickle":
            names = np.array([Payload(file.with_name("executed"))], dtype=object)
        elif how == "version":
            header["version"] = 0
        else:
            header["parts"][0][1] += 1
        np.savez(file, header=np.frombuffer(json.dumps(header).encode(), np.uint8), content=names)
    else:
        file.write_bytes(content)


@pytest.mark.parametrize("how", ["flip", "truncate", "empty", "text", "pickle", "version", "lengths"])
def test_a_damaged_or_foreign_cache_is_ignored_and_written_anew(root, cache, scans, how):
    names(root)
    (file,) = cache.iterdir()
    damaged(file, how)
    assert names(root) == [FOUND, FOUND]
    assert scans == ["ant", "bee"] * 2
    assert names(root) == [FOUND, FOUND]
    assert scans == ["ant", "bee"] * 2
    assert list(cache.iterdir()) == [file]  # and no "executed"


def test_a_contrex_that_reads_other_formats_lists_anew(root, cache, monkeypatch):
    names(root)
    for module in (files, images):
        monkeypatch.setattr(module, "SUFFIXES", images.SUFFIXES | {".txt"})
    assert names(root) == [sorted([*FOUND, "notes.txt"])] * 2


def test_where_it_is_kept(root, cache, monkeypatch, tmp_path):
    assert index_cache.cache_folder() == cache
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    assert index_cache.cache_folder() == Path.home() / ".cache" / "contrex" / "index"
    monkeypatch.setenv("XDG_CACHE_HOME", str(root / "cache"))
    assert names(root) == [FOUND, FOUND]
    assert not (root / "cache").exists()  # never in the data set
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "other"))
    monkeypatch.setenv("CONTREX_NO_CACHE", "1")
    assert names(root) == [FOUND, FOUND]
    assert not (tmp_path / "other").exists()


def test_without_a_home_or_a_place_to_write_nothing_fails(root, cache, monkeypatch, tmp_path):
    (tmp_path / "cache").write_text("a file where the folder should be")
    assert names(root) == [FOUND, FOUND]
    monkeypatch.delenv("XDG_CACHE_HOME")

    def homeless():
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", homeless)
    assert names(root) == [FOUND, FOUND]


def test_small_sets_are_not_kept(root, cache, monkeypatch):
    monkeypatch.setattr(index_cache, "SMALLEST", 1000)
    names(root)
    assert not cache.exists()


def test_the_reader_of_folders_uses_it(root, cache, scans):
    assert len(FolderImages(Folder(root), "val")) == 6
    scans.clear()
    assert FolderImages(Folder(root), "val").paths[0] == "val/ant/10.PNG"
    assert not {"ant", "bee"} & set(scans)


WRITER = """
import sys, time
from pathlib import Path
from contrex.data.files import index_cache
index_cache.SMALLEST = 0
index_cache.time.time_ns = lambda: int((time.time() + 3600) * 1e9)
for number in range(int(sys.argv[2])):
    parts = ["train/ant", "train/bee"]
    found = index_cache.read_index(Path(sys.argv[1]), "x", parts, lambda part: (part.encode() * 50, True))
    assert found == [part.encode() * 50 for part in parts], found
    for file in index_cache.cache_folder().iterdir():
        file.unlink(missing_ok=True)
"""


@pytest.mark.slow
def test_several_writers_and_readers_at_once(root, cache, tmp_path):
    words = [sys.executable, "-c", WRITER, str(root), "300"]
    environment = {key: value for key, value in os.environ.items() if key != "CONTREX_NO_CACHE"}
    writers = [subprocess.Popen(words, env=environment, stderr=subprocess.PIPE) for _ in range(3)]
    assert [(writer.communicate()[1].decode(), writer.returncode) for writer in writers] == [("", 0)] * 3


@pytest.mark.slow
def test_twenty_thousand_files(tmp_path, cache, scans, monkeypatch):
    monkeypatch.setattr(index_cache, "SMALLEST", 100_000)
    for label in range(20):
        folder = tmp_path / "many" / "train" / f"class {label:02d}"
        folder.mkdir(parents=True)
        for number in range(1000):
            (folder / f"{number}.jpg").touch()
    first = FolderImages(Folder(tmp_path / "many"), "train")
    assert len([name for name in scans if name.startswith("class")]) == 20
    scans.clear()
    second = FolderImages(Folder(tmp_path / "many"), "train")
    assert not [name for name in scans if name.startswith("class")]
    assert first.paths == second.paths
    assert len(second) == 20_000
    assert cache.stat().st_mode & 0o777 == 0o700


# --- which files can be read ----------------------------------------------------------------------------------------


@pytest.fixture
def decoded(root, cache, monkeypatch):
    """The files that were decoded; `train/ant/2.jpg` is the only one of train that is damaged."""
    monkeypatch.setattr(index_cache, "FEWEST", 0)
    seen, real = [], files.read_image

    def noting(file):
        seen.append(file.name)
        return real(file)

    monkeypatch.setattr(files, "read_image", noting)
    for file in [*root.rglob("*.jpg"), *root.rglob("*.PNG")]:
        Image.new("RGB", (8, 8)).save(file)
    (root / "train" / "ant" / "2.jpg").write_bytes(b"")
    return seen


def skipping(root):
    images = FolderImages(Folder(root, on_bad_image="skip"), "train")
    return len(images), images.skipped


def test_each_file_is_tried_once(root, decoded):
    first = skipping(root)
    assert first[0] == 5
    assert "train/ant/2.jpg': the file is empty" in first[1][0]
    assert len(decoded) == 6
    assert skipping(root) == first
    assert len(decoded) == 6


def test_changed_files_are_tried_again_and_only_they(root, decoded):
    skipping(root)
    Image.new("RGB", (8, 8)).save(root / "train" / "ant" / "2.jpg")
    broken = root / "train" / "bee" / "10.PNG"
    content, times = broken.read_bytes(), broken.stat()
    broken.write_bytes(content[:40] + b"\0" * (len(content) - 40))
    os.utime(broken, ns=(times.st_atime_ns, times.st_mtime_ns))
    decoded.clear()
    assert "train/bee/10.PNG" in skipping(root)[1][0]
    assert decoded == ["2.jpg", "10.PNG"]
    (root / "train" / "ant" / "2.jpg").unlink()
    assert skipping(root)[0] == 4
    assert len(decoded) == 2


def test_verdicts_are_not_kept_of_files_written_just_now(root, decoded, monkeypatch):
    later(monkeypatch, 1)
    skipping(root)
    skipping(root)
    assert len(decoded) == 12


def test_verdicts_are_switched_off_with_the_rest_and_belong_to_the_pillow_that_gave_them(root, decoded, monkeypatch):
    skipping(root)
    monkeypatch.setattr(files.PIL, "__version__", "99")
    skipping(root)
    assert len(decoded) == 12
    monkeypatch.setenv("CONTREX_NO_CACHE", "1")
    skipping(root)
    assert len(decoded) == 18


def test_two_names_of_one_file_are_both_listed(root, decoded):
    (root / "train" / "bee" / "2.jpg").unlink()
    (root / "train" / "bee" / "2.jpg").hardlink_to(root / "train" / "ant" / "2.jpg")
    for _ in range(2):
        faults = skipping(root)[1]
        assert ["ant/2.jpg" in faults[0], "bee/2.jpg" in faults[1]] == [True, True]
