"""Every family that was released for TensorFlow, written by TensorFlow and read here; and the other way round."""

from __future__ import annotations

from pathlib import Path

import keras
import ml_dtypes
import numpy as np
import pytest

import maskplay as mp
from maskplay.checkpoints.load import describe
from maskplay.checkpoints.match import refuse
from maskplay.language_model import named_weights
from parity.cases import CASES
from parity.opened import REFUSED, distinct, opened, source

tf = pytest.importorskip("tensorflow", reason="TensorFlow is not installed")

from data.make_cast_bundles import DIALECTS, write  # noqa: E402

pytestmark = pytest.mark.once
ROWS = [name for name in distinct() if CASES[name].dialect in DIALECTS]


@pytest.mark.parametrize("name", ROWS)
def test_what_tensorflow_wrote_is_read(name: str, tmp_path: Path) -> None:
    arrays, config = source(name)
    write(tmp_path / "out", arrays, config)
    found = describe(tmp_path / "out", family=CASES[name].options.get("family"))
    refuse(found.tensors.path, found.match)
    assert (found.match.family, found.tensors.container) == (CASES[name].family, "tensorflow")
    assert {row.theirs for row in found.match.filled} == set(arrays)
    for theirs, value in arrays.items():
        np.testing.assert_array_equal(found.tensors[theirs], value)


@pytest.mark.parametrize(("kind", "numpy"), [("bfloat16", ml_dtypes.bfloat16), ("float16", "float16")])
@pytest.mark.parametrize("name", ["bert", "t5", "gpt2_openai"])
def test_half_precision_is_read(name: str, kind: str, numpy: type, tmp_path: Path) -> None:
    arrays, config = source(name)
    write(tmp_path / "out", arrays, config, getattr(tf, kind))
    made, usual = mp.load(tmp_path / "out"), named_weights(opened(name).network)
    for row in made.report.filled:
        rounded = row.read(arrays[row.theirs].astype(numpy)).astype("float32")
        found = keras.ops.convert_to_numpy(named_weights(made.network)[row.ours])
        np.testing.assert_array_equal(found, rounded)
    assert set(named_weights(made.network)) == set(usual)


def test_partitioned_variables_are_refused(tmp_path: Path) -> None:
    arrays, config = source("bert")
    write(tmp_path / "out", arrays, config, slices="bert/pooler/dense/kernel")
    with pytest.raises(mp.CheckpointError, match="'bert/pooler/dense/kernel' is partitioned"):
        mp.load(tmp_path / "out")


@pytest.mark.parametrize("name", [name for name in ROWS if name not in REFUSED["google"]])
def test_tensorflow_reads_what_is_written(name: str, tmp_path: Path) -> None:
    opened(name).save(tmp_path / "out", format="google")
    reader = tf.train.load_checkpoint(str(tmp_path / "out" / "bert_model.ckpt"))
    weights = named_weights(opened(name).network)
    rows = describe(tmp_path / "out").match.filled
    assert {row.theirs for row in rows} == set(reader.get_variable_to_shape_map())
    for row in rows:
        found = row.read(reader.get_tensor(row.theirs))
        np.testing.assert_array_equal(found, keras.ops.convert_to_numpy(weights[row.ours]))
