"""Raw text from wherever it lies: files, folders, patterns, compressed files, JSON lines, standard input, Python.

Everything is streamed: neither a file nor a line of it is ever taken into memory whole unless it is asked for, so a
corpus larger than the memory, or a small file that unpacks into a huge one, is read like any other. Every fault is one
line that names the file and the line in it.
"""

from maskplay.corpus.places import STDIN, Part, Sources, are_places, file, parts, paths, size
from maskplay.corpus.reading import blocks, lines, pairs, records

__all__ = [
    "STDIN",
    "Part",
    "Sources",
    "are_places",
    "blocks",
    "file",
    "lines",
    "pairs",
    "parts",
    "paths",
    "records",
    "size",
]
