"""Keeping memory, by the page faults of a process of its own."""

import subprocess
import sys

import pytest

from maskplay import memory

FAULTS = """
import importlib.util, resource, sys
import numpy as np
spec = importlib.util.spec_from_file_location("memory", sys.argv[1])
memory = importlib.util.module_from_spec(spec)
spec.loader.exec_module(memory)
kept = len(sys.argv) > 2 and memory.keep(threads=sys.argv[2] == "threads")
def once():
    return np.zeros(2**24, "uint8") + 1  # 16 MB twice, freed at once
once()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(8):
    once()
print(kept, resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults(*options: str) -> tuple[bool, int]:
    # The threshold above which glibc maps a block grows with what is freed, unless it is set.
    given = {"MALLOC_MMAP_THRESHOLD_": "1000000", "NUMPY_MADVISE_HUGEPAGE": "0"}
    run = subprocess.run(
        [sys.executable, "-c", FAULTS, memory.__file__, *options], capture_output=True, text=True, check=True, env=given
    )
    kept, found = run.stdout.split()
    return kept == "True", int(found)


@pytest.mark.parametrize("how", ["one heap", "threads"])
def test_what_is_freed_is_kept_for_the_next(how: str) -> None:
    kept, found = faults(how)
    if not kept:
        pytest.skip("no glibc here")
    assert 8 * found < faults()[1]
