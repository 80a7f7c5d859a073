"""What every layer is: a forward and a backward step, parameters, and a description that it can be rebuilt from."""

from __future__ import annotations

import copy
import inspect
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from functools import cached_property
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from fastnn._described import signature_of
from fastnn.init import Initializer, RandomState
from fastnn.nn._parameters import Buffer, Parameter, Parameters, gather
from fastnn.nn._plan import Plan, Stage, stage
from fastnn.nn._scratch import Scratch
from fastnn_ext.checks import integer, wrong

Array = NDArray[Any]
Shape = tuple[int, ...]
FLOATS = (np.dtype(np.float32), np.dtype(np.float64))
#: How many names of parameters an error lists.
MOST_NAMES = 10


def floating(layer: str, dtype: DTypeLike) -> np.dtype[Any]:
    """`dtype` where it is one that layers compute in."""
    if np.dtype(dtype) not in FLOATS:
        raise wrong(ValueError, layer, "dtype", f"is {np.dtype(dtype)}", "float32 or float64")
    return np.dtype(dtype)


class Layer(ABC):
    """A step of a network.

    A subclass says what it does in `_forward`, `_backward` and `output_shape`. The arguments of its constructor are
    kept: they are its `config`, from which `repr`, copies and saved models are made.

    Attributes
    ----------
    training : bool
        Whether a call keeps what `backward` needs, and dropout drops; `train()` and `eval()` set it.
    layers : tuple of Layer
        The layers that it is made of, if any.
    """

    training = True
    layers: tuple[Layer, ...] = ()
    _saved: Any = None
    _shape: Shape | None = None
    _output_shape: Shape
    _scratch: Scratch
    _arguments: tuple[tuple[Any, ...], dict[str, Any]]
    _parameters: Parameters | None = None

    def __new__(cls, *args: Any, **kwargs: Any) -> Self:
        self = super().__new__(cls)
        self._arguments = args, kwargs
        self._scratch = Scratch()
        return self

    def __init__(self) -> None:
        super().__init__()  # no arguments, where a subclass has none

    @abstractmethod
    def _forward(self, x: Array, training: bool) -> Array:
        """The output for `x`; in training it may lie in a buffer that `backward` and the next step overwrite."""

    @abstractmethod
    def _backward(self, grad: Array, saved: Any, needs_grad_x: bool) -> Array | None:
        """Add to the gradients of parameters; the gradient of what `_forward` got, maybe in a buffer.

        Where it is not needed, which only layers with parameters are told, it may be None.
        """

    @abstractmethod
    def output_shape(self, shape: Shape) -> Shape:
        """The shape of the output for an input of `shape`; a ValueError where it does not fit."""

    def check_batch(self, shape: Shape) -> None:
        """A ValueError where a batch of `shape` does not fit, or is too small to train on."""
        self.output_shape(shape)

    def _out(self, x: Array, dtype: np.dtype[Any]) -> Array:
        """The buffer for the output for `x`."""
        if x.shape != self._shape:
            self._shape, self._output_shape = x.shape, self.output_shape(x.shape)
        return self._scratch("y", self._output_shape, dtype)

    def __call__(self, x: ArrayLike) -> Array:
        """The output for a batch, cast to the dtype of the parameters; the array is the caller's to keep."""
        y = self.forward(x, training=self.training)
        return y.copy() if self.training else y

    def forward(self, x: ArrayLike, *, training: bool) -> Array:
        """As a call does, but what it returns in training is overwritten by `backward` and the next step."""
        return self._forward(self._cast(x), training)

    def backward(self, grad: ArrayLike, *, needs_grad_x: bool = True) -> Array | None:
        """Go back through the last call.

        Parameters
        ----------
        grad : array_like
            Gradient of the loss with respect to the output.
        needs_grad_x : bool
            Whether the gradient with respect to the input is needed; training has no use for it.

        Returns
        -------
        ndarray or None
            The gradient with respect to the input. Gradients of parameters are added to their `grad`.

        Raises
        ------
        RuntimeError
            Where there was no call in training mode since the last `backward`.
        """
        grad_x = self._go_back(np.asanyarray(grad), needs_grad_x)
        return grad_x.copy() if grad_x is not None and needs_grad_x else None

    def _go_back(self, grad: Array, needs_grad_x: bool) -> Array | None:
        saved, self._saved = self._saved, None
        if saved is None:
            raise RuntimeError(
                f"{self}: backward has nothing to go back through; call it in training mode first"
            )
        return self._backward(grad, saved, needs_grad_x)

    def predict(self, x: ArrayLike, batch_size: int = 256) -> Array:
        """The outputs for all of `x` as in evaluation mode, computed batch by batch; safe in several threads."""
        x = np.asanyarray(x)
        starts = range(0, max(len(x), 1), integer("predict", "batch_size", batch_size, low=1))
        return np.concatenate([self.forward(x[i : i + batch_size], training=False) for i in starts])

    def plan(self, batch_size: int, sample_shape: Shape | None = None) -> Plan:
        """`predict` made ready for batches of a known size, for programs that have no time to lose.

        Weights are packed, buffers made, and each layer is one bound call of a kernel.

        Parameters
        ----------
        batch_size : int
            The most samples of a call.
        sample_shape : tuple of int, optional
            The shape of one sample; where it is left out, the first call settles it, and makes the buffers.

        Returns
        -------
        Plan
            To be called with an ndarray of up to `batch_size` samples in the dtype of the parameters. The result
            has the bits of `predict` and lies in a buffer of the plan, which its next call overwrites.

        Notes
        -----
        A plan has copies of the weights: it goes on computing with those it was made of, whatever becomes of the
        model's, and with the backend of then. One thread can use a plan at a time; several plans, also of one model,
        do not know of each other.
        """
        self.parameters()  # together, before the layers ask for theirs one by one
        return Plan(self, batch_size, sample_shape)

    def _stages(self) -> Iterator[Stage]:
        """What a plan makes of the layer as it is; by default one step that copies what `_forward` returns."""
        as_it_is = copy.deepcopy(self)

        def forward(x: Array, out: Array) -> None:
            np.copyto(out, as_it_is._forward(x, False))

        yield stage(forward, self.output_shape, self.dtype)

    def train(self, mode: bool = True) -> Self:
        """Enter training mode; returns the layer."""
        self.training = mode
        for layer in self.layers:
            layer.train(mode)
        return self

    def eval(self) -> Self:
        """Enter evaluation mode, in which nothing is kept for `backward`; returns the layer."""
        return self.train(False)

    def seed(self, random_state: RandomState) -> None:
        """Begin the random numbers of training (dropout) anew."""
        rng = np.random.default_rng(random_state)
        for layer in self.layers:
            layer.seed(rng)

    def initialize(self, initializer: Initializer | None = None, *, random_state: RandomState = None) -> Self:
        """Draw all weights anew, with `initializer` (see `fastnn.init`) or each layer's own.

        Biases are 0 again, the weights of normalisations 1, and their running statistics begin anew.
        """
        rng = np.random.default_rng(random_state)
        for parameter in self.parameters():
            if initializer is not None and parameter.has_fans:
                parameter.initializer = initializer
            parameter.initialize(rng)
        for _, buffer in self.named_buffers():
            buffer.reset()
        return self

    def named_parameters(self) -> Iterator[tuple[str, Parameter]]:
        """The parameters with the names that `state_dict` gives them."""
        return ((name, one) for name, one in self._named_state() if isinstance(one, Parameter))

    def named_buffers(self) -> Iterator[tuple[str, Buffer]]:
        """What training changes without learning it, with the names that `state_dict` gives it."""
        return ((name, one) for name, one in self._named_state() if isinstance(one, Buffer))

    def _named_state(self) -> Iterator[tuple[str, Parameter | Buffer]]:
        """Parameters and buffers in the order of `state_dict`."""
        yield from self._own_state()
        for i, layer in enumerate(self.layers):
            yield from ((f"{i}.{name}", one) for name, one in layer._named_state())

    def _own_state(self) -> Iterator[tuple[str, Parameter | Buffer]]:
        return ((name, one) for name, one in vars(self).items() if isinstance(one, (Parameter, Buffer)))

    def parameters(self) -> Parameters:
        """The parameters, in one flat buffer per dtype."""
        if self._parameters is None or self._parameters.have_moved:
            own = [one for _, one in self.named_parameters()]
            gather(own)
            self._parameters = Parameters(own)
        return self._parameters

    def state_dict(self) -> dict[str, Array]:
        """Copies of all parameters and buffers, by PyTorch's names and in its layouts."""
        self.parameters()
        return {name: one.data.copy() for name, one in self._named_state()}

    def load_state_dict(self, state: Mapping[str, ArrayLike]) -> None:
        """Take over parameters and buffers, cast to the dtypes there are; a ValueError changes nothing.

        Parameters
        ----------
        state : mapping of str to array_like
            As from `state_dict`, or PyTorch's own with its tensors on the CPU.

        Raises
        ------
        ValueError
            Where names are missing or unknown, or a shape differs.
        """
        arrays = {name: np.asarray(value) for name, value in state.items()}
        self.check_state({name: array.shape for name, array in arrays.items()})
        self._take(arrays)

    def check_state(self, shapes: Mapping[str, Shape]) -> None:
        """A ValueError where names and shapes are not those of the parameters and buffers."""
        expected = {name: one.shape for name, one in self._named_state()}
        for problem, names in (
            ("lacks", expected.keys() - shapes),
            ("has the unknown", shapes.keys() - expected),
        ):
            if names:
                raise ValueError(f"load_state_dict: state {problem} {_some(sorted(names))}")
        for name, shape in expected.items():
            if tuple(shapes[name]) != shape:
                raise wrong(
                    ValueError, "load_state_dict", name, f"has shape {tuple(shapes[name])}", f"{shape}"
                )

    def _take(self, arrays: Mapping[str, Array]) -> None:
        gather((one for _, one in self.named_parameters()), draw=False)
        for name, one in self._named_state():
            one.data[...] = arrays[name]

    @cached_property
    def dtype(self) -> np.dtype[Any] | None:
        """The dtype of the first parameter, or else buffer; None where there are none."""
        return next((one.dtype for _, one in self._named_state()), None)

    def astype(self, dtype: DTypeLike) -> Self:
        """A copy with parameters of another dtype."""
        new = self._with_dtype(np.dtype(dtype))
        new._take(self.state_dict())
        return new.train(self.training)

    def _with_dtype(self, dtype: np.dtype[Any]) -> Self:
        """A layer as this one was described, with that dtype and without values."""
        return type(self)(**(self.config | ({"dtype": dtype} if "dtype" in self.config else {})))

    def summary(self, input_shape: Shape | None = None) -> str:
        """A table of the layers, their output shapes for an input of `input_shape`, and their parameters."""
        rows = [("layer", "output", "parameters"), *self._rows(input_shape)]
        total = sum(one.size for _, one in self.named_parameters())
        rows.append(("total", "", f"{total:,}"))
        widths = [max(len(row[column]) for row in rows) for column in range(3)]
        lines = [f"{a:{widths[0]}}  {b:{widths[1]}}  {c:>{widths[2]}}".rstrip() for a, b, c in rows]
        return "\n".join(lines)

    def _rows(self, shape: Shape | None) -> Iterator[tuple[str, str, str]]:
        output = str(self.output_shape(shape)) if shape is not None else ""
        yield str(self), output, f"{sum(one.size for _, one in self.named_parameters()):,}"

    @cached_property
    def config(self) -> dict[str, Any]:
        """The arguments of the constructor by name, defaults filled in."""
        args, kwargs = self._arguments
        bound = self._signature().bind(*args, **kwargs)
        bound.apply_defaults()
        if "dtype" in bound.arguments:
            bound.arguments["dtype"] = np.dtype(bound.arguments["dtype"])
        return bound.arguments

    @classmethod
    def _signature(cls) -> inspect.Signature:
        """How the constructor is called."""
        return signature_of(cls)

    def __repr__(self) -> str:
        parameters = self._signature().parameters
        shown = []
        for name, value in self.config.items():
            if parameters[name].default is inspect.Parameter.empty:
                shown.append(repr(value))
            elif value != parameters[name].default:
                shown.append(f"{name}={np.dtype(value).name if name == 'dtype' else repr(value)}")
        return f"{type(self).__name__}({', '.join(shown)})"

    def __reduce__(self) -> tuple[Any, ...]:
        own = {name: one.data for name, one in self._own_state()}
        return _rebuilt, (type(self), self._arguments, own, self.training)

    def _cast(self, x: ArrayLike) -> Array:
        """`x` in the dtype of the parameters, where it is of numbers; kernels refuse what is not."""
        array = np.asanyarray(x)
        if array.dtype.kind not in "fiub":
            return array
        own = self.dtype or (array.dtype if array.dtype.kind == "f" else np.dtype(np.float64))
        return array.astype(own, copy=False)


def _some(names: list[str]) -> str:
    """The first names, and how many others there are."""
    others = len(names) - MOST_NAMES
    return ", ".join(names[:MOST_NAMES]) + (f" and {others:,} others" if others > 0 else "")


def _rebuilt(cls: type[Layer], arguments: Any, state: dict[str, Array], training: bool) -> Layer:
    """A layer as it was; what copies and pickles call."""
    args, kwargs = arguments
    layer = cls(*args, **kwargs)
    if state:
        layer.load_state_dict(state)
    return layer.train(training)
