"""Parity on arguments that Hypothesis draws: sizes, options, dtypes, layouts and left-out arrays together."""

import numpy as np
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from fastnn import testing

EXAMPLES = 12
LARGEST = 40
#: No more elements, or terms, than this in one case: the largest length falls as the symbols grow in number.
BUDGET = 10_000


@st.composite
def cases(draw, kernel):
    """A case of `kernel`, and its arguments in drawn layouts."""
    symbols = testing.make_case(kernel).sizes
    largest = min(LARGEST, round(BUDGET ** (1 / max(len(symbols), 1))))
    options = {name: draw(st.sampled_from(values)) for name, values in testing.options_of(kernel).items()}
    optional = testing.optional_arrays(testing.make_case(kernel))
    case = testing.make_case(
        kernel,
        draw(st.sampled_from((np.float32, np.float64, np.float16))),
        sizes={symbol: draw(st.integers(0, largest)) for symbol in symbols},
        options=options,
        without=[name for name in optional if draw(st.booleans())],
        seed=draw(st.integers(0, 2**16)),
    )
    assume(testing.is_valid(case))
    changes = {}
    for name in case.arrays:
        layout = draw(st.sampled_from((None, *testing.LAYOUTS)))
        if layout is not None and not (layout == "read-only" and name in kernel.updates):
            changes[name] = testing.LAYOUTS[layout]
    return case, changes


def test_parity(kernel, backend):
    function = backend.function(kernel)

    @settings(max_examples=EXAMPLES)
    @given(cases(kernel))
    def holds(drawn):
        case, changes = drawn
        testing.check_changed(function, case, "drawn layouts", changes, case.expected)

    holds()
