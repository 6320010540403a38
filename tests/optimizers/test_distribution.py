"""Under `keras.distribution` on four simulated devices: as on one."""

import json
import os
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest

STEPS = """
import json, sys
import keras, numpy as np
from keras import distribution
from keras.src.backend.jax import core
core.should_shard_at_init = lambda layout, shape: len(shape) > 1  # as Keras does with large weights
from maskplay import _backend
from maskplay.optimizers import Average, LayerAdaptation, LazyRows, Lookahead, ParameterRates, PiecewiseLinear

def run():
    _backend.seed(0)
    layers = [keras.layers.Embedding(8, 4, name="token"), keras.layers.Flatten(), keras.layers.Dense(4, name="head")]
    model = keras.Sequential([keras.Input((2,), dtype="int32"), *layers], name="model")
    inner = keras.optimizers.Adam(PiecewiseLinear(0.1, {2: 1}), weight_decay=0.1, gradient_accumulation_steps=2)
    lazy = LazyRows(ParameterRates(LayerAdaptation(inner), {"bias": 2.0}), ["token"])
    model.compile(Average(Lookahead(lazy, 2), 0.9), "mse")
    random = np.random.default_rng(0)
    model.fit(random.integers(0, 6, (64, 2)), random.normal(size=(64, 4)), 8, shuffle=False, verbose=0)
    slots = [v for v in model.optimizer.variables if v.path.endswith(("slow", "momentum", "running_average"))]
    split = sum(not v.value.sharding.is_fully_replicated for v in slots)
    with model.optimizer.average_weights(model):
        averages = model.get_weights()
    return [np.asarray(each).tolist() for each in [*model.get_weights(), *averages]], split

found = [run()]
distribution.set_distribution(distribution.DataParallel(auto_shard_dataset=False))
found.append(run())
mesh = distribution.DeviceMesh((2, 2), ("batch", "model"), distribution.list_devices())
layout = distribution.LayoutMap(mesh)
layout[".*token/embeddings"] = ("model", None)
layout[".*head/kernel"] = (None, "model")
distribution.set_distribution(distribution.ModelParallel(layout_map=layout, batch_dim_name="batch"))
found.append(run())
print(json.dumps(found))
"""


@pytest.mark.skipif(keras.config.backend() != "jax", reason="keras.distribution is JAX's")
def test_four_devices_are_one() -> None:
    paths = os.pathsep.join([str(Path(__file__).parents[2] / "src"), os.environ.get("PYTHONPATH", "")])
    flags = {"XLA_FLAGS": "--xla_force_host_platform_device_count=4", "JAX_PLATFORMS": "cpu", "KERAS_BACKEND": "jax"}
    environment = {**os.environ, "PYTHONPATH": paths, **flags}
    done = subprocess.run([sys.executable, "-c", STEPS], env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    (one, _), (data, copies), (model, split) = json.loads(done.stdout.splitlines()[-1])
    assert copies == 0 and split == 2 * 3  # slots lie as their weights do
    for a, b, c in zip(one, data, model, strict=True):
        np.testing.assert_allclose(b, a, atol=1e-5)
        np.testing.assert_allclose(c, a, atol=1e-5)
