"""`maskplay pretrain`: raw text to a checkpoint; killed, the same command goes on.

Until it is finished a run lives in the folder OUT.running beside OUT: the vocabulary, the corpus as token ids, and the
state of the training. OUT appears whole, at the end, and `maskplay.load`, transformers and bert4keras open it.
"""

import contextlib
import csv
import errno
import glob
import hashlib
import io
import itertools
import json
import math
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import keras
import typer
from rich.console import Console
from rich.progress import FileSizeColumn, Progress, TextColumn, TransferSpeedColumn

from maskplay import _backend, corpus, fresh, hosts, memory, pretext, starts
from maskplay.callbacks import STATE, Resume
from maskplay.cli.fit import file_setting, model_setting, versions
from maskplay.cli.models import CHECKPOINT, open_model
from maskplay.cli.progress import StepProgress
from maskplay.cli.recipe import (
    ELSEWHERE,
    FRESH,
    OPTIMIZERS,
    PAIRS,
    PRECISIONS,
    RECIPE,
    SEGMENTERS,
    SHAPE,
    parse_names,
    parse_objective,
    settle,
)
from maskplay.cli.tensorboard import FILES, EventFile
from maskplay.corpus.places import check_field, holds_json
from maskplay.errors import UserError
from maskplay.language_model import SCORES
from maskplay.plays import Pretrain
from maskplay.pretrained import Pretrained, load
from maskplay.storage import check_replaceable, is_lost, new_folder, write_report
from maskplay.text.tokenizer import Tokenizer
from maskplay.words import load_segmenter


def pretrain(
    sources: list[str] = typer.Argument(
        metavar="PATH...",
        help="Text: files, folders, patterns; .gz, .xz, .zst, .jsonl, .json. A blank line ends a document.",
    ),
    out: Path = typer.Option(..., help="The folder to make; `maskplay fill` and `maskplay.load` open it."),
    config: Path | None = typer.Option(None, help="A recipe: TOML, any of the options from --family to --seed."),
    family: str | None = typer.Option(None, help="The form of a fresh network, default roformer; or what --model is."),
    hidden_size: int | None = typer.Option(None, help="Its width; default 256."),
    num_layers: int | None = typer.Option(None, help="Its layers; default 4."),
    num_heads: int | None = typer.Option(None, help="Its attention heads; default 4."),
    intermediate_size: int | None = typer.Option(None, help="Width inside its feed-forward layers; default 1024."),
    vocab_size: int | None = typer.Option(None, help="Most tokens of a vocabulary made from the text; default 12000."),
    model: str | None = typer.Option(None, help=f"A checkpoint to go on from, not a fresh network: {CHECKPOINT}."),
    vocab: str | None = typer.Option(None, help="A vocabulary to use: a file or a model's folder."),
    length: int | None = typer.Option(None, help="Tokens of a row; default 128."),
    batch_size: int | None = typer.Option(None, help="Rows a step; default 32."),
    steps: int | None = typer.Option(None, help="Steps of the whole run; default 10000."),
    optimizer: str | None = typer.Option(None, help="adamw, muon or lamb; default adamw."),
    learning_rate: float | None = typer.Option(None, help="Its peak; default 0.001."),
    warmup: int | None = typer.Option(None, help="Steps until the peak; default a tenth of them."),
    decay: int | None = typer.Option(None, help="Steps of a straight fall at the end; default a cosine from the peak."),
    accumulate: int | None = typer.Option(None, help="Batches that make one step together; default 1."),
    dropout: float | None = typer.Option(None, help="Of a fresh network, in training; default 0.1."),
    init: str | None = typer.Option(
        None, help="What a fresh network knows from counting the text: unigram,ppmi,positions; default nothing."
    ),
    precision: str | None = typer.Option(
        None, help="Of products: float32, bfloat16, float16 (weights are float32); default float32."
    ),
    objective: str | None = typer.Option(
        None, help="mlm, mlm+sop, mlm+nsp, lm, permuted, unilm, simbert; or several with weights, mlm:0.5,unilm:0.5."
    ),
    mask_rate: float | None = typer.Option(None, help="Share of the words that mlm hides; default 0.15."),
    as_mask: float | None = typer.Option(
        None, help="Share of their tokens shown as [MASK], of the others half stay, half are exchanged; default 0.8."
    ),
    words: str | None = typer.Option(None, help="What finds words to hide whole: jieba, or a file .arpa, .tsv, .txt."),
    field: str | None = typer.Option(None, help="Which string of a JSON line is the text; default text. Pairs: A,B."),
    held_out: float | None = typer.Option(None, help="Share of the text that is only tested on; default 0.005."),
    report_every: int | None = typer.Option(None, help="Steps between two reports; default 500."),
    save_every: float | None = typer.Option(None, help="Seconds between two saves of the running state; default 60."),
    workers: int | None = typer.Option(None, help="Processes that encode the text; default 1."),
    tensorboard: str | None = typer.Option(None, help="A folder for the figures, as TensorBoard reads them."),
    model_parallel: int | None = typer.Option(None, help="Devices that share the network's kernels; default 1."),
    seed: int | None = typer.Option(None, help="Decides everything that is random; default 0."),
    coordinator: str | None = typer.Option(
        None, help="Of several processes: HOST:PORT where that of rank 0 listens, or auto (Slurm, TPU, …)."
    ),
    processes: int | None = typer.Option(None, help="How many processes there are, on one host or several."),
    rank: int | None = typer.Option(None, help="Which of them this one is, from 0."),
    restart: bool = typer.Option(False, "--restart", help="Forget an unfinished run and begin afresh."),
) -> None:
    """Pretrain a network on raw text.

    Progress goes to stderr. OUT/metrics.json and OUT/history.csv have the figures on held-out text.
    """
    flags = {name: value for name, value in locals().items() if name in RECIPE and value is not None}
    console = Console(stderr=True, highlight=False, soft_wrap=True, markup=False)
    memory.keep()
    check_replaceable(out)
    recipe = settle(config, flags)
    words = "" if recipe["words"] in SEGMENTERS else recipe["words"]
    for path in (recipe["model"], recipe["vocab"], words, *sources):
        if path and is_lost(path, out):
            raise UserError(f"--out {out}: {path} is or lies in there and would be lost; choose another name")
    if recipe["tensorboard"]:
        board, made = Path(recipe["tensorboard"]).absolute(), out.absolute()
        if {made, made.with_name(f"{out.name}.running")} & {board, *board.parents}:
            raise UserError(f"tensorboard: {board} lies in {out}, which appears at the end; choose another folder")
    with hosts.together(coordinator, processes, rank):
        console.quiet = hosts.place()[0] > 0
        run_recipe(sources, out, recipe, restart, console)


def run_recipe(sources: Sequence[str], out: Path, recipe: dict[str, Any], restart: bool, console: Console) -> None:
    """What one process does, alone or together with others."""
    running = out.with_name(f"{out.name}.running")
    objectives = parse_objective(recipe["objective"])

    files = texts_of(sources, out, recipe["tensorboard"])
    if pipes := [path for path in files if path != corpus.STDIN and not path.is_file()]:
        raise UserError(f"{pipes[0]}: expected a file, found a pipe, which is read only once; give - and --vocab")
    check_field(files, recipe["field"])
    keras.config.set_dtype_policy(PRECISIONS[recipe["precision"]])
    devices = hosts.share_devices(recipe["model_parallel"])  # before there are weights
    _backend.seed(recipe["seed"])  # a model that is loaded has generators too
    base = load_base(recipe)
    settings = {name: value for name, value in recipe.items() if name not in ELSEWHERE}
    if corpus.STDIN in files and base is None and not recipe["vocab"]:
        raise UserError("-: standard input is read once, and a vocabulary is made from the text first; give --vocab")
    settings |= {"PATH": digest(files)}
    if recipe["vocab"]:
        given = Tokenizer.load(recipe["vocab"])
        sha = hashlib.sha256(json.dumps(list(given.vocab)).encode()).hexdigest()
        settings["vocab"] = read_as({"file": recipe["vocab"], "sha256": sha}, way_of(given))
    if recipe["words"] not in SEGMENTERS:
        words = Path(recipe["words"])
        settings["words"] = read_as(file_setting(words), "arpa" if ".arpa" in words.suffixes[-2:] else "")
    if base is not None:
        settings["model"] = read_as(model_setting(recipe["model"], base), way_of(base.tokenizer))
    if recipe["batch_size"] % devices:
        which = "the devices here" if hosts.place()[1] == 1 else "the devices of all processes"
        raise UserError(f"batch_size: expected a multiple of {devices}, {which}, found {recipe['batch_size']}")
    run = Resume(running, settings, monitor=None, every=recipe["save_every"], restart=restart)
    if run.found and corpus.STDIN in files:  # which may be another by now
        raise UserError(f"-: {running} holds an unfinished run of another standard input; --restart begins afresh")
    if not run.found:
        clear(running, but=None if restart or corpus.STDIN in files else prepared_name(settings))
    try:
        train_on(files, out, recipe, settings, objectives, base, run, console)
    except UserError:
        if not (running / STATE).exists():  # another recipe may need the same tokens
            whole = (running / prepared_name(settings) / "tokens").is_dir()
            clear(running, but=prepared_name(settings) if whole else None)
        raise
    except OSError as error:  # what was saved and prepared stays whole
        where, why = error.filename or running, error.strerror or error
        when = "there is room again" if error.errno == errno.ENOSPC else "that is mended"
        raise UserError(f"{where}: {why}; when {when}, the same command goes on") from None
    if hosts.place()[0] == 0:
        print(out)


def train_on(
    files: Sequence[Path],
    out: Path,
    recipe: dict[str, Any],
    settings: dict[str, Any],
    objectives: dict[str, float],
    base: Pretrained | None,
    run: Resume,
    console: Console,
) -> None:
    """The run itself, from what is prepared (or is now) to the folder OUT."""
    shown = recipe["tensorboard"] and hosts.place()[0] == 0
    events = EventFile(Path(recipe["tensorboard"]), run.found) if shown else None
    prepared_in = run.folder / prepared_name(settings)
    with hosts.in_turn(prepared_in):
        tokenizer = find_tokenizer(recipe, base, files, prepared_in)
    _backend.seed(recipe["seed"])
    is_fresh = base is None
    heads = ["pooler", "nsp"] if {"mlm+sop", "mlm+nsp"} & {*objectives} else []
    heads = heads or (["pooler"] if PAIRS in objectives else [])
    if base is not None:
        base = with_heads(base, recipe["model"], heads, console)
    else:
        sizes = {name: recipe[name] for name in SHAPE}
        sizes |= {"dropout": recipe["dropout"], "attention_dropout": recipe["dropout"]}
        base = Pretrained(fresh.network(recipe["family"], tokenizer, heads, **sizes), tokenizer, recipe["family"])
    play = Pretrain(base, objectives, recipe["length"], recipe["mask_rate"], recipe["as_mask"])
    with hosts.in_turn(prepared_in):
        prepared = find_tokens(recipe, files, tokenizer, prepared_in, console)
    if is_fresh and not run.found:
        base.network.build()
        starts.inform(base.network, prepared, parse_names(recipe["init"]))
    every = min(recipe["report_every"], recipe["steps"])
    rate, steps, together = (recipe[name] for name in ("learning_rate", "steps", "accumulate"))
    numbers = {"seed": recipe["seed"], "every": every, "shard": hosts.place(), "accumulate": together}
    train, dev = play.steps(prepared, recipe["batch_size"], steps, recipe["held_out"], **numbers)
    rising, falling = (None if recipe[name] < 0 else recipe[name] for name in ("warmup", "decay"))
    play.compile(OPTIMIZERS[recipe["optimizer"]](rate, steps, rising, falling, together))
    console.print(f"{base!r}; devices {hosts.sharing_devices() * recipe['model_parallel']}")
    console.print(f"{len(prepared.ids):,} tokens of text, rows {train.filled:.1%} full")
    if run.found:
        console.print(f"{run.folder}: going on with the run that stopped after step {run.epoch * every + run.batch}")
    epochs = math.ceil(recipe["steps"] / every)
    if events is not None:
        for row in by_step(run.history, every, recipe["steps"]):
            events.write(row.pop("step"), row)  # in another folder than before, say
    with StepProgress(console, recipe["steps"], every, train.tokens, events) as progress:
        run.fit(play, train, epochs, validation_data=dev, callbacks=[progress])

    history = by_step(run.history, every, recipe["steps"])
    report = {
        "settings": run.settings,
        "tokens": {"corpus": len(prepared.ids), "step": round(train.tokens), "filled": train.filled},
        "history": history,
        "versions": versions(),
    }
    if hosts.place()[0] == 0:
        write(out, base, report)
    hosts.wait()  # none forgets the run before OUT is there
    clear(run.folder)
    run.remove()
    figures = ", ".join(f"{name} {value:.4f}" for name, value in history[-1].items() if name.startswith("val_"))
    console.print(f"on held-out text: {figures.replace('val_', '')}")


def by_step(history: list[dict[str, float]], every: int, steps: int) -> list[dict[str, Any]]:
    """A history of epochs as one of steps."""
    return [
        {"step": min(int(row["epoch"]) * every, steps), **{name: row[name] for name in row if name != "epoch"}}
        for row in history
    ]


def write(out: Path, base: Pretrained, report: dict[str, Any]) -> None:
    """The folder OUT: what others open, and the figures."""
    for left in out.absolute().parent.glob(f".{glob.escape(out.name[:80])}.*.part"):  # by a run that was killed here
        shutil.rmtree(left, ignore_errors=True)
    with new_folder(out) as folder:
        base.write(folder)
        write_report(folder / "metrics.json", report)
        table = io.StringIO()
        writer = csv.DictWriter(table, list(report["history"][-1]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(report["history"])
        (folder / "history.csv").write_text(table.getvalue(), encoding="utf-8")


# What is prepared once


def load_base(recipe: dict[str, Any]) -> Pretrained | None:
    """The checkpoint to go on from; the recipe then says what it is, and may not have said otherwise."""
    if not recipe["model"]:
        return None
    base = open_model(recipe["model"], recipe["family"])
    for name in FRESH:
        has = base.family if name == "family" else getattr(base.config, name)
        if recipe[name] not in (None, has):
            raise UserError(f"{name}: the model {recipe['model']} has {has}, found {recipe[name]}; leave it out")
        recipe[name] = has
    return base


def with_heads(base: Pretrained, model: str, heads: Sequence[str], console: Console) -> Pretrained:
    """The checkpoint with these heads, and one that scores tokens; those it lacks begin afresh."""
    wanted = [*heads] if {*SCORES} & {*base.network.heads} else [*heads, "mlm"]
    lacking = [head for head in wanted if head not in base.network.heads]
    if not lacking or base.network.decoder is not None:
        return base
    console.print(f"{model}: has no head {' and '.join(lacking)}; begun afresh")
    return load(model, family=base.family, heads=[*base.network.heads, *lacking], strict=False)


def texts_of(sources: Sequence[str], out: Path, board: str) -> list[Path]:
    """The files of the text, without what this run puts among them: the same command must find the same ones again."""
    folders = out, out.with_name(f"{out.name}.running")

    def is_ours(path: Path) -> bool:
        figures = board and is_lost(path, board) and path.match(FILES)
        return bool(figures) or any(is_lost(path, folder) for folder in folders)

    files = [path for path in corpus.paths(sources) if path == corpus.STDIN or not is_ours(path)]
    if not files:
        raise UserError(f"{sources[0]}: expected text, found only what lies in --out {out}; choose another name")
    return files


def read_as(setting: dict[str, str], way: str) -> dict[str, str]:
    """A file's setting, which is another one where the same bytes are read in another way; "" = the usual one."""
    sha = hashlib.sha256(f"{setting['sha256']} {way}".encode()).hexdigest()
    return {**setting, "sha256": sha} if way else setting


def way_of(tokenizer: Tokenizer) -> str:
    """How a tokenizer reads what it reads, beside its tokens."""
    usual = tokenizer.kind == "WordPiece" and tokenizer.lowercase
    return "" if usual else f"{tokenizer.kind} {'lower-case' if tokenizer.lowercase else 'cased'}"


def digest(files: Sequence[Path]) -> dict[str, str]:
    """Files as one setting of a run: the same bytes in the same order, of text or of JSON lines."""
    found = hashlib.sha256()
    for path in files:
        if path != corpus.STDIN:
            setting = read_as(file_setting(path), "json" if holds_json(path) else "")
            found.update(bytes.fromhex(setting["sha256"]))
    name = str(files[0]) if len(files) == 1 else f"{files[0]} and {len(files) - 1} more"
    return {"file": name, "sha256": found.hexdigest()}


def find_tokenizer(
    recipe: dict[str, Any], base: Pretrained | None, files: Sequence[Path], prepared_in: Path
) -> Tokenizer:
    """The model's, the one that is named, or one made of the text's characters and frequent Latin words, once."""
    if base is not None:
        return base.tokenizer
    if recipe["vocab"]:
        return Tokenizer.load(recipe["vocab"])
    kept = prepared_in / "tokenizer"
    if not kept.is_dir():
        if PAIRS in parse_objective(recipe["objective"]):
            texts = itertools.chain.from_iterable(corpus.pairs(files, two_fields(recipe["field"])))
        else:
            texts = corpus.lines(files, recipe["field"])
        made = fresh.vocabulary(texts, recipe["vocab_size"])
        with new_folder(kept) as folder:
            made.save(folder)
    return Tokenizer.load(kept)


def find_tokens(
    recipe: dict[str, Any], files: Sequence[Path], tokenizer: Tokenizer, prepared_in: Path, console: Console
) -> pretext.Prepared:
    """The corpus as token ids, prepared once."""
    kept = prepared_in / "tokens"
    if kept.is_dir():
        return pretext.Prepared(kept)
    columns = TextColumn("{task.description}"), FileSizeColumn(), TransferSpeedColumn()
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("encoding the text, characters")
        pairs = PAIRS in parse_objective(recipe["objective"])
        return pretext.prepare(
            corpus.pairs(files, two_fields(recipe["field"])) if pairs else documents(files, recipe["field"]),
            kept,
            tokenizer,
            SEGMENTERS.get(recipe["words"]) or load_segmenter(recipe["words"]),
            recipe["workers"],
            lambda count: bar.advance(task, count),
            pairs,
        )


def two_fields(field: str) -> tuple[str, str]:
    """Which fields of a JSON line are a pair: text and text2, as in a table, or any two."""
    first, comma, second = field.partition(",")
    return first.strip(), second.strip() if comma else f"{first.strip()}2"


def documents(files: Sequence[Path], field: str) -> Iterator[list[str]]:
    """Blank lines and the ends of files end a document; every JSON line is one."""
    for path in files:
        if holds_json(path):
            yield from (text.split("\n") for text in corpus.records([path], field))
            continue
        found: list[str] = []
        for line in corpus.lines([path]):
            if line.strip():
                found.append(line)
            elif found:
                yield found
                found = []
            if len(found) >= 10_000:
                # A file without a blank line is one document; it is handed on in parts.
                yield found
                found = []
        if found:
            yield found


def prepared_name(settings: dict[str, Any]) -> str:
    """The folder of what is prepared from the same text in the same way."""
    chosen = {name: settings[name] for name in ("PATH", "field", "words", "vocab", "vocab_size", "model")}
    if PAIRS in parse_objective(settings["objective"]):
        chosen["pairs"] = True
    identity = json.dumps({name: s["sha256"] if isinstance(s, dict) else s for name, s in chosen.items()})
    return f"prepared-{hashlib.sha256(identity.encode()).hexdigest()[:12]}"


def clear(running: Path, but: str | None = None) -> None:
    """Delete what was prepared, and the unfinished parts that killed preparations left."""
    for path in [*running.glob("prepared-*"), *running.glob("prepared-*/.*.part")]:
        if path.name != but:
            shutil.rmtree(path, ignore_errors=True)
    with contextlib.suppress(OSError):
        running.rmdir()  # if nothing else is in it
