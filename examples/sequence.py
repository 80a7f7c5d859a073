"""A recurrent network learns running parity, which needs memory: is the number of ones so far odd?

python examples/sequence.py

It is trained on sequences of 12 bits and asked about others, also much longer ones. Beside it stand a network that sees
one bit at a time and forgets it, and a dense one that sees all bits at once.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastnn import nn, optim, train

Array = NDArray[Any]
LOSS = nn.CrossEntropyLoss()
LENGTH, UNITS = 12, 24


def sequences(count: int, length: int, *, random_state: int) -> tuple[Array, Array]:
    """Random bits as -1 and 1, [count, length, 1], and the parity after each of them, [count, length]."""
    bits = np.random.default_rng(random_state).integers(0, 2, (count, length))
    return (2.0 * bits[..., np.newaxis] - 1).astype(np.float32), bits.cumsum(axis=1) % 2


def trained(model: nn.Sequential, x: Array, y: Array, *, epochs: int = 25, lr: float = 5e-3) -> nn.Sequential:
    model.initialize(random_state=0)
    train.fit(
        model,
        x,
        y,
        loss=LOSS,
        optimizer=optim.Adam(model.parameters(), lr=lr),
        epochs=epochs,
        random_state=0,
        callbacks=[train.LearningRateSchedule(optim.cosine_decay(lr, length=epochs))],
    )
    return model


def recurrent() -> nn.Sequential:
    """An answer after each bit: the dense layer is applied to the state of each step."""
    return trained(
        nn.Sequential(nn.RNN(1, UNITS), nn.Linear(UNITS, 2)), *sequences(2000, LENGTH, random_state=0)
    )


def forgetful() -> nn.Sequential:
    """The same without a way from one step to the next."""
    return trained(
        nn.Sequential(nn.Linear(1, UNITS), nn.Tanh(), nn.Linear(UNITS, 2)),
        *sequences(2000, LENGTH, random_state=0),
    )


def dense(length: int) -> nn.Sequential:
    """One answer, from all bits at once."""
    x, y = sequences(2000, length, random_state=0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(length, 128), nn.Tanh(), nn.Linear(128, 2))
    return trained(model, x, y[:, -1])


def at_the_end(model: nn.Sequential) -> nn.Sequential:
    """The recurrent network with one answer for a sequence."""
    return nn.Sequential(model[0], nn.Last(), model[1])


def accuracies() -> dict[str, float]:
    """The share of right answers for sequences that no network was trained on."""
    model, length = recurrent(), 2 * LENGTH
    tests = {n: sequences(1000, n, random_state=1) for n in (LENGTH, length, 200)}
    x, y = tests[length]
    last = {"dense": dense(length), "recurrent": at_the_end(model)}
    return {
        f"each of {LENGTH} bits, forgetful": train.evaluate(forgetful(), *tests[LENGTH], loss=LOSS)[
            "accuracy"
        ],
        **{
            f"each of {n} bits, recurrent": train.evaluate(model, *test, loss=LOSS)["accuracy"]
            for n, test in tests.items()
        },
        **{
            f"after {length} bits, {name}": train.evaluate(one, x, y[:, -1], loss=LOSS)["accuracy"]
            for name, one in last.items()
        },
    }


def main() -> None:
    for name, accuracy in accuracies().items():
        print(f"{name:28} {accuracy:7.2%}")


if __name__ == "__main__":
    main()
