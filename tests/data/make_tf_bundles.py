"""Write the tiny checkpoints in tests/data/tf_bundles with TensorFlow itself; the tests read them without it.

    python tests/data/make_tf_bundles.py

Written once, with TensorFlow 2.21 on a little-endian machine. Every array counts 0, 0.5, 1, 1.5 ... in its dtype
(the partitioned one holds zeros).
"""

import shutil
from pathlib import Path

import numpy as np
import tensorflow as tf

FOLDER = Path(__file__).parent / "tf_bundles"
VARIABLES = {
    "bert/embeddings/word_embeddings": ((5, 4), tf.float32),
    "bert/embeddings/word_embeddings/adam_m": ((5, 4), tf.float32),
    "bert/pooler/dense/bias": ((4,), tf.float16),
    "bert/pooler/dense/kernel": ((4, 4), tf.bfloat16),
    "counts": ((3,), tf.int32),
    "double": ((2, 1, 3), tf.float64),
    "empty": ((0, 3), tf.float32),
    "flags": ((3,), tf.bool),
    "global_step": ((), tf.int64),
    "scalar": ((), tf.float32),
}


def counting(shape: tuple[int, ...], dtype: tf.DType) -> np.ndarray:
    numbers = np.arange(np.prod(shape, dtype=int)) / 2
    return (numbers > 0.5 if dtype == tf.bool else numbers.astype(dtype.as_numpy_dtype)).reshape(shape)


def named() -> None:
    """Variables by name, as Google's BERT was saved."""
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        variables = [
            tf.compat.v1.get_variable(name, initializer=counting(shape, dtype), dtype=dtype)
            for name, (shape, dtype) in VARIABLES.items()
        ]
        session.run(tf.compat.v1.global_variables_initializer())
        saver = tf.compat.v1.train.Saver(variables, save_relative_paths=True)
        saver.save(session, str(FOLDER / "named" / "bert_model.ckpt"), write_meta_graph=False)


def partitioned() -> None:
    """One variable in two slices."""
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        tf.compat.v1.get_variable(
            "table",
            shape=(4, 2),
            initializer=tf.compat.v1.zeros_initializer(),
            partitioner=tf.compat.v1.fixed_size_partitioner(2),
            use_resource=False,
        )
        session.run(tf.compat.v1.global_variables_initializer())
        saver = tf.compat.v1.train.Saver(save_relative_paths=True)
        saver.save(session, str(FOLDER / "partitioned" / "model.ckpt"), write_meta_graph=False)


def objects() -> None:
    """Objects, as TF2 saves them: suffixed names, an object graph, optimizer slots."""
    kernel = tf.Variable(counting((3, 2), tf.float32))
    optimizer = tf.compat.v1.train.AdamOptimizer(0.1)
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(kernel) * 0.0
    optimizer.apply_gradients([(tape.gradient(loss, kernel), kernel)])
    dense = tf.Module()
    dense.kernel, dense.bias = kernel, tf.Variable(counting((2,), tf.float32))
    tf.train.Checkpoint(dense=dense, optimizer=optimizer).write(str(FOLDER / "objects" / "model.ckpt-7"))


if __name__ == "__main__":
    shutil.rmtree(FOLDER, ignore_errors=True)
    for case in ("named", "partitioned", "objects"):
        (FOLDER / case).mkdir(parents=True)
    named()
    partitioned()
    objects()
    for path in sorted(FOLDER.rglob("*.*")):
        print(path.relative_to(FOLDER), path.stat().st_size)
