"""Drawings of small boolean matrices: SVG and terminal text by hand, PNG through matplotlib (the `plot` extra)."""

import io
import unicodedata
from collections.abc import Sequence
from html import escape

import numpy as np

from maskplay.errors import MissingExtra, UserError

LARGEST = 512  # rows; a larger picture shows nothing and is megabytes of SVG


def draw(matrix: np.ndarray, labels: Sequence[str], title: str, format: str) -> str | bytes:
    """Draw a boolean matrix whose rows and columns carry the same labels.

    Args:
        matrix: `(n, n)`, True = a filled cell.
        labels: `n` names.
        title: one line.
        format: "svg", "text" or "png" (bytes).

    Raises:
        UserError: an unknown format, more than 512 rows, or the wrong number of labels.
        MissingExtra: "png" without matplotlib.

    Example:
        >>> print(draw(np.eye(2, dtype=bool), ["a", "b"], "identity", "text"))
        a ■ ·
        b · ■
    """
    drawings = {"svg": _svg, "text": _text, "png": _png}
    if format not in drawings:
        raise UserError(f"a picture's format: expected one of {', '.join(drawings)}, found {format!r}")
    if len(matrix) > LARGEST:
        raise UserError(f"a picture shows at most {LARGEST} tokens, found {len(matrix)}")
    if len(labels) != len(matrix):
        raise UserError(f"a picture of {len(matrix)} tokens needs {len(matrix)} labels, found {len(labels)}")
    # Control characters break a line of text, and XML forbids most of them.
    labels = ["".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in label) for label in labels]
    return drawings[format](matrix, labels, title)


def _columns(label: str) -> int:
    """Width in a terminal, where Chinese characters take two columns."""
    return sum(2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in label)


def _text(matrix: np.ndarray, labels: Sequence[str], title: str) -> str:
    width = max(map(_columns, labels))
    cells = (" ".join("■" if filled else "·" for filled in row) for row in matrix)
    return "\n".join(" " * (width - _columns(x)) + f"{x} {row}" for x, row in zip(labels, cells, strict=True))


def _svg(matrix: np.ndarray, labels: Sequence[str], title: str) -> str:
    cell, margin = 18, 22 + 9 * max(map(_columns, labels))
    side = margin + cell * len(labels) + 8
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{side}" height="{side + 20}" font-family="monospace" '
        'font-size="12">',
        f"<title>{escape(title)}</title>",
        f'<text x="8" y="{side + 12}">{escape(title)}: rows see columns</text>',
    ]
    for i, label in enumerate(map(escape, labels)):
        middle, edge = margin + cell * i + 13, margin - 6
        lines.append(f'<text x="{edge}" y="{middle}" text-anchor="end">{label}</text>')
        lines.append(f'<text x="{middle}" y="{edge}" transform="rotate(-90 {middle} {edge})">{label}</text>')
    for (i, j), filled in np.ndenumerate(matrix):
        x, y, colour = margin + cell * j, margin + cell * i, "#2f6f8f" if filled else "#eef2f4"
        lines.append(f'<rect x="{x}" y="{y}" width="{cell - 1}" height="{cell - 1}" fill="{colour}"/>')
    return "\n".join([*lines, "</svg>", ""])


def _png(matrix: np.ndarray, labels: Sequence[str], title: str) -> bytes:
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise MissingExtra("a picture as PNG", "plot") from None
    size = 1.3 + 0.25 * len(labels)
    figure = Figure(figsize=(size, size), layout="constrained")
    axes = figure.add_subplot()
    axes.imshow(matrix, cmap="Blues", vmin=0, vmax=1.4)
    axes.set_title(title, fontsize=9)
    plain = {"parse_math": False}  # a dollar is a dollar
    axes.set_xticks(range(len(labels)), labels, rotation=90, **plain)
    axes.set_yticks(range(len(labels)), labels, **plain)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()
