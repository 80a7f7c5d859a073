"""`train`, `predict` and `trace`: each takes the options of its command and returns the exit status."""

from __future__ import annotations

import io
import os
import sys
from argparse import Namespace
from dataclasses import fields
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

import fastnn
from fastnn import _pictures, data, nn, plot
from fastnn import train as training
from fastnn.cli import sources
from fastnn.cli.configuration import Configuration, read
from fastnn.cli.sources import Array
from fastnn.io import write_whole
from fastnn.nn import Loss, Sequential

DIVERGED, INTERRUPTED = 1, 130
#: The learning rate of a trace where neither an option nor a configuration says one.
TRACED_LR = 0.1


def train(options: Namespace) -> int:
    """Train a network, and save it and the picture of its history."""
    _check_paths(options)
    configuration = read(options.config, _overriding(options))
    x, y, loss, model = _prepared(configuration, options.data)
    learnt, held_out = data.split(x, y, test_share=configuration.validation, random_state=configuration.seed)
    optimizer = configuration.optimizer_of(model)
    print(model.summary((1, *x.shape[1:])), flush=True)
    teller = _Teller(configuration.epochs)
    try:
        history = training.fit(
            model,
            *learnt,
            loss=loss,
            optimizer=optimizer,
            epochs=configuration.epochs,
            batch_size=configuration.batch_size,
            validation_data=held_out if len(held_out[1]) else None,
            random_state=configuration.seed,
            callbacks=[*configuration.schedules(optimizer.lr), teller],
        )
    except training.DivergedError as error:
        print(f"{error}{'' if teller.history else '; nothing is saved'}", file=sys.stderr)
        if teller.history:
            _keep(options, model, teller.history)
        return DIVERGED
    _keep(options, model, history)
    return INTERRUPTED if history.stopped else 0


def predict(options: Namespace) -> int:
    """Print or save what a model makes of samples, and say how right that is where there are labels."""
    if options.output:
        if Path(options.output).suffix not in (".npy", ".csv"):
            raise ValueError(f"--output is {options.output!r}; expected a name that ends in .npy or .csv")
        _check_folder("--output", options.output)
    model = nn.load(options.model)
    x, y = sources.load(options.data, model)
    outputs, metrics = model.predict(x), ""
    has_classes = outputs.ndim == 2 and outputs.shape[1] > 1 and (y is None or y.ndim == 1)
    if y is not None:
        loss = Configuration(**_overriding(options)).loss_for(y if has_classes else y.astype(np.float64))
        y = sources.targets(y, loss)
        _check_labels(model, x, y, loss)
        metrics = f"{len(x)} samples: {_shown(training.evaluate(model, x, y, loss=loss))}"
    _deliver(outputs.argmax(axis=1) if has_classes and not options.outputs else outputs, options.output)
    if metrics:
        print(metrics, file=sys.stdout if options.output else sys.stderr)
    return 0


def trace(options: Namespace) -> int:
    """Print every intermediate of one step of gradient descent."""
    is_described = Path(options.network).suffix == ".toml"
    configuration = read(options.network if is_described else None, _overriding(options))
    x, y, loss, model = _prepared(
        configuration, options.data, None if is_described else nn.load(options.network)
    )
    lr = configuration.optimizer_of(model).lr if is_described else getattr(options, "lr", TRACED_LR)
    if not 0 <= options.sample < len(x):
        raise ValueError(f"--sample is {options.sample}; expected an index from 0 to {len(x) - 1}")
    one = slice(options.sample, options.sample + 1)
    traced = fastnn.trace(model, x[one], y[one], loss=loss, learning_rate=lr)
    print(traced.markdown() if options.markdown else traced)
    return 0


class _Teller(training.Callback):
    """Prints the metrics of each epoch."""

    def __init__(self, epochs: int) -> None:
        self.epochs = epochs
        self.history: training.History | None = None

    def epoch_end(self, run: training.Run) -> None:
        self.history = run.history
        number = f"{run.epoch + 1:{len(str(self.epochs))}}"
        _say(f"epoch {number}/{self.epochs}: {_shown(run.history.epochs[-1])}")


def _shown(metrics: training.Metrics) -> str:
    return ", ".join(f"{name} {value:.4g}" for name, value in metrics.items())


def _say(line: str) -> None:
    """Print a line above the progress bar, if there is one."""
    try:
        from tqdm import tqdm
    except ImportError:
        print(line)
    else:
        tqdm.write(line)
    sys.stdout.flush()


def _overriding(options: Namespace) -> dict[str, Any]:
    """The options that stand for entries of a configuration."""
    names = ["lr", *(one.name for one in fields(Configuration))]
    return {name: value for name, value in vars(options).items() if name in names}


def _prepared(
    configuration: Configuration, source: str, model: Sequential | None = None
) -> tuple[Array, Array, Loss, Sequential]:
    """Samples, targets, the loss, and the network: `model`, or the one described."""
    x, y = sources.load(source, model)
    if y is None:
        raise ValueError(f"--data: {source!r} has no labels; expected samples with labels")
    loss = configuration.loss_for(y)
    y = sources.targets(y, loss)
    if model is None:
        model = configuration.network(x.shape[1:], sources.outputs(y, loss))
    _check_labels(model, x, y, loss)
    return x, y, loss, model


def _check_labels(model: Sequential, x: Array, y: Array, loss: Loss) -> None:
    """An error where there are labels that the model has no output for, or samples that it does not fit."""
    shape = model.output_shape((1, *x.shape[1:]))
    try:
        loss.check_labels(y, shape[-1])
    except IndexError as error:
        raise ValueError(f"--data: {error}, or another --loss") from None


def _check_paths(options: Namespace) -> None:
    """An error before anything is computed that could not be saved afterwards."""
    for option, path, package, extra in (
        ("--save", options.save, "safetensors", "safetensors"),
        ("--plot", options.plot, "matplotlib", "plot"),
    ):
        if path is None:
            continue
        _check_folder(option, path)
        if find_spec(package) is None:
            raise ImportError(f"{option} needs {package}; pip install 'fastnn-kernels[{extra}]'")
    if options.plot and Path(options.plot).suffix not in _pictures.FORMATS:
        names = ", ".join(_pictures.FORMATS)
        raise ValueError(f"--plot is {options.plot!r}; expected a name that ends in one of {names}")


def _check_folder(option: str, path: str) -> None:
    folder, name = os.path.split(path)
    if (
        not name
        or Path(path).is_dir()
        or not os.path.isdir(folder or ".")
        or not os.access(folder or ".", os.W_OK)
    ):
        raise ValueError(f"{option} is {path!r}; expected a file in a folder that can be written")


def _keep(options: Namespace, model: Sequential, history: training.History) -> None:
    """Save what was asked for, and say so."""
    if options.save:
        model.save(options.save)
        print(f"saved {options.save}")
    if options.plot and len(history):
        _pictures.save(plot.history(history), Path(options.plot))
        print(f"saved {options.plot}")


def _deliver(predictions: Array, path: str | None) -> None:
    """Print predictions, one sample a line, or write them to a file."""
    content: io.BytesIO = io.BytesIO()
    if path and Path(path).suffix == ".npy":
        np.save(content, predictions, allow_pickle=False)
    else:
        rows = predictions.reshape(len(predictions), -1)
        np.savetxt(content, rows, fmt="%d" if rows.dtype.kind == "i" else "%.9g", delimiter=",")
    if path:
        write_whole(path, content.getvalue())
        print(f"saved {path}")
    else:
        sys.stdout.write(content.getvalue().decode())
