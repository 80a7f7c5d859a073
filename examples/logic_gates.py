"""AND, OR and XOR by threshold units: by hand, by the perceptron rule, and why XOR needs a hidden layer.

python examples/logic_gates.py
"""

from __future__ import annotations

from itertools import product

import numpy as np

from fastnn import nn

X = np.array([[0, 0], [0, 1], [1, 0], [1, 1]])
GATES = {"AND": (0, 0, 0, 1), "OR": (0, 1, 1, 1), "XOR": (0, 1, 1, 0)}


def unit(*weights: float, threshold: float = 2) -> nn.Sequential:
    """A unit that fires where the weighted sum of its inputs reaches the threshold."""
    layer = nn.Linear(len(weights), 1, bias=False, dtype=np.float64)
    layer.load_state_dict({"weight": [weights]})
    return nn.Sequential(layer, nn.Step(threshold)).eval()


def by_hand() -> dict[str, tuple[int, ...]]:
    """Thresholds of 2, with weights 1 and 1 for AND, 2 and 2 for OR; XOR is OR and not AND."""
    both, either = unit(1, 1)(X), unit(2, 2)(X)
    outputs = {"AND": both, "OR": either, "XOR": unit(2, -2)(np.hstack([either, both]))}
    return {name: tuple(output[:, 0].astype(int).tolist()) for name, output in outputs.items()}


def by_the_rule() -> dict[str, list[int]]:
    """The mistakes in each epoch of the perceptron rule."""
    return {name: nn.Perceptron(eta=0.5).fit(X, gate, epochs=20) for name, gate in GATES.items()}


def of_one_unit() -> set[tuple[int, ...]]:
    """All gates of two inputs that one unit can be.

    Weights and thresholds count only through the signs of the four sums, so those from -2 to 2 in halves stand for all.
    That XOR is not among them can be read from the inequalities too: w1 >= t, w2 >= t, 0 < t and w1 + w2 < t have no
    solution.
    """
    numbers = np.arange(-2, 2.5, 0.5)
    return {
        tuple((X @ (w1, w2) >= threshold).astype(int).tolist())
        for w1, w2, threshold in product(numbers, repeat=3)
    }


def main() -> None:
    print("by hand:", by_hand())
    for name, mistakes in by_the_rule().items():
        end = (
            f"learnt in {len(mistakes)} epochs"
            if mistakes[-1] == 0
            else f"not learnt in {len(mistakes)} epochs"
        )
        print(f"perceptron rule, {name}: {end}, mistakes {mistakes}")
    gates = of_one_unit()
    among = "among" if GATES["XOR"] in gates else "not among"
    print(f"one unit can be {len(gates)} of the 16 gates of two inputs; XOR is {among} them")


if __name__ == "__main__":
    main()
