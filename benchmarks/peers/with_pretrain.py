"""`maskplay.plays.Pretrain` on the backend that KERAS_BACKEND names, with the batches that it draws from real text.

`full` as an argument: every place goes through the head, not the masked ones alone. `padded`: every text has a row of
its own. Neither is an option of the library, since nobody should want it: here they are put in its way.
"""

import sys
import tempfile
from typing import Any
from unittest import mock

from with_maskplay import prepare as matrix_product  # before Keras: it pins the process
from worker import serve

# isort: split
import keras

import maskplay as mp
from maskplay import demo, pretext

BACKEND, VARIANT = keras.config.backend(), "".join(sys.argv[1:])
STEPS = 1_000_000  # never the end of the run
PACKED = pretext.Packed


def unshared(*arguments: Any, **options: Any) -> pretext.Packed:
    return PACKED(*arguments, **options | {"shared": False})


def prepare(case: dict[str, Any]) -> Any:
    """A training step, the drawing of its batch included."""
    if case["task"] == "gemm":
        return matrix_product(case)
    keras.backend.clear_session()
    if VARIANT == "full":
        mock.patch.object(pretext, "places_for", lambda length, *others: length).start()
    if VARIANT == "padded":
        mock.patch.object(pretext, "Packed", unshared).start()
    texts = [review.text for review in mp.tables.read_examples(demo.path("reviews_train.tsv"))]
    tokenizer = mp.fresh.vocabulary(texts, min(3000, case["model"]["vocab_size"]))
    network = mp.LanguageModel(mp.Config(**case["model"]), heads=["mlm"])  # with more tokens than the texts have
    network.build()
    play = mp.plays.Pretrain(mp.Pretrained(network, tokenizer), "mlm", case["length"])
    corpus = pretext.prepare(([text] for text in texts), f"{tempfile.mkdtemp()}/tokens", tokenizer)
    train, _ = play.steps(corpus, case["batch"], STEPS)
    play.compile(keras.optimizers.AdamW(1e-4))
    drawn = iter(range(STEPS))

    def step() -> float:
        found = play.train_on_batch(*train[next(drawn)])
        return float(found[0] if isinstance(found, list) else found)

    return step, {"parameters": network.count_params(), "tokens": train.tokens}


if __name__ == "__main__":
    module = {"jax": "jax", "tensorflow": "tensorflow", "torch": "torch"}[BACKEND]
    versions = {"maskplay": mp.__version__, "keras": keras.__version__, module: __import__(module).__version__}
    serve(versions, prepare)
