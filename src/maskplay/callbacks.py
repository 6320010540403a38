"""Training that survives being killed: a run's whole state in one file, and the best epoch's weights beside it.

Keras' own `BackupAndRestore` forgets the states of the random generators and where an epoch stood; a run resumed here
ends with the same weights as one that was never interrupted.
"""

import contextlib
import json
import math
import os
import time
from collections.abc import Mapping, Sequence
from numbers import Real
from pathlib import Path
from typing import Any

import keras
import numpy as np

from maskplay import _backend, hosts
from maskplay.arrays import Arrays, write_arrays
from maskplay.errors import UserError, whole_number, within
from maskplay.hosts.processes import fetched
from maskplay.storage import check_makeable

__all__ = ["Resume"]

STATE, BEST = "state.safetensors", "best.safetensors"
AFRESH = "restart=True, on the command line --restart"
COUNTERS = ("best", "best_epoch", "cooldown_counter", "stopped_epoch", "wait")  # of Keras' own callbacks
PAUSE = 20  # a pause between two saves is at least so many times as long as a save: at most 5 % of the time goes there


class Resume(keras.callbacks.Callback):
    """Keeps an unfinished run in a folder and goes on from it; also keeps the best epoch, and stops early.

    The state is the model's weights, the optimizer's slots, the states of all random generators, the sums behind the
    epoch's metrics, what other callbacks count (see `fit`), and the place in the data. It is written after every epoch
    and, within one, every few seconds. Of several processes (`maskplay.hosts`) that of rank 0 writes, and its state is
    what all go on with.

    Args:
        folder: where the state lives until the run is finished; made when first needed.
        settings: what makes this run what it is (values that JSON knows, paths, NumPy's numbers); a state with other
            settings is refused. Of a file, `{"file": name, "sha256": digest}`, only the digest must stay.
        monitor: the figure whose highest value marks the best epoch, the earliest of equals, or the lowest if its name
            ends in "loss"; None = the last epoch. A state with another one is refused.
        patience: stop after so many epochs without a new best; None = never.
        every: least seconds between two saves within an epoch.
        restart: forget what the folder holds and begin afresh.

    Attributes:
        found: whether the folder holds an unfinished run.
        epoch, batch: where `fit` will go on; 0 and 0 for a new run.
        history: for each finished epoch a dictionary of its figures.
        best: the history's entry of the best epoch, or None.

    Raises:
        UserError: the folder holds a run with other settings, or a damaged one; settings, patience or seconds that
            cannot be; while training, a weight is not finite, or there is no such figure.

    Example:
        >>> import tempfile
        >>> resume = Resume(Path(tempfile.mkdtemp()) / "reviews.running", {"seed": 1})
        >>> resume.epoch, resume.batch, resume.found
        (0, 0, False)
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        settings: Mapping[str, Any],
        monitor: str | None = "val_accuracy",
        patience: int | None = None,
        every: float = 60.0,
        restart: bool = False,
    ) -> None:
        super().__init__()
        self.folder = Path(folder)
        try:
            self.settings = json.loads(json.dumps(dict(settings), default=_plain))
        except (TypeError, ValueError):
            raise UserError(f"settings: expected names and values that JSON knows, found {settings!r:.200}") from None
        if not within(every, 0, math.inf):
            raise UserError(f"every: expected seconds from 0 on, found {every!r:.40}")
        self.monitor = monitor
        self.patience = None if patience is None else whole_number("patience", patience, 0)
        self.every = float(every)
        self.epoch = self.batch = 0
        self.history: list[dict[str, float]] = []
        self._stopped = False  # by another callback
        self._further: list[_Whole] = []
        self._counters: Mapping[str, Mapping[str, Any]] = {}
        self._pending: Mapping[str, np.ndarray] | None = None
        self._first = 0  # the batch with which the running epoch began in this process
        self._saved, self._took = time.monotonic(), 0.0
        self._writes = hosts.place()[0] == 0
        if self._writes:
            check_makeable(self.folder)  # not when hours of training are to be saved
        if restart:
            self.remove()
        self._agree()
        self._pending = _opened(self.folder / STATE)
        self.found = self._pending is not None
        if self._pending is not None:
            self._read(self._pending)

    @property
    def best(self) -> dict[str, float] | None:
        if self.monitor is None:
            return self.history[-1] if self.history else None
        return max(self.history, key=self._figure, default=None)

    def _figure(self, figures: Mapping[str, float]) -> float:
        if self.monitor not in figures:
            found = ", ".join(name for name in figures if name != "epoch")
            raise UserError(f"monitor: expected one of {found}, found {self.monitor!r}")
        value = figures[str(self.monitor)]
        value = -value if str(self.monitor).endswith("loss") else value
        return -math.inf if math.isnan(value) else value

    @property
    def finished_early(self) -> bool:
        """Whether the patience has run out."""
        if self.patience is None or self.best is None or self.monitor is None:
            return False
        return len(self.history) - 1 - self.history.index(self.best) >= self.patience

    def fit(
        self,
        model: keras.Model,
        batches: Any,
        epochs: int,
        validation_data: Any,
        callbacks: Sequence[keras.callbacks.Callback] = (),
    ) -> None:
        """Train a compiled model for the epochs that are left, and leave it with the best epoch's weights.

        Args:
            model: built and compiled as it was when the run began.
            batches: a `maskplay.batches.Batches`, which can begin in the middle of an epoch; its seed also seeds each
                batch.
            epochs: of the whole run.
            validation_data: as for `keras.Model.fit`.
            callbacks: further ones. They see one training, whose epochs count on; one that stops it ends it here, too.
                What they do to the model, and figures that they add to the logs, are saved. Where a run goes on, give
                the same in the same order: the numbers `best`, `best_epoch`, `wait`, `cooldown_counter` and
                `stopped_epoch` are put back into them; what else one of your own counts begins anew.

        Raises:
            UserError: what cannot be resumed: an optimizer with `use_ema`, whose average Keras would write into the
                weights after each epoch, or a callback with `restore_best_weights`.
        """
        _refuse_averages(model.optimizer)
        if any(getattr(callback, "restore_best_weights", False) for callback in callbacks):
            raise UserError("restore_best_weights: not to be resumed; Resume(monitor=…) keeps the best epoch's weights")
        self._further = [_Whole(callback, i, self._counters) for i, callback in enumerate(callbacks)]
        self._batches = batches
        while self.epoch < epochs and not (self.finished_early or self._stopped):
            # One call of fit per epoch: Keras counts an epoch's batches once, and the first one may be a part.
            batches.epoch, batches.start = self.epoch, self.batch
            if self._pending is not None:
                # Has the optimizer and the metrics make their variables; whatever it changes is overwritten.
                model.train_on_batch(*batches[0])
                if not self.batch:  # what others do as an epoch begins is still to come
                    self.set_model(model)
                    self._restore()
            model.fit(
                batches,
                validation_data=validation_data,
                initial_epoch=self.epoch,
                epochs=self.epoch + 1,
                shuffle=False,
                verbose=0,
                callbacks=[*self._further, self],  # last: what the others do is part of the state
            )
        for callback in self._further:
            callback.end()
        if self.history and self.monitor is not None:
            assign(model.weights, _opened(self.folder / BEST) or {}, "weight", self.folder / BEST)
        elif self._pending is not None:
            # Killed after the last epoch: nothing is left to train, but what was trained is in the file alone.
            batches.epoch, batches.start = self.epoch, self.batch
            model.train_on_batch(*batches[0])
            self.set_model(model)
            self._restore()

    def remove(self) -> None:
        """Delete the state: the run is finished, or is to begin afresh. What others put into the folder stays."""
        for path in (self.folder / STATE, self.folder / BEST, *self.folder.glob(".*.safetensors.*.part")):
            path.unlink(missing_ok=True)
        with contextlib.suppress(OSError):
            self.folder.rmdir()

    # What Keras calls

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        # Once more: Keras has looked ahead, and read a short epoch to its end.
        self._batches.epoch, self._batches.start = self.epoch, self.batch
        self._first = self.batch
        # After Keras has set the metrics to 0, and after the others: what they did as the epoch began is in the state.
        if self._pending is not None:
            self._restore()

    def on_train_batch_begin(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        # PyTorch's dropout draws from a generator of the whole process: seeded anew for each batch it needs no saving.
        place = [self._batches.seed, self.epoch, self._first + batch]
        _backend.seed(int(np.random.SeedSequence(place).generate_state(1)[0]))

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        self.batch = self._first + batch + 1
        # Not after the last batch: nothing would be left of the epoch to go on with, and its end is saved anyway.
        steps = (self.params or {})["steps"]
        due = time.monotonic() - self._saved >= max(self.every, PAUSE * self._took)
        if due and self.batch < self._first + steps and self._batches.may_begin(self.batch):
            self._write()

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        figures = {name: float(value) for name, value in (logs or {}).items() if isinstance(value, Real)}
        if self.monitor is not None:
            self._figure(figures)  # which must be there
        self._check()
        self.history.append({"epoch": epoch + 1, **figures})
        if self.monitor is not None and self.best is self.history[-1] and self._writes:
            write_arrays(self.folder / BEST, numbered(self._synced().weights, "weight"))
        self.epoch, self.batch, self._stopped = epoch + 1, 0, bool(self._synced().stop_training)
        self._write()

    # The file

    def _restore(self) -> None:
        """Give the model the state that was read."""
        assert self._pending is not None
        groups = self._groups()
        if not self.batch:
            del groups["metric"]  # saved at an epoch's end: the sums are those of the validation
        for group, variables in groups.items():
            assign(variables, self._pending, group, self.folder / STATE)
        self._pending = None

    def _synced(self) -> Any:
        """The model; under JAX, asking for it brings its variables up to date in the middle of an epoch."""
        return self.model

    def _groups(self) -> dict[str, list[Any]]:
        model = self._synced()
        return {
            "variable": model.variables,  # weights, and the states of random generators
            "optimizer": model.optimizer.variables,
            "metric": model.metrics_variables,
        }

    def _write(self) -> None:
        if not self._writes:
            return
        start = time.monotonic()
        self._check()
        tensors = {}
        for group, variables in self._groups().items():
            tensors.update(numbered(variables, group))
        place = {"epoch": self.epoch, "batch": self.batch, "history": self.history, "settings": self.settings}
        counters = {each.name: each.counters() for each in self._further}
        place |= {"monitor": self.monitor, "counters": counters, "stopped": self._stopped}
        write_arrays(self.folder / STATE, tensors, {"run": json.dumps(place)})
        self._saved = time.monotonic()
        self._took = self._saved - start

    def _check(self) -> None:
        """Before anything is written: what was saved when the weights were numbers shall stay."""
        for weight in self._synced().weights if self._writes else ():
            if not np.isfinite(keras.ops.convert_to_numpy(keras.ops.cast(weight, "float32"))).all():
                raise UserError(
                    f"training has diverged, {weight.path} is not finite: a lower learning_rate may help "
                    f"(epoch {self.epoch + 1}, batch {self.batch})"
                )

    def _agree(self) -> None:
        """All processes are to make the same run."""
        for name, theirs in json.loads(hosts.told(json.dumps(self.settings).encode())).items():
            if _identity(self.settings.get(name)) != _identity(theirs):
                raise UserError(
                    f"{name}: the process of rank 0 has {_shown(theirs)}, that of rank {hosts.place()[0]} "
                    f"{_shown(self.settings.get(name))}; give all the same"
                )

    def _read(self, state: Arrays) -> None:
        path = self.folder / STATE
        try:
            place = json.loads(state.metadata["run"])
            settings = dict(place["settings"])
            self.epoch, self.batch, self.history = int(place["epoch"]), int(place["batch"]), list(place["history"])
            self._counters, self._stopped = dict(place.get("counters", {})), place.get("stopped") is True
        except (KeyError, TypeError, ValueError):
            raise UserError(f"{path}: not the state of a run, or damaged; begin afresh ({AFRESH})") from None
        both = {name: (self.settings.get(name), settings.get(name)) for name in sorted({*settings, *self.settings})}
        both["monitor"] = self.monitor, place.get("monitor", self.monitor)  # earlier versions did not keep it
        for name, (now, then) in both.items():
            if _identity(now) != _identity(then):
                raise UserError(
                    f"{self.folder}: holds an unfinished run with {name} {_shown(then)}, now it is {_shown(now)}: "
                    f"repeat its settings to go on, or begin afresh ({AFRESH})"
                )


class _Whole(keras.callbacks.Callback):
    """A callback that is told once that training begins and ends, where Keras trains an epoch at a time."""

    def __init__(self, callback: keras.callbacks.Callback, number: int, kept: Mapping[str, Any]) -> None:
        super().__init__()
        self.callback, self.begun = callback, False
        self.name = f"{number} {type(callback).__name__}"
        self.kept = kept.get(self.name, {})  # what it had counted when the run was killed

    def set_params(self, params: dict[str, Any]) -> None:
        self.callback.set_params(params)

    def set_model(self, model: keras.Model) -> None:
        super().set_model(model)
        self.callback.set_model(model)

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        if not self.begun:
            self.begun = True
            self.callback.on_train_begin(logs)
            vars(self.callback).update(self.kept)

    def counters(self) -> dict[str, float | None]:
        found = {name: vars(self.callback).get(name, ()) for name in COUNTERS}
        return {name: value for name, value in found.items() if isinstance(value, int | float | None)}

    def end(self) -> None:
        if self.begun:
            self.callback.on_train_end()


def _passed_on(name: str) -> Any:
    return lambda self, *given, **named: getattr(self.callback, name)(*given, **named)


for _name in dir(keras.callbacks.Callback):
    if _name.startswith("on_") and _name not in ("on_train_begin", "on_train_end"):
        setattr(_Whole, _name, _passed_on(_name))


def _refuse_averages(optimizer: Any) -> None:
    if getattr(optimizer, "use_ema", False):
        raise UserError("use_ema: not to be resumed; mp.optimizers.Average keeps an average that is")
    inside = getattr(optimizer, "inner", None) or getattr(optimizer, "inner_optimizer", None)
    for each in [inside] if inside is not None else getattr(optimizer, "optimizers", []):  # of a MultiOptimizer
        _refuse_averages(each)


def numbered(variables: Sequence[Any], group: str) -> dict[str, np.ndarray]:
    """Variables as arrays, by their number: paths need not be unique."""
    return {f"{group}/{i}": keras.ops.convert_to_numpy(variable) for i, variable in enumerate(variables)}


def assign(variables: Sequence[Any], values: Mapping[str, np.ndarray], group: str, path: Path) -> None:
    """The reverse of `numbered`, all or an error."""
    found = [values.get(f"{group}/{i}") for i in range(len(variables))]
    shapes = [None if array is None else array.shape for array in found]
    surplus = sum(name.startswith(f"{group}/") for name in values) - len(variables)
    if surplus or shapes != [tuple(variable.shape) for variable in variables]:
        raise UserError(f"{path}: its tensors are not those of this model; begin afresh ({AFRESH})")
    for variable, array in zip(variables, found):
        variable.assign(array)


def _opened(path: Path) -> Arrays | None:
    """Rank 0's file of this name, if it has one."""
    found = fetched(path)
    try:
        return None if found is None else Arrays(found)
    except UserError as error:
        raise UserError(f"{error}; begin afresh ({AFRESH})") from None
    finally:
        if found is not None and found != path:
            found.unlink()  # a copy; what is open stays readable


def _plain(value: Any) -> Any:
    """What JSON does not know by itself: NumPy's numbers, and paths."""
    return value.item() if isinstance(value, np.generic) else os.fspath(value)


def _identity(setting: Any) -> Any:
    """What of a setting must stay: of a file its bytes, wherever it lies."""
    return setting["sha256"] if isinstance(setting, dict) and "sha256" in setting else setting


def _shown(value: Any) -> str:
    if isinstance(value, dict) and "sha256" in value:
        return f"{value.get('file')} (sha256 {str(value['sha256'])[:12]})"
    return "unset" if value is None else json.dumps(value, ensure_ascii=False)[:100]
