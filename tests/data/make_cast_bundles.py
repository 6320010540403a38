"""Write the TensorFlow rows of tests/parity/cases.py with TensorFlow itself, one folder a row:

    PYTHONPATH=src:tests python -m data.make_cast_bundles FOLDER

Kernels, biases and tables are variables of one graph, saved by name as the families' own programs did it. The tests
call `write` where TensorFlow is installed; nothing of it is kept in the repository, whose rows it would repeat.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import tensorflow as tf

from parity.cases import CASES

DIALECTS = ("google", "mesh", "openai", "newslm", "brightmart")


def write(
    folder: Path, arrays: Mapping[str, np.ndarray], config: dict, dtype: tf.DType = tf.float32, slices: str = ""
) -> None:
    """A checkpoint of the arrays in one dtype and its config; the variable named by `slices` as zeros in two pieces."""
    folder.mkdir(parents=True, exist_ok=True)
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        for name, value in arrays.items():
            pieces = tf.compat.v1.fixed_size_partitioner(2) if name == slices else None
            start = tf.compat.v1.zeros_initializer() if pieces else tf.compat.v1.constant_initializer(value)
            tf.compat.v1.get_variable(name, value.shape, dtype, start, partitioner=pieces, use_resource=False)
        session.run(tf.compat.v1.global_variables_initializer())
        saver = tf.compat.v1.train.Saver(save_relative_paths=True)
        saver.save(session, str(folder / "model.ckpt"), write_meta_graph=False)
    name = "hparams.json" if "n_embd" in config else "bert_config.json"
    (folder / name).write_text(json.dumps(config), encoding="utf-8")


if __name__ == "__main__":
    for row in CASES.values():
        if row.dialect in DIALECTS:
            write(Path(sys.argv[1]) / row.name, row.weights(), row.config)
