"""A network of one hidden layer of ReLUs is a sum of bent lines, and comes as near to a function as there are units.

    python examples/relu_sums.py [FOLDER for the picture, with the extra "plot"]

On an interval from a to b with knots a = t1 < t2 < ... the sum f(a) + c1 relu(x - t1) + c2 relu(x - t2) + ... bends at
the knots only. With c_k the change of slope at t_k it goes through all points (t_k, f(t_k)), and its error is at most
h^2/8 max |f''| for knots h apart: a quarter for each doubling of the units, as long as f has a second derivative.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from fastnn import nn


class Function(NamedTuple):
    """What is approximated, where, and the largest absolute value of its second derivative."""

    name: str
    f: Callable[[np.ndarray], np.ndarray]
    interval: tuple[float, float]
    bend: float


FUNCTIONS = [
    Function("sin(x), 0 to 2 pi", np.sin, (0, 2 * np.pi), 1),
    Function("x^3 - x, -1.5 to 1.5", lambda x: x**3 - x, (-1.5, 1.5), 9),
    Function("sqrt(x), 0 to 1", np.sqrt, (0, 1), np.inf),
]
UNITS = (4, 8, 16, 32, 64, 128)


def relu_sum(function: Function, units: int) -> nn.Sequential:
    """The network 1-units-1 that has the values of a function at the knots."""
    knots = np.linspace(*function.interval, units + 1)
    values = function.f(knots)
    slopes = np.diff(values) / np.diff(knots)
    model = nn.Sequential(
        nn.Linear(1, units, activation="relu", dtype=np.float64), nn.Linear(units, 1, dtype=np.float64)
    )
    model.load_state_dict(
        {
            "0.weight": np.ones((units, 1)),
            "0.bias": -knots[:-1],
            "1.weight": np.diff(slopes, prepend=0)[np.newaxis],
            "1.bias": values[:1],
        }
    )
    return model


def error(function: Function, units: int) -> float:
    """The largest distance of the sum from the function."""
    x = np.linspace(*function.interval, 20_001)
    return float(
        np.abs(relu_sum(function, units).predict(x[:, np.newaxis], len(x))[:, 0] - function.f(x)).max()
    )


def errors() -> dict[str, list[float]]:
    """The errors of all functions for all numbers of units."""
    return {function.name: [error(function, units) for units in UNITS] for function in FUNCTIONS}


def bound(function: Function, units: int) -> float:
    """What the error cannot exceed."""
    low, high = function.interval
    return ((high - low) / units) ** 2 / 8 * function.bend


def picture(folder: str) -> None:
    from matplotlib.figure import Figure

    figure = Figure((7, 3.4), layout="constrained")
    curve, rate = figure.subplots(1, 2)
    sine = FUNCTIONS[0]
    x = np.linspace(*sine.interval, 500)
    curve.plot(x, sine.f(x), color="black", label="sin(x)")
    for units, style in ((3, ":"), (5, "--"), (12, "-")):
        y = relu_sum(sine, units).predict(x[:, np.newaxis], len(x))
        curve.plot(x, y, style, label=f"{units} units")
    curve.set(xlabel="x", ylabel="y", title="A sum of ReLUs")
    for (name, found), marker in zip(errors().items(), "os^", strict=True):
        rate.loglog(UNITS, found, f"{marker}-", label=name.partition(",")[0])
    rate.set_xticks(UNITS, UNITS)
    rate.minorticks_off()
    rate.set(xlabel="units", ylabel="largest error", title="A quarter for each doubling")
    for ax in (curve, rate):
        ax.grid(alpha=0.3)
        ax.legend()
    figure.savefig(Path(folder) / "relu_sums.png")


def main(folder: str | None = None) -> None:
    print(f"| function | {' | '.join(f'{units} units' for units in UNITS)} | last ratio |")
    print("|---" * (len(UNITS) + 2) + "|")
    for name, found in errors().items():
        print(f"| {name} | {' | '.join(f'{one:.2g}' for one in found)} | {found[-2] / found[-1]:.2f} |")
    if folder:
        picture(folder)


if __name__ == "__main__":
    main(*sys.argv[1:])
