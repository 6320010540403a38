"""What tracked text may not say: paths of one machine, hosts of package registries, leftovers."""

import re
import subprocess
from pathlib import Path

import pytest

from laws.house import ROOT

# Written in pieces, so that this file keeps the law it states.
MACHINE = "|".join(["w" + "ork", "f" + "arm", "r" + "oot", "t" + "mp", "home/[a-z]"])
LEFTOVER = "|".join(["TO" + "DO", "FIX" + "ME", "X" * 3, "HA" + "CK"])
REGISTRY = "|".join(["py" + "pi", "npm", "deb[.]", "hosted"])
LAW = re.compile(
    rf"(?P<path>(?:^|[^\w.])/(?:{MACHINE})/)|(?P<host>://[^/\s]*(?:{REGISTRY}))|(?P<leftover>\b(?:{LEFTOVER})\b)"
)


def broken_texts(texts: dict[str, str]) -> list[str]:
    """Each line that breaks the law, as "file:line what"."""
    found = []
    for name, text in texts.items():
        for number, line in enumerate(text.splitlines(), start=1):
            match = LAW.search(line)
            if match:
                found.append(f"{name}:{number} {match.lastgroup}: {match.group().strip()}")
    return found


def late_choices(texts: dict[str, str]) -> list[str]:
    """Each program whose first import of Keras stands before that of maskplay: without KERAS_BACKEND, Keras alone
    asks for TensorFlow, which need not be installed."""
    found = []
    for name, text in texts.items():
        if name.endswith(".md"):  # its blocks are one program
            text = "\n".join(re.findall(r"```python\n(.*?)```", text, re.DOTALL))
        lines = re.findall(r"^(?:import|from) (keras|maskplay)\b", text, re.MULTILINE)
        if "maskplay" in lines and lines[0] == "keras":
            found.append(name)
    return found


def tracked() -> dict[str, str]:
    """The text files that git tracks."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True)
    if listed.returncode:
        pytest.skip("not a git checkout: what is tracked is unknown")
    texts = {}
    for name in filter(None, listed.stdout.split("\0")):
        path: Path = ROOT / name
        if path.is_file() and b"\0" not in (content := path.read_bytes()):
            texts[name] = content.decode("utf-8", errors="replace")
    return texts


def test_tracked_text_is_clean() -> None:
    assert broken_texts(tracked()) == []


def test_maskplay_is_imported_before_keras() -> None:
    shown = {name: text for name, text in tracked().items() if name.startswith(("README", "docs/", "examples/"))}
    assert len(shown) > 5 and late_choices(shown) == []


def test_flags_a_late_choice() -> None:
    block = "```python\nimport keras\nimport maskplay as mp\n```\n"
    assert late_choices({"a.md": "import maskplay\n" + block, "b.py": "import maskplay\nimport keras\n"}) == ["a.md"]


def test_flags_machine_paths_hosts_and_leftovers() -> None:
    texts = {
        "a.py": "x = '/t" + "mp/a'\n# see ./tmp/ and a/tmp/b\n",
        "b.md": "fine\n# TO" + "DO later\n",
        "c.txt": "https://py" + "pi.org/simple\nhttps://arxiv.org/abs/1810.04805\n",
    }
    assert [line.split(":")[:2] for line in broken_texts(texts)] == [
        ["a.py", "1 path"],
        ["b.md", "2 leftover"],
        ["c.txt", "1 host"],
    ]
