"""maskplay: Transformer 如戏，全靠 Mask. Transformers of language on Keras 3: the mask of a call decides the play.

From BERT to GAU-α, GPT to LLaMA, and T5.

The public names: those of `__all__` here, and those of the modules in it (`mp.tables.read_examples`,
`mp.callbacks.Resume`, …). Without KERAS_BACKEND the first installed of jax, torch and tensorflow is used.
"""

from maskplay import _backend

_backend.choose()

from maskplay import (  # noqa: E402
    autodiff,
    batches,
    callbacks,
    corpus,
    families,
    fresh,
    hosts,
    layers,
    losses,
    masks,
    memory,
    metrics,
    optimizers,
    plays,
    pretext,
    regularization,
    starts,
    tables,
    words,
)
from maskplay.config import Config  # noqa: E402
from maskplay.encoder import Encoder, submodel  # noqa: E402
from maskplay.errors import CheckpointError, DataError, MissingExtra, UserError  # noqa: E402
from maskplay.language_model import LanguageModel  # noqa: E402
from maskplay.pretrained import Pretrained, load  # noqa: E402
from maskplay.text.tokenizer import Tokenizer  # noqa: E402

__version__ = "0.1.0"

__all__ = [
    "CheckpointError",
    "Config",
    "DataError",
    "Encoder",
    "LanguageModel",
    "MissingExtra",
    "Pretrained",
    "Tokenizer",
    "UserError",
    "autodiff",
    "batches",
    "callbacks",
    "corpus",
    "families",
    "fresh",
    "hosts",
    "layers",
    "load",
    "losses",
    "masks",
    "memory",
    "metrics",
    "optimizers",
    "plays",
    "pretext",
    "regularization",
    "starts",
    "submodel",
    "tables",
    "words",
]
