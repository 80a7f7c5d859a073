"""Every derivative, backward and with_grad kernel agrees with central differences of its forward kernel."""

import pytest
from backends import gradient_cases_of

from fastnn import testing
from fastnn._contract import KERNELS


@pytest.mark.kernels(having=lambda kernel: kernel.forward is not None)
def test_gradient(kernel, backend, tally):
    function = backend.function(kernel)
    for case in gradient_cases_of(kernel.name):
        testing.check_gradient(function, case)
        tally["gradients"] += 1


@pytest.mark.kernels(having=lambda kernel: kernel.name.endswith(("_derivative", "_backward", "_with_grad")))
def test_a_name_says_what_it_differentiates(kernel):
    name, _, suffix = kernel.name.rpartition("_with_grad" if kernel.name.endswith("_with_grad") else "_")
    declared = {
        "derivative": kernel.derivative_of,
        "backward": kernel.backward_of,
        "": kernel.with_grad_of,
    }
    assert declared[suffix] == name
    assert name in KERNELS
