"""From scores to text: what is said next, given what a model thinks of every token."""

from maskplay.decode.generate import greedy

__all__ = ["greedy"]
