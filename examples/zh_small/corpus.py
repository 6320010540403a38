"""The text that bundled:zh-small learnt from: four domains, each as training and held-out text.

    python examples/zh_small/corpus.py DATA OUT

DATA has a folder `corpus` with the files named below; all are public domain, CC BY, CC BY-SA or MIT. OUT gets
train/DOMAIN.txt and held_out/DOMAIN.txt, and a table of what was removed goes to stdout. Stretches of 32 lines are held
out together, half a percent of them; the two sides of a pair are held out together. A line of the training text is
removed if more than half of its stretches of eight characters stand somewhere in the held-out text of any domain, or,
if it is shorter, if it is one of its lines. Blank lines are put into the training text at random places, between which
256 characters stand on average: so a model that reads a document at a time meets short ones too. balanced/DOMAIN.txt
has the training documents nearly in the proportions by which the domains are judged: two of three of docs, one of four
of classical, all others.
"""

import lzma
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

DOCS = ("sql_docs", "dotnet_docs", "vs_docs", "cpp_docs", "graph_docs", "tidb_docs", "oiwiki")
STRETCH, SHARE, SEED = 32, 0.005, 0
SHINGLE = 8
DOCUMENT = 256  # characters, on average
BALANCED = {"laws": 1, "docs": 2 / 3, "modern": 1, "classical": 1 / 4}  # which share of the documents
PRIME = np.uint64(0x9E3779B97F4A7C15)


def lines_of(path: Path) -> Iterator[str]:
    with lzma.open(path, "rt", encoding="utf-8") as file:
        yield from (line.rstrip("\n") for line in file)


def domains(data: Path) -> dict[str, list[str]]:
    pairs = [line.split("\t") for line in lines_of(data / "corpus/niutrans_pairs.tsv.xz")]
    return {
        "laws": [*lines_of(data / "corpus/laws.txt.xz")],
        "docs": [line for name in DOCS for line in lines_of(data / f"corpus/{name}.txt.xz")],
        "modern": [pair[2] for pair in pairs],
        "classical": [pair[1] for pair in pairs],
    }


def chosen(count: int, draw: np.random.Generator) -> np.ndarray:
    """Which of so many lines are held out."""
    stretches = draw.random(-(-count // STRETCH)) < SHARE
    return np.repeat(stretches, STRETCH)[:count]


def shingles(lines: list[str]) -> tuple[np.ndarray, np.ndarray]:
    """A hash of every stretch of eight characters within a line, and the number of that line."""
    text = np.frombuffer("\n".join(lines).encode("utf-32-le", "replace"), "uint32")
    line = np.cumsum(text == ord("\n"), dtype="int32")
    size = max(0, len(text) - SHINGLE + 1)
    hashes = np.zeros(size, "uint64")
    for i in range(SHINGLE):
        hashes = (hashes + text[i : i + size]) * PRIME
        hashes ^= hashes >> np.uint64(29)
    whole = line[:size] == line[SHINGLE - 1 :]
    whole &= text[:size] != ord("\n")
    return hashes[whole], line[:size][whole]


def near_duplicates(lines: list[str], known: np.ndarray, known_lines: set[str]) -> np.ndarray:
    hashes, number = shingles(lines)
    at = np.minimum(np.searchsorted(known, hashes), max(0, len(known) - 1))
    shared = np.bincount(number, known[at] == hashes, len(lines))
    total = np.bincount(number, minlength=len(lines))
    short = np.array([size == 0 and line in known_lines for line, size in zip(lines, total)])
    return (2 * shared > total) | short


def in_documents(lines: list[str], draw: np.random.Generator) -> Iterator[str]:
    ends = draw.random(len(lines)) < np.array([len(line) for line in lines]) / DOCUMENT
    for line, end in zip(lines, ends):
        yield line
        if end:
            yield ""


def balanced(lines: list[str], share: float, draw: np.random.Generator) -> Iterator[str]:
    """A share of the documents."""
    document = np.cumsum([line == "" for line in lines])
    kept = draw.random(document[-1] + 1 if len(document) else 0) < share
    yield from (line for line, number in zip(lines, document) if kept[number])


def write(path: Path, lines: Iterable[str]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    part.write_text("".join(line + "\n" for line in lines), encoding="utf-8")
    part.replace(path)


def main(data: Path, out: Path) -> None:
    texts = domains(data)
    draw = np.random.default_rng(SEED)
    masks = {name: chosen(len(texts[name]), draw) for name in ("laws", "docs", "modern")}
    masks["classical"] = masks["modern"]
    held_out = {n: [line for line, held in zip(lines, masks[n]) if held] for n, lines in texts.items()}
    known = np.unique(np.concatenate([shingles(lines)[0] for lines in held_out.values()]))
    known_lines = {line for lines in held_out.values() for line in lines}
    borders = np.random.default_rng(SEED)
    print("domain\tlines\theld_out\tnear_duplicates_removed\ttrained_characters\tbalanced_characters\theld_out_characters")
    for name, lines in texts.items():
        rest = [line for line, held in zip(lines, masks[name]) if not held]
        alike = near_duplicates(rest, known, known_lines)
        kept = [line for line, drop in zip(rest, alike) if not drop]
        documents = [*in_documents(kept, borders)]
        write(out / f"train/{name}.txt", documents)
        some = [*balanced(documents, BALANCED[name], np.random.default_rng(SEED))]
        write(out / f"balanced/{name}.txt", some)
        write(out / f"held_out/{name}.txt", held_out[name])
        sizes = [sum(map(len, each)) for each in (kept, some, held_out[name])]
        print(name, len(lines), len(held_out[name]), int(alike.sum()), *sizes, sep="\t")


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    main(Path(sys.argv[1]), Path(sys.argv[2]))
