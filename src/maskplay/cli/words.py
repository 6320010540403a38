"""`maskplay words discover`, `contrast`, `count`, `lm`, `segment`: words and n-grams out of raw text, text cut into
words.

The output appears whole at the end, or not at all; what lies on disk meanwhile is in a folder beside it that goes away.
"""

import os
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from enum import StrEnum
from pathlib import Path
from types import FrameType
from typing import Any, cast

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from maskplay import words
from maskplay.corpus import STDIN, paths
from maskplay.errors import UserError
from maskplay.memory import keep
from maskplay.storage import make_folder, new_file
from maskplay.text.words import jieba
from maskplay.words import counting, found
from maskplay.words.reader import Progress as Tell
from maskplay.words.segmenting import JOINS
from maskplay_command import AGAIN, TIMED, on_its_way

STDOUT = Path("-")
ENDS = [getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]

app = typer.Typer(help="Find and count words in raw text, cut it into words.", rich_markup_mode=None)

SOURCES = typer.Argument(
    help="Files, folders, patterns, or - for stdin; .gz, .xz, .zst, .jsonl and .json are understood."
)
FIELD = typer.Option("text", help="Of JSON lines, which string is the text.")
WORKERS = typer.Option(1, min=1, help="Threads; processes with --words, --agree or --cluster local.")
CLUSTER = typer.Option(None, help="Count on a Ray cluster: local, auto, HOST:PORT or ray://HOST:PORT.")
MEMORY = typer.Option(None, help="Most memory of this process, 1G say; beyond it files are used.")
FOLDER = typer.Option(None, help="For files meanwhile; default beside --out. A cluster shares it; a URL will do.")


class Mode(StrEnum):
    """How n-grams are counted."""

    exact = "exact"
    faithful = "faithful"


@app.callback()
def things() -> None:
    """Find and count words in raw text, cut it into words."""


@app.command()
def discover(
    sources: list[str] = SOURCES,
    out: Path = typer.Option(..., help="The file to write: .tsv, .parquet, or .txt for a user dictionary of jieba."),
    mode: Mode = typer.Option(Mode.exact, help="faithful counts as the original program does."),
    min_count: int | None = typer.Option(None, min=1, help="Least frequency; default 32, scaled with the corpus."),
    cohesion: str = typer.Option("2,4,6", help="Least cohesion of n-grams of 2, 3, 4, … in nats."),
    min_freedom: float = typer.Option(0.0, min=0, help="Least entropy of a word's neighbours in nats, on both sides."),
    min_alone: float = typer.Option(0.0, min=0, max=1, help="Least share of occurrences outside longer words."),
    min_length: int = typer.Option(1, min=1, help="Fewest characters of a word."),
    max_length: int | None = typer.Option(None, min=1, help="Most characters of a word."),
    known: str | None = typer.Option(None, help="Words to leave out: a file, or jieba for its dictionary."),
    not_first: str = typer.Option("", help="Characters with which no word may begin."),
    not_last: str = typer.Option("", help="Characters with which no word may end."),
    runs: bool = typer.Option(False, "--runs", help="Keep runs of letters and digits whole."),
    agree: Path | None = typer.Option(None, help="Leave out what this model, .arpa or .tsv, hardly cuts out too."),
    field: str = FIELD,
    workers: int = WORKERS,
    memory: str | None = MEMORY,
    folder: str | None = FOLDER,
    cluster: str | None = CLUSTER,
) -> None:
    """Find the words of a corpus, the most frequent first."""
    found.checked_ending(out, found.FORMATS)
    _not_read(out, sources, known, agree)
    thresholds = _numbers(cohesion, "--cohesion")
    if agree:
        _readable_again("--agree", sources)
    by = words.load_segmenter(agree) if agree else None
    _keep(memory)
    with _progress(out) as tell:
        table = words.discover(
            sources,
            mode=mode.value,
            min_count=min_count,
            cohesion=thresholds,
            min_freedom=min_freedom,
            min_alone=min_alone,
            min_length=min_length,
            max_length=max_length,
            known=known or (),
            not_first=not_first,
            not_last=not_last,
            runs=runs,
            field=field,
            workers=workers,
            memory=memory,
            folder=folder or out.parent,
            cluster=cluster,
            progress=tell,
        )
        if by is not None:
            table = words.agreed(table, sources, by, field=field, workers=workers)
            tell("agreeing", 1, 1)
        table.write(out)
    _console().print(
        f"{len(table)} words of {table.characters:,} characters, each at least {table.min_count} times: {out}"
    )
    if not len(table):
        _console().print("Nothing passed the thresholds: a lower --min-count or --cohesion, or more text, finds words.")


@app.command()
def count(
    sources: list[str] = SOURCES,
    out: Path = typer.Option(..., help="The file to write: .tsv or .parquet."),
    n: int | None = typer.Option(None, min=1, help="Characters of an n-gram; default 1."),
    by: str | None = typer.Option(None, "--words", help="Count words instead: jieba's, or a file's as for segment."),
    min_count: int = typer.Option(1, min=1, help="Leave out what is rarer."),
    field: str = FIELD,
    workers: int = WORKERS,
    memory: str | None = MEMORY,
    folder: str | None = FOLDER,
    cluster: str | None = CLUSTER,
) -> None:
    """Count characters, n-grams of them, or words, the most frequent first."""
    found.checked_ending(out, counting.FORMATS)
    if n is not None and by is not None:
        raise UserError("expected either --n or --words, found both")
    _not_read(out, sources, by)
    tokenizer = None if by is None else _jieba if by == "jieba" else words.load_segmenter(by)
    if by == "jieba":
        _jieba("天")  # loads its dictionary here, once, and not in each process
    what: dict[str, Any] = {"n": n or 1} if tokenizer is None else {"n": n, "tokenizer": tokenizer}
    _keep(memory)
    with _progress(out) as tell:
        where: dict[str, Any] = {"workers": workers, "memory": memory, "folder": folder, "cluster": cluster}
        if tokenizer is None:
            where["folder"] = folder or out.parent
        counts = words.count(sources, **what, min_count=min_count, field=field, **where, progress=tell)
        counts.write(out)
    kept = f", each at least {min_count} times" if min_count > 1 else ""
    _console().print(f"{len(counts):,} different, {counts.total:,} in all{kept}: {out}")


@app.command()
def lm(
    sources: list[str] = SOURCES,
    out: Path = typer.Option(..., help="The file to write, .arpa."),
    order: int = typer.Option(4, min=2, help="Characters of the longest n-grams."),
    min_count: int = typer.Option(2, min=1, help="Leave out rarer n-grams of three and more characters."),
    field: str = FIELD,
    workers: int = typer.Option(1, min=1, help="Threads."),
) -> None:
    """Train a character n-gram model (modified Kneser-Ney), for `segment` and for others: an ARPA file."""
    found.checked_ending(out, (".arpa",))
    _not_read(out, sources)
    _keep(None)
    with _progress(out) as tell:
        options = {"order": order, "min_count": min_count, "field": field, "workers": workers}
        model = words.train_ngrams(sources, **options, progress=tell)
        words.write_arpa(model, out)
    counts = ", ".join(f"{len(level.keys):,}" for level in model.levels)
    _console().print(f"n-grams of 1 to {model.order} characters: {counts}: {out}")


@app.command()
def segment(
    sources: list[str] = SOURCES,
    model: Path | None = typer.Option(None, help="A character n-gram model, .arpa."),
    vocab: Path | None = typer.Option(None, help="Instead of it words and counts, .tsv or .txt, as discover writes."),
    joins: str | None = typer.Option(
        None, help="With --model: factors for a word's second, third, … character; default .25,.003,.01,.001."
    ),
    em: int = typer.Option(0, min=0, help="Rounds in which the counts of --vocab are fitted to the text first."),
    out: Path = typer.Option(STDOUT, help="The file to write, or - for standard output."),
    field: str = FIELD,
    workers: int = typer.Option(1, min=1, help="Processes."),
) -> None:
    """Cut each line into words, with one space between two."""
    if (model is None) == (vocab is None) or em and model:
        raise UserError("expected either --model or --vocab; --em goes with --vocab")
    if joins is not None and vocab:
        raise UserError("--joins goes with --model: it is for words cut by an n-gram model")
    factors = JOINS if joins is None else _numbers(joins, "--joins")
    if em:
        _readable_again("--em", sources)
    _not_read(out, sources, model, vocab)
    by: words.NgramSegmenter | words.Vocabulary
    with _progress(out) as tell:
        if vocab is None:
            by = words.NgramSegmenter(words.read_arpa(cast(Path, model)), factors)
        else:
            by = words.Vocabulary(words.read_vocabulary(vocab))
            for step in range(em):
                by, _ = by.refined(sources, field)
                tell("fitting", step + 1, em)
        found = words.segment(sources, by, field=field, workers=workers)
        lines = (" ".join(word for word in line if not word.isspace()) + "\n" for line in found)
        if out == STDOUT:
            sys.stdout.buffer.writelines(line.encode() for line in lines)  # UTF-8 wherever we are, as files have it
        else:
            with new_file(out) as file:
                file.writelines(line.encode() for line in lines)


@app.command()
def contrast(
    field: Path = typer.Argument(help="Words and counts of the texts in question: .tsv or .txt, as discover writes."),
    general: Path = typer.Argument(help="The same of texts in general."),
    out: Path = typer.Option(..., help="The file to write, .tsv."),
    prior: float = typer.Option(1000.0, help="How many words the prior weighs; more of them favour frequent words."),
) -> None:
    """Find the words that one corpus uses more than another."""
    found.checked_ending(out, (".tsv",))
    _not_read(out, [str(field)], general)
    with _progress(out):
        rows = words.contrast(words.read_vocabulary(field), words.read_vocabulary(general), prior=prior)
        words.write_contrast(rows, out)
    _console().print(f"{len(rows):,} words: {out}")


def _keep(limit: str | None) -> None:
    """Have the system hand out the same memory once, not again and again; within a limit what is kept would count."""
    if limit is None:
        keep(threads=True)


def _not_read(out: Path, sources: list[str], *others: str | Path | None) -> None:
    """Refuse to write over what is read, and to read standard input for two things."""
    read = [*paths(sources), *(Path(other) for other in others if other is not None)]
    if read.count(STDIN) > 1:
        raise UserError("standard input can be read once only; expected - in one place, found it in more")
    real = os.path.realpath  # which does not mind links that lead to each other
    if out != STDOUT and real(out) in {real(path) for path in read if path != STDIN}:
        raise UserError(f"--out {out}: this file is among those to read and would be lost; choose another name")


def _readable_again(option: str, sources: list[str]) -> None:
    for path in paths(sources):
        if not path.is_file():
            found = "standard input" if path == STDIN else path
            raise UserError(f"{option}: expected files, which can be read again, found {found}")


def _jieba(line: str) -> list[str]:
    """Its words without white space, as our own segmenters' are counted."""
    return [word for word in jieba(line) if not word.isspace()]


def _numbers(text: str, option: str) -> list[float]:
    try:
        return [float(number) for number in text.split(",")]
    except ValueError:
        raise UserError(f"{option}: expected numbers with commas between, found {text!r:.40}") from None


def _console() -> Console:
    return Console(stderr=True, highlight=False, soft_wrap=True, markup=False)


@contextmanager
def _progress(out: Path) -> Iterator[Tell]:
    """On a terminal a bar for each step, elsewhere a line when one is finished; all on stderr.

    A fault of the system that names no file, a full disk, is one of the output's. Told to end, by `timeout` or a
    terminal that is closed, the work ends as after an error; folders that were made for the output go then.
    """
    made = [folder for folder in out.parents if not folder.exists()]
    make_folder(out.parent)
    ours = [number for number in ENDS if signal.getsignal(number) == signal.SIG_DFL]  # nohup has them ignored
    alarm = signal.getsignal(signal.SIGALRM) if TIMED else None
    for number in ours:
        signal.signal(number, _leave)
    console, start = _console(), time.monotonic()
    columns = (TextColumn("{task.description:>10}"), BarColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        tasks: dict[str, object] = {}

        def tell(step: str, done: int, of: int) -> None:
            if step not in tasks:
                tasks[step] = bar.add_task(step)
            bar.update(tasks[step], completed=done, total=of)  # type: ignore[arg-type]
            if done == of and not console.is_terminal:
                console.print(f"{step} ({time.monotonic() - start:.1f} s)")

        try:
            yield tell
        except BaseException as error:
            for folder in made:
                with suppress(OSError):  # somebody else's file lies there
                    folder.rmdir()
            if isinstance(error, OSError):
                error.filename = error.filename or ("standard output" if out == STDOUT else str(out))
            raise
        finally:
            for number in ours:
                signal.signal(number, signal.SIG_DFL)
            if TIMED and signal.getsignal(signal.SIGALRM) is not alarm:
                signal.setitimer(signal.ITIMER_REAL, 0)
                signal.signal(signal.SIGALRM, alarm or signal.SIG_DFL)


def _leave(number: int, frame: FrameType | None) -> None:
    """Whoever ends the program politely shall find no files of it left.

    A finalizer or a callback from C++ loses it like Ctrl-C (`maskplay_command`): until it is on its way it comes again.
    """
    if on_its_way():
        return
    if TIMED:
        signal.signal(signal.SIGALRM, lambda alarm, frame: _leave(number, frame))
        signal.setitimer(signal.ITIMER_REAL, AGAIN, AGAIN)
    sys.exit(128 + number)
