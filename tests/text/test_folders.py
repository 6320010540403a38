"""Which file of a folder decides, and what is said when the files do not fit."""

import json
from pathlib import Path

import pytest

from maskplay.errors import CheckpointError, UserError
from maskplay.text import Tokenizer
from text import small


def test_the_order(tmp_path):
    """Written one after another, from the last to the first that is looked for."""
    small.wordpiece().save(tmp_path)
    (tmp_path / "tokenizer.json").unlink()
    kinds = [Tokenizer.load(tmp_path)._kind.name]
    small.gpt2().save(tmp_path)
    (tmp_path / "tokenizer.json").unlink()
    kinds.append(Tokenizer.load(tmp_path)._kind.name)
    small.t5().save(tmp_path)
    kinds.append(Tokenizer.load(tmp_path)._kind.name)
    small.llama2c().save(tmp_path)
    kinds.append(Tokenizer.load(tmp_path)._kind.name)
    small.roberta().save(tmp_path)
    kinds.append(Tokenizer.load(tmp_path)._kind.name)
    assert kinds == ["WordPiece", "byte-level BPE", "SentencePiece", "llama2.c", "byte-level BPE"]


@pytest.mark.parametrize(
    "there, message",
    [
        ([], "expected a tokenizer .* found none of them"),
        (["merges.txt"], "merges.txt: expected a vocab.json beside it, found none; byte-level BPE needs both"),
        (["vocab.json"], "vocab.json: expected merges.txt beside it, found none; byte-level BPE needs both"),
        (["vocab.bpe"], "vocab.bpe: expected a vocab.json beside it"),
        (["encoder.json"], "encoder.json: expected vocab.bpe beside it"),
    ],
)
def test_half_of_a_pair(tmp_path, there, message):
    for name in there:
        (tmp_path / name).write_text("{}")
    with pytest.raises(UserError, match=message):
        Tokenizer.load(tmp_path)
    assert Tokenizer.lies_in(tmp_path) == any(name in ("vocab.json", "encoder.json") for name in there)


def test_nothing_there(tmp_path):
    with pytest.raises(UserError, match="nowhere: there is no such file or folder"):
        Tokenizer.load(tmp_path / "nowhere")
    for name in ("x.model", "x.bin", "vocab.json", "x.txt"):
        with pytest.raises(UserError, match="cannot be read|no such file|expected"):
            Tokenizer.load(tmp_path / name)


def test_one_file_of_any_kind(tmp_path):
    for kind, name in (("t5", "spiece.model"), ("llama2c", "tokenizer.bin"), ("gpt2", "vocab.json")):
        small.KINDS[kind]().save(tmp_path / kind)
        assert Tokenizer.load(tmp_path / kind / name) == small.KINDS[kind]()
    small.wordpiece().save(tmp_path / "w")
    assert Tokenizer.load(tmp_path / "w" / "vocab.txt") == small.wordpiece()
    assert Tokenizer.load(tmp_path / "w" / "tokenizer.json") == small.wordpiece()


def test_a_vocabulary_of_another_kind(tmp_path):
    """Told by name or by content, with what to call instead."""
    for kind in ("roberta", "t5", "llama2c"):
        small.KINDS[kind]().save(tmp_path)
    wrong = [
        ("vocab.json", "this is the vocabulary of byte-level BPE: open its folder with Tokenizer.load"),
        ("spiece.model", "this is a SentencePiece model: open it with Tokenizer.from_sentencepiece"),
        ("tokenizer.bin", "open llama2.c's tokenizer with Tokenizer.from_llama2c"),
    ]
    for name, message in wrong:
        with pytest.raises(UserError, match=f"{name}: expected a vocab.txt, .*{message}"):
            Tokenizer.from_vocab(tmp_path / name)
    (tmp_path / "vocab.txt").write_text("\n".join(small.roberta().vocab), encoding="utf-8")
    with pytest.raises(UserError, match=r"missing \[PAD\].*looks like byte-level BPE .* Tokenizer.from_merges or load"):
        Tokenizer.from_vocab(tmp_path / "vocab.txt")
    with pytest.raises(UserError, match=r"missing \[PAD\].*looks like SentencePiece"):
        Tokenizer.from_vocab([token for token in small.t5().vocab if token.isprintable()])
    with pytest.raises(UserError, match="256 bytes.*looks like BERT's WordPiece: open it with Tokenizer.from_vocab"):
        Tokenizer.from_merges(small.wordpiece().vocab, [])
    with pytest.raises(UserError, match="expected llama2.c's tokenizer"):
        Tokenizer.from_llama2c(tmp_path / "spiece.model")
    with pytest.raises(UserError, match="not a SentencePiece model"):
        Tokenizer.from_sentencepiece(tmp_path / "vocab.txt")


def test_weights_are_no_tokenizer(data):
    with pytest.raises(UserError, match="stories260K.bin: expected llama2.c's tokenizer, found a piece of"):
        Tokenizer.load(data / "ckpt_stories260k" / "stories260K.bin")
    with pytest.raises(UserError, match="encoder.json: expected ids 0 to 6, each once; 'Power' has 13434"):
        Tokenizer.load(data / "ckpt_toy_tf" / "keras-gpt-2" / "toy_checkpoint")


@pytest.mark.parametrize("name", ["tokenizer_config.json", "special_tokens_map.json"])
def test_settings_are_untrusted_too(tmp_path, name):
    small.roberta().save(tmp_path)
    (tmp_path / "tokenizer.json").unlink()
    for content in ("[]", "{", '{"add_prefix_space": 5}', '{"added_tokens_decoder": {"7": {"content": "zz"}}}'):
        (tmp_path / name).write_text(content)
        try:
            Tokenizer.load(tmp_path)
        except UserError as error:
            assert str(tmp_path) in str(error)
    for content in ('{"mask_token": 5}', '{"mask_token": "no such"}', '{"added_tokens_decoder": 5}'):
        (tmp_path / name).write_text(content)
        assert Tokenizer.load(tmp_path).mask_id == small.roberta().mask_id


@pytest.mark.parametrize("kind", ["wordpiece", "roberta", "gpt2", "unigram"])
def test_a_file_of_2020_names_no_model(kind, tmp_path):
    tokenizer = small.KINDS[kind]()
    tokenizer.save(tmp_path)
    path = tmp_path / "tokenizer.json"
    content = json.loads(path.read_text(encoding="utf-8"))
    del content["model"]["type"]
    path.write_text(json.dumps(content), encoding="utf-8")
    assert Tokenizer.load(tmp_path) == tokenizer


def test_llama_without_its_first_token(tmp_path):
    small.llama().save(tmp_path)
    path = tmp_path / "tokenizer_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"add_bos_token": False}))
    tokenizer = Tokenizer.load(tmp_path)
    assert tokenizer.encode("the dog", "a").tokens == ["▁the", "▁dog", "▁a"] and tokenizer.bos_id == 1
    tokenizer.save(tmp_path / "again")
    assert Tokenizer.load(tmp_path / "again") == tokenizer


def test_special_tokens_of_a_bert_that_were_added(tmp_path):
    """As transformers finds them, and after saving; in a tokenizer.json, in its settings, and in the files of 2019."""
    plain = small.wordpiece()
    plain.save(tmp_path / "a")
    content = json.loads((tmp_path / "a" / "tokenizer.json").read_text(encoding="utf-8"))
    size = len(plain)
    for i, special in ((size, True), (size + 1, False)):
        flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": special}
        content["added_tokens"].append({"id": i, "content": f"[E{i - size}]", **flags})
    (tmp_path / "a" / "tokenizer.json").write_text(json.dumps(content), encoding="utf-8")
    found = [Tokenizer.load(tmp_path / "a")]
    for name, settings in (
        ("tokenizer_config.json", {"added_tokens_decoder": {str(e["id"]): e for e in content["added_tokens"][-2:]}}),
        ("added_tokens.json", {"[E0]": size, "[E1]": size + 1}),
    ):
        (tmp_path / name).mkdir()
        (tmp_path / name / "vocab.txt").write_bytes((tmp_path / "a" / "vocab.txt").read_bytes())
        if name == "added_tokens.json":
            special = {"additional_special_tokens": [{"content": "[E0]"}], "do_lower_case": True}
            (tmp_path / name / "special_tokens_map.json").write_text(json.dumps(special))
        else:
            settings["do_lower_case"] = True
        (tmp_path / name / name).write_text(json.dumps(settings))
        found.append(Tokenizer.load(tmp_path / name))
    for i, tokenizer in enumerate(found):
        for each in (tokenizer, saved(tokenizer, tmp_path / f"saved{i}")):
            assert len(each) == size + 2
            assert each.encode("我[E0]我[E1]", specials=True).tokens[1:-1] == ["我", "[E0]", "我", "[E1]"], i
            assert "[E0]" not in each.encode("我[E0]我").tokens and "[E1]" in each.encode("我[E1]").tokens
    (tmp_path / "added_tokens.json" / "added_tokens.json").write_text(json.dumps({"[E0]": size + 1}))
    with pytest.raises(UserError, match=r"vocab.txt: the added token '\[E0\]' has the id"):
        Tokenizer.load(tmp_path / "added_tokens.json")


def saved(tokenizer: Tokenizer, folder: Path) -> Tokenizer:
    tokenizer.save(folder)
    return Tokenizer.load(folder)


def test_ids_that_are_not_the_models_own(tmp_path):
    """XLM-R's file begins as LLaMA's does, but its tokens are numbered otherwise."""
    small.llama().save(tmp_path)
    content = (tmp_path / "tokenizer.model").read_bytes()
    (tmp_path / "x").mkdir()
    (tmp_path / "x" / "sentencepiece.bpe.model").write_bytes(content)
    with pytest.raises(CheckpointError, match="found XLMRobertaTokenizer; use its tokenizer.json"):
        Tokenizer.load(tmp_path / "x")
    (tmp_path / "x" / "tokenizer_config.json").write_text('{"tokenizer_class": "LlamaTokenizer"}')
    assert len(Tokenizer.load(tmp_path / "x")) == len(small.llama())
