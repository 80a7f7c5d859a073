"""Products, convolutions and pools larger than every block that they are computed in: panels, bands, packed operands.

The grid of the parity tests stays small, so that it can be dense; here are a few sizes per path that are not.
"""

from functools import lru_cache

import numpy as np
import pytest

import fastnn
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
    {"n": 2, "c": 1, "h": 57, "w": 56, "k": 1, "r": 3, "s": 3, "padding": 1, "groups": 12},
    {"n": 3, "c": 1, "h": 9, "w": 7, "k": 1, "r": 5, "s": 5, "padding": 2, "groups": 20},
    {"n": 1, "c": 1, "h": 130, "w": 121, "k": 1, "r": 3, "s": 3, "padding": 1, "stride": 2, "groups": 9},
    {"n": 1, "c": 1, "h": 30, "w": 600, "k": 1, "r": 5, "s": 5, "padding": 4, "dilation": 2, "groups": 8},
    {"n": 2, "c": 1, "h": 21, "w": 33, "k": 1, "r": 3, "s": 3, "groups": 10},
    {"n": 1, "c": 1, "h": 40, "w": 37, "k": 1, "r": 7, "s": 7, "padding": 3, "groups": 8},
    {"n": 40, "c": 1, "h": 15, "w": 13, "k": 1, "r": 3, "s": 3, "padding": 1, "stride": 2, "groups": 37},
    {"n": 3, "c": 1, "h": 19, "w": 30, "k": 1, "r": 9, "s": 4, "padding": 2, "stride": (1, 2), "groups": 17},
    {"n": 2, "c": 1, "h": 9, "w": 7, "k": 1, "r": 6, "s": 2, "padding": 3, "groups": 33},
    {"n": 2, "c": 1, "h": 16, "w": 19, "k": 1, "r": 3, "s": 5, "stride": 3, "dilation": (2, 1), "groups": 18},
)
#: Convolutions that are products of patches: several blocks of images with few pixels, patches that do not meet, deep
#: ones with a stride, large kernels for few channels, and taps that are outside of the image, or all of them.
PATCHES = (
    {"n": 300, "c": 20, "h": 8, "w": 8, "k": 70, "r": 7, "s": 7},
    {"n": 3, "c": 3, "h": 37, "w": 42, "k": 40, "r": 4, "s": 4, "stride": (4, 5)},
    {"n": 5, "c": 64, "h": 28, "w": 27, "k": 130, "r": 3, "s": 3, "padding": 1, "stride": 2},
    {"n": 9, "c": 4, "h": 11, "w": 13, "k": 130, "r": 5, "s": 5, "padding": 1},
    {"n": 2, "c": 8, "h": 14, "w": 14, "k": 70, "r": 7, "s": 7, "dilation": 2},
    {"n": 2, "c": 5, "h": 3, "w": 2, "k": 65, "r": 3, "s": 3, "padding": 4, "stride": 3},
)
#: Enough 3 x 3 kernels over enough channels to be computed in tiles of 4 x 4 pixels: several blocks of tiles, cut tiles
#: at each edge, several blocks of kernels, channels and kernels beyond whole vectors, sums in two halves, and the
#: paddings around those that tiles are computed with.
TILED = (
    {"n": 5, "c": 37, "h": 29, "w": 31, "k": 45, "r": 3, "s": 3, "padding": 1},
    {"n": 1, "c": 64, "h": 9, "w": 600, "k": 40, "r": 3, "s": 3, "padding": "same"},
    {"n": 6, "c": 330, "h": 14, "w": 15, "k": 170, "r": 3, "s": 3, "padding": ((1, 0), (0, 1))},
    {"n": 40, "c": 20, "h": 8, "w": 7, "k": 33, "r": 3, "s": 3, "padding": 1},
    {"n": 2, "c": 50, "h": 21, "w": 34, "k": 70, "r": 3, "s": 3},
    {"n": 2, "c": 50, "h": 21, "w": 34, "k": 70, "r": 3, "s": 3, "padding": 2},
    {"n": 1, "c": 64, "h": 1, "w": 300, "k": 64, "r": 3, "s": 3, "padding": 1},
    {"n": 1, "c": 64, "h": 14, "w": 14, "k": 70, "r": 3, "s": 3, "padding": 1},
    {"n": 8, "c": 100, "h": 7, "w": 7, "k": 64, "r": 3, "s": 3, "padding": 1},
)
#: Windows in vectors of every length, with edges and without, and windows that are too large for that.
POOLS = (
    {"n": 2, "c": 3, "h": 20, "w": 70, "kernel_size": 2, "return_indices": True},
    {"n": 2, "c": 5, "h": 9, "w": 13, "kernel_size": 2, "return_indices": True},
    {"n": 1, "c": 2, "h": 31, "w": 75, "kernel_size": 3, "stride": 2, "padding": 1, "return_indices": True},
    {"n": 1, "c": 2, "h": 12, "w": 43, "kernel_size": 3, "stride": 1, "padding": 1, "return_indices": True},
    {"n": 1, "c": 2, "h": 12, "w": 43, "kernel_size": (3, 2), "stride": (2, 1), "ceil_mode": True},
    {"n": 1, "c": 2, "h": 40, "w": 1100, "kernel_size": 5, "stride": 3, "padding": 2},
)
#: Steps of more rows, units and inputs than a block of a product has, and of one row.
SEQUENCES = ({"t": 3, "n": 70, "in": 400, "h": 330}, {"t": 40, "n": 1, "in": 70, "h": 90})
LAYOUTS = ("NCHW", "NHWC")


@lru_cache(maxsize=1)
def large_cases(name, dtype):
    """The large cases of a kernel, kept while the backends take turns."""
    kernel = KERNELS[name]
    if kernel.family == "linear":
        return [testing.make_case(kernel, dtype, sizes=sizes) for sizes in PRODUCTS]
    if kernel.family == "recurrent":
        return [testing.make_case(kernel, dtype, sizes=sizes) for sizes in SEQUENCES]
    cases = []
    for settings in POOLS if kernel.family == "pooling" else CONVOLUTIONS + PATCHES + TILED:
        options = {name: value for name, value in settings.items() if name in testing.options_of(kernel)}
        sizes = {name: value for name, value in settings.items() if name not in options}
        cases += [
            testing.make_case(kernel, dtype, sizes=sizes, options={**options, "layout": layout})
            for layout in LAYOUTS
        ]
    return cases


@pytest.mark.kernels(having=lambda kernel: kernel.conditioned or kernel.family == "pooling")
def test_beyond_all_blocks(kernel, dtype, backend):
    for case in large_cases(kernel.name, dtype):
        testing.check_parity(backend.function(kernel), case)


def _tiled(layout, dtype):
    """x, weight and bias of a convolution that is computed in tiles."""
    rng = np.random.default_rng(0)
    x, weight = (rng.uniform(-1, 1, shape).astype(dtype) for shape in ((3, 30, 33, 32), (40, 3, 3, 32)))
    if layout == "NCHW":
        x, weight = (np.ascontiguousarray(array.transpose(0, 3, 1, 2)) for array in (x, weight))
    return x, weight, rng.uniform(-1, 1, 40).astype(dtype)


def _channel(array, layout):
    """A view of the image's or the kernel's first channel."""
    return array[..., 0] if layout == "NHWC" else array[:, 0]


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_what_is_not_finite_stays_where_it_belongs(backend, dtype, layout, value):
    """A pixel is in the results of its own windows alone, also where others are computed together with them."""
    x, weight, bias = _tiled(layout, dtype)
    g = backend.conv2d(x, weight, padding=1, layout=layout)
    numpy = fastnn.backend("numpy")
    with np.errstate(all="ignore"):
        for at in ((0, 0, 0), (1, 14, 17), (2, 29, 32)):
            _channel(x, layout)[at] = _channel(g, layout)[at] = value
            result, expected = (
                (
                    one.conv2d(x, weight, bias, padding=1, layout=layout, activation="relu"),
                    *one.conv2d_backward(g, x, weight, padding=1, layout=layout),
                )
                for one in (backend, numpy)
            )
            for array, right in zip(result, expected, strict=True):
                np.testing.assert_allclose(array, right, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("value", [0.5, np.nan, np.inf])
def test_every_second_pixel_of_lines_of_any_length(backend, dtype, value):
    """Depthwise with a stride of 2: lines begin and end with parts of vectors, and have nothing of the next one."""
    rng = np.random.default_rng(0)
    numpy = fastnn.backend("numpy")
    options = {"stride": 2, "padding": 1, "groups": 8}
    weight, bias = rng.uniform(-1, 1, (8, 1, 3, 3)).astype(dtype), rng.uniform(-1, 1, 8).astype(dtype)
    for width in range(6, 70):
        clean = rng.uniform(-1, 1, (2, 8, 8 + width % 2, width)).astype(dtype)
        clean_g = rng.uniform(-1, 1, (2, 8, (9 + width % 2) // 2, (width + 1) // 2)).astype(dtype)
        x, g = clean.copy(), clean_g.copy()
        x[0, :, 3, 0] = x[1, :, 4, -1] = g[0, :, -1, -1] = g[1, :, 1, 0] = value
        with np.errstate(all="ignore"):
            result, expected = (
                (
                    one.conv2d(x, weight, bias, **options),
                    *one.conv2d_backward(clean_g, x, weight, **options),
                    *one.conv2d_backward(g, clean, weight, **options),
                )
                for one in (backend, numpy)
            )
        for array, right in zip(result, expected, strict=True):
            np.testing.assert_allclose(array, right, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_numbers_that_would_overflow_if_they_were_mixed(backend, dtype, layout):
    x, weight, _ = _tiled(layout, dtype)
    columns = np.where(np.arange(33) // 2 % 2, -1, 1) * (np.finfo(dtype).max / 2)
    x[...] = columns[:, np.newaxis] if layout == "NHWC" else columns
    weight[...] = 0
    _channel(weight, layout)[:, 1, 1] = 1
    y = backend.conv2d(x, weight, padding=1, layout=layout)
    np.testing.assert_array_equal(_channel(y, layout), _channel(x, layout))


@pytest.mark.kernels(having=lambda kernel: kernel.name in ("relu", "relu_backward"))
def test_results_that_are_larger_than_caches(kernel, dtype, backend):
    count = 2**22 + 12345
    rng = np.random.default_rng(0)
    arrays = [rng.standard_normal(count).astype(dtype) for _ in range(1 + kernel.name.endswith("backward"))]
    function = backend.function(kernel)
    memory = np.zeros(count + 3, dtype)
    result = function(*arrays, out=memory[3:])
    np.testing.assert_array_equal(result, function(*arrays))
    assert not memory[:3].any()
