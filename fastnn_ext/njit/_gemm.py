"""Matrix products: the blocking, the packing and the choice of path around the register tiles of `_tiles`.

`matmul` multiplies matrices and knows the paths that pack nothing. `multiply_lines` multiplies where the terms of
a sum lie anywhere in memory, as those of a convolution do.
"""

import numpy as np

from ._options import njit
from ._tiles import (
    DOT_COLUMNS,
    DOT_ROWS,
    HIGH_ROWS,
    HIGH_VECTORS,
    MASKED_LOADS,
    ONE_ROW_COLUMNS,
    ONE_ROW_VECTORS,
    TILE_ROWS,
    TILE_VECTORS,
    VECTOR_BYTES,
    Matrix,
    copy_panels,
    dot_tile,
    multiply_panel,
    offset,
    one_run,
    pointer,
    transpose_tile,
    zero,
)

# Terms that a tile adds up at a time. The rows of a that belong to it stay in the first-level cache.
_DEPTH = 512
# A single row reads b once, as this many streams.
_ONE_ROW_DEPTH = 32
# A packed block of a or b stays in the second-level cache.
_BLOCK_BYTES = 768 * 1024
# Columns of b that fill at most this much of the first-level cache stay there while rows of a pass; these are
# only so many that their part of c, whose rows are then written piece by piece, stays in the second-level cache.
_COLUMN_BYTES = 32 * 1024
_RESULT_BYTES = 256 * 1024
# Up to so many rows, or bytes, copying b costs more than the scattered reads that it saves; twice as many rows where
# the next row of b is within a page.
_IN_PLACE_ROWS = 48
_IN_PLACE_BYTES = 128 * 1024
_PAGE_BYTES = 4096

_inlined = njit(inline="always")
# Called from njit code only: without the wrappers for Python and C, compilation is faster.
internal = njit(no_cpython_wrapper=True, no_cfunc_wrapper=True)


@_inlined
def part(matrix, i, j):
    """The part of a matrix that begins at element (i, j)."""
    return Matrix(offset(matrix.data, i * matrix.row + j * matrix.col), matrix.row, matrix.col)


@_inlined
def _transposed(matrix):
    return Matrix(matrix.data, matrix.col, matrix.row)


@internal
def _even_block(size, most, unit):
    """The length of blocks, multiples of `unit` of about `most`, that divide `size` as evenly as possible."""
    blocks = max(1, -(-size // max(most, unit)))
    return max(1, -(-size // (blocks * unit))) * unit


# ----------------------------------------------------------------------------------------------------
# Operands


@internal
def pack(source, depth, columns, width, panel):
    """Write source[:depth, :columns], whose rows or columns are contiguous, as panels of depth x width.

    Columns are written as whole square blocks of vectors: the caller leaves room for them at the end.
    """
    target = Matrix(pointer(panel), width, 1)
    if source.col == 1:
        copy_panels((depth, columns), source, width * depth, target)
        return
    lanes = VECTOR_BYTES // panel.itemsize
    for j in range(0, columns, lanes):
        count = min(lanes, columns - j)
        into = Matrix(offset(target.data, j // width * width * depth + j % width), width, 1)
        for p in range(0, depth, lanes):
            block = Matrix(offset(source.data, j * source.col + p), source.col, 1)
            transpose_tile((count, min(lanes, depth - p)), block, part(into, p, 0))


@internal
def _rows_of(a, i, rows, p, depth, panel):
    """(matrix, step): the Matrix of a[i:i+rows, p:p+depth] and the distance to its next TILE_ROWS rows.

    In place, or written to `panel` if that has any room: tile by tile, each as depth x TILE_ROWS.
    """
    view = part(a, i, p)
    if panel.size == 0:
        return view, TILE_ROWS * a.row
    pack(_transposed(view), depth, rows, TILE_ROWS, panel)
    return Matrix(pointer(panel), 1, TILE_ROWS), TILE_ROWS * depth


@internal
def _columns_of(b, p, depth, j, columns, width, panel):
    """(matrix, step): the Matrix of b[p:p+depth, j:j+columns] and the distance to its next `width` columns.

    In place, or written to `panel` if that has any room: `width` by `width` columns, each as depth x width.
    """
    view = part(b, p, j)
    if panel.size == 0:
        return view, width
    pack(view, depth, columns, width, panel)
    return Matrix(pointer(panel), width, 1), width * depth


# ----------------------------------------------------------------------------------------------------
# Products


@internal
def _multiply_blocks(m, n, k, a, b, start, c, width, blocks, a_panel, b_panel):
    """c = start + a @ b, in blocks of (rows, columns, depth), of which `step` rows meet all columns at a time."""
    row_block, column_block, depth_block, step = blocks
    for p in range(0, max(k, 1), depth_block):
        depth = min(depth_block, k - p)
        for j in range(0, n, column_block):
            columns = min(column_block, n - j)
            right, next_columns = _columns_of(b, p, depth, j, columns, width, b_panel)
            for i in range(0, m, row_block):
                rows = min(row_block, m - i)
                left, next_rows = _rows_of(a, i, rows, p, depth, a_panel)
                for r in range(0, rows, step):
                    a_rows = Matrix(offset(left.data, r // TILE_ROWS * next_rows), left.row, left.col)
                    b_columns = right
                    for q in range(0, columns, width):
                        shape = (min(step, rows - r), min(width, columns - q), depth)
                        initial, target = part(start, i + r, j + q), part(c, i + r, j + q)
                        multiply_panel(
                            shape, TILE_ROWS, a_rows, next_rows, b_columns, one_run(), initial, target
                        )
                        b_columns = Matrix(offset(b_columns.data, next_columns), right.row, 1)
        start = c


@internal
def multiply(m, n, k, a, b, start, c, pack_a, pack_b, empty):
    """c = start + a @ b with operands packed or in place.

    The columns of c are contiguous, and those of b in place. `empty` is an array of the dtype and no
    elements.
    """
    itemsize = empty.itemsize
    lanes = VECTOR_BYTES // itemsize
    one_row = m == 1 and not pack_b
    width = (ONE_ROW_VECTORS if one_row else TILE_VECTORS) * lanes
    most_depth = _ONE_ROW_DEPTH if one_row else _DEPTH if pack_b else _COLUMN_BYTES // (width * itemsize)
    depth_block = _even_block(k, most_depth, 1)
    column_block = _even_block(n, _BLOCK_BYTES // (depth_block * itemsize), width)
    if depth_block * width * itemsize <= _COLUMN_BYTES:
        # Columns of b stay in the first-level cache and meet all rows of a block.
        step = row_block = _even_block(m, _RESULT_BYTES // (column_block * itemsize), TILE_ROWS)
    else:
        # TILE_ROWS rows of a stay there and meet all columns.
        step, row_block = TILE_ROWS, _even_block(m, _BLOCK_BYTES // (depth_block * itemsize), TILE_ROWS)
    a_panel = b_panel = empty
    if pack_a:
        a_panel = np.empty(row_block * depth_block, empty.dtype)
    if pack_b:
        # Room for the last square block of a transposed operand, and for vectors in the last row of a panel.
        b_panel = np.empty((column_block + width) * depth_block + lanes * width, empty.dtype)
    blocks = (row_block, column_block, depth_block, step)
    _multiply_blocks(m, n, k, a, b, start, c, width, blocks, a_panel, b_panel)


@internal
def multiply_lines(
    lines, shape, a, a_line, b, b_line, a_runs, b_runs, start, start_line, c, c_line, itemsize
):
    """c[l] = start[l] + sum of the runs of a[l] @ b[l] for `lines` products of shape (rows, columns, depth).

    Line l is so far from line 0, as run i is a_runs[i] and b_runs[i] elements from run 0. The columns of b and
    c are contiguous.
    """
    rows, columns, depth = shape
    lanes = VECTOR_BYTES // itemsize
    width = _even_block(columns, (ONE_ROW_VECTORS if rows == 1 else HIGH_VECTORS) * lanes, lanes)
    together = max(1, _DEPTH // max(depth, 1))
    for first in range(0, max(a_runs.size, 1), together):
        number = min(together, a_runs.size - first)
        runs = number, offset(pointer(a_runs), first), offset(pointer(b_runs), first)
        for line in range(lines):
            left = Matrix(offset(a.data, line * a_line), a.row, a.col)
            right = Matrix(offset(b.data, line * b_line), b.row, 1)
            initial = Matrix(offset(start.data, line * start_line), start.row, start.col)
            target = Matrix(offset(c.data, line * c_line), c.row, 1)
            for j in range(0, columns, width):
                piece = rows, min(width, columns - j), depth
                from_start, to = part(initial, 0, j), part(target, 0, j)
                multiply_panel(
                    piece, HIGH_ROWS, left, HIGH_ROWS * a.row, part(right, 0, j), runs, from_start, to
                )
        start, start_line = c, c_line


@internal
def _multiply_dots(m, n, k, a, b, start, c, lanes):
    """c = start + a @ b for a and b contiguous along the summed axis: no packing, but sums across vectors."""
    depth_block = _even_block(k, 128 * lanes, lanes)
    height, width = (1, ONE_ROW_COLUMNS) if m == 1 else (DOT_ROWS, DOT_COLUMNS)
    for p in range(0, max(k, 1), depth_block):
        depth = min(depth_block, k - p)
        for j in range(0, n, width):
            b_columns = _transposed(part(b, p, j))
            for i in range(0, m, height):
                shape = (min(height, m - i), min(width, n - j), depth)
                dot_tile(shape, part(a, i, p), b_columns, part(start, i, j), part(c, i, j))
        start = c


@internal
def matmul(m, n, k, a, b, start, c, empty):
    """c = start + a @ b for a and b with contiguous rows or columns, and c with contiguous columns.

    `start` is a Matrix with column stride 1, or 0 where one value is repeated along each row. It may be c.
    """
    if n == 1 and c.row == 1:
        # A column is computed as a row.
        m, n = n, m
        a, b, start, c = _transposed(b), _transposed(a), _transposed(start), Matrix(c.data, n, 1)
    if m == 0 or n == 0:
        return
    lanes = VECTOR_BYTES // empty.itemsize
    # Packing b costs about as much as the sums across the vectors of six rows, and some time in any case.
    if b.col != 1 and b.row == 1 and a.col == 1 and (m == 1 or n * (6 * m - k) < 400):
        _multiply_dots(m, n, k, a, b, start, c, lanes)
        return
    in_place_rows = _IN_PLACE_ROWS * (2 if b.row * empty.itemsize <= _PAGE_BYTES else 1)
    large = m > in_place_rows and n * k * empty.itemsize > _IN_PLACE_BYTES
    pack_b = b.col != 1 or large or not (MASKED_LOADS or n % lanes == 0)
    pack_a = a.col != 1 and n > 4 * TILE_VECTORS * lanes and m * k * empty.itemsize > _COLUMN_BYTES
    multiply(m, n, k, a, b, start, c, pack_a, pack_b, empty)


@_inlined
def _product(m, n, k, a, b, bias, out, accumulate):
    """out = a @ b + what the sums begin with: what `out` holds, the bias of each column, or zero."""
    c = Matrix(pointer(out), n, 1)
    if accumulate:
        start = c
    elif bias.size > 0:
        start = Matrix(pointer(bias), 0, 1)
    else:
        start = Matrix(zero(c.data), 0, 0)
    matmul(m, n, k, a, b, start, c, bias[:0])


@njit
def matmul_nt(a, b, bias, out, accumulate):
    """out[m, n] = a[m, k] @ b[n, k].T, plus bias[n] unless that is empty; or added to `out`."""
    (m, k), n = a.shape, b.shape[0]
    _product(m, n, k, Matrix(pointer(a), k, 1), Matrix(pointer(b), 1, k), bias, out, accumulate)


@njit
def matmul_nn(a, b, bias, out, accumulate):
    """out[m, n] = a[m, k] @ b[k, n], plus bias[n] unless that is empty; or added to `out`."""
    (m, k), n = a.shape, b.shape[1]
    _product(m, n, k, Matrix(pointer(a), k, 1), Matrix(pointer(b), n, 1), bias, out, accumulate)


@njit
def matmul_tn(a, b, bias, out, accumulate):
    """out[m, n] = a[k, m].T @ b[k, n], plus bias[n] unless that is empty; or added to `out`."""
    (k, m), n = a.shape, b.shape[1]
    _product(m, n, k, Matrix(pointer(a), 1, m), Matrix(pointer(b), n, 1), bias, out, accumulate)
