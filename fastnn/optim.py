"""Optimizers and schedules of the learning rate.

A step is one call of a kernel on the flat buffer that holds the parameters of a network, in PyTorch's conventions.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

import fastnn
from fastnn.nn import Parameter, Parameters
from fastnn_ext.checks import integer, number, wrong

Array = NDArray[Any]
#: What computes the gradients anew, for optimizers that look at more than one point.
Closure = Callable[[], object]
#: The learning rate of an epoch (or batch), counted from 0.
Schedule = Callable[[int], float]

__all__ = [
    "SGD",
    "Adagrad",
    "Adam",
    "AdamW",
    "Newton",
    "Optimizer",
    "RMSprop",
    "cosine_decay",
    "exponential_decay",
    "inverse_time_decay",
    "step_decay",
]


class Optimizer:
    """Changes parameters by their gradients.

    Attributes
    ----------
    lr : float
        Learning rate; may be set between steps.
    steps : int
        How many steps were taken.
    parameters : Parameters
        What it changes.
    """

    #: The name of the kernel that makes the step, and of the arrays of state that it wants, which begin at 0.
    kernel = ""
    states: tuple[str, ...] = ()

    def __init__(self, params: Iterable[Parameter], lr: float, **options: float) -> None:
        self.parameters = params if isinstance(params, Parameters) else Parameters(params)
        self.lr = self._number("lr", lr)
        self.steps = 0
        self._options: dict[str, Any] = {name: self._number(name, value) for name, value in options.items()}
        self._state = [
            {name: np.zeros_like(flat.data) for name in self.states} for flat in self.parameters.flats
        ]

    def step(self, closure: Closure | None = None) -> None:
        """Change the parameters by the gradients that `backward` has left.

        Parameters
        ----------
        closure : callable, optional
            Computes the gradients anew, from zero; only `Newton` needs it.

        Raises
        ------
        RuntimeError
            Where a network built later has taken the parameters into its own memory.
        """
        if self.parameters.have_moved:
            name = type(self).__name__
            raise RuntimeError(
                f"{name}: the parameters have moved into a network that was built after the optimizer"
            )
        self.steps += 1
        for flat, state in zip(self.parameters.flats, self._state, strict=True):
            self._update(flat.data, flat.grad, state)

    def _update(self, param: Array, grad: Array, state: dict[str, Array]) -> None:
        """One step on one buffer."""
        getattr(fastnn, self.kernel)(param, grad, **state, lr=self.lr, **self._options)

    def zero_grad(self) -> None:
        """Set all gradients to 0."""
        self.parameters.zero_grad()

    def state_dict(self) -> dict[str, Array]:
        """Copies of the state, the number of steps and the learning rate, as arrays by name."""
        arrays = {
            f"{i}.{name}": array.copy()
            for i, state in enumerate(self._state)
            for name, array in state.items()
        }
        return {"steps": np.array(self.steps), "lr": np.array(self.lr), **arrays}

    def load_state_dict(self, state: Mapping[str, ArrayLike]) -> None:
        """Take over what `state_dict` of the same optimizer returned; a ValueError changes nothing."""
        arrays = {name: np.asarray(value) for name, value in state.items()}
        own = self.state_dict()
        for name in own.keys() | arrays.keys():
            given = f"shape {arrays[name].shape}" if name in arrays else "nothing"
            expected = f"shape {own[name].shape}" if name in own else "nothing"
            if given != expected:
                raise wrong(ValueError, "load_state_dict", name, f"has {given}", expected)
        self.steps, self.lr = int(arrays["steps"]), float(arrays["lr"])
        for i, own_state in enumerate(self._state):
            for name, array in own_state.items():
                array[...] = arrays[f"{i}.{name}"]

    def _number(self, argument: str, value: float) -> float:
        return number(type(self).__name__, argument, value, low=0, finite=True)

    def __repr__(self) -> str:
        options = "".join(f", {name}={value!r}" for name, value in self._options.items())
        return f"{type(self).__name__}({self.parameters!r}, lr={self.lr:g}{options})"


class SGD(Optimizer):
    """Gradient descent, with momentum or without; see `fastnn.momentum_step`.

    Parameters
    ----------
    params : iterable of Parameter
        As from `model.parameters()`.
    lr : float
        Learning rate.
    momentum : float
        What is left of the velocity after a step; 0 is plain descent.
    nesterov : bool
        Whether the gradient counts as taken one step ahead.
    weight_decay : float
        Strength of the L2 penalty.
    """

    def __init__(
        self,
        params: Iterable[Parameter],
        lr: float,
        *,
        momentum: float = 0,
        nesterov: bool = False,
        weight_decay: float = 0,
    ) -> None:
        if nesterov and not momentum:
            raise wrong(ValueError, "SGD", "momentum", "is 0 with nesterov", "a positive momentum")
        if momentum:
            self.kernel, self.states = "momentum_step", ("velocity",)
            super().__init__(params, lr, momentum=momentum, weight_decay=weight_decay)
            self._options["nesterov"] = bool(nesterov)
        else:
            self.kernel = "sgd_step"
            super().__init__(params, lr, weight_decay=weight_decay)


class Adagrad(Optimizer):
    """Gradients divided by the root of the sum of their squares so far.

    Parameters
    ----------
    params : iterable of Parameter
        As from `model.parameters()`.
    lr, eps, weight_decay : float
        As in `fastnn.adagrad_step`.
    """

    kernel = "adagrad_step"
    states = ("square_sum",)

    def __init__(
        self, params: Iterable[Parameter], lr: float = 0.01, *, eps: float = 1e-10, weight_decay: float = 0
    ) -> None:
        super().__init__(params, lr, eps=eps, weight_decay=weight_decay)


class RMSprop(Optimizer):
    """Gradients divided by the root of the running average of their squares.

    Parameters
    ----------
    params : iterable of Parameter
        As from `model.parameters()`.
    lr, alpha, eps, weight_decay : float
        As in `fastnn.rmsprop_step`.
    """

    kernel = "rmsprop_step"
    states = ("square_avg",)

    def __init__(
        self,
        params: Iterable[Parameter],
        lr: float = 0.01,
        *,
        alpha: float = 0.99,
        eps: float = 1e-8,
        weight_decay: float = 0,
    ) -> None:
        super().__init__(params, lr, alpha=alpha, eps=eps, weight_decay=weight_decay)


class Adam(Optimizer):
    """Adam, or AMSGrad; see `fastnn.adam_step`.

    Parameters
    ----------
    params : iterable of Parameter
        As from `model.parameters()`.
    lr : float
        Learning rate.
    betas : pair of float
        What is left of the running averages of the gradients and of their squares after a step.
    eps : float
        Keeps the divisor from 0.
    weight_decay : float
        Strength of the L2 penalty.
    amsgrad : bool
        Whether the largest average of squares so far is divided by.
    """

    kernel = "adam_step"
    decoupled = False

    def __init__(
        self,
        params: Iterable[Parameter],
        lr: float = 1e-3,
        *,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0,
        amsgrad: bool = False,
    ) -> None:
        self.states = ("exp_avg", "exp_avg_sq", *(["max_exp_avg_sq"] if amsgrad else []))
        beta1, beta2 = betas
        super().__init__(params, lr, beta1=beta1, beta2=beta2, eps=eps, weight_decay=weight_decay)

    def _update(self, param: Array, grad: Array, state: dict[str, Array]) -> None:
        self._options |= {"step": self.steps, "decoupled": self.decoupled}
        super()._update(param, grad, state)


class AdamW(Adam):
    """Adam with decoupled weight decay: the parameters themselves shrink.

    Parameters
    ----------
    params, lr, betas, eps, amsgrad
        As in `Adam`.
    weight_decay : float
        By which share of lr parameters shrink in a step.
    """

    decoupled = True

    def __init__(
        self,
        params: Iterable[Parameter],
        lr: float = 1e-3,
        *,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.01,
        amsgrad: bool = False,
    ) -> None:
        super().__init__(params, lr, betas=betas, eps=eps, weight_decay=weight_decay, amsgrad=amsgrad)


class Newton(Optimizer):
    """Newton's method, W - lr (H + damping I)^-1 grad, for small networks of float64.

    The Hessian H comes from central differences of the gradient, so a step takes 2 n gradients and n^2 numbers for n
    parameters.

    Parameters
    ----------
    params : iterable of Parameter
        All of float64; in float32 the differences would have no digits left.
    lr : float
        1 is the full step.
    damping : float
        Added to the diagonal: more of it makes steps shorter and closer to gradient descent.
    """

    def __init__(self, params: Iterable[Parameter], lr: float = 1.0, *, damping: float = 0) -> None:
        super().__init__(params, lr, damping=damping)
        if [flat.data.dtype for flat in self.parameters.flats] != [np.float64]:
            given, expected = (
                "are not all float64 and of one network",
                "model.astype(np.float64).parameters()",
            )
            raise wrong(ValueError, "Newton", "params", given, expected)

    def step(self, closure: Closure | None = None) -> None:
        """A step; `closure` sets the gradients to those at the parameters as they are."""
        if closure is None:
            raise wrong(TypeError, "Newton.step", "closure", "is missing", "what computes the gradients anew")
        self._closure = closure
        super().step()

    def _update(self, param: Array, grad: Array, state: dict[str, Array]) -> None:
        hessian = np.array([self._row(param, grad, i) for i in range(param.size)])
        hessian = (hessian + hessian.T) / 2 + self._options["damping"] * np.eye(param.size)
        try:
            param -= self.lr * np.linalg.solve(hessian, self._gradient(grad))
        except np.linalg.LinAlgError:
            raise ValueError(
                "Newton: the Hessian is singular; expected one that damping makes regular"
            ) from None

    def _gradient(self, grad: Array) -> Array:
        """`grad`, made anew for the parameters as they are."""
        self._closure()
        for one in self.parameters:
            one.settle()
        return grad

    def _row(self, param: Array, grad: Array, i: int) -> Array:
        """The derivative of the gradient along parameter i."""
        middle = param[i]
        step = np.cbrt(np.finfo(np.float64).eps) * max(1.0, abs(middle))
        sides = []
        for param[i] in (middle + step, middle - step):
            sides.append(self._gradient(grad).copy())
        param[i] = middle
        row: Array = (sides[0] - sides[1]) / (2 * step)
        return row


def step_decay(lr: float, *, every: int, factor: float = 0.1) -> Schedule:
    """The schedule lr factor^floor(t / every)."""
    every = integer("step_decay", "every", every, low=1)
    return lambda t: lr * factor ** (t // every)


def exponential_decay(lr: float, *, factor: float) -> Schedule:
    """The schedule lr factor^t."""
    return lambda t: lr * factor**t


def cosine_decay(lr: float, *, length: int, lowest: float = 0.0) -> Schedule:
    """The schedule of half a cosine, from `lr` down to `lowest`, which it reaches at t = length and keeps.

    References
    ----------
    Loshchilov and Hutter, "SGDR: Stochastic Gradient Descent with Warm Restarts", ICLR 2017.
    """
    length = integer("cosine_decay", "length", length, low=1)
    return lambda t: lowest + (lr - lowest) * (1 + math.cos(math.pi * min(t, length) / length)) / 2


def inverse_time_decay(lr: float, *, decay: float) -> Schedule:
    """The schedule lr / (1 + decay t): with t in batches, the argument `decay` of Keras' first optimizers."""
    return lambda t: lr / (1 + decay * t)
