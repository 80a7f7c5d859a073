"""The network 36-36-2 tells apples from tomatoes on generated 6x6 grayscale images.

    python examples/apples_and_tomatoes.py [FOLDER for the picture, with the extra "plot"]

Step 1 is the structure. Then steps 2 to 5, forward pass, total error, gradients and update, are repeated until the
error is acceptable. An apple is round, with a dent at the stem; a tomato is flat, with dark leaves on top.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

from fastnn import data, init, nn, optim, plot

NAMES = ("apple", "tomato")
SIDE = 6
ACCEPTABLE = 0.01
MOST_STEPS = 5000


def image(label: int, rng: np.random.Generator) -> np.ndarray:
    """A fruit on a dark ground, nowhere quite the same, with noise; brightness is between 0 and 1."""
    row, column = (
        np.mgrid[:SIDE, :SIDE] + rng.uniform(-0.4, 0.4, 2)[:, np.newaxis, np.newaxis] - (SIDE - 1) / 2
    )
    size, flatness = rng.uniform(2.3, 2.9), (1.0, 0.75)[label] + rng.uniform(-0.05, 0.05)
    distance = np.hypot(row / flatness, column) / size
    brightness = rng.uniform(0.6, 0.9) * np.clip(4 * (1.1 - distance), 0, 1)
    near_stem = np.hypot(row + size * flatness * 0.8, column / (0.6, 1.3)[label])
    brightness *= 1 - (0.7, 0.9)[label] * np.exp(-(near_stem**2))
    return np.clip(brightness + 0.12 * rng.standard_normal((SIDE, SIDE)), 0, 1)


def fruit(count: int, random_state: int) -> tuple[np.ndarray, np.ndarray]:
    """Images as rows of 36 pixels, and labels."""
    rng = np.random.default_rng(random_state)
    labels = rng.integers(0, 2, count)
    return np.array([image(label, rng).ravel() for label in labels]), labels


def network() -> nn.Sequential:
    """Step 1, the structure: 37 * 36 + 37 * 2 = 1406 weights."""
    return nn.Sequential(
        nn.Linear(36, 36, activation="sigmoid"), nn.Linear(36, 2, activation="sigmoid")
    ).initialize(init.xavier_normal, random_state=0)


def learn(model: nn.Sequential, x: np.ndarray, target: np.ndarray) -> list[float]:
    """Repeat steps 2 to 5 until the error is acceptable; the error of each step."""
    loss, optimizer = nn.HalfSquaredError(), optim.SGD(model.parameters(), lr=0.5, momentum=0.9)
    errors: list[float] = []
    while len(errors) < MOST_STEPS and not (errors and errors[-1] <= ACCEPTABLE):
        output = model(x)
        error, grad = loss.value_and_grad(output, target)
        model.backward(grad, needs_grad_x=False)
        optimizer.step()
        optimizer.zero_grad()
        errors.append(float(error))
    return errors


def picture(
    model: nn.Sequential, errors: list[float], x: np.ndarray, labels: np.ndarray, folder: str
) -> None:
    from matplotlib.figure import Figure

    figure = Figure((7, 4.9), layout="constrained")
    above, below = figure.subfigures(2, 1, height_ratios=(2, 3))
    guesses = model.predict(x).argmax(axis=1)
    for ax, pixels, label, guess in zip(above.subplots(2, 8).flat, x, labels, guesses, strict=False):
        ax.imshow(pixels.reshape(SIDE, SIDE), cmap="gray", vmin=0, vmax=1)
        ax.set_title(NAMES[guess], color="black" if guess == label else "red", fontsize="small")
        ax.set(xticks=[], yticks=[])
    curve, weights = below.subplots(1, 2)
    curve.semilogy(range(1, len(errors) + 1), errors)
    curve.axhline(ACCEPTABLE, color="grey", linestyle="--", label="acceptable")
    curve.set(xlabel="step", ylabel="E, mean over samples", title="Error")
    curve.grid(alpha=0.3)
    curve.legend()
    plot.filters(model[0].weight.data.reshape(36, SIDE, SIDE), ax=weights).set_title(
        "Weights into the hidden units"
    )
    figure.savefig(Path(folder) / "apples_and_tomatoes.png")


def main(folder: str | None = None) -> None:
    (x, labels), test = fruit(400, random_state=1), fruit(400, random_state=2)
    model = network()
    errors = learn(model, x, data.one_hot(labels))
    print("| weights | steps until E <= 0.01 | first E | last E | training accuracy | test accuracy |")
    print("|---" * 6 + "|")
    shares = [np.mean(model.predict(images).argmax(axis=1) == right) for images, right in ((x, labels), test)]
    print(
        f"| {model.parameters().size} | {len(errors)} | {errors[0]:.3f} | {errors[-1]:.4f} |"
        f" {shares[0]:.1%} | {shares[1]:.1%} |"
    )
    if folder:
        picture(model, errors, *test, folder)


if __name__ == "__main__":
    main(*sys.argv[1:])
