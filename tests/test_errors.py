"""Bad arguments are refused by every backend with the same class of error, and before anything is written."""

import contextlib

import numpy as np
import pytest
from backends import small_cases_of

from fastnn import testing
from fastnn._contract import KERNELS


def test_errors(kernel, dtype, backend, tally):
    case = small_cases_of(kernel.name, dtype)[0]
    testing.check_errors(backend.function(kernel), case)
    tally["errors"] += sum(1 for _ in testing.bad_calls(case))


@pytest.mark.kernels(having=lambda kernel: len(testing.make_case(kernel).arrays) > 1)
def test_every_array_has_to_fit_the_others(kernel):
    """The definition does not broadcast: one longer axis of any argument is an error."""
    case = testing.make_case(kernel)
    for name in case.arrays:
        calls = [bad for bad in testing.bad_calls(case) if bad.what.startswith(f"{name} longer")]
        refused = 0
        for bad in calls:
            with contextlib.suppress(ValueError):
                testing.call(kernel.definition, kernel, bad.arguments, bad.options)
                continue
            refused += 1
        assert refused or not calls, name


def zeros(*shape, dtype=np.float32):
    return np.zeros(shape, dtype)


IMAGE, KERNEL = zeros(1, 4, 5, 6), zeros(6, 4, 3, 3)
#: Arrays of no elements, whose shapes multiply to more than any memory has.
TALL, WIDE = zeros(2**40, 0), zeros(2**41, 0)


@pytest.mark.parametrize(
    ("name", "arguments", "options", "argument"),
    [
        # The window and the image.
        ("conv2d", (zeros(1, 4, 2, 6), KERNEL), {}, "weight"),
        ("conv2d", (IMAGE, zeros(6, 4, 3, 9)), {"padding": 1}, "weight"),
        ("conv2d", (IMAGE, KERNEL), {"dilation": (1, 3)}, "weight"),
        ("conv2d", (IMAGE, zeros(6, 4, 0, 3)), {}, "weight"),
        ("max_pool2d", (IMAGE, 6), {}, "kernel_size"),
        ("avg_pool2d", (IMAGE, (5, 7)), {}, "kernel_size"),
        ("max_pool2d", (IMAGE, 0), {}, "kernel_size"),
        ("max_pool2d", (IMAGE, 2), {"padding": 2}, "padding"),
        ("avg_pool2d", (IMAGE, 3), {"padding": ((0, 2), (0, 0))}, "padding"),
        # Steps of the window.
        ("conv2d", (IMAGE, KERNEL), {"stride": 0}, "stride"),
        ("conv2d", (IMAGE, KERNEL), {"stride": (1, -1)}, "stride"),
        ("conv2d", (IMAGE, KERNEL), {"dilation": 0}, "dilation"),
        ("conv2d", (IMAGE, KERNEL), {"padding": -1}, "padding"),
        ("conv2d", (IMAGE, KERNEL), {"padding": "full"}, "padding"),
        ("conv2d", (IMAGE, KERNEL), {"layout": "CHWN"}, "layout"),
        ("max_pool2d", (IMAGE, 2), {"stride": 0}, "stride"),
        ("avg_pool2d", (IMAGE, 2), {"stride": -2}, "stride"),
        # Channels.
        ("conv2d", (IMAGE, KERNEL), {"groups": 0}, "groups"),
        ("conv2d", (IMAGE, KERNEL), {"groups": 3}, "groups"),
        ("conv2d", (IMAGE, zeros(6, 3, 3, 3)), {}, "weight"),
        ("conv2d", (IMAGE, zeros(5, 2, 3, 3)), {"groups": 2}, "groups"),
        # Sizes whose product is no size.
        ("linear", (TALL, WIDE), {}, "out"),
        ("conv2d", (zeros(1, 1, 1, 1), zeros(1, 1, 1, 1)), {"padding": 2**31 - 1}, "out"),
        ("conv2d", (zeros(2**40, 0, 1, 1), zeros(2**40, 0, 1, 1)), {}, "out"),
        (
            "max_pool2d_backward",
            (zeros(1, 1, 1, 1), zeros(1, 1, 1, 1, dtype=int), (1, 1, 2**40, 2**40)),
            {},
            None,
        ),
        ("avg_pool2d_backward", (zeros(1, 1, 1, 1), (1, 1, 2**40, 2**40), 2), {}, None),
        # Others.
        ("softmax", (zeros(3, 4),), {"axis": 2}, "axis"),
        ("log_softmax", (zeros(3, 4),), {"axis": -3}, "axis"),
        ("softmax", (zeros(),), {}, None),
        ("cross_entropy", (zeros(3, 4), np.zeros(3, int)), {"label_smoothing": 1.5}, "label_smoothing"),
        ("cross_entropy", (zeros(3, 0), np.zeros(3, int)), {}, "logits"),
        ("cross_entropy", (zeros(3, 4), zeros(3, 4)), {"ignore_index": 1}, "ignore_index"),
        ("output_delta", (zeros(3), zeros(3)), {"loss": "cross_entropy"}, "activation"),
        ("adam_step", (zeros(3),) * 4, {"step": 0, "lr": 0.1}, "step"),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)
def test_refused_with_a_value_error(backend, name, arguments, options, argument):
    named = argument or "|".join(KERNELS[name].signature.parameters)
    fresh = [np.copy(value) if isinstance(value, np.ndarray) else value for value in arguments]
    with pytest.raises(ValueError, match=rf"^{name}: ({named})\b.*; expected ") as raised:
        getattr(backend, name)(*fresh, **options)
    assert type(raised.value) is ValueError
