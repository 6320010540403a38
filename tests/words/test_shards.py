"""Partial counts merge to the same result, however the text is cut into shards and the keys into ranges."""

import gzip
import pickle
import random
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import maskplay as mp
from maskplay import corpus
from maskplay.errors import DataError, UserError
from maskplay.words import freedom, grams, shards
from maskplay.words.partials import Partials, scratch
from maskplay.words.symbols import Ids
from maskplay.words.trie import Trie
from words.references import generated, ngrams_of


def sent(thing):
    """What arrives elsewhere."""
    return pickle.loads(pickle.dumps(thing))


def anyhow(function, items):
    """Calls on what has been sent, in another order."""
    places = list(range(len(items)))
    random.Random(len(places)).shuffle(places)
    for place in places:
        yield place, sent(sent(function)(sent(items[place])))


def here(workers: int, run=anyhow):
    """Stands where a cluster is joined."""

    @contextmanager
    def join(address, asked):
        assert address == "local"
        yield type("Cluster", (), {"run": staticmethod(run), "workers": workers})

    return join


def bytes_of(found, path) -> bytes:
    found.write(path)
    return path.read_bytes()


def as_ids(numbers: list[int]) -> Ids:
    return Ids(iter([np.array(numbers, np.uint16)]), len(numbers))


ids_ = st.lists(st.integers(0, 5), max_size=60).map(lambda ids: [*ids, 0])


@settings(max_examples=60, deadline=None)
@given(st.lists(ids_, min_size=1, max_size=4), st.sets(st.integers(0, 2**6 - 1), max_size=5), st.integers(1, 3))
def test_ngrams_merge_from_any_split(parts, pairs, least):
    rule = grams.Rule(bits=3, order=4, least=least, lower=True)
    whole = as_ids(sum(parts, []))
    firsts = np.bincount(whole.read(0, whole.length), minlength=6)
    firsts[0] = 0
    expected = grams.count_grams(whole, firsts, rule)

    edges = np.array([pair << 6 for pair in sorted(pairs)], np.uint64)
    counted = [grams.count_stretch(as_ids(part), 0, len(part), 3, 4) for part in parts]
    cuts = [np.concatenate([[0], np.searchsorted(keys, edges), [len(keys)]]) for keys, _ in counted]
    ranges = []
    for place in range(len(edges) + 1):
        within = [slice(cut[place], cut[place + 1]) for cut in cuts]
        keys = np.concatenate([keys[some] for (keys, _), some in zip(counted, within)])
        counts = np.concatenate([counts[some] for (_, counts), some in zip(counted, within)])
        ranges.append(grams.merge_range(keys, counts, rule))
    found = grams.joined(ranges, rule)
    by_hand = Counter(
        tuple(run[i : i + n])
        for part in parts
        for run in "".join(map(str, part)).split("0")
        for n in (2, 3, 4)
        for i in range(len(run) - n + 1)
    )
    assert found.keys() == expected.keys() == {2, 3, 4}
    for n, some in found.items():
        assert np.array_equal(some.keys, expected[n].keys) and np.array_equal(some.counts, expected[n].counts)
        rows = {"".join(map(str, row)): count for row, count in zip(some.ids().tolist(), some.counts.tolist())}
        assert rows == {"".join(k): v for k, v in by_hand.items() if len(k) == n and v >= least}


@settings(max_examples=40, deadline=None)
@given(st.lists(ids_, min_size=1, max_size=4), st.integers(0, 5))
def test_neighbours_merge_from_any_split(parts, edge):
    trie = Trie({2: np.array([[1, 2], [2, 1], [3, 3]]), 3: np.array([[1, 2, 3], [2, 1, 2]])})
    whole = as_ids(sum(parts, []))
    with np.errstate(divide="ignore", invalid="ignore"):  # words that do not occur
        expected = freedom.measure(whole, trie, workers=1)
        sides = zip(*(freedom.count_stretch(as_ids(part), trie, 0, len(part)) for part in parts))
        found = []
        for side in sides:
            occurrences, sums = np.zeros(5, np.int64), np.zeros(5)
            for low, high in ((0, edge << 16), (edge << 16, 5 << 16)):
                inside = [(keys >= low) & (keys < high) for keys, _ in side]
                some = [(keys[mine], counts[mine]) for (keys, counts), mine in zip(side, inside) if mine.any()]
                if some:
                    first, every, more = freedom.merge_range(some)
                    occurrences[first : first + len(every)], sums[first : first + len(every)] = every, more
            found.append((occurrences, freedom.entropy(occurrences, sums)))
    assert np.array_equal(expected[0], found[0][0]) and np.array_equal(found[0][0], found[1][0])
    for mine, theirs in zip((found[0][1], found[1][1]), expected[1:]):
        assert np.array_equal(mine, theirs, equal_nan=True)


@pytest.mark.parametrize("options", [{}, {"mode": "faithful"}, {"runs": True}, {"memory": "8G"}, {"cohesion": (1,)}])
def test_shards_find_what_one_machine_finds(tmp_path, monkeypatch, options):
    lines = [line + " iPhone15 x9𠀀𠮷"[: i % 14] for i, line in enumerate(generated(8, 500, words=100))]
    text = tmp_path / "text"
    text.mkdir()
    (text / "a.txt").write_text("\n".join(lines[:400]), encoding="utf-8")
    (text / "b.txt.gz").write_bytes(gzip.compress("\n".join(lines[400:]).encode()))
    expected = bytes_of(mp.words.discover(text, min_count=5, **options), tmp_path / "a.tsv")
    assert expected.count(b"\n") > 50
    for workers, least, room in ((1, 2**20, 2**31), (3, 2000, 20_000)):
        with monkeypatch.context() as patch:
            patch.setattr(shards, "LEAST", least)
            patch.setattr(shards, "ROOM", room)
            patch.setattr("maskplay.words.engine.join", here(workers))
            found = mp.words.discover(text, min_count=5, cluster="local", folder=tmp_path, **options)
        assert bytes_of(found, tmp_path / "b.tsv") == expected
        assert found.characters == mp.words.discover(text, min_count=5, **options).characters
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.tsv", "b.tsv", "text"]


@pytest.mark.parametrize("n", [1, 2, 4])
def test_shards_count_what_one_machine_counts(tmp_path, monkeypatch, n):
    lines = generated(9, 500)
    (tmp_path / "a.txt").write_text("\n".join(lines), encoding="utf-8")
    monkeypatch.setattr(shards, "LEAST", 500)
    monkeypatch.setattr("maskplay.words.engine.join", here(4))
    told = []
    found = mp.words.count(tmp_path, n=n, cluster="local", folder=tmp_path, progress=lambda *step: told.append(step))
    assert dict(found) == ngrams_of(lines, n)
    assert bytes_of(found, tmp_path / "a.tsv") == bytes_of(mp.words.count(tmp_path / "a.txt", n=n), tmp_path / "b.tsv")
    assert told[-1][1] == told[-1][2] and len({name for name, *_ in told}) == min(n, 2)


def test_work_done_twice_does_no_harm(tmp_path, monkeypatch):
    (tmp_path / "a.txt").write_text("\n".join(generated(10, 400)), encoding="utf-8")
    expected = bytes_of(mp.words.discover(tmp_path / "a.txt", min_count=4), tmp_path / "a.tsv")

    def twice(function, items):
        for item in items:
            function(item)
        return enumerate(map(function, items))

    monkeypatch.setattr(shards, "LEAST", 500)
    monkeypatch.setattr("maskplay.words.engine.join", here(3, twice))
    found = mp.words.discover(tmp_path / "a.txt", min_count=4, cluster="local", folder=tmp_path)
    assert bytes_of(found, tmp_path / "b.tsv") == expected


def test_nothing_found_in_nothing(tmp_path, monkeypatch):
    (tmp_path / "a.txt").write_text("，。\n\n")
    monkeypatch.setattr("maskplay.words.engine.join", here(2))
    assert len(mp.words.discover(tmp_path / "a.txt", cluster="local")) == 0
    assert len(mp.words.count(tmp_path / "a.txt", n=3, cluster="local")) == 0


def test_a_range_holds_no_more_than_it_may():
    engine = shards.Shards.__new__(shards.Shards)
    engine.workers = 1
    cuts = np.array([[0, 3, 4, 4, 9], [0, 1, 1, 5, 5]])  # ranges of 4, 1, 4, 5
    for most, expected in ((5, [5, 4, 5]), (4, [4, 1, 4, 5]), (100, [5, 4, 5])):
        ranges = engine._ranges(cuts, most)
        assert [int((some.last - some.first).sum()) for some in ranges] == expected
        assert all(some.sizes.tolist() == [9, 5] for some in ranges)


def test_faults_leave_nothing(tmp_path, monkeypatch):
    (tmp_path / "a.txt").write_bytes("天地\n".encode() * 400 + b"\xff\n")
    monkeypatch.setattr("maskplay.words.engine.join", here(2))
    with pytest.raises(DataError, match=r"a\.txt, line 401: expected UTF-8, found byte 0xff"):
        mp.words.discover(tmp_path / "a.txt", cluster="local", folder=tmp_path)
    for sources in (iter(["天地"]), "-"):
        with pytest.raises(UserError, match="cluster: expected files, folders or patterns"):
            mp.words.discover(sources, cluster="local", folder=tmp_path)
    with pytest.raises(UserError, match="cluster: it is for n-grams"):
        mp.words.count(tmp_path / "a.txt", tokenizer=str.split, cluster="local")
    assert [path.name for path in tmp_path.iterdir()] == ["a.txt"]
    with pytest.raises(UserError, match="not to be seen from here; expected a folder that all machines share"):
        shards.read_shard(partial(print), Partials(str(tmp_path / "gone")), (0, [corpus.Part(tmp_path / "a.txt")]))


def test_the_folder_goes_though_somebody_still_writes(tmp_path):
    """As a worker does that was told too late to stop: it finds no folder then, and makes none."""
    written = []

    def write(partials):
        end = time.monotonic() + 10
        while time.monotonic() < end:
            partials.write(f"a-{len(written) % 50}", np.zeros(1000))
            written.append(1)

    with ThreadPoolExecutor(1) as threads, scratch(tmp_path) as partials:
        late = threads.submit(write, partials)
        while not written and not late.done():
            time.sleep(0.001)
    assert not list(tmp_path.iterdir())
    for too_late in (late.result, partial(partials.write, "b", np.zeros(1))):
        with pytest.raises(FileNotFoundError):
            too_late()
    assert written and not list(tmp_path.iterdir())


def test_partials_at_a_url():
    pytest.importorskip("fsspec", reason="the `cluster` extra is not installed")
    with scratch("memory://bucket/scratch") as partials:
        partials.check()
        partials.write("a", np.arange(5, dtype=np.uint16), np.ones(3, np.uint64))
        assert partials.read("a", np.uint16, 2, start=6).tolist() == [3, 4]
        assert partials.read("a", np.uint64, 3, start=10).tolist() == [1, 1, 1]
        partials.remove("a", "b")
        with pytest.raises(FileNotFoundError):
            partials.read("a", np.uint16, 1)
    with pytest.raises(UserError, match="not to be seen from here"):
        partials.check()
    with pytest.raises(UserError, match="nonsense"), scratch("nonsense://a"):
        pass
