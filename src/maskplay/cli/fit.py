"""`maskplay fit classify`: train a classifier from a table of examples; killed, the same command goes on.

Until it is finished a run lives in the folder OUT.running beside OUT. OUT appears whole, at the end.
"""

import hashlib
import importlib.metadata
import json
import math
import platform
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import typer
from keras import ops
from rich.console import Console

from maskplay import _backend, fresh, memory
from maskplay.callbacks import Resume
from maskplay.cli.models import CHECKPOINT, FAMILY, VOCAB, open_model
from maskplay.cli.predict import figures_of, read_labelled
from maskplay.cli.progress import EpochProgress
from maskplay.cli.recipe import OPTIMIZERS
from maskplay.errors import DataError, UserError
from maskplay.plays import Classify
from maskplay.plays.classify import POOLS
from maskplay.pretrained import Pretrained
from maskplay.storage import check_replaceable, is_lost, new_folder, write_report
from maskplay.tables import Example, read_examples, split
from maskplay.text.tokenizer import Tokenizer

app = typer.Typer(help="Train something.", rich_markup_mode=None)

BUCKETS = 4  # lengths that batches have; each costs JAX some seconds of compilation
HELD_OUT = 0.1


@app.callback()
def things() -> None:
    """Train something."""
    memory.keep()


@app.command()
def classify(
    train: Path = typer.Argument(help="Examples: .tsv, .csv or .jsonl with columns text, label and, for pairs, text2."),
    out: Path = typer.Option(..., help="The folder to make; `maskplay predict` and `maskplay.load` open it."),
    dev: Path | None = typer.Option(None, help="Examples that choose the best epoch; default a tenth of TRAIN."),
    model: str | None = typer.Option(
        None, help=f"A checkpoint to start from: {CHECKPOINT}; without it a small encoder is made."
    ),
    family: str | None = FAMILY,
    vocab: str | None = VOCAB,
    epochs: int = typer.Option(3, min=1, help="Times through TRAIN."),
    batch_size: int = typer.Option(32, min=1, help="Examples a step."),
    learning_rate: float | None = typer.Option(None, help="Its peak; default 2e-5, for a fresh encoder 1e-3."),
    optimizer: str = typer.Option("adamw", help="adamw, muon or lamb; each warms up and then falls in a cosine."),
    pool: str = typer.Option("pooler", help="What is judged: pooler (of the first token) or mean (of all tokens)."),
    max_length: int | None = typer.Option(None, min=3, help="Most tokens of an example; default 512 or the model's."),
    length_buckets: bool = typer.Option(True, help="Put texts of like length together: less padding, faster."),
    seed: int = typer.Option(0, min=0, max=2**31 - 1, help="Decides everything that is random."),
    patience: int | None = typer.Option(None, min=1, help="Stop after so many epochs without a better dev accuracy."),
    save_every: float = typer.Option(60.0, min=0, help="Seconds between two saves of the running state."),
    restart: bool = typer.Option(False, "--restart", help="Forget an unfinished run and begin afresh."),
    hidden_size: int | None = typer.Option(None, min=2, help="Width of a fresh encoder; default 128."),
    num_layers: int | None = typer.Option(None, min=1, help="Layers of a fresh encoder; default 2."),
    num_heads: int | None = typer.Option(None, min=1, help="Attention heads of a fresh encoder; default 4."),
) -> None:
    """Train a text classifier.

    Progress goes to stderr. The epoch with the best dev accuracy is kept; OUT/metrics.json has all figures.
    """
    console = Console(stderr=True, highlight=False, soft_wrap=True, markup=False)
    check_replaceable(out)
    for name, path in (("--model", model), ("--vocab", vocab), ("training file", train), ("--dev", dev)):
        if path is not None and is_lost(path, out):
            raise UserError(f"--out {out}: the {name} is or lies in there and would be lost; choose another name")
    sizes = {"hidden_size": hidden_size, "num_layers": num_layers, "num_heads": num_heads}
    for name, size in sizes.items():
        if model is not None and size is not None:
            raise UserError(f"--{name.replace('_', '-')} is for a fresh encoder; --model {model} has its own shape")
    for name, given in (("--family", family), ("--vocab", vocab)):
        if model is None and given is not None:
            raise UserError(f"{name} goes with --model; without --model a small encoder and its vocabulary are made")
    rate = learning_rate if learning_rate is not None else 1e-3 if model is None else 2e-5
    if not 0 < rate < math.inf:
        raise UserError(f"--learning-rate: expected a number above 0, found {rate}")
    for name, chosen, known in (("--optimizer", optimizer, [*OPTIMIZERS]), ("--pool", pool, POOLS)):
        if chosen not in known:
            raise UserError(f"{name}: expected one of {', '.join(known)}, found {chosen!r:.80}")

    examples = read_examples(train, labelled=True)
    labels = sorted({str(example.label) for example in examples})
    if len(labels) < 2:
        raise DataError(f"{train}: expected at least two labels, found only {labels[0]!r}")
    if dev is None:
        examples, held_out = split(examples, HELD_OUT, seed, str(train))
        console.print(f"no --dev given: {len(held_out)} of {train}'s examples are held out to choose the best epoch")
    else:
        held_out = read_labelled(dev, labels, str(train))

    _backend.seed(seed)
    if model is None:
        texts = (text for example in examples for text in (example.text, example.text2 or ""))
        asked = {name: size for name, size in sizes.items() if size is not None}
        bert = Pretrained(*fresh.small(texts, **asked), family="roformer")
    else:
        bert = open_model(model, family, vocab)
        if bert.config.pad_id is None:
            raise UserError(
                f"--model {model}: a {bert.family} has no padding token to fill batches with; in Python "
                f"maskplay.load({model!r}, pad_id=…).save(FOLDER) gives it one, then --model FOLDER"
            )
    play = Classify(bert, labels, max_length=max_length, pool="mean" if pool == "mean" else "pooler")

    run = Resume(
        out.with_name(f"{out.name}.running"),
        {
            "TRAIN": file_setting(train),
            "--dev": dev and file_setting(dev),
            "--model": model and model_setting(model, bert, vocab is None),
            "--family": model and bert.family,
            "--vocab": vocab and vocab_setting(vocab, bert.tokenizer),
            **{f"--{name.replace('_', '-')}": size for name, size in sizes.items()},
            "--epochs": epochs,
            "--batch-size": batch_size,
            "--learning-rate": rate,
            "--optimizer": optimizer,
            "--pool": pool,
            "--max-length": max_length,
            "--length-buckets": length_buckets,
            "--seed": seed,
            "--patience": patience,
        },
        patience=patience,
        every=save_every,
        restart=restart,
    )
    batches = play.batches(examples, batch_size, shuffle=True, seed=seed, buckets=BUCKETS if length_buckets else 1)
    play.compile(OPTIMIZERS[optimizer](rate, len(batches) * epochs))
    if model is None:
        console.print(f"no --model given: a fresh encoder is trained from nothing ({bert!r})")
    if run.found:
        console.print(f"{run.folder}: going on with the run that stopped in epoch {run.epoch + 1}, batch {run.batch}")
    with EpochProgress(console, epochs, len(batches)) as progress:
        run.fit(
            play,
            batches,
            epochs,
            validation_data=play.batches(held_out, batch_size, shuffle=False),
            callbacks=[progress],
        )

    figures = figures_of(play, held_out, batch_size)
    report = {
        "settings": run.settings,
        "labels": labels,
        "examples": {name: count(some) for name, some in (("train", examples), ("dev", held_out))},
        "epochs": run.history,
        "best_epoch": run.best and run.best["epoch"],
        "dev": figures,
        "versions": versions(),
    }
    with new_folder(out) as folder:
        play.write(folder)
        write_report(folder / "metrics.json", report)
    run.remove()
    console.print(
        f"dev accuracy {figures['accuracy']:.4f}, macro F1 {figures['macro_f1']:.4f} on {figures['examples']} examples "
        f"(always saying {figures['commonest']}: {figures['majority']:.4f})"
    )
    print(out)


def count(examples: Sequence[Example]) -> dict[str, Any]:
    """How many there are, in all and of each label."""
    return {"all": len(examples), "labels": Counter(sorted(str(example.label) for example in examples))}


def file_setting(path: Path) -> dict[str, str]:
    """A file as a setting of a run: the same file is one with the same bytes."""
    with open(path, "rb") as file:
        return {"file": str(path), "sha256": hashlib.file_digest(file, "sha256").hexdigest()}


def model_setting(name: str, bert: Pretrained, with_vocab: bool = True) -> dict[str, str]:
    """A checkpoint as a setting of a run: the same one gives the same numbers, whatever lies there under its name.

    All weights are read, once they are in memory anyway: some tenths of a second for BERT base, and no heuristic on
    file names, sizes and dates that a copy changes and an edit may not. The vocabulary belongs to it where it brings
    one (`with_vocab`); one that is named is a setting of its own.
    """
    tokens = list(bert.tokenizer.vocab) if with_vocab else None
    digest = hashlib.sha256(json.dumps([bert.config.to_dict(), tokens]).encode())
    for weight in bert.network.weights:
        digest.update(ops.convert_to_numpy(weight).tobytes())
    return {"file": name, "sha256": digest.hexdigest()}


def vocab_setting(name: str, tokenizer: Tokenizer) -> dict[str, str]:
    """A vocabulary as a setting of a run: its tokens, and how text becomes them."""
    identity = json.dumps([tokenizer.kind, tokenizer.lowercase, list(tokenizer.vocab)])
    return {"file": name, "sha256": hashlib.sha256(identity.encode()).hexdigest()}


def versions() -> dict[str, str]:
    """What the figures were made with."""
    found = {"python": platform.python_version()}
    for name in ("maskplay", "keras", "numpy", "tokenizers"):
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = "not installed"  # run from its source folder
    return found
