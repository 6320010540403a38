"""Words out of raw text: finding new ones, and counting at the speed of memory.

It needs NumPy only; no model, no Keras.
"""

from maskplay.words.counting import Count, Counts, count
from maskplay.words.discovery import discover
from maskplay.words.found import Found, Word
from maskplay.words.parallel import parallel_map

__all__ = ["Count", "Counts", "Found", "Word", "count", "discover", "parallel_map"]
