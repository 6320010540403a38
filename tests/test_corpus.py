"""Raw text: every form reads alike, nothing is held whole, every fault is named with its file and line."""

import gzip
import io
import json
import lzma
import sys
import tarfile
import tracemalloc
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from maskplay import corpus
from maskplay.corpus import reading
from maskplay.errors import DataError, MissingExtra, UserError

TEXT = "一二三\r\n\n四 𠀀\n五\u2028六\x0c"
LINES = ["一二三", "", "四 𠀀", "五\u2028六\x0c"]


def written(folder: Path, name: str, content: bytes | str) -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def as_json(lines: list[str], field: str = "text") -> bytes:
    return "".join(json.dumps({"id": i, field: line}) + "\n" for i, line in enumerate(lines)).encode()


def told(call) -> str:
    with pytest.raises(UserError) as error:
        list(call())
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize(
    "name, content",
    [
        ("a.txt", TEXT.encode()),
        ("bom", b"\xef\xbb\xbf" + TEXT.encode() + b"\n"),
        ("a.TXT.GZ", gzip.compress(TEXT.encode(), mtime=0)),
        ("two.gz", gzip.compress(TEXT.encode()[:5], mtime=0) + gzip.compress(TEXT.encode()[5:], mtime=0)),
        ("a.xz", lzma.compress(TEXT.encode())),
        ("a.jsonl", as_json(LINES)),
        ("a.json.gz", gzip.compress(as_json(LINES), mtime=0)),
        ("windows.jsonl", as_json(["一二三\r\n", "四 𠀀\n五\u2028六\x0c"]).replace(b"\n", b"\r\n\n")),
        ("a.jsonl.xz", lzma.compress(as_json(LINES))),
    ],
)
def test_every_form_gives_the_same_lines(tmp_path, name, content):
    path = written(tmp_path, name, content)
    expected = LINES if name != "windows.jsonl" else [LINES[0], *LINES[2:]]
    assert list(corpus.lines(path)) == expected
    for size in (1, 7, 1000):
        assert "".join(corpus.blocks(path, size=size)) == "".join(line + "\n" for line in expected)


def test_zst(tmp_path, monkeypatch):
    path = written(tmp_path, "a.zst", b"")
    with monkeypatch.context() as hidden:
        for name in ("compression.zstd", "backports.zstd"):
            hidden.setitem(sys.modules, name, None)
        with pytest.raises(MissingExtra, match="maskplay\\[words\\]"):
            list(corpus.lines(path))
    try:
        packed = corpus.places.zstd().compress(TEXT.encode())
    except MissingExtra:
        pytest.skip("the `words` extra is not installed")
    path.write_bytes(packed)
    assert list(corpus.lines(path)) == LINES
    path.write_bytes(packed[:-4])
    assert "a.zst, line " in told(lambda: corpus.lines(path))
    path.write_bytes(b"no zst")
    assert "a.zst, line 1: cannot be read on" in told(lambda: corpus.lines(path))


def test_another_field(tmp_path):
    assert list(corpus.lines(written(tmp_path, "a.jsonl", as_json(LINES, "body")), field="body")) == LINES


def test_a_field_that_no_file_has(tmp_path):
    wrong = written(tmp_path, "a.txt", '{"body": "一"}\n')
    expected = f"field: 'body' is looked for in files .jsonl, .ndjson or .json; found {wrong}"
    assert told(lambda: corpus.lines(wrong, field="body")) == expected
    right = written(tmp_path, "b.ndjson", '{"body": "二"}\n')
    assert list(corpus.lines([wrong, right], field="body")) == ['{"body": "一"}', "二"]


def test_records_are_whole(tmp_path):
    texts = ["一\n二\r\n\n三", "", "四"]
    assert list(corpus.records(written(tmp_path, "a.jsonl", as_json(texts)))) == ["一\n二\n\n三", "", "四"]


def test_standard_input(monkeypatch, tmp_path):
    with open(written(tmp_path, "a.txt", TEXT)) as file:
        monkeypatch.setattr(sys, "stdin", file)
        assert list(corpus.lines("-")) == LINES
        assert not file.closed
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(TEXT.encode())))  # as some programs give it
    assert list(corpus.lines("-")) == LINES
    found = told(lambda: corpus.lines("-", field="body"))
    assert found == "field: 'body' is looked for in files .jsonl, .ndjson or .json; standard input begins as text"
    monkeypatch.setattr(sys, "stdin", None)
    assert told(lambda: corpus.lines("-")) == "standard input: cannot be read (it is closed)"


@settings(max_examples=200, deadline=None)
@given(st.text(st.sampled_from("一𠀀aé\r\n "), max_size=60), st.integers(1, 30), st.integers(1, 5))
@example("一" * 40, 4, 3)
@example("a\r\n" * 20, 5, 2)
def test_blocks_and_parts_lose_nothing(tmp_path_factory, text, size, count):
    path = written(tmp_path_factory.mktemp("t"), "a.txt", text)
    whole = text if text.endswith("\n") or not text else text + "\n"
    expected = whole.replace("\r\n", "\n").split("\n")[:-1]
    blocks = list(corpus.blocks(path, size=size))
    assert "".join(blocks) == "".join(line + "\n" for line in expected)
    assert list(corpus.lines(path)) == expected
    groups = corpus.parts(path, count)
    assert len(groups) <= count
    assert [line for group in groups for line in corpus.lines(group)] == expected


def test_parts_are_about_equal_and_in_order(tmp_path):
    files = [written(tmp_path, f"{i}.txt", f"{i}\n" * 100 * i) for i in range(1, 6)]
    packed = written(tmp_path, "9.gz", gzip.compress(b"9\n"))
    groups = corpus.parts(tmp_path, 4)
    read = [list(corpus.lines(group)) for group in groups]
    assert sum(read, []) == list(corpus.lines([*files, packed]))
    assert len(read) == 4 and max(map(len, read)) < 1.2 * sum(map(len, read)) / 4
    assert len(corpus.parts(written(tmp_path, "empty", ""), 3)) == 1


def test_places(tmp_path, monkeypatch):
    for name in ("b.txt", "a/2.txt", "a/1.txt", "a/.hidden", ".git/x", "c[1].txt"):
        written(tmp_path, name, "一\n")
    monkeypatch.chdir(tmp_path)
    shown = [path.as_posix() for path in corpus.paths(".")]
    assert shown == ["b.txt", "c[1].txt", "a/1.txt", "a/2.txt"]
    assert [p.as_posix() for p in corpus.paths("**/*.txt")] == ["a/1.txt", "a/2.txt", "b.txt", "c[1].txt"]
    assert [p.as_posix() for p in corpus.paths(["b.txt", Path("a"), "*.txt"])] == [
        *("b.txt", "a/1.txt", "a/2.txt", "c[1].txt")
    ]
    assert corpus.paths(["b.txt", tmp_path / "b.txt", "a/../b.txt"]) == [Path("b.txt")]
    assert corpus.paths("c[1].txt") == [Path("c[1].txt")]
    assert corpus.paths("-") == [Path("-")]
    (tmp_path / "bare").mkdir()
    assert told(lambda: corpus.paths("bare")) == "'bare': no file lies in this folder"
    for missing in ("no.txt", "*.csv", "", "我爱北京" * 2000, "a\0b"):
        assert "texts themselves are iter([...])" in told(lambda missing=missing: corpus.paths(missing))
    assert "expected at least one" in told(lambda: corpus.paths([]))
    assert "found 7" in told(lambda: corpus.paths([7]))


@pytest.mark.parametrize("sources", [3, None])
def test_what_is_neither_place_nor_text(sources):
    assert told(lambda: corpus.lines(sources)) == f"expected files, folders, patterns or texts, found {sources}"


@pytest.mark.parametrize("before", [b"", b"\xef\xbb\xbf", b"\n \n"])
def test_standard_input_of_json_lines(monkeypatch, tmp_path, before):
    content = before + as_json(LINES, "body")
    for opened in (open(written(tmp_path, "in", content)), io.TextIOWrapper(io.BytesIO(content))):  # noqa: SIM115
        with opened as file:
            monkeypatch.setattr(sys, "stdin", file)
            assert list(corpus.lines("-", field="body")) == LINES


def test_json_is_not_taken_for_text(monkeypatch, tmp_path):
    for content, fault in (
        ('{"title": "一"}', "expected an object with a string 'text'"),
        ("{一}", "a JSON object a line"),
    ):
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content.encode())))
        for place in ("-", written(tmp_path, "a.json", content)):
            assert fault in told(lambda place=place: corpus.lines(place))


def test_a_file_called_like_standard_input(tmp_path, monkeypatch):
    written(tmp_path, "-", "二\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO("一\n".encode())))
    for place in (".", "./-", "[-]", tmp_path, corpus.file("./-")):
        assert list(corpus.lines(place)) == ["二"]
    assert list(corpus.lines([".", "-"])) == ["二", "一"]


def test_folders_of_a_pattern_and_behind_links(tmp_path, monkeypatch):
    for name in ("in/a/news/1.txt", "in/b/news/2.txt", "in/news.txt", "elsewhere/3.txt"):
        written(tmp_path, name, "一\n")
    (tmp_path / "in" / "c").symlink_to(tmp_path / "elsewhere")
    monkeypatch.chdir(tmp_path / "in")
    shown = [path.as_posix() for path in corpus.paths("**/news*")]
    assert shown == ["a/news/1.txt", "b/news/2.txt", "news.txt"]
    (tmp_path / "elsewhere" / "back").symlink_to(tmp_path / "in")
    assert [path.name for path in corpus.paths(".")] == ["news.txt", "1.txt", "2.txt", "3.txt"]

    def refused(folder):
        raise PermissionError(13, "Permission denied", str(folder))

    monkeypatch.setattr("os.scandir", refused)
    assert "b: cannot be read (Permission denied)" in told(lambda: corpus.paths("b"))


def test_texts_from_python():
    assert list(corpus.lines(iter(["一\n二\r\n", "", "三"]))) == ["一", "二", "", "三"]
    assert "".join(corpus.blocks(iter(["一\n二", "三"]), size=1)) == "一\n二\n三\n"
    assert list(corpus.lines(io.StringIO("一\n二"))) == ["一", "二"]
    assert told(lambda: corpus.lines(iter(["一", 2]))) == "text 1: expected a string, found int"


@pytest.mark.parametrize(
    "name, content, expected",
    [
        ("a.txt", "一\n二".encode() + b"\xff\n", "a.txt, line 2: expected UTF-8, found byte 0xff at offset 7"),
        ("a.txt", b"\xef\xbb\xbf1\n2\n\xe4\xb8", "a.txt, line 3: expected UTF-8, found byte 0xe4 at offset 7"),
        ("a.txt", "一".encode("utf-16"), "a.txt: expected UTF-8, found UTF-16"),
        ("a.txt", gzip.compress(b"1", mtime=0), "a.txt: expected UTF-8, found gzip; give it a name that ends in .gz"),
        ("a.txt", lzma.compress(b"1"), "a.txt: expected UTF-8, found xz; give it a name that ends in .xz"),
        ("a.docx", b"PK\3\4\x14\0", "a.docx: expected UTF-8, found a zip archive or an office document; unpack it"),
        ("a.parquet", b"PAR1\x15\x04\xff", "a.parquet: expected UTF-8, found Parquet; write a table as text, .tsv"),
        ("a.gz", gzip.compress(b"1\n2\n" * 9, mtime=0)[:-9], "it ends too early"),
        ("a.gz", b"", "a.gz: expected packed text, found an empty file"),
        ("a.gz", b"no gzip", "a.gz, line 1: cannot be read on (Not a gzipped file"),
        ("a.xz", lzma.compress(b"1\n2\n" * 9)[:-9], "it ends too early"),
        ("a.xz", b"no xz file", "a.xz, line 1: cannot be read on (Input format not supported"),
        ("a.jsonl", b'{"text": "1"}\n\n{"t": 2}', "a.jsonl, line 3: expected an object with a string 'text', found"),
        ("a.jsonl", b'{"text": "1"}\n{"text": 2}', "a.jsonl, line 2: expected an object with a string 'text'"),
        ("a.jsonl", b"[1]\n", "a.jsonl, line 1: expected an object with a string 'text', found '[1]'"),
        ("a.jsonl", b"{\n", "a.jsonl, line 1: expected a JSON object a line"),
        ("a.jsonl", b"[" * 100_000, "a.jsonl, line 1: expected a JSON object a line: nested too deeply"),
        ("a.jsonl", b'{"text": "\\ud800"}\n', "a.jsonl, line 1: found half of a character"),
    ],
)
def test_faults_name_file_and_line(tmp_path, name, content, expected):
    path = written(tmp_path, name, content)
    for size in (4, 1000):
        assert expected in told(lambda size=size: corpus.blocks([path], size=size))
    assert expected in told(lambda: corpus.lines(path))


def test_a_tar_archive_is_no_text(tmp_path):
    written(tmp_path, "a.txt", "一\n".encode())
    for ending, mode in ((".tar", "w"), (".tar.gz", "w:gz")):
        with tarfile.open(tmp_path / f"b{ending}", mode) as archive:
            archive.add(tmp_path / "a.txt", "a.txt")
        expected = f"b{ending}: expected UTF-8, found a tar archive; unpack it"
        assert expected in told(lambda ending=ending: corpus.lines(tmp_path / f"b{ending}"))


@pytest.mark.parametrize("pack", [gzip.compress, lzma.compress])
def test_what_comes_before_a_fault_is_read(tmp_path, pack):
    lines = [f"{i * i}" for i in range(40_000)]
    packed = pack("\n".join(lines).encode())
    path = written(tmp_path, "a.gz" if pack is gzip.compress else "a.xz", packed[: len(packed) * 9 // 10])
    read, found = corpus.lines(path), []
    with pytest.raises(DataError, match=r"line (\d+): cannot be read on \(it ends too early\)") as error:
        found.extend(read)
    number = int(str(error.value).split("line ")[1].split(":")[0])
    assert found == lines[: len(found)] and 30_000 < number and number - 1 <= len(found) <= number


def test_a_fault_in_a_part_has_the_files_line_number(tmp_path):
    path = written(tmp_path, "a.txt", b"1\n" * 50 + b"\xff\n")
    last = corpus.parts(path, 3)[-1]
    assert last[0].start > 0
    assert "a.txt, line 51: expected UTF-8, found byte 0xff at offset 100" in told(lambda: corpus.lines(last))


def test_a_fault_in_a_part_of_a_packed_file_has_the_files_line_number(tmp_path):
    path = written(tmp_path, "a.txt.gz", gzip.compress(b"1\n" * 50 + b"\xff\n"))
    assert "a.txt.gz, line 51: expected UTF-8" in told(lambda: corpus.lines([corpus.Part(path, 20)]))


def test_a_line_is_passed_over_once(tmp_path, monkeypatch):
    """Also where many parts would begin in it."""
    path = written(tmp_path, "a.txt", b"1" * 5000 + b"\n2")
    read: list[int] = []

    class Told(io.FileIO):
        def readline(self, size=-1):
            read.append(len(line := super().readline(size)))
            return line

    monkeypatch.setattr(corpus.places, "opened", lambda path: Told(path))
    assert [part.start for (part,) in corpus.parts(path, 9)] == [0, 5001] and sum(read) < 6000


def test_an_unreadable_file_in_the_middle(tmp_path):
    written(tmp_path, "a.txt", "一\n")
    (tmp_path / "b.txt").symlink_to(tmp_path / "b.txt")
    read = corpus.lines([tmp_path / "a.txt", str(tmp_path)])
    assert next(read) == "一"
    assert "b.txt: cannot be read (" in told(lambda: read)
    (tmp_path / "b.txt").unlink()
    path = written(tmp_path, "c.txt", "三\n")
    read = corpus.lines([tmp_path / "a.txt", path])
    assert next(read) == "一"
    path.unlink()
    with pytest.raises(DataError, match=r"c\.txt: cannot be read \(No such file"):
        next(read)


def test_memory_stays_bounded(tmp_path):
    """A line of 16 MB, and 64 MB unpacked from a small file: neither is held, however it is read."""
    line = written(tmp_path, "line.txt", "一二三四" * (16 * 2**20 // 12))
    bomb = written(tmp_path, "bomb.gz", gzip.compress(bytes(64 * 2**20).replace(b"\0", b" ")))
    for path in (line, bomb):
        tracemalloc.start()
        total = sum(map(len, corpus.blocks(path, size=2**18)))
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert total > 2**22 and peak < 4 * 2**20


@pytest.mark.parametrize("name", ["a.jsonl", "a.jsonl.gz"])
def test_a_json_line_without_end_is_not_held(tmp_path, monkeypatch, name: str) -> None:
    monkeypatch.setattr(reading, "JSON_LINE", 2**20)
    content = as_json(["一"]) + b'{"text": "' + b"a" * 2**26 + b'"}\n'
    path = written(tmp_path, name, gzip.compress(content) if name.endswith("gz") else content)
    del content
    tracemalloc.start()
    assert told(lambda: corpus.lines(path)) == f"{path}, line 2: expected at most 1,048,576 characters in a JSON line"
    assert tracemalloc.get_traced_memory()[1] < 2**25
    tracemalloc.stop()
    whole = written(tmp_path, "b.jsonl", as_json(["b" * 2**19, "c"]))
    assert [len(line) for line in corpus.lines(whole)] == [2**19, 1]
    pairs = written(tmp_path, "c.tsv", "a\tb\n" + "a" * 2**21 + "\tb\n")
    assert "line 2: expected two texts" in told(lambda: corpus.pairs(pairs))
