"""Eleven worked examples of five sets of lecture notes on neural networks, each number as arithmetic has it.

Where the notes print another number, it stands beside the right one, with the mistake that leads to it.

    python examples/worked_examples.py [--markdown]
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

import fastnn
from fastnn import nn, optim


class Example(NamedTuple):
    """One step of a network of sigmoids with E = 1/2 sum (y - target)^2; row i of a matrix leads into unit i."""

    x: list[float]
    target: list[float]
    learning_rate: float
    layers: list[tuple[list[list[float]], list[float]]]

    def model(self) -> nn.Sequential:
        shapes = [np.shape(weight) for weight, _ in self.layers]
        model = nn.Sequential(*(nn.Linear(i, o, activation="sigmoid", dtype=np.float64) for o, i in shapes))
        state = {}
        for k, (weight, bias) in enumerate(self.layers):
            state |= {f"{k}.weight": weight, f"{k}.bias": bias}
        model.load_state_dict(state)
        return model

    def trace(self) -> fastnn.trace:
        loss = nn.HalfSquaredError()
        return fastnn.trace(self.model(), self.x, self.target, loss=loss, learning_rate=self.learning_rate)


EXAMPLES = {
    "E1": Example([0.1, 0.3], [0.03], 0.01, [([[0.5, 0.2]], [1.83])]),
    "E2": Example(
        [0.1, 0.3], [0.03], 0.01, [([[0.5, 0.1], [0.62, 0.2]], [0.4, -0.1]), ([[-0.2, 0.3]], [1.83])]
    ),
    "E3": Example(
        [0.05, 0.1],
        [0.01, 0.99],
        0.5,
        [([[0.15, 0.2], [0.25, 0.3]], [0.35, 0.35]), ([[0.4, 0.45], [0.5, 0.55]], [0.6, 0.6])],
    ),
    "E4": Example(
        [0.15, 0.35],
        [0, 1],
        0.5,
        [([[0.1, 0.12], [0.2, 0.17]], [0.8, 0.25]), ([[0.05, 0.33], [0.4, 0.07]], [0.15, 0.7])],
    ),
    "E5": Example(
        [0.12, 0.3],
        [0.1, 0.9],
        0.5,
        [([[0.15, 0.2], [0.2, 0.3]], [0.1, 0.2]), ([[0.5, 0.4], [0.55, 0.45]], [0.2, 0.1])],
    ),
}


class Misprint(NamedTuple):
    """A number that the notes have wrong: which one, what they print, why, and the mistaken arithmetic."""

    example: str
    name: str
    at: tuple[int, ...]
    printed: str
    why: str
    mistaken: Callable[[fastnn.trace], float]

    @property
    def unit(self) -> float:
        """One of the last printed place."""
        return 10.0 ** -len(self.printed.partition(".")[2])


def wrong_delta(t: fastnn.trace) -> float:
    """E2's delta of the output with the slope 0.641 (1 - 0.641) in place of 0.865 (1 - 0.865)."""
    return t["grad_y"][0] * 0.641 * (1 - 0.641)


def hidden_delta(t: fastnn.trace, unit: int) -> float:
    """E2's delta of a hidden unit from the wrong delta of the output."""
    h = t["h1"][unit]
    return wrong_delta(t) * t["w2"][0, unit] * h * (1 - h)


def borrowed_gradient(t: fastnn.trace, column: int) -> float:
    """E3's gradient of hidden unit 2 with the error that belongs to hidden unit 1."""
    h = t["h1"]
    return t["delta1"][0] / (h[0] * (1 - h[0])) * h[1] * (1 - h[1]) * t["x"][column]


SLOPE = "sigmoid'(1.858) is taken at 1/1.56 = 0.641 instead of the output 0.865"
WEIGHT = f"{SLOPE}, and ds/dw is the weight instead of the input"
BORROWED = "the error of hidden unit 1 is used for hidden unit 2"
MISPRINTS = [
    Misprint("E2", "y", (0,), "0.641", "1 + e^-1.858 is 1.156, not 1.56", lambda t: 1 / 1.56),
    Misprint("E2", "grad_w2", (0, 0), "0.119", SLOPE, lambda t: wrong_delta(t) * t["h1"][0]),
    Misprint("E2", "grad_w2", (0, 1), "0.097", SLOPE, lambda t: wrong_delta(t) * t["h1"][1]),
    Misprint("E2", "grad_w1", (0, 0), "-0.001", SLOPE, lambda t: hidden_delta(t, 0) * t["x"][0]),
    Misprint("E2", "grad_w1", (0, 1), "-0.003", SLOPE, lambda t: hidden_delta(t, 0) * t["x"][1]),
    Misprint("E2", "grad_w1", (1, 0), "0.009", WEIGHT, lambda t: hidden_delta(t, 1) * t["w1"][1, 0]),
    Misprint("E2", "grad_w1", (1, 1), "0.003", WEIGHT, lambda t: hidden_delta(t, 1) * t["w1"][1, 1]),
    Misprint("E2", "new_w1", (0, 0), "0.50001", SLOPE, lambda t: 0.5 - 0.01 * -0.001),
    Misprint("E2", "new_w1", (0, 1), "0.10003", SLOPE, lambda t: 0.1 - 0.01 * -0.003),
    Misprint("E2", "new_w1", (1, 0), "0.61991", WEIGHT, lambda t: 0.62 - 0.01 * 0.009),
    Misprint("E2", "new_w1", (1, 1), "0.1997", f"{WEIGHT}; and 0.19997 has lost a 9", lambda t: 0.1997),
    Misprint(
        "E2",
        "new_w2",
        (0, 0),
        "-0.20618",
        "eta h1 is subtracted, not eta dE/dw5",
        lambda t: -0.2 - 0.01 * 0.618,
    ),
    Misprint("E2", "new_w2", (0, 1), "0.29903", SLOPE, lambda t: 0.3 - 0.01 * 0.097),
    Misprint("E3", "grad_w1", (1, 0), "0.00043732", BORROWED, lambda t: borrowed_gradient(t, 0)),
    Misprint("E3", "new_w1", (1, 0), "0.2497813", BORROWED, lambda t: 0.25 - 0.5 * borrowed_gradient(t, 0)),
    Misprint("E3", "new_w1", (1, 1), "0.29956", BORROWED, lambda t: 0.3 - 0.5 * borrowed_gradient(t, 1)),
    Misprint("E4", "new_w2", (0, 0), "0.00025", "the sign is lost", lambda t: -t["new_w2"][0, 0]),
    Misprint(
        "E5",
        "new_w1",
        (0, 0),
        "0.149625",
        "the labels of A and B change places between the layers: this is the gradient of x1 -> B, cut to 0.00075",
        lambda t: 0.15 - 0.5 * np.floor(t["grad_w1"][1, 0] * 2e4) / 2e4,
    ),
]


#: What no number shows.
PLUS = (
    "E5's rule for w11 is printed with a plus, w + eta dE/dw, but computed with the minus of descent; the plus of E7 is"
    " right, for f is to grow."
)


def cross_entropy() -> dict[str, np.ndarray]:
    """E6: four logits with label 3, as chances of their own, made to sum to 1, and by softmax."""
    logits = np.array([[-5.0, -1, 1, 5]])
    sigmoid = nn.Sigmoid()(logits)[0]
    return {
        "sigmoid": sigmoid,
        "normalised": sigmoid / sigmoid.sum(),
        "softmax": nn.Softmax()(logits)[0],
        "cross-entropy": nn.CrossEntropyLoss()(logits, [3]),
    }


def ascent(eta: float) -> tuple[float, float]:
    """E7: f = wx + b at w = -2, x = 5, b = 3 is to grow, so the step goes along the gradient: w and b after it."""
    line = nn.Linear(1, 1, dtype=np.float64)
    line.load_state_dict({"weight": [[-2]], "bias": [3]})
    line([[5]])
    line.backward(np.array([[-1.0]]))  # descent of -f
    optim.SGD(line.parameters(), eta).step()
    return float(line.weight.data[0, 0]), float(line.bias.data[0])


def chain_rule() -> dict[str, float]:
    """E8: f = (x + y) z at (2, 5, -4), as two linear layers: the sum with weights 1, the product with weight z."""
    total, product = (
        nn.Linear(2, 1, bias=False, dtype=np.float64),
        nn.Linear(1, 1, bias=False, dtype=np.float64),
    )
    total.load_state_dict({"weight": [[1, 1]]})
    product.load_state_dict({"weight": [[-4]]})
    model = nn.Sequential(total, product)
    f = model([[2, 5]])
    df = model.backward(np.ones((1, 1)))[0]
    return {"f": f.item(), "df/dx": df[0], "df/dy": df[1], "df/dz": product.weight.grad.item()}


def sizes() -> tuple[int, int]:
    """E9: a side of the activation map is (N - F + 2P)/S + 1: 24 pixels and 5 taps; 7 pixels, 3 taps, padding 1."""
    return (
        nn.Conv2d(1, 1, 5).output_shape((1, 1, 24, 24))[2],
        nn.Conv2d(1, 1, 3, padding=1).output_shape((1, 1, 7, 7))[2],
    )


def apples_and_tomatoes() -> nn.Sequential:
    """E10: 36-36-2 for images of 6x6 pixels, with 37 * 36 + 37 * 2 = 1406 weights."""
    return nn.Sequential(nn.Linear(36, 36, activation="sigmoid"), nn.Linear(36, 2, activation="sigmoid"))


def steepest_ascent() -> tuple[np.ndarray, float]:
    """E11: on a circle of radius 5, 4x + 3y is largest along the gradient: the point, and the value."""
    revenue = nn.Linear(2, 1, bias=False, dtype=np.float64)
    revenue.load_state_dict({"weight": [[4, 3]]})
    revenue([[0, 0]])
    gradient = revenue.backward(np.ones((1, 1)))[0]
    best = 5 * gradient / np.linalg.norm(gradient)
    return best, revenue.predict(best[np.newaxis]).item()


def others() -> str:
    """E6 to E11, a few lines each."""
    (x, y), most = steepest_ascent()
    values = (f"  {name:13} = {_shown(value)}" for name, value in cross_entropy().items())
    steps = (f"eta {eta} -> ({w:g}, {b:g})" for eta in (0.1, 0.3, 0.5) for w, b in [ascent(eta)])
    return "\n\n".join(
        (
            "\n".join(("E6", *values)),
            "E7: " + ", ".join(steps),
            "E8: " + ", ".join(f"{name} = {value:g}" for name, value in chain_rule().items()),
            "E9: {} and {}".format(*sizes()),
            f"E10\n{apples_and_tomatoes().summary()}",
            f"E11: 4x + 3y is {most:g} at ({x:g}, {y:g}), and nowhere on the circle larger",
        )
    )


def _shown(value: np.ndarray) -> str:
    return np.array2string(value, precision=7, suppress_small=True)


def main(*, markdown: bool = False) -> None:
    traces = {name: example.trace() for name, example in EXAMPLES.items()}
    for name, trace in traces.items():
        print(f"### {name}\n\n{trace.markdown()}\n" if markdown else f"{name}\n{trace}\n")
    heading = "### " if markdown else ""
    print(f"{heading}Where the notes are wrong\n")
    print("| example | number | printed | right | why |\n|---|---|---|---|---|")
    for one in MISPRINTS:
        right = traces[one.example][one.name][one.at]
        print(f"| {one.example} | `{one.name}{list(one.at)}` | {one.printed} | {right:.8f} | {one.why} |")
    print(f"\n{PLUS}")
    print(f"\n### E6 to E11\n\n```\n{others()}\n```" if markdown else f"\n{others()}")


if __name__ == "__main__":
    main(markdown="--markdown" in sys.argv)
