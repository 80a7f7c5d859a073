"""2-D pools, compiled; see `fastnn/pooling.py` for what each function is.

With channels first, small windows are reduced in registers. Of others, the rows are reduced to one, and then its
columns. The reduced rows of several rows of windows stand in one strip of memory, framed by what padding counts as, at
a pitch that is a multiple of the stride: so the columns of all of them are one long loop, which vectorises even where
an image is narrow. With channels last, the loops run over the channels of a pixel.
"""

cimport numpy as cnp
from common cimport (
    GIL_ELEMENTS, PyArray_DATA, PyArray_DIMS, PyArray_EMPTY, PyArray_ISWRITEABLE, PyArray_NDIM, PyArray_SIZE,
    PyArray_TYPE, are_apart, has_shape, is_plain, is_plain_of, real, same_shape,
)
from libc.stdint cimport INT32_MAX, int32_t, int64_t
from libc.string cimport memset
from pool cimport join_pool, raise_if, run, team
from windows cimport (
    Axis, Image, axis_of, image_of, is_many, read_axes, read_integer, read_layout, read_pair, set_shape,
)

from fastnn_ext.checks import pooling as checks

cdef extern from "engine/arena.h" nogil:
    enum:
        MEMORY "FNN_SLOT_USER"
    void *fnn_workspace(int slot, size_t bytes)

cdef extern from "engine/windows.h" nogil:
    enum:
        MEAN "FNN_POOL_MEAN"
        MAX "FNN_POOL_MAX"
        MAX_AT "FNN_POOL_MAX_AT"
    ctypedef struct Windows "fnn_windows":
        Py_ssize_t rows, columns, stride, line, lines, step, first, elements, left, right, first_elements, last_elements
        Py_ssize_t count, room
    void fnn_pool_window_f32(int kind, const Windows *w, const float *x, Py_ssize_t first, float *y, int64_t *index)
    void fnn_pool_window_f64(int kind, const Windows *w, const double *x, Py_ssize_t first, double *y, int64_t *index)
    void fnn_pool_windows_f32(int kind, const Windows *windows, const float *x, float *y, int64_t *indices)
    void fnn_pool_windows_f64(int kind, const Windows *windows, const double *x, double *y, int64_t *indices)
    bint fnn_pool_fits_spread_f32(Py_ssize_t count)
    bint fnn_pool_fits_spread_f64(Py_ssize_t count)
    bint fnn_pool_spread_2x2_f32(
        const float *grad, const int64_t *indices, int64_t first, Py_ssize_t line, Py_ssize_t lines, Py_ssize_t count,
        float *x,
    )
    bint fnn_pool_spread_2x2_f64(
        const double *grad, const int64_t *indices, int64_t first, Py_ssize_t line, Py_ssize_t lines, Py_ssize_t count,
        double *x,
    )
    bint fnn_pool_spread_3x3_f32(
        const float *grad, const int64_t *indices, Py_ssize_t lines, Py_ssize_t count, float *x
    )

cnp.import_array()
join_pool()

cdef enum:
    PART = 32768      # elements that one thread does at a time, or one plane
    SHARE = 131072    # that a thread must have
    WINDOWS = 512     # of one row that are worked on together
    CHANNELS = 256    # of one pixel that are worked on together
    STRIP = 4096      # elements of reduced rows that are worked on together
    LANES = 16        # of the widest vectors
    PAIRS = 1 << 29   # windows in a row: of fewer, positions from the first one on have 32 bits
    OUTSIDE = 1       # what a job returns that has met a wrong index

cdef double INFINITY = float("inf")

cdef struct Pool:
    Axis rows, columns
    Py_ssize_t images, channels
    bint channels_last, counts_padding

cdef struct Span:
    # the windows first .. end whose tap is inside the input, and the input position of the first
    Py_ssize_t first, end, source


cdef inline Py_ssize_t smaller(Py_ssize_t a, Py_ssize_t b) noexcept nogil:
    return a if a < b else b


cdef inline Py_ssize_t larger(Py_ssize_t a, Py_ssize_t b) noexcept nogil:
    return a if a > b else b


cdef inline Span inside(const Axis *axis, Py_ssize_t tap, Py_ssize_t first, Py_ssize_t end) noexcept nogil:
    """Which of the windows first .. end have `tap` inside the input."""
    cdef Py_ssize_t shift = tap * axis.dilation - axis.before
    cdef Span span
    span.first = first
    if shift < 0:
        span.first = larger(first, (axis.stride - 1 - shift) // axis.stride)
    span.end = first
    if axis.length > shift:
        span.end = smaller(end, (axis.length - 1 - shift) // axis.stride + 1)
    span.end = larger(span.first, span.end)
    span.source = span.first * axis.stride + shift
    return span


cdef inline Py_ssize_t first_tap(const Axis *axis, Py_ssize_t window) noexcept nogil:
    """The first tap of a window that is inside the input."""
    cdef Py_ssize_t start = window * axis.stride - axis.before
    return 0 if start >= 0 else (axis.dilation - 1 - start) // axis.dilation


# ----------------------------------------------------------------------------------------------------
# Loops over neighbouring windows or channels. A NaN is larger than any number, and the first one is kept.


cdef inline bint is_larger(real value, real best) noexcept nogil:
    return (value > best) | ((value != value) & (best == best))


cdef inline void raise_by(const real *x, Py_ssize_t step, real *best, Py_ssize_t n) noexcept nogil:
    cdef Py_ssize_t i
    for i in range(n):
        best[i] = x[i * step] if is_larger(x[i * step], best[i]) else best[i]


cdef inline void larger_of(const real *a, const real *b, real *best, Py_ssize_t n) noexcept nogil:
    cdef Py_ssize_t i
    for i in range(n):
        best[i] = b[i] if is_larger(b[i], a[i]) else a[i]


cdef inline void raise_with(
    const real *x, const int32_t *x_rows, Py_ssize_t step, int32_t tap, real *best, int32_t *rows, int32_t *taps,
    Py_ssize_t n,
) noexcept nogil:
    """Of equal values, the one of the smaller row is the first in the window."""
    cdef Py_ssize_t i
    cdef real value
    cdef bint better
    for i in range(n):
        value = x[i * step]
        better = is_larger(value, best[i]) | ((not is_larger(best[i], value)) & (x_rows[i * step] < rows[i]))
        best[i] = value if better else best[i]
        rows[i] = x_rows[i * step] if better else rows[i]
        taps[i] = tap if better else taps[i]


cdef inline void add_to(const real *x, Py_ssize_t step, real *sums, Py_ssize_t n) noexcept nogil:
    cdef Py_ssize_t i
    for i in range(n):
        sums[i] += x[i * step]


cdef inline void add_spread(const real *g, Py_ssize_t step, real *x, Py_ssize_t n) noexcept nogil:
    cdef Py_ssize_t i
    for i in range(n):
        x[i * step] += g[i]


# The usual steps are constants in a loop of their own: with them the compiler shuffles instead of gathering.


cdef void raise_by_step(const real *x, Py_ssize_t step, real *best, Py_ssize_t n) noexcept nogil:
    if step == 1:
        raise_by(x, 1, best, n)
    elif step == 2:
        raise_by(x, 2, best, n)
    else:
        raise_by(x, step, best, n)


cdef void raise_with_step(
    const real *x, const int32_t *x_rows, Py_ssize_t step, int32_t tap, real *best, int32_t *rows, int32_t *taps,
    Py_ssize_t n,
) noexcept nogil:
    if step == 1:
        raise_with(x, x_rows, 1, tap, best, rows, taps, n)
    elif step == 2:
        raise_with(x, x_rows, 2, tap, best, rows, taps, n)
    else:
        raise_with(x, x_rows, step, tap, best, rows, taps, n)


cdef void add_to_step(const real *x, Py_ssize_t step, real *sums, Py_ssize_t n) noexcept nogil:
    if step == 1:
        add_to(x, 1, sums, n)
    elif step == 2:
        add_to(x, 2, sums, n)
    else:
        add_to(x, step, sums, n)


cdef void add_spread_step(const real *g, Py_ssize_t step, real *x, Py_ssize_t n) noexcept nogil:
    if step == 1:
        add_spread(g, 1, x, n)
    elif step == 2:
        add_spread(g, 2, x, n)
    else:
        add_spread(g, step, x, n)


cdef inline void fill(real *target, real value, Py_ssize_t n) noexcept nogil:
    cdef Py_ssize_t i
    for i in range(n):
        target[i] = value


cdef inline void keep_larger(const real *x, int32_t row, real *best, int32_t *rows, Py_ssize_t n) noexcept nogil:
    """Raise the best of the rows above by another row."""
    cdef Py_ssize_t i
    cdef bint better
    for i in range(n):
        better = is_larger(x[i], best[i])
        best[i] = x[i] if better else best[i]
        rows[i] = row if better else rows[i]


cdef inline void fill_int(int32_t *target, int32_t value, Py_ssize_t n) noexcept nogil:
    cdef Py_ssize_t i
    for i in range(n):
        target[i] = value


# ----------------------------------------------------------------------------------------------------
# Channels first


cdef struct Strip:
    # reduced rows of windows: `lines` of them for the windows first .. first + count
    Py_ssize_t first, count, lines
    Py_ssize_t left          # the input column of a line's first element
    Py_ssize_t pitch, width  # elements from line to line, and results from line to line
    void *values             # the reduced rows, [lines, pitch], with some elements behind
    int32_t *rows            # the row of the window that each of them comes from
    void *results            # [lines, width], of which `count` of each line are wanted
    int32_t *result_rows
    int32_t *result_taps


cdef bint reserve(Strip *strip, const Pool *pool, size_t itemsize) noexcept nogil:
    """Room for the widest strip."""
    cdef const Axis *columns = &pool.columns
    cdef Py_ssize_t span = columns.dilation * (columns.taps - 1) + 1
    cdef Py_ssize_t count = smaller(columns.outputs, WINDOWS), room, results
    cdef char *memory
    strip.width = count + (span - 1) // columns.stride
    strip.pitch = strip.width * columns.stride
    strip.lines = smaller(larger(STRIP // strip.pitch, 1), pool.rows.outputs)
    room = strip.lines * strip.pitch + span + LANES
    results = strip.lines * strip.width
    memory = <char *> fnn_workspace(
        MEMORY, (room + results) * itemsize + (room + 2 * results) * sizeof(int32_t)
    )
    strip.values = memory
    strip.results = memory + room * itemsize
    strip.rows = <int32_t *> (memory + (room + results) * itemsize)
    strip.result_rows = strip.rows + room
    strip.result_taps = strip.result_rows + results
    return memory != NULL


cdef void reduce_rows(
    const Strip *strip, const Pool *pool, const real *plane, const real *limit, Py_ssize_t line, Py_ssize_t p,
    bint is_max, bint with_rows,
) noexcept nogil:
    """Reduce the rows of the windows in row p to one line of the strip; the image's memory ends at `limit`."""
    cdef real *target = <real *> strip.values + line * strip.pitch
    cdef int32_t *rows = strip.rows + line * strip.pitch
    cdef real outside = <real> -INFINITY if is_max else <real> 0
    cdef Py_ssize_t begin = smaller(larger(-strip.left, 0), strip.pitch)
    cdef Py_ssize_t n = larger(smaller(strip.pitch, pool.columns.length - strip.left) - begin, 0)
    cdef Py_ssize_t after = strip.pitch - begin - n
    cdef Py_ssize_t top = p * pool.rows.stride - pool.rows.before
    cdef Py_ssize_t step = pool.rows.dilation * pool.columns.length
    cdef Py_ssize_t first = first_tap(&pool.rows, p), r = first, i
    cdef Py_ssize_t end = smaller(pool.rows.taps, (pool.rows.length - 1 - top) // pool.rows.dilation + 1)
    cdef const real *source = plane + top * pool.columns.length + r * step + strip.left + begin
    cdef Py_ssize_t whole = (n + LANES - 1) // LANES * LANES
    # Whole vectors, where there is memory to read: what is written behind the line is written again, or never read.
    if source + (end - r - 1) * step + whole <= limit:
        n = whole
    fill(target, outside, begin)
    if with_rows:
        fill_int(rows, <int32_t> first, begin + n)
    target += begin
    rows += begin
    if is_max and not with_rows and r + 1 < end:
        larger_of(source, source + step, target, n)
        r += 1
        source += step
    else:
        for i in range(n):
            target[i] = source[i]
    for r in range(r + 1, end):
        source += step
        if not is_max:
            add_to(source, 1, target, n)
        elif with_rows:
            keep_larger(source, <int32_t> r, target, rows, n)
        else:
            raise_by(source, 1, target, n)
    if after > 0:
        fill(target + strip.pitch - begin - after, outside, after)
        if with_rows:
            fill_int(rows + strip.pitch - begin - after, <int32_t> first, after)


cdef void reduce_columns(
    const Strip *strip, const real *values, real *results, const Axis *columns, Py_ssize_t lines, bint is_max,
    bint with_taps,
) noexcept nogil:
    """Reduce the columns of all windows of a strip."""
    cdef Py_ssize_t n = lines * strip.width, step = columns.stride, i, s, at
    for i in range(n):
        results[i] = values[i * step]
    if with_taps:
        for i in range(n):
            strip.result_rows[i] = strip.rows[i * step]
        fill_int(strip.result_taps, 0, n)
    for s in range(1, columns.taps):
        at = s * columns.dilation
        if with_taps:
            raise_with_step(
                values + at, strip.rows + at, step, <int32_t> s, results, strip.result_rows, strip.result_taps, n
            )
        elif is_max:
            raise_by_step(values + at, step, results, n)
        else:
            add_to_step(values + at, step, results, n)


cdef void write_max(
    const Strip *strip, const Pool *pool, Py_ssize_t line, Py_ssize_t p, real *y, int64_t *indices
) noexcept nogil:
    """One row of results and, unless NULL, where they are in the plane."""
    cdef const real *results = <const real *> strip.results + line * strip.width
    cdef const int32_t *rows = strip.result_rows + line * strip.width
    cdef int32_t *taps = strip.result_taps + line * strip.width
    cdef const Axis *columns = &pool.columns
    cdef Py_ssize_t top = p * pool.rows.stride - pool.rows.before
    cdef Py_ssize_t step = pool.rows.dilation * columns.length, start, q
    if y != results:
        for q in range(strip.count):
            y[q] = results[q]
    if indices == NULL:
        return
    # Where a whole window is minus infinity, padding at its left may look like the first of its elements.
    q = 0
    while q < strip.count and (strip.first + q) * columns.stride < columns.before:
        taps[q] = <int32_t> larger(taps[q], first_tap(columns, strip.first + q))
        q += 1
    start = top * columns.length + strip.first * columns.stride - columns.before
    for q in range(strip.count):
        indices[q] = start + q * columns.stride + rows[q] * step + taps[q] * columns.dilation


cdef inline Py_ssize_t count_inside(const Axis *axis, Py_ssize_t window, bint counts_padding) noexcept nogil:
    """How many elements along one axis a window averages."""
    cdef Py_ssize_t start = window * axis.stride - axis.before
    if counts_padding:
        return smaller(start + axis.taps, axis.length + axis.after) - start
    return smaller(start + axis.taps, axis.length) - larger(start, 0)


cdef void write_avg(const Strip *strip, const Pool *pool, Py_ssize_t line, Py_ssize_t p, real *y) noexcept nogil:
    """One row of results."""
    cdef const real *results = <const real *> strip.results + line * strip.width
    cdef Py_ssize_t height = count_inside(&pool.rows, p, pool.counts_padding), q
    for q in range(strip.count):
        y[q] = results[q] / <real> (height * count_inside(&pool.columns, strip.first + q, pool.counts_padding))


cdef int pool_planes(const Pool *pool, bint is_max, const real *x, real *y, int64_t *indices) noexcept nogil:
    """Pool images with channels first."""
    cdef Py_ssize_t plane, block, at, p, line, lines
    cdef Py_ssize_t height = pool.rows.outputs, width = pool.columns.outputs
    cdef Py_ssize_t size = pool.rows.length * pool.columns.length
    cdef bint with_taps = indices != NULL
    cdef bint in_place
    cdef const real *limit = x + pool.images * pool.channels * size
    cdef Strip strip
    if not reserve(&strip, pool, sizeof(real)):
        return -1
    in_place = strip.width == width  # then the results of a strip are the result's own rows
    for plane in range(pool.images * pool.channels):
        for block in range((width + WINDOWS - 1) // WINDOWS):
            strip.first = block * WINDOWS
            strip.count = smaller(WINDOWS, width - strip.first)
            strip.left = strip.first * pool.columns.stride - pool.columns.before
            p = 0
            while p < height:
                lines = smaller(strip.lines, height - p)
                for line in range(lines):
                    reduce_rows(&strip, pool, x + plane * size, limit, line, p + line, is_max, with_taps)
                if in_place:
                    strip.results = y + (plane * height + p) * width
                reduce_columns(
                    &strip, <const real *> strip.values, <real *> strip.results, &pool.columns, lines, is_max, with_taps
                )
                for line in range(lines):
                    at = (plane * height + p + line) * width + strip.first
                    if is_max:
                        write_max(&strip, pool, line, p + line, y + at, indices + at if with_taps else NULL)
                    else:
                        write_avg(&strip, pool, line, p + line, y + at)
                p += lines
    return 0


cdef inline bint has_small_windows(const Pool *pool) noexcept nogil:
    """Whether engine/windows.h has loops for windows like these."""
    return (
        pool.rows.taps <= 3 and 2 <= pool.columns.taps <= 3 and pool.columns.stride <= 2
        and pool.columns.dilation == 1 and pool.rows.length * pool.columns.length < INT32_MAX
    )


cdef inline void pool_windows(int kind, const Windows *w, const real *x, real *y, int64_t *indices) noexcept nogil:
    if real is float:
        fnn_pool_windows_f32(kind, w, x, y, indices)
    else:
        fnn_pool_windows_f64(kind, w, x, y, indices)


cdef inline void pool_at_edge(
    int kind, const Pool *pool, Windows w, Py_ssize_t height, Py_ssize_t top, Py_ssize_t q, const real *plane, real *y,
    int64_t *index,
) noexcept nogil:
    """The window in column q, whose lines begin at `top` in the plane, with as many columns as are inside."""
    cdef Py_ssize_t left = q * pool.columns.stride - pool.columns.before
    w.columns = smaller(left + pool.columns.taps, pool.columns.length) - larger(left, 0)
    w.elements = height * count_inside(&pool.columns, q, pool.counts_padding)
    top += larger(left, 0)
    if real is float:
        fnn_pool_window_f32(kind, &w, plane + top, top, y + q, index + q if kind == MAX_AT else NULL)
    else:
        fnn_pool_window_f64(kind, &w, plane + top, top, y + q, index + q if kind == MAX_AT else NULL)


cdef inline bint has_room(Windows *w, Py_ssize_t size, Py_ssize_t results) noexcept nogil:
    """Whether vectors stay within the `size` elements of the images and the `results`, from the first of `lines`."""
    cdef Py_ssize_t last = (w.lines - 1) * w.step + (w.rows - 1) * w.line + w.columns
    w.room = smaller(((size - w.first - last) >> (w.stride - 1)) + 1, results - (w.lines - 1) * w.count)
    return w.room >= larger(w.count, LANES)


cdef void pool_small_windows(const Pool *pool, int kind, const real *x, real *y, int64_t *indices) noexcept nogil:
    """Windows that engine/windows.h has loops for, channels first.

    The lines of windows that have all their rows inside of the image are done together, and each of the others by
    itself, where what their vectors read is within the images, padding included. Where it is not, those from `begin`
    to `end` have all their columns inside of the image, and the others go one by one. Where windows are less than a
    vector, those behind them are computed as well: they get their own values afterwards.
    """
    cdef const Axis *rows = &pool.rows
    cdef const Axis *columns = &pool.columns
    cdef Py_ssize_t width = columns.outputs, size = rows.length * columns.length, planes = pool.images * pool.channels
    cdef Py_ssize_t begin = smaller((columns.before + columns.stride - 1) // columns.stride, width)
    cdef Py_ssize_t end = (columns.length + columns.before - columns.taps + columns.stride) // columns.stride
    cdef Py_ssize_t last = rows.length - 1 - (rows.taps - 1) * rows.dilation
    cdef Py_ssize_t left = columns.before
    cdef Py_ssize_t right = larger((width - 1) * columns.stride - columns.before + columns.taps - columns.length, 0)
    cdef Py_ssize_t counts = count_inside(columns, 0, pool.counts_padding)
    cdef Py_ssize_t last_counts = count_inside(columns, width - 1, pool.counts_padding)
    cdef Py_ssize_t rest = planes, p, q, first, top, height, results
    cdef Windows w
    end = larger(smaller(end, width), begin)  # a numerator below zero makes it `begin`, whichever way it is rounded
    w.columns, w.stride = columns.taps, columns.stride
    w.line, w.step = rows.dilation * columns.length, rows.stride * columns.length
    while rest > 0:
        p = 0
        while p < rows.outputs:
            top = p * rows.stride - rows.before
            height = count_inside(rows, p, pool.counts_padding)
            first, w.rows, w.lines = 0, rows.taps, 1
            if top < 0 or top > last:
                first = first_tap(rows, p)
                w.rows = smaller(rows.taps, (rows.length - 1 - top) // rows.dilation + 1) - first
            else:
                w.lines = (last - top) // rows.stride + 1
            top = (top + first * rows.dilation) * columns.length
            results = (rest * rows.outputs - p) * width
            w.elements = height * columns.taps
            w.first_elements, w.last_elements = height * counts, height * last_counts
            w.first, w.count, w.left, w.right = top - columns.before, width, left, right
            while w.lines > 1 and not has_room(&w, rest * size, results):
                w.lines -= 1
            if has_room(&w, rest * size, results) and (w.first >= 0 or rest < planes):
                pool_windows(kind, &w, x + w.first, y, indices)
            else:
                w.first, w.count, w.left, w.right = top + begin * columns.stride - columns.before, end - begin, 0, 0
                w.lines, w.first_elements, w.last_elements = 1, w.elements, w.elements
                has_room(&w, rest * size, results - begin)
                w.room = larger(w.room, w.count)
                if w.count:
                    pool_windows(kind, &w, x + w.first, y + begin, indices + begin if kind == MAX_AT else NULL)
                for q in range(begin):
                    pool_at_edge(kind, pool, w, height, top, q, x, y, indices)
                for q in range(end, width):
                    pool_at_edge(kind, pool, w, height, top, q, x, y, indices)
            p += w.lines
            y += w.lines * width
            if kind == MAX_AT:
                indices += w.lines * width
        x += size
        rest -= 1


cdef void spread_planes(const Pool *pool, const real *grad_out, real *grad_x) noexcept nogil:
    """The gradient of the means, channels first: each window's share goes to each of its elements."""
    cdef real share[WINDOWS]
    cdef Py_ssize_t plane, p, block, first, end, q, s, row, top, height
    cdef Py_ssize_t lines = pool.rows.outputs, width = pool.columns.outputs, size = pool.rows.length * pool.columns.length
    cdef const real *g
    cdef real *target
    cdef Span span
    for plane in range(pool.images * pool.channels):
        target = grad_x + plane * size
        memset(target, 0, size * sizeof(real))
        for p in range(lines):
            top = p * pool.rows.stride - pool.rows.before
            height = count_inside(&pool.rows, p, pool.counts_padding)
            for block in range((width + WINDOWS - 1) // WINDOWS):
                first = block * WINDOWS
                end = smaller(first + WINDOWS, width)
                g = grad_out + (plane * lines + p) * width + first
                for q in range(end - first):
                    share[q] = g[q] / <real> (height * count_inside(&pool.columns, first + q, pool.counts_padding))
                for row in range(larger(top, 0), smaller(top + pool.rows.taps, pool.rows.length)):
                    for s in range(pool.columns.taps):
                        span = inside(&pool.columns, s, first, end)
                        add_spread_step(
                            share + span.first - first, pool.columns.stride,
                            target + row * pool.columns.length + span.source, span.end - span.first,
                        )


# ----------------------------------------------------------------------------------------------------
# Channels last


cdef void max_pixel(
    const Pool *pool, const real *image, Py_ssize_t p, Py_ssize_t q, Py_ssize_t c, Py_ssize_t n,
    real *y, int64_t *indices,
) noexcept nogil:
    """The window (p, q) of n channels from c on."""
    cdef int32_t rows[CHANNELS]
    cdef int32_t taps[CHANNELS]
    cdef Py_ssize_t top = p * pool.rows.stride - pool.rows.before
    cdef Py_ssize_t left = q * pool.columns.stride - pool.columns.before
    cdef Py_ssize_t r0 = first_tap(&pool.rows, p), s0 = first_tap(&pool.columns, q)
    cdef Py_ssize_t r, s, h, w, i, width = pool.columns.length
    cdef const real *x
    fill(y, <real> -INFINITY, n)
    cdef bint better
    if indices != NULL:
        fill_int(rows, <int32_t> r0, n)
        fill_int(taps, <int32_t> s0, n)
    for r in range(r0, pool.rows.taps):
        h = top + r * pool.rows.dilation
        if h >= pool.rows.length:
            break
        for s in range(s0, pool.columns.taps):
            w = left + s * pool.columns.dilation
            if w >= width:
                break
            x = image + (h * width + w) * pool.channels + c
            if indices == NULL:
                raise_by(x, 1, y, n)
            else:
                for i in range(n):
                    better = is_larger(x[i], y[i])
                    y[i] = x[i] if better else y[i]
                    rows[i] = <int32_t> r if better else rows[i]
                    taps[i] = <int32_t> s if better else taps[i]
    if indices != NULL:
        for i in range(n):
            indices[i] = (
                (top + rows[i] * pool.rows.dilation) * width + left + taps[i] * pool.columns.dilation
            )


cdef void avg_pixel(
    const Pool *pool, const real *image, Py_ssize_t p, Py_ssize_t q, Py_ssize_t c, Py_ssize_t n, real *y
) noexcept nogil:
    """The mean of the window (p, q) of n channels from c on."""
    cdef Py_ssize_t top = p * pool.rows.stride - pool.rows.before
    cdef Py_ssize_t left = q * pool.columns.stride - pool.columns.before
    cdef Py_ssize_t h, w, i
    cdef real count = <real> (
        count_inside(&pool.rows, p, pool.counts_padding) * count_inside(&pool.columns, q, pool.counts_padding)
    )
    fill(y, <real> 0, n)
    for h in range(larger(top, 0), smaller(top + pool.rows.taps, pool.rows.length)):
        for w in range(larger(left, 0), smaller(left + pool.columns.taps, pool.columns.length)):
            add_to(image + (h * pool.columns.length + w) * pool.channels + c, 1, y, n)
    for i in range(n):
        y[i] /= count


cdef void pool_pixels(const Pool *pool, bint is_max, const real *x, real *y, int64_t *indices) noexcept nogil:
    """Pool images with channels last."""
    cdef Py_ssize_t image, p, q, block, c, n, at
    cdef Py_ssize_t size = pool.rows.length * pool.columns.length * pool.channels
    for image in range(pool.images):
        for p in range(pool.rows.outputs):
            for q in range(pool.columns.outputs):
                for block in range((pool.channels + CHANNELS - 1) // CHANNELS):
                    c = block * CHANNELS
                    n = smaller(CHANNELS, pool.channels - c)
                    at = ((image * pool.rows.outputs + p) * pool.columns.outputs + q) * pool.channels + c
                    if is_max:
                        max_pixel(
                            pool, x + image * size, p, q, c, n, y + at, NULL if indices == NULL else indices + at
                        )
                    else:
                        avg_pixel(pool, x + image * size, p, q, c, n, y + at)


cdef void spread_pixels(const Pool *pool, const real *grad_out, real *grad_x) noexcept nogil:
    """The gradient of the means, channels last."""
    cdef real share[CHANNELS]
    cdef Py_ssize_t image, p, q, block, c, n, i, h, w, top, left
    cdef Py_ssize_t size = pool.rows.length * pool.columns.length * pool.channels
    cdef real count
    cdef const real *g
    for image in range(pool.images):
        memset(grad_x + image * size, 0, size * sizeof(real))
        for p in range(pool.rows.outputs):
            top = p * pool.rows.stride - pool.rows.before
            for q in range(pool.columns.outputs):
                left = q * pool.columns.stride - pool.columns.before
                count = <real> (
                    count_inside(&pool.rows, p, pool.counts_padding)
                    * count_inside(&pool.columns, q, pool.counts_padding)
                )
                for block in range((pool.channels + CHANNELS - 1) // CHANNELS):
                    c = block * CHANNELS
                    n = smaller(CHANNELS, pool.channels - c)
                    g = grad_out + ((image * pool.rows.outputs + p) * pool.columns.outputs + q) * pool.channels + c
                    for i in range(n):
                        share[i] = g[i] / count
                    for h in range(larger(top, 0), smaller(top + pool.rows.taps, pool.rows.length)):
                        for w in range(larger(left, 0), smaller(left + pool.columns.taps, pool.columns.length)):
                            add_spread(
                                share, 1,
                                grad_x + image * size + (h * pool.columns.length + w) * pool.channels + c, n,
                            )


# ----------------------------------------------------------------------------------------------------
# Calls


cdef int run_pool(const Pool *pool, bint is_max, const real *x, real *y, int64_t *indices) noexcept nogil:
    if pool.channels_last:
        pool_pixels(pool, is_max, x, y, indices)
        return 0
    if has_small_windows(pool):
        pool_small_windows(pool, MEAN if not is_max else MAX if indices == NULL else MAX_AT, x, y, indices)
        return 0
    return pool_planes(pool, is_max, x, y, indices)


cdef int pool_of(const Pool *pool, bint is_max, bint single, void *x, void *y, int64_t *indices) noexcept nogil:
    if single:
        return run_pool[float](pool, is_max, <float *> x, <float *> y, indices)
    return run_pool[double](pool, is_max, <double *> x, <double *> y, indices)


cdef inline bint is_usual(const Axis *axis) noexcept:
    """Whether each window covers an element, and padding is at most half of a window."""
    return axis.dilation == 1 and axis.length > 0 and 2 * axis.before <= axis.taps


cdef bint fits(
    Image image, bint channels_last, object kernel_size, object stride, object padding, object dilation, object ceil_mode,
    Pool *pool,
) noexcept:
    """Whether the options are of the usual forms and right for images of that shape; the pool they describe."""
    if ceil_mode is not True and ceil_mode is not False:
        return False
    if not read_pair(kernel_size, 1, &pool.rows.taps, &pool.columns.taps):
        return False
    pool.channels_last, pool.images, pool.channels = channels_last, image.n, image.c
    pool.rows.length, pool.columns.length = image.h, image.w
    return (
        read_axes(
            kernel_size if stride is None else stride, padding, dilation, ceil_mode is True, &pool.rows, &pool.columns
        )
        and is_usual(&pool.rows)
        and is_usual(&pool.columns)
        and not is_many(image.n, image.c, pool.rows.outputs, pool.columns.outputs)
        and not is_many(image.n, image.c, image.h, image.w)
    )


cdef inline Image pooled(const Pool *pool) noexcept:
    return Image(pool.images, pool.channels, pool.rows.outputs, pool.columns.outputs)


cdef void take_checked(Pool *pool, Image image, object rows, object columns, bint channels_last) except *:
    """The pool that a Python check has worked out."""
    pool.rows, pool.columns = axis_of(rows), axis_of(columns)
    pool.channels_last, pool.images, pool.channels = channels_last, image.n, image.c


cdef inline bint is_image(object x) noexcept:
    return is_plain(x) and PyArray_NDIM(<cnp.ndarray> x) == 4


cdef inline bint is_result(object out, const cnp.npy_intp *shape, cnp.ndarray x) noexcept:
    """Whether `out` is a plain array of that shape, of x's type and apart from it."""
    return (
        is_plain_of(out, PyArray_TYPE(x))
        and PyArray_ISWRITEABLE(<cnp.ndarray> out)
        and has_shape(<cnp.ndarray> out, 4, shape)
        and are_apart(<cnp.ndarray> out, x)
    )


cdef int call_pool(Pool *pool, bint is_max, cnp.ndarray x, cnp.ndarray y, object indices) except -1:
    cdef int64_t *positions = NULL if indices is None else <int64_t *> PyArray_DATA(<cnp.ndarray> indices)
    cdef bint single = PyArray_TYPE(x) == cnp.NPY_FLOAT32
    cdef Call call = Call(pool, is_max, single, 0, PyArray_DATA(x), PyArray_DATA(y), positions)
    cdef int failed
    if PyArray_SIZE(x) < GIL_ELEMENTS:
        failed = pool_of(pool, is_max, single, <void *> call.source, call.target, positions)
    else:
        with nogil:
            failed = run(pool_part, &call, divide(&call), team(work_of(pool), SHARE))
    return raise_if(failed, "pooling")


# ----------------------------------------------------------------------------------------------------
# Threads: each does some planes, or some images where channels are last


cdef struct Call:
    # y = pool of x, or grad_x = the share of each mean's gradient
    const Pool *pool
    bint is_max, single
    Py_ssize_t images  # of a part
    const void *source
    void *target
    int64_t *indices


cdef inline double work_of(const Pool *pool) noexcept nogil:
    """How many numbers are in all windows, or in the planes if those are more."""
    cdef double taps = <double> pool.rows.taps * pool.columns.taps * pool.rows.outputs * pool.columns.outputs
    return <double> pool.images * pool.channels * max(taps, <double> pool.rows.length * pool.columns.length)


cdef Py_ssize_t divide(Call *call) noexcept nogil:
    """Set how many images are a part, by sizes alone; how many parts there are. A plane is an image by itself."""
    cdef const Pool *pool = call.pool
    cdef Py_ssize_t size = pool.rows.length * pool.columns.length, images = pool.images
    if pool.channels_last:
        size *= pool.channels
    else:
        images *= pool.channels
    call.images = larger(PART // larger(size, 1), 1)
    return (images + call.images - 1) // call.images


cdef Pool some_images(const Call *call, Py_ssize_t part, Py_ssize_t *inputs, Py_ssize_t *outputs) noexcept nogil:
    """The pool of a part, and how many elements of the larger array and of the smaller one stand before it."""
    cdef Pool pool = call.pool[0]
    cdef Py_ssize_t first = part * call.images
    if not pool.channels_last:
        pool.images *= pool.channels
        pool.channels = 1
    pool.images = smaller(call.images, pool.images - first)
    inputs[0] = first * pool.channels * pool.rows.length * pool.columns.length
    outputs[0] = first * pool.channels * pool.rows.outputs * pool.columns.outputs
    return pool


cdef int pool_part(void *context, Py_ssize_t part) noexcept nogil:
    cdef const Call *call = <const Call *> context
    cdef Py_ssize_t itemsize = sizeof(float) if call.single else sizeof(double), inputs, outputs
    cdef Pool pool = some_images(call, part, &inputs, &outputs)
    return pool_of(
        &pool, call.is_max, call.single, <char *> call.source + inputs * itemsize,
        <char *> call.target + outputs * itemsize, NULL if call.indices == NULL else call.indices + outputs,
    )


cdef int spread_part(void *context, Py_ssize_t part) noexcept nogil:
    cdef const Call *call = <const Call *> context
    cdef Py_ssize_t inputs, outputs
    cdef Pool pool = some_images(call, part, &inputs, &outputs)
    if call.single:
        run_spread[float](&pool, <float *> call.source + outputs, <float *> call.target + inputs)
    else:
        run_spread[double](&pool, <double *> call.source + outputs, <double *> call.target + inputs)
    return 0


def max_pool2d(
    x, kernel_size, *, stride=None, padding=0, dilation=1, ceil_mode=False, layout="NCHW", return_indices=False, out=None
):
    cdef object output = None, indices = None
    cdef cnp.npy_intp shape[4]
    cdef bint last
    cdef Pool pool
    cdef cnp.ndarray y
    cdef bint fast = (
        is_image(x)
        and (return_indices is True or return_indices is False)
        and read_layout(layout, &last)
        and fits(image_of(<cnp.ndarray> x, last), last, kernel_size, stride, padding, dilation, ceil_mode, &pool)
    )
    if fast:
        set_shape(shape, pooled(&pool), last)
    if fast and (out is None or is_result(out, shape, <cnp.ndarray> x)):
        y = PyArray_EMPTY(4, shape, PyArray_TYPE(<cnp.ndarray> x), 0) if out is None else <cnp.ndarray> out
        if return_indices is True:
            indices = PyArray_EMPTY(4, shape, cnp.NPY_INT64, 0)
    else:
        x, rows, columns, last, output, indices = checks.max_pool2d(
            x, kernel_size, stride, padding, dilation, ceil_mode, layout, return_indices, out
        )
        take_checked(&pool, image_of(<cnp.ndarray?> x, last), rows, columns, last)
        y = <cnp.ndarray?> output.array
    call_pool(&pool, True, <cnp.ndarray> x, y, indices)
    result = y if output is None else output.deliver()
    return result if indices is None else (result, indices)


def avg_pool2d(
    x, kernel_size, *, stride=None, padding=0, ceil_mode=False, count_include_pad=True, layout="NCHW", out=None
):
    cdef object output = None
    cdef cnp.npy_intp shape[4]
    cdef bint last
    cdef Pool pool
    cdef cnp.ndarray y
    cdef bint fast = (
        is_image(x)
        and (count_include_pad is True or count_include_pad is False)
        and read_layout(layout, &last)
        and fits(image_of(<cnp.ndarray> x, last), last, kernel_size, stride, padding, 1, ceil_mode, &pool)
    )
    if fast:
        set_shape(shape, pooled(&pool), last)
    if fast and (out is None or is_result(out, shape, <cnp.ndarray> x)):
        y = PyArray_EMPTY(4, shape, PyArray_TYPE(<cnp.ndarray> x), 0) if out is None else <cnp.ndarray> out
        pool.counts_padding = count_include_pad is True
    else:
        x, rows, columns, counts, last, output = checks.avg_pool2d(
            x, kernel_size, stride, padding, ceil_mode, count_include_pad, layout, out
        )
        take_checked(&pool, image_of(<cnp.ndarray?> x, last), rows, columns, last)
        pool.counts_padding = counts
        y = <cnp.ndarray?> output.array
    call_pool(&pool, False, <cnp.ndarray> x, y, None)
    return y if output is None else output.deliver()


cdef bint read_image(object input_shape, bint channels_last, Image *image) noexcept:
    """Whether `input_shape` is a tuple of four ints; the image it describes."""
    cdef Py_ssize_t length[4]
    cdef int axis
    if type(input_shape) is not tuple or len(<tuple> input_shape) != 4:
        return False
    for axis in range(4):
        if not read_integer((<tuple> input_shape)[axis], 0, &length[axis]):
            return False
    image[0] = Image(length[0], length[1], length[2], length[3])
    if channels_last:
        image[0] = Image(length[0], length[3], length[1], length[2])
    return not is_many(image.n, image.c, image.h, image.w)


def avg_pool2d_backward(
    grad_out, input_shape, kernel_size, *, stride=None, padding=0, ceil_mode=False, count_include_pad=True,
    layout="NCHW", out=None
):
    cdef object output = None
    cdef cnp.npy_intp shape[4]
    cdef cnp.npy_intp pooled_shape[4]
    cdef bint last
    cdef Image image
    cdef Pool pool
    cdef cnp.ndarray grad_x
    cdef bint fast = (
        is_image(grad_out)
        and (count_include_pad is True or count_include_pad is False)
        and read_layout(layout, &last)
        and read_image(input_shape, last, &image)
        and fits(image, last, kernel_size, stride, padding, 1, ceil_mode, &pool)
    )
    if fast:
        set_shape(shape, image, last)
        set_shape(pooled_shape, pooled(&pool), last)
        fast = has_shape(<cnp.ndarray> grad_out, 4, pooled_shape)
    if fast and (out is None or is_result(out, shape, <cnp.ndarray> grad_out)):
        grad_x = PyArray_EMPTY(4, shape, PyArray_TYPE(<cnp.ndarray> grad_out), 0) if out is None else <cnp.ndarray> out
        pool.counts_padding = count_include_pad is True
    else:
        grad_out, rows, columns, counts, last, output = checks.avg_pool2d_backward(
            grad_out, input_shape, kernel_size, stride, padding, ceil_mode, count_include_pad, layout, out
        )
        grad_x = <cnp.ndarray?> output.array
        take_checked(&pool, image_of(grad_x, last), rows, columns, last)
        pool.counts_padding = counts
    cdef Call call = Call(
        &pool, False, PyArray_TYPE(grad_x) == cnp.NPY_FLOAT32, 0, PyArray_DATA(<cnp.ndarray?> grad_out),
        PyArray_DATA(grad_x), NULL,
    )
    cdef int failed
    with nogil:
        failed = run(spread_part, &call, divide(&call), team(work_of(&pool), SHARE))
    raise_if(failed, "avg_pool2d_backward")
    return grad_x if output is None else output.deliver()


cdef void run_spread(const Pool *pool, const real *grad_out, real *grad_x) noexcept nogil:
    if pool.channels_last:
        spread_pixels(pool, grad_out, grad_x)
    else:
        spread_planes(pool, grad_out, grad_x)


cdef bint are_inside(const int64_t *indices, Py_ssize_t n, int64_t size) noexcept nogil:
    """Whether every index is from 0 to size - 1."""
    cdef Py_ssize_t i
    cdef bint outside = False
    for i in range(n):
        outside |= (indices[i] < 0) | (indices[i] >= size)
    return not outside


cdef bint spread_lines(
    const real *grad_out, const int64_t *indices, Py_ssize_t line, Py_ssize_t first, Py_ssize_t end, Py_ssize_t width,
    real *grad_x,
) noexcept nogil:
    """The windows of 2 x 2 in the rows first .. end; whether they are."""
    cdef Py_ssize_t at = 2 * first * line
    grad_out += first * width
    indices += first * width
    if real is float:
        return fnn_pool_spread_2x2_f32(grad_out, indices, at, line, end - first, width, grad_x + at)
    else:
        return fnn_pool_spread_2x2_f64(grad_out, indices, at, line, end - first, width, grad_x + at)


cdef bint spread_2x2(
    const real *grad_out, const int64_t *indices, Image image, Image windows, real *grad_x
) noexcept nogil:
    """A plane's gradient where its windows are the usual ones of 2 x 2; False, and nothing promised, elsewhere."""
    cdef Py_ssize_t line, end = 2 * windows.h * image.w
    if not (
        spread_lines(grad_out, indices, image.w, 0, 1, windows.w, grad_x)  # which tells most that are not
        and spread_lines(grad_out, indices, image.w, 1, windows.h, windows.w, grad_x)
    ):
        return False
    if image.w % 2:
        for line in range(2 * windows.h):
            grad_x[(line + 1) * image.w - 1] = 0
    memset(grad_x + end, 0, (image.h * image.w - end) * sizeof(real))
    return True


cdef bint spread_3x3(
    const real *grad_out, const int64_t *indices, Image image, Image windows, real *grad_x
) noexcept nogil:
    """The same where they are 3 x 3 with a stride of 2 and a padding of 1, in float32."""
    if real is float:
        return (
            image.h % 2 == 0 and image.w % 2 == 0
            and fnn_pool_spread_3x3_f32(grad_out, indices, windows.h, windows.w, grad_x)
        )
    else:
        return False


cdef int scatter(
    const real *grad_out, const int64_t *indices, Image image, Image windows, bint channels_last, bint checked,
    real *grad_x,
) noexcept nogil:
    """Add each window's gradient at its maximum, image by image or plane by plane while it is in cache."""
    cdef Py_ssize_t one, i, c, n, size, stride = 1, images = image.n if channels_last else image.n * image.c
    cdef bint may_be_2x2 = (
        not channels_last and windows.h == image.h // 2 and windows.w == image.w // 2 and windows.h > 0
        and (fnn_pool_fits_spread_f32(windows.w) if real is float else fnn_pool_fits_spread_f64(windows.w))
        and windows.w < PAIRS
    )
    cdef bint may_be_3x3 = may_be_2x2
    if channels_last:
        stride = image.c
    size = image.h * image.w * stride
    n = windows.h * windows.w * stride
    for one in range(images):
        may_be_2x2 = may_be_2x2 and spread_2x2(grad_out, indices, image, windows, grad_x)
        if not may_be_2x2:
            may_be_3x3 = may_be_3x3 and spread_3x3(grad_out, indices, image, windows, grad_x)
        if not (may_be_2x2 or may_be_3x3):
            if not checked and not are_inside(indices, (images - one) * n, <int64_t> (image.h * image.w)):
                return OUTSIDE
            checked = True
            memset(grad_x, 0, size * sizeof(real))
            if channels_last:
                for i in range(windows.h * windows.w):
                    for c in range(stride):
                        grad_x[indices[i * stride + c] * stride + c] += grad_out[i * stride + c]
            else:
                for i in range(n):
                    grad_x[indices[i]] += grad_out[i]
        grad_x += size
        grad_out += n
        indices += n
    return 0


cdef struct Scatter:
    bint single, channels_last
    bint checked        # whether every index is known to be inside of its plane
    Image image, windows
    Py_ssize_t images   # of a part
    const void *grad_out
    const int64_t *indices
    void *grad_x


cdef int scatter_part(void *context, Py_ssize_t part) noexcept nogil:
    """Some images, or planes: a plane is an image by itself where channels are first. OUTSIDE where an index is."""
    cdef const Scatter *call = <const Scatter *> context
    cdef Image image = call.image
    cdef Py_ssize_t first = part * call.images, at, to
    if not call.channels_last:
        image.n *= image.c
        image.c = 1
    image.n = smaller(call.images, image.n - first)
    at = first * image.c * call.windows.h * call.windows.w
    to = first * image.c * image.h * image.w
    if call.single:
        return scatter[float](
            <const float *> call.grad_out + at, call.indices + at, image, call.windows, call.channels_last,
            call.checked, <float *> call.grad_x + to,
        )
    return scatter[double](
        <const double *> call.grad_out + at, call.indices + at, image, call.windows, call.channels_last, call.checked,
        <double *> call.grad_x + to,
    )


def max_pool2d_backward(grad_out, indices, input_shape, *, layout="NCHW", out=None):
    cdef object output = None
    cdef cnp.npy_intp shape[4]
    cdef bint last
    cdef Image image, windows
    cdef cnp.ndarray grad_x
    cdef Scatter call
    call.checked = False
    cdef bint fast = (
        is_image(grad_out)
        and is_plain_of(indices, cnp.NPY_INT64)
        and same_shape(<cnp.ndarray> grad_out, <cnp.ndarray> indices)
        and read_layout(layout, &last)
        and read_image(input_shape, last, &image)
    )
    if fast:
        windows = image_of(<cnp.ndarray> grad_out, last)
        set_shape(shape, image, last)
        fast = windows.n == image.n and windows.c == image.c
        if fast and out is not None:  # which is not touched unless all is well
            fast = call.checked = are_inside(
                <int64_t *> PyArray_DATA(<cnp.ndarray> indices), PyArray_SIZE(<cnp.ndarray> indices), image.h * image.w
            )
    if fast and (
        out is None
        or (is_result(out, shape, <cnp.ndarray> grad_out) and are_apart(<cnp.ndarray> out, <cnp.ndarray> indices))
    ):
        grad_x = PyArray_EMPTY(4, shape, PyArray_TYPE(<cnp.ndarray> grad_out), 0) if out is None else <cnp.ndarray> out
    else:
        grad_out, indices, last, output = checks.max_pool2d_backward(grad_out, indices, input_shape, layout, out)
        call.checked = True
        grad_x = <cnp.ndarray?> output.array
        image, windows = image_of(grad_x, last), image_of(<cnp.ndarray?> grad_out, last)
    cdef Py_ssize_t images = image.n if last else image.n * image.c
    cdef int failed
    call.single, call.channels_last = PyArray_TYPE(grad_x) == cnp.NPY_FLOAT32, last
    call.image, call.windows = image, windows
    call.grad_out, call.indices = PyArray_DATA(<cnp.ndarray> grad_out), <int64_t *> PyArray_DATA(<cnp.ndarray?> indices)
    call.grad_x = PyArray_DATA(grad_x)
    call.images = larger(PART // larger(image.h * image.w * (image.c if last else 1), 1), 1)
    with nogil:
        failed = run(
            scatter_part, &call, (images + call.images - 1) // call.images,
            team(<double> PyArray_SIZE(grad_x), SHARE),
        )
    if failed == OUTSIDE:
        checks.max_pool2d_backward(grad_out, indices, input_shape, layout, out)  # raises
    raise_if(failed, "max_pool2d_backward")
    return grad_x if output is None else output.deliver()
