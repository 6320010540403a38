"""The bundled reviews: well-formed, balanced, and no review of the test set told again in training."""

from collections import Counter

import numpy as np
import pytest

from maskplay import demo
from maskplay.errors import UserError

NAMES = ("reviews_train.tsv", "reviews_test.tsv")
Row = tuple[str, str, str]


def read(name: str) -> list[Row]:
    """The rows `(text, label, domain)` below the header."""
    content = demo.path(name).read_bytes().decode("utf-8")
    assert "\r" not in content and content.endswith("\n")
    header, *lines = content.removesuffix("\n").split("\n")
    assert header == "text\tlabel\tdomain"
    rows = []
    for line in lines:
        text, label, domain = line.split("\t")
        rows.append((text, label, domain))
    return rows


@pytest.fixture(scope="module")
def reviews() -> dict[str, list[Row]]:
    return {name: read(name) for name in NAMES}


def likeness(texts: list[str]) -> np.ndarray:
    """Jaccard similarity of the character bigrams of each pair, `(n, n)`, punctuation left out; 0 on the diagonal."""
    words = ["".join(filter(str.isalnum, text)) for text in texts]
    bigrams = [{word[i : i + 2] for i in range(len(word) - 1)} for word in words]
    counts = Counter(bigram for found in bigrams for bigram in found)
    column = {bigram: i for i, bigram in enumerate(bigram for bigram, n in counts.items() if n > 1)}
    has = np.zeros((len(texts), len(column)), "float32")
    for row, found in enumerate(bigrams):
        has[row, [column[bigram] for bigram in found if bigram in column]] = 1
    both, sizes = has @ has.T, np.array([len(found) for found in bigrams])
    similar = both / (sizes[:, None] + sizes - both)
    np.fill_diagonal(similar, 0)
    return similar


def test_enough_reviews_of_sensible_length(reviews: dict[str, list[Row]]) -> None:
    assert len(reviews["reviews_train.tsv"]) >= 600 and len(reviews["reviews_test.tsv"]) >= 200
    for text, _, _ in sum(reviews.values(), []):
        assert 10 <= len(text) <= 60 and text == text.strip() and '"' not in text, text


@pytest.mark.parametrize("name", NAMES)
def test_labels_are_balanced_in_every_domain(reviews: dict[str, list[Row]], name: str) -> None:
    count = Counter((domain, label) for _, label, domain in reviews[name])
    domains = {domain for domain, _ in count}
    assert len(domains) == 10 and set(count) == {(d, label) for d in domains for label in ("好评", "差评")}
    assert all(abs(count[domain, "好评"] - count[domain, "差评"]) <= 1 for domain in domains)


def test_no_review_is_told_twice(reviews: dict[str, list[Row]]) -> None:
    train, test = ([text for text, _, _ in reviews[name]] for name in NAMES)
    similar = likeness(train + test)
    assert similar.max() < 0.5
    assert similar[: len(train), len(train) :].max() < 0.4


def test_flags_a_review_told_twice() -> None:
    similar = likeness(["房间很干净，床也舒服！", "房间很干净，床很舒服。", "物流太慢了"])
    assert similar[0] == pytest.approx([0, 6 / 10, 0])


def test_unknown_file_is_a_clear_error() -> None:
    with pytest.raises(UserError, match="found 'reviews.tsv'"):
        demo.path("reviews.tsv")
