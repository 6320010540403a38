"""How much memory there is to work with: a limit for the whole process, less what it already holds."""

import math
import re
import sys
from numbers import Real

from maskplay.errors import UserError

LEAST = 96 * 2**20  # bytes beyond what Python and its modules hold: blocks, tables and the result need them
WORKER_BYTES = 12 * 2**20  # more for each further worker, which has blocks of its own
GRAM_BYTES = 48  # of each distinct n-gram that is frequent enough: its key and count, what is computed from them
MEMBER_BYTES = 250  # of each that is cohesive, in a trie
COUNT_BYTES = 16  # of the same in what each worker has counted
WINDOW_BYTES = 800  # of each window of faithful mode, of whose beginnings Python holds a table
RUN_BYTES = 450  # of each different run of letters and digits, where they are kept whole
HELD_BYTES = 3  # of each character in them: one in their text, what sorting and telling them takes
TOKEN_BYTES = 160  # of each different token that is longer than an n-gram, beside its symbols
WORD_BYTES = 450  # of each token that is frequent enough, of which Python holds texts and rows
UNITS = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}


class Budget:
    """Bytes to share out, or no limit.

    Args:
        memory: most bytes for the whole process, a number or a text such as "1G"; None = no limit.
        workers: threads of the process.

    Raises:
        UserError: not a size, or less than it takes to work at all.
    """

    def __init__(self, memory: float | str | None, workers: int = 1) -> None:
        self.left: int | None = None
        if memory is None:
            return
        limit = _bytes(memory)
        held, blocks = resident(), (workers - 1) * WORKER_BYTES
        if limit < held + LEAST + blocks:
            least = -(-(held + LEAST + blocks) // 2**20)
            fewer = f", or fewer than {workers} workers" if workers > 1 else ""
            raise UserError(
                f"memory: expected at least {least}M ({held // 2**20}M of them are held already){fewer}, found {memory}"
            )
        self.left = limit - held - blocks

    def check(self, count: int, size: int, what: str) -> None:
        """Raise `UserError` where so many things of a size, which are all in memory together, take more than there
        is."""
        if self.left is not None and (needed := count * size) > self.left:
            raise UserError(
                f"memory: {count:,} {what}, which takes {needed // 2**20}M beside what is held already, found "
                f"{self.left // 2**20}M; expected more memory or a greater min_count"
            )

    def part(self, share: int) -> int | None:
        """One of so many parts."""
        return None if self.left is None else self.left // share


def _bytes(memory: float | str) -> int:
    if not isinstance(memory, (str, Real)):
        raise UserError(f"memory: expected a size such as 800M or 1G, found {memory!r:.40}")
    if isinstance(memory, str):
        found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([KMGT]?)(?:i?B)?", memory.strip(), re.IGNORECASE)
        size = float(found[1]) * UNITS[found[2].upper()] if found else math.nan
    else:
        size = float(memory)
    if not math.isfinite(size):
        raise UserError(f"memory: expected a size such as 800M or 1G, found {memory!r:.40}")
    return int(size)


def resident() -> int:
    """Bytes of memory that this process holds now, as far as the system tells."""
    try:
        with open("/proc/self/statm") as file:
            import resource

            return int(file.read().split()[1]) * resource.getpagesize()
    except (OSError, ImportError):
        pass
    try:
        import resource
    except ImportError:  # Windows
        return 0
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
