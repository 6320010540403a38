"""Resume: a run stopped after any batch ends with the weights of one that was never stopped."""

import re
from pathlib import Path

import keras
import numpy as np
import pytest

from maskplay.batches import Batches
from maskplay.callbacks import BEST, STATE, Resume
from maskplay.errors import UserError

EPOCHS, STEPS = 3, 5


class Stop(keras.callbacks.Callback):
    """Ctrl-C after so many batches."""

    def __init__(self, after: int) -> None:
        super().__init__()
        self.left = after

    def on_train_batch_end(self, batch: int, logs=None) -> None:
        self.left -= 1
        if self.left == 0:
            raise KeyboardInterrupt


class Bag(keras.Model):
    """A bag of token vectors: small, with dropout, so that the state of a random generator matters."""

    def __init__(self) -> None:
        super().__init__()
        self.table = keras.layers.Embedding(50, 8)
        self.dropout = keras.layers.Dropout(0.3)
        self.scores = keras.layers.Dense(2)

    def call(self, inputs, training=None):
        return self.scores(keras.ops.mean(self.dropout(self.table(inputs["tokens"]), training=training), axis=1))


def model(seed: int = 0) -> keras.Model:
    keras.utils.set_random_seed(seed)
    made = Bag()
    made.compile(
        keras.optimizers.AdamW(1e-2), keras.losses.SparseCategoricalCrossentropy(from_logits=True), metrics=["accuracy"]
    )
    made(data()[0][0])
    return made


def data(seed: int = 0, examples: int = 8 * STEPS) -> Batches:
    draw = np.random.default_rng(0)
    tokens = draw.integers(1, 50, (examples, 6))
    return Batches(tokens.tolist(), targets=(tokens.sum(axis=1) > 150).astype("int32"), batch_size=8, seed=seed)


def run(folder: Path, stop: int | keras.callbacks.Callback | None = None, **options) -> tuple[Resume, list[np.ndarray]]:
    resume = Resume(folder, {"seed": 0}, **{"every": 0, **options})
    trained = model()
    extra = [] if stop is None else [stop if isinstance(stop, keras.callbacks.Callback) else Stop(stop)]
    resume.fit(trained, data(), EPOCHS, dev(), extra)
    return resume, [keras.ops.convert_to_numpy(weight) for weight in trained.weights]


def dev() -> tuple:
    inputs, targets = Batches(
        np.random.default_rng(1).integers(1, 50, (16, 6)).tolist(), targets=np.arange(16) % 2, batch_size=16
    )[0]
    return inputs, targets


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> tuple[Resume, list[np.ndarray]]:
    return run(tmp_path_factory.mktemp("whole") / "running")


@pytest.mark.parametrize("stop", [1, STEPS - 1, STEPS, STEPS + 1, 2 * STEPS + 3, EPOCHS * STEPS])
def test_a_stopped_run_ends_like_a_whole_one(whole, tmp_path: Path, stop: int, monkeypatch) -> None:
    monkeypatch.setattr("maskplay.callbacks.PAUSE", 0)  # save after every batch
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "running", stop)
    place = Resume(tmp_path / "running", {"seed": 0})
    assert place.found == (stop > 1) and place.epoch * STEPS + place.batch in (stop, stop - 1)
    resume, weights = run(tmp_path / "running")
    assert resume.history == whole[0].history
    for one, other in zip(weights, whole[1]):
        np.testing.assert_allclose(one, other, atol=1e-6)


@pytest.mark.parametrize("monitor", [None, "val_accuracy"])
def test_killed_after_its_last_epoch_it_still_has_what_it_learnt(tmp_path: Path, monitor: str | None) -> None:
    first, weights = run(tmp_path / "running", monitor=monitor)
    again, resumed = run(tmp_path / "running", monitor=monitor)
    assert again.found and again.history == first.history
    for one, other in zip(resumed, weights):
        np.testing.assert_array_equal(one, other)


def test_a_run_stopped_between_epochs_begins_the_next_with_no_sums(whole, tmp_path: Path) -> None:
    class StopBetween(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch: int, logs=None) -> None:
            if epoch == 1:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "running", StopBetween())
    assert Resume(tmp_path / "running", {"seed": 0}).epoch == 1
    resume, _ = run(tmp_path / "running")
    assert resume.history == whole[0].history


def test_stopped_again_and_again(whole, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr("maskplay.callbacks.PAUSE", 0)
    for stop in (2, 1, 4):
        with pytest.raises(KeyboardInterrupt):
            run(tmp_path / "running", stop)
    _, weights = run(tmp_path / "running")
    for one, other in zip(weights, whole[1]):
        np.testing.assert_allclose(one, other, atol=1e-6)


def test_a_run_that_starts_over_differs(whole, tmp_path: Path) -> None:
    # The control: had the state been lost, the comparison above would see it.
    trained = model()
    inputs, targets = data()[0]
    trained.train_on_batch(inputs, targets)
    Resume(tmp_path / "running", {}).fit(trained, data(), EPOCHS, dev())
    first = keras.ops.convert_to_numpy(trained.weights[0])
    assert np.abs(first - whole[1][0]).max() > 1e-4


def test_a_data_set_of_one_batch(tmp_path: Path) -> None:
    seen = []

    class Watch(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            seen.append(one.epoch)

    one = data(examples=8)
    Resume(tmp_path / "running", {}).fit(model(), one, 3, dev(), [Watch()])
    assert seen == [0, 1, 2]


def test_the_best_epoch_stays(tmp_path: Path) -> None:
    class Worse(keras.callbacks.Callback):
        """Ruins the weights after the first epoch, before it is judged a second time."""

        def on_epoch_begin(self, epoch, logs=None):
            if epoch == 1:
                for weight in self.model.weights:
                    weight.assign(-weight)

    kept: list[np.ndarray] = []

    class Keep(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            if epoch == 0:
                kept.extend(keras.ops.convert_to_numpy(weight) for weight in self.model.weights)

    trained = model()
    resume = Resume(tmp_path / "running", {}, monitor="accuracy_of_ours")

    class Judge(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            logs["accuracy_of_ours"] = [0.5, 0.4, 0.5][epoch]

    resume.fit(trained, data(), EPOCHS, dev(), [Worse(), Keep(), Judge()])
    assert resume.best is not None and resume.best["epoch"] == 1
    for one, other in zip(kept, trained.weights):
        np.testing.assert_array_equal(one, keras.ops.convert_to_numpy(other))


def test_a_run_that_diverges_leaves_what_was_good(tmp_path: Path) -> None:
    class Diverge(keras.callbacks.Callback):
        def on_train_batch_begin(self, batch: int, logs=None) -> None:
            if batch == 2 and resume.epoch == 1:
                self.model.scores.bias.assign([np.inf, 0.0])

    resume, trained = Resume(tmp_path, {"seed": 0}, every=1e9), model()
    if keras.backend.backend() == "jax":  # whose weights only come back at the end of an epoch
        trained.run_eagerly = True
    with pytest.raises(UserError, match="training has diverged, .* is not finite: a lower learning_rate"):
        resume.fit(trained, data(), EPOCHS, dev(), [Diverge()])
    again = Resume(tmp_path, {"seed": 0})
    assert (again.epoch, again.batch, len(again.history)) == (1, 0, 1)


def test_patience_ends_a_run(tmp_path: Path) -> None:
    trained = model()
    trained.optimizer.learning_rate = 0.0  # nothing gets better
    resume = Resume(tmp_path / "running", {}, patience=2)
    resume.fit(trained, data(), 9, dev())
    assert len(resume.history) == 3 and resume.finished_early
    again = Resume(tmp_path / "running", {}, patience=2)
    assert again.finished_early and again.epoch == 3


def test_other_settings_are_refused_by_name(tmp_path: Path) -> None:
    Resume(tmp_path / "running", {"--epochs": 3, "--model": None}).fit(model(), data(), 1, dev())
    with pytest.raises(UserError) as error:
        Resume(tmp_path / "running", {"--epochs": 4, "--model": None})
    assert str(error.value) == (
        f"{tmp_path / 'running'}: holds an unfinished run with --epochs 3, now it is 4: "
        "repeat its settings to go on, or begin afresh (restart=True, on the command line --restart)"
    )
    with pytest.raises(UserError, match='with --model unset, now it is "bert"'):
        Resume(tmp_path / "running", {"--epochs": 3, "--model": "bert"})
    with pytest.raises(UserError, match='an unfinished run with monitor "val_accuracy", now it is unset'):
        Resume(tmp_path / "running", {"--epochs": 3}, monitor=None)
    afresh = Resume(tmp_path / "running", {"--epochs": 4}, restart=True)
    assert not afresh.found and not (tmp_path / "running").exists()


def test_settings_may_be_numbers_of_numpy_and_paths(tmp_path: Path) -> None:
    given = {"seed": np.int64(3), "rate": np.float32(0.5), "train": tmp_path / "a.tsv"}
    resume = Resume(tmp_path / "running", given, patience=np.int64(2), every=np.float32(60))
    assert resume.settings == {"seed": 3, "rate": 0.5, "train": str(tmp_path / "a.tsv")}
    for settings, options, message in (
        ({"seed": {3}}, {}, "settings: expected names and values that JSON knows, found {'seed': {3}}"),
        ("seed", {}, "settings: expected names and values that JSON knows, found 'seed'"),
        ({}, {"every": "60"}, "every: expected seconds from 0 on, found '60'"),
        ({}, {"patience": 1.5}, "patience: expected a whole number from 0 on, found 1.5"),
    ):
        with pytest.raises(UserError, match=re.escape(message)):
            Resume(tmp_path / "running", settings, **options)


def test_a_file_may_lie_elsewhere_but_not_differ(tmp_path: Path) -> None:
    folder = tmp_path / "running"
    Resume(folder, {"TRAIN": {"file": "a.tsv", "sha256": "0123456789abcdef"}}).fit(model(), data(), 1, dev())
    assert Resume(folder, {"TRAIN": {"file": "b/a.tsv", "sha256": "0123456789abcdef"}}).found
    with pytest.raises(UserError) as error:
        Resume(folder, {"TRAIN": {"file": "a.tsv", "sha256": "fedcba9876543210"}})
    assert "with TRAIN a.tsv (sha256 0123456789ab), now it is a.tsv (sha256 fedcba987654)" in str(error.value)
    with pytest.raises(UserError, match="now it is unset"):
        Resume(folder, {"TRAIN": None})


def test_a_damaged_state_is_refused(tmp_path: Path) -> None:
    Resume(tmp_path / "running", {}).fit(model(), data(), 1, dev())
    path = tmp_path / "running" / STATE
    whole = path.read_bytes()
    for content in (b"", whole[:50], whole[:-10], b"x" * 100):
        path.write_bytes(content)
        with pytest.raises(UserError, match="damaged"):
            Resume(tmp_path / "running", {})
    path.write_bytes((tmp_path / "running" / BEST).read_bytes())
    with pytest.raises(UserError, match="not the state of a run"):
        Resume(tmp_path / "running", {})


def test_the_state_of_another_model_is_refused(tmp_path: Path) -> None:
    Resume(tmp_path / "running", {}).fit(model(), data(), 1, dev())
    other = model()
    other.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True), metrics=["accuracy"])
    with pytest.raises(UserError, match="its tensors are not those of this model"):
        Resume(tmp_path / "running", {}).fit(other, data(), 2, dev())


def test_finished_runs_leave_nothing(tmp_path: Path) -> None:
    resume, _ = run(tmp_path / "running")
    assert sorted(path.name for path in (tmp_path / "running").iterdir()) == [BEST, STATE]
    resume.remove()
    assert list(tmp_path.iterdir()) == []


def test_further_callbacks_see_one_training(tmp_path: Path) -> None:
    told: list[str] = []

    class Told(keras.callbacks.Callback):
        def on_train_begin(self, logs=None):
            told.append("begin")

        def on_epoch_end(self, epoch, logs=None):
            told.append(f"epoch {epoch}")

        def on_train_end(self, logs=None):
            told.append("end")

    log = keras.callbacks.CSVLogger(str(tmp_path / "log.csv"))
    Resume(tmp_path / "running", {}).fit(model(), data(), EPOCHS, dev(), [Told(), log])
    assert told == ["begin", "epoch 0", "epoch 1", "epoch 2", "end"]
    assert [line.split(",")[0] for line in (tmp_path / "log.csv").read_text().split()] == ["epoch", "0", "1", "2"]
    trained = model()
    trained.optimizer.learning_rate = 0.0
    stop = keras.callbacks.EarlyStopping("val_loss", patience=0)
    resume = Resume(tmp_path / "stopped", {})
    resume.fit(trained, data(), 9, dev(), [stop])
    assert len(resume.history) == 2  # the second was no better


class Decay(keras.callbacks.Callback):
    """A smaller rate for every epoch."""

    def on_epoch_begin(self, epoch: int, logs=None) -> None:
        self.model.optimizer.learning_rate = 0.9 * float(self.model.optimizer.learning_rate)


@pytest.mark.parametrize("stop", [2 * STEPS, 2 * STEPS + 3, 3 * STEPS + 1])
def test_what_further_callbacks_do_and_count_survives(tmp_path: Path, stop: int, monkeypatch) -> None:
    monkeypatch.setattr("maskplay.callbacks.PAUSE", 0)

    def run(folder: Path, stop: int = 0) -> tuple[Resume, list[np.ndarray]]:
        # A difference that never comes: every epoch but the first is no better.
        plateau = keras.callbacks.ReduceLROnPlateau("val_loss", factor=0.5, patience=2, cooldown=1, min_delta=9.0)
        early = keras.callbacks.EarlyStopping("val_loss", patience=5, min_delta=9.0)
        resume, trained = Resume(folder, {}, monitor=None, every=0), model()
        resume.fit(trained, data(), 9, dev(), [plateau, Decay(), early, *([Stop(stop)] if stop else [])])
        return resume, [keras.ops.convert_to_numpy(weight) for weight in trained.weights]

    whole, weights = run(tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "running", stop)
    resume, resumed = run(tmp_path / "running")
    rates = [figures["learning_rate"] for figures in resume.history]  # which one of them adds
    assert len(rates) == 6 and rates[3] < 0.5 * rates[2]
    assert resume.history == whole.history
    for one, other in zip(resumed, weights):
        np.testing.assert_allclose(one, other, atol=1e-6)
    again, _ = run(tmp_path / "running")  # killed after it was stopped: no epoch more
    assert again.history == whole.history


def test_weights_that_others_keep_are_refused(tmp_path: Path) -> None:
    early = keras.callbacks.EarlyStopping("val_loss", restore_best_weights=True)
    with pytest.raises(UserError, match="restore_best_weights: not to be resumed; Resume"):
        Resume(tmp_path, {}).fit(model(), data(), 1, dev(), [early])


def test_a_figure_that_is_no_number_is_never_the_best(tmp_path: Path) -> None:
    resume = Resume(tmp_path, {}, monitor="score", patience=2)
    resume.history = [{"epoch": i, "score": score} for i, score in enumerate([float("nan"), 0.5, 0.9], 1)]
    assert resume.best == {"epoch": 3, "score": 0.9} and not resume.finished_early
    with pytest.raises(UserError, match="monitor: expected one of .*val_accuracy.*, found 'score'"):
        Resume(tmp_path / "other", {}, monitor="score").fit(model(), data(), 1, dev())
    # Also where the state is of a version that did not keep the name.
    resume.history = [{"epoch": 1, "loss": 0.5}]
    with pytest.raises(UserError, match="monitor: expected one of loss, found 'score'"):
        resume.fit(model(), data(), 2, dev())


def test_a_loss_is_best_where_it_is_lowest(tmp_path: Path) -> None:
    resume = Resume(tmp_path, {}, monitor="val_loss", patience=1)
    resume.history = [{"epoch": i, "val_loss": loss} for i, loss in enumerate([0.9, float("nan"), 0.5, 0.7], 1)]
    assert resume.best == {"epoch": 3, "val_loss": 0.5} and resume.finished_early


def test_texts_of_several_lengths_go_on_anywhere(tmp_path: Path, monkeypatch) -> None:
    """TensorFlow takes from the first two batches which dimensions vary, also in the middle of an epoch."""
    monkeypatch.setattr("maskplay.callbacks.PAUSE", 0)

    def batches() -> Batches:
        draw = np.random.default_rng(0)
        rows = [draw.integers(1, 50, size).tolist() for size in [8] * 20 + [16] * 20]
        return Batches(rows, targets=np.arange(40) % 2, batch_size=4, seed=0)

    allowed = [batches().may_begin(i) for i in range(10)]
    assert any(allowed) and not all(allowed)
    ends = []
    forbidden = [i for i in range(1, 10) if not allowed[i]]
    for stop in (0, forbidden[0], forbidden[-1], 9):
        resume, trained = Resume(tmp_path / f"{stop}", {}, every=0), model()
        if stop:
            with pytest.raises(KeyboardInterrupt):
                resume.fit(trained, batches(), 2, dev(), [Stop(stop)])
            resume, trained = Resume(tmp_path / f"{stop}", {}, every=0), model()
            assert allowed[resume.batch]
        resume.fit(trained, batches(), 2, dev())
        ends.append([keras.ops.convert_to_numpy(weight) for weight in trained.weights])
    for other in ends[1:]:
        for one, two in zip(ends[0], other):
            np.testing.assert_allclose(one, two, atol=1e-6)


def test_averages_of_keras_own_are_refused(tmp_path: Path) -> None:
    trained = model()
    trained.compile(keras.optimizers.SGD(0.1, use_ema=True), keras.losses.SparseCategoricalCrossentropy())
    with pytest.raises(UserError, match="use_ema: not to be resumed; mp.optimizers.Average"):
        Resume(tmp_path, {}).fit(trained, data(), 1, dev())
    parts = keras.optimizers.MultiOptimizer(keras.optimizers.OptimizerMap(keras.optimizers.SGD(0.1, use_ema=True)))
    trained.compile(parts, keras.losses.SparseCategoricalCrossentropy())
    with pytest.raises(UserError, match="use_ema: not to be resumed"):
        Resume(tmp_path, {}).fit(trained, data(), 1, dev())


def test_a_folder_that_cannot_be_made_is_told_before_anything_is_trained(tmp_path: Path) -> None:
    (tmp_path / "run").write_text("x")
    for restart in (False, True):
        with pytest.raises(UserError, match="run: expected a folder to write into, found a file"):
            Resume(tmp_path / "run", {"seed": 0}, restart=restart)
