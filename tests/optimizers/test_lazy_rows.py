"""Rows that nothing touched stand still to the last bit; the others do what the inner optimizer did."""

import keras
import numpy as np
import pytest

from maskplay import _backend
from maskplay.errors import UserError
from maskplay.optimizers import LayerAdaptation, LazyRows, PiecewiseLinear
from optimizers.fed import arrays, far, fed, feed, gradients, same

TABLE = {"token/embeddings": (6, 3), "head/kernel": (3, 2)}
RATE, DECAY = 0.05, 0.1


def sparse(steps: int, rows: int = 2) -> list[list[np.ndarray]]:
    """Gradients that touch a few rows of the table a step, never the last one."""
    random = np.random.default_rng(5)
    made = gradients(steps, TABLE)
    for step in made:
        touched = random.choice(5, rows, replace=False)
        step[0][[row for row in range(6) if row not in touched]] = 0
    return made


def adam(**kwargs) -> keras.optimizers.Optimizer:
    return keras.optimizers.Adam(RATE, weight_decay=DECAY, **kwargs)


def slots(optimizer: keras.optimizers.Optimizer) -> list[np.ndarray]:
    """The table's momentum and velocity."""
    return arrays(
        v for v in optimizer.variables if "embeddings_" in v.name and v.name.endswith(("momentum", "velocity"))
    )


def lazy_adam(table: np.ndarray, steps: list[np.ndarray]) -> list[np.ndarray]:
    """Table, momentum and velocity, in float64."""
    table = np.asarray(table, "float64")
    m, v = np.zeros_like(table), np.zeros_like(table)
    for t, g in enumerate(steps, 1):
        for row in np.flatnonzero(g.any(axis=1)):
            m[row] = 0.9 * m[row] + 0.1 * g[row]
            v[row] = 0.999 * v[row] + 0.001 * g[row] ** 2
            step = m[row] / (1 - 0.9**t) / (np.sqrt(v[row]) / np.sqrt(1 - 0.999**t) + 1e-7)
            table[row] -= RATE * DECAY * table[row] + RATE * step
    return [table, m, v]


def test_touched_rows_move_and_others_do_not() -> None:
    model = fed(LazyRows(adam(), ["embeddings"]), TABLE)
    start = model.get_weights()
    steps = sparse(6)
    before = [start[0], np.zeros((6, 3)), np.zeros((6, 3))]
    for step in steps:
        after = [feed(model, [step])[-1][0], *slots(model.optimizer)]
        still = ~step[0].any(axis=1)
        assert still.sum() == 4
        for old, new in zip(before, after):
            assert np.array_equal(old[still], new[still]) and not np.isclose(old[~still], new[~still]).any()
        before = after
    assert far(before, lazy_adam(start[0], [step[0] for step in steps])) < 1e-5
    # Other weights are none of its business.
    plain = fed(adam(), TABLE)
    assert np.array_equal(feed(plain, steps)[-1][1], model.get_weights()[1])


def test_as_torch_sparse_adam() -> None:
    if keras.config.backend() != "torch":
        pytest.skip("PyTorch is compared with where it is imported anyway")
    import torch

    steps = sparse(5)
    model = fed(LazyRows(keras.optimizers.Adam(RATE), ["embeddings"]), TABLE)
    table = torch.nn.Parameter(torch.tensor(np.array(model.get_weights()[0])))
    optimizer = torch.optim.SparseAdam([table], RATE, eps=1e-7)
    for step in steps:
        table.grad = torch.tensor(step[0]).to_sparse(1)
        optimizer.step()
    assert far([feed(model, steps)[-1][0]], [table.detach().cpu().numpy()]) < 2e-6


def test_all_touched_is_the_inner_optimizer() -> None:
    steps = gradients(3, TABLE)
    lazy, plain = fed(LazyRows(adam(), ["embeddings"]), TABLE), fed(adam(), TABLE)
    assert same(feed(lazy, steps)[-1], feed(plain, steps)[-1])


def test_slots_that_go_on() -> None:
    steps = sparse(4)
    lazy, plain = fed(LazyRows(adam(), ["embeddings"], freeze_slots=False), TABLE), fed(adam(), TABLE)
    start = lazy.get_weights()[0]
    after = feed(lazy, steps)
    feed(plain, steps)
    assert same(slots(lazy.optimizer), slots(plain.optimizer))
    for old, new, step in zip([start, *(each[0] for each in after)], [each[0] for each in after], steps):
        still = ~step[0].any(axis=1)
        assert np.array_equal(old[still], new[still]) and not np.isclose(old[~still], new[~still]).any()


def test_touched_in_any_batch_of_an_accumulation() -> None:
    steps = gradients(6, TABLE)
    for step, rows in zip(steps, ([0], [], [1, 2], [3], [3], [])):
        step[0][[row for row in range(6) if row not in rows]] = 0
    model = fed(LazyRows(adam(gradient_accumulation_steps=3), ["embeddings"]), TABLE)
    start = model.get_weights()[0]
    first, second = (feed(model, steps[at : at + 3])[-1][0] for at in (0, 3))
    moved = [(old != new).all(axis=1).tolist() for old, new in ((start, first), (first, second))]
    assert moved == [[True, True, True, False, False, False], [False, False, False, True, False, False]]
    assert np.array_equal(start[4:], second[4:])
    joined = [[np.mean(each, axis=0) for each in zip(*steps[at : at + 3])] for at in (0, 3)]
    assert far([feed(fed(LazyRows(adam(), ["embeddings"]), TABLE), joined)[-1][0]], [second]) < 1e-6


def test_inside_several_optimizers_that_accumulate() -> None:
    def many(**kwargs) -> keras.optimizers.Optimizer:
        by_path = keras.optimizers.OptimizerMap(adam(**kwargs), {".*kernel": adam(**kwargs)})
        return keras.optimizers.MultiOptimizer(by_path)

    steps = gradients(4, TABLE)
    for step, rows in zip(steps, ([0], [1], [2], [])):
        step[0][[row for row in range(6) if row not in rows]] = 0
    model = fed(LazyRows(many(gradient_accumulation_steps=2), ["embeddings"]), TABLE)
    found = feed(model, steps)[-1]
    assert int(model.optimizer.real_steps) == 2
    joined = [[np.mean(each, axis=0) for each in zip(*steps[at : at + 2])] for at in (0, 2)]
    assert far(feed(fed(LazyRows(many(), ["embeddings"]), TABLE), joined)[-1], found) < 1e-6
    odd = keras.optimizers.OptimizerMap(adam(), {".*kernel": adam(gradient_accumulation_steps=2)})
    with pytest.raises(UserError, match=r"expected one gradient_accumulation_steps, found \[1, 2\] inside"):
        LazyRows(keras.optimizers.MultiOptimizer(odd), ["embeddings"])


def test_slots_are_found_after_the_rate_was_exchanged() -> None:
    steps = sparse(3)
    runs = []
    for exchanged in (False, True):
        model = fed(LazyRows(adam(), ["embeddings"]), TABLE)
        feed(model, steps[:1])
        if exchanged:  # Keras forgets the variable of the rate
            model.optimizer.learning_rate = PiecewiseLinear(RATE, {0: 1})
            model.train_function = None
        runs.append([feed(model, steps[1:])[-1], slots(model.optimizer)])
    assert far(runs[0][0], runs[1][0]) < 1e-6 and far(runs[0][1], runs[1][1]) < 1e-6


def test_an_embedding_layer() -> None:
    """T4: under TensorFlow its gradient is no tensor."""
    _backend.seed(0)
    model = keras.Sequential([keras.Input((2,), dtype="int32"), keras.layers.Embedding(5, 4), keras.layers.Flatten()])
    model.compile(LazyRows(adam(), ["embeddings"]), "mse")
    before = model.get_weights()[0]
    tokens = np.array([[1, 3], [3, 3], [1, 3], [3, 1]])
    model.fit(tokens, np.ones((4, 8)), batch_size=2, verbose=0)
    moved = (model.get_weights()[0] != before).all(axis=1)
    assert moved.tolist() == [False, True, False, True, False]
    assert (model.get_weights()[0] == before)[[0, 2, 4]].all()


@pytest.mark.parametrize("scale", [None, 8.0])
def test_a_row_that_occurs_twice_has_one_gradient(scale: float | None) -> None:
    """T4: TensorFlow's slices would be squared one by one, and cannot be divided by a loss scale."""
    _backend.seed(0)
    model = keras.Sequential([keras.Input((3,), dtype="int32"), keras.layers.Embedding(4, 2), keras.layers.Flatten()])
    inner = keras.optimizers.Adam(RATE, weight_decay=DECAY, loss_scale_factor=scale)
    model.compile(LazyRows(inner, ["embeddings"]), keras.losses.MeanSquaredError("sum"))
    table = model.get_weights()[0].astype("float64")
    tokens, steps = np.array([[1, 1, 1], [1, 2, 1]]), []
    expected = table
    for _ in range(2):
        slope = np.zeros_like(table)
        for token in tokens.ravel():
            slope[token] += 2 * (expected[token] - 1) / 6
        steps.append(slope)
        expected = lazy_adam(table.copy(), steps)[0]
        model.train_on_batch(tokens, np.ones((2, 6)))
    assert far([model.get_weights()[0]], [expected]) < 1e-5


def test_two_weights_of_one_path() -> None:
    """As two networks in one model have: each has its own slots and rows."""
    one, other = (keras.Variable(np.ones((2, 3), "float32"), name="table") for _ in range(2))
    optimizer = LazyRows(keras.optimizers.SGD(0.1, momentum=0.9), ["table"])
    slopes = [np.array([[1.0] * 3, [0.0] * 3], "float32"), np.array([[0.0] * 3, [1.0] * 3], "float32")]
    for _ in range(2):
        optimizer.apply([keras.ops.convert_to_tensor(slope) for slope in slopes], [one, other])
    moved = np.float32(1 - 0.1 - 0.19)
    assert far(arrays([one, other]), [[[moved] * 3, [1] * 3], [[1] * 3, [moved] * 3]]) < 1e-6
    momenta = [array for array in arrays(optimizer.variables) if array.shape == (2, 3)]
    assert far(momenta, [[[-0.19] * 3, [0] * 3], [[0] * 3, [-0.19] * 3]]) < 1e-6


def test_what_is_refused_once_is_refused_again() -> None:
    weights = fed(adam(), TABLE).trainable_variables
    for optimizer in (LazyRows(keras.optimizers.Adafactor(), ["kernel"]), LayerAdaptation(adam(), ["nonsense"])):
        for _ in range(2):
            with pytest.raises(UserError, match="rows mix|found in no weight"):
                optimizer.apply([keras.ops.zeros(weight.shape) for weight in weights], weights)


def test_slots_that_mix_rows_are_refused() -> None:
    weights = fed(adam(), TABLE).trainable_variables
    for inner in (keras.optimizers.Adafactor(), keras.optimizers.ScheduleFreeAdamW(), keras.optimizers.Muon()):
        with pytest.raises(UserError, match="in which rows mix"):
            LazyRows(inner, ["kernel"]).build(weights)
    LazyRows(keras.optimizers.Muon(), ["embeddings"]).build(weights)  # Muon leaves embeddings to Adam
    LazyRows(keras.optimizers.Adafactor(), ["kernel"], allow_partial=True).build(weights)
    for other, own in ((keras.optimizers.Adafactor(), adam()), (keras.optimizers.Muon(), keras.optimizers.Lion())):
        by_path = keras.optimizers.OptimizerMap(other, {".*embeddings": own})  # which alone has the table
        LazyRows(keras.optimizers.MultiOptimizer(by_path), ["embeddings"]).build(weights)
    with pytest.raises(UserError, match=r"shape \(rows, …\), found \(4,\)"):
        LazyRows(adam(), ["bias"]).build([keras.Variable(np.zeros(4), name="bias")])


def test_replicas_of_tensorflow_are_refused() -> None:
    optimizer = LazyRows(adam(), ["embeddings"])

    class Strategy:
        num_replicas_in_sync = 2

    object.__setattr__(optimizer, "_distribution_strategy", Strategy())
    with pytest.raises(NotImplementedError, match="keras.distribution"):
        optimizer.build(fed(adam(), TABLE).trainable_variables)


def test_no_pattern_would_do_nothing() -> None:
    with pytest.raises(UserError, match="expected at least one pattern"):
        LazyRows(keras.optimizers.Adam(), [])
