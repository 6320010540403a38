"""The model that comes with the package: it opens, is small, and says what its card says it says."""

import re

import keras
import numpy as np
import pytest

import maskplay as mp
from maskplay import bundled

FOLDER = bundled.path("zh-small")
CARD = (FOLDER / "README.md").read_text(encoding="utf-8")
BLANKS = re.findall(r"^\| ([^|]*\[MASK\][^|]*) \| (.) \| ([^|]*) \|$", CARD, flags=re.MULTILINE)


@pytest.fixture(scope="module")
def bert() -> mp.Pretrained:
    return mp.load("bundled:zh-small")


def test_it_is_small_and_whole(bert) -> None:
    assert sum(path.stat().st_size for path in FOLDER.iterdir()) < 16_000_000
    assert (bert.family, bert.config.position) == ("roformer", "rotary")
    parameters = sum(int(np.prod(weight.shape)) for weight in bert.network.weights)
    assert f"{parameters / 1e6:.2f} million parameters" in CARD
    # Everyday Chinese is in its vocabulary.
    assert bert.tokenizer.unk_id not in bert.tokenizer.encode("今天天气不错，我们都说：“这里的面很好吃！”钱够吗？").ids


def test_its_card_shows_ten_sentences_and_what_was_not_known() -> None:
    right = [answers.split()[0] == hidden for _, hidden, answers in BLANKS]
    assert len(BLANKS) == 10 and 0 < sum(right) < 10


@pytest.mark.parametrize("text, hidden, answers", BLANKS, ids=[text for text, *_ in BLANKS])
def test_it_fills_blanks_as_its_card_says(bert, text: str, hidden: str, answers: str) -> None:
    assert [found.token for found in bert.fill(text, top=5)] == answers.split()


def test_another_name_is_told() -> None:
    with pytest.raises(mp.UserError, match="bundled:../zh-small: expected one of bundled:zh-small"):
        mp.load("bundled:../zh-small")


def test_transformers_opens_it(bert) -> None:
    transformers = pytest.importorskip("transformers")
    torch = pytest.importorskip("torch")
    tokens = bert.tokenizer.encode("今天天[MASK]很好。", specials=True).ids
    theirs = transformers.RoFormerForMaskedLM.from_pretrained(FOLDER, dtype=torch.float32).eval()
    with torch.no_grad():
        logits = theirs(torch.tensor([tokens])).logits.numpy()
    # Scores reach from -20 to 10, and its attention is sharp: rounding is seen in the fourth digit.
    np.testing.assert_allclose(keras.ops.convert_to_numpy(bert.logits(np.array([tokens]))), logits, atol=5e-3)
