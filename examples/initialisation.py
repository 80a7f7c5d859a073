"""How the first weights decide what reaches the last layer: 1000 inputs through 5 hidden layers.

    python examples/initialisation.py [FOLDER for the picture, with the extra "plot"]

With weights from N(0, 1) units of tanh saturate, and their gradients vanish; with a standard deviation of 0.01 the
signal itself dies out. Xavier's sqrt(2 / (fan_in + fan_out)) keeps tanh alive; a ReLU passes half of the mean square
on, for which He's sqrt(2 / fan_in) makes up. He's is also written sqrt(4 / (fan_in + fan_out)), which is the same where
all layers are of one width; where they narrow, it is too large, and the signal grows from layer to layer.
"""

from __future__ import annotations

import math
import sys
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from fastnn import init, nn, plot

WIDE = (256,) * 6
NARROWING = (1024, 512, 256, 128, 64, 32)


def he_of_both_fans(shape: tuple[int, ...], random_state: Any = None) -> np.ndarray:
    """Normal with std sqrt(4 / (fan_in + fan_out)), for matrices."""
    return init.normal(math.sqrt(4 / sum(shape)))(shape, random_state)


#: Initialisers by name, each with the activation of the layers.
CHOICES = {
    "N(0, 1), tanh": (init.normal(1), "tanh"),
    "N(0, 0.01^2), tanh": (init.normal(0.01), "tanh"),
    "Xavier, tanh": (init.xavier_normal, "tanh"),
    "He, ReLU": (init.he_normal, "relu"),
}
FORMS = {"sqrt(2 / fan_in)": init.he_normal, "sqrt(4 / (fan_in + fan_out))": he_of_both_fans}


def network(initializer: init.Initializer, activation: str, sizes: tuple[int, ...] = WIDE) -> nn.Sequential:
    layers = [nn.Linear(i, o, activation=activation) for i, o in pairwise(sizes)]
    return nn.Sequential(*layers).initialize(initializer, random_state=0)


def inputs(size: int = WIDE[0]) -> np.ndarray:
    """1000 samples of N(0, 1)."""
    return np.random.default_rng(1).standard_normal((1000, size), dtype=np.float32)


def spreads(model: nn.Sequential) -> list[float]:
    """The root of the mean square of each layer's outputs (their standard deviation too, where their mean is 0)."""
    y, found = inputs(model[0].in_features), []
    for layer in model:
        y = layer.predict(y, len(y))
        found.append(float(np.sqrt(np.mean(y.astype(np.float64) ** 2))))
    return found


def experiments() -> dict[str, list[float]]:
    """The spreads for each choice of weights, and for both forms of He's in layers that narrow."""
    found = {name: spreads(network(*choice)) for name, choice in CHOICES.items()}
    for form, initializer in FORMS.items():
        found[f"{form}, ReLU, narrowing"] = spreads(network(initializer, "relu", NARROWING))
    return found


def picture(folder: str) -> None:
    from matplotlib.figure import Figure

    figure = Figure((7, 8.2), layout="constrained")
    for part, (name, choice) in zip(figure.subfigures(len(CHOICES), 1), CHOICES.items(), strict=True):
        plot.layer_histograms(network(*choice), inputs(), figure=part)
        part.suptitle(name, fontsize="medium", fontweight="bold")
    figure.savefig(Path(folder) / "initialisation.png")


def main(folder: str | None = None) -> None:
    print("| root mean square of the outputs | layer 1 | layer 2 | layer 3 | layer 4 | layer 5 |")
    print("|---" * 6 + "|")
    for name, found in experiments().items():
        print(f"| {name} | {' | '.join(f'{one:.3g}' for one in found)} |")
    if folder:
        picture(folder)


if __name__ == "__main__":
    main(*sys.argv[1:])
