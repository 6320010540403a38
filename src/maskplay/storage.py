"""Writing files whole or not at all, and reading small JSON files with errors a person can act on.

A reader never sees half a file: everything is written under a temporary name beside its final one, then renamed.
"""

import contextlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

from maskplay.errors import UserError, listed

MARKER = "maskplay.json"  # the file by which a folder is known to be ours, and may therefore be replaced
VERSION = 1  # of what it says; raised when an older maskplay would read it wrongly
JSON_LIMIT = 64 * 2**20  # bytes; a tokenizer.json is 10 MB at most


def write_atomically(path: str | os.PathLike[str], content: bytes | str) -> None:
    """Write a whole file or nothing.

    Args:
        path: the file's final name; its folder is created when missing.
        content: bytes, or text (written as UTF-8).

    Example:
        >>> folder = Path(tempfile.mkdtemp())
        >>> write_atomically(folder / "a.txt", "一")
        >>> (folder / "a.txt").read_bytes()
        b'\\xe4\\xb8\\x80'
    """
    with new_file(path) as file:
        file.write(content.encode("utf-8") if isinstance(content, str) else content)


@contextlib.contextmanager
def new_file(path: str | os.PathLike[str]) -> Iterator[BinaryIO]:
    """A file to write piece by piece; it appears under its name only when the block ends without an error.

    What is no file, a device or a pipe, is written to directly. A link stays one, to the new file; permissions stay.

    Raises:
        UserError: `path` is a folder.

    Example:
        >>> folder = Path(tempfile.mkdtemp())
        >>> with new_file(folder / "b.bin") as file:
        ...     _ = file.write(b"one")
        >>> (folder / "b.bin").read_bytes()
        b'one'
    """
    path = Path(path)
    if path.is_dir():
        raise UserError(f"{path}: expected the name of a file to write, found a folder")
    if path.exists() and not path.is_file():
        with open(path, "wb") as file:
            yield file
        return
    path = Path(os.path.realpath(path))
    make_folder(path.parent)
    mode = path.stat().st_mode & 0o777 if path.exists() else 0o666 & ~_umask()
    handle, temporary = tempfile.mkstemp(prefix=f".{path.name[:80]}.", suffix=".part", dir=path.parent)
    os.close(handle)
    try:
        # Opened by name: a writer that is given `file.name` must find a path there, not a number.
        with open(temporary, "wb") as file:
            yield file
        with open(temporary, "rb") as file:  # by name again: such a writer may have put another file there
            os.fsync(file.fileno())
        os.chmod(temporary, mode)
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)
        raise


@contextlib.contextmanager
def new_folder(path: str | os.PathLike[str]) -> Iterator[Path]:
    """A folder that appears under its final name only when the block ends without an error.

    Yields a temporary folder beside `path`. An existing `path` is replaced only when it is empty or all of it is ours,
    which `maskplay.json` in it lists, so that neither a mistyped name nor a second run deletes what others put there.

    Raises:
        UserError: `path` is a file, or a folder with something else in it.

    Example:
        >>> root = Path(tempfile.mkdtemp())
        >>> with new_folder(root / "out") as folder:
        ...     _ = (folder / "maskplay.json").write_text("{}")
        >>> sorted(p.name for p in root.iterdir())
        ['out']
    """
    path = Path(path)
    path = Path(os.path.realpath(path.parent), path.name)  # `a/../a` is `a`: making its parent would make it, too
    check_replaceable(path)
    make_folder(path.parent)
    temporary = Path(tempfile.mkdtemp(prefix=f".{path.name[:80]}.", suffix=".part", dir=path.parent))
    try:
        os.chmod(temporary, 0o777 & ~_umask())
        yield temporary
        if (temporary / MARKER).is_file():
            description = {**read_json(temporary / MARKER), "files": sorted(each.name for each in temporary.iterdir())}
            text = json.dumps(description, indent=2, ensure_ascii=False) + "\n"
            (temporary / MARKER).write_text(text, encoding="utf-8")
        check_replaceable(path)
        if path.exists():
            # Two renames: the old folder moves aside first, so that a crash in between still leaves both on disk.
            retired = Path(tempfile.mkdtemp(prefix=f".{path.name[:80]}.", suffix=".old", dir=path.parent))
            os.replace(path, retired / "old")
            try:
                os.replace(temporary, path)
            except BaseException:
                os.replace(retired / "old", path)  # where this fails too, the old folder stays where it is
                os.rmdir(retired)
                raise
            shutil.rmtree(retired, ignore_errors=True)
        else:
            os.replace(temporary, path)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise


def make_folder(path: Path) -> None:
    """Make a folder to write into, with those above it, where they are missing.

    Raises:
        UserError: something on the way is no folder.

    Example:
        >>> make_folder(Path(tempfile.mkdtemp()) / "a" / "b")
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError):
        file = next(each for each in (path, *path.parents) if os.path.lexists(each))
        raise UserError(f"{file}: expected a folder to write into, found a file; choose another name") from None


def check_makeable(path: Path) -> None:
    """Raise `UserError` where no folder of this name can be made and written into, without making it.

    Example:
        >>> check_makeable(Path(tempfile.mkdtemp()) / "a" / "b")
    """
    there = next((each for each in (path, *path.parents) if os.path.lexists(each)), Path())
    if not there.is_dir():
        raise UserError(f"{there}: expected a folder to write into, found a file; choose another name")
    if not os.access(there, os.W_OK | os.X_OK):
        raise UserError(f"{there}: cannot be written into (Permission denied); choose another folder")
    try:
        path.lstat()
    except FileNotFoundError:  # but a name that is too long is told
        pass


def is_lost(path: str | os.PathLike[str], out: str | os.PathLike[str]) -> bool:
    """Whether something is or lies in an output folder, and would go when that is replaced."""
    try:
        here, there = Path(path).resolve(), Path(out).resolve()
    except (OSError, RuntimeError, ValueError):  # no path at all: whoever opens it will say so
        return False
    return there == here or there in here.parents


def write_report(path: Path, report: Mapping[str, Any]) -> None:
    """Figures as JSON; names of files may hold what UTF-8 cannot say."""
    text = json.dumps(report, indent=2, ensure_ascii=False) + "\n"
    path.write_text(text, encoding="utf-8", errors="backslashreplace")


def check_replaceable(path: str | os.PathLike[str]) -> None:
    """Raise `UserError` when an output folder has no name of its own, or it is taken by something that is not ours.

    Called before long work starts, so that a wrong `--out` fails in the first second rather than after training.

    Example:
        >>> check_replaceable(Path(tempfile.mkdtemp()))  # empty: fine
    """
    path = Path(path)
    if path.name in ("", "..") or "\0" in str(path):
        raise UserError(f"{str(path)!r}: expected the name of a folder to make")
    check_makeable(path.parent)
    if path.is_symlink() or path.exists():
        if not path.is_dir():
            raise UserError(f"{path}: expected a folder to write to, found a file; choose another name")
        if not any(path.iterdir()):
            return
        if not (path / MARKER).is_file():
            raise UserError(f"{path}: this folder holds files that maskplay did not write; choose another name")
        ours = read_json(path / MARKER).get("files")
        others = {each.name for each in path.iterdir()} - {MARKER, *(ours if isinstance(ours, list) else ())}
        if ours is not None and others:
            found = listed(sorted(others))
            raise UserError(f"{path}: holds {found}, which maskplay did not write; choose another name")


def read_json(path: str | os.PathLike[str]) -> dict[str, Any]:
    """The object in a JSON file.

    Raises:
        UserError: the file is missing, too large, not UTF-8, not JSON, or not an object.

    Example:
        >>> folder = Path(tempfile.mkdtemp())
        >>> write_atomically(folder / "config.json", '{"vocab_size": 15}')
        >>> read_json(folder / "config.json")
        {'vocab_size': 15}
    """
    path = Path(path)
    try:
        with open(path, "rb") as file:
            content = file.read(JSON_LIMIT + 1)
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror or error})") from None
    if len(content) > JSON_LIMIT:
        raise UserError(f"{path}: expected a JSON file of at most {JSON_LIMIT // 2**20} MiB, found a larger one")
    try:
        value = json.loads(content.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: expected UTF-8, found byte 0x{content[error.start]:02x} at {error.start}") from None
    except json.JSONDecodeError as error:
        raise UserError(f"{path}: not valid JSON: {error.msg} at line {error.lineno}, column {error.colno}") from None
    except RecursionError:
        raise UserError(f"{path}: not a JSON file of ours: nested too deeply") from None
    except ValueError:  # Python reads no number of thousands of digits
        raise UserError(f"{path}: not a JSON file of ours: a number of more than 4300 digits") from None
    if not isinstance(value, dict):
        raise UserError(f"{path}: expected a JSON object, found {type(value).__name__}")
    return value


def read_marker(folder: str | os.PathLike[str]) -> dict[str, Any]:
    """What a folder of ours says of itself, its `maskplay.json`.

    Raises:
        UserError: the file cannot be read, or was written by a newer maskplay.

    Example:
        >>> folder = Path(tempfile.mkdtemp())
        >>> write_atomically(folder / MARKER, '{"format": "play", "version": 2}')
        >>> read_marker(folder)  # doctest: +ELLIPSIS
        Traceback (most recent call last):
        maskplay.errors.UserError: ...: expected at most version 1, found 2: written by a newer maskplay; update it
    """
    path = Path(folder) / MARKER
    description = read_json(path)
    version = description.get("version", VERSION)
    if not isinstance(version, int) or version < 1:
        raise UserError(f"{path}: expected a version from 1 on, found {version!r:.40}")
    if version > VERSION:
        raise UserError(
            f"{path}: expected at most version {VERSION}, found {version}: written by a newer maskplay; update it"
        )
    return description


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
