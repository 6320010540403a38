"""`maskplay show mask`: drawings, and what cannot be drawn."""

from pathlib import Path

import pytest

from cli.faults import call, fault
from maskplay import masks


def test_the_drawing_is_the_rule(capfd) -> None:
    assert call("show", "mask", "causal()", "--n", 3) == 0
    assert capfd.readouterr().out == "0 ■ · ·\n1 ■ ■ ·\n2 ■ ■ ■\n"


def test_needed_facts_are_filled_in(capfd) -> None:
    assert call("show", "mask", "prefix() & padding()", "--n", 5) == 0
    expected = masks.prefix().picture(5, format="text", segments=[0, 0, 0, 1, 1])
    assert capfd.readouterr().out == expected + "\n"


@pytest.mark.parametrize("text", ["0011", "0,0,1,1", "0 0 1 1"])
def test_given_facts_decide_the_length(capfd, text: str) -> None:
    assert call("show", "mask", "prefix()", "--segments", text) == 0
    assert capfd.readouterr().out == masks.prefix().picture(4, format="text", segments=[0, 0, 1, 1]) + "\n"


def test_every_fact_can_be_given(capfd) -> None:
    assert call("show", "mask", "permuted() & documents() & padding()", "--order", "2,0,1", "--documents", "001",
                "--valid", "110") == 0  # fmt: skip
    rule = masks.permuted() & masks.documents() & masks.padding()
    drawn = rule.picture(3, format="text", order=[2, 0, 1], documents=[0, 0, 1], valid=[1, 1, 0])
    assert capfd.readouterr().out == drawn + "\n"


def test_pictures(capfd, tmp_path: Path) -> None:
    assert call("show", "mask", "window(1)", "--out", tmp_path / "a.svg") == 0
    assert capfd.readouterr().out == f"{tmp_path / 'a.svg'}\n"
    assert (tmp_path / "a.svg").read_text(encoding="utf-8").startswith("<svg")


def test_a_png_needs_matplotlib(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    assert call("show", "mask", "window(1)", "--out", tmp_path / "a.png") == 0
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    "arguments, told",
    [
        (["nonsense()"], "expected a mask such as 'prefix() & padding()'"),
        (["__import__('os')"], "expected a mask such as"),
        (["window(-1)"], "window(w): expected a whole number from 0 to 2,147,483,647, found -1"),
        (["causal()", "--n", "0"], "Invalid value for '--n'"),
        (["causal()", "--n", "2000000000"], "Invalid value for '--n'"),
        (["atrous(99999999999999999999)"], "atrous(k): expected a whole number from 1 to 2,147,483,647, found 9999"),
        (["prefix()", "--segments", "01" * 300], "a picture shows at most 512 tokens, found 600"),
        (["prefix()", "--segments", "01x"], "--segments: expected numbers such as 0011 or 0,0,1,1, found '01x'"),
        (["prefix()", "--segments", ""], "--segments: expected numbers"),
        (["prefix() & padding()", "--segments", "0011", "--valid", "110"], "found 4 for --segments, 3 for --valid"),
        (["causal()", "--out", "a.jpg"], "--out a.jpg: expected a name that ends in .svg or .png"),
        (["causal()", "--out", "/dev/null/a.svg"], "/dev/null"),
        ([], "Missing argument"),
    ],
)
def test_what_cannot_be_drawn_is_one_line(capfd, arguments: list[str], told: str) -> None:
    assert told in fault(capfd, "show", "mask", *arguments)
