"""What every layer of the library owes its users: `check_layer` runs it through its whole life."""

from copy import deepcopy
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import keras
import numpy as np
from keras import ops, tree

POLICIES = ("mixed_bfloat16", "mixed_float16")  # float32 is what all the rest runs under


def numbers(outputs: Any) -> list[np.ndarray]:
    """All tensors of a result, as NumPy, half precision widened."""
    flat = [x for x in tree.flatten(outputs) if x is not None]
    return [ops.convert_to_numpy(ops.cast(x, "float32") if "float" in str(x.dtype) else x) for x in flat]


def assert_equal(one: Any, other: Any) -> None:
    one, other = numbers(one), numbers(other)
    assert len(one) == len(other) > 0
    for a, b in zip(one, other):
        np.testing.assert_array_equal(a, b)


def check_layer(layer: keras.layers.Layer, *inputs: np.ndarray, dynamic: bool = True, **kwargs: Any) -> Any:
    """Config round trip, save and load, any length, shapes and dtypes as promised, finite under every dtype policy.

    Args:
        layer: fresh; it is called on `inputs`.
        inputs: arrays, the first ones of `call`.
        dynamic: axis 1 of the first input is a length, which may be any.
        **kwargs: further arguments of `call`; arrays among them are inputs like the others.

    Returns:
        The layer's outputs.
    """
    kind = type(layer)
    arrays = {name: value for name, value in kwargs.items() if isinstance(value, np.ndarray)}
    others = {name: value for name, value in kwargs.items() if name not in arrays}
    outputs = layer(*inputs, **kwargs)

    # The config says everything: a second layer made from it computes the same with the same weights.
    config = layer.get_config()
    twin = kind.from_config(deepcopy(config))  # Keras' own wrappers empty the one they are given
    twin(*inputs, **kwargs)
    assert twin.get_config() == config
    assert [(w.name, w.shape) for w in twin.weights] == [(w.name, w.shape) for w in layer.weights]
    twin.set_weights(layer.get_weights())
    assert_equal(outputs, twin(*inputs, **kwargs))

    # In a functional model with unknown lengths: saved, loaded, and called with another length.
    def has_length(x: np.ndarray) -> bool:
        return dynamic and x.ndim > 1 and x.shape[1] == inputs[0].shape[1]

    def symbol(x: np.ndarray) -> keras.KerasTensor:
        return keras.Input((None, *x.shape[2:]) if has_length(x) else x.shape[1:], dtype=str(x.dtype))

    symbols = [symbol(x) for x in inputs]
    named = {name: symbol(x) for name, x in arrays.items()}
    result = layer(*symbols, **named, **others)
    model = keras.Model([*symbols, *named.values()], result)
    given = [*inputs, *arrays.values()]
    assert_equal(outputs, model(given))
    for promised, found in zip(tree.flatten(result), tree.flatten(outputs)):
        assert keras.backend.standardize_dtype(found.dtype) == promised.dtype
        assert len(promised.shape) == len(found.shape)
        assert all(p in (None, f) for p, f in zip(promised.shape, found.shape)), (promised.shape, found.shape)
    with TemporaryDirectory() as folder:
        path = Path(folder) / "model.keras"
        model.save(path)
        assert_equal(outputs, keras.models.load_model(path)(given))
    if dynamic:
        longer = [np.concatenate([x, x], axis=1) if has_length(x) else x for x in given]
        for promised, found in zip(tree.flatten(result), tree.flatten(model(longer))):
            unknown = [n for n, known in zip(found.shape[1:], promised.shape[1:]) if known is None]
            assert all(n == longer[0].shape[1] for n in unknown), found.shape

    # Every policy gives finite numbers, in its own dtype where the layer says so.
    for policy in POLICIES:
        other = kind.from_config({**deepcopy(config), "dtype": policy})
        for x in numbers(other(*inputs, **kwargs)):
            assert np.isfinite(x).all(), policy
    return outputs
