"""Text in, token ids out, and the way back to the characters."""

from maskplay.text.encoding import Encoding
from maskplay.text.tokenizer import Tokenizer

__all__ = ["Encoding", "Tokenizer"]
