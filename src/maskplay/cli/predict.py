"""`maskplay predict` and `maskplay evaluate`: use a trained play on a file."""

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import typer

from maskplay import plays
from maskplay.checkpoints.tensors import quoted
from maskplay.errors import DataError, UserError, listed
from maskplay.metrics import accuracy, macro_f1
from maskplay.plays import Classify
from maskplay.tables import SEEN, Example, read_examples


def predict(
    folder: Path = typer.Argument(help="What `maskplay fit` made."),
    file: str = typer.Argument(help="Texts: .txt (one a line), .tsv, .csv, .jsonl, or - for lines of standard input."),
    as_json: bool = typer.Option(False, "--json", help="Print a JSON object a line, with the score of every label."),
    batch_size: int = typer.Option(32, min=1, help="Texts scored together."),
) -> None:
    """Print the label of each text, a line each."""
    play = open_classifier(folder)
    examples = read_examples(file)
    for example, scores in zip(examples, play.probabilities(examples, batch_size)):
        label = play.labels[scores.argmax()]
        if as_json:
            pair = {} if example.text2 is None else {"text2": example.text2}
            shown = {name: round(float(score), 6) for name, score in zip(play.labels, scores)}
            print(json.dumps({"text": example.text, **pair, "label": label, "scores": shown}, ensure_ascii=False))
        else:
            print(printable(label))


def evaluate(
    folder: Path = typer.Argument(help="What `maskplay fit` made."),
    file: Path = typer.Argument(help="Labelled examples: .tsv, .csv or .jsonl."),
    as_json: bool = typer.Option(False, "--json", help="Print one JSON object."),
    batch_size: int = typer.Option(32, min=1, help="Examples scored together."),
) -> None:
    """Print accuracy and macro F1 on labelled examples.

    Beside them the accuracy of always saying the file's commonest label.
    """
    play = open_classifier(folder)
    figures = figures_of(play, read_labelled(file, play.labels, str(folder)), batch_size)
    if as_json:
        print(json.dumps(figures, ensure_ascii=False))
        return
    print(f"examples  {figures['examples']}")
    print(f"accuracy  {figures['accuracy']:.4f}")
    print(f"macro F1  {figures['macro_f1']:.4f}")
    print(f"majority  {figures['majority']:.4f} (always saying {printable(figures['commonest'])})")


def printable(text: str) -> str:
    """A label or name out of a file as one line that does nothing to a terminal."""
    return text if text.translate(SEEN).isprintable() else quoted(text)


def open_classifier(folder: Path) -> Classify:
    """The trained classifier in a folder."""
    if not folder.exists():
        raise UserError(f"{folder}: no such folder; expected one that `maskplay fit classify FILE --out NAME` made")
    play = plays.load(folder)
    if not isinstance(play, Classify):
        raise UserError(f"{folder}: expected a classifier, found a {type(play).__name__}")
    return play


def read_labelled(file: Path, known: Sequence[str], where: str) -> list[Example]:
    """Examples whose labels are all known; `where` says from what they are known."""
    examples = read_examples(file, labelled=True)
    for example in examples:
        if example.label not in known:
            found = f"{file}, line {example.line}: the label {str(example.label)[:80]!r}"
            raise DataError(f"{found} does not occur in {where}; known are {listed(known)}")
    return examples


def figures_of(play: Classify, examples: Sequence[Example], batch_size: int) -> dict[str, Any]:
    """How good a classifier is on labelled examples, and how good the commonest label would be."""
    truth = [play.labels.index(str(example.label)) for example in examples]
    guess = play.probabilities(examples, batch_size).argmax(axis=-1)
    commonest, count = Counter(truth).most_common(1)[0]
    return {
        "examples": len(truth),
        "accuracy": accuracy(truth, guess),
        "macro_f1": macro_f1(truth, guess),
        "majority": count / len(truth),
        "commonest": play.labels[commonest],
    }
