"""`maskplay fit classify`: train a classifier from a table of examples; killed, the same command goes on.

Until it is finished a run lives in the folder OUT.running beside OUT. OUT appears whole, at the end.
"""

import hashlib
import importlib.metadata
import json
import math
import platform
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import keras
import numpy as np
import typer
from rich.console import Console

from maskplay.callbacks import Resume
from maskplay.cli.predict import figures_of, read_labelled
from maskplay.cli.progress import EpochProgress
from maskplay.config import Config
from maskplay.errors import DataError, UserError
from maskplay.language_model import LanguageModel
from maskplay.plays import Classify
from maskplay.pretrained import Pretrained, load
from maskplay.storage import check_replaceable, new_folder
from maskplay.tables import Example, read_examples
from maskplay.text.tokenizer import Tokenizer

app = typer.Typer(help="Train something.", rich_markup_mode=None)

CHARACTERS, WORDS = 8000, 8000  # the most that a fresh model's vocabulary has
BUCKETS = 4  # lengths that batches have; each costs JAX some seconds of compilation
HELD_OUT = 0.1
WARM_UP = 0.1  # of all steps


@app.callback()
def things() -> None:
    """Train something."""


@app.command()
def classify(
    train: Path = typer.Argument(help="Examples: .tsv, .csv or .jsonl with columns text, label and, for pairs, text2."),
    out: Path = typer.Option(..., help="The folder to make; `maskplay predict` and `maskplay.load` open it."),
    dev: Path | None = typer.Option(None, help="Examples that choose the best epoch; default a tenth of TRAIN."),
    model: str | None = typer.Option(None, help="A checkpoint to start from; without it a small encoder is made."),
    epochs: int = typer.Option(3, min=1, help="Times through TRAIN."),
    batch_size: int = typer.Option(32, min=1, help="Examples a step."),
    learning_rate: float | None = typer.Option(None, help="Its peak; default 2e-5, for a fresh encoder 1e-3."),
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
    if not out.name:
        raise UserError(f"--out {out}: expected the name of a folder to make")
    check_replaceable(out)
    sizes = {"hidden_size": hidden_size, "num_layers": num_layers, "num_heads": num_heads}
    for name, size in sizes.items():
        if model is not None and size is not None:
            raise UserError(f"--{name.replace('_', '-')} is for a fresh encoder; --model {model} has its own shape")
    rate = learning_rate if learning_rate is not None else 1e-3 if model is None else 2e-5
    if not 0 < rate < math.inf:
        raise UserError(f"--learning-rate: expected a number above 0, found {rate}")

    examples = read_examples(train, labelled=True)
    labels = sorted({str(example.label) for example in examples})
    if len(labels) < 2:
        raise DataError(f"{train}: expected at least two labels, found only {labels[0]!r}")
    if dev is None:
        examples, held_out = split(examples, HELD_OUT, seed, str(train))
        console.print(f"no --dev given: {len(held_out)} of {train}'s examples are held out to choose the best epoch")
    else:
        held_out = read_labelled(dev, labels, str(train))

    run = Resume(
        out.with_name(f"{out.name}.running"),
        {
            "TRAIN": fingerprint(train),
            "--dev": dev and fingerprint(dev),
            "--model": model,
            **{f"--{name.replace('_', '-')}": size for name, size in sizes.items()},
            "--epochs": epochs,
            "--batch-size": batch_size,
            "--learning-rate": rate,
            "--max-length": max_length,
            "--length-buckets": length_buckets,
            "--seed": seed,
            "--patience": patience,
        },
        patience=patience,
        every=save_every,
        restart=restart,
    )
    keras.utils.set_random_seed(seed)
    if model is None:
        bert = fresh(examples, **{name: size for name, size in sizes.items() if size is not None})
        console.print(f"no --model given: a fresh encoder is trained from nothing ({bert!r})")
    else:
        bert = load(model)
        if not isinstance(bert, Pretrained):
            raise UserError(f"--model {model}: expected a checkpoint, found a trained play")
    play = Classify(bert, labels, max_length=max_length)
    batches = play.batches(examples, batch_size, shuffle=True, seed=seed, buckets=BUCKETS if length_buckets else 1)
    play.compile(optimizer(rate, len(batches) * epochs))
    if run.found:
        console.print(f"{run.folder}: going on with the run that stopped in epoch {run.epoch + 1}, batch {run.batch}")
    run.fit(
        play,
        batches,
        epochs,
        validation_data=play.batches(held_out, batch_size, shuffle=False),
        callbacks=[EpochProgress(console, epochs, len(batches))],
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
        (folder / "metrics.json").write_text(json.dumps(report, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    run.remove()
    console.print(
        f"dev accuracy {figures['accuracy']:.4f}, macro F1 {figures['macro_f1']:.4f} on {figures['examples']} examples "
        f"(always saying {figures['commonest']}: {figures['majority']:.4f})"
    )
    print(out)


def split(examples: Sequence[Example], share: float, seed: int, name: str) -> tuple[list[Example], list[Example]]:
    """Examples to train on and examples held out, of every label about the same share and at least one each.

    Raises:
        DataError: a label has a single example, which cannot be on both sides.
    """
    places: dict[str, list[int]] = {}
    for i, example in enumerate(examples):
        places.setdefault(str(example.label), []).append(i)
    draw, chosen = np.random.default_rng(seed), set()
    for label, mine in sorted(places.items()):
        if len(mine) < 2:
            where = f"{name}, line {examples[mine[0]].line}"
            raise DataError(f"{where}: the only example of {label!r} cannot be both used and held out; add some")
        chosen.update(draw.permutation(mine)[: max(1, round(share * len(mine)))].tolist())
    kept = [example for i, example in enumerate(examples) if i not in chosen]
    return kept, [examples[i] for i in sorted(chosen)]


def fresh(examples: Sequence[Example], hidden_size: int = 128, num_layers: int = 2, num_heads: int = 4) -> Pretrained:
    """A small encoder with fresh weights, and a vocabulary of the examples' characters and frequent Latin words."""
    texts = [text for example in examples for text in (example.text, example.text2 or "")]
    characters = Tokenizer.from_characters(texts, max_size=CHARACTERS).vocab
    words = Counter(word for text in texts for word in re.findall("[a-z0-9]{2,}", text.lower()))
    frequent = [word for word, times in words.most_common(WORDS) if times >= 3]
    tokenizer = Tokenizer.from_vocab([*characters, *frequent])
    config = Config(
        vocab_size=len(tokenizer),
        hidden_size=hidden_size,
        num_layers=num_layers,
        num_heads=num_heads,
        intermediate_size=2 * hidden_size,
        # Chosen on held-out parts of the bundled training reviews: few texts want relative places, much dropout, and
        # narrow layers wider initial weights than BERT's 0.02.
        position="rotary",
        dropout=0.3,
        attention_dropout=0.3,
        initializer_range=0.05,
    )
    return Pretrained(LanguageModel(config, heads=["pooler"]), tokenizer, family="roformer")


def optimizer(rate: float, steps: int) -> keras.optimizers.Optimizer:
    """AdamW whose rate rises for a tenth of the steps, then falls to 0; norms and biases do not decay."""
    rising = int(WARM_UP * steps)
    schedule = keras.optimizers.schedules.CosineDecay(
        0.0 if rising else rate, max(1, steps - rising), warmup_target=rate if rising else None, warmup_steps=rising
    )
    made = keras.optimizers.AdamW(schedule, weight_decay=0.01, global_clipnorm=1.0)
    made.exclude_from_weight_decay(var_names=["bias", "gamma", "beta"])
    return made


def count(examples: Sequence[Example]) -> dict[str, int]:
    """How many there are, in all and of each label."""
    return {"all": len(examples), **Counter(sorted(str(example.label) for example in examples))}


def fingerprint(path: Path) -> str:
    """A file's name and a digest of its bytes: what makes it the same file."""
    with open(path, "rb") as file:
        return f"{path} (sha256 {hashlib.file_digest(file, 'sha256').hexdigest()[:12]})"


def versions() -> dict[str, str]:
    """What the figures were made with."""
    found = {"python": platform.python_version()}
    for name in ("maskplay", "keras", "numpy", "tokenizers"):
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = "not installed"  # run from its source folder
    return found
