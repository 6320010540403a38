"""A model whose gradients are its inputs: any gradients go through Keras' compiled training to an optimizer."""

from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from typing import Any

import keras
import numpy as np
from keras import ops


@keras.saving.register_keras_serializable(package="maskplay_tests")
class Fed(keras.Model):
    """Weights θ and the loss Σ θ x, whose gradient by θ is x.

    Args:
        shapes: the weights' paths below the model, and their shapes.
        seed: of the initial values.
    """

    def __init__(self, shapes: Mapping[str, Sequence[int]], seed: int = 0, **kwargs: Any) -> None:
        super().__init__(**{"name": "fed", **kwargs})
        self.shapes = {path: tuple(shape) for path, shape in shapes.items()}
        self.seed = seed

    def build(self, input_shape: Any) -> None:
        random = np.random.default_rng(self.seed)
        self.fed = []
        for path, shape in self.shapes.items():
            *folders, name = path.split("/")
            with ExitStack() as scopes:
                for folder in folders:
                    scopes.enter_context(keras.name_scope(folder))
                weight = keras.Variable(random.normal(size=shape).astype("float32"), name=name)
            self.fed.append(weight)
        self.built = True

    def call(self, x: Any) -> Any:
        total, at = 0.0, 0
        for weight in self.fed:
            size = int(np.prod(weight.shape))
            total = total + ops.sum(ops.reshape(weight.value, (1, size)) * x[:, at : at + size], axis=1)
            at += size
        return total

    def get_config(self) -> dict[str, Any]:
        return {"name": self.name, "shapes": self.shapes, "seed": self.seed}


@keras.saving.register_keras_serializable(package="maskplay_tests")
def passed(_: Any, prediction: Any) -> Any:
    """The loss is what the model says."""
    return prediction


SHAPES = {"embedding/token/embeddings": (6, 3), "block_0/feed/kernel": (3, 4), "block_0/feed/bias": (4,)}


def fed(optimizer: keras.optimizers.Optimizer, shapes: Mapping[str, Sequence[int]] = SHAPES, **kwargs: Any) -> Fed:
    """Compiled and built."""
    model = Fed(shapes, **kwargs)
    model.compile(optimizer, passed)
    model.build((None, sum(int(np.prod(shape)) for shape in shapes.values())))
    return model


def gradients(steps: int, shapes: Mapping[str, Sequence[int]] = SHAPES, seed: int = 1) -> list[list[np.ndarray]]:
    """Random ones, as float32: for each step one array per weight."""
    random = np.random.default_rng(seed)
    return [[random.normal(size=shape).astype("float32") for shape in shapes.values()] for _ in range(steps)]


def feed(model: Fed, steps: Iterable[Sequence[np.ndarray]]) -> list[list[np.ndarray]]:
    """Train on gradients, a compiled step each; the weights after each step."""
    after = []
    for step in steps:
        flat = np.concatenate([each.ravel() for each in step])[None]
        model.train_on_batch(flat, np.zeros((1,), "float32"))
        after.append(model.get_weights())
    return after


def arrays(variables: Iterable[keras.Variable]) -> list[np.ndarray]:
    """Copies of what the variables hold."""
    return [np.array(ops.convert_to_numpy(variable)) for variable in variables]


def far(one: Sequence[np.ndarray], other: Sequence[np.ndarray]) -> float:
    """The greatest absolute difference between two lists of arrays."""
    assert len(one) == len(other)
    return max(float(np.abs(np.asarray(a, "float64") - np.asarray(b, "float64")).max()) for a, b in zip(one, other))


def same(one: Sequence[np.ndarray], other: Sequence[np.ndarray]) -> bool:
    """Equal to the last bit."""
    return len(one) == len(other) and all(np.array_equal(a, b) for a, b in zip(one, other))
