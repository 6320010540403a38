"""Text in, token ids out, and the way back to the characters."""

from maskplay.text.tokenizer import Encoding, Tokenizer

__all__ = ["Encoding", "Tokenizer"]
