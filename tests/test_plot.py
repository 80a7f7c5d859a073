"""Pictures: what is drawn is what was computed, on the axes that were given, and nothing else is touched."""

import sys
from itertools import pairwise

import matplotlib
import numpy as np
import pytest
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from processes import answer

import fastnn
from fastnn import init, nn, plot, train
from fastnn._contract import KERNELS

RNG = np.random.default_rng(0)
POINTS = RNG.normal(size=(40, 2))
LABELS = (POINTS[:, 0] > 0).astype(int)
CURVES = [name.removesuffix("_derivative") for name in KERNELS if name.endswith("_derivative")]


def dense(*sizes, **options):
    layers = [nn.Linear(i, o, **options) for i, o in pairwise(sizes)]
    return nn.Sequential(*layers).initialize(random_state=0)


def convolutional():
    layers = (
        nn.Conv2d(1, 4, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Dropout(),
        nn.Linear(64, 10),
    )
    return nn.Sequential(*layers).initialize(random_state=0)


def trained(epochs=3, **metrics):
    return train.History([{"loss": 1 / (n + 1), "accuracy": 0.1 * n, **metrics} for n in range(epochs)])


def drawn(artist):
    """The figure of what was returned, which must come out as a picture."""
    figure = artist if hasattr(artist, "subfigures") else artist.figure
    figure.draw_without_rendering()
    return figure


def texts(ax):
    return [text.get_text() for text in ax.texts if text.get_text()]


#: Each function with what it may be given.
CALLS = {
    "activation": lambda **on: plot.activation("tanh", **on),
    "history": lambda **on: plot.history(trained(), **on),
    "decision_boundary": lambda **on: plot.decision_boundary(dense(2, 3), POINTS, LABELS, **on),
    "filters": lambda **on: plot.filters(nn.Conv2d(2, 3, 3), **on),
    "network": lambda **on: plot.network(dense(2, 3, 1), **on),
    "layer_histograms": lambda **on: plot.layer_histograms(dense(2, 3, 1), POINTS, **on),
    "feature_maps": lambda **on: plot.feature_maps(nn.Conv2d(1, 2, 3), np.ones((1, 5, 5)), **on),
}
OF_SEVERAL = ("layer_histograms", "feature_maps")


def test_every_function_is_called_here():
    assert sorted(CALLS) == plot.__all__ == sorted(plot.__all__)


@pytest.mark.parametrize("name", CALLS)
def test_the_given_axes_are_drawn_on_and_returned(name, tmp_path):
    settings = dict(matplotlib.rcParams)
    figure = Figure()
    on = {"figure": figure.subfigures(1, 2)[0]} if name in OF_SEVERAL else {"ax": figure.add_subplot()}
    assert [CALLS[name](**on)] == list(on.values())
    drawn(figure)
    new = CALLS[name]()
    drawn(new).savefig(tmp_path / "picture.png")
    assert (tmp_path / "picture.png").stat().st_size > 1000
    assert dict(matplotlib.rcParams) == settings


@pytest.mark.parametrize("name", CALLS)
def test_what_is_not_of_matplotlib_is_refused(name):
    argument = "figure" if name in OF_SEVERAL else "ax"
    with pytest.raises(TypeError, match=rf"plot\.{name}: {argument} is 3; expected"):
        CALLS[name](**{argument: 3})


@pytest.mark.parametrize("name", CALLS)
def test_a_missing_package_is_named(name, monkeypatch):
    for module in ("matplotlib", "matplotlib.figure"):
        monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ImportError, match=rf"plot\.{name}: .* pip install 'fastnn-kernels\[plot\]'"):
        CALLS[name]()


def test_matplotlib_is_imported_by_pictures_only_and_pyplot_never():
    loaded = "[name in sys.modules for name in ('matplotlib', 'matplotlib.pyplot')]"
    code = f"import json, sys; from fastnn import *; before = {loaded}; plot.activation('relu')"
    assert answer(f"{code}; print(json.dumps([before, {loaded}]))") == [[False, False], [True, False]]


@pytest.mark.parametrize("name", CURVES)
def test_an_activation_and_its_derivative(name):
    ax = plot.activation(name, limits=(-2, 3))
    curve, slope = ax.lines
    x = np.linspace(-2, 3, len(curve.get_xdata()))
    np.testing.assert_array_equal(curve.get_xdata(), x)
    np.testing.assert_array_equal(curve.get_ydata(), getattr(fastnn, name)(x))
    np.testing.assert_array_equal(slope.get_ydata(), getattr(fastnn, f"{name}_derivative")(x))
    assert [text.get_text() for text in ax.get_legend().get_texts()] == [name, "its derivative"]
    assert (ax.get_xlabel(), ax.get_title()) == ("x", name)


def test_options_of_an_activation():
    curve, slope = plot.activation("leaky_relu", negative_slope=0.5).lines
    assert curve.get_ydata()[0] == -2.5
    assert slope.get_ydata()[0] == 0.5


@pytest.mark.parametrize(
    ("name", "limits", "message"),
    [
        ("softmax", (-1, 1), "plot.activation: name is 'softmax'; expected one of 'step', 'sign', 'relu'"),
        (None, (-1, 1), "plot.activation: name is None"),
        ("relu", (1, 1), r"plot.activation: limits is \(1, 1\); expected the lower one first"),
        ("relu", (0, np.inf), "plot.activation: limits is inf"),
        ("relu", 3, r"plot.activation: limits is 3; expected \(low, high\)"),
    ],
)
def test_activations_that_have_no_curve(name, limits, message):
    with pytest.raises(ValueError, match=message):
        plot.activation(name, limits=limits)


def test_a_history_of_training_and_validation():
    ax = plot.history(trained(val_loss=2.0))
    training, validation = ax.lines
    np.testing.assert_array_equal(training.get_xdata(), [1, 2, 3])
    np.testing.assert_array_equal(training.get_ydata(), [1, 1 / 2, 1 / 3])
    np.testing.assert_array_equal(validation.get_ydata(), [2, 2, 2])
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["training", "validation"]
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("epoch", "loss")
    (line,) = plot.history(trained(1), "accuracy").lines
    assert line.get_ydata() == [0]


def test_histories_that_have_nothing_to_show():
    for nothing, given in ((train.History(), "has no epochs"), ([1, 2], r"is \[1, 2\]")):
        with pytest.raises(
            ValueError, match=f"plot.history: history {given}; expected a History of one epoch"
        ):
            plot.history(nothing)
    with pytest.raises(ValueError, match="metric is 'val_loss'; expected one of 'loss', 'accuracy'"):
        plot.history(trained(val_loss=1), "val_loss")


def test_histograms_have_a_panel_for_each_layer_and_its_activation():
    model = nn.Sequential(
        nn.Linear(4, 6, activation="tanh"),
        nn.Dropout(),
        nn.Sequential(nn.Linear(6, 5), nn.ReLU()),
        nn.Linear(5, 2),
    ).initialize(init.normal(1), random_state=0)
    x = RNG.normal(size=(1000, 4))
    figure = plot.layer_histograms(model, x)
    outputs = [model[0].predict(x)]
    outputs += [model[2].predict(outputs[0]), model.predict(x)]
    names = ["1. Linear, tanh", "2. Linear, ReLU", "3. Linear"]
    for ax, name, y in zip(figure.axes, names, outputs, strict=True):
        assert ax.get_title() == f"{name}\nspread {y.std():.3g}"
        assert sum(bar.get_height() for bar in ax.patches) == pytest.approx(1)
    assert figure.get_supxlabel() == "output of a unit"
    drawn(plot.layer_histograms(nn.ReLU(), -np.ones((3, 2))))  # all the same


def test_histograms_of_other_layers_with_weights():
    model = nn.Sequential(nn.RNN(3, 5), nn.Last(), nn.Linear(5, 4), nn.BatchNorm1d(4), nn.ReLU())
    figure = plot.layer_histograms(model.initialize(random_state=0), RNG.normal(size=(7, 6, 3)))
    names = [ax.get_title().partition("\n")[0] for ax in figure.axes]
    assert names == ["1. RNN", "2. Linear", "3. BatchNorm1d, ReLU"]
    assert texts(plot.network(model))[1].startswith("RNN(3, 5)\n")


@pytest.mark.parametrize(
    ("model", "x", "error", "message"),
    [
        (3, POINTS, TypeError, "model is 3; expected a network"),
        (nn.Flatten(), POINTS, ValueError, r"model is Flatten\(\); expected layers with weights"),
        (dense(3, 2), POINTS, ValueError, r"layer 0, Linear\(3, 2\): input has shape"),
        (dense(2, 2), POINTS[:0], ValueError, "x is empty"),
        (dense(2, 2), np.nan * POINTS, ValueError, "x makes outputs of Linear that are no numbers"),
        (dense(2, 2), [["a"]], TypeError, "x has dtype"),
    ],
)
def test_histograms_that_cannot_be(model, x, error, message):
    with pytest.raises(error, match=message):
        plot.layer_histograms(model, x)


class Above:
    """A model that knows the answer: class 1 where x1 > 0, with a probability or two."""

    def __init__(self, outputs):
        self.outputs = outputs

    def predict(self, x):
        fires = (x[:, 0] > 0).astype(float)
        return {0: fires, 1: fires[:, np.newaxis], 2: np.stack([1 - fires, fires], axis=1)}[self.outputs]


@pytest.mark.parametrize("outputs", [0, 1, 2])
def test_regions_are_those_of_the_model(outputs):
    ax = plot.decision_boundary(Above(outputs), POINTS, LABELS)
    (image,) = ax.images
    left, right, bottom, top = image.get_extent()
    assert left < POINTS[:, 0].min() < POINTS[:, 0].max() < right
    assert bottom < POINTS[:, 1].min() < POINTS[:, 1].max() < top
    pixels = image.get_array()
    x1 = np.linspace(left, right, pixels.shape[1])
    blue, orange = (matplotlib.colors.to_rgb(f"tab:{name}") for name in ("blue", "orange"))
    expected = np.where((x1 > 0)[:, np.newaxis], orange, blue)
    np.testing.assert_allclose(pixels, np.broadcast_to(expected, pixels.shape))
    below, above = ax.collections
    np.testing.assert_array_equal(below.get_offsets(), POINTS[LABELS == 0])
    np.testing.assert_array_equal(above.get_offsets(), POINTS[LABELS == 1])
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["class 0", "class 1"]


def test_targets_may_be_one_hot_and_models_perceptrons():
    perceptron = nn.Perceptron()
    perceptron.fit(POINTS, LABELS)
    for y in (LABELS.astype(float), LABELS[:, np.newaxis], np.eye(2)[LABELS]):
        assert len(plot.decision_boundary(perceptron, POINTS, y).collections) == 2
    logits = dense(2, 1)
    regions = [
        plot.decision_boundary(logits, POINTS, LABELS, boundary=b).images[0].get_array() for b in (0, 1e9)
    ]
    assert np.ptp(regions[0][..., 0]) > 0
    assert np.ptp(regions[1][..., 0]) == 0
    drawn(plot.decision_boundary(logits, POINTS[:1], [11]))  # the eleventh class has the colour of the first


@pytest.mark.parametrize(
    ("x", "y", "error", "message"),
    [
        (POINTS[:, :1], LABELS, ValueError, r"x has shape \(40, 1\); expected \(n, 2\)"),
        (POINTS[:0], LABELS[:0], ValueError, r"x has shape \(0, 2\)"),
        (np.inf * POINTS, LABELS, ValueError, "x has infinities or NaNs"),
        (POINTS, LABELS[1:], ValueError, r"y has shape \(39,\); expected 40 labels"),
        (POINTS, LABELS - 1, ValueError, "y has other numbers; expected 40 labels from 0"),
        (POINTS, LABELS / 2, ValueError, "y has other numbers"),
        (POINTS, np.full(40, np.nan), ValueError, "y has other numbers"),
        (POINTS, ["a"] * 40, TypeError, "y has dtype"),
    ],
)
def test_samples_that_are_not_in_the_plane(x, y, error, message):
    with pytest.raises(error, match=f"plot.decision_boundary: {message}"):
        plot.decision_boundary(Above(1), x, y)


def test_a_model_has_predictions():
    with pytest.raises(
        TypeError, match=r"plot\.decision_boundary: model is 3; expected a model with predict"
    ):
        plot.decision_boundary(3, POINTS, LABELS)


def test_filters_of_several_channels_are_rows():
    layer = nn.Conv2d(2, 3, (2, 4))
    ax = plot.filters(layer)
    weight, image = layer.weight.data, ax.images[0]
    np.testing.assert_allclose(
        image.get_array(), np.hstack([np.vstack(weight[:, 0]), np.vstack(weight[:, 1])])
    )
    assert -image.norm.vmin == image.norm.vmax == np.abs(weight).max()
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("input channel", "filter")
    assert [label.get_text() for label in ax.get_yticklabels()] == ["0", "1", "2"]
    np.testing.assert_array_equal(ax.get_yticks(), [0.5, 2.5, 4.5])


def test_filters_of_one_channel_fill_a_square():
    weight = np.arange(45.0).reshape(5, 3, 3)
    for given in (weight, weight[:, np.newaxis]):
        ax = plot.filters(given)
        pixels = ax.images[0].get_array()
        assert pixels.shape == (6, 9)
        np.testing.assert_array_equal(pixels[3:, :3], weight[3])
        assert np.ma.getmaskarray(np.ma.masked_invalid(pixels))[3:, 6:].all()  # no sixth
        assert ax.get_xlabel() == "5 filters of 3x3"
    drawn(plot.filters(np.zeros((1, 1, 1))))


@pytest.mark.parametrize("weight", [np.ones(3), np.ones((2, 2)), np.ones((0, 2, 2)), nn.Linear(2, 3)])
def test_what_is_no_filter(weight):
    with pytest.raises(ValueError, match=r"plot\.filters: weight has shape"):
        plot.filters(weight)


def test_weights_that_are_no_numbers():
    layer = nn.Linear(2, 2)
    layer.weight.data[0, 0] = np.nan
    with pytest.raises(ValueError, match=r"plot\.network: model has infinities or NaNs; expected numbers"):
        plot.network(layer)
    with pytest.raises(ValueError, match=r"plot\.filters: weight has infinities or NaNs"):
        plot.filters(np.full((1, 2, 2), np.inf))


def test_feature_maps_of_each_layer():
    model = convolutional()
    x = RNG.normal(size=(1, 8, 8)).astype(np.float32)
    figure = plot.feature_maps(model, x)
    names = ["input", "Conv2d, ReLU", "MaxPool2d"]
    shapes = ["1 x 8 x 8", "4 x 8 x 8", "4 x 4 x 4"]
    assert [ax.get_title() for ax in figure.axes] == names
    assert [ax.get_xlabel() for ax in figure.axes] == shapes
    maps = nn.Sequential(*model[:2]).predict(x[np.newaxis])[0]
    expected = np.vstack([np.hstack(maps[:2]), np.hstack(maps[2:])])
    np.testing.assert_allclose(figure.axes[1].images[0].get_array(), expected, rtol=1e-6)


@pytest.mark.parametrize(
    ("model", "x", "error", "message"),
    [
        (
            convolutional(),
            np.ones((8, 8)),
            ValueError,
            r"x has shape \(8, 8\); expected \(channels, height, width\)",
        ),
        (convolutional(), np.ones((2, 8, 8)), ValueError, r"layer 0, Conv2d"),
        (
            nn.Flatten(),
            np.ones((1, 2, 2)),
            ValueError,
            r"model is Flatten\(\); expected layers that make images",
        ),
        ("model", np.ones((1, 2, 2)), TypeError, "model is 'model'; expected a network"),
    ],
)
def test_images_that_do_not_fit(model, x, error, message):
    with pytest.raises(error, match=message):
        plot.feature_maps(model, x)


def test_a_small_network_is_units_and_connections():
    model = nn.Sequential(nn.Linear(3, 4, activation="tanh"), nn.Dropout(), nn.Linear(4, 2), nn.Softmax())
    model.load_state_dict(
        {**model.state_dict(), "0.weight": np.full((4, 3), 2), "2.weight": np.full((2, 4), -1)}
    )
    ax = plot.network(model)
    positive, negative = (one for one in ax.collections if isinstance(one, LineCollection))
    assert (len(positive.get_segments()), len(negative.get_segments())) == (12, 8)
    assert set(positive.get_linewidths()) == {3}
    assert set(negative.get_linewidths()) == {1.5}
    units = [one for one in ax.collections if not isinstance(one, LineCollection)]
    assert [len(one.get_offsets()) for one in units] == [3, 4, 2]
    assert texts(ax) == ["input\n3", "tanh\n4", "softmax\n2"]
    ends = {tuple(map(tuple, segment)) for segment in positive.get_segments()}
    first, second = (list(map(tuple, one.get_offsets().tolist())) for one in units[:2])
    assert ends == {(a, b) for a in first for b in second}


def test_a_connection_without_weight_is_not_drawn():
    layer = nn.Linear(2, 1)
    layer.load_state_dict({"weight": [[0, -3]], "bias": [0]})
    ax = plot.network(layer)
    (line,) = (one for one in ax.collections if isinstance(one, LineCollection))
    ((_, y), _) = line.get_segments()[0]
    assert y == -0.5  # the second input is the lower one
    layer.load_state_dict({"weight": [[0, 0]], "bias": [0]})
    assert plot.network(layer).get_legend() is None


def test_other_networks_are_boxes():
    boxes = texts(plot.network(convolutional(), input_shape=(1, 1, 8, 8)))
    assert boxes[0] == "input\n1 x 8 x 8"
    assert boxes[1] == "Conv2d(1, 4, 3, padding=1)\n4 x 8 x 8; 40 parameters"
    assert boxes[-1] == "Linear(64, 10)\n10; 650 parameters"
    assert texts(plot.network(dense(36, 36, 2))) == [
        "input",
        "Linear(36, 36)\n1,332 parameters",
        "Linear(36, 2)\n74 parameters",
    ]
    assert texts(plot.network(nn.ReLU())) == ["input", "ReLU()"]


@pytest.mark.parametrize("model", [nn.Sequential(), "model", None])
def test_no_network(model):
    with pytest.raises(ValueError, match=r"plot\.network: model is .*; expected a network with layers"):
        plot.network(model)


def test_an_input_that_does_not_fit_the_network():
    with pytest.raises(ValueError, match="layer 0, Conv2d"):
        plot.network(convolutional(), input_shape=(1, 2, 8, 8))
    with pytest.raises(ValueError, match=r"layer 1, Linear\(5, 1\): input has shape \(1, 4\)"):
        plot.network(nn.Sequential(nn.Linear(3, 4), nn.Linear(5, 1)))
