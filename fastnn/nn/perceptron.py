"""The perceptron and its learning rule."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

import fastnn
from fastnn_ext.checks import integer, number, wrong

Array = NDArray[Any]


class Perceptron:
    """A threshold unit, 1 where w @ x + b >= threshold, and the perceptron rule.

    After each sample W(n + 1) = W(n) + eta (d(n) - y(n)) x(n), with the bias as the weight of a constant input 1.
    Where a line (a hyperplane) separates the classes, the rule finds one.

    Parameters
    ----------
    eta : float, more than 0
        Learning rate.
    threshold : float
        From which weighted sum on the unit fires.

    Attributes
    ----------
    weight : ndarray of float64, shape (in,)
        Set by `fit`, beginning at 0, or by hand.
    bias : float
        Likewise.

    References
    ----------
    Rosenblatt, "The perceptron: a probabilistic model for information storage and organization in the brain",
    Psychological Review 65, 1958.
    """

    def __init__(self, *, eta: float = 1.0, threshold: float = 0.0) -> None:
        self.eta = number("Perceptron", "eta", eta, low=0, finite=True)
        self.threshold = number("Perceptron", "threshold", threshold, finite=True)
        self.weight = np.zeros(0)
        self.bias = 0.0

    def predict(self, x: ArrayLike) -> Array:
        """0 or 1 for each sample of `x`, shape (..., in)."""
        sums = fastnn.linear(np.asarray(x, np.float64), self.weight[np.newaxis], np.array([self.bias]))
        fires: Array = fastnn.step(sums[..., 0], threshold=self.threshold)
        return fires

    def fit(self, x: ArrayLike, target: ArrayLike, *, epochs: int = 100) -> list[int]:
        """Learn by the rule, sample by sample, until a whole epoch is without a mistake.

        Parameters
        ----------
        x : array_like, shape (n, in)
            Samples.
        target : array_like of 0 and 1, shape (n,)
            Their classes.
        epochs : int
            After how many passes over the samples to give up.

        Returns
        -------
        list of int
            Mistakes in each epoch; the last is 0 where the rule has converged.
        """
        samples, wanted = np.asarray(x, np.float64), np.asarray(target, np.float64)
        if samples.ndim != 2 or wanted.shape != samples.shape[:1]:
            given = f"has shape {wanted.shape}, x {samples.shape}"
            raise wrong(ValueError, "Perceptron.fit", "target", given, "(n,) and (n, in)")
        if not np.isin(wanted, (0, 1)).all():
            raise wrong(ValueError, "Perceptron.fit", "target", "has other classes", "0 and 1")
        self.weight, self.bias = np.zeros(samples.shape[1]), 0.0
        mistakes: list[int] = []
        while len(mistakes) < integer("Perceptron.fit", "epochs", epochs, low=1) and 0 not in mistakes:
            mistakes.append(sum(self._learn(*pair) for pair in zip(samples, wanted, strict=True)))
        return mistakes

    def _learn(self, x: Array, wanted: float) -> bool:
        """Apply the rule to one sample; whether it was a mistake."""
        error = float(wanted - self.predict(x))
        self.weight += self.eta * error * x
        self.bias += self.eta * error
        return error != 0

    def __repr__(self) -> str:
        return f"Perceptron(eta={self.eta:g}, threshold={self.threshold:g})"
