"""LeNet-5 learns MNIST, if a folder of its IDX files is given, or else scikit-learn's digits, in five epochs.

python examples/lenet.py                  # needs pip install 'fastnn-kernels[sklearn,progress]'
python examples/lenet.py FOLDER [SEED]

The network is that of LeCun, Bottou, Bengio and Haffner, "Gradient-Based Learning Applied to Document Recognition",
Proceedings of the IEEE 86, 1998, with rectifiers and maxima in place of sigmoids and means, and dense connections
between the maps. The digits of 8 x 8 pixels are enlarged to the 28 x 28 that it is made for.

A tenth of the digits is held out for the test. Learning rate and shifts were chosen on another part, cut from the
digits to train on.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastnn import data, init, nn, optim, train

Array = NDArray[Any]

SIZE = 28
EPOCHS = 5
BATCH = 32
LEARNING_RATE = 3e-3
#: The split into training and test is the same for every seed.
SPLIT = 0


def network(seed: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(1, 6, 5, padding=2),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(6, 16, 5),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(400, 120),
        nn.ReLU(),
        nn.Linear(120, 84),
        nn.ReLU(),
        nn.Linear(84, 10),
    ).initialize(init.he_normal, random_state=seed)


class Shifts(train.Callback):
    """Moves each image by up to a pixel along both axes, anew in each epoch: `fit` reads `images` batch by batch."""

    def __init__(self, images: Array, seed: int) -> None:
        self.images = images
        edges = ((0, 0), (0, 0), (1, 1), (1, 1))
        padded = np.pad(images, edges, constant_values=images.min())
        self._windows = np.lib.stride_tricks.sliding_window_view(padded, images.shape[2:], axis=(2, 3))
        self._rng = np.random.default_rng(seed)

    def epoch_begin(self, run: train.Run) -> None:
        count = len(self.images)
        rows, columns = self._rng.integers(0, 3, (2, count))
        self.images[:] = self._windows[np.arange(count), :, rows, columns]


def enlarged(images: Array) -> Array:
    """Images [n, 1, h, w] as [n, 1, 28, 28], linear between the pixels."""
    for axis in (2, 3):
        size = images.shape[axis]
        at = np.clip((np.arange(SIZE) + 0.5) * size / SIZE - 0.5, 0, size - 1)
        low = np.minimum(at.astype(int), size - 2)
        share = (at - low).astype(images.dtype).reshape(-1, *[1] * (3 - axis))
        images = (1 - share) * images.take(low, axis) + share * images.take(low + 1, axis)
    return images


def learn(images: Array, labels: Array, seed: int, *, progress: bool = True) -> train.Metrics:
    """Loss and accuracy on the test digits of a network that has learnt the others."""
    (x, y), (test_x, test_y) = data.split(images, labels, test_share=0.1, random_state=SPLIT)
    mean, std = x.mean(), x.std()
    x, test_x = (x - mean) / std, (test_x - mean) / std
    model, loss = network(seed), nn.CrossEntropyLoss()
    steps = EPOCHS * -(-len(x) // BATCH)
    train.fit(
        model,
        x,
        y,
        loss=loss,
        optimizer=optim.Adam(model.parameters(), LEARNING_RATE),
        epochs=EPOCHS,
        batch_size=BATCH,
        random_state=seed,
        callbacks=[
            train.LearningRateSchedule(optim.cosine_decay(LEARNING_RATE, length=steps), per="batch"),
            Shifts(x, seed),
        ],
        progress=progress,
    )
    return train.evaluate(model, test_x, test_y, loss=loss)


def main(arguments: Sequence[str] = ()) -> None:
    if arguments:
        images, labels = data.load_mnist(arguments[0])
    else:
        images, labels = data.load_digits()
        images = enlarged(images)
    seed = int(arguments[1]) if len(arguments) > 1 else 0
    print(network(seed).summary((BATCH, 1, SIZE, SIZE)))
    accuracy = learn(images, labels, seed)["accuracy"]
    print(f"{len(images)} digits, a tenth of them for the test, {EPOCHS} epochs: {accuracy:.2%} right")


if __name__ == "__main__":
    main(sys.argv[1:])
