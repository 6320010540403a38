"""Masks as pictures: SVG, PNG and text, whatever the tokens are called."""

import xml.etree.ElementTree

import numpy as np
import pytest

from maskplay import masks
from maskplay.errors import MissingExtra

AWKWARD = ["<a>", '"&"', "科学", "\x00\x1b", "a\nb", "\ud800"]


def test_svg_is_xml() -> None:
    picture = (masks.causal() & masks.padding()).picture(6, tokens=AWKWARD, valid=[1, 1, 1, 1, 0, 0])
    root = xml.etree.ElementTree.fromstring(picture)
    cells = [cell for cell in root.iter() if cell.tag.endswith("rect")]
    colours = [cell.attrib["fill"] for cell in cells]
    assert len(cells) == 36
    dark = max(set(colours), key=lambda colour: -int(colour[1:], 16))
    np.testing.assert_array_equal(
        np.array([colour == dark for colour in colours]).reshape(6, 6),
        (masks.causal() & masks.padding()).dense(6, valid=[1, 1, 1, 1, 0, 0]),
    )
    assert "causal() & padding()" in "".join(root.itertext())


def test_text_keeps_its_columns() -> None:
    lines = masks.causal().picture(6, tokens=AWKWARD, format="text").split("\n")
    assert len(lines) == 6
    assert lines[1] == ' "&" ■ ■ · · · ·' and lines[2] == "科学 ■ ■ ■ · · ·"


def test_png() -> None:
    pytest.importorskip("matplotlib", reason="the `plot` extra is not installed")
    picture = masks.prefix().picture(3, format="png", segments=[0, 1, 1])
    assert picture.startswith(b"\x89PNG\r\n")
    assert masks.causal().picture(2, tokens=["$x^$", "$"], format="png").startswith(b"\x89PNG")


def test_png_without_matplotlib_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "matplotlib.figure", None)
    with pytest.raises(MissingExtra, match=r"maskplay\[plot\]"):
        masks.causal().picture(3, format="png")
