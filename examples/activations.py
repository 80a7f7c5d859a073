"""Activations with their derivatives, drawn; and what of a gradient is left after ten layers of each.

    python examples/activations.py [FOLDER for the picture, with the extra "plot"]

A layer multiplies the gradient by the derivative at its pre-activations. Where that is small, as with a sigmoid
anywhere and with tanh far from 0, little of it arrives at the first layers.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

import fastnn
from fastnn import plot

NAMES = ("step", "sigmoid", "tanh", "relu", "leaky_relu", "elu", "softplus", "gelu", "silu")


def facts(name: str) -> tuple[float, float, float]:
    """The slope at 0, the steepest slope anywhere, and the steepest to the power of ten."""
    slope = getattr(fastnn, f"{name}_derivative")
    steepest = float(slope(np.linspace(-20, 20, 100_001)).max())
    return float(slope(0.0)), steepest, steepest**10


def picture(folder: str) -> None:
    from matplotlib.figure import Figure

    figure = Figure((7, 6.2), layout="constrained")
    panels = figure.subplots(3, 3, sharex=True)
    for ax, name in zip(panels.flat, NAMES, strict=True):
        plot.activation(name, ax=ax)
        ax.get_legend().remove()
        ax.set(xlabel="", ylabel="")
    for ax in panels[-1]:
        ax.set_xlabel("x")
    figure.legend(["f(x)", "f'(x)"], loc="outside lower center", ncols=2)
    figure.savefig(Path(folder) / "activations.png")


def main(folder: str | None = None) -> None:
    print("| activation | slope at 0 | steepest slope | after ten layers at most |\n|---|---|---|---|")
    for name in NAMES:
        at_zero, steepest, left = facts(name)
        print(f"| {name} | {at_zero:.4g} | {steepest:.4g} | {left:.2g} |")
    if folder:
        picture(folder)


if __name__ == "__main__":
    main(*sys.argv[1:])
