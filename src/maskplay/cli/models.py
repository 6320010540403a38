"""The model that a command takes: what may be named, what it is said to be, and how it is opened."""

import typer

from maskplay.errors import UserError
from maskplay.families import family as family_of
from maskplay.pretrained import Pretrained, load

CHECKPOINT = (
    "a folder or file of Google's, OpenAI's, Hugging Face's, llama2.c's, Keras', NumPy's (.npz) or maskplay's, a name "
    "on the Hugging Face hub (google-bert/bert-base-chinese), or bundled:zh-small"
)


def _known(family: str | None) -> str | None:
    """The option's value, refused before anything is read."""
    return None if family is None else family_of(family).name


FAMILY = typer.Option(
    None, callback=_known, help="What the checkpoint is where several families look alike: simbert, t5_pegasus, …"
)
VOCAB = typer.Option(None, help="The vocabulary's file or folder, if not with the weights.")


def open_model(model: str, family: str | None = None, vocab: str | None = None) -> Pretrained:
    """The checkpoint that is named, which a trained play is not."""
    opened = load(model, family=family, vocab=vocab)
    if not isinstance(opened, Pretrained):
        raise UserError(f"{model}: expected a checkpoint, found a trained play; `maskplay predict` uses it")
    return opened
