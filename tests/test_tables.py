"""Reading tables: every format, every fault named with its line, and no file that can fill the memory."""

import io
import json
import sys
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from maskplay.errors import DataError, UserError
from maskplay.tables import LINE_BYTES, Example, read_examples, split


@pytest.fixture
def write(tmp_path):
    def write(name: str, content: str | bytes) -> Path:
        path = tmp_path / name
        path.write_bytes(content.encode("utf-8") if isinstance(content, str) else content)
        return path

    return write


EXPECTED = [Example("味道不错", "下次还来", "pos", 2), Example("太咸", "不来了", "neg", 3)]


@pytest.mark.parametrize(
    "name, content",
    [
        ("a.tsv", "text\ttext2\tlabel\n味道不错\t下次还来\tpos\n太咸\t不来了\tneg\n"),
        ("columns.tsv", "id\tlabel\ttext2\ttext\n1\tpos\t下次还来\t味道不错\n2\tneg\t不来了\t太咸\n"),
        (
            "windows.TSV",
            b"\xef\xbb\xbf" + "text\ttext2\tlabel\r\n味道不错\t下次还来\tpos\r\n太咸\t不来了\tneg".encode(),
        ),
        ("spaces.tsv", " text \ttext2\tlabel\n味道不错\t下次还来\tpos\n太咸\t不来了\tneg \n\n"),
        ("a.csv", 'text,text2,label\n"味道不错",下次还来,pos\n太咸,不来了,"neg"\n'),
        ("bom.csv", b"\xef\xbb\xbf" + 'label,text,text2\r\npos,"味道不错",下次还来\r\nneg,太咸,不来了\r\n'.encode()),
        (
            "a.jsonl",
            '\n{"label": "pos", "text": "味道不错", "text2": "下次还来", "id": 1}\n'
            '{"text": "\\u592a\\u54b8", "text2": "不来了", "label": "neg"}\n',
        ),
    ],
)
def test_formats_agree(write, name, content):
    assert read_examples(write(name, content), labelled=True) == EXPECTED


def test_what_may_be_missing(write):
    assert read_examples(write("a.tsv", "text\n一\n")) == [Example("一", None, None, 2)]
    assert read_examples(write("b.tsv", "text\tlabel\n一\t\n")) == [Example("一", None, None, 2)]
    assert read_examples(write("c.jsonl", '{"text": "一", "text2": null}')) == [Example("一", None, None, 1)]


def test_plain_text_keeps_every_line(write):
    path = write("a.txt", "\ufeff一\n\r\n二\t\u2028三")
    assert [(e.text, e.line) for e in read_examples(path)] == [("一", 1), ("", 2), ("二\t\u2028三", 3)]


def test_standard_input(monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO("一\n二\n".encode())))
    assert [e.text for e in read_examples("-")] == ["一", "二"]


def test_quoting(write):
    """CSV quotes; TSV does not, so a lone quote is a character."""
    path = write("a.csv", 'text,label\n"a, ""b""\nc",1\nd,2\n')
    assert read_examples(path) == [Example('a, "b"\nc', None, "1", 2), Example("d", None, "2", 4)]
    assert read_examples(write("a.tsv", 'text\tlabel\n"a\tx\n'))[0].text == '"a'


def test_json_labels_are_written_as_json(write):
    rows = "\n".join(json.dumps({"text": "x", "label": label}) for label in (1, True, 0.5, "1", 0, False))
    assert [e.label for e in read_examples(write("a.jsonl", rows))] == ["1", "true", "0.5", "1", "0", "false"]


FAULTS = {
    "a.tsv": [
        ("", "line 1: expected a header with a column 'text', found ''"),
        ("text\tlabel\n", "expected at least one example, found none"),
        ("body\tlabel\nx\ty\n", "line 1: expected a header with a column 'text', found 'body, label'"),
        ("text\ttext\nx\ty\n", "line 1: expected one column 'text', found 2"),
        ("text\tlabel\nx\ty\nx\n", "line 3: expected 2 fields ('text, label'), found 1"),
        ("text\tlabel\nx\ty\tz\n", "line 2: expected 2 fields ('text, label'), found 3"),
        ("text\tlabel\nx\ty\n\nx\t \n", "line 4: expected a label, found none"),
        ("text\nx\n", "line 2: expected a label, found none, nor in any other line: is there a column 'label'?"),
        ("text,label\nx,y\n", "found 'text,label'; the columns of a .tsv stand between tabs"),
        (b"text\tlabel\nab\xff\ty\n", "line 2: expected UTF-8, found byte 0xff at offset 13"),
        (b"\xef\xbb\xbftext\tlabel\nab\xff\ty\n", "line 2: expected UTF-8, found byte 0xff at offset 16"),
        ("text\n".encode("utf-16"), "expected UTF-8, found UTF-16"),
        ("text\tlabel\rx\ty\r", "line 1: found a carriage return inside the header"),
    ],
    "a.csv": [
        ("text,label\nx\n", "line 2: expected 2 fields ('text, label'), found 1"),
        ('text,label\nx,y\n"x,y\nz\n', "line 3: not valid CSV"),
        ('"te\nxt",label\n', "line 1: expected a header with a column 'text', found 'te\\nxt, label'"),
        ('text,label\n"x"z,y\n', "line 2: not valid CSV"),
        ("text,label\rx,y\r", "unquoted field; end lines as Unix or Windows does"),
    ],
    "a.jsonl": [
        ("", "expected at least one example, found none"),
        ('{"text": "x", "label": 1}\n{"text": "x"\n', "line 2: expected a JSON object a line"),
        ("[\n", "line 1: expected a JSON object a line"),
        ('["x"]\n', "line 1: expected a JSON object a line, found an array"),
        ('{"body": "x"}\n', "line 1: expected a string 'text', found the keys 'body'"),
        ('{"text": 3}\n', "line 1: expected a string 'text', found a number"),
        ('{"text": null}\n', "line 1: expected a string 'text', found null"),
        ('{"text": "x", "text2": []}\n', "line 1: expected a string 'text2', found an array"),
        ('{"text": "x", "label": {}}\n', "line 1: expected a string, number or boolean 'label', found an object"),
        ('{"text": "x", "label": NaN}\n', "line 1: expected a JSON object a line: NaN is not JSON"),
        ('{"text": "x", "label": null}\n', "line 1: expected a label, found none"),
        ('{"text": "x", "label": 1e999}\n', "line 1: expected a 'label' that a number can hold"),
        ('{"text": "\\ud800", "label": 1}\n', "line 1: found half of a character"),
        ("[" * 500_000, "line 1: expected a JSON object a line: nested too deeply"),
        ('{"text": "x", "label": ' + "9" * 5000 + "}", "line 1: expected a JSON object a line"),
    ],
    "a.xlsx": [("x", "expected a file ending in .tsv, .csv, .jsonl, .json, .txt, or - for standard input")],
}


@pytest.mark.parametrize("name, content, message", [(n, *fault) for n, faults in FAULTS.items() for fault in faults])
def test_faults_are_one_line_that_names_the_place(write, name, content, message):
    path = write(name, content)
    with pytest.raises(DataError) as caught:
        read_examples(path, labelled=True)
    text = str(caught.value)
    assert text.startswith(str(path)) and message in text and "\n" not in text


def test_what_cannot_be_opened(tmp_path):
    with pytest.raises(DataError, match="absent.tsv: cannot be read"):
        read_examples(tmp_path / "absent.tsv")
    (tmp_path / "folder.tsv").mkdir()
    with pytest.raises(DataError, match="folder.tsv: cannot be read"):
        read_examples(tmp_path / "folder.tsv")


@pytest.mark.parametrize("name", ["a.tsv", "a.csv", "a.jsonl", "a.txt"])
def test_a_long_line_is_measured_but_not_kept(write, name):
    path = write(name, b"text\n" + b"x" * 10_000_000 + b"\ny\n")
    if name == "a.jsonl":
        path = write(name, b'{"text": "a"}\n' + b"x" * 10_000_000 + b"\ny\n")
    tracemalloc.start()
    with pytest.raises(DataError, match=f"line 2: expected at most {LINE_BYTES} bytes, found 10000000;"):
        read_examples(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 5 * 2**20


def test_the_limit_itself(write):
    for end in (b"\n", b"\r\n", b""):
        assert len(read_examples(write("a.txt", b"x" * LINE_BYTES + end))[0].text) == LINE_BYTES
    with pytest.raises(DataError, match=f"found {LINE_BYTES + 1};"):
        read_examples(write("a.txt", b"x" * (LINE_BYTES + 1) + b"\n"))
    with pytest.raises(DataError, match="found more than"):
        read_examples(write("a.txt", b"x" * (70 * 2**20)))


def test_an_open_quote_cannot_swallow_a_file(write):
    path = write("a.csv", b'text,label\n"' + b"x\n" * 2**21)
    with pytest.raises(DataError, match="line 2: not valid CSV.*is a quote left open"):
        read_examples(path)


@settings(deadline=None)
@given(content=st.binary(max_size=200), ending=st.sampled_from([".tsv", ".csv", ".jsonl", ".txt"]))
def test_any_bytes_give_examples_or_one_line(tmp_path_factory, content, ending):
    path = tmp_path_factory.mktemp("any") / f"a{ending}"
    path.write_bytes(content)
    try:
        assert all(isinstance(example.text, str) for example in read_examples(path))
    except DataError as error:
        assert "\n" not in str(error)


# Labels are printed, a line each


@pytest.mark.parametrize("label", ["好\n评", "a\rb", "a\u2028b", "a\x1b[31mb", "a\u200bb", "a\x00b"])
def test_a_label_that_cannot_be_printed_is_refused(write, label):
    path = write("a.jsonl", '{"text": "一", "label": "pos"}\n' + json.dumps({"text": "二", "label": label}))
    with pytest.raises(DataError) as error:
        read_examples(path, labelled=True)
    told = f"{path}, line 2: expected a label that can be printed in a line, found {label!a}"
    assert str(error.value) == told and told.isprintable()
    assert len(read_examples(path)) == 2  # unread where labels do not matter


def test_labels_that_can_be_printed_stay(write):
    labels = ["très bien", "体育\u3000新闻", "👍🏽", "👩\u200d🔬", "می\u200cخواهم", "Positif\u00a0!"]
    path = write("a.tsv", "text\tlabel\n" + "".join(f"一\t{label}\n" for label in labels))
    assert [example.label for example in read_examples(path, labelled=True)] == labels


# Holding out


def test_every_label_is_held_out() -> None:
    examples = [Example(str(i), None, "abc"[min(i % 10, 2)], i + 2) for i in range(100)]
    kept, held_out = split(examples, 0.1, 0, "train.tsv")
    assert len(kept) + len(held_out) == 100 and not {e.line for e in kept} & {e.line for e in held_out}
    counts = [sum(e.label == label for e in held_out) for label in "abc"]
    assert counts == [1, 1, 8]
    assert split(examples, np.float32(0.1), np.int64(0), "")[1] == held_out
    assert split(examples, 0.1, 0, "")[1] == held_out != split(examples, 0.1, 1, "")[1]
    with pytest.raises(DataError, match="train.tsv, line 102: the only example of 'd'"):
        split([*examples, Example("x", None, "d", 102)], 0.1, 0, "train.tsv")


def test_of_every_label_something_is_kept() -> None:
    examples = [Example(str(i), None, "ab"[i % 2], i + 2) for i in range(20)]
    for share in (0.96, 1):
        kept, held_out = split(examples, share, 0, "train.tsv")
        assert sorted(str(e.label) for e in kept) == ["a", "b"] and len(held_out) == 18
    for share, seed, told in ((1.5, 0, "share: expected"), ("0.1", 0, "share: expected"), (0.1, -1, "seed: expected")):
        with pytest.raises(UserError, match=told):
            split(examples, share, seed, "train.tsv")
