"""What `maskplay.load` returns, and what it says of paths that are none."""

import itertools
from pathlib import Path

import keras
import numpy as np
import pytest

import maskplay as mp
from maskplay.text.byte_bpe import CHARACTER
from quantization import to_int8


@pytest.fixture(scope="module")
def tiny() -> mp.Pretrained:
    keras.utils.set_random_seed(0)
    tokenizer = mp.Tokenizer.from_characters(["科学技术是第一生产力"], max_size=100)
    config = mp.Config(
        vocab_size=len(tokenizer), hidden_size=8, num_layers=1, num_heads=2, intermediate_size=16, max_positions=32
    )
    return mp.Pretrained(mp.LanguageModel(config), tokenizer)


@pytest.mark.parametrize("top", [1, 7, 40])
def test_the_best_combinations_are_the_best_of_all(tiny: mp.Pretrained, top: int) -> None:
    encoding = tiny.tokenizer.encode("[MASK]学[MASK]", specials=True)
    logits = keras.ops.convert_to_numpy(tiny.logits([encoding.ids]))[0, [1, 3], : len(tiny.tokenizer)]
    first, second = np.exp(logits - logits.max(-1, keepdims=True))
    totals, special = first.sum() * second.sum(), tiny.tokenizer.ids(tiny.tokenizer.form.specials)
    words = np.setdiff1d(np.arange(len(tiny.tokenizer)), special)
    every = sorted((a * b / totals for a, b in itertools.product(first[words], second[words])), reverse=True)
    found = tiny.fill("[MASK]学[MASK]", top=top)
    np.testing.assert_allclose([candidate.score for candidate in found], every[:top], rtol=1e-4)


def test_very_many_candidates_are_refused_or_quick(tiny: mp.Pretrained) -> None:
    assert len(tiny.fill("[MASK]" * 9, top=3000)) == 3000  # not by way of 3000² combinations for each further blank
    for top in (0, 10**9):
        with pytest.raises(mp.UserError, match=f"top: expected a whole number from 1 to 100,000, found {top}"):
            tiny.fill("[MASK]", top=top)


@pytest.mark.parametrize("path", ["", " ", "a\0b", "bert\0"])
def test_what_is_no_path_is_told(path: str) -> None:
    with pytest.raises(mp.UserError) as error:
        mp.load(path)
    assert str(error.value) == f"expected a path or a hub id, found {path!r}"


def test_a_play_in_keras_own_file_is_told_from_a_checkpoint(tiny: mp.Pretrained, tmp_path: Path) -> None:
    mp.plays.Classify(tiny, ["a", "b"]).save(tmp_path / "play.keras")
    with pytest.raises(mp.UserError, match=r"play.keras: a play in Keras' own file: keras.saving.load_model opens it"):
        mp.load(tmp_path / "play.keras")
    tiny.network.save(tmp_path / "network.keras")
    assert mp.load(tmp_path / "network.keras").config == tiny.config
    (tmp_path / "no.keras").write_bytes(b"PK" * 50)
    with pytest.raises(mp.CheckpointError):
        mp.load(tmp_path / "no.keras")


def speaker(tiny: mp.Pretrained, family: str, **changes: object) -> mp.Pretrained:
    """A random network of a family that generates, large enough in its weights to have something to say."""
    row = mp.families.family(family).config
    sizes = dict(vocab_size=len(tiny.tokenizer), hidden_size=16, num_layers=2, num_heads=2, intermediate_size=24)
    network = mp.LanguageModel(row.but(**{**sizes, "head_size": None, **changes}), ["lm"])
    network.build()
    draw = np.random.default_rng(3)
    for weight in network.weights:
        weight.assign(draw.normal(0, 0.7, weight.shape))
    return mp.Pretrained(network, tiny.tokenizer, family)


def test_a_decoder_goes_on_with_the_likeliest_tokens(tiny: mp.Pretrained) -> None:
    """Cached and compiled as without either."""
    gpt = speaker(tiny, "gpt")
    ids = tiny.tokenizer.encode("科学").ids[:-1]  # the prompt is not over: no [SEP]
    ends = {tiny.tokenizer.sep_id, tiny.tokenizer.eos_id}
    for _ in range(8):
        row = np.array([ids + [0] * (16 - len(ids))])  # of one length, which is compiled once; none sees what follows
        scores = keras.ops.convert_to_numpy(gpt.logits(row, mask=mp.masks.causal()))[0, len(ids) - 1]
        if (best := int(scores.argmax())) in ends:
            break
        ids.append(best)
    assert gpt.generate("科学", max_new=8) == tiny.tokenizer.decode(ids)
    with pytest.raises(mp.UserError, match="max_new is 600, but the network has 512 positions"):
        gpt.generate("科学", max_new=600)
    with pytest.raises(mp.UserError, match="max_new: expected a whole number from 1 to 65,536"):
        gpt.generate("科学", max_new=0)
    with pytest.raises(mp.UserError, match="a gpt has no scores for blanks: generate"):
        gpt.fill("科[MASK]")  # its scores are of the token behind
    headless = mp.Pretrained(mp.LanguageModel(gpt.config, []), tiny.tokenizer, "gpt")
    with pytest.raises(mp.UserError, match="this gpt has no head 'lm'"):
        headless.generate("科学")
    with pytest.raises(mp.UserError, match="a bert does not generate text"):
        tiny.generate("科学")


def test_a_decoder_goes_on_with_what_it_has_learnt_since(tiny: mp.Pretrained) -> None:
    """LoRA brings variables that the step compiled before does not know."""
    gpt = speaker(tiny, "gpt")
    before = gpt.generate("科学", max_new=6)
    dense = gpt.encoder.layers_in_order[-1].feed.outer
    dense.enable_lora(2)
    for weight in (dense.lora_kernel_a, dense.lora_kernel_b):
        weight.assign(np.random.default_rng(0).normal(0, 9, weight.shape))
    after = gpt.generate("科学", max_new=6)
    assert after == mp.Pretrained(gpt.network, tiny.tokenizer, "gpt").generate("科学", max_new=6) != before


def test_prompts_and_answers_of_any_length(tiny: mp.Pretrained) -> None:
    """TensorFlow compiles the second length for all that follow: then it knows no length."""
    for family, changes in (("gpt", {}), ("t5_pegasus", {"num_decoder_layers": 1})):
        one = speaker(tiny, family, **changes)
        for prompt, most in (("科学", 3), ("科学技术是", 5), ("科", 8)):
            again = mp.Pretrained(one.network, tiny.tokenizer, family)
            assert one.generate(prompt, max_new=most) == again.generate(prompt, max_new=most), (family, prompt)


def test_vectors_are_those_of_the_network_as_it_is(tiny: mp.Pretrained) -> None:
    """LoRA and quantization bring variables that the encoder compiled before does not know."""
    gpt = speaker(tiny, "gpt")
    found = [gpt.encode("科学")]
    dense = gpt.encoder.layers_in_order[-1].feed.outer
    dense.enable_lora(2)
    for weight in (dense.lora_kernel_a, dense.lora_kernel_b):
        weight.assign(np.random.default_rng(0).normal(0, 9, weight.shape))
    found.append(gpt.encode("科学"))
    to_int8(gpt.network)
    found.append(gpt.encode("科学"))
    alone = mp.Pretrained(gpt.network, tiny.tokenizer, "gpt").encode("科学")
    np.testing.assert_array_equal(found[2], alone)
    assert abs(found[1] - found[0]).max() > 0.1 and abs(found[2] - found[1]).max() > 1e-4


def test_rows_that_are_no_tokens_are_never_said(tiny: mp.Pretrained) -> None:
    gpt = speaker(tiny, "gpt", vocab_size=len(tiny.tokenizer) + 8)
    table = keras.ops.convert_to_numpy(gpt.encoder.embedding.token.embeddings).copy()
    table[-8:] = 99.0 * np.sign(np.random.default_rng(0).normal(size=(8, table.shape[1])))
    gpt.encoder.embedding.token.embeddings.assign(table)
    scores = keras.ops.convert_to_numpy(gpt.logits(np.array([tiny.tokenizer.encode("科学").ids[:-1]])))[0, -1]
    assert scores.argmax() >= len(tiny.tokenizer)
    assert gpt.generate("科学", max_new=3).startswith("科学")


def test_an_encoder_with_a_decoder_answers(tiny: mp.Pretrained) -> None:
    t5 = speaker(tiny, "t5_pegasus", num_decoder_layers=1)
    tokens, said = np.array([tiny.tokenizer.encode("科学技术").ids]), [tiny.tokenizer.cls_id]
    for _ in range(6):
        scores = t5.logits(tokens, decoder_tokens=np.array([said + [0] * (8 - len(said))]))
        best = int(keras.ops.convert_to_numpy(scores)[0, len(said) - 1].argmax())
        if best in {tiny.tokenizer.sep_id, tiny.tokenizer.eos_id}:
            break
        said.append(best)
    assert t5.generate("科学技术", max_new=6) == tiny.tokenizer.decode(said[1:])
    with pytest.raises(mp.UserError, match="a t5_pegasus has no scores for blanks"):
        t5.fill("科[MASK]")
    with pytest.raises(mp.UserError, match="max_new: expected a whole number from 1 to 65,536, found 10000000000000"):
        t5.generate("科学", max_new=10**13)  # no position bounds it


def test_a_mask_of_another_spelling(tiny: mp.Pretrained) -> None:
    tokens = ["<s>", "<pad>", "</s>", "<unk>", "<mask>", *CHARACTER.values(), "Ġa", "Ġb"]
    merges = [("Ġ", "a"), ("Ġ", "b")]
    roberta = mp.Tokenizer.from_merges({token: i for i, token in enumerate(tokens)}, merges, form="roberta")
    config = tiny.config.but(vocab_size=len(tokens), position="learned_after_pad", pad_id=1)
    b = mp.Pretrained(mp.LanguageModel(config), roberta, "roberta")
    wanted = [i for i in (roberta.vocab["Ġa"], roberta.vocab["b"])]
    b.network.mlm.bias.assign(np.where(np.isin(np.arange(len(tokens)), wanted), 99.0, 0.0))
    for text in ("b [MASK] a[MASK].", "b <mask> a<mask>."):
        found = b.fill(text, top=4)
        assert sorted(candidate.text for candidate in found) == ["b a aa.", "b a ab.", "b b aa.", "b b ab."], text
        assert {candidate.token for candidate in b.fill("b [MASK]", top=2)} == {"a", "b"}
    with pytest.raises(mp.UserError, match="expected a text with .MASK. in it, found 'a mask'"):
        b.fill("a mask")


def test_vectors_of_what_reads_from_left_to_right(tiny: mp.Pretrained) -> None:
    gpt = speaker(tiny, "gpt")
    with pytest.raises(mp.UserError, match="the first token of a gpt sees no other: expected 'mean', found 'cls'"):
        gpt.encode("科学", pool="cls")
    whole, begun = gpt.encode(["科学技术", "科学"])
    np.testing.assert_array_equal([whole, begun], gpt.encode(["科学技术", "科学"], pool="mean"))
    assert abs(whole - begun).max() > 0.01
    np.testing.assert_array_equal(tiny.encode(["科学", "技"]), tiny.encode(["科学", "技"], pool="cls"))
    network = mp.LanguageModel(gpt.config.but(pad_id=None), heads=["lm"])
    network.build()
    network.set_weights(gpt.network.get_weights())
    alike = mp.Pretrained(network, tiny.tokenizer, "gpt")
    np.testing.assert_allclose(alike.encode(["科学", "科"]), gpt.encode(["科学", "科"]), rtol=0, atol=1e-5)
    conditioned = mp.Pretrained(mp.LanguageModel(tiny.config.but(condition_size=4)), tiny.tokenizer)
    with pytest.raises(mp.UserError, match="encode: this network takes a condition"):
        conditioned.encode("科学")


def test_a_text_without_any_token_has_no_vector(tiny: mp.Pretrained) -> None:
    tokens = ["<|endoftext|>", *CHARACTER.values(), "ab"]
    tokenizer = mp.Tokenizer.from_merges({token: i for i, token in enumerate(tokens)}, [("a", "b")], form="gpt2")
    gpt = mp.families.family("gpt2").config.but(vocab_size=len(tokens), hidden_size=8, num_layers=1, num_heads=2)
    b = mp.Pretrained(mp.LanguageModel(gpt.but(intermediate_size=8), ["lm"]), tokenizer, "gpt2")
    assert b.encode(["ab", "b"], pool="mean").shape == (2, 8)
    with pytest.raises(mp.UserError, match="encode: text 2 has no token"):
        b.encode(["ab", ""], pool="mean")


def test_a_vocabulary_of_another_kind_is_refused(tiny: mp.Pretrained) -> None:
    tokens = ["<s>", "<pad>", "</s>", "<unk>", "<mask>", *CHARACTER.values()]
    roberta = mp.Tokenizer.from_merges({token: i for i, token in enumerate(tokens)}, [], form="roberta")
    network = mp.LanguageModel(tiny.config.but(vocab_size=len(tokens)))
    with pytest.raises(mp.UserError, match="byte-level BPE, as roberta, gpt2, llama have; bert has WordPiece"):
        mp.Pretrained(network, roberta, "bert")


def test_other_types_are_told(tiny: mp.Pretrained) -> None:
    for wrong, told in (
        (lambda: tiny.fill(["a[MASK]"]), "fill: expected one text, found a list"),
        (lambda: tiny.fill("[MASK]", top="3"), "top: expected a whole number from 1 to 100,000, found '3'"),
        (lambda: tiny.encode(3), "encode: expected texts, found a int"),
        (lambda: tiny.encode(b"abc"), "encode: expected texts, found a bytes"),
        (lambda: tiny.encode("a", batch_size="4"), "batch_size: expected a whole number from 1 on, found '4'"),
        (lambda: tiny.encode("a", max_length=0), "max_length: expected a whole number from 1 .*, found 0"),
        (lambda: tiny.generate(None), "generate: expected one text, found a NoneType"),
        (lambda: mp.Tokenizer("vocab.txt"), r"'vocab.txt': a file is opened with Tokenizer.load\(path\)"),
        (lambda: tiny.save("x.keras"), r"x.keras: save makes a folder; network.save\(…\) writes Keras' own file"),
        (lambda: mp.load("bundled:zh-small", config=5), "config: expected a file, a dictionary or a Config, found 5"),
        (lambda: mp.LanguageModel("bert"), "config: expected a Config or a dictionary of its fields, found 'bert'"),
    ):
        with pytest.raises(mp.UserError, match=told):
            wrong()
