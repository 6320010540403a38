"""A small model from nothing but texts: fresh weights, and a vocabulary of what occurs in them.

For a first result without a checkpoint, and for data unlike anything that checkpoints were made from.
"""

import re
from collections import Counter
from collections.abc import Iterable
from typing import Any

from maskplay.config import Config
from maskplay.families import family as family_of
from maskplay.language_model import SCORES, LanguageModel
from maskplay.text.tokenizer import Tokenizer

__all__ = ["network", "small", "vocabulary"]

CHARACTERS, WORDS = 8000, 8000  # the most that the vocabulary has
WORD = re.compile("(?<![a-z0-9])[a-z0-9]{2,30}(?![a-z0-9])")  # longer ones are keys and digests, each its own
HELD = 2**21  # different words that are counted at a time


def small(
    texts: Iterable[str], hidden_size: int = 128, num_layers: int = 2, num_heads: int = 4
) -> tuple[LanguageModel, Tokenizer]:
    """A RoFormer with fresh weights, and a tokenizer of the texts' characters and frequent Latin words.

    Args:
        texts: what the vocabulary is made from.
        hidden_size, num_layers, num_heads: of the encoder.

    Returns:
        What `maskplay.Pretrained` is made of.

    Raises:
        UserError: sizes that do not fit together.

    Example:
        >>> network, tokenizer = small(["味道不错，下次还来", "太难吃了"], hidden_size=32)
        >>> network.config.hidden_size, "味" in tokenizer.vocab
        (32, True)
    """
    texts = list(texts)
    characters = Tokenizer.from_characters(texts, max_size=CHARACTERS).vocab
    words = Counter(word for text in texts for word in WORD.findall(text.lower()))
    frequent = [word for word, times in words.most_common(WORDS) if times >= 3]
    tokenizer = Tokenizer.from_vocab([*characters, *frequent])
    config = Config(
        vocab_size=len(tokenizer),
        hidden_size=hidden_size,
        num_layers=num_layers,
        num_heads=num_heads,
        intermediate_size=2 * hidden_size,
        # Chosen on held-out parts of the bundled training reviews: few texts want relative places, much dropout, and
        # narrow layers wider initial weights than BERT's 0.02.
        position="rotary",
        dropout=0.3,
        attention_dropout=0.3,
        initializer_range=0.05,
    )
    return LanguageModel(config, heads=["pooler"]), tokenizer


def vocabulary(texts: Iterable[str], size: int = 12000) -> Tokenizer:
    """A lower-case vocabulary for pretraining: single characters and whole Latin words, the most frequent of each.

    Words take at most a quarter; those that occur less than five times are spelled by their letters.

    Args:
        texts: what will be learnt from; read once.
        size: most tokens.

    Raises:
        UserError: the size has no room for the special tokens, letters and digits.

    Example:
        >>> tokenizer = vocabulary(["神经网络 network"] * 5, size=100)
        >>> tokenizer.encode("网络 network nets").tokens
        ['[CLS]', '网', '络', 'network', 'n', '##e', '##t', '##s', '[SEP]']
    """
    characters: Counter[str] = Counter()
    words: Counter[str] = Counter()
    for text in texts:
        text = text.lower()
        characters.update(text)
        words.update(WORD.findall(text))
        if len(words) > HELD:  # logs and tables have ever new ones
            words = Counter({word: times for word, times in words.items() if times > 1})
    fixed = len(Tokenizer.from_characters({}, size).vocab)
    frequent = [word for word, times in words.most_common(min(size // 4, size - fixed)) if times >= 5]
    return Tokenizer.from_vocab([*Tokenizer.from_characters(characters, size - len(frequent)).vocab, *frequent])


def network(family: str, tokenizer: Tokenizer, heads: Iterable[str] = (), **sizes: Any) -> LanguageModel:
    """A network of a family's form with fresh weights.

    Args:
        family: a name of `maskplay.families`.
        tokenizer: it decides the number of tokens and the padding token.
        heads: beside those that the family has without weights of their own; none scores tokens: "mlm".
        **sizes: whatever a `Config` says; None = as the family's base size.

    Raises:
        UserError: an unknown family, or sizes that do not fit together.

    Example:
        >>> tokenizer = Tokenizer.from_characters(["山高水长"], max_size=80)
        >>> network("roformer", tokenizer, hidden_size=32, num_layers=2, num_heads=2, intermediate_size=64).heads
        ('mlm',)
    """
    row = family_of(family)
    chosen = {name: size for name, size in sizes.items() if size is not None}
    config = row.config.but(vocab_size=len(tokenizer), pad_id=tokenizer.pad_id, **chosen)
    wanted = [*row.heads, *heads]
    return LanguageModel(config, wanted if {*SCORES} & {*wanted} else [*wanted, "mlm"])
