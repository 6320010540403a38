"""A run's progress on stderr: a bar that moves on a terminal, and one line for each finished epoch everywhere."""

import time
from typing import Any

import keras
from keras import ops
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from maskplay.cli.tensorboard import EventFile


class EpochProgress(keras.callbacks.Callback):
    """Shows where `maskplay.callbacks.Resume` is; after an epoch its figures.

    Args:
        console: where to print.
        epochs: of the whole run.
        steps: batches of a whole epoch.
    """

    def __init__(self, console: Console, epochs: int, steps: int) -> None:
        super().__init__()
        self.console, self.epochs, self.steps = console, epochs, steps
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
        )
        self.bar = Progress(*columns, console=console, transient=True, disable=not console.is_terminal)
        self._start = 0.0

    def __enter__(self) -> "EpochProgress":
        return self

    def __exit__(self, *error: object) -> None:
        self.bar.stop()  # Keras tells no callback when an epoch breaks off, and a bar hides the terminal's cursor

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        self._start = time.monotonic()
        self.bar.start()
        self._task = self.bar.add_task(f"epoch {epoch + 1}/{self.epochs}", total=self.steps)
        # The first epoch after a resumption begins in the middle.
        self.bar.update(self._task, completed=self.steps - (self.params or {})["steps"])

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        self.bar.advance(self._task)

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        figures = self._ended(logs)
        self.console.print(f"epoch {epoch + 1}/{self.epochs}  {figures}  ({time.monotonic() - self._start:.0f} s)")

    def _ended(self, logs: dict[str, Any] | None) -> str:
        """An epoch's figures, for the line that stands in the bar's place."""
        self.bar.stop()
        self.bar.remove_task(self._task)
        return "  ".join(f"{name.replace('val_', 'dev ')} {value:.4f}" for name, value in (logs or {}).items())


class StepProgress(EpochProgress):
    """The same where what counts is steps: a line for each report, with the tokens that a second took. They and the
    learning rate become figures of the epoch.

    Args:
        console: where to print.
        steps: of the whole run.
        every: steps between two reports.
        tokens: of a step.
        events: where the figures go, too.
    """

    def __init__(
        self, console: Console, steps: int, every: int, tokens: float, events: EventFile | None = None
    ) -> None:
        super().__init__(console, -(-steps // every), every)
        self.of_run, self.every, self.tokens, self.events = steps, every, tokens, events

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        self.steps = min(self.every, self.of_run - epoch * self.every)
        super().on_epoch_begin(epoch, logs)
        self.bar.update(self._task, description="step", total=self.of_run)
        self.bar.update(self._task, completed=epoch * self.every + self.steps - (self.params or {})["steps"])
        self._done, self._took = 0, 0.0

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        super().on_train_batch_end(batch, logs)
        self._done, self._took = self._done + 1, time.monotonic() - self._start

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        logs = {} if logs is None else logs
        figures = self._ended(logs)
        step, rate = min((epoch + 1) * self.every, self.of_run), self._done * self.tokens / max(self._took, 1e-9)
        self.console.print(f"step {step}/{self.of_run}  {figures}  ({rate:,.0f} tokens/s)")
        model: Any = self.model
        # Into the run's history, too.
        logs["learning_rate"] = float(ops.convert_to_numpy(model.optimizer.learning_rate))
        logs["tokens_per_second"] = rate
        if self.events is not None:
            self.events.write(step, logs)
