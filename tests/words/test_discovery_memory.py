"""The memory of `discover` is a limit: refused where it is too small, kept where it is not."""

import os
import random
import subprocess
import sys
from contextlib import nullcontext

import numpy as np
import pytest

import maskplay as mp
from maskplay.errors import UserError
from maskplay.words import budget, tokens


def test_memory_is_a_limit_for_the_process():
    with pytest.raises(UserError, match=r"memory: expected at least \d+M \(\d+M of them are held already\), found 10M"):
        mp.words.discover(iter(["天地"]), memory="10M")
    with pytest.raises(UserError, match="memory: expected a size such as 800M or 1G, found 'much'"):
        mp.words.discover(iter(["天地"]), memory="much")
    limit = budget.resident() + budget.LEAST + 2**24
    for workers in (1, 12):  # of which each takes some
        with pytest.raises(UserError, match="or fewer than 12 workers") if workers > 1 else nullcontext():
            mp.words.discover(iter(["天地"]), memory=limit, workers=workers)
    left = budget.Budget(budget.resident() + 2**30).left
    assert left is not None and abs(left - 2**30) < 2**26
    limited = budget.Budget(budget.resident() + 2**30)
    limited.check(20_000_000, 48, "n-grams")
    with pytest.raises(UserError, match="memory: 30,000,000 n-grams, which takes 1373M beside"):
        limited.check(30_000_000, 48, "n-grams")
    assert budget._bytes(np.int64(9)) == 9
    assert budget._bytes("1.5G") == budget._bytes("1536 MiB") == budget._bytes(1.5 * 2**30) == 3 * 2**29


def test_what_is_held_is_kept_within_the_memory(monkeypatch):
    """N-grams, tries, tables of the original's windows, runs: told before they are made."""
    monkeypatch.setattr(budget, "LEAST", 2**20)
    draw = random.Random(0)
    lines = ["".join(chr(0x4E00 + draw.randrange(9000)) for _ in range(500)) for _ in range(200)]
    texts = [text for text in lines for _ in range(2)]
    ids = [f"天{i:x}地" for i in range(50_000)]
    long = [f"天{i:04d}{'a' * 5000}" for i in range(2000)]
    for some, options, what in (
        (texts, {}, "n-grams occur 2 times or more"),
        (texts, {"mode": "faithful"}, "n-grams occur 2 times or more|windows occur 2 times or more"),
        (ids, {"runs": True}, "different runs of letters and digits"),
        (long, {"runs": True}, "characters in different runs of letters and digits"),
    ):
        with pytest.raises(UserError, match=f"memory: [0-9,]+ ({what}), which takes"):
            mp.words.discover(iter(some), min_count=2, memory=budget.resident() + 6 * 2**20, **options)


def test_longer_tokens_are_kept_within_the_memory(monkeypatch):
    monkeypatch.setattr(budget, "LEAST", 2**20)
    monkeypatch.setattr(budget, "TOKEN_BYTES", 2**40)
    monkeypatch.setattr("maskplay.words.tokens.TOKEN_BYTES", 2**40)
    with pytest.raises(UserError, match="different tokens are longer than any n-gram"):
        mp.words.discover(iter(["天地玄黄宇宙洪荒"] * 9), min_count=2, cohesion=(0.1, 0.1), memory="64G")


PEAK = """
import sys
from pathlib import Path
import maskplay as mp
from maskplay.words.budget import LEAST, WORKER_BYTES, resident

workers = int(sys.argv[2])
limit = resident() + LEAST + (workers - 1) * WORKER_BYTES + 2**24
Path("/proc/self/clear_refs").write_text("5")  # the peak counts from here
mp.words.discover(sys.argv[1], min_length=2, memory=limit, workers=workers)
peak = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
print(int(peak.split()[1]) / (limit // 1024))
"""


@pytest.mark.skipif(not os.path.exists("/proc/self/clear_refs"), reason="the system does not tell the peak")
@pytest.mark.parametrize("workers, places", [(2, 1), (12, 250_000)])
def test_a_process_keeps_within_its_memory(tmp_path, workers, places):
    """Also where two threads read lines as long as files, or there are many: by what the system says of a process."""
    draw = np.random.default_rng(0)
    words = draw.integers(0x4E00, 0x5600, (2000, 3))
    lines = words[draw.integers(2000, size=5_000_000)].reshape(places, -1)
    lines = np.pad(lines, ((0, 0), (0, 1)), constant_values=ord("\n"))
    text = lines.astype("<u4").tobytes().decode("utf-32-le")  # 45 MB
    for name in "ab":
        (tmp_path / f"{name}.txt").write_text(text, encoding="utf-8")
    arguments = [sys.executable, "-c", PEAK, tmp_path, str(workers)]
    done = subprocess.run(arguments, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert float(done.stdout) < 1.05, done.stdout  # 1.3 where each thread holds its line


def test_long_tokens_are_counted_by_their_length(monkeypatch):
    """One of a million characters is no matter of 160 bytes."""
    found = tokens.no_tokens(mp.words.trie.Trie({}), 3)
    found.longer[b"ab" * 1_000_000] = 1
    limit = budget.Budget(None)
    limit.left = 1_000_000
    with pytest.raises(UserError, match="1 different tokens are longer than any n-gram, which takes 1M"):
        found.check(limit)
