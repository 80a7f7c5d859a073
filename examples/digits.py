"""A small convolutional network learns scikit-learn's digits, is saved, loaded and asked.

pip install 'fastnn-kernels[sklearn,progress]'
python examples/digits.py
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np

from fastnn import data, init, nn, optim, train


def network() -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(16, 32, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Dropout(0.25),
        nn.Linear(128, 10),
    ).initialize(init.he_normal, random_state=0)


def main() -> None:
    training, test = data.split(*data.load_digits(), random_state=0)
    model, loss = network(), nn.CrossEntropyLoss()
    print(model.summary((1, 1, 8, 8)))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "digits.safetensors"
        history = train.fit(
            model,
            *training,
            loss=loss,
            optimizer=optim.Adam(model.parameters(), lr=8e-3),
            epochs=10,
            validation_data=test,
            random_state=0,
            callbacks=[
                train.LearningRateSchedule(optim.cosine_decay(8e-3, length=10)),
                train.ModelCheckpoint(path),
                lambda run: print(
                    f"epoch {run.epoch + 1}: " + ", ".join(map(shown, run.history.epochs[-1].items()))
                ),
            ],
        )
        best = nn.load(path)
    images, labels = test
    print(
        f"best of {len(history)} epochs: {train.evaluate(best, images, labels, loss=loss)['accuracy']:.2%} right"
    )
    guesses = best.predict(images[:10]).argmax(axis=1)
    print(
        f"ten test digits {labels[:10]}, recognised as {guesses}, {np.count_nonzero(guesses == labels[:10])} right"
    )


def shown(metric: tuple[str, float]) -> str:
    name, value = metric
    return f"{name} {value:.4f}"


if __name__ == "__main__":
    main()
