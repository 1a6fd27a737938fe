"""Which files have the same content."""

import os

from contrex.data.files import copies


def test_files_have_one_key_where_their_contents_are_the_same(tmp_path):
    long = bytes(range(256)) * 200
    contents = [b"a", b"b", b"a", b"", b"", long, long + b"1", long + b"2", long[:-1] + b"x", long]
    files = [tmp_path / f"{number}.png" for number in range(len(contents))]
    for file, content in zip(files, contents, strict=True):
        file.write_bytes(content)
    assert len(long) > 2 * copies.START
    for number, link in enumerate((os.symlink, os.link)):
        files.append(tmp_path / f"link{number}.png")
        link(files[1], files[-1])
    keys = copies.content_keys(files)
    contents += [b"b", b"b"]
    for one, own in zip(keys, contents, strict=True):
        assert [one == key for key in keys] == [own == content for content in contents]


def test_no_more_is_read_than_tells_files_apart(tmp_path, monkeypatch):
    read = []
    monkeypatch.setattr(copies, "_digest", lambda file, num_bytes: read.append((file.name, num_bytes)) or file.name)
    for name, content in {"a": b"1", "b": b"22", "c": b"33"}.items():
        (tmp_path / name).write_bytes(content)
    copies.content_keys([tmp_path / name for name in "abc"])
    assert read == [("b", copies.START), ("c", copies.START)]


def test_files_that_cannot_be_read_are_like_no_other(tmp_path, monkeypatch):
    files = [tmp_path / name for name in "ab"]
    for file in files:
        file.write_bytes(b"same")
    monkeypatch.setattr(type(files[0]), "open", lambda *args: (_ for _ in ()).throw(PermissionError(13, "denied")))
    assert len(set(copies.content_keys(files))) == 2
