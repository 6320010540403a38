"""What a small Chinese masked-language model knows: held-out text by domain, and a cloze over others' articles.

    python examples/zh_small/evaluate.py MODEL TEXT [--cmrc ZIP] [--words jieba] [--baselines]

TEXT is what corpus.py made. Accuracy is over [MASK] at 15 % of the positions of rows of 128 tokens (unknown characters
are not asked for); "all" weights the domains .27 laws, .28 docs, .35 modern, .10 classical. "as_bert" asks for the same
positions as BERT's training does: of ten one shows what stands there and one another character. `--words jieba` hides
whole words instead. `--baselines` counts TEXT/train, some minutes: always the commonest token, and the best token
between its true left and right neighbours by p(x|left) p(right|x). `--cmrc` hides one Chinese character in the middle
of each of 2,000 windows of 90 characters from CMRC 2018's dev articles.
"""

import argparse
import json
import re
import tempfile
import zipfile
from pathlib import Path
from typing import Any

import maskplay as mp  # before Keras: it chooses a backend that is installed

# isort: split
import numpy as np
from keras import ops

from maskplay import corpus, masks, pretext
from maskplay.pretext.targets import AS_MASK, IGNORED
from maskplay.starts import neighbours
from maskplay.text.words import jieba

DOMAINS = {"laws": 0.27, "docs": 0.28, "modern": 0.35, "classical": 0.10}
LENGTH, RATE, BATCH, SEED = 128, 0.15, 32, 0
WINDOW, WINDOWS = 90, 2000
MOST = 4000  # positions of a domain that the bigram baseline answers


def rows_of(bert: Any, lines: list[str], words: Any, folder: str) -> pretext.Laid:
    """All the lines as packed rows."""
    prepared = pretext.prepare([lines], f"{folder}/tokens", bert.tokenizer, words)
    packed = pretext.Packed(prepared, room=LENGTH)
    rows = pretext.Rows(packed)
    return pretext.lay_out(
        [[[piece] for piece in rows.pieces(i)] for i in range(len(packed))], LENGTH, pretext.Framing.of(bert.tokenizer)
    )


def hidden_places(laid: pretext.Laid, unknown: int, whole_words: bool) -> np.ndarray:
    """Which tokens are asked for, bool `(rows, length)`."""
    draw = np.random.default_rng(SEED)
    if not whole_words:
        return (draw.random(laid.tokens.shape) < RATE) & (laid.words > 0) & (laid.tokens != unknown)
    chance = draw.random((len(laid.words), laid.words.max() + 1))
    chance[:, 0] = 1
    return (np.take_along_axis(chance, laid.words, axis=1) < RATE) & (laid.tokens != unknown)


def as_bert(laid: pretext.Laid, hidden: np.ndarray, tokenizer: Any) -> np.ndarray:
    """The rows as BERT's training shows them: what is asked for is in 80 % [MASK], in 10 % itself, in 10 % another."""
    draw = np.random.default_rng([SEED, 1])  # other numbers than those that chose the places
    fate = draw.random(laid.tokens.shape)
    special = tokenizer.ids(tokenizer.form.specials)
    ordinary = np.setdiff1d(np.arange(len(tokenizer)), special)
    others = ordinary[draw.integers(len(ordinary), size=fate.shape)]
    shown = np.where(fate < AS_MASK, tokenizer.mask_id, np.where(fate < (1 + AS_MASK) / 2, laid.tokens, others))
    return np.where(hidden, shown, laid.tokens)


def measure(bert: Any, laid: pretext.Laid, hidden: np.ndarray, tokens: np.ndarray) -> tuple[float, float]:
    """Mean cross-entropy and accuracy over the hidden tokens of rows that show `tokens`."""
    places = hidden.sum(axis=1).max()
    at = np.argsort(~hidden, axis=1, kind="stable")[:, :places]
    labels = np.take_along_axis(np.where(hidden, laid.tokens, IGNORED), at, axis=1)
    totals = np.zeros(2)
    for i in range(0, len(tokens), BATCH):
        part = slice(i, i + BATCH)
        facts = {"tokens": tokens, "positions": laid.positions, "documents": laid.documents, "at": at, "labels": labels}
        given = {name: ops.convert_to_tensor(value[part].astype("int32")) for name, value in facts.items()}
        found = bert.network(**given, mask=masks.documents(), training=False)["mlm"]
        totals += ops.convert_to_numpy(found).astype("float64").sum(axis=(0, 1))
    loss, right = totals / hidden.sum()
    return float(loss), float(right)


class Neighbours:
    """The best token between two others, by counts."""

    def __init__(self, prepared: pretext.Prepared, vocab_size: int) -> None:
        self.size = vocab_size
        self.single = np.bincount(prepared.ids, minlength=vocab_size) + 0.5
        first, second, count = neighbours(prepared, vocab_size)
        self.after = first, np.searchsorted(first, np.arange(vocab_size + 1)), second, count
        order = np.argsort(second, kind="stable")
        self.before = second, np.searchsorted(second[order], np.arange(vocab_size + 1)), first[order], count[order]

    def _beside(self, table: tuple[np.ndarray, ...], token: int) -> np.ndarray:
        """p(x beside this token), smoothed with p(x)."""
        _, begins, others, counts = table
        found = self.single / self.single.sum()
        part = slice(begins[token], begins[token + 1])
        found[others[part]] += counts[part]
        return found

    def scores(self, left: int, right: int) -> np.ndarray:
        return np.log(self._beside(self.after, left)) + np.log(self._beside(self.before, right)) - np.log(self.single)


def baselines(counted: Neighbours, laid: pretext.Laid, hidden: np.ndarray) -> tuple[float, float]:
    """Accuracy of the commonest token and of the neighbours on the hidden tokens (a sample of them)."""
    row, place = np.nonzero(hidden)
    truth = laid.tokens[row, place]
    common = float((truth == counted.single.argmax()).mean())
    some = np.random.default_rng(SEED).permutation(len(row))[:MOST]
    right = [
        counted.scores(laid.tokens[r, p - 1], laid.tokens[r, p + 1]).argmax() == laid.tokens[r, p]
        for r, p in zip(row[some], place[some])
    ]
    return common, float(np.mean(right))


def cloze(bert: Any, path: Path, counted: Neighbours | None) -> None:
    """One character hidden in each window of CMRC's articles."""
    with zipfile.ZipFile(path) as archive:
        data = json.loads(archive.read("dev.json"))["data"]
    texts = [re.sub(r"\s", "", each["paragraphs"][0]["context"]) for each in data]
    windows = [text[i : i + WINDOW] for text in texts for i in range(0, len(text) - WINDOW + 1, WINDOW)]
    draw = np.random.default_rng(SEED)
    asked = []
    for i in draw.permutation(len(windows)):
        places = [p for p in range(20, 70) if "\u4e00" <= windows[i][p] <= "\u9fff"]
        if places and len(asked) < WINDOWS:
            asked.append((windows[i], int(draw.choice(places))))
    top, five, beside = 0, 0, 0
    for window, place in asked:
        tokens = bert.tokenizer.encode(f"{window[:place]}[MASK]{window[place + 1 :]}", specials=True).ids
        at, answer = tokens.index(bert.tokenizer.mask_id), bert.tokenizer.vocab.get(window[place])
        found = bert.network(np.array([tokens], "int32"), at=np.array([[at]], "int32"), training=False)
        best = np.argsort(-ops.convert_to_numpy(found["mlm"])[0, 0].astype("float32"))[:5]
        top, five = top + (best[0] == answer), five + (answer in best)
        if counted is not None:
            beside += counted.scores(tokens[at - 1], tokens[at + 1]).argmax() == answer
    line = f"cmrc cloze, {len(asked)} windows: top-1 {top / len(asked):.3f}, top-5 {five / len(asked):.3f}"
    print(line + ("" if counted is None else f"; neighbours {beside / len(asked):.3f}"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("text", type=Path)
    parser.add_argument("--cmrc", type=Path)
    parser.add_argument("--words", choices=["jieba"])
    parser.add_argument("--baselines", action="store_true")
    options = parser.parse_args()
    bert = mp.load(options.model)
    words = jieba if options.words else pretext.default_words
    counted = None
    with tempfile.TemporaryDirectory() as folder:
        if options.baselines:
            train = ([line] for line in corpus.lines([str(options.text / "train")]))
            prepared = pretext.prepare(train, f"{folder}/train", bert.tokenizer, workers=2)
            counted = Neighbours(prepared, len(bert.tokenizer))
        print("domain\tasked\tunknown\tloss\taccuracy\tas_bert" + ("\tcommonest\tneighbours" if counted else ""))
        totals = []
        for name, weight in DOMAINS.items():
            lines = [*corpus.lines([str(options.text / f"held_out/{name}.txt")])]
            with tempfile.TemporaryDirectory() as inner:
                laid = rows_of(bert, lines, words, inner)
            unknown = float((laid.tokens == bert.tokenizer.unk_id).sum() / (laid.words > 0).sum())
            hidden = hidden_places(laid, bert.tokenizer.unk_id, bool(options.words))
            masked = np.where(hidden, bert.tokenizer.mask_id, laid.tokens)
            figures = [*measure(bert, laid, hidden, masked)]
            figures += measure(bert, laid, hidden, as_bert(laid, hidden, bert.tokenizer))[1:]
            figures += baselines(counted, laid, hidden) if counted else ()
            totals.append([weight * value for value in figures])
            print(name, hidden.sum(), f"{unknown:.4f}", *(f"{value:.3f}" for value in figures), sep="\t", flush=True)
        print("all", "", "", *(f"{value:.3f}" for value in np.sum(totals, axis=0)), sep="\t", flush=True)
    if options.cmrc:
        cloze(bert, options.cmrc, counted)


if __name__ == "__main__":
    main()
