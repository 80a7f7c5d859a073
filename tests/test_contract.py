"""The contract is whole: versions have the definition's signature, and the definition says all there is."""

import inspect
import re

import numpy as np
import pytest

import fastnn
from fastnn import _contract, testing


def parameters_of(function):
    return [(p.name, p.kind, p.default) for p in inspect.signature(function).parameters.values()]


def test_there_are_kernels():
    assert _contract.KERNELS


def test_every_version_has_the_signature(kernel, backend):
    assert parameters_of(backend.function(kernel)) == parameters_of(kernel.definition)


def test_everything_behind_the_arrays_is_keyword_only(kernel):
    for parameter in kernel.signature.parameters.values():
        is_option = parameter.name == "out" or parameter.name in testing.options_of(kernel)
        if is_option and parameter.default is not parameter.empty:
            assert parameter.kind is parameter.KEYWORD_ONLY, parameter.name


def test_every_option_is_tried_with_its_default_first(kernel):
    tried = testing.options_of(kernel)
    for name, parameter in kernel.signature.parameters.items():
        if name in testing.make_case(kernel).arguments or name == "out":
            continue
        assert name in tried, f"no case has another value of {name} than its default"
        if parameter.default is not parameter.empty:
            assert tried[name][0] == parameter.default
            assert len(tried[name]) > 1, f"only one value of {name} is tried"


def test_the_example_fills_the_signature(kernel):
    case = testing.make_case(kernel, np.float32)
    kernel.signature.bind(**case.arguments, **case.options)
    assert all(case.arguments[name].dtype == np.float32 for name in case.floats)


def test_the_docstring_says_everything(kernel):
    doc = inspect.getdoc(kernel.definition) or ""
    summary = doc.partition("\n\n")[0]
    assert summary.endswith("."), "the first paragraph is a sentence"
    for section in ("Parameters", "Raises", *(() if kernel.updates else ("Returns",))):
        if section != "Raises" or kernel.forward is None:
            assert re.search(rf"^{section}\n-{{{len(section)}}}$", doc, re.M), f"no section {section}"
    described = re.findall(r"^(\w+(?:, \w+)*)(?: : .+)?$", section_of(doc, "Parameters"), re.M)
    names = [name for line in described for name in line.split(", ")]
    assert names == list(kernel.signature.parameters)


def section_of(doc, title):
    match = re.search(rf"^{title}\n-+\n(.*?)(?=^\w[\w ]*\n-+$|\Z)", doc, re.M | re.S)
    return match[1] if match else ""


def test_the_docstring_is_on_every_bound_version(kernel):
    for name in fastnn.available_backends():
        function = getattr(fastnn.backend(name), kernel.name)
        assert function.__doc__ == kernel.definition.__doc__
        assert function.__name__ == kernel.name


def test_the_name_is_public(kernel):
    assert kernel.name in fastnn.__all__
    assert callable(getattr(fastnn, kernel.name))


def test_promises_make_sense(kernel):
    assert kernel.ulp >= 0
    assert kernel.floor >= 0
    assert set(kernel.updates) <= set(kernel.signature.parameters)
    assert kernel.forward is None or kernel.forward.example is not None
    assert [kernel.derivative_of, kernel.backward_of, kernel.with_grad_of].count(None) >= 2


@pytest.mark.kernels(having=lambda kernel: not kernel.updates)
def test_workloads_can_be_made(kernel):
    """The smallest of them, at least; and no symbol of a workload is unknown to the example."""
    known = testing.make_case(kernel).sizes
    described = testing.workloads(kernel)
    assert described, "nothing to benchmark"
    for settings in described.values():
        assert set(settings["sizes"]) <= set(known)
    testing.make_case(kernel, np.float32, **next(iter(described.values())))


def test_a_kernel_is_filed_once():
    def relu(x, *, out=None): ...

    with pytest.raises(ValueError, match="defined twice"):
        _contract.kernel()(relu)


def test_keyword_arguments_that_do_not_exist_are_refused(kernel, backend):
    case = testing.make_case(kernel)
    with pytest.raises(TypeError):
        backend.function(kernel)(**case.fresh(), **case.options, no_such_option=1)
