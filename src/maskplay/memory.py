"""Memory that large arrays leave behind: kept for the next ones.

glibc gives every array above some 30 MB back to the system when it is freed, and asks for it anew at the next step; the
system then hands over pages of zeros one by one. A training step on a CPU frees and takes hundreds of megabytes.
"""

import ctypes
import sys

__all__ = ["keep"]

# Of glibc's malloc.h: no blocks of their own for large arrays, nothing given back. Either one heap for all threads, or
# one for each; the latter asks for its threshold first, which old versions find too high: then all stays as it was.
ONE_HEAP = {"M_MMAP_MAX": (-4, 0), "M_TRIM_THRESHOLD": (-1, -1), "M_ARENA_MAX": (-8, 1)}
HEAPS = {"M_MMAP_THRESHOLD": (-3, 2**30), "M_TRIM_THRESHOLD": (-1, -1)}


def keep(threads: bool = False) -> bool:
    """From now on this process keeps what it frees; `maskplay pretrain`, `maskplay fit` and, where no `--memory` is
    given, `maskplay words` begin with it.

    The process then holds the most that it ever needed until it ends, which is what a program that trains wants and a
    service may not; so Python users call it themselves. Processes that it forks do likewise.

    Args:
        threads: several of them work on arrays of their own, each with a heap, which holds those up to 64 MB: counting
            words. Training makes larger ones, whichever thread asks for them: one heap.

    Returns:
        Whether it is so: False where there is no glibc (macOS, Windows, Alpine) or, with `threads`, an old one.

    Example:
        >>> keep() in (True, False)
        True
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    settings = HEAPS if threads else ONE_HEAP
    return mallopt is not None and all(mallopt(*setting) == 1 for setting in settings.values())
