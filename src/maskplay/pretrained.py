"""What `maskplay.load` returns: a network with its tokenizer, ready to fill blanks, encode texts and be saved.

`load` takes a path in any format that maskplay reads (or a hub id) and finds out by itself what it is.
"""

import functools
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from keras import ops

from maskplay import _backend, masks, plays
from maskplay.checkpoints.keras_files import registered_class
from maskplay.checkpoints.load import Compound, load_network
from maskplay.checkpoints.match import Match
from maskplay.checkpoints.places import find
from maskplay.checkpoints.save import save, save_everywhere
from maskplay.config import Config
from maskplay.decode import greedy
from maskplay.encoder import Encoder
from maskplay.errors import MissingExtra, UserError, whole_number
from maskplay.families import FAMILIES, refuse_vocabulary
from maskplay.language_model import SCORES, LanguageModel
from maskplay.storage import MARKER, read_marker
from maskplay.text.tokenizer import Tokenizer
from maskplay.text.words import Segmenter

MOST_CANDIDATES = 100_000  # of several blanks there are too many combinations to hold
MOST_NEW = 2**16  # tokens of a text that is generated: room for all of them is made before the first


@dataclass(frozen=True)
class Candidate:
    """One way to fill the blanks of a text.

    Attributes:
        token: what goes into the blank; into several blanks, the tokens joined.
        score: its probability, the product over the blanks.
        text: the text with the blanks filled.
    """

    token: str
    score: float
    text: str


class Pretrained:
    """A network, its tokenizer and where they came from; made by `maskplay.load`, or from fresh parts.

    Attributes:
        network: the `LanguageModel`: encoder and heads, a `keras.Model`.
        encoder: its `Encoder`.
        config: its `Config`.
        tokenizer: the `Tokenizer`; asking for it raises `UserError` when the checkpoint came without a vocabulary, or
            with one that cannot be opened or does not fit.
        family: a name of `maskplay.families`.
        report: which tensor of the checkpoint filled what (`checkpoints.match.Match`); None for fresh parts.

    Example:
        >>> from maskplay.text.tokenizer import Tokenizer
        >>> tokenizer = Tokenizer.from_characters(["科学技术是第一生产力"], max_size=100)
        >>> config = Config(
        ...     vocab_size=len(tokenizer), hidden_size=8, num_layers=1, num_heads=2, intermediate_size=16
        ... )
        >>> b = Pretrained(LanguageModel(config), tokenizer)
        >>> len(b.fill("科学[MASK][MASK]是第一生产力", top=3))
        3
    """

    def __init__(
        self,
        network: LanguageModel,
        tokenizer: Tokenizer | None = None,
        family: str = "bert",
        report: Match | None = None,
    ) -> None:
        if not network.built:
            network.build()
        if tokenizer is not None:
            refuse_vocabulary(tokenizer.kind, len(tokenizer), family, network.config.vocab_size)
        self.network = network
        self.family = family
        self.report = report
        self._tokenizer = tokenizer
        self._trouble: Exception | None = None  # why the vocabulary that lies beside the weights is not used

    @property
    def config(self) -> Config:
        return self.network.config

    @property
    def encoder(self) -> Encoder:
        return self.network.encoder

    @property
    def tokenizer(self) -> Tokenizer:
        if self._trouble is not None:
            raise self._trouble
        if self._tokenizer is None:
            raise UserError("this checkpoint came without a vocabulary: load it with vocab='path/to/vocab.txt'")
        return self._tokenizer

    def fill(self, text: str, top: int = 5) -> list[Candidate]:
        """Fill the blanks of a text (完形填空), best first.

        Args:
            text: with one or more `[MASK]`, however the vocabulary spells it (`<mask>` in RoBERTa's is the same).
            top: how many candidates to return, at most 100,000.

        Returns:
            Candidates by falling score. Several blanks are filled independently of each other, as the network scores
            them, and the best combinations are returned. Special tokens ([UNK], [SEP], …) are no answers.

        Raises:
            UserError: no `[MASK]`, a text longer than the network's positions, or no head that scores blanks (GPT's
                scores are of the token that follows).

        Example:
            >>> import maskplay as mp
            >>> [found.token for found in mp.load("bundled:zh-small").fill("本法自公布之日起施[MASK]。", top=1)]
            ['行']
        """
        if not isinstance(text, str):
            raise UserError(f"fill: expected one text, found a {type(text).__name__}")
        if self.network.decoder is not None or (self.network.mlm is None and not self._both_ways):
            raise UserError(f"a {self.family} has no scores for blanks: generate() goes on with a text")
        mask = self.tokenizer.special("mask")
        text = text.replace("[MASK]", self.tokenizer.form.roles["mask"])
        encoding = self.tokenizer.encode(text, specials=True)
        ids = np.array([encoding.ids])
        blanks = np.flatnonzero(ids[0] == mask)
        if not len(blanks):
            raise UserError(f"expected a text with [MASK] in it, found {text[:60]!r}")
        top = whole_number("top", top, 1, MOST_CANDIDATES)
        segments = np.array([encoding.segments])
        logits = self.logits(ids, segments=segments, at=blanks[None])[0]
        scores = ops.convert_to_numpy(ops.log_softmax(ops.cast(logits, "float32"), axis=-1))
        special = self.tokenizer.ids(self.tokenizer.form.specials)
        words = np.setdiff1d(np.arange(len(self.tokenizer)), special)
        found: list[tuple[float, tuple[int, ...]]] = [(0.0, ())]
        for row in scores:
            best = words[np.argsort(-row[words], kind="stable")[:top]]
            # The m-th of one with the n-th of the other has m·n - 1 combinations before it.
            found = [
                (score + float(row[i]), (*chosen, int(i)))
                for m, (score, chosen) in enumerate(found, 1)
                for i in best[: top // m]
            ]
            found = sorted(found, key=lambda candidate: -candidate[0])[:top]
        ends = [0, *(end for blank in blanks for end in encoding.offsets[blank]), len(text)]
        parts = [text[begin:end] for begin, end in zip(ends[::2], ends[1::2])]
        candidates = []
        for score, chosen in found:
            gaps = [*(self._written(i) for i in chosen), ""]
            filled = "".join(part + gap for part, gap in zip(parts, gaps, strict=True))
            word = gaps[0] if len(chosen) == 1 else self.tokenizer.decode(chosen, skip_specials=False).strip()
            candidates.append(Candidate(word, float(np.exp(score)), filled))
        return candidates

    def _written(self, token: int) -> str:
        """A token as it stands in a blank, without the mark of a word's beginning or middle."""
        return self.tokenizer.decode([token], skip_specials=False).strip().removeprefix("##")

    def encode(
        self,
        texts: str | Sequence[str],
        pool: Literal["cls", "mean", "pooler"] | None = None,
        max_length: int | None = None,
        batch_size: int = 32,
    ) -> np.ndarray:
        """Vectors of texts, read as the family reads: in both directions, or (GPT, LLaMA) from left to right.

        Args:
            texts: one text or several.
            pool: "cls" = the first token's hidden state, the default where texts begin with [CLS] and it sees them;
                "mean" = the mean over the text's tokens, [CLS] and [SEP] included, padding not, the default elsewhere;
                "pooler" = the pooler's output, which SimBERT's texts are compared by.
            max_length: most tokens of a text; default the network's positions, at most 512.
            batch_size: texts at a time.

        Returns:
            `(texts, hidden)` float32; one text gives one row.

        Raises:
            UserError: an unknown pool, no pooler, a first token that sees no other, or a network that takes a
                condition.

        Example:
            >>> import maskplay as mp
            >>> mp.load("bundled:zh-small").encode(["今天天气不错", "天气真好"], pool="mean").shape
            (2, 256)
        """
        if self.config.condition_size is not None:
            raise UserError("encode: this network takes a condition: call its encoder with condition=…")
        pooler = self.network.pooler
        if pool is None:
            pool = "cls" if self._both_ways and self.tokenizer.cls_id is not None else "mean"
        if pool not in ("cls", "mean", "pooler") or (pool == "pooler" and pooler is None):
            raise UserError(f"pool: expected 'cls', 'mean' or, where there is one, 'pooler', found {pool!r}")
        if pool != "mean" and not self._both_ways:
            raise UserError(f"pool: the first token of a {self.family} sees no other: expected 'mean', found {pool!r}")
        batch_size = whole_number("batch_size", batch_size, 1)
        if isinstance(texts, bytes) or not isinstance(texts, Iterable):
            raise UserError(f"encode: expected texts, found a {type(texts).__name__}")
        texts = [texts] if isinstance(texts, str) else list(texts)
        longest = self.config.longest
        limit = min(longest or 512, 512) if max_length is None else whole_number("max_length", max_length, 1, longest)
        encodings = self.tokenizer.encode_batch(texts, max_length=limit)
        if empty := [i for i, encoding in enumerate(encodings) if not len(encoding)]:
            raise UserError(f"encode: text {empty[0] + 1} has no token (this vocabulary frames texts with none)")
        vectors = np.zeros((len(texts), self.config.hidden_size), "float32")
        graph = self._graph()
        # As few rows as a power of two can be: one text does not cost a whole batch.
        batch_size = min(batch_size, 1 << max(len(texts) - 1, 0).bit_length())
        # Longest first, and lengths rounded up: neighbours share a shape, so little is padded and few shapes compile.
        order = sorted(range(len(texts)), key=lambda i: -len(encodings[i]))
        for start in range(0, len(order), batch_size):
            chosen = order[start : start + batch_size]
            length = min(-(-len(encodings[chosen[0]]) // 16) * 16, limit)
            inputs = {name: np.zeros((batch_size, length), "int32") for name in ("tokens", "segments")}
            inputs["tokens"][:] = self.config.pad_id or 0  # without padding's id, no text sees what follows it
            for row, i in enumerate(chosen):
                inputs["tokens"][row, : len(encodings[i])] = encodings[i].ids
                inputs["segments"][row, : len(encodings[i])] = encodings[i].segments
            names = [tensor.name for tensor in graph.inputs]
            hidden = np.asarray(
                ops.convert_to_numpy(graph.predict_on_batch({name: inputs[name] for name in names})), "float32"
            )
            for row, i in enumerate(chosen):
                real = hidden[row, : len(encodings[i])]
                vectors[i] = real.mean(axis=0) if pool == "mean" else real[0]
        if pooler is None or pool != "pooler":
            return vectors
        return np.asarray(ops.convert_to_numpy(pooler(vectors[:, None])), "float32")

    @property
    def _both_ways(self) -> bool:
        """Whether a token sees those behind it."""
        return FAMILIES[self.family].mask == masks.padding()

    @functools.cached_property
    def _graph(self) -> Any:
        return _backend.renewed(lambda: self.encoder.graph(FAMILIES[self.family].mask), lambda: self.encoder.variables)

    def logits(self, tokens: Any, segments: Any = None, at: Any = None, **facts: Any) -> Any:
        """Token scores.

        Args:
            tokens, segments: ints `(batch, length)`.
            at: ints `(batch, positions)`, only these places; None = all.
            **facts: anything else `LanguageModel` takes: `mask` (default: `masks.padding()`, for decoders
                `masks.causal() & masks.padding()`), `positions`, `valid`, `documents`, `order`, `condition` and, where
                there is a decoder, `decoder_tokens`, whose scores are given.

        Returns:
            Logits `(batch, length or positions, vocab_size)`, a backend tensor.

        Raises:
            UserError: the network has no head that scores tokens, or ids or places are out of range.

        Example:
            >>> import maskplay as mp
            >>> bert = mp.load("bundled:zh-small")
            >>> bert.logits([bert.tokenizer.encode("天地").ids], mask=masks.causal()).shape
            (1, 4, 10000)
        """
        if not self.scores_tokens:
            raise UserError(f"this {self.family} checkpoint has no head that scores tokens ('mlm' or 'lm')")
        options = {"segments": segments, "at": at, "mask": FAMILIES[self.family].mask, **facts}
        found = self.network(tokens, **options)
        return found["lm" if self.network.mlm is None else "mlm"]

    @property
    def scores_tokens(self) -> bool:
        """Whether the network has a head that scores tokens."""
        return bool(set(self.network.heads) & set(SCORES))

    def generate(self, prompt: str, max_new: int = 50) -> str:
        """Go on with a text, or answer it: always the likeliest token (greedy search).

        Args:
            prompt: what to go on with; for an encoder with a decoder (T5), what to turn into another text.
            max_new: most tokens to add, up to 65,536; the end-of-text token ends it earlier.

        Returns:
            The prompt with its continuation; with a decoder, the decoder's text alone.

        Raises:
            UserError: a family that does not generate (BERT's scores are for blanks), a network loaded without its
                head, a prompt without any token, or more tokens than the network has positions.
        """
        if not isinstance(prompt, str):
            raise UserError(f"generate: expected one text, found a {type(prompt).__name__}")
        max_new = whole_number("max_new", max_new, 1, MOST_NEW)
        network, tokenizer = self.network, self.tokenizer
        if network.decoder is None and self._both_ways:
            raise UserError(f"a {self.family} does not generate text; fill its blanks with fill(), or load a decoder")
        if network.lm is None:
            raise UserError(f"this {self.family} has no head 'lm', which scores tokens: load it with heads=['lm']")
        ids = tokenizer.encode(prompt).ids
        ends = [end for end in (tokenizer.eos_id, tokenizer.sep_id) if end is not None]
        if network.decoder is not None:
            tokens = ops.convert_to_tensor(np.array([ids], "int32"))
            encoded, valid = network.encoder(tokens), network.encoder.valid(tokens)
            cache = network.decoder.new_cache(1, max_new, memory=encoded, memory_valid=valid)
            # T5 begins with padding, those with BERT's vocabulary (T5-PEGASUS) with [CLS].
            first = np.array([tokenizer.cls_id if tokenizer.cls_id is not None else self.config.pad_id or 0])
            return tokenizer.decode(list(greedy(self._step(), first, cache, max_new, ends)))
        while len(ids) > 1 and ids[-1] in ends:  # the prompt is not over
            ids = ids[:-1]
        if not ids:
            start = tokenizer.bos_id if tokenizer.bos_id is not None else tokenizer.eos_id
            if start is None:
                raise UserError("prompt: expected some text, found none (this vocabulary has no token that begins one)")
            ids = [start]
        longest = self.config.longest
        if longest is not None and len(ids) + max_new - 1 > longest:
            raise UserError(
                f"the prompt has {len(ids)} tokens and max_new is {max_new}, but the network has {longest} positions"
            )
        cache = network.encoder.new_cache(1, len(ids) + max_new)
        return tokenizer.decode([*ids, *greedy(self._step(), np.array(ids), cache, max_new, ends)])

    @functools.cached_property
    def _step(self) -> Any:
        """Feed tokens after those in a cache: the last one's scores and the new cache, compiled."""
        network, size = self.network, len(self.tokenizer)
        stack = network.encoder if network.decoder is None else network.decoder

        def step(tokens: Any, cache: Any) -> Any:
            hidden, cache = stack(tokens, mask=masks.causal(), cache=cache)
            return network.score(hidden[:, -1:])[:, 0, :size], cache  # a table may have more rows than there are tokens

        return _backend.renewed(lambda: _backend.compiled(step, network.variables), lambda: network.variables)

    def save(self, path: str | os.PathLike[str], format: str = "maskplay") -> None:
        """Write a folder: "maskplay", "huggingface" (transformers opens it) or "google" (bert4keras opens it).

        Raises:
            UserError: an unknown format, a name of Keras' own files, or the folder's name is taken by something else.
        """
        if Path(path).suffix == ".keras":
            raise UserError(f"{path}: save makes a folder; network.save(…) writes Keras' own file")
        save(path, self.network, self.family, self._tokenizer, format)

    def write(self, folder: Path) -> None:
        """Write into a folder that is there what transformers, bert4keras and maskplay open, as far as each can."""
        save_everywhere(folder, self.network, self.family, self.tokenizer)

    def __repr__(self) -> str:
        config, heads = self.config, ", ".join(self.network.heads) or "none"
        return (
            f"Pretrained({self.family}, {config.num_layers} layers, hidden {config.hidden_size}, "
            f"{config.num_heads} heads, vocabulary {config.vocab_size}, heads {heads})"
        )


def load(
    source: str | os.PathLike[str] | Mapping[str, np.ndarray],
    *,
    config: str | os.PathLike[str] | Mapping[str, Any] | Config | None = None,
    vocab: str | os.PathLike[str] | Tokenizer | None = None,
    heads: Iterable[str] | None = None,
    strict: bool = True,
    keep_tokens: Sequence[int] | None = None,
    compound_tokens: Sequence[Compound] | Mapping[str, Compound] | None = None,
    family: str | None = None,
    segmenter: Segmenter | None = None,
    **changes: Any,
) -> Any:
    """Open a checkpoint or a saved play.

    Args:
        source: "bundled:zh-small", the model that comes with the package; a folder or file: a Google TensorFlow
            checkpoint, a Hugging Face folder, llama2.c's file, a maskplay folder, a saved play; a hub id such as
            "google-bert/bert-base-chinese"; or arrays by name (with `config`).
        config: the config's file, content or `Config`, where it does not lie beside the weights.
        vocab: the tokenizer, or its folder or file (vocab.txt, spiece.model, tokenizer.json, llama2.c's tokenizer.bin),
            where it does not lie beside the weights.
        heads: some of "pooler", "nsp", "mlm", "rtd", "lm"; default those the checkpoint has.
        strict: refuse missing, surplus and misshapen tensors; False fills what fits, `.report` tells.
        keep_tokens: keep only these token ids, in this order (a smaller vocabulary; see `Tokenizer.simplified`).
        compound_tokens: new tokens after those, each starting from the mean of the old ids given for it (or
            `(ids, weights)`); as a dictionary from the new token's text the tokenizer learns them too.
        family: a name of `maskplay.families`, where files of several look alike (simbert, roformer_sim, wobert, labse,
            t5_pegasus, albert_unshared, nezha); or another family to make from this checkpoint: with `strict=False`
            whatever fits is taken over, and `print(b.report)` tells what did not.
        segmenter: the function that cuts text into words, where the tokenizer beside the weights has one of your own.
        **changes: position="hierarchical" (texts beyond the position table), max_positions=1024 (the table
            interpolated; the distances of NEZHA and T5 stay), activation="gelu_tanh", condition_size=128 (conditional
            layer normalization), attention="residual" (RealFormer), dropout=0.2, …

    Returns:
        A `Pretrained`; for a saved play, the play.

    Raises:
        CheckpointError: it cannot be read, is damaged or unsafe, does not fit, or is of a family not opened yet.
        UserError: no such path, or an impossible option.

    Example:
        >>> import tempfile
        >>> tiny = Config(vocab_size=10, hidden_size=8, num_layers=2, num_heads=2, intermediate_size=16)
        >>> folder = Path(tempfile.mkdtemp()) / "tiny"
        >>> Pretrained(LanguageModel(tiny)).save(folder, format="google")
        >>> load(folder)
        Pretrained(bert, 2 layers, hidden 8, 2 heads, vocabulary 10, heads pooler, nsp, mlm)
    """
    folder = None
    if isinstance(source, str | os.PathLike):
        source = find(source)
        folder = source if source.is_dir() else source.parent
        if source.is_dir() and (source / MARKER).is_file() and read_marker(source).get("format") == "play":
            options = (config, vocab, heads, keep_tokens, compound_tokens, family)
            if changes or not strict or any(option is not None for option in options):
                raise UserError(f"{source}: a saved play is opened as it is, without options")
            return plays.load(source, segmenter)
        if source.suffix == ".keras" and registered_class(source) in plays.PLAYS.values():
            raise UserError(
                f"{source}: a play in Keras' own file: keras.saving.load_model opens it; what `save` writes under a "
                "name without .keras opens here"
            )
    tokenizer, trouble = None, None
    if isinstance(vocab, Tokenizer):
        tokenizer = vocab
    elif vocab is not None:
        tokenizer = Tokenizer.load(vocab, segmenter)
    elif folder is not None and Tokenizer.lies_in(folder):
        try:
            tokenizer = Tokenizer.load(folder, segmenter)
        except (UserError, MissingExtra) as error:  # the network is of use without it
            trouble = error
    names = list(compound_tokens) if isinstance(compound_tokens, Mapping) else None
    ids = list(compound_tokens.values()) if isinstance(compound_tokens, Mapping) else compound_tokens
    network, report = load_network(source, config, heads, strict, keep_tokens, ids, family, **changes)
    if tokenizer is not None and keep_tokens is not None:
        tokenizer = tokenizer.keep(keep_tokens)
    if tokenizer is not None and names is not None:
        tokenizer = tokenizer.add(names)
    try:
        made = Pretrained(network, tokenizer, report.family, report)
    except UserError as error:
        if vocab is not None:
            raise
        made, trouble = Pretrained(network, None, report.family, report), error
    made._trouble = trouble
    return made
