"""`maskplay pretrain`: what is wrong with text, recipe, flags or folder is one line, and nothing is left."""

import gzip
import json
import os
from pathlib import Path

from cli.faults import fault
from cli.test_pretrain import SMALL, text, whole  # noqa: F401  (fixtures)


def test_faults(capfd, text, whole: Path, tmp_path: Path) -> None:  # noqa: F811
    out = ["--out", tmp_path / "out", "--steps", 2, *SMALL]

    def file(name: str, content: bytes) -> Path:
        (tmp_path / name).write_bytes(content)
        return tmp_path / name

    for source, message in (
        (file("empty.txt", b""), "expected some text, found none"),
        (file("blank.txt", b"\n \n\n"), "expected some text, found none"),
        (file("one.txt", "一行。".encode()), "expected at least two sentences"),
        (file("one_word.txt", "一".encode()), "expected at least two sentences"),
        (file("control.txt", b"\0\0\n\1\2\n"), "expected some text, found none"),
        (file("empty.txt.gz", gzip.compress(b"")), "expected some text, found none"),
        (file("garbage.bin", bytes(range(256)) * 9), "garbage.bin, line 2: expected UTF-8, found byte 0x80"),
        (file("garbage.txt.gz", bytes(range(256)) * 9), "garbage.txt.gz, line 1: cannot be read on"),
        (file("garbage.jsonl", bytes(range(256)) * 9), "garbage.jsonl, line 2: expected UTF-8"),
        ("-", "-: standard input is read once"),
        ([text, "--seed", 2**32], "seed: expected less than 4294967296"),
        (tmp_path / "gone.txt", "gone.txt"),
    ):
        given = source if isinstance(source, list) else [source]
        assert message in fault(capfd, "pretrain", *given, *out), source
        # Nothing that looks like a run, or only tokens, which another recipe may need.
        assert bool([*tmp_path.glob("out*")]) == ("two sentences" in message), source
    recipe = file("recipe.toml", b"")
    for content, message in (
        (b"\xef\xbb\xbfstep = 3", "expected keys among family, hidden_size"),
        (b"steps = '3'", "steps: expected a value like 10000, found '3'"),
        (b"steps = true", "steps: expected a value like 10000, found True"),
        (b'model = "a\\u0000"', "model: expected a value like ''"),
        (b"steps = [", "not a TOML file"),
        (b"steps = " + b"[" * 5000, "not a TOML file"),
        (b"steps = " + b"1" * 5000, "not a TOML file"),
        (b"report_every = " + b"1" * 400, "report_every: expected at most 1000000000000, found 1111"),
        (b"\xff", "not a TOML file"),
    ):
        recipe.write_bytes(content)
        assert message in fault(capfd, "pretrain", text, *out, "--config", recipe), content
    no_mask = tmp_path / "vocab.json"
    no_mask.write_text(json.dumps({token: i for i, token in enumerate(["[PAD]", "[UNK]", "天"])}))
    (tmp_path / "vocab.txt").write_text("[PAD]\n[UNK]\n[CLS]\n[SEP]\n天\n", encoding="utf-8")
    for more, message in (
        (["--objective", "cloze"], "objective: expected some of mlm, mlm+sop"),
        (["--objective", "mlm:x"], "objective: expected names with weights"),
        (["--mask-rate", "2"], "mask_rate: expected a number between 0 and 1, found 2"),
        (["--as-mask", "2"], "as_mask: expected a number from 0 to 1, found 2"),
        (["--length", "4"], "length: expected at least 8 tokens, found 4"),
        (["--words", "thulac"], "words: expected jieba, or a file .arpa, .tsv or .txt, found 'thulac'"),
        (["--family", "t5x"], "family: expected one of bert"),
        (["--family", "t5", "--objective", "lm"], "a t5 has a decoder, which no objective here trains"),
        (["--family", "roberta"], "roberta has byte-level BPE or SentencePiece; give one with --vocab"),
        (["--family", "roberta", "--objective", "unilm"], "the objective unilm needs segments 0 and 1, this roberta"),
        (["--family", "bert", "--length", "4000"], "length: expected a whole number from 8 to 512, found 4000"),
        (["--family", "roformer_v2", "--init", "positions"], "init: positions needs biases in attention"),
        (["--family", "gpt", "--objective", "lm", "--init", "unigram"], "init: unigram needs scores of tokens with a"),
        (["--objective", "mlm:0"], "objective mlm: expected a weight above 0, found 0.0"),
        (["--objective", "mlm:-1"], "objective mlm: expected a weight above 0, found -1.0"),
        (["--objective", "mlm:1,mlm:2"], "objective: expected each name once, found 'mlm:1,mlm:2'"),
        (["--objective", "mlm,mlm+sop"], "objective: expected at least one, and one of each kind, found mlm, mlm+sop"),
        (["--objective", "mlm+nsp", "--batch-size", "1"], "batch_size: mlm+nsp expects at least 2"),
        (["--vocab-size", "50"], "vocab_size: expected at least 77 (special tokens, a-z and 0-9), found 50"),
        (["--vocab", no_mask], "vocab_size: the vocabulary"),
        (["--model", whole], f"vocab_size: the model {whole} has one already, found 100; leave it out"),
        (["--field", "body"], "field: 'body' is looked for in files .jsonl, .ndjson or .json; found"),
        (
            ["--objective", "simbert", "--field", "q,a"],
            "field: 'q,a' is looked for in files .jsonl, .ndjson or .json; found",
        ),
        (["--learning-rate", "nan"], "learning_rate: expected a number above 0"),
        (["--batch-size", "0"], "batch_size: expected at least 1, found 0"),
        (["--held-out", "1"], "held_out: expected a share between 0 and 1"),
        (["--vocab", tmp_path / "vocab.txt"], "missing [MASK]"),
        (["--model", whole, "--vocab", tmp_path / "vocab.txt"], "brings its own"),
        (["--model", whole, "--hidden-size", "64"], f"hidden_size: the model {whole} has 16, found 64"),
        (["--model", whole, "--family", "bert"], "a checkpoint of roformer, not of bert"),
        (["--tensorboard", tmp_path / "out" / "board"], "out, which appears at the end; choose another folder"),
        (["--hidden-size", "15"], "hidden_size"),
        (["--config", tmp_path / "gone.toml"], "gone.toml"),
    ):
        size = out.index("--vocab-size")  # said beside a vocabulary, it is a fault itself
        given = out[:size] + out[size + 2 :] if {"--vocab", "--model"} & {*more} and "vocab_" not in message else out
        assert message in fault(capfd, "pretrain", text, *given, *more), more
    again = fault(capfd, "pretrain", text, "--out", whole, "--model", whole)
    assert f"--out {whole}: {whole} is or lies in there and would be lost" in again
    again = fault(capfd, "pretrain", text, "--out", whole, "--vocab", whole / "vocab.txt")
    assert "would be lost; choose another name" in again and (whole / "model.safetensors").is_file()
    os.mkfifo(tmp_path / "pipe")
    assert "pipe: expected a file, found a pipe" in fault(capfd, "pretrain", tmp_path / "pipe", *out)
    (tmp_path / "taken").write_text("")
    assert "expected a folder to write to" in fault(capfd, "pretrain", text, "--out", tmp_path / "taken")
    assert not [*tmp_path.glob("out*")]
