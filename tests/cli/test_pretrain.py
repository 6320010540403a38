"""`maskplay pretrain`: raw text to a checkpoint that others open, faults in one line, and a run that is killed."""

import errno
import gzip
import hashlib
import inspect
import json
import os
import random
import signal
import subprocess
import time
from pathlib import Path

import keras
import numpy as np
import pytest
from safetensors.numpy import load_file

import maskplay as mp
from cli.faults import call, fault, start
from cli.test_fit import wait_for
from maskplay import callbacks, pretext, pretrained
from maskplay.cli.pretrain import digest, documents, way_of
from maskplay.cli.recipe import settle
from maskplay.language_model import named_weights

SMALL = ("--hidden-size", 16, "--num-layers", 1, "--num-heads", 2, "--intermediate-size", 32, "--vocab-size", 100,
         "--length", 24, "--batch-size", 4, "--held-out", 0.2)  # fmt: skip


@pytest.fixture(scope="module")
def text(tmp_path_factory) -> Path:
    draw = np.random.default_rng(0)
    lines = ["".join(draw.choice([*"天地玄黄宇宙洪荒"], size)) + "。" for size in draw.integers(4, 30, 120)]
    lines[60] = ""
    path = tmp_path_factory.mktemp("text") / "text.txt"
    path.write_text("\n".join(lines), encoding="utf-8")
    return path


def command(text: Path, out: Path, *more: object) -> list[object]:
    return ["pretrain", text, "--out", out, "--steps", 40, "--report-every", 10, "--save-every", 0, *SMALL, *more]


def history(out: Path) -> list[dict[str, float]]:
    """The figures of a run but its speed."""
    rows = json.loads((out / "metrics.json").read_text("utf-8"))["history"]
    return [{name: value for name, value in row.items() if name != "tokens_per_second"} for row in rows]


@pytest.fixture(scope="module")
def whole(text, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("whole") / "out"
    assert call(*command(text, out)) == 0
    return out


def test_the_result_is_whole_and_opens(whole: Path) -> None:
    assert os.listdir(whole.parent) == ["out"]
    bert = mp.load(whole)
    assert (bert.family, bert.config.num_layers, bert.config.position) == ("roformer", 1, "rotary")
    assert len(bert.fill("天地[MASK]黄")) == 5
    figures = json.loads((whole / "metrics.json").read_text("utf-8"))
    assert [row["step"] for row in figures["history"]] == [10, 20, 30, 40]
    assert figures["tokens"]["filled"] > 0.8 and figures["tokens"]["corpus"] > 1500
    table = (whole / "history.csv").read_text("utf-8").splitlines()
    assert table[0] == "step,accuracy,loss,val_accuracy,val_loss,learning_rate,tokens_per_second"
    assert len(table) == 5 and table[4].startswith("40,") and float(table[4].split(",")[-1]) > 0
    # Google's files, which bert4keras opens, hold the same network.
    google = mp.load(whole / "bert_model.ckpt", config=whole / "bert_config.json", family="roformer")
    for weight, other in zip(bert.network.weights, google.network.weights):
        np.testing.assert_array_equal(*(keras.ops.convert_to_numpy(w) for w in (weight, other)), err_msg=weight.path)


def test_every_key_of_a_recipe_is_a_flag() -> None:
    from maskplay.cli import pretrain, recipe

    assert {*recipe.RECIPE} <= {*inspect.signature(pretrain.pretrain).parameters}


def test_transformers_opens_it(whole: Path) -> None:
    transformers = pytest.importorskip("transformers")
    torch = pytest.importorskip("torch")
    bert = mp.load(whole)
    tokens = bert.tokenizer.encode("天地[MASK]黄", specials=True).ids
    theirs = transformers.RoFormerForMaskedLM.from_pretrained(whole).eval()
    with torch.no_grad():
        logits = theirs(torch.tensor([tokens])).logits.numpy()
    ours = keras.ops.convert_to_numpy(bert.logits(np.array([tokens])))
    np.testing.assert_allclose(ours, logits, atol=1e-4)


def test_killed_again_and_again_it_ends_like_a_whole_one(capfd, text, whole: Path, tmp_path: Path) -> None:
    out, running = tmp_path / "out", tmp_path / "out.running"
    silent = dict(stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    state = running / "state.safetensors"
    for _ in range(3):
        before = state.stat().st_mtime_ns if state.exists() else 0
        process = start(*command(text, out), **silent)
        wait_for(state, process)
        while state.exists() and state.stat().st_mtime_ns == before and process.poll() is None:
            time.sleep(0.02)  # until it has gone on from there
        time.sleep(random.uniform(0, 0.3))
        process.send_signal(signal.SIGKILL)
        process.wait()
        if out.exists():
            break  # it was faster than we were
        assert os.listdir(tmp_path) == ["out.running"]
    capfd.readouterr()
    assert out.exists() or call(*command(text, out)) == 0
    assert os.listdir(tmp_path) == ["out"]
    same_weights(out, whole)
    assert [pytest.approx(row, abs=1e-5) for row in history(out)] == history(whole)


def test_ctrl_c_and_another_recipe(capfd, text, tmp_path: Path) -> None:
    out, running = tmp_path / "out", tmp_path / "out.running"
    process = start(*command(text, out, "--steps", 100_000), stderr=subprocess.PIPE, stdout=subprocess.PIPE)
    wait_for(running / "state.safetensors", process)
    process.send_signal(signal.SIGINT)
    printed, told = process.communicate()
    assert (process.returncode, printed) == (130, ""), told
    assert told.splitlines()[-1] == "maskplay: interrupted" and os.listdir(tmp_path) == ["out.running"]
    err = fault(capfd, *command(text, out, "--steps", 100_000, "--seed", 1))
    assert f"{running}: holds an unfinished run with seed 0, now it is 1" in err
    # What changes nothing of the result may change; --restart begins afresh, also with the vocabulary.
    assert call(*command(text, out, "--restart", "--vocab-size", 90, "--steps", 2)) == 0
    assert "going on" not in capfd.readouterr().err and os.listdir(tmp_path) == ["out"]
    assert len(mp.load(out).tokenizer) <= 90


def test_a_recipe_and_flags_over_it(capfd, text, tmp_path: Path) -> None:
    recipe = tmp_path / "recipe.toml"
    recipe.write_text(
        'objective = {"mlm+sop" = 1, lm = 0.5}\nhidden_size = 16\nnum_layers = 1\nnum_heads = 2\n'
        "intermediate_size = 32\nlength = 24\nbatch_size = 4\nsteps = 99\nheld_out = 0.2\nlearning_rate = 1\n"
    )
    packed = tmp_path / "text.gz"
    packed.write_bytes(gzip.compress(text.read_bytes()))
    json_lines = tmp_path / "text.jsonl"
    json_lines.write_text("\n".join(json.dumps({"body": line}) for line in text.read_text("utf-8").splitlines()))
    options = ["--config", recipe, "--steps", 3, "--learning-rate", 1e-3, "--family", "bert", "--field", "body"]
    assert call("pretrain", json_lines, packed, "--out", tmp_path / "out", *options) == 0
    settings = json.loads((tmp_path / "out" / "metrics.json").read_text("utf-8"))["settings"]
    assert (settings["steps"], settings["learning_rate"], settings["batch_size"]) == (3, 1e-3, 4)
    assert settings["objective"] == "mlm+sop,lm:0.5"
    bert = mp.load(tmp_path / "out")
    assert bert.family == "bert" and bert.network.heads == ("pooler", "nsp", "mlm")
    # A checkpoint goes on, with its own vocabulary and shape.
    more = ["--model", tmp_path / "out", "--steps", 2, "--length", 24, "--batch-size", 4, "--objective", "unilm"]
    assert call("pretrain", text, "--out", tmp_path / "more", "--held-out", 0.2, "--accumulate", 2, *more) == 0
    assert mp.load(tmp_path / "more").tokenizer == bert.tokenizer
    settings = json.loads((tmp_path / "more" / "metrics.json").read_text("utf-8"))["settings"]
    assert (settings["family"], settings["hidden_size"], settings["num_layers"]) == ("bert", 16, 1)
    assert settings["accumulate"] == 2


def test_weights_in_a_table_or_a_flag_are_one_recipe(tmp_path: Path) -> None:
    recipe = tmp_path / "recipe.toml"
    recipe.write_text("objective = {mlm = 1, unilm = 2}\n")
    assert settle(recipe, {}) == settle(None, {"objective": "mlm,unilm:2"})


def test_what_is_hidden_and_how_reaches_the_play(text, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given = {}

    class Told(mp.plays.Pretrain):
        def __init__(self, *args: object, **kwargs: object) -> None:
            super().__init__(*args, **kwargs)
            given.update(rate=self.mask_rate, as_mask=self.as_mask, length=self.length)

        def steps(self, *args: object, accumulate: int = 1, **kwargs: object) -> None:
            given.update(accumulate=accumulate)
            raise mp.UserError("that is all")

    monkeypatch.setattr("maskplay.cli.pretrain.Pretrain", Told)
    how = ["--mask-rate", 0.3, "--as-mask", 1, "--length", 24, "--vocab-size", 90, "--accumulate", 4]
    assert call("pretrain", text, "--out", tmp_path / "out", *how) == 2
    assert given == {"rate": 0.3, "as_mask": 1.0, "length": 24, "accumulate": 4}


def test_the_seed_decides_everything_of_a_model_that_goes_on(whole, text, tmp_path: Path) -> None:
    """Its dropout too, whose generators come into being when it is loaded."""
    assert mp.load(whole).config.dropout > 0
    more = ["--model", whole, "--steps", 4, "--length", 24, "--batch-size", 4, "--held-out", 0.2]
    for name in ("one", "two"):
        assert call("pretrain", text, "--out", tmp_path / name, *more) == 0
    one, two = (load_file(tmp_path / name / "model.safetensors") for name in ("one", "two"))
    assert all(np.array_equal(one[name], two[name]) for name in one)


def test_what_a_fresh_network_knows_and_how_it_learns(capfd, text, tmp_path: Path) -> None:
    informed = ["--init", "unigram,positions", "--optimizer", "muon", "--learning-rate", 1e-9, "--dropout", 0]
    try:
        for name, options in {"plain": [], "informed": [*informed, "--precision", "bfloat16", "--decay", 2]}.items():
            assert call(*command(text, tmp_path / name, "--steps", 2, "--report-every", 2, *options)) == 0
            network = mp.load(tmp_path / name).network
            assert network.encoder.compute_dtype == ("float32" if name == "plain" else "bfloat16")
            bias = network.encoder.blocks[0].attention.key.bias
            assert (np.abs(keras.ops.convert_to_numpy(bias)).max() > 0.5) == (name == "informed")
    finally:
        keras.config.set_dtype_policy("float32")
    losses = [
        json.loads((tmp_path / name / "metrics.json").read_text("utf-8"))["history"][-1]["val_loss"]
        for name in ("plain", "informed")
    ]
    assert losses[1] < losses[0] - 0.2  # it knows the frequencies; nothing is learnt at such a rate
    config = json.loads((tmp_path / "informed" / "config.json").read_text("utf-8"))
    assert config["hidden_dropout_prob"] == config["attention_probs_dropout_prob"] == 0
    capfd.readouterr()
    told = {
        ("--optimizer", "adam"): "optimizer: expected one of adamw, lamb, muon, found 'adam'",
        ("--precision", "half"): "precision: expected one of float32, bfloat16, float16, found 'half'",
        ("--dropout", "1"): "dropout: expected 0 or more and less than 1, found 1.0",
        ("--init", "unigram,bigram"): "init: expected some of unigram, ppmi, positions, found 'bigram'",
        ("--init", "unigram", "--model", tmp_path / "plain"): f"init: the model {tmp_path / 'plain'} has weights",
        ("--init", "positions", "--family", "bert"): "init: positions needs rotary positions, the family bert has",
        ("--decay", "99"): "warmup: expected no more steps than the run has, 40; found 4 of warmup and 99 of decay",
        ("--warmup", "41"): "warmup: expected no more steps than the run has, 40; found 41 of warmup",
        ("--objective", "simbert", "--batch-size", "3"): "batch_size: simbert expects an even number from 4 on",
    }
    for options, line in told.items():
        assert line in fault(capfd, *command(text, tmp_path / "other", *options)), options
    assert sorted(os.listdir(tmp_path)) == ["informed", "plain"]


def test_records_are_documents_and_leftovers_go(tmp_path: Path) -> None:
    draw = np.random.default_rng(0)
    texts = ["\n\n".join("".join(draw.choice([*"天地玄黄"], 5)) + "。" for _ in range(3)) for _ in range(40)]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in texts), encoding="utf-8")
    assert [*documents([tmp_path / "a.jsonl"], "text")] == [text.split("\n") for text in texts]
    (tmp_path / ".out.killed.part").mkdir()  # by a run that was killed while it wrote
    (tmp_path / ".outer.other.part").mkdir()
    assert call(*command(tmp_path / "a.jsonl", tmp_path / "out", "--steps", 1)) == 0
    assert sorted(os.listdir(tmp_path)) == [".outer.other.part", "a.jsonl", "out"]


def test_words_of_a_file(capfd, text, tmp_path: Path) -> None:
    """They are known by what is in the file: another one of that name is another run."""
    vocab, out = tmp_path / "words.tsv", tmp_path / "out"
    vocab.write_text("天地\t3\n玄黄\t2\n", encoding="utf-8")
    assert call(*command(text, out, "--words", vocab, "--steps", 1)) == 0
    settings = json.loads((out / "metrics.json").read_text("utf-8"))["settings"]
    assert settings["words"] == {"file": str(vocab), "sha256": hashlib.sha256(vocab.read_bytes()).hexdigest()}
    capfd.readouterr()
    vocab.write_text("天地\t3\n玄黄\n", encoding="utf-8")
    err = fault(capfd, *command(text, tmp_path / "other", "--words", vocab))
    assert f"{vocab}, line 2: expected a word and its count" in err


def test_pairs(capfd, tmp_path: Path) -> None:
    draw = np.random.default_rng(0)
    texts = ["".join(draw.choice([*"天地玄黄宇宙洪荒"], 6)) for _ in range(60)]
    table, lines = tmp_path / "pairs.tsv", tmp_path / "pairs.jsonl"
    table.write_text("".join(f"{a}\t{b}\n" for a, b in zip(texts[:15], texts[15:30])), encoding="utf-8")
    rows = ({"q": a, "a": b} for a, b in zip(texts[30:45], texts[45:]))
    lines.write_text("".join(json.dumps(row) + "\n" for row in rows))
    options = ["--objective", "simbert", "--family", "simbert", "--steps", 3, *SMALL]
    assert call("pretrain", table, lines, "--field", "q,a", "--out", tmp_path / "out", *options) == 0
    bert = mp.load(tmp_path / "out")
    assert (bert.network.heads, bert.config.pooler_activation) == (("pooler", "mlm"), "linear")
    assert bert.encode(texts[:3], pool="pooler").shape == (3, 16)
    figures = json.loads((tmp_path / "out" / "metrics.json").read_text("utf-8"))
    assert figures["tokens"]["corpus"] == 60 * 6 and "val_similar_accuracy" in figures["history"][0]
    capfd.readouterr()
    with open(table, "a", encoding="utf-8") as file:
        file.write("天地玄黄\n")
    err = fault(capfd, "pretrain", table, "--out", tmp_path / "more", *options)
    assert "pairs.tsv, line 16: expected two texts with a tab between, found '天地玄黄'" in err
    assert "pairs.jsonl, line 1: expected an object with a string 'text'" in fault(
        capfd, "pretrain", lines, "--out", tmp_path / "more", *options
    )
    assert sorted(os.listdir(tmp_path)) == ["out", "pairs.jsonl", "pairs.tsv"]


def same_weights(out: Path, whole: Path) -> None:
    ours, theirs = load_file(out / "model.safetensors"), load_file(whole / "model.safetensors")
    assert ours.keys() == theirs.keys()
    for name in ours:
        np.testing.assert_allclose(ours[name], theirs[name], atol=1e-6, err_msg=name)


def killed(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> None:
    """Run a command that is stopped after the first report."""
    real = callbacks.Resume.on_train_batch_end

    def stop(self, batch: int, logs=None) -> None:
        real(self, batch, logs)
        if self.epoch == 1:
            raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(callbacks.Resume, "on_train_batch_end", stop)
        assert call(*arguments) == 130


def test_a_result_among_the_text_is_no_text(capfd, text, monkeypatch, tmp_path: Path) -> None:
    folder = tmp_path / "texts"
    folder.mkdir()
    (folder / "a.txt").write_bytes(text.read_bytes())
    again = command(folder, folder / "out", "--steps", 4, "--report-every", 2, "--tensorboard", folder / "figures")
    killed(monkeypatch, *again)
    assert sorted(os.listdir(folder)) == ["a.txt", "figures", "out.running"]
    capfd.readouterr()
    assert call(*again) == 0
    assert "going on with the run that stopped after step" in capfd.readouterr().err
    figures = json.loads((folder / "out" / "metrics.json").read_text("utf-8"))
    assert figures["settings"]["PATH"]["file"] == str(folder / "a.txt")
    killed(monkeypatch, *again)  # the first result lies there meanwhile
    assert call(*again, "--restart") == 0
    assert json.loads((folder / "out" / "metrics.json").read_text("utf-8"))["tokens"] == figures["tokens"]
    (folder / "a.txt").unlink()
    capfd.readouterr()
    assert "found only what lies in --out" in fault(capfd, *again)


def test_the_same_bytes_read_in_another_way_are_another_run(capfd, monkeypatch, tmp_path: Path) -> None:
    lines = [json.dumps({"text": line}, ensure_ascii=False) for line in ["天地玄黄。", "宇宙洪荒。"] * 60]
    (tmp_path / "a.txt").write_text("\n".join(lines), encoding="utf-8")
    killed(monkeypatch, *command(tmp_path / "a.txt", tmp_path / "out", "--steps", 4, "--report-every", 2))
    (tmp_path / "a.txt").rename(tmp_path / "a.jsonl")
    capfd.readouterr()
    err = fault(capfd, *command(tmp_path / "a.jsonl", tmp_path / "out", "--steps", 4, "--report-every", 2))
    assert "holds an unfinished run with PATH" in err
    # Of plain text the digest is what it always was.
    found = digest([tmp_path / "a.jsonl"]), digest([(tmp_path / "a.jsonl").rename(tmp_path / "a.txt")])
    whole = hashlib.sha256(hashlib.sha256((tmp_path / "a.txt").read_bytes()).digest()).hexdigest()
    assert found[1]["sha256"] == whole != found[0]["sha256"]
    cased, lower = (mp.Tokenizer.from_vocab([*mp.Tokenizer.from_characters("天", 90).vocab], each) for each in (0, 1))
    assert way_of(cased) == "WordPiece cased" and not way_of(lower)


def test_another_recipe_takes_the_tokens_that_are_there(capfd, text, monkeypatch, tmp_path: Path) -> None:
    again = command(text, tmp_path / "out", "--steps", 4, "--report-every", 4)
    assert call(*again, "--save-every", 99, "--learning-rate", 1e30) == 2
    assert "training has diverged" in capfd.readouterr().err
    assert [*(tmp_path / "out.running").glob("prepared-*/tokens")]
    monkeypatch.delattr(pretext, "prepare")
    assert call(*again) == 0 and os.listdir(tmp_path) == ["out"]


@pytest.mark.parametrize("objective", ["simbert", "mlm+sop"])
def test_a_model_gets_the_heads_it_lacks(capfd, objective: str, text, whole: Path, tmp_path: Path) -> None:
    table = tmp_path / "pairs.tsv"
    table.write_text("".join(f"怎么退货{i}\t如何退货{i}\n" for i in range(20)), encoding="utf-8")
    model, source = whole, table if objective == "simbert" else text
    options = ["--model", model, "--objective", objective, "--length", 24, "--batch-size", 4, "--held-out", 0.2]
    capfd.readouterr()
    assert call("pretrain", source, "--out", tmp_path / "out", "--steps", 2, "--learning-rate", 1e-9, *options) == 0
    lacking = "pooler" if objective == "simbert" else "pooler and nsp"
    assert f"{model}: has no head {lacking}; begun afresh\n" in capfd.readouterr().err
    before, after = mp.load(model), mp.load(tmp_path / "out")
    assert {*after.network.heads} == {*before.network.heads, *lacking.split(" and ")}
    old, new = (named_weights(each.network) for each in (before, after))
    for name, weight in old.items():
        pair = [keras.ops.convert_to_numpy(each) for each in (weight, new[name])]
        np.testing.assert_allclose(*pair, atol=1e-6, err_msg=name)


def test_a_model_is_what_it_is_said_to_be(text, whole: Path, tmp_path: Path) -> None:
    """Also where it is read twice, for a head that it lacks."""
    mp.load(whole).save(tmp_path / "similar", format="google")
    config = tmp_path / "similar" / "bert_config.json"
    values = json.loads(config.read_text("utf-8"))
    config.write_text(json.dumps({name: value for name, value in values.items() if name != "model_type"}))
    (tmp_path / "pairs.tsv").write_text("".join(f"怎么退货{i}\t如何退货{i}\n" for i in range(20)), encoding="utf-8")
    options = ["--steps", 1, "--length", 24, "--batch-size", 4, "--held-out", 0.2, "--objective", "simbert"]
    model = ["--model", tmp_path / "similar", "--family", "roformer_sim"]
    assert call("pretrain", tmp_path / "pairs.tsv", "--out", tmp_path / "out", *options, *model) == 0
    made = mp.load(tmp_path / "out")
    assert (made.family, made.config.pooler_activation) == ("roformer_sim", "linear")
    assert json.loads((tmp_path / "out" / "metrics.json").read_text("utf-8"))["settings"]["family"] == "roformer_sim"


@pytest.mark.parametrize("room", [1_000, 20_000], ids=["while the text is encoded", "when the state is saved"])
def test_a_file_that_cannot_grow(capfd, text, room: int, tmp_path: Path) -> None:
    resource = pytest.importorskip("resource")
    out, running = tmp_path / "out", tmp_path / "out.running"
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (room, before[1]))
    try:
        code = call(*command(text, out))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    told = capfd.readouterr().err.splitlines()[-1]
    assert code == 2 and told.startswith(f"maskplay: {running}: ") and told.endswith("the same command goes on"), told
    assert os.listdir(tmp_path) == ["out.running"] and not [*running.rglob("*.part")]
    assert not (running / "state.safetensors").exists() and [*running.rglob("tokens")] == (
        [] if room == 1_000 else [next(running.glob("prepared-*")) / "tokens"]
    )


@pytest.mark.parametrize("where", ["state", "result"])
def test_a_full_disk_costs_nothing_that_was_saved(capfd, text, whole, where: str, tmp_path: Path, monkeypatch) -> None:
    out, saved = tmp_path / "out", []
    write, save = callbacks.write_arrays, pretrained.save_everywhere

    def full(path: Path, *arguments: object) -> None:
        saved.append(path)
        if len(saved) == 3:
            write(path.with_name("half"), *arguments)
            (path.parent / "half").unlink()
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        write(path, *arguments)

    def half(folder: Path, *arguments: object) -> None:
        save(folder, *arguments)
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patched:
        if where == "state":
            patched.setattr(callbacks, "write_arrays", full)
        else:
            patched.setattr(pretrained, "save_everywhere", half)
        assert call(*command(text, out)) == 2
    told = capfd.readouterr().err.splitlines()[-1]
    assert "out.running: No space left on device; when there is room again, the same command goes on" in told
    assert os.listdir(tmp_path) == ["out.running"]
    assert call(*command(text, out)) == 0
    assert "going on with the run that stopped after step" in capfd.readouterr().err and os.listdir(tmp_path) == ["out"]
    same_weights(out, whole)


@pytest.mark.skipif(keras.backend.backend() != "jax", reason="simulated devices are JAX's")
def test_four_devices_do_as_one(capfd, text, whole: Path, tmp_path: Path, monkeypatch) -> None:
    flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count=4"
    monkeypatch.setenv("XLA_FLAGS", flags)
    process = start(*command(text, tmp_path / "out"), stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    wait_for(tmp_path / "out.running" / "state.safetensors", process)
    process.send_signal(signal.SIGKILL)
    process.wait()
    process = start(*command(text, tmp_path / "out"), stderr=subprocess.PIPE, stdout=subprocess.PIPE)
    _, told = process.communicate()
    assert process.returncode == 0 and "devices 4" in told and "going on with the run" in told, told
    ours, theirs = load_file(tmp_path / "out" / "model.safetensors"), load_file(whole / "model.safetensors")
    for name in theirs:
        np.testing.assert_allclose(ours[name], theirs[name], atol=1e-5, err_msg=name)
    assert [pytest.approx(row, abs=1e-5) for row in history(tmp_path / "out")] == history(whole)
    process = start(*command(text, tmp_path / "odd", "--batch-size", 6), stderr=subprocess.PIPE, stdout=subprocess.PIPE)
    _, told = process.communicate()
    assert process.returncode == 2 and told.count("\n") == 1
    assert "batch_size: expected a multiple of 4, the devices here, found 6" in told
