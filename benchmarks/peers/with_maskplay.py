"""maskplay on the backend that KERAS_BACKEND names; `stock` as an argument: with Keras' own cross-entropy."""

import functools
import sys
from typing import Any

from worker import IGNORE, batch, pin, serve

pin()

import keras  # noqa: E402
import numpy as np  # noqa: E402
from keras import ops  # noqa: E402

import maskplay as mp  # noqa: E402
from maskplay.losses import TokenCrossEntropy  # noqa: E402

BACKEND = keras.config.backend()
STOCK = sys.argv[1:] == ["stock"]


class Pretraining(keras.Model):
    """A language model that reads a dictionary, as Keras' trainer hands it over, and returns its scores."""

    def __init__(self, network: mp.LanguageModel) -> None:
        super().__init__()
        self.network = network

    def call(self, inputs: dict[str, Any], training: bool | None = None) -> Any:
        return self.network(**inputs, training=training)["mlm"]


def compiled(function: Any, layer: Any = None) -> Any:
    """The function as this backend runs it for inference; it returns when the result is there."""
    if BACKEND == "jax":
        import jax

        if layer is None:
            fast = jax.jit(function)
            return lambda *inputs: jax.block_until_ready(fast(*inputs))
        fast = jax.jit(lambda weights, *inputs: layer.stateless_call(weights, [], *inputs, training=False)[0])
        weights = [weight.value for weight in layer.trainable_variables]
        return lambda *inputs: jax.block_until_ready(fast(weights, *inputs))
    if BACKEND == "tensorflow":
        import tensorflow

        return tensorflow.function(function)
    import torch

    return torch.no_grad()(function)


@functools.lru_cache(maxsize=1)
def encoder(**model: Any) -> mp.Encoder:
    layer = mp.Encoder(mp.Config(**model, dropout=0.0, attention_dropout=0.0))
    layer.build()
    return layer


def prepare(case: dict[str, Any]) -> Any:
    if STOCK and (case["task"], case.get("head")) != ("train", "full"):
        return None
    if case["task"] == "gemm":
        left, right = (ops.ones(shape) for shape in case["shapes"])
        multiply = compiled(ops.matmul)
        return lambda: multiply(left, right), {}
    given = batch(case)
    if case["task"] == "forward":
        layer = encoder(**case["model"])
        tokens, segments = ops.convert_to_tensor(given["tokens"]), ops.convert_to_tensor(given["segments"])
        run = compiled(lambda tokens, segments: layer(tokens, segments, training=False), layer)
        return lambda: run(tokens, segments), {"parameters": layer.count_params()}
    encoder.cache_clear()
    keras.backend.clear_session()
    network = mp.LanguageModel(mp.Config(**case["model"]), heads=["mlm"])
    network.build()
    model = Pretraining(network)
    loss = TokenCrossEntropy(ignore_class=IGNORE)
    if STOCK:
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True, ignore_class=IGNORE)
    model.compile(keras.optimizers.Adam(1e-4), loss=loss)
    inputs: dict[str, np.ndarray] = {"tokens": given["tokens"], "segments": given["segments"]}
    answers = given["labels"]
    if case["head"] == "masked":
        inputs["at"], answers = given["at"], given["answers"]
    facts = {"parameters": network.count_params(), "shape": [*answers.shape, case["model"]["vocab_size"]]}
    return lambda: model.train_on_batch(inputs, answers), facts


if __name__ == "__main__":
    module = {"jax": "jax", "tensorflow": "tensorflow", "torch": "torch"}[BACKEND]
    versions = {"maskplay": mp.__version__, "keras": keras.__version__, module: __import__(module).__version__}
    serve(versions, prepare)
