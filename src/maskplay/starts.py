"""Starts that know something: what counting a corpus tells is put into fresh weights before the first step.

A fresh network spends its first millions of tokens on finding how often tokens occur, which of them stand side by side,
and that neighbours matter most. Three counts give it that; each keeps the form of the network, so the result is a
checkpoint like any other.
"""

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import keras
import numpy as np

from maskplay.errors import UserError
from maskplay.hosts.processes import alike
from maskplay.pretext import Prepared

__all__ = ["STARTS", "inform"]

SPREAD = 0.03  # of the embeddings, about that of trained ones
AMPLITUDE = 4.0  # of the biases: neighbours get e² times the weight of those one step further
OFFSETS = (-1, 1, -2, 2)  # where the heads look, one after the other
LAYERS = 2
CHUNK = 2**22  # tokens that are counted at a time
PART = 2**18  # pairs of tokens that are multiplied at a time


def unigram(network: Any, corpus: Prepared) -> None:
    """The output bias is the logarithm of each token's frequency."""
    if network.mlm is None:
        raise UserError("init unigram: the network's scores have no bias; this needs the head 'mlm'")
    counts = np.full(network.config.vocab_size, 0.5)
    for at in range(0, len(corpus.ids), CHUNK):
        counts += np.bincount(corpus.ids[at : at + CHUNK], minlength=len(counts))
    network.mlm.bias.assign(alike(np.log(counts / counts.sum())))


def ppmi(network: Any, corpus: Prepared) -> None:
    """The token table is the best low-rank picture of which tokens stand side by side more often than by chance.

    Left and right neighbours together: [M, Mᵀ] ≈ U S Vᵀ for the positive pointwise mutual information M; the rows of
    U √S, scaled (Levy & Goldberg 2014).
    """
    table = network.encoder.embedding.token.embeddings
    vocab_size, size = table.shape
    first, second, count = neighbours(corpus, vocab_size)
    total = count.sum()
    left, right = (np.bincount(each, count, vocab_size) for each in (first, second))
    value = np.log(count * total / (left[first] * right[second]))
    kept = value > 0
    if kept.sum() < size:
        raise UserError(f"init ppmi: expected a corpus with at least {size} pairs of tokens, found {kept.sum()}")
    first, second, value = first[kept], second[kept], value[kept].astype("float32")
    draw = np.random.default_rng(0)
    # A randomised decomposition (Halko et al. 2011) of M Mᵀ + Mᵀ M, whose eigenvectors are the U of [M, Mᵀ].
    there, back = _product(first, second, value, vocab_size), _product(second, first, value, vocab_size)

    def both(x: np.ndarray) -> np.ndarray:
        return there(back(x)) + back(there(x))

    basis = draw.normal(size=(vocab_size, min(size + 16, vocab_size))).astype("float32")
    for _ in range(3):
        basis = np.linalg.qr(both(basis))[0]
    values, vectors = np.linalg.eigh(basis.T @ both(basis))
    found = (basis @ vectors[:, ::-1])[:, :size] * np.maximum(values[::-1][:size], 0) ** 0.25
    found = np.pad(found, [(0, 0), (0, size - found.shape[1])])
    seen = np.isin(np.arange(vocab_size), np.concatenate([first, second]))
    found *= SPREAD / found[seen].std()
    # Of the others nothing is known: they keep their drawn vectors.
    table.assign(alike(np.where(seen[:, None], found, keras.ops.convert_to_numpy(table))))


def positions(network: Any, corpus: Prepared) -> None:
    """Biases of queries and keys make the heads of the first two layers look one and two places to the left and right.

    A query bias that points one way in every rotated pair, and a key bias turned from it by as much as the offset:
    their product is greatest where rotation makes up for the turn.
    """
    for block in network.encoder.blocks[:LAYERS]:
        attention: Any = block.attention
        rotary = attention.position
        if network.config.attention == "gau" or rotary is None or not attention.use_bias:
            raise UserError("init positions: expected rotary positions and biases in attention (the family roformer)")
        if network.config.num_kv_heads not in (None, attention.num_heads):
            raise UserError("init positions: expected keys for every head, found num_kv_heads that several share")
        size = attention.key_size
        angles = rotary.base ** (-np.arange(0, size, 2) / size)
        keys, queries = np.zeros((attention.num_heads, size)), np.zeros((attention.num_heads, size))
        for head, offset in enumerate(OFFSETS[: attention.num_heads]):
            queries[head] = _pairs(np.ones_like(angles), np.zeros_like(angles), rotary.interleaved)
            keys[head] = _pairs(np.cos(offset * angles), -np.sin(offset * angles), rotary.interleaved)
        attention.query.bias.assign(alike(AMPLITUDE * queries.reshape(-1)))
        attention.key.bias.assign(alike(AMPLITUDE * keys.reshape(-1)))


STARTS: dict[str, Callable[[Any, Prepared], None]] = {"unigram": unigram, "ppmi": ppmi, "positions": positions}


def inform(network: Any, corpus: Prepared, starts: Iterable[str] = tuple(STARTS)) -> None:
    """Put what a corpus tells into a fresh network. Of several processes (`maskplay.hosts`) all take rank 0's values.

    Args:
        network: a built `LanguageModel`; its weights change.
        corpus: prepared with its tokenizer.
        starts: some of "unigram", "ppmi" and "positions".

    Raises:
        UserError: an unknown start, or a network whose form has no place for it.

    Example:
        >>> import tempfile
        >>> from maskplay import fresh, pretext
        >>> lines = ["山高水长。风清月白。"] * 9
        >>> tokenizer = fresh.vocabulary(lines, 90)
        >>> corpus = pretext.prepare([lines], tempfile.mkdtemp() + "/tokens", tokenizer)
        >>> network = fresh.network("roformer", tokenizer, hidden_size=8, num_layers=2, num_heads=2,
        ...                         intermediate_size=8)
        >>> network.build()
        >>> inform(network, corpus, ["unigram", "positions"])
        >>> bool(network.mlm.bias[tokenizer.vocab["山"]] > network.mlm.bias[tokenizer.vocab["x"]])
        True
    """
    for start in starts:
        if start not in STARTS:
            raise UserError(f"init: expected some of {', '.join(STARTS)}, found {start!r:.80}")
        STARTS[start](network, corpus)


def neighbours(corpus: Prepared, vocab_size: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Pairs of tokens that stand side by side in a sentence at least twice: firsts, seconds, how often."""
    merged = np.zeros(0, "int64"), np.zeros(0, "int64")
    for part in _pair_codes(corpus, vocab_size):
        codes, counts = np.unique(part, return_counts=True)
        both = np.concatenate([merged[0], codes])
        order = np.argsort(both, kind="stable")
        both, sizes = both[order], np.concatenate([merged[1], counts])[order]
        begins = np.flatnonzero(np.diff(both, prepend=-1))
        merged = both[begins], np.add.reduceat(sizes, begins) if len(begins) else sizes
    often = merged[1] >= 2
    return *np.divmod(merged[0][often], vocab_size), merged[1][often].astype("float64")


def _pair_codes(corpus: Prepared, vocab_size: int) -> Iterator[np.ndarray]:
    for at in range(0, len(corpus.ids) - 1, CHUNK):
        ids = corpus.ids[at : at + CHUNK + 1].astype("int64")
        codes = ids[:-1] * vocab_size + ids[1:]
        inside = np.ones(len(codes), bool)
        ends = corpus.sentences[np.searchsorted(corpus.sentences, at + 1) :]
        inside[ends[ends <= at + len(codes)] - at - 1] = False  # the next token is another sentence's
        yield codes[inside]


def _product(
    rows: np.ndarray, columns: np.ndarray, values: np.ndarray, size: int
) -> Callable[[np.ndarray], np.ndarray]:
    """The product of a sparse matrix with dense ones."""
    order = np.argsort(rows, kind="stable")
    rows, columns, values = rows[order], columns[order], values[order]

    def times(x: np.ndarray) -> np.ndarray:
        found = np.zeros((size, x.shape[1]), x.dtype)
        for at in range(0, len(rows), PART):
            part = slice(at, at + PART)
            begins = np.flatnonzero(np.diff(rows[part], prepend=-1))
            found[rows[part][begins]] += np.add.reduceat(values[part, None] * x[columns[part]], begins)
        return found

    return times


def _pairs(one: np.ndarray, two: np.ndarray, interleaved: bool) -> np.ndarray:
    return np.stack([one, two], axis=-1).reshape(-1) if interleaved else np.concatenate([one, two])
