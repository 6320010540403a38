"""`maskplay generate`: a language model goes on with a text."""

import typer

from maskplay.cli.models import CHECKPOINT, FAMILY, open_model


def generate(
    model: str = typer.Argument(help=f"A decoder's checkpoint, or an encoder's with a decoder: {CHECKPOINT}."),
    prompt: str = typer.Option(..., help="What to go on with; for T5 and its like, what to answer."),
    greedy: bool = typer.Option(True, "--greedy", help="Always take the likeliest token (so far the only way)."),
    max_new: int = typer.Option(50, min=1, help="Most tokens to add."),
    family: str | None = FAMILY,
    vocab: str | None = typer.Option(
        None, "--vocab", "--tokenizer", help="The vocabulary's file or folder, if not with the weights."
    ),
) -> None:
    """Go on with a text."""
    print(open_model(model, family, vocab).generate(prompt, max_new=max_new))
