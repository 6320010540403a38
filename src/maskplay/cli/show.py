"""`maskplay show mask "prefix() & padding()"`: draw who sees whom, in the terminal or as a picture."""

from pathlib import Path
from typing import Any

import typer

from maskplay import masks
from maskplay.errors import UserError
from maskplay.pictures import LARGEST
from maskplay.storage import write_atomically

app = typer.Typer(help="Draw things.", rich_markup_mode=None)


@app.callback()
def things() -> None:
    """Draw things."""


@app.command()
def mask(
    rule: str = typer.Argument(help="Rules joined by & and |, such as 'prefix() & padding()'."),
    n: int = typer.Option(8, "--n", min=1, max=LARGEST, help="Number of tokens; a given fact decides it instead."),
    segments: str | None = typer.Option(None, help="A segment per token, 0 = source, 1 = target: 00001111 or 0,0,1,1."),
    documents: str | None = typer.Option(None, help="A document per token: 00011122."),
    order: str | None = typer.Option(None, help="Each token's place in a drawn order: 3,1,0,2."),
    valid: str | None = typer.Option(None, help="1 for a real token, 0 for padding: 11111100."),
    out: Path | None = typer.Option(None, help="Write a picture, .svg or .png, instead of printing."),
) -> None:
    """Draw a mask: rows are queries, columns are keys, a filled cell is "sees".

    A fact that the rule needs and that is not given is filled in: the second half of the tokens is the target and the
    second document, the order is drawn backwards, and all tokens are real.
    """
    parsed = masks.parse(rule)
    given = {"segments": segments, "documents": documents, "order": order, "valid": valid}
    facts: dict[str, Any] = {name: _numbers(name, text) for name, text in given.items() if text is not None}
    lengths = {len(numbers) for numbers in facts.values()}
    if len(lengths) > 1:
        found = ", ".join(f"{len(numbers)} for --{name}" for name, numbers in facts.items())
        raise UserError(f"expected facts of the same number of tokens, found {found}")
    n = lengths.pop() if lengths else n
    halves = [int(i >= n - n // 2) for i in range(n)]
    defaults = {"segments": halves, "documents": halves, "order": list(range(n))[::-1], "valid": [1] * n}
    facts = {name: facts.get(name, defaults[name]) for name in defaults if name in facts or name in parsed.needs}
    if out is None:
        print(parsed.picture(n, format="text", **facts))
        return
    kind = out.suffix.lower().removeprefix(".")
    if kind not in ("svg", "png"):
        raise UserError(f"--out {out}: expected a name that ends in .svg or .png")
    write_atomically(out, parsed.picture(n, format=kind, **facts))
    print(out)


def _numbers(name: str, text: str) -> list[int]:
    """`00001111`, `0,0,1,1` or `0 0 1 1` as numbers."""
    parts = text.replace(",", " ").split() if any(c in ", " for c in text.strip()) else list(text.strip())
    if not parts or not all(part.isascii() and part.isdecimal() and len(part) < 10 for part in parts):
        raise UserError(f"--{name}: expected numbers such as 0011 or 0,0,1,1, found {text[:40]!r}")
    return [int(part) for part in parts]
