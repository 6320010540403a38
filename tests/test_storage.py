"""Files and folders appear whole or not at all, and a stranger's are never replaced."""

import os
from pathlib import Path

import pytest

from maskplay import storage
from maskplay.errors import UserError
from maskplay.storage import (
    JSON_LIMIT,
    MARKER,
    VERSION,
    check_makeable,
    check_replaceable,
    new_file,
    new_folder,
    read_json,
    read_marker,
    write_atomically,
)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_failed_file_leaves_the_old_one(tmp_path: Path) -> None:
    write_atomically(tmp_path / "deep" / "a.txt", "旧")
    with pytest.raises(KeyboardInterrupt), new_file(tmp_path / "deep" / "a.txt") as file:
        file.write(b"half")
        raise KeyboardInterrupt
    assert (tmp_path / "deep" / "a.txt").read_text(encoding="utf-8") == "旧"
    assert names(tmp_path / "deep") == ["a.txt"]
    assert os.stat(tmp_path / "deep" / "a.txt").st_mode & 0o777 == 0o666 & ~_umask()


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def test_a_device_is_written_to_and_a_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "null").symlink_to(os.devnull)
    with storage.new_file(tmp_path / "null") as file:
        file.write(b"one")
    assert (tmp_path / "null").is_symlink() and os.listdir(tmp_path) == ["null"]
    with pytest.raises(UserError, match="expected the name of a file to write, found a folder"):
        with storage.new_file(tmp_path):
            pass


def test_a_way_through_the_folder_to_be_made(tmp_path: Path) -> None:
    with new_folder(tmp_path / "out" / ".." / "out") as folder:
        (folder / "a.txt").write_text("a")
    assert names(tmp_path) == ["out"] and names(tmp_path / "out") == ["a.txt"]


def test_a_failed_folder_leaves_the_old_one(tmp_path: Path) -> None:
    for content in ("first", "second"):
        with new_folder(tmp_path / "out") as folder:
            (folder / MARKER).write_text("{}")
            (folder / content).write_text(content)
    assert names(tmp_path) == ["out"] and names(tmp_path / "out") == [MARKER, "second"]
    with pytest.raises(RuntimeError), new_folder(tmp_path / "out") as folder:
        (folder / "third").write_text("third")
        raise RuntimeError
    assert names(tmp_path) == ["out"] and names(tmp_path / "out") == [MARKER, "second"]


def test_where_nothing_can_be_renamed_the_old_folder_is_still_there(tmp_path: Path, monkeypatch) -> None:
    with new_folder(tmp_path / "out") as folder:
        (folder / MARKER).write_text("{}")
    rename, calls = os.replace, []

    def once(source: Path, target: Path) -> None:
        calls.append(target)
        if len(calls) > 1:
            raise OSError("no")
        rename(source, target)

    monkeypatch.setattr(os, "replace", once)
    with pytest.raises(OSError), new_folder(tmp_path / "out") as folder:
        (folder / MARKER).write_text("{}")
    (kept,) = tmp_path.iterdir()
    assert len(calls) == 3 and names(kept / "old") == [MARKER]


def test_strangers_are_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine").write_text("mine")
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    for name in ("file", "full", "link"):
        with pytest.raises(UserError, match=name), new_folder(tmp_path / name):
            raise AssertionError("the block must not begin")
    assert names(tmp_path) == ["file", "full", "link"] and names(tmp_path / "full") == ["mine"]
    (tmp_path / "empty").mkdir()
    with new_folder(tmp_path / "empty") as folder:
        (folder / "a").write_text("a")
    assert names(tmp_path / "empty") == ["a"]


@pytest.mark.parametrize(
    "content, words",
    [
        (b"", "not valid JSON"),
        (b"[1]", "expected a JSON object, found list"),
        (b'{"a": }', "line 1, column 7"),
        (b'{"a": "\xff"}', "expected UTF-8, found byte 0xff at 7"),
        (b'{"a":' * 100_000, "nested too deeply"),
        (b'{"a": ' + b"1" * 5000 + b"}", "more than 4300 digits"),
        (b" " * (JSON_LIMIT + 1), "at most 64 MiB"),
    ],
)
def test_bad_json_is_one_line(content: bytes, words: str, tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    path.write_bytes(content)
    with pytest.raises(UserError) as caught:
        read_json(path)
    assert words in str(caught.value) and str(path) in str(caught.value) and "\n" not in str(caught.value)


def test_json_with_a_byte_order_mark(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_bytes(b'\xef\xbb\xbf{"a": 1}')
    assert read_json(tmp_path / "a.json") == {"a": 1}
    with pytest.raises(UserError, match="cannot be read"):
        read_json(tmp_path / "absent.json")


@pytest.mark.parametrize("name", ["", ".", "..", "a/..", "/", "a\0b"])
def test_what_is_no_name_is_refused(tmp_path: Path, monkeypatch, name: str) -> None:
    (tmp_path / "inside").mkdir()
    monkeypatch.chdir(tmp_path / "inside")
    with pytest.raises(UserError, match="expected the name of a folder to make"):
        check_replaceable(name)


def test_a_newer_folder_is_refused(tmp_path: Path) -> None:
    for version in (VERSION, None):
        write_atomically(tmp_path / MARKER, '{"format": "play"' + (f', "version": {version}}}' if version else "}"))
        assert read_marker(tmp_path)["format"] == "play"
    write_atomically(tmp_path / MARKER, f'{{"version": {VERSION + 1}}}')
    with pytest.raises(UserError, match=f"expected at most version {VERSION}, found {VERSION + 1}: written by a newer"):
        read_marker(tmp_path)
    write_atomically(tmp_path / MARKER, '{"version": "two"}')
    with pytest.raises(UserError, match="expected a version from 1 on, found 'two'"):
        read_marker(tmp_path)


def test_what_others_put_into_a_folder_of_ours_stays(tmp_path: Path) -> None:
    for content in ("first", "second"):
        with new_folder(tmp_path / "out") as folder:
            (folder / MARKER).write_text("{}")
            (folder / content).write_text(content)
    (tmp_path / "out" / "notes.txt").write_text("mine")
    with pytest.raises(UserError, match="holds notes.txt, which maskplay did not write; choose another name"):
        check_replaceable(tmp_path / "out")
    (tmp_path / "out" / "notes.txt").unlink()
    check_replaceable(tmp_path / "out")


def test_links_and_permissions_stay(tmp_path: Path) -> None:
    (tmp_path / "real.txt").write_text("old")
    (tmp_path / "real.txt").chmod(0o600)
    (tmp_path / "link.txt").symlink_to(tmp_path / "real.txt")
    storage.write_atomically(tmp_path / "link.txt", "new")
    assert (tmp_path / "link.txt").is_symlink() and (tmp_path / "real.txt").read_text() == "new"
    assert os.stat(tmp_path / "real.txt").st_mode & 0o777 == 0o600 and names(tmp_path) == ["link.txt", "real.txt"]


@pytest.mark.parametrize("below", ["a", "a/b/c"])
def test_a_file_is_no_folder_to_write_into(tmp_path: Path, below: str) -> None:
    (tmp_path / "file").write_text("mine")
    with pytest.raises(UserError, match="file: expected a folder to write into, found a file"):
        write_atomically(tmp_path / "file" / below, "new")
    with pytest.raises(UserError, match="file: expected a folder to write into, found a file"):
        with new_folder(tmp_path / "file" / below):
            pass
    assert (tmp_path / "file").read_text() == "mine"


def test_a_place_where_no_folder_can_be_is_told_at_once(tmp_path: Path, monkeypatch) -> None:
    (tmp_path / "file").write_text("x")
    for name in ("file/out", "file/deep/out"):
        with pytest.raises(UserError, match="file: expected a folder to write into, found a file"):
            check_replaceable(tmp_path / name)
    with pytest.raises(OSError, match="too long"):
        check_makeable(tmp_path / ("x" * 300))
    check_replaceable(tmp_path / "new" / "deep" / "out")
    assert names(tmp_path) == ["file"]
    monkeypatch.setattr(storage.os, "access", lambda *a: False)  # root may write everywhere
    with pytest.raises(UserError, match="cannot be written into"):
        check_replaceable(tmp_path / "new" / "out")
