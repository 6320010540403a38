"""What the documents show is run: Python and shell blocks of README.md and docs/, and the examples in docstrings.

A document's blocks run from top to bottom in one folder that holds the files they name (`stage`); lines that call
`maskplay` run in this process, which has paid for its imports. README.zh.md shows the same code as README.md, so its
code is compared, not run again. Blocks marked `text` show output or a tree. Lines
that change the checkout or the machine are checked without being carried out: `make` runs with -n (CI runs the targets
themselves), `pip install` must name extras that exist, `git clone` stays undone.
"""

import doctest
import importlib
import os
import re
import shlex
import struct
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from contextlib import chdir
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

import pytest

from laws.house import PACKAGE, ROOT, files, name_of
from maskplay.cli import main
from parity.references import llama, tensors

DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
TRANSLATIONS = {ROOT / "README.zh.md": ROOT / "README.md"}
PAPERS = ["ARCHITECTURE.md", "CHANGELOG.md", "CONTRIBUTING.md"]
COMMAND = re.compile(r"maskplay [^|<>;]*")  # what needs no shell
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Block:
    """A fenced block: its language, its code, and the line of the document on which the code starts."""

    language: str
    code: str
    line: int


def blocks(text: str) -> list[Block]:
    """The fenced blocks of a Markdown text."""
    return [Block(m[1], m[2], text.count("\n", 0, m.start(2)) + 1) for m in FENCE.finditer(text)]


def without_comments(code: str) -> list[str]:
    """The lines of a block with comments and blank lines taken out: what a translation must keep."""
    stripped = (re.sub(r"(^|\s)#.*", "", line).rstrip() for line in code.splitlines())
    return [line for line in stripped if line]


def shell_line(line: str, extras: set[str]) -> str:
    """What is really run for one line of a shell block."""
    if line.startswith("make "):
        return f"make -n -C '{ROOT}' {line.removeprefix('make ')} >/dev/null"
    if line.startswith("pip install"):
        unknown = {extra for group in re.findall(r"\[([\w,-]+)\]", line) for extra in group.split(",")} - extras
        return f"echo 'no such extra: {sorted(unknown)}' >&2; false" if unknown else ":"
    return ":" if line.startswith(("git clone ", "cd ")) else line


def shell(code: str, stage: Path, environment: dict[str, str], where: str, extras: set[str]) -> None:
    """Run a shell block: whole lines `maskplay …` in this process, what stands between them by bash."""
    pieces = [list(lines) for _, lines in groupby(code.splitlines(), key=lambda line: bool(COMMAND.fullmatch(line)))]
    for piece in pieces:
        if not COMMAND.fullmatch(piece[0]):
            script = "\n".join(shell_line(line, extras) for line in piece)
            done = subprocess.run(
                ["bash", "-euo", "pipefail", "-c", script],
                cwd=stage,
                env=environment,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
            )
            assert done.returncode == 0, f"{where} ended with {done.returncode}\n{done.stdout}\n{done.stderr}"
            continue
        for line in piece:
            with pytest.raises(SystemExit) as left, chdir(stage):
                main(shlex.split(line, comments=True)[1:])
            assert not left.value.code, f"{where} ended with {left.value.code}: {line}"


def run(document: Path, stage: Path, environment: dict[str, str]) -> None:
    """Run a document's blocks in order; a failure names the document and the line."""
    extras = set(tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["optional-dependencies"])
    names: dict[str, object] = {"__name__": "__main__"}
    for block in blocks(document.read_text(encoding="utf-8")):
        where = f"{document.name}:{block.line}"
        if block.language == "python":
            # Blank lines in front put the document's own line numbers into a traceback.
            exec(compile("\n" * (block.line - 1) + block.code, str(document), "exec"), names)
        elif block.language == "sh":
            shell(block.code, stage, environment, where, extras)
        else:
            assert block.language == "text", f"{where}: a block is python, sh or text, not {block.language!r}"


@pytest.fixture
def stage(tmp_path: Path) -> Path:
    """The folder a document plays in, with the files that documents name; CONTRIBUTING.md lists them."""
    import maskplay as mp

    folder = tmp_path / "stage"
    folder.mkdir()
    good = ["味道不错，下次还来", "物流很快，包装也好", "性价比高，推荐"]
    bad = ["太难吃了", "客服态度差", "用了一天就坏了"]
    rows = [f"{text}\t{label}" for texts, label in ((good, "pos"), (bad, "neg")) for text in texts]
    for name in ("reviews.tsv", "dev.tsv"):
        (folder / name).write_text("\n".join(["text\tlabel", *rows, ""]), encoding="utf-8")
    (folder / "texts.txt").write_text("\n".join([*good, *bad, ""]), encoding="utf-8")
    tokenizer = mp.Tokenizer.from_characters([*good, *bad, "科学技术是第一生产力今天气真"], max_size=200)
    config = mp.Config(
        vocab_size=len(tokenizer), hidden_size=16, num_layers=2, num_heads=2, intermediate_size=32, max_positions=64
    )
    # Random weights under the name of the real ones: the commands are what is tried here, not the answers.
    mp.Pretrained(mp.LanguageModel(config), tokenizer).save(folder / "chinese_L-12_H-768_A-12", format="google")
    write_llama2c(folder)
    return folder


def write_llama2c(folder: Path) -> None:
    """A tiny random model in llama2.c's form, with its tokenizer."""
    pieces = [b"<unk>", b"\n<s>\n", b"\n</s>\n", *(b"<0x%02X>" % byte for byte in range(256)), b" ", *b"Onceupatim"]
    pieces = [bytes([piece]) if isinstance(piece, int) else piece for piece in pieces]
    entries = (struct.pack("<fi", -float(i), len(piece)) + piece for i, piece in enumerate(pieces))
    (folder / "tok512.bin").write_bytes(struct.pack("<i", 7) + b"".join(entries))
    sizes = {"dim": 8, "hidden_dim": 12, "n_layers": 1, "n_heads": 2, "n_kv_heads": 1}
    sizes |= {"vocab_size": len(pieces), "max_seq_len": 16}
    llama.write(folder / "stories260K.bin", sizes, tensors.draw(llama.table(sizes), seed=0))


@pytest.fixture
def environment() -> dict[str, str]:
    """A shell in which `python` finds what is under test."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return {**os.environ, "PATH": path, "PYTHONPATH": str(ROOT / "src"), "KERAS_BACKEND": "jax"}


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_documents_run(
    document: Path, stage: Path, environment: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(stage)
    run(document, stage, environment)


@pytest.mark.parametrize("translation", TRANSLATIONS, ids=lambda path: path.name)
def test_translations_show_the_same_code(translation: Path) -> None:
    ours, theirs = (
        [(b.language, without_comments(b.code)) for b in blocks(path.read_text("utf-8")) if b.language != "text"]
        for path in (translation, TRANSLATIONS[translation])
    )
    assert ours == theirs


def broken_links(text: str, folder: Path, root: Path) -> list[str]:
    """Links relative to a folder and `src/paths.ext` in backticks that lead nowhere; NAME stands for any name."""
    links = [link.split("#")[0] for link in re.findall(r"\]\(([^)\s]+)\)", text) if "://" not in link]
    paths = re.findall(r"`((?:src|tests|examples|benchmarks|docs)/[\w./-]*)`", text)
    places = [*((folder, link) for link in links), *((root, path) for path in paths)]
    return [path for place, path in places if path and "NAME" not in path and not (place / path).exists()]


def tree_files(text: str) -> Iterator[str]:
    """The paths in a tree: the `text` block whose first line is a folder, two blanks a step down, a name per line."""
    for block in blocks(text):
        if block.language != "text" or not block.code.startswith("src/maskplay/"):
            continue
        trail: list[str] = []
        for line in block.code.splitlines():
            name = line.split()[0]
            depth = (len(line) - len(line.lstrip())) // 2
            trail[depth:] = [name.strip("/")]
            if not name.endswith("/"):
                yield "/".join(trail)


PAGES = ["README.md", "README.zh.md", *PAPERS, *(f"docs/{path.name}" for path in (ROOT / "docs").glob("*.md"))]


@pytest.mark.parametrize("name", PAGES)
def test_links_lead_somewhere(name: str) -> None:
    assert broken_links((ROOT / name).read_text("utf-8"), (ROOT / name).parent, ROOT) == []


@pytest.mark.parametrize("name", ["README.md", "README.zh.md"])
def test_the_tree_is_the_tree(name: str) -> None:
    shown = {path for path in tree_files((ROOT / name).read_text("utf-8")) if path.startswith("src/")}
    # A sub-folder's own line speaks for its __init__.py.
    there = {
        path.relative_to(ROOT).as_posix()
        for path in files(PACKAGE.parent)
        if path.name != "__init__.py" or path.parent == PACKAGE
    }
    assert shown == there


@pytest.mark.parametrize("path", files(PACKAGE), ids=lambda path: name_of(path, PACKAGE) or "maskplay")
def test_docstring_examples(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    module = importlib.import_module(".".join(filter(None, ["maskplay", name_of(path, PACKAGE)])))
    assert doctest.testmod(module, optionflags=doctest.NORMALIZE_WHITESPACE).failed == 0


# The checks above must be able to fail.


def test_a_broken_block_is_flagged(tmp_path: Path, environment: dict[str, str]) -> None:
    document = tmp_path / "a.md"
    document.write_text("one\n\n```python\nx = 1\nassert x == 2\n```\n")
    with pytest.raises(AssertionError) as caught:
        run(document, tmp_path, environment)
    assert caught.traceback[-1].lineno == 4  # counted from 0: the fifth line
    document.write_text("```sh\ntrue\nfalse\n```\n")
    with pytest.raises(AssertionError, match="a.md:2 ended with 1"):
        run(document, tmp_path, environment)
    document.write_text("```sh\ntrue\nmaskplay show mask 'nonsense()'  # fails\n```\n")
    with pytest.raises(AssertionError, match="a.md:2 ended with 2: maskplay show mask"):
        run(document, tmp_path, environment)
    document.write_text("```sh\nmake no-such-target\n```\n")
    with pytest.raises(AssertionError, match="no-such-target"):
        run(document, tmp_path, environment)
    document.write_text("```sh\npip install '.[jax,jaxx]'\n```\n")
    with pytest.raises(AssertionError, match="jaxx"):
        run(document, tmp_path, environment)
    document.write_text("```\nx\n```\n")
    with pytest.raises(AssertionError, match="python, sh or text"):
        run(document, tmp_path, environment)


def test_a_drifting_translation_and_a_dead_link_are_flagged(tmp_path: Path) -> None:
    assert without_comments("x = 1  # one\n\n# two\n") == without_comments("x = 1  # 一\n")
    assert without_comments("x = 1\n") != without_comments("x = 2\n")
    assert broken_links("[a](b.md) [c](https://x.y/z) `src/gone.py`", tmp_path, tmp_path) == ["b.md", "src/gone.py"]
    assert list(tree_files("```text\nsrc/maskplay/\n  a/\n    b.py  what\n  c.py\ntests/\n```\n")) == [
        "src/maskplay/a/b.py",
        "src/maskplay/c.py",
    ]
