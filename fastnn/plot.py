"""Pictures of activations, training and networks, by matplotlib.

Each function draws on the `ax` (or `figure`) that it is given, or else on a new one that pyplot does not know of, and
returns it: `plot.history(history).figure.savefig("loss.png")`. Nothing is shown, and no setting of matplotlib changes.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import pairwise, zip_longest
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

import fastnn
from fastnn._contract import KERNELS
from fastnn.nn import Dropout, Flatten, Layer, Linear
from fastnn.nn._layer import Shape
from fastnn.nn.activations import Activation
from fastnn.nn.affine import Affine
from fastnn.nn.sequential import leaves
from fastnn.train import History
from fastnn_ext.checks import as_real, choice, number, wrong

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure, SubFigure
    from matplotlib.image import AxesImage

Array = NDArray[Any]

__all__ = [
    "activation",
    "decision_boundary",
    "feature_maps",
    "filters",
    "history",
    "layer_histograms",
    "network",
]

#: Up to how many units of a layer are drawn one by one.
MOST_UNITS = 16
#: At how many points a curve, and a side of a plane, is computed.
CURVE, SIDE = 1001, 300
BINS = 50


class Predictor(Protocol):
    """What has outputs for samples: a network, or a perceptron."""

    def predict(self, x: Any, /) -> Array:
        """The outputs for all of `x`."""


def activation(
    name: str, *, limits: tuple[float, float] = (-5.0, 5.0), ax: Axes | None = None, **options: Any
) -> Axes:
    """The curve of an activation, and that of its derivative.

    Parameters
    ----------
    name : str
        Of the kernel of an element-wise activation: "relu", "tanh", ...
    limits : (float, float)
        From where to where.
    ax : matplotlib.axes.Axes, optional
        Where to draw.
    **options
        Those of the kernel, such as `negative_slope`.
    """
    curves = [one.removesuffix("_derivative") for one in KERNELS if one.endswith("_derivative")]
    choice("plot.activation", "name", name, curves)
    low, high = _limits(limits)
    ax = _axes("activation", ax)
    x = np.linspace(low, high, CURVE)
    (line,) = ax.plot(x, getattr(fastnn, name)(x, **options), label=name)
    slope = getattr(fastnn, f"{name}_derivative")(x, **options)
    ax.plot(x, slope, "--", color=line.get_color(), label="its derivative")
    ax.set(xlabel="x", ylabel="f(x), f'(x)", title=name)
    ax.grid(alpha=0.3)
    ax.legend()
    return ax


def history(history: History, metric: str = "loss", *, ax: Axes | None = None) -> Axes:
    """A metric by epoch, in training and in validation.

    Parameters
    ----------
    history : History
        As from `train.fit`, of one epoch or more.
    metric : str
        "loss", "accuracy", "lr" or "seconds".
    ax : matplotlib.axes.Axes, optional
        Where to draw.
    """
    if not isinstance(history, History) or not len(history):
        given = f"is {history!r}" if not isinstance(history, History) else "has no epochs"
        raise wrong(ValueError, "plot.history", "history", given, "a History of one epoch or more")
    known = [name for name in history.epochs[0] if not name.startswith("val_")]
    choice("plot.history", "metric", metric, known)
    ax = _axes("history", ax)
    from matplotlib.ticker import MaxNLocator

    for name, label in ((metric, "training"), (f"val_{metric}", "validation")):
        if name in history.epochs[0]:
            ax.plot(range(1, len(history) + 1), history[name], ".-", label=label)
    ax.set(xlabel="epoch", ylabel=metric)
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.grid(alpha=0.3)
    ax.legend()
    return ax


def layer_histograms(
    model: Layer, x: ArrayLike, *, figure: Figure | SubFigure | None = None
) -> Figure | SubFigure:
    """How the outputs of each layer, after its activation, are distributed; the title has their spread.

    With weights that are too small the spread falls from layer to layer, with too large ones units saturate: outputs
    lie at the ends, where gradients vanish.

    Parameters
    ----------
    model : Layer
        With weights or activations.
    x : array_like
        Samples.
    figure : matplotlib.figure.Figure or SubFigure, optional
        An empty one to draw on, one panel for each layer.
    """
    outputs = [
        (_name(group), y)
        for group, y in _outputs("layer_histograms", model, x)
        if any(layer.dtype is not None or isinstance(layer, Activation) for layer in group)
    ]
    if not outputs:
        raise wrong(
            ValueError, "plot.layer_histograms", "model", f"is {model}", "layers with weights or activations"
        )
    for name, y in outputs:
        if not (y.size and np.isfinite(y).all()):
            given = "is empty" if not y.size else f"makes outputs of {name} that are no numbers"
            raise wrong(ValueError, "plot.layer_histograms", "x", given, "samples with finite outputs")
    figure = _figure("layer_histograms", figure, (1.9 * len(outputs) + 0.5, 2.2))
    low, high = float(min(y.min() for _, y in outputs)), float(max(y.max() for _, y in outputs))
    bins = np.linspace(low, high if high > low else low + 1, BINS + 1)
    panels = figure.subplots(1, len(outputs), sharex=True, sharey=True, squeeze=False)[0]
    for i, (ax, (name, y)) in enumerate(zip(panels, outputs, strict=True), 1):
        ax.hist(y.ravel(), bins, weights=np.full(y.size, 1 / y.size))
        ax.set_title(f"{i}. {name}\nspread {y.std():.3g}", fontsize="small")
        ax.tick_params(labelsize="small")
    figure.supxlabel("output of a unit", fontsize="small")
    figure.supylabel("share", fontsize="small")
    return figure


def decision_boundary(
    model: Predictor, x: ArrayLike, y: ArrayLike, *, boundary: float = 0.5, ax: Axes | None = None
) -> Axes:
    """Samples in the plane, and the classes that a model gives to the points around them.

    Parameters
    ----------
    model : Layer or Perceptron
        With two inputs. Of several outputs the largest names the class; a single one means class 1 from `boundary` on.
    x : array_like, shape (n, 2)
        Samples.
    y : array_like
        Their labels from 0, or one-hot rows.
    boundary : float
        0.5 for probabilities, 0 for logits.
    ax : matplotlib.axes.Axes, optional
        Where to draw.
    """
    function = "plot.decision_boundary"
    if not hasattr(model, "predict"):
        raise wrong(TypeError, function, "model", f"is {model!r}", "a model with predict")
    points = _finite("decision_boundary", "x", x)
    if points.ndim != 2 or points.shape[1] != 2 or not len(points):
        raise wrong(ValueError, function, "x", f"has shape {points.shape}", "(n, 2), n not 0")
    labels = _labels(function, as_real(function, "y", y), len(points))
    boundary = number(function, "boundary", boundary, finite=True)
    ax = _axes("decision_boundary", ax)
    margin = 0.1 * np.ptp(points, axis=0) + 1e-9
    (left, bottom), (right, top) = points.min(axis=0) - margin, points.max(axis=0) + margin
    plane = np.stack(
        np.meshgrid(np.linspace(left, right, SIDE), np.linspace(bottom, top, SIDE)), axis=-1
    ).reshape(-1, 2)
    outputs = np.asarray(model.predict(plane)).reshape(len(plane), -1)
    regions = outputs.argmax(axis=1) if outputs.shape[1] > 1 else (outputs[:, 0] >= boundary).astype(int)
    ax.imshow(
        _colours(regions).reshape(SIDE, SIDE, 3),
        extent=(left, right, bottom, top),
        origin="lower",
        aspect="auto",
        alpha=0.3,
    )
    for label in np.unique(labels):
        x1, x2 = points[labels == label].T
        ax.scatter(
            x1, x2, s=14, color=_colours(label), edgecolors="white", linewidths=0.4, label=f"class {label}"
        )
    ax.set(xlabel="x1", ylabel="x2")
    ax.legend()
    return ax


def filters(weight: Affine | ArrayLike, *, ax: Axes | None = None) -> Axes:
    """The weights of filters as images, those of a convolution with several input channels one row for each filter.

    Parameters
    ----------
    weight : Conv2d or array_like, shape (out, in, height, width) or (out, height, width)
        A layer, or weights: those of a dense layer on images can be given that shape.
    ax : matplotlib.axes.Axes, optional
        Where to draw.
    """
    array = _finite("filters", "weight", weight.weight.data if isinstance(weight, Affine) else weight)
    if array.ndim not in (3, 4) or not array.size:
        expected = "(out, in, height, width) or (out, height, width)"
        raise wrong(ValueError, "plot.filters", "weight", f"has shape {array.shape}", expected)
    array = array.astype(np.float64).reshape(len(array), -1, *array.shape[-2:])
    count, channels, height, width = array.shape
    ax = _axes("filters", ax)
    columns = channels if channels > 1 else math.ceil(math.sqrt(count))
    most = np.abs(array).max() or 1.0
    tiles = array.reshape(-1, height, width)
    image = _tiles(ax, tiles, columns, "black", cmap="RdBu_r", vmin=-most, vmax=most)
    if channels > 1:
        ax.set(xlabel="input channel", ylabel="filter")
        ax.set_xticks(*_numbered(channels, width))
        ax.set_yticks(*_numbered(count, height))
    else:
        ax.set_xlabel(f"{count} filters of {height}x{width}")
    ax.figure.colorbar(image, ax=ax, label="weight")
    return ax


def feature_maps(
    model: Layer, x: ArrayLike, *, figure: Figure | SubFigure | None = None
) -> Figure | SubFigure:
    """What the layers of a network make of one image: the maps of each layer, after its activation.

    Parameters
    ----------
    model : Layer
        Of images, at first.
    x : array_like, shape (channels, height, width)
        One image.
    figure : matplotlib.figure.Figure or SubFigure, optional
        An empty one to draw on, one panel for each layer.
    """
    image = _finite("feature_maps", "x", x)
    if image.ndim != 3 or not image.size:
        raise wrong(
            ValueError, "plot.feature_maps", "x", f"has shape {image.shape}", "(channels, height, width)"
        )
    panels = [("input", image)] + [
        (_name(group), y[0])
        for group, y in _outputs("feature_maps", model, image[np.newaxis])
        if y.ndim == 4 and y.size
    ]
    if len(panels) == 1:
        raise wrong(ValueError, "plot.feature_maps", "model", f"is {model}", "layers that make images")
    figure = _figure("feature_maps", figure, (1.9 * len(panels), 2.4))
    for ax, (name, maps) in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels, strict=True):
        _tiles(ax, maps.astype(np.float64), math.ceil(math.sqrt(len(maps))), "white", cmap="viridis")
        ax.set_title(name, fontsize="small")
        ax.set_xlabel(" x ".join(map(str, maps.shape)), fontsize="small")
    return figure


def network(model: Layer, *, input_shape: Shape | None = None, ax: Axes | None = None) -> Axes:
    """A network: units and connections where it is dense and small, otherwise its layers as boxes.

    Parameters
    ----------
    model : Layer
        Connections are drawn the wider, the larger the weight is.
    input_shape : tuple of int, optional
        As in `model.summary`: boxes then have the shapes of outputs.
    ax : matplotlib.axes.Axes, optional
        Where to draw.
    """
    layers = list(leaves(model)) if isinstance(model, Layer) else []
    if not layers:
        raise wrong(ValueError, "plot.network", "model", f"is {model!r}", "a network with layers")
    if input_shape is not None:
        model.output_shape(input_shape)  # an error names the layer
    dense = [layer for layer in layers if isinstance(layer, Linear)]
    is_dense = bool(dense) and all(isinstance(layer, Linear | Activation | Dropout) for layer in layers)
    if is_dense and max(max(layer.weight.shape) for layer in dense) <= MOST_UNITS:
        model.output_shape((1, dense[0].in_features))
        return _units(layers, dense, _axes("network", ax))
    return _boxes(layers, input_shape, _axes("network", ax, (5.0, 0.62 * len(layers) + 0.7)))


def _limits(limits: tuple[float, float]) -> tuple[float, float]:
    if np.shape(limits) != (2,):
        raise wrong(ValueError, "plot.activation", "limits", f"is {limits!r}", "(low, high)")
    low, high = (number("plot.activation", "limits", limit, finite=True) for limit in limits)
    if not low < high:
        raise wrong(ValueError, "plot.activation", "limits", f"is {limits}", "the lower one first")
    return low, high


def _finite(function: str, argument: str, value: Any) -> Array:
    """`value` as an array of numbers."""
    array = as_real(f"plot.{function}", argument, value)
    if not np.isfinite(array).all():
        raise wrong(ValueError, f"plot.{function}", argument, "has infinities or NaNs", "numbers")
    return array


def _units(layers: list[Layer], dense: list[Linear], ax: Axes) -> Axes:
    """Columns of units, with the weights between them."""
    from matplotlib.collections import LineCollection

    sizes = [dense[0].in_features, *(layer.out_features for layer in dense)]
    columns = [[(i, j - (size - 1) / 2) for j in reversed(range(size))] for i, size in enumerate(sizes)]
    ends = [(a, b) for before, after in pairwise(columns) for b in after for a in before]
    weights = _finite("network", "model", np.concatenate([layer.weight.data.ravel() for layer in dense]))
    scale = min(1.0, 8 / max(sizes))
    widths = 3 * scale * np.abs(weights) / (np.abs(weights).max() or 1.0)
    for sign, colour, label in ((1, "C0", "weight > 0"), (-1, "C3", "weight < 0")):
        here = np.flatnonzero(np.sign(weights) == sign)
        if len(here):
            lines = LineCollection(
                [ends[i] for i in here], linewidths=widths[here], colors=colour, label=label, zorder=1
            )
            ax.add_collection(lines)
    for column, caption in zip(columns, _captions(layers), strict=True):
        x, y = zip(*column, strict=True)
        ax.scatter(x, y, s=260 * scale**2, color="white", edgecolors="black", zorder=2)
        ax.text(x[0], -max(sizes) / 2 - 0.15, caption, ha="center", va="top")
    ax.set_xlim(-0.5, len(sizes) - 0.5)
    ax.set_ylim(-max(sizes) / 2 - 0.3 - 0.12 * max(sizes), max(sizes) / 2 + 0.1)
    ax.axis("off")
    if weights.any():
        legend = ax.legend(loc="lower center", bbox_to_anchor=(0.5, 1), ncols=2, frameon=False)
        for line in legend.get_lines():
            line.set_linewidth(2)
    return ax


def _captions(layers: list[Layer]) -> list[str]:
    """What stands below the columns of units: the activation, and how many they are."""
    captions: list[list[str]] = [["input"]]
    sizes: list[int] = []
    for layer in layers:
        if isinstance(layer, Linear):
            sizes += [layer.out_features] if sizes else [layer.in_features, layer.out_features]
            captions.append([layer.activation] if layer.activation else [])
        elif isinstance(layer, Activation):
            captions[-1].append(layer.kernel)
    return [f"{', '.join(names) or 'linear'}\n{size}" for names, size in zip(captions, sizes, strict=True)]


def _boxes(layers: list[Layer], shape: Shape | None, ax: Axes) -> Axes:
    """Layers below each other, each with its output and parameters."""
    rows = [f"input\n{_size(shape)}" if shape else "input"]
    for layer in layers:
        numbers = sum(one.size for _, one in layer.named_parameters())
        shape = layer.output_shape(shape) if shape else None
        facts = [_size(shape)] if shape else []
        facts += [f"{numbers:,} parameters"] if numbers else []
        rows.append("\n".join(filter(None, (str(layer), "; ".join(facts)))))
    above = None
    for i, row in enumerate(rows):
        colour = "lightsteelblue" if row.endswith("parameters") else "whitesmoke"
        box = {"boxstyle": "round,pad=0.4", "facecolor": colour}
        text = ax.text(0, -i, row, ha="center", va="center", fontsize="small", bbox=box)
        here = text.get_bbox_patch()
        if above:
            ends = {"patchA": above, "patchB": here, "shrinkA": 0, "shrinkB": 0}
            ax.annotate("", (0, -i), (0, 1 - i), arrowprops={"arrowstyle": "->", **ends})
        above = here
    ax.set(xlim=(-1, 1), ylim=(0.5 - len(rows), 0.5))
    ax.axis("off")
    return ax


def _size(shape: Shape) -> str:
    """The shape of one sample."""
    return " x ".join(map(str, shape[1:]))


def _outputs(function: str, model: Layer, x: ArrayLike) -> Iterator[tuple[list[Layer], Array]]:
    """The layers of a model with what they make of `x`, an activation together with the layer before it.

    Those that only reshape, or drop nothing in evaluation, are left out.
    """
    if not isinstance(model, Layer):
        raise wrong(TypeError, f"plot.{function}", "model", f"is {model!r}", "a network of fastnn.nn")
    y = as_real(f"plot.{function}", "x", x)
    model.output_shape(y.shape)  # an error names the layer
    group: list[Layer] = []
    network = list(leaves(model))
    for layer, following in zip_longest(network, network[1:]):
        y = layer.forward(y, training=False)
        group += [] if isinstance(layer, Dropout | Flatten) else [layer]
        if group and not isinstance(following, Activation):
            yield group, y
            group = []


def _name(group: list[Layer]) -> str:
    names = []
    for layer in group:
        names += [type(layer).__name__, layer.config.get("activation")]
    return ", ".join(filter(None, names))


def _labels(function: str, y: Array, count: int) -> Array:
    """Labels as integers, from labels, one column of them, or one-hot rows."""
    if y.ndim == 2:
        y = y.argmax(axis=1) if y.shape[1] > 1 else y.reshape(-1)
    if y.shape != (count,) or not (np.isfinite(y).all() and (y == y.astype(np.intp)).all() and y.min() >= 0):
        given = f"has shape {y.shape}" if y.shape != (count,) else "has other numbers"
        raise wrong(ValueError, function, "y", given, f"{count} labels from 0, or one-hot rows")
    return y.astype(np.intp)


def _colours(labels: Array) -> Array:
    """The colours of classes, red, green and blue from 0 to 1, which begin anew after the tenth."""
    from matplotlib import colormaps

    colours: Array = colormaps["tab10"](np.atleast_1d(labels) % 10)[:, :3]
    return colours


def _tiles(ax: Axes, images: Array, columns: int, border: str, **options: Any) -> AxesImage:
    """Draw images [n, height, width] beside and below each other, with borders and without ticks."""
    count, height, width = images.shape
    rows = -(-count // columns)
    tiles = np.full((rows * columns, height, width), np.nan)
    tiles[:count] = images
    mosaic = (
        tiles.reshape(rows, columns, height, width).swapaxes(1, 2).reshape(rows * height, columns * width)
    )
    image = ax.imshow(mosaic, interpolation="nearest", **options)
    ax.set_xticks([])
    ax.set_yticks([])
    ax.set_xticks(width * np.arange(1, columns) - 0.5, minor=True)
    ax.set_yticks(height * np.arange(1, rows) - 0.5, minor=True)
    ax.grid(which="minor", color=border, linewidth=1)
    ax.tick_params(which="minor", length=0, pad=0)
    return image


def _numbered(count: int, size: int) -> tuple[Array, list[str]]:
    """Places of ticks along `count` tiles, not more than nine, and their numbers."""
    shown = range(0, count, -(-count // 9))
    return (np.array(shown) + 0.5) * size - 0.5, [str(one) for one in shown]


def _axes(function: str, ax: Axes | None, size: tuple[float, float] = (6.0, 4.0)) -> Axes:
    """The caller's axes, or those of a new figure."""
    _need_matplotlib(function)
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    if ax is None:
        return Figure(size, layout="compressed").add_subplot()
    if not isinstance(ax, Axes):
        raise wrong(TypeError, f"plot.{function}", "ax", f"is {ax!r}", "an Axes of matplotlib")
    return ax


def _figure(
    function: str, figure: Figure | SubFigure | None, size: tuple[float, float]
) -> Figure | SubFigure:
    """The caller's figure, or a new one."""
    _need_matplotlib(function)
    from matplotlib.figure import Figure, SubFigure

    if figure is None:
        return Figure(size, layout="compressed")
    if not isinstance(figure, Figure | SubFigure):
        expected = "a Figure or SubFigure of matplotlib"
        raise wrong(TypeError, f"plot.{function}", "figure", f"is {figure!r}", expected)
    return figure


def _need_matplotlib(function: str) -> None:
    try:
        import matplotlib.figure  # noqa: F401
    except ImportError as error:
        raise ImportError(
            f"plot.{function}: pictures are made by matplotlib; pip install 'fastnn-kernels[plot]'"
        ) from error
