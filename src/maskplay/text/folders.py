"""What lies in a folder: the kind of tokenizer that its files describe.

In this order: tokenizer.json, llama2.c's tokenizer.bin, a SentencePiece model, vocab.json with merges.txt, vocab.txt.
"""

from pathlib import Path

from maskplay.errors import CheckpointError, UserError
from maskplay.text import byte_bpe, metaspace
from maskplay.text.byte_bpe import PAIRS, read_pair
from maskplay.text.kind import Kind
from maskplay.text.llama2c import read_llama2c
from maskplay.text.sentence_pieces import read_model
from maskplay.text.vocabulary import read_rust, read_settings
from maskplay.text.wordpiece import read_google
from maskplay.text.words import Segmenter, from_rust_words, segmented

MODELS = ("spiece.model", "tokenizer.model", "sentencepiece.bpe.model", "spm.model")
NAMES = ("tokenizer.json", "tokenizer.bin", *MODELS, *(vocab for vocab, _ in PAIRS), "vocab.txt")


def lies_in(folder: Path) -> Path | None:
    """The file of a folder that decides, or None."""
    return next((folder / name for name in NAMES if (folder / name).is_file()), None)


def read(path: Path, segmenter: Segmenter | None = None) -> tuple[Kind, str]:
    """The kind of tokenizer in a folder or in one of its files, and the file's name for errors.

    Raises:
        UserError: nothing to read, or half of a pair.
        CheckpointError: it is malformed, or not supported.
    """
    file = path if path.is_file() else lies_in(path)
    if file is None:
        lonely = next((path / merges for _, merges in PAIRS if (path / merges).is_file()), None)
        if lonely:
            raise UserError(f"{lonely}: expected a vocab.json beside it, found none; byte-level BPE needs both")
        if not path.exists():
            raise UserError(f"{path}: there is no such file or folder")
        raise UserError(f"{path}: expected a tokenizer ({' or '.join(NAMES)}), found none of them")
    return _read(file, segmenter), f"{file}"


def _read(file: Path, segmenter: Segmenter | None) -> Kind:
    if file.suffix == ".model":
        return read_model(file)
    if file.suffix == ".bin":
        return read_llama2c(file)
    for vocab, merges in PAIRS:
        if file.name in (vocab, merges):
            pair = file.with_name(vocab), file.with_name(merges)
            for one, other in (pair, pair[::-1]):
                if not one.is_file():
                    raise UserError(f"{other}: expected {one.name} beside it, found none; byte-level BPE needs both")
            return read_pair(*pair)
    if file.suffix != ".json":
        return segmented(read_google(file), read_settings(file.parent), segmenter, f"{file}")
    rust = read_rust(file)
    kind = rust.model.get("type")
    if kind == "WordPiece":
        return segmented(from_rust_words(rust), rust.settings, segmenter, f"{file}")
    if kind == "BPE" and "ByteLevel" in str(rust.splitter):
        return byte_bpe.from_rust(rust)
    if kind in ("BPE", "Unigram"):
        return metaspace.from_rust(rust)
    raise CheckpointError(
        f"{file}: expected a BERT tokenizer (WordPiece), byte-level BPE or SentencePiece, found {str(kind)[:80]}"
    )
