"""Gradients against formulas and finite differences: of functions, of gradients, eager and within a compiled `fit`."""

import keras
import numpy as np
import pytest
from keras import ops

from gradients import compile_without_kernels
from maskplay import _backend
from maskplay.autodiff import gradient, value_and_gradient

RANDOM = np.random.default_rng(0)
TABLE, KERNEL = RANDOM.normal(size=(5, 3)), RANDOM.normal(size=(3, 2))
ROWS, LABELS = np.array([0, 3, 3, 1]), np.array([0, 1, 1, 0])


def loss(xp, table, kernel, rows=ROWS):
    """Cross-entropy of gathered rows: linear, then softmax, then the logarithm of a probability."""
    scores = table[rows] @ kernel if xp is np else ops.matmul(ops.take(table, rows, axis=0), kernel)
    peak = xp.max(scores, axis=-1, keepdims=True)
    total = xp.log(xp.sum(xp.exp(scores - peak), axis=-1)) + peak[:, 0]
    right = np.eye(2, dtype="float32")[LABELS]
    return xp.mean(total - xp.sum(scores * (right if xp is np else ops.convert_to_tensor(right)), axis=-1))


def difference(function, x, step=1e-6):
    """The gradient by central differences, in float64."""
    slopes = np.zeros_like(x)
    for i in np.ndindex(x.shape):
        up, down = x.copy(), x.copy()
        up[i] += step
        down[i] -= step
        slopes[i] = (function(up) - function(down)) / (2 * step)
    return slopes


def tensors(*arrays):
    return [ops.convert_to_tensor(array, dtype="float32") for array in arrays]


def test_value_and_gradient_of_a_list() -> None:
    (value, rest), slopes = value_and_gradient(lambda x: (loss(ops, *x), x[1] * 2), tensors(TABLE, KERNEL))
    assert ops.convert_to_numpy(value) == pytest.approx(loss(np, TABLE, KERNEL), abs=1e-6)
    np.testing.assert_allclose(ops.convert_to_numpy(rest), KERNEL * 2, atol=1e-6)
    by_table, by_kernel = (ops.convert_to_numpy(slope) for slope in slopes)
    np.testing.assert_allclose(by_table, difference(lambda table: loss(np, table, KERNEL), TABLE), atol=1e-5)
    np.testing.assert_allclose(by_kernel, difference(lambda kernel: loss(np, TABLE, kernel), KERNEL), atol=1e-5)
    assert not by_table[[2, 4]].any()  # rows that are not gathered: dense zeros


def test_a_gradient_is_differentiable_with_respect_to_everything() -> None:
    def steepness(x):
        return ops.sum(ops.square(gradient(lambda table: loss(ops, table, x["kernel"]), x["table"])))

    def reference(table, kernel):
        return (difference(lambda table: loss(np, table, kernel), table, 1e-5) ** 2).sum()

    table, kernel = tensors(TABLE, KERNEL)
    slopes = gradient(steepness, {"table": table, "kernel": kernel})
    by_table = difference(lambda table: reference(table, KERNEL), TABLE, 1e-4)
    by_kernel = difference(lambda kernel: reference(TABLE, kernel), KERNEL, 1e-4)
    np.testing.assert_allclose(ops.convert_to_numpy(slopes["table"]), by_table, atol=2e-5)
    np.testing.assert_allclose(ops.convert_to_numpy(slopes["kernel"]), by_kernel, atol=2e-5)
    assert np.abs(by_table).max() > 0.01


def test_only_the_argument_counts_not_the_same_tensor_by_another_way() -> None:
    weight = keras.Variable([2.0, 3.0])
    slope = gradient(lambda x: ops.sum(x * weight), weight.value)
    np.testing.assert_array_equal(ops.convert_to_numpy(slope), [2.0, 3.0])  # both ways: 4 and 6


@pytest.mark.parametrize("again", [True, False])
def test_what_it_does_not_depend_on_has_gradient_zero(again: bool) -> None:
    x = tensors([1.0, 2.0], [3.0])
    slopes = gradient(lambda x: ops.sum(x[0]), x, again)
    assert [ops.convert_to_numpy(slope).tolist() for slope in slopes] == [[1.0, 1.0], [0.0]]
    slopes = gradient(lambda x: ops.sum(ops.ones(3)), x, again)
    assert [ops.convert_to_numpy(slope).tolist() for slope in slopes] == [[0.0, 0.0], [0.0]]


def test_it_gives_the_same_compiled() -> None:
    kernel = keras.Variable(KERNEL.astype("float32"))

    def steepness(table):
        return ops.sum(ops.square(gradient(lambda table: loss(ops, table, kernel), table)))

    (table,) = tensors(TABLE)
    fast = _backend.compiled(steepness, [kernel])
    for _ in range(2):
        eager, compiled = (ops.convert_to_numpy(function(table)) for function in (steepness, fast))
        assert compiled == pytest.approx(eager, rel=1e-5)
        kernel.assign(kernel * 2)


class Penalized(keras.layers.Layer):
    """x W, with the squared slope of Σ tanh(x W)² by x as a loss: W learns through a gradient."""

    def build(self, shape):
        self.kernel = self.add_weight(shape=(shape[-1], 2), initializer="ones", name="kernel")

    def call(self, x):
        slope = gradient(lambda x: ops.sum(ops.tanh(ops.matmul(x, self.kernel)) ** 2), x)
        self.add_loss(ops.sum(slope**2))
        return ops.matmul(x, self.kernel)


@pytest.mark.parametrize("how", [{"run_eagerly": True}, {"jit_compile": True}], ids=str)
def test_fit_differentiates_a_gradient(how: dict[str, bool], monkeypatch: pytest.MonkeyPatch) -> None:
    compile_without_kernels(monkeypatch)
    x = RANDOM.normal(size=(4, 3)) * 0.3
    inputs = keras.Input((3,))
    model = keras.Model(inputs, Penalized(name="penalized")(inputs))
    model.compile(keras.optimizers.SGD(0.1), **how)

    def penalty(kernel):
        t = np.tanh(x @ kernel)
        return ((2 * t * (1 - t**2) @ kernel.T) ** 2).sum()

    model.fit(x.astype("float32"), np.zeros(4), batch_size=4, verbose=0)
    expected = 1 - 0.1 * difference(penalty, np.ones((3, 2)))
    np.testing.assert_allclose(model.get_weights()[0], expected, atol=1e-5)
    assert np.abs(expected - 1).max() > 0.01
