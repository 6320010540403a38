"""Writes docs/families.md from the rows: `python docs/make_families.py` (a minute; the figures are measured anew).

Everything but the last column comes from `maskplay.families` and the tables of `maskplay.checkpoints`; that is the
largest difference of any hidden state from the original's in tests/parity/cases.py, on the backend that runs.
"""

import sys
from pathlib import Path

import maskplay  # noqa: F401 (before Keras: it chooses a backend that is installed)

# isort: split
import keras

ROOT = Path(__file__).resolve().parents[1]
HEAD = """# The cast

Written by `python docs/make_families.py`; do not edit. A family is a row of `maskplay.families`, a way of writing its
checkpoints a table of `maskplay.checkpoints`. The last column is the largest difference of a hidden state from what the
original computes (transformers, bert4keras, or formulas in NumPy where neither runs any more), over the tiny random
checkpoints of `tests/parity/cases.py`: 2 to 4 layers, float32, {backend} on the CPU. maskplay's own form holds every
family. DeBERTa is left out: its attention has score terms between content and position that no row says.

| family | layers say where they are by | norm | checkpoints of | vocabulary | source | largest difference |
| --- | --- | --- | --- | --- | --- | --- |
"""
POSITIONS = {
    "learned": "a table",
    "learned_after_pad": "a table from pad + 1 on",
    "rotary": "rotation",
    "rotary_halves": "rotation of halves",
    "relative": "clipped distances",
    "buckets": "buckets",
    "buckets_cross": "buckets, also across",
}
NORMS = {"layer": "layer", "rms": "RMS", "unit": "RMS, no weights"}
PLACES = {"post": "after", "pre": "before", "between": "around feed-forward"}


def rows() -> dict[str, str]:
    """Each family's line without its figure."""
    from maskplay.checkpoints.match import TABLES
    from maskplay.families import FAMILIES

    lines = {}
    for name, family in FAMILIES.items():
        config = family.config
        forms = dict.fromkeys(table.dialect for table in TABLES if table.family == family.tables)
        if name == "albert_unshared":
            forms = {"an albert's": None}
        source = family.source
        if source.startswith("arXiv:"):
            source = f"[{source}](https://arxiv.org/abs/{source.removeprefix('arXiv:')})"
        else:
            source = f"[{source}](https://{source})"
        norm = f"{NORMS[config.norm]}, {PLACES[config.norm_at]}"
        cells = (name, POSITIONS[config.position], norm, ", ".join(forms), ", ".join(family.tokenizers), source)
        lines[name] = f"| {' | '.join(cells)} |"
    return lines


def figures() -> dict[str, float]:
    """The largest difference of a hidden state of each family."""
    sys.path.insert(0, str(ROOT / "tests"))
    from parity.cases import CASES
    from parity.opened import compared, opened, run

    worst: dict[str, float] = {}
    for name, case in CASES.items():
        found, theirs = run(opened(name).network, case), case.expected()
        where = compared(case, "hidden")
        difference = abs(found["hidden"][where] - theirs["hidden"][where]).max()
        worst[case.family] = max(worst.get(case.family, 0.0), float(difference))
    return worst


def main() -> None:
    """Measure and write."""
    measured = figures()
    lines = [f"{line} {measured[name]:.0e} |" for name, line in rows().items()]
    text = HEAD.format(backend=keras.config.backend()) + "\n".join(lines) + "\n"
    (ROOT / "docs" / "families.md").write_text(text, encoding="utf-8")
    print(f"{len(lines)} families, largest difference {max(measured.values()):.1e}")


if __name__ == "__main__":
    main()
