"""The published bert4keras: its graph compiled by tf.function, its training through `train_on_batch`."""

import functools
import os
import sys
from typing import Any

from worker import DROPOUT, IGNORE, batch, pin, serve

pin()
os.environ.update(TF_KERAS="1", TF_USE_LEGACY_KERAS="1")

import tensorflow as tf  # noqa: E402
import tf_keras  # noqa: E402
import tf_keras.backend  # noqa: E402

# bert4keras imports sub-modules of TensorFlow's lazy `tf.keras`, which never ends; the real Keras 2 stands in for it.
vars(tf)["keras"] = tf_keras
for module in [module for module in sys.modules if module == "tf_keras" or module.startswith("tf_keras.")]:
    sys.modules[module.removeprefix("tf_")] = sys.modules[module]
tf_keras.optimizers.Optimizer = tf_keras.optimizers.legacy.Optimizer

import bert4keras  # noqa: E402
from bert4keras.models import build_transformer_model  # noqa: E402
from bert4keras.optimizers import Adam  # noqa: E402


def build(model: dict[str, Any], **options: Any) -> Any:
    return build_transformer_model(
        vocab_size=model["vocab_size"],
        hidden_size=model["hidden_size"],
        num_hidden_layers=model["num_layers"],
        num_attention_heads=model["num_heads"],
        intermediate_size=model["intermediate_size"],
        hidden_act="gelu",  # the exact form
        max_position=512,
        hidden_dropout_prob=DROPOUT,
        attention_probs_dropout_prob=DROPOUT,
        **options,
    )


@functools.lru_cache(maxsize=1)
def encoder(**model: Any) -> Any:
    return build(model)


def loss(labels: Any, scores: Any) -> Any:
    counted = tf.cast(tf.not_equal(labels, IGNORE), "float32")
    labels = tf.where(tf.equal(labels, IGNORE), 0, labels)
    each = tf_keras.backend.sparse_categorical_crossentropy(labels, scores, from_logits=True)
    return tf.reduce_sum(each * counted) / tf.reduce_sum(counted)


def prepare(case: dict[str, Any]) -> Any:
    if case["task"] == "gemm":
        left, right = (tf.ones(shape) for shape in case["shapes"])
        multiply = tf.function(tf.matmul)
        return lambda: multiply(left, right).numpy(), {}
    given = batch(case)
    if case["task"] == "forward":
        model = encoder(**case["model"])
        run = tf.function(lambda tokens, segments: model([tokens, segments], training=False))
        tokens, segments = tf.constant(given["tokens"]), tf.constant(given["segments"])
        return lambda: run(tokens, segments).numpy(), {"parameters": model.count_params()}
    if case["head"] == "masked":
        return None
    encoder.cache_clear()
    tf_keras.backend.clear_session()
    model = build(case["model"], with_mlm="linear")
    model.compile(Adam(1e-4), loss=loss)
    inputs = [given["tokens"], given["segments"]]
    facts = {"parameters": model.count_params(), "shape": [*given["labels"].shape, case["model"]["vocab_size"]]}
    return lambda: model.train_on_batch(inputs, given["labels"]), facts


if __name__ == "__main__":
    serve(
        {"bert4keras": bert4keras.__version__, "tensorflow": tf.__version__, "tf_keras": tf_keras.__version__}, prepare
    )
