"""Training: `fit`, `evaluate` and callbacks."""

from __future__ import annotations

import logging
import math
import os
import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fastnn.data import batches
from fastnn.init import RandomState
from fastnn.nn import Loss, Sequential
from fastnn.optim import Optimizer, Schedule
from fastnn_ext.checks import choice, integer, number, wrong

Array = NDArray[Any]
Metrics = dict[str, float]

__all__ = [
    "Callback",
    "DivergedError",
    "EarlyStopping",
    "History",
    "LearningRateSchedule",
    "ModelCheckpoint",
    "Run",
    "evaluate",
    "fit",
]


class DivergedError(ArithmeticError):
    """The loss, or a weight, is no number; the message names epoch, batch and learning rate."""


@dataclass
class History:
    """What training came to.

    Attributes
    ----------
    epochs : list of dict
        The metrics of each whole epoch: "loss", "accuracy" where the loss classifies, the same with "val_", "lr" and
        "seconds". `history["loss"]` is that metric of all epochs.
    stopped : str
        Why training ended before its last epoch; empty where it did not.
    """

    epochs: list[Metrics] = field(default_factory=list)
    stopped: str = ""

    def __getitem__(self, metric: str) -> list[float]:
        return [epoch[metric] for epoch in self.epochs]

    def __len__(self) -> int:
        return len(self.epochs)


@dataclass
class Run:
    """A training under way, as callbacks see it; epochs and batches count from 0."""

    model: Sequential
    optimizer: Optimizer
    history: History = field(default_factory=History)
    epoch: int = 0
    batch: int = 0
    steps: int = 0

    def stop(self, reason: str) -> None:
        """End training at the next border of batches."""
        self.history.stopped = reason

    def metric(self, name: str | None) -> float:
        """A metric of the last epoch; the validation loss, or else the loss, where `name` is None."""
        last = self.history.epochs[-1]
        name = name or ("val_loss" if "val_loss" in last else "loss")
        if name not in last:
            raise ValueError(f"callback: monitor is {name!r}; expected one of {', '.join(last)}")
        return last[name]


class Callback:
    """What is told of the progress of `fit`; a plain function is taken for its `epoch_end`."""

    def epoch_begin(self, run: Run) -> None:
        """Before the first batch of an epoch."""

    def batch_begin(self, run: Run) -> None:
        """Before each batch."""

    def epoch_end(self, run: Run) -> None:
        """When the metrics of an epoch are in the history."""


class _Function(Callback):
    def __init__(self, function: Callable[[Run], object]) -> None:
        self.epoch_end = function  # type: ignore[assignment,method-assign]


class LearningRateSchedule(Callback):
    """Set the learning rate by a schedule, such as `optim.cosine_decay(...)`.

    Parameters
    ----------
    schedule : callable
        From the number of the epoch, or batch, counted from 0, to the learning rate.
    per : {"epoch", "batch"}
        What is counted.
    """

    def __init__(self, schedule: Schedule, *, per: str = "epoch") -> None:
        self.schedule = schedule
        self.per = choice("LearningRateSchedule", "per", per, ("epoch", "batch"))

    def epoch_begin(self, run: Run) -> None:
        if self.per == "epoch":
            run.optimizer.lr = self.schedule(run.epoch)

    def batch_begin(self, run: Run) -> None:
        if self.per == "batch":
            run.optimizer.lr = self.schedule(run.steps)


class _Best(Callback):
    """Knows whether the last epoch was the best so far; of accuracies more is better, of all else less."""

    def __init__(self, monitor: str | None, min_delta: float = 0) -> None:
        self.monitor = monitor
        self.min_delta = number(type(self).__name__, "min_delta", min_delta, low=0)
        self.best = math.inf

    def is_best(self, run: Run) -> bool:
        value = run.metric(self.monitor)
        value = -value if self.monitor and self.monitor.endswith("accuracy") else value
        if not value < self.best - self.min_delta and self.best != math.inf:
            return False
        self.best = value
        return True


class EarlyStopping(_Best):
    """Stop when a metric has not become better for some epochs.

    Parameters
    ----------
    monitor : str, optional
        The metric; "val_loss" where there is one, else "loss", by default.
    patience : int
        After how many epochs in a row without improvement to stop.
    min_delta : float
        By how much it must improve to count.
    restore_best : bool
        Whether the model ends with the weights of its best epoch.
    """

    def __init__(
        self,
        monitor: str | None = None,
        *,
        patience: int = 5,
        min_delta: float = 0,
        restore_best: bool = True,
    ) -> None:
        super().__init__(monitor, min_delta)
        self.patience = integer("EarlyStopping", "patience", patience, low=1)
        self.restore_best = restore_best
        self._waited = 0
        self._weights: dict[str, Array] = {}

    def epoch_end(self, run: Run) -> None:
        if self.is_best(run):
            self._waited = 0
            self._weights = run.model.state_dict() if self.restore_best else {}
            return
        self._waited += 1
        if self._waited >= self.patience:
            run.stop(f"no improvement in {self._waited} epochs")
            if self._weights:
                run.model.load_state_dict(self._weights)


class ModelCheckpoint(_Best):
    """Save the model after each epoch, to a temporary file that is then renamed.

    Parameters
    ----------
    path : path
        Where to.
    monitor : str, optional
        As in `EarlyStopping`.
    best_only : bool
        Whether to save only where the metric has become better.
    """

    def __init__(
        self, path: str | os.PathLike[str], monitor: str | None = None, *, best_only: bool = True
    ) -> None:
        super().__init__(monitor)
        self.path = path
        self.best_only = best_only

    def epoch_end(self, run: Run) -> None:
        if self.is_best(run) or not self.best_only:
            run.model.save(self.path)


def evaluate(model: Sequential, x: ArrayLike, y: ArrayLike, *, loss: Loss, batch_size: int = 256) -> Metrics:
    """The mean loss of a model in evaluation mode, and its accuracy where the loss classifies.

    Parameters
    ----------
    model : Sequential
        It is not changed, nor is its mode.
    x, y : array_like
        Samples and their targets.
    loss : Loss
        Of `fastnn.nn`.
    batch_size : int
        Samples at a time.

    Returns
    -------
    dict
        "loss", and "accuracy" or not.
    """
    total = _Mean(loss)
    for inputs, targets in batches(x, y, batch_size=batch_size):
        output = model.forward(inputs, training=False)
        total.add(float(loss(output, targets)), output, targets)
    return total.metrics()


def fit(
    model: Sequential,
    x: ArrayLike,
    y: ArrayLike,
    *,
    loss: Loss,
    optimizer: Optimizer,
    epochs: int,
    batch_size: int = 32,
    validation_data: tuple[ArrayLike, ArrayLike] | None = None,
    shuffle: bool = True,
    random_state: RandomState = None,
    callbacks: Iterable[Callback | Callable[[Run], object]] = (),
    progress: bool = True,
) -> History:
    """Train a model on samples `x` and targets `y`.

    Parameters
    ----------
    model : Sequential
        Its weights are changed; its mode is left as it was.
    x, y : array_like
        One sample, and its target, for each index of the first axis.
    loss : Loss
        Of `fastnn.nn`, with reduction "mean" or "sum".
    optimizer : Optimizer
        Of the parameters of the model.
    epochs : int
        How often to go through the samples.
    batch_size : int
        Samples in a batch; each batch is one step.
    validation_data : (x, y), optional
        Evaluated after each epoch.
    shuffle : bool
        Whether each epoch has an order of its own.
    random_state : int or Generator, optional
        Of the order and of dropout. With the same one, training gives the same bits (for one backend, whatever the
        number of threads) from the same first weights, which `model.initialize(random_state=...)` draws.
    callbacks : iterable
        Each a `Callback`, or a function that is called with the `Run` after each epoch.
    progress : bool
        Whether a bar is shown, where tqdm is installed and the output is a terminal.

    Returns
    -------
    History
        Metrics by epoch. Ctrl-C ends training at the end of a batch, with whole weights, and `stopped` says so; a
        second one is a KeyboardInterrupt as ever.

    Raises
    ------
    ValueError
        Where sizes do not fit, or the optimizer has parameters of another network, before anything is changed; where a
        layer does not fit, the message names it.
    IndexError
        Where there are labels that the model has no output for, before anything is changed.
    DivergedError
        Where the loss, in training or in validation, or a weight after an epoch is infinite or NaN. The model has the
        weights of the last epoch after which all was finite.
    """
    training = _Training(Run(model, optimizer), loss, batch_size, callbacks)
    training.try_out(x, y)
    training.check_last_batch(np.asanyarray(x))
    if validation_data:
        training.try_out(*validation_data)
    rng = np.random.default_rng(random_state)
    model.seed(rng)
    epochs = integer("fit", "epochs", epochs, low=0)
    count = epochs * -(-len(np.asanyarray(y)) // batch_size)
    with _interrupts(training.run), _bar(count, progress) as training.tick:
        for epoch in range(epochs):
            training.run.epoch = epoch
            training.epoch(
                batches(x, y, batch_size=batch_size, shuffle=shuffle, random_state=rng), validation_data
            )
            if training.run.history.stopped:
                break
    return training.run.history


class _Mean:
    """The mean loss and accuracy over the samples of all batches."""

    def __init__(self, loss: Loss) -> None:
        self._loss = loss
        self._sums: Metrics = {"loss": 0.0}
        self._count = 0

    def add(self, value: float, output: Array, target: Array) -> None:
        count, accuracy = len(target), self._loss.accuracy(output, target)
        self._sums["loss"] += value * count
        if accuracy is not None:
            self._sums["accuracy"] = self._sums.get("accuracy", 0.0) + accuracy * count
        self._count += count

    def metrics(self) -> Metrics:
        return {name: total / self._count if self._count else math.nan for name, total in self._sums.items()}


class _Training:
    """The work of `fit`."""

    def __init__(self, run: Run, loss: Loss, batch_size: int, callbacks: Iterable[Any]) -> None:
        self.run, self._loss = run, loss
        self._batch_size = integer("fit", "batch_size", batch_size, low=1)
        self._callbacks = [one if isinstance(one, Callback) else _Function(one) for one in callbacks]
        self.tick: Callable[[_Mean], None]
        own = {id(one) for one in run.model.parameters()}
        if any(id(one) not in own for one in run.optimizer.parameters):
            given = "has parameters of another network"
            raise wrong(ValueError, "fit", "optimizer", given, "one that was made with model.parameters()")
        self._last_good = run.model.state_dict()

    def try_out(self, x: ArrayLike, y: ArrayLike) -> None:
        """An error where samples do not fit the model, or targets its output."""
        x, y = np.asanyarray(x), np.asanyarray(y)
        if not (x.ndim and y.ndim and len(x) == len(y) > 0):
            given, expected = f"has shape {y.shape}, x {x.shape}", "as many targets as samples, not 0"
            raise wrong(ValueError, "fit", "y", given, expected)
        output = self.run.model.predict(x[:1])
        self._loss.check_labels(y, output.shape[-1])
        if np.ndim(self._loss(output, y[:1])):
            raise wrong(ValueError, "fit", "loss", f"is {self._loss}", "reduction 'mean' or 'sum'")

    def check_last_batch(self, x: Array) -> None:
        """A ValueError where fewer samples are left for the last batch than a layer needs in training."""
        left = len(x) % self._batch_size or self._batch_size
        try:
            self.run.model.check_batch((left, *x.shape[1:]))
        except ValueError as error:
            raise ValueError(f"fit: the last batch of an epoch is too small: {error}") from None

    def epoch(self, data: Iterator[tuple[Array, Array]], validation_data: Any) -> None:
        run, mean, start = self.run, _Mean(self._loss), time.perf_counter()
        self._tell("epoch_begin")
        for run.batch, (x, y) in enumerate(data):
            if run.history.stopped:
                return
            self._tell("batch_begin")
            self._step(x, y, mean)
            self.tick(mean)
        metrics = mean.metrics() | {"lr": run.optimizer.lr, "seconds": time.perf_counter() - start}
        if validation_data:
            validation = evaluate(run.model, *validation_data, loss=self._loss, batch_size=self._batch_size)
            self._check("validation loss", validation["loss"])
            metrics |= {f"val_{name}": value for name, value in validation.items()}
        self._keep()
        run.history.epochs.append(metrics)
        self._tell("epoch_end")

    def _step(self, x: Array, y: Array, mean: _Mean) -> None:
        model, optimizer = self.run.model, self.run.optimizer

        def gradients(mean: _Mean | None = None) -> None:
            """Set the gradients to those of the batch; `mean` is told of its loss and outputs."""
            output = model.forward(x, training=True)
            value, grad = self._loss.value_and_grad(output, y)
            if mean is not None:
                self._check("loss", float(value))
                mean.add(float(value), output, y)
            optimizer.zero_grad()
            model.backward(grad, needs_grad_x=False)

        gradients(mean)
        optimizer.step(gradients)
        self.run.steps += 1

    def _check(self, name: str, value: float) -> None:
        if not math.isfinite(value):
            self._diverged(f"{name} is {value}")

    def _diverged(self, what: str) -> None:
        """Go back to the last good weights, and say so."""
        run = self.run
        run.model.load_state_dict(self._last_good)
        raise DivergedError(
            f"fit: the {what} in epoch {run.epoch + 1}, batch {run.batch + 1}, at learning rate"
            f" {run.optimizer.lr:g}; the model has the last weights after a whole epoch that were finite"
        )

    def _keep(self) -> None:
        """Remember the weights, which must be numbers, and with them running statistics, if they are."""
        state = self.run.model.state_dict()
        for name, _ in self.run.model.named_parameters():
            if not np.isfinite(state[name]).all():
                self._diverged(f"parameter {name} is not finite")
        if all(np.isfinite(buffer.data).all() for _, buffer in self.run.model.named_buffers()):
            self._last_good = state

    def _tell(self, event: str) -> None:
        for callback in self._callbacks:
            getattr(callback, event)(self.run)


@contextmanager
def _interrupts(run: Run) -> Iterator[None]:
    """Ctrl-C stops the run at a border of batches; the second one is as it was before."""
    usual = signal.default_int_handler
    is_ours = (
        threading.current_thread() is threading.main_thread() and signal.getsignal(signal.SIGINT) is usual
    )

    def stop(*_: Any) -> None:
        signal.signal(signal.SIGINT, usual)
        run.stop(f"Ctrl-C in epoch {run.epoch + 1}, batch {run.batch + 1}")
        logging.getLogger("fastnn").warning("%s: training ends with this batch", run.history.stopped)

    if is_ours:
        signal.signal(signal.SIGINT, stop)
    try:
        yield
    finally:
        if is_ours:
            signal.signal(signal.SIGINT, usual)


@contextmanager
def _bar(total: int, progress: bool) -> Iterator[Callable[[_Mean], None]]:
    """What shows progress by one batch: a bar of tqdm, or nothing."""
    if progress:  # looking for what is not installed takes as long as some batches
        try:
            from tqdm import tqdm
        except ImportError:
            progress = False
    if not progress:
        yield lambda mean: None
        return
    with tqdm(total=total, unit="batch", dynamic_ncols=True, disable=None) as bar:

        def tick(mean: _Mean) -> None:
            bar.set_postfix(mean.metrics(), refresh=False)
            bar.update()

        yield tick
