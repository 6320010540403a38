"""Text cut into words that nobody marked: by a character n-gram model, or by words that were found and counted.

By an n-gram model a word is begun at the price of a character by itself and goes on at that of the next character after
those of the word before it; going on also costs something for each place in the word. So characters stay together that
foretell each other. Source: https://kexue.fm/archives/3956.
"""

import math
import os
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import cast

import numpy as np
from numpy.typing import NDArray

from maskplay import corpus
from maskplay.errors import UserError, within
from maskplay.words.arpa import read_arpa
from maskplay.words.cutting import Segmenter, groups
from maskplay.words.found import Found, counted
from maskplay.words.lattice import Runs, best_tags
from maskplay.words.ngram_model import NgramModel
from maskplay.words.parallel import parallel_map
from maskplay.words.vocabulary import Vocabulary, read_vocabulary

JOINS = (0.25, 0.003, 0.01, 0.001)  # chosen on the development part of UD Chinese GSD; the post's: .15, .01, .01, .001
MOST_JOINS = 256  # places in a word that a byte tells apart


class NgramSegmenter(Segmenter):
    """Cuts text by a character n-gram model.

    Args:
        model: the model.
        joins: what a word is multiplied with when it goes on from its first character to its second, from the second
            to the third, and so on; the last one counts for all further ones. Less of it makes shorter words.

    Raises:
        UserError: no model, fewer than two factors, more than 256, or one that is not above 0.

    Example:
        >>> from maskplay.words.kneser_ney import train_ngrams
        >>> model = train_ngrams(iter(["宇宙洪荒", "天地宇宙", "天地玄黄", "洪荒玄黄", "宇宙玄黄"] * 9), order=3)
        >>> NgramSegmenter(model)("天地，洪荒宇宙 2.5%")
        ['天地', '，', '洪荒', '宇宙', ' ', '2.5%']
    """

    def __init__(self, model: NgramModel, joins: Sequence[float] = JOINS) -> None:
        if not isinstance(model, NgramModel):
            raise UserError(f"model: expected an n-gram model, found {model!r:.60}; read_arpa makes one of a file")
        self.model, self.joins = model, tuple(joins) if isinstance(joins, Iterable) else ()
        sound = all(within(join, 0, sys.float_info.max) and join for join in self.joins)
        if not sound or not 2 <= len(self.joins) <= MOST_JOINS:
            raise UserError(f"joins: expected 2 to {MOST_JOINS} numbers above 0, found {self.joins or joins!r:.60}")

    def __repr__(self) -> str:
        return f"NgramSegmenter({self.model}, joins={self.joins})"

    def cut(self, points: NDArray[np.uint32], runs: Runs) -> NDArray[np.bool_]:
        scores = self.model.scores(self.model.id_of.take(points))
        tags = np.minimum(np.arange(len(self.joins)), self.model.order - 1)
        return best_tags(scores[tags], runs, [math.log10(join) for join in self.joins])


def segment(
    sources: corpus.Sources,
    by: Segmenter | NgramModel | Found | Mapping[str, float],
    *,
    field: str = "text",
    workers: int = 1,
    start_method: str | None = None,
) -> Iterator[list[str]]:
    """Cut texts into words, which joined are the text.

    Chinese is cut; letters and digits in a row stay together, white space too, and any other character stands alone.

    Args:
        sources: places of files, of which each line is a text, or texts; see `maskplay.corpus.lines`. They are
            streamed.
        by: an n-gram model, words with counts (what `discover` found, or a mapping), or any `Segmenter`.
        field: of JSON lines.
        workers: processes.
        start_method: of the processes: fork, spawn or forkserver; default what `multiprocessing` is set to.

    Raises:
        UserError: `by` or `workers` makes no sense: at once.
        UserError, DataError: as `maskplay.corpus.lines` does, when lines are asked for.

    Example:
        >>> list(segment(iter(["天地玄黄", "3天"]), {"天地": 3, "玄黄": 2, "天": 1}))
        [['天地', '玄黄'], ['3', '天']]
    """
    if isinstance(by, (str, os.PathLike)):
        raise UserError(f"by: expected words with their counts, found {by!r:.60}; load_segmenter opens a file of them")
    if isinstance(by, NgramModel):
        by = NgramSegmenter(by)
    if not isinstance(by, Segmenter):
        by = Vocabulary(counted(by, "by"))
    texts = corpus.lines(sources, field) if corpus.are_places(sources) else cast(Iterable[str], sources)
    found = parallel_map(by.many, groups(texts), workers, start_method=start_method)
    return (words for some in found for words in some)


def load_segmenter(path: str | os.PathLike[str]) -> Segmenter:
    """A segmenter from a file.

    Args:
        path: an n-gram model (`.arpa`), or words and counts (`.tsv`, `.txt`); packed with `.gz`, `.xz`, `.zst` or not.

    Raises:
        DataError: the file cannot be read.
        UserError: another ending.

    Example:
        >>> import tempfile
        >>> from pathlib import Path
        >>> path = Path(tempfile.mkdtemp()) / "words.tsv"
        >>> _ = path.write_text("word\\tfrequency\\n天地\\t3\\n", encoding="utf-8")
        >>> load_segmenter(path)("天地人")
        ['天地', '人']
    """
    name = os.fspath(path).lower()
    for packing in (".gz", ".xz", ".zst"):
        name = name.removesuffix(packing)
    if name.endswith(".arpa"):
        return NgramSegmenter(read_arpa(path))
    if name.endswith((".tsv", ".txt")):
        return Vocabulary(read_vocabulary(path))
    raise UserError(f"{os.fspath(path)}: expected a name that ends in .arpa, or in .tsv or .txt for words and counts")
