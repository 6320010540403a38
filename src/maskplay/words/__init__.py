"""Words out of raw text: finding new ones, cutting text into them, and counting at the speed of memory.

All of it is NumPy's work; no network learns anything here.
"""

from maskplay.words.agreement import agreed
from maskplay.words.arpa import read_arpa, write_arpa
from maskplay.words.contrasting import Contrast, contrast, write_contrast
from maskplay.words.counting import Count, Counts, count
from maskplay.words.cutting import Segmenter
from maskplay.words.discovery import discover
from maskplay.words.found import Found, Word
from maskplay.words.kneser_ney import train_ngrams
from maskplay.words.ngram_model import NgramModel
from maskplay.words.parallel import parallel_map
from maskplay.words.segmenting import NgramSegmenter, load_segmenter, segment
from maskplay.words.vocabulary import Vocabulary, read_vocabulary

__all__ = [
    "Contrast",
    "Count",
    "Counts",
    "Found",
    "NgramModel",
    "NgramSegmenter",
    "Segmenter",
    "Vocabulary",
    "Word",
    "agreed",
    "contrast",
    "count",
    "discover",
    "load_segmenter",
    "parallel_map",
    "read_arpa",
    "read_vocabulary",
    "segment",
    "train_ngrams",
    "write_arpa",
    "write_contrast",
]
