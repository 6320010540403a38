"""A small model from texts: its vocabulary and its sizes."""

import pytest

import maskplay as mp


def test_its_vocabulary_is_what_occurs() -> None:
    network, tokenizer = mp.fresh.small(["味道 good good 味", "good 道 rare"], hidden_size=8, num_heads=2)
    assert {"味", "道", "good"} <= set(tokenizer.vocab) and "rare" not in tokenizer.vocab
    assert network.config.vocab_size == len(tokenizer)
    model = mp.Pretrained(network, tokenizer)
    assert model.encode("味道").shape == (1, 8)


def test_a_vocabulary_with_little_room_holds_what_is_frequent() -> None:
    """Whatever its code points: rare characters stand before the frequent ones in Unicode here."""
    rare = [chr(0x4E00 + i) for i in range(200)]
    frequent = ["，", "都", "龙", "。"]
    texts = ["".join(rare), *("，都龙。" for _ in range(3)), "network " * 9]
    vocab = mp.fresh.vocabulary(texts, size=100).vocab
    assert {*frequent, "network"} <= {*vocab} and len(vocab) == 100
    assert {*mp.fresh.vocabulary(iter(texts), size=100).vocab} == {*vocab}
    words = [f"{a}{b} " * 9 for a in "abcde" for b in "fghij"]
    assert len(mp.fresh.vocabulary(words, size=80).vocab) == 80


def test_sizes_that_do_not_fit_are_told() -> None:
    with pytest.raises(mp.UserError, match="hidden_size 15 is not a multiple of num_heads 4"):
        mp.fresh.small(["味道"], hidden_size=15)


def test_keys_and_digests_are_no_words(monkeypatch) -> None:
    texts = ["f" * 31, "key42 " * 9, "0x" + "ab" * 40] * 9
    vocab = mp.fresh.vocabulary(texts, size=100).vocab
    assert "key42" in vocab and not any(len(token) > 8 for token in vocab)
    monkeypatch.setattr("maskplay.fresh.HELD", 50)  # ever new words do not fill the memory, and hide no frequent one
    lines = [f"new{i} word" for i in range(200)]
    assert "word" in mp.fresh.vocabulary(lines, size=100).vocab
