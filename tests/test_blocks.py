"""Products and convolutions larger than every block that they are computed in: panels, bands, packed operands.

The grid of the parity tests stays small, so that it can be dense; here are a few sizes per path that are not.
"""

from functools import lru_cache

import pytest

from fastnn import KERNELS, testing

#: Rows, terms and columns: many of one, of two, of all three, and single rows.
PRODUCTS = (
    {"n": 700, "in": 1500, "out": 300},
    {"n": 130, "in": 1000, "out": 2100},
    {"n": 1025, "in": 333, "out": 77},
    {"n": 40, "in": 641, "out": 4500},
    {"n": 2000, "in": 2, "out": 9000},
    {"n": 5, "in": 5000, "out": 40},
    {"n": 1, "in": 5000, "out": 3000},
)
#: Many channels, large images, and images that are long and narrow.
CONVOLUTIONS = (
    {"n": 1, "c": 300, "h": 40, "w": 41, "k": 30, "r": 3, "s": 3, "padding": 2, "dilation": 2},
    {"n": 2, "c": 3, "h": 150, "w": 224, "k": 9, "r": 7, "s": 7, "padding": 3, "stride": 2},
    {"n": 1, "c": 40, "h": 400, "w": 9, "k": 33, "r": 3, "s": 3, "padding": 1},
    {"n": 2, "c": 130, "h": 30, "w": 31, "k": 257, "r": 1, "s": 1},
    {"n": 3, "c": 20, "h": 29, "w": 31, "k": 35, "r": 1, "s": 1, "groups": 3},
    {"n": 2, "c": 1, "h": 90, "w": 100, "k": 2, "r": 3, "s": 3, "padding": 1, "groups": 40},
)
LAYOUTS = ("NCHW", "NHWC")


@lru_cache(maxsize=1)
def large_cases(name, dtype):
    """The large cases of a kernel, kept while the backends take turns."""
    kernel = KERNELS[name]
    if kernel.family == "linear":
        return [testing.make_case(kernel, dtype, sizes=sizes) for sizes in PRODUCTS]
    cases = []
    for settings in CONVOLUTIONS:
        options = {name: value for name, value in settings.items() if name in testing.options_of(kernel)}
        sizes = {name: value for name, value in settings.items() if name not in options}
        cases += [
            testing.make_case(kernel, dtype, sizes=sizes, options={**options, "layout": layout})
            for layout in LAYOUTS
        ]
    return cases


@pytest.mark.kernels(having=lambda kernel: kernel.conditioned and kernel.family != "pooling")
def test_beyond_all_blocks(kernel, dtype, backend):
    for case in large_cases(kernel.name, dtype):
        testing.check_parity(backend.function(kernel), case)
