"""The recurrent layer, compiled; see `fastnn/recurrent.py` for what each function is.

The inputs of all steps are multiplied at once. A step then adds the product of its states to what stands there, and
applies the nonlinearity to blocks that are still in cache. The weights between units are transposed once, so that
the products of few rows read them as they lie.
"""

cimport numpy as cnp
from columns cimport sum_columns
from common cimport (
    PyArray_DATA, PyArray_DIM, PyArray_EMPTY, PyArray_ISWRITEABLE, PyArray_NDIM, PyArray_TYPE, are_apart, data_of,
    empty_like, has_shape, is_plain, is_plain_of, read_bools, real, same_shape,
)
from fused cimport Activation, activation_of
from gemm cimport Derivative, Factors, activating, multiply, multiplying, no_epilogue
from libc.string cimport memcpy, memset
from pool cimport NO_MEMORY, join_pool, look, raise_if

from fastnn_ext.checks import recurrent as checks

cdef extern from "engine/arena.h" nogil:
    enum:
        TRANSPOSED "FNN_SLOT_USER"
    void *fnn_workspace(int slot, size_t bytes)

cnp.import_array()
join_pool()

cdef enum:
    REUSE = 16            # rows of states that pay for the transposed weights
    MOST_BYTES = 8 << 20  # of weights that are transposed: larger ones are in no cache, so their order matters less
    BLOCK = 16            # rows and columns that are transposed together


cdef struct Layer:
    Py_ssize_t steps, n, inputs, units
    const void *x
    const void *weight_ih
    const void *weight_hh
    const void *bias
    const void *h0
    const Activation *activation


cdef void transpose(const real *a, real *b, Py_ssize_t n) noexcept nogil:
    """b = a.T for square matrices, block by block: a line of each stays in the first-level cache."""
    cdef Py_ssize_t i0, j0, i, j
    for i0 from 0 <= i0 < n by BLOCK:
        for j0 from 0 <= j0 < n by BLOCK:
            for i in range(i0, min(i0 + BLOCK, n)):
                for j in range(j0, min(j0 + BLOCK, n)):
                    b[i * n + j] = a[j * n + i]


cdef int run_steps(const Layer *layer, const real *weight, Py_ssize_t rs, Py_ssize_t cs, real *outputs) noexcept nogil:
    """outputs[t] = f(what stands there + outputs[t - 1] weight)."""
    cdef Py_ssize_t step, size = layer.n * layer.units
    cdef const real *state = <const real *> layer.h0
    cdef const real *no_bias = NULL
    cdef Factors f = Factors(
        layer.n, layer.units, layer.units, layer.units, 1, rs, cs, layer.units, 1, True
    )
    cdef double done = 0
    cdef int failed
    for step in range(layer.steps):
        failed = multiply(&f, state, weight, no_bias, no_bias, activating(layer.activation), outputs + step * size)
        if not failed:
            failed = look(<double> size * layer.units, &done)
        if failed:
            return failed
        state = outputs + step * size
    return 0


cdef int run_forward(const Layer *layer, real *outputs, real *last) noexcept nogil:
    cdef Py_ssize_t units = layer.units, rows = layer.steps * layer.n, size = layer.n * units
    cdef const real *weight = <const real *> layer.weight_hh
    cdef real *transposed
    cdef const real *no_bias = NULL
    cdef Factors f = Factors(
        rows, units, layer.inputs, layer.inputs, 1, 1, layer.inputs, units, 1, False
    )
    cdef int failed = multiply(
        &f, <const real *> layer.x, <const real *> layer.weight_ih, no_bias, <const real *> layer.bias, no_epilogue(),
        outputs,
    )
    if failed:
        return failed
    if rows < REUSE or units * units > MOST_BYTES // <Py_ssize_t> sizeof(real):
        failed = run_steps(layer, weight, 1, units, outputs)
    else:
        transposed = <real *> fnn_workspace(TRANSPOSED, units * units * sizeof(real))
        if transposed == NULL:
            return NO_MEMORY
        transpose(weight, transposed, units)
        failed = run_steps(layer, <const real *> transposed, units, 1, outputs)
    if layer.steps:
        memcpy(last, outputs + (layer.steps - 1) * size, size * sizeof(real))
    else:
        memcpy(last, layer.h0, size * sizeof(real))
    return failed


cdef inline Layer layer_of(
    cnp.ndarray x, cnp.ndarray weight_ih, cnp.ndarray weight_hh, object bias, cnp.ndarray h0,
    const Activation *activation,
) noexcept:
    return Layer(
        PyArray_DIM(x, 0), PyArray_DIM(x, 1), PyArray_DIM(x, 2), PyArray_DIM(h0, 1), PyArray_DATA(x),
        PyArray_DATA(weight_ih), PyArray_DATA(weight_hh), data_of(bias), PyArray_DATA(h0), activation,
    )


cdef bint fit(object x, object weight_ih, object weight_hh, object h0) noexcept:
    """Whether these are plain arrays that fit together; without inputs, sizes are left to the check."""
    cdef cnp.npy_intp shape[2]
    if not is_plain(x) or PyArray_NDIM(<cnp.ndarray> x) != 3 or PyArray_DIM(<cnp.ndarray> x, 2) == 0:
        return False
    cdef int typenum = PyArray_TYPE(<cnp.ndarray> x)
    if not is_plain_of(h0, typenum) or PyArray_NDIM(<cnp.ndarray> h0) != 2:
        return False
    if PyArray_DIM(<cnp.ndarray> h0, 0) != PyArray_DIM(<cnp.ndarray> x, 1):
        return False
    shape[0], shape[1] = PyArray_DIM(<cnp.ndarray> h0, 1), PyArray_DIM(<cnp.ndarray> x, 2)
    if not is_plain_of(weight_ih, typenum) or not has_shape(<cnp.ndarray> weight_ih, 2, shape):
        return False
    shape[1] = shape[0]
    return is_plain_of(weight_hh, typenum) and has_shape(<cnp.ndarray> weight_hh, 2, shape)


cdef inline bint is_known(object nonlinearity) noexcept:
    return type(nonlinearity) is str and (nonlinearity == "tanh" or nonlinearity == "relu")


cdef inline bint is_output(object out, const cnp.npy_intp *shape, tuple arguments) noexcept:
    """Whether `out` is a plain, writable array of this shape, apart from the arguments."""
    if not is_plain_of(out, PyArray_TYPE(<cnp.ndarray> arguments[0])) or not has_shape(<cnp.ndarray> out, 3, shape):
        return False
    if not PyArray_ISWRITEABLE(<cnp.ndarray> out):
        return False
    for i in range(len(arguments)):
        if not are_apart(<cnp.ndarray> out, <cnp.ndarray> arguments[i]):
            return False
    return True


def rnn(x, weight_ih, weight_hh, bias, h0, *, nonlinearity="tanh", out=None):
    cdef object output = None, last_output = None
    cdef cnp.ndarray outputs, last
    cdef cnp.npy_intp shape[3]
    cdef int failed
    cdef bint fast = is_known(nonlinearity) and fit(x, weight_ih, weight_hh, h0)
    if fast:
        shape[0], shape[1] = PyArray_DIM(<cnp.ndarray> x, 0), PyArray_DIM(<cnp.ndarray> x, 1)
        shape[2] = PyArray_DIM(<cnp.ndarray> h0, 1)
        fast = is_plain_of(bias, PyArray_TYPE(<cnp.ndarray> x)) and has_shape(<cnp.ndarray> bias, 1, shape + 2)
    if fast and out is None:
        outputs = PyArray_EMPTY(3, shape, PyArray_TYPE(<cnp.ndarray> x), 0)
        last = empty_like(<cnp.ndarray> h0)
    elif fast and is_output(out, shape, (x, weight_ih, weight_hh, bias, h0)):
        outputs = <cnp.ndarray> out
        last = empty_like(<cnp.ndarray> h0)
    else:
        arrays, nonlinearity, output, last_output = checks.rnn(x, weight_ih, weight_hh, bias, h0, nonlinearity, out)
        x, weight_ih, weight_hh, bias, h0 = arrays
        outputs, last = <cnp.ndarray?> output.array, <cnp.ndarray?> last_output.array
    cdef Layer layer = layer_of(
        <cnp.ndarray?> x, <cnp.ndarray?> weight_ih, <cnp.ndarray?> weight_hh, bias, <cnp.ndarray?> h0,
        activation_of("rnn", nonlinearity),
    )
    cdef void *states = PyArray_DATA(outputs)
    cdef void *h_n = PyArray_DATA(last)
    cdef bint single = PyArray_TYPE(outputs) == cnp.NPY_FLOAT32
    with nogil:
        if single:
            failed = run_forward(&layer, <float *> states, <float *> h_n)
        else:
            failed = run_forward(&layer, <double *> states, <double *> h_n)
    raise_if(failed, "rnn")
    if output is None:
        return outputs, last
    return output.deliver(), last_output.deliver()


cdef struct Gradients:
    const void *grad_outputs
    const void *grad_h_n  # or NULL
    const void *outputs
    void *delta
    void *grad_x  # NULL, as those below, where not needed
    void *grad_weight_ih
    void *grad_weight_hh
    void *grad_bias
    void *grad_h0


cdef inline void add(const real *a, real *total, Py_ssize_t n) noexcept nogil:
    cdef Py_ssize_t i
    for i in range(n):
        total[i] += a[i]


cdef int run_deltas(const Layer *layer, const Gradients *g, real *delta) noexcept nogil:
    """delta[t] = (grad_outputs[t] + delta[t + 1] weight_hh) f'(outputs[t]), from the last step to the first."""
    cdef Py_ssize_t units = layer.units, size = layer.n * units, step
    cdef const real *weight = <const real *> layer.weight_hh
    cdef const real *no_bias = NULL
    cdef Derivative derivative
    cdef Factors f = Factors(layer.n, units, units, units, 1, units, 1, units, 1, True)
    cdef double done = 0
    cdef real *here
    cdef int failed = 0
    memcpy(delta, g.grad_outputs, layer.steps * size * sizeof(real))
    for step in range(layer.steps - 1, -1, -1):
        here = delta + step * size
        derivative = Derivative(layer.activation, <const real *> g.outputs + step * size, units)
        if step < layer.steps - 1:
            failed = multiply(&f, here + size, weight, no_bias, no_bias, multiplying(&derivative), here)
        else:
            if g.grad_h_n != NULL:
                add(<const real *> g.grad_h_n, here, size)
            if real is float:
                layer.activation.backward_f32(here, <const float *> derivative.y, here, size, 0)
            else:
                layer.activation.backward_f64(here, <const double *> derivative.y, here, size, 0)
        if not failed:
            failed = look(<double> size * units, &done)
        if failed:
            return failed
    if g.grad_h0 == NULL:
        return 0
    if layer.steps:
        f.accumulate = False
        return multiply(&f, delta, weight, no_bias, no_bias, no_epilogue(), <real *> g.grad_h0)
    if g.grad_h_n != NULL:
        memcpy(g.grad_h0, g.grad_h_n, size * sizeof(real))
    else:
        memset(g.grad_h0, 0, size * sizeof(real))
    return 0


cdef int run_gradients(const Layer *layer, const Gradients *g, const real *delta) noexcept nogil:
    """The needed gradients of inputs, weights and bias, each one product or sum over the samples of all steps."""
    cdef Py_ssize_t units = layer.units, inputs = layer.inputs, rows = layer.steps * layer.n
    cdef const real *no_bias = NULL
    cdef Factors f
    cdef int failed = 0
    if g.grad_x != NULL:
        f = Factors(rows, inputs, units, units, 1, inputs, 1, inputs, 1, False)
        failed = multiply(
            &f, delta, <const real *> layer.weight_ih, no_bias, no_bias, no_epilogue(), <real *> g.grad_x
        )
    if not failed and g.grad_weight_ih != NULL:
        f = Factors(units, inputs, rows, 1, units, inputs, 1, inputs, 1, False)
        failed = multiply(
            &f, delta, <const real *> layer.x, no_bias, no_bias, no_epilogue(), <real *> g.grad_weight_ih
        )
    if not failed and g.grad_weight_hh != NULL:
        f = Factors(units, units, min(rows, layer.n), 1, units, units, 1, units, 1, False)
        failed = multiply(
            &f, delta, <const real *> layer.h0, no_bias, no_bias, no_epilogue(), <real *> g.grad_weight_hh
        )
    if not failed and g.grad_weight_hh != NULL and layer.steps > 1:
        f = Factors(units, units, rows - layer.n, 1, units, units, 1, units, 1, True)
        failed = multiply(
            &f, delta + layer.n * units, <const real *> g.outputs, no_bias, no_bias, no_epilogue(),
            <real *> g.grad_weight_hh,
        )
    if not failed and g.grad_bias != NULL:
        failed = sum_columns(delta, rows, units, <real *> g.grad_bias)
    return failed


cdef int run_backward(const Layer *layer, const Gradients *g, real *delta) noexcept nogil:
    cdef int failed = run_deltas(layer, g, delta)
    return failed if failed else run_gradients(layer, g, <const real *> delta)


cdef inline bint are_states(object a, object x, object h0) noexcept:
    """Whether `a` is a plain array [steps, n, units] of x's type."""
    cdef cnp.npy_intp shape[3]
    shape[0], shape[1] = PyArray_DIM(<cnp.ndarray> x, 0), PyArray_DIM(<cnp.ndarray> x, 1)
    shape[2] = PyArray_DIM(<cnp.ndarray> h0, 1)
    return is_plain_of(a, PyArray_TYPE(<cnp.ndarray> x)) and has_shape(<cnp.ndarray> a, 3, shape)


def rnn_backward(
    grad_outputs, x, weight_ih, weight_hh, h0, outputs, grad_h_n=None, *, nonlinearity="tanh",
    needs=(True, True, True, True, True),
):
    cdef tuple results = None
    cdef cnp.npy_intp units
    cdef bint needed[5]
    cdef int failed
    if (
        is_known(nonlinearity)
        and fit(x, weight_ih, weight_hh, h0)
        and are_states(grad_outputs, x, h0)
        and are_states(outputs, x, h0)
        and (
            grad_h_n is None
            or (
                is_plain_of(grad_h_n, PyArray_TYPE(<cnp.ndarray> x))
                and same_shape(<cnp.ndarray> grad_h_n, <cnp.ndarray> h0)
            )
        )
        and read_bools(needs, 5, needed)
    ):
        units = PyArray_DIM(<cnp.ndarray> h0, 1)
        gradients = (
            empty_like(<cnp.ndarray> x) if needed[0] else None,
            empty_like(<cnp.ndarray> weight_ih) if needed[1] else None,
            empty_like(<cnp.ndarray> weight_hh) if needed[2] else None,
            PyArray_EMPTY(1, &units, PyArray_TYPE(<cnp.ndarray> x), 0) if needed[3] else None,
            empty_like(<cnp.ndarray> h0) if needed[4] else None,
        )
    else:
        arrays, grad_h_n, nonlinearity, results = checks.rnn_backward(
            grad_outputs, x, weight_ih, weight_hh, h0, outputs, grad_h_n, nonlinearity, needs
        )
        grad_outputs, x, weight_ih, weight_hh, h0, outputs = arrays
        gradients = tuple([None if one is None else one.array for one in results])
    delta = empty_like(<cnp.ndarray?> outputs)
    cdef Layer layer = layer_of(
        <cnp.ndarray?> x, <cnp.ndarray?> weight_ih, <cnp.ndarray?> weight_hh, None, <cnp.ndarray?> h0,
        activation_of("rnn_backward", nonlinearity),
    )
    cdef Gradients g = Gradients(
        data_of(grad_outputs), data_of(grad_h_n), data_of(outputs), data_of(delta), data_of(gradients[0]),
        data_of(gradients[1]), data_of(gradients[2]), data_of(gradients[3]), data_of(gradients[4]),
    )
    cdef bint single = PyArray_TYPE(<cnp.ndarray> x) == cnp.NPY_FLOAT32
    with nogil:
        if single:
            failed = run_backward(&layer, &g, <float *> g.delta)
        else:
            failed = run_backward(&layer, &g, <double *> g.delta)
    raise_if(failed, "rnn_backward")
    if results is None:
        return gradients
    return tuple([None if one is None else one.deliver() for one in results])
