"""What is to be trained and how: from a TOML file, with options in place of some of its entries, or of all."""

from __future__ import annotations

import inspect
import math
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from fastnn import nn, optim, train
from fastnn._described import made
from fastnn.cli.sources import Array, default_loss
from fastnn.io import FormatError
from fastnn.nn import Loss, Sequential, losses
from fastnn.nn.files import built
from fastnn.optim import Optimizer
from fastnn_ext.checks import integer, number, wrong

#: What can be named beside layers, by the names of the Python API.
LOSSES = {
    name: one
    for name, one in vars(losses).items()
    if isinstance(one, type) and issubclass(one, Loss) and one is not Loss
}
OPTIMIZERS = {
    name: one
    for name, one in vars(optim).items()
    if isinstance(one, type) and issubclass(one, Optimizer) and one is not Optimizer
}
SCHEDULES = {
    name: one for name, one in vars(optim).items() if name in optim.__all__ and inspect.isfunction(one)
}


@dataclass
class Configuration:
    """The entries of a configuration; `layers`, or `hidden` and `activation` of dense ones."""

    layers: Any = None
    hidden: Any = (128,)
    activation: Any = "relu"
    loss: Any = None
    optimizer: Any = "Adam"
    schedule: Any = None
    epochs: int = 10
    batch_size: int = 32
    validation: float = 0.1
    seed: int = 0

    def __post_init__(self) -> None:
        integer("options", "epochs", self.epochs, low=1)
        integer("options", "batch_size", self.batch_size, low=1)
        integer("options", "seed", self.seed, low=0)
        number("options", "validation", self.validation, low=0, below=1)
        if not isinstance(self.hidden, (list, tuple)):
            raise wrong(TypeError, "options", "hidden", f"is {self.hidden!r}", "a list of sizes")
        for size in self.hidden:
            integer("options", "hidden", size, low=1)

    def network(self, shape: tuple[int, ...], outputs: int) -> Sequential:
        """The network with its first weights, for samples of `shape`."""
        descriptions = self._dense(shape, outputs) if self.layers is None else self.layers
        if not isinstance(descriptions, list) or not descriptions:
            raise ValueError(f"layers is {descriptions!r}; expected a list of layers")
        layers = [_layer(i, description) for i, description in enumerate(descriptions)]
        return nn.Sequential(*layers).initialize(random_state=self.seed)

    def loss_for(self, y: Array) -> Loss:
        """The loss that is named, or the usual one for such targets."""
        loss: Loss = default_loss(y) if self.loss is None else made("loss", LOSSES, self.loss)
        return loss

    def optimizer_of(self, model: Sequential) -> Optimizer:
        """The optimizer that is named, of the parameters of `model`."""
        optimizer: Optimizer = made("optimizer", OPTIMIZERS, _as_tuples(self.optimizer), model.parameters())
        return optimizer

    def schedules(self, lr: float) -> list[train.Callback]:
        """The schedule that is named, if one is, from the learning rate `lr` on."""
        if self.schedule is None:
            return []
        entries = _entries(self.schedule)
        per = entries.pop("per", "epoch")
        return [train.LearningRateSchedule(made("schedule", SCHEDULES, entries, lr), per=per)]

    def _dense(self, shape: tuple[int, ...], outputs: int) -> list[Any]:
        layers: list[Any] = ["Flatten"] if len(shape) > 1 else []
        features = math.prod(shape)
        for size in self.hidden:
            dense = {"type": "Linear", "in_features": features, "out_features": size}
            layers.append(dense | {"activation": self.activation})
            features = size
        return [*layers, {"type": "Linear", "in_features": features, "out_features": outputs}]


def read(config: str | None, options: Mapping[str, Any]) -> Configuration:
    """The configuration in the file `config`, if one is named, with `options` in place of its entries."""
    entries: dict[str, Any] = {}
    if config is not None:
        try:
            entries = tomllib.loads(Path(config).read_text(encoding="utf-8"))
        except ValueError as error:
            raise FormatError(f"{config}: not TOML: {error}") from error
    known = [one.name for one in fields(Configuration)]
    for name in entries:
        if name not in known:
            raise ValueError(f"{config}: unknown entry {name!r}; expected some of {', '.join(known)}")
    options = dict(options)
    lr = options.pop("lr", None)
    entries |= options
    if "layers" in entries and ("hidden" in entries or "activation" in entries):
        raise ValueError(f"{config}: has layers; hidden and activation are for networks without them")
    if lr is not None:
        entries["optimizer"] = _entries(entries.get("optimizer", Configuration.optimizer)) | {"lr": lr}
    return Configuration(**entries)


def _entries(description: Any) -> dict[str, Any]:
    """A description as a table that may be changed; a name alone is one without arguments."""
    return dict(description) if isinstance(description, dict) else {"type": description}


def _layer(i: int, description: Any) -> nn.Layer:
    try:
        return built(_without_short_forms(description))
    except (TypeError, ValueError) as error:
        raise ValueError(f"layer {i}: {error}") from None


def _without_short_forms(description: Any) -> Any:
    """The description of a layer as model files have it, where a name alone is none."""
    if isinstance(description, str):
        return {"type": description}
    if isinstance(description, dict) and isinstance(description.get("layers"), list):
        return description | {"layers": [_without_short_forms(one) for one in description["layers"]]}
    return description


def _as_tuples(description: Any) -> Any:
    return {k: tuple(v) if isinstance(v, list) else v for k, v in _entries(description).items()}
