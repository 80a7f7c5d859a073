"""Networks: layers, losses and the perceptron, on the kernels behind the public names of fastnn."""

from fastnn.nn._layer import Layer
from fastnn.nn._parameters import Buffer, Parameter, Parameters
from fastnn.nn.activations import (
    ELU,
    GELU,
    SELU,
    Hardsigmoid,
    Hardtanh,
    LeakyReLU,
    LogSoftmax,
    Mish,
    ReLU,
    Sigmoid,
    Sign,
    SiLU,
    Softmax,
    Softplus,
    Softsign,
    Step,
    Tanh,
)
from fastnn.nn.affine import Conv2d, Linear
from fastnn.nn.dropout import Dropout
from fastnn.nn.files import load
from fastnn.nn.flatten import Flatten
from fastnn.nn.losses import BCELoss, BCEWithLogitsLoss, CrossEntropyLoss, HalfSquaredError, Loss, MSELoss
from fastnn.nn.norm import BatchNorm1d, BatchNorm2d, LayerNorm
from fastnn.nn.perceptron import Perceptron
from fastnn.nn.pooling import AvgPool2d, GlobalAvgPool2d, MaxPool2d
from fastnn.nn.recurrent import RNN, Last
from fastnn.nn.sequential import Sequential

__all__ = [
    "ELU",
    "GELU",
    "RNN",
    "SELU",
    "AvgPool2d",
    "BCELoss",
    "BCEWithLogitsLoss",
    "BatchNorm1d",
    "BatchNorm2d",
    "Buffer",
    "Conv2d",
    "CrossEntropyLoss",
    "Dropout",
    "Flatten",
    "GlobalAvgPool2d",
    "HalfSquaredError",
    "Hardsigmoid",
    "Hardtanh",
    "Last",
    "Layer",
    "LayerNorm",
    "LeakyReLU",
    "Linear",
    "LogSoftmax",
    "Loss",
    "MSELoss",
    "MaxPool2d",
    "Mish",
    "Parameter",
    "Parameters",
    "Perceptron",
    "ReLU",
    "Sequential",
    "SiLU",
    "Sigmoid",
    "Sign",
    "Softmax",
    "Softplus",
    "Softsign",
    "Step",
    "Tanh",
    "load",
]
