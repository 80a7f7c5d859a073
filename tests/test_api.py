"""What networks are called with: names, order and defaults of arguments, which programs of others rely on."""

import inspect

import numpy as np
import pytest

import fastnn
from fastnn import data, init, nn, optim, plot, train

NORM = "num_features, *, eps=1e-05, momentum=0.1, affine=True, dtype=float32"
POOL = "kernel_size, stride=None, padding=0"
SIGNATURES = {
    nn.Sequential: "*layers",
    nn.Linear: "in_features, out_features, *, bias=True, activation=None, dtype=float32",
    nn.Conv2d: (
        "in_channels, out_channels, kernel_size, *, stride=1, padding=0, dilation=1, groups=1, bias=True,"
        " activation=None, dtype=float32"
    ),
    nn.MaxPool2d: POOL,
    nn.AvgPool2d: POOL,
    nn.GlobalAvgPool2d: "",
    nn.Flatten: "",
    nn.Dropout: "p=0.5",
    nn.BatchNorm1d: NORM,
    nn.BatchNorm2d: NORM,
    nn.LayerNorm: "normalized_shape, *, eps=1e-05, elementwise_affine=True, bias=True, dtype=float32",
    nn.RNN: (
        "input_size, hidden_size, num_layers=1, nonlinearity='tanh', *, bias=True, batch_first=True,"
        " dtype=float32"
    ),
    nn.Last: "",
    nn.CrossEntropyLoss: "*, reduction='mean', ignore_index=None, label_smoothing=0",
    **dict.fromkeys(
        (nn.MSELoss, nn.HalfSquaredError, nn.BCELoss, nn.BCEWithLogitsLoss), "*, reduction='mean'"
    ),
    nn.Loss.__call__: "output, target",
    nn.Loss.value_and_grad: "output, target",
    nn.Perceptron: "*, eta=1.0, threshold=0.0",
    nn.load: "path",
    nn.Sequential.save: "path",
    nn.Sequential.__call__: "x",
    nn.Sequential.backward: "grad, *, needs_grad_x=True",
    nn.Sequential.predict: "x, batch_size=256",
    nn.Sequential.plan: "batch_size, sample_shape=None",
    nn.Sequential.astype: "dtype",
    nn.Sequential.summary: "input_shape=None",
    nn.Sequential.initialize: "initializer=None, *, random_state=None",
    nn.Sequential.train: "mode=True",
    **dict.fromkeys((nn.Sequential.eval, nn.Sequential.parameters, nn.Sequential.state_dict), ""),
    nn.Sequential.load_state_dict: "state",
    optim.SGD: "params, lr, *, momentum=0, nesterov=False, weight_decay=0",
    optim.Adagrad: "params, lr=0.01, *, eps=1e-10, weight_decay=0",
    optim.RMSprop: "params, lr=0.01, *, alpha=0.99, eps=1e-08, weight_decay=0",
    optim.Adam: "params, lr=0.001, *, betas=(0.9, 0.999), eps=1e-08, weight_decay=0, amsgrad=False",
    optim.AdamW: "params, lr=0.001, *, betas=(0.9, 0.999), eps=1e-08, weight_decay=0.01, amsgrad=False",
    optim.Newton: "params, lr=1.0, *, damping=0",
    optim.Optimizer.step: "closure=None",
    optim.Optimizer.zero_grad: "",
    optim.Optimizer.state_dict: "",
    optim.step_decay: "lr, *, every, factor=0.1",
    optim.exponential_decay: "lr, *, factor",
    optim.cosine_decay: "lr, *, length, lowest=0.0",
    optim.inverse_time_decay: "lr, *, decay",
    init.normal: "std=1.0",
    **dict.fromkeys(
        (init.xavier_normal, init.xavier_uniform, init.he_normal, init.he_uniform, init.zeros),
        "shape, random_state=None",
    ),
    train.fit: (
        "model, x, y, *, loss, optimizer, epochs, batch_size=32, validation_data=None, shuffle=True,"
        " random_state=None, callbacks=(), progress=True"
    ),
    train.evaluate: "model, x, y, *, loss, batch_size=256",
    train.EarlyStopping: "monitor=None, *, patience=5, min_delta=0, restore_best=True",
    train.ModelCheckpoint: "path, monitor=None, *, best_only=True",
    train.LearningRateSchedule: "schedule, *, per='epoch'",
    data.load_digits: "",
    data.load_idx: "path",
    data.load_mnist: "folder",
    data.batches: "x, y, *, batch_size=32, shuffle=False, random_state=None",
    data.one_hot: "labels, classes=None, *, dtype=float32",
    plot.activation: "name, *, limits=(-5.0, 5.0), ax=None, **options",
    plot.history: "history, metric='loss', *, ax=None",
    plot.layer_histograms: "model, x, *, figure=None",
    plot.decision_boundary: "model, x, y, *, boundary=0.5, ax=None",
    plot.filters: "weight, *, ax=None",
    plot.feature_maps: "model, x, *, figure=None",
    plot.network: "model, *, input_shape=None, ax=None",
    fastnn.trace: "model, x, target, *, loss, learning_rate",
}


def written(function):
    """The arguments as a call is documented, without `self` and types."""
    arguments = inspect.signature(function.__init__ if isinstance(function, type) else function).parameters
    plain = [
        one.replace(
            annotation=one.empty,
            default=np.dtype(np.float32) if one.default is np.float32 else one.default,
        )
        for name, one in arguments.items()
        if name != "self"
    ]
    return str(inspect.Signature(plain))[1:-1].replace("dtype('float32')", "float32")


@pytest.mark.parametrize(
    "function", SIGNATURES, ids=lambda function: f"{function.__module__}.{function.__qualname__}"
)
def test_signatures(function):
    assert written(function) == SIGNATURES[function]


def test_an_activation_is_a_layer_with_the_options_of_its_kernel():
    for name, layer in vars(nn).items():
        if isinstance(layer, type) and issubclass(layer, nn.Layer) and getattr(layer, "kernel", None):
            if layer.kernel in ("linear", "conv2d"):
                continue
            options = inspect.signature(getattr(fastnn.backend("numpy"), layer.kernel)).parameters
            own = layer().config
            assert own.keys() <= options.keys(), name
            assert all(options[option].default == value for option, value in own.items()), name
