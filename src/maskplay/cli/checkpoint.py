"""`maskplay inspect`, `convert` and `fill`: what a checkpoint holds, the same in another form, and a trial of it."""

import json
from dataclasses import asdict
from enum import StrEnum
from typing import Any

import typer

from maskplay.checkpoints.load import Described, describe, summary
from maskplay.errors import UserError
from maskplay.pretrained import Pretrained, load
from maskplay.storage import check_replaceable


class Format(StrEnum):
    """The forms in which a checkpoint can be written."""

    google = "google"
    huggingface = "huggingface"
    maskplay = "maskplay"


def inspect(
    path: str = typer.Argument(help="A checkpoint: a folder or file of Google's, Hugging Face's or maskplay's."),
    tensors: bool = typer.Option(False, "--tensors", help="List every tensor with its shape and what it fills."),
    as_json: bool = typer.Option(False, "--json", help="Print one JSON object."),
) -> None:
    """Say what a checkpoint is and what loading it would fill, without reading a weight."""
    found = describe(path)
    report = _report(found)
    if as_json:
        print(json.dumps(report, ensure_ascii=False, indent=2))
        return
    described = ", ".join(f"{name} {value}" for name, value in report["config"].items() if value is not None)
    print(f"{report['path']}: {report['container']}, written in {report['dialect']}'s names, family {report['family']}")
    print(f"config       {described}")
    print(f"config file  {report['config_file'] or 'none'}")
    print(f"tensors      {report['tensors']}, {report['parameters']:,} numbers, {report['bytes']:,} bytes")
    print(f"heads        {', '.join(report['heads']) or 'none'}")
    print(f"filled       {len(report['filled'])} weights")
    for name in ("left_empty", "left_over", "passed_over", "problems"):
        some = report[name]
        print(f"{name.replace('_', ' '):12} {len(some) or 'none'}{': ' if some else ''}{_some(some)}")
    if tensors:
        fills = {theirs: ours for ours, theirs in report["filled"].items()}
        for name in found.tensors.names():
            shape, dtype = found.tensors.shape(name), found.tensors.dtype(name)
            print(f"{name}\t{dtype}\t{list(shape)}\t{fills.get(name, '-')}")


def _report(found: Described) -> dict[str, Any]:
    entries = found.tensors.entries().values()
    sizes = [(_product(entry.shape), entry.dtype.itemsize) for entry in entries]
    return {
        "path": str(found.tensors.path),
        "container": found.tensors.container,
        "config_file": None if found.config_path is None else str(found.config_path),
        "config": found.config.to_dict(),
        "tensors": len(sizes),
        "parameters": sum(count for count, _ in sizes),
        "bytes": sum(count * size for count, size in sizes),
        **summary(found.match),
    }


def _product(shape: tuple[int, ...]) -> int:
    total = 1
    for size in shape:
        total *= size
    return total


def _some(names: list[str], most: int = 6) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def convert(
    source: str = typer.Argument(help="The checkpoint to read."),
    target: str = typer.Argument(help="The folder to make."),
    to: Format = typer.Option(..., "--to", help="Whose form to write."),
) -> None:
    """Write a checkpoint in another form; nothing appears unless all of it was read."""
    check_replaceable(target)
    model = _pretrained(source)
    model.save(target, format=to.value)
    print(f"{target}: {model!r}, in {to.value}'s form")


def fill(
    source: str = typer.Argument(metavar="MODEL", help="A checkpoint with a masked-token head."),
    text: str = typer.Argument(help="A text with one or more [MASK]."),
    top: int = typer.Option(5, min=1, max=1000, help="How many candidates to print."),
    as_json: bool = typer.Option(False, "--json", help="Print one JSON object a line."),
) -> None:
    """Fill the blanks of a text, the best candidates first."""
    for candidate in _pretrained(source).fill(text, top=top):
        if as_json:
            print(json.dumps(asdict(candidate), ensure_ascii=False))
        else:
            print(f"{candidate.score:.4f}\t{candidate.token}\t{candidate.text}")


def _pretrained(source: str) -> Pretrained:
    model = load(source)
    if not isinstance(model, Pretrained):
        raise UserError(f"{source}: expected a checkpoint, found a trained play; `maskplay predict` uses it")
    return model
