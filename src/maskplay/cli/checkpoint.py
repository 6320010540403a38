"""`maskplay inspect`, `convert` and `fill`: what a checkpoint holds, the same in another form, and a trial of it."""

import json
import math
from collections.abc import Mapping
from dataclasses import asdict
from enum import StrEnum
from pathlib import Path
from typing import Any

import typer

from maskplay.checkpoints.files import open_tensors
from maskplay.checkpoints.load import describe, summary
from maskplay.checkpoints.places import find
from maskplay.checkpoints.tensors import Tensors
from maskplay.cli.models import CHECKPOINT, FAMILY, VOCAB, open_model
from maskplay.cli.predict import printable
from maskplay.errors import UserError, listed
from maskplay.storage import MARKER, check_replaceable, is_lost, read_marker


class Format(StrEnum):
    """The forms in which a checkpoint can be written."""

    google = "google"
    huggingface = "huggingface"
    maskplay = "maskplay"


def inspect(
    model: str = typer.Argument(help=f"A trained play, or a checkpoint: {CHECKPOINT}."),
    tensors: bool = typer.Option(False, "--tensors", help="List every tensor with its shape and what it fills."),
    as_json: bool = typer.Option(False, "--json", help="Print one JSON object."),
    family: str | None = FAMILY,
) -> None:
    """Say what a checkpoint is.

    And what loading it would fill, without reading a weight.
    """
    path = str(find(model))
    if _is_play(path):
        if family is not None:
            raise UserError(f"{path}: a trained play, which says itself what it is; --family is for checkpoints")
        arrays = open_tensors(path)
        report: dict[str, Any] = {**_contents(arrays), **read_marker(path)}
        labels = report.get("labels")
        described = isinstance(report.get("play"), str) and isinstance(report.get("config"), dict)
        if not described or not isinstance(labels, list) or not all(isinstance(label, str) for label in labels):
            raise UserError(f"{Path(path) / MARKER}: not a saved play's description, or damaged")
        if as_json:
            print(_json(report))
        else:
            print(f"{path}: a trained play, {printable(report['play'])}; labels {listed(map(printable, labels))}")
            _print_contents(report)
            if tensors:
                _print_tensors(arrays)
        return
    found = describe(path, family=family)
    report = {
        **_contents(found.tensors),
        "config_file": None if found.config_path is None else str(found.config_path),
        "config": found.config.to_dict(),
        **summary(found.match),
    }
    if as_json:
        print(_json(report))
        return
    other = report["found_family"] != report["family"]
    shown = report["family"] + (f", made from a checkpoint of {report['found_family']}" if other else "")
    print(f"{report['path']}: {report['container']}, written in {report['dialect']}'s names, family {shown}")
    print(f"config file  {report['config_file'] or 'none'}")
    _print_contents(report)
    print(f"heads        {', '.join(report['heads']) or 'none'}")
    print(f"filled       {len(report['filled'])} weights")
    for name in ("left_empty", "left_over", "passed_over", "problems"):
        some = report[name]
        shown = listed(map(printable, some), most=6)
        print(f"{name.replace('_', ' '):12} {len(some) or 'none'}{': ' if some else ''}{shown}")
    if tensors:
        _print_tensors(found.tensors, {theirs: ours for ours, theirs in report["filled"].items()})


def _is_play(path: str) -> bool:
    marker = Path(path) / MARKER
    return marker.is_file() and read_marker(path).get("format") == "play"


def _json(report: Mapping[str, Any]) -> str:
    """A report as JSON; a name out of a file may hold what UTF-8 cannot say."""
    return json.dumps(report, ensure_ascii=False, indent=2).encode("utf-8", "backslashreplace").decode()


def _contents(tensors: Tensors) -> dict[str, Any]:
    sizes = [(math.prod(entry.shape), entry.dtype.itemsize) for entry in tensors.entries().values()]
    return {
        "path": str(tensors.path),
        "container": tensors.container,
        "tensors": len(sizes),
        "parameters": sum(count for count, _ in sizes),
        "bytes": sum(count * size for count, size in sizes),
    }


def _print_contents(report: dict[str, Any]) -> None:
    config = ", ".join(printable(f"{name} {value}") for name, value in report["config"].items() if value is not None)
    print(f"config       {config}")
    print(f"tensors      {report['tensors']}, {report['parameters']:,} numbers, {report['bytes']:,} bytes")


def _print_tensors(tensors: Tensors, fills: Mapping[str, str] | None = None) -> None:
    """A line each: name, dtype, shape and, of a checkpoint, the weight it fills."""
    for name in tensors.names():
        row = [printable(name), str(tensors.dtype(name)), str(list(tensors.shape(name)))]
        print("\t".join(row if fills is None else [*row, fills.get(name, "-")]))


def convert(
    model: str = typer.Argument(help=f"The checkpoint to read: {CHECKPOINT}."),
    target: str = typer.Argument(help="The folder to make."),
    to: Format = typer.Option(..., "--to", help="Whose form to write."),
    family: str | None = FAMILY,
    vocab: str | None = VOCAB,
) -> None:
    """Write a checkpoint in another form.

    Nothing appears unless all of it was read.
    """
    check_replaceable(target)
    for name, path in (("checkpoint", model), ("vocabulary", vocab)):
        if path is not None and is_lost(path, target):
            raise UserError(f"{target}: this is the {name} to read, which would be lost; choose another name")
    opened = open_model(model, family, vocab)
    opened.save(target, format=to.value)
    print(f"{target}: {opened!r}, in {to.value}'s form")


def fill(
    model: str = typer.Argument(help=f"A checkpoint with a masked-token head: {CHECKPOINT}."),
    text: str = typer.Argument(help="A text with one or more [MASK]."),
    top: int = typer.Option(5, min=1, help="How many candidates to print."),
    as_json: bool = typer.Option(False, "--json", help="Print one JSON object a line."),
    family: str | None = FAMILY,
    vocab: str | None = VOCAB,
) -> None:
    """Fill the blanks of a text.

    The best candidates come first.
    """
    for candidate in open_model(model, family, vocab).fill(text, top=top):
        if as_json:
            print(json.dumps(asdict(candidate), ensure_ascii=False))
        else:
            print(f"{candidate.score:.4f}\t{candidate.token}\t{candidate.text}")
