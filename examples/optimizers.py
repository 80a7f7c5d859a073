"""Seven optimizers on one surface, a bent valley: who gets to the bottom in how many steps?

    python examples/optimizers.py [FOLDER for the picture, with the extra "plot"]

The surface is Rosenbrock's, f(u, v) = (1 - u)^2 + 10 (v - u^2)^2, with the minimum 0 at (1, 1). Each optimizer has the
best of the learning rates 1, 0.5, 0.2, 0.1, ..., 0.001, so none is shown at its worst.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from fastnn import nn, optim

START = (-1.2, 1.4)
TOLERANCE = 1e-4
MOST_STEPS = 3000
RATES = (1, 0.5, 0.2, 0.1, 0.05, 0.02, 0.01, 0.005, 0.002, 0.001)

Make = Callable[[Iterable[nn.Parameter], float], optim.Optimizer]
OPTIMIZERS: dict[str, Make] = {
    "SGD": optim.SGD,
    "momentum": lambda params, lr: optim.SGD(params, lr, momentum=0.9),
    "Adagrad": optim.Adagrad,
    "RMSprop": lambda params, lr: optim.RMSprop(params, lr, alpha=0.9),
    "Adam": optim.Adam,
    "AMSGrad": lambda params, lr: optim.Adam(params, lr, amsgrad=True),
    "Newton": optim.Newton,
}


class Descent(NamedTuple):
    """A path over the surface: the points, the heights, and whether the last is below the tolerance."""

    rate: float
    path: np.ndarray
    heights: np.ndarray
    has_arrived: bool

    @property
    def steps(self) -> int:
        return len(self.path) - 1


def height(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    return (1 - u) ** 2 + 10 * (v - u**2) ** 2


def slope(u: float, v: float) -> tuple[float, float]:
    return -2 * (1 - u) - 40 * u * (v - u**2), 20 * (v - u**2)


def descend(make: Make, rate: float) -> Descent:
    """Steps from the start until the height is below the tolerance, infinite, or there were enough."""
    point = nn.Parameter((2,), np.float64, lambda shape, random_state: np.array(START))
    optimizer = make([point], rate)

    def gradient() -> None:
        optimizer.zero_grad()
        point.grad[...] = slope(*point.data)

    path = [point.data.copy()]
    with np.errstate(over="ignore", invalid="ignore"):
        while len(path) <= MOST_STEPS and TOLERANCE <= height(*path[-1]) < 1e6:
            gradient()
            optimizer.step(gradient)
            path.append(point.data.copy())
    heights = height(*np.array(path).T)
    return Descent(rate, np.array(path), heights, bool(heights[-1] < TOLERANCE))


def best(make: Make) -> Descent:
    """The descent with the fewest steps of those that arrive, or else the one that ends lowest."""
    descents = [descend(make, rate) for rate in RATES]
    arrived = [one for one in descents if one.has_arrived]
    if arrived:
        return min(arrived, key=lambda one: one.steps)
    return min(descents, key=lambda one: np.nan_to_num(one.heights[-1], nan=np.inf))


def picture(descents: dict[str, Descent], folder: str) -> None:
    from matplotlib.figure import Figure

    figure = Figure((7, 4.1), layout="constrained")
    *panels, last = figure.subplots(2, 4).flat
    u, v = np.meshgrid(np.linspace(-1.8, 1.8, 120), np.linspace(-1.7, 2.1, 120))
    for i, (ax, (name, found)) in enumerate(zip(panels, descents.items(), strict=True)):
        ax.contour(u, v, height(u, v), levels=np.geomspace(0.1, 60, 9), colors="lightgrey", linewidths=0.7)
        ax.plot(*found.path.T, ".-", color=f"C{i}", markersize=3, linewidth=0.8)
        ax.plot(1, 1, "k*", markersize=9)
        ax.set_title(f"{name}: {found.steps} steps", fontsize="small", color=f"C{i}")
        ax.set(xlim=(-1.8, 1.8), ylim=(-1.7, 2.1))
        ax.label_outer()
        last.loglog(1 + np.arange(len(found.heights)), found.heights, color=f"C{i}", linewidth=1)
    for ax in panels[4:]:
        ax.set_xlabel("u")
    for ax in panels[::4]:
        ax.set_ylabel("v")
    last.set_title("f by step", fontsize="small")
    last.yaxis.tick_right()
    last.yaxis.set_label_position("right")
    last.set(xlabel="step", ylabel="f", ylim=(1e-7, 1e2))
    figure.savefig(Path(folder) / "optimizers.png")


def main(folder: str | None = None) -> None:
    descents = {name: best(make) for name, make in OPTIMIZERS.items()}
    print(f"| optimizer | best learning rate | steps until f < {TOLERANCE:g} |\n|---|---|---|")
    for name, found in descents.items():
        steps = found.steps if found.has_arrived else f"f = {found.heights[-1]:.2g} after {found.steps}"
        print(f"| {name} | {found.rate} | {steps} |")
    if folder:
        picture(descents, folder)


if __name__ == "__main__":
    main(*sys.argv[1:])
