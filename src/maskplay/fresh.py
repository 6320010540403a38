"""A small model from nothing but texts: fresh weights, and a vocabulary of what occurs in them.

For a first result without a checkpoint, and for data unlike anything that checkpoints were made from.
"""

import re
from collections import Counter
from collections.abc import Iterable

from maskplay.config import Config
from maskplay.language_model import LanguageModel
from maskplay.text.tokenizer import Tokenizer

__all__ = ["small"]

CHARACTERS, WORDS = 8000, 8000  # the most that the vocabulary has


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
    words = Counter(word for text in texts for word in re.findall("[a-z0-9]{2,}", text.lower()))
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
