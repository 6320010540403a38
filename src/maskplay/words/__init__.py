"""Words out of raw text: finding new ones, and counting at the speed of memory.

It needs NumPy only; no model, no Keras.
"""

from maskplay.words.discovery import discover
from maskplay.words.found import Found, Word
from maskplay.words.parallel import parallel_map

__all__ = ["Found", "Word", "discover", "parallel_map"]
