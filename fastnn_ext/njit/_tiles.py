"""The innermost loops of the matrix product, written as LLVM vector code.

Numba's own vectoriser stops at 256 bits and cannot hold a block of the result in registers, which is what
makes a matrix product fast. So these loops are written here, for any vector length, and called as intrinsics;
everything around them is ordinary njit code.
"""

import ctypes
import inspect
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

from llvmlite import binding, ir
from numba import types
from numba.core import cgutils
from numba.core.compiler_lock import global_compiler_lock
from numba.core.registry import cpu_target
from numba.extending import intrinsic

_CODEGEN = cpu_target.target_context.codegen()
_FEATURES = set(_CODEGEN.magic_tuple()[2].split(","))
_MANY_REGISTERS = bool({"+avx512f", "+neon"} & _FEATURES)
VECTOR_BYTES = 64 if "+avx512f" in _FEATURES else 32 if "+avx" in _FEATURES else 16
# Without masked loads in the instruction set, the rows of b are read to the end of their last vector.
MASKED_LOADS = VECTOR_BYTES > 16
# Shapes whose sums stay in registers and leave some for the operands: rows and vectors of a tile of outer
# products, the same where columns are few, rows and columns of a tile of dot products. A single row is wider,
# because only many independent sums hide the latency of an addition.
TILE_ROWS, TILE_VECTORS = (6, 4) if _MANY_REGISTERS else (6, 2)
HIGH_ROWS, HIGH_VECTORS = (8, 3) if _MANY_REGISTERS else (6, 2)
DOT_ROWS, DOT_COLUMNS = (6, 4) if _MANY_REGISTERS else (2, 4)
ONE_ROW_COLUMNS = 8
ONE_ROW_VECTORS = 16 if _MANY_REGISTERS else 8

_INT = ir.IntType(64)
_VOID = ir.VoidType()


# ----------------------------------------------------------------------------------------------------
# Writing vector code


class _Vectors:
    """Writes loads, stores and arithmetic on vectors of `lanes` elements."""

    def __init__(self, builder: ir.IRBuilder, element: ir.Type, lanes: int):
        self.builder, self.lanes = builder, lanes
        self.itemsize = 4 if isinstance(element, ir.FloatType) else 8
        self.type = ir.VectorType(element, lanes)
        self.zero = ir.Constant(self.type, [0.0] * lanes)
        self._mask = ir.VectorType(ir.IntType(1), lanes)
        self._suffix = f"v{lanes}f{8 * self.itemsize}.p0"

    def shuffle(self, u: ir.Value, v: ir.Value, lanes: Sequence[int]) -> ir.Value:
        order = ir.Constant(ir.VectorType(ir.IntType(32), len(lanes)), list(lanes))
        return self.builder.shuffle_vector(u, v, order)

    def splat(self, scalar: ir.Value) -> ir.Value:
        empty = ir.Constant(ir.VectorType(scalar.type, self.lanes), ir.Undefined)
        return self.shuffle(self.builder.insert_element(empty, scalar, _INT(0)), empty, [0] * self.lanes)

    def first(self, count: ir.Value) -> ir.Value:
        """The mask of the first `count` lanes: none if it is negative, at most all."""
        lane = ir.Constant(ir.VectorType(_INT, self.lanes), list(range(self.lanes)))
        return self.builder.icmp_signed("<", lane, self.splat(count))

    def load(self, pointer: ir.Value, mask: ir.Value | None = None) -> ir.Value:
        """The vector at `pointer`; zero, and not read, where the mask is not set."""
        pointer = self.builder.bitcast(pointer, self.type.as_pointer())
        if mask is None:
            return self.builder.load(pointer, align=self.itemsize)
        signature = ir.FunctionType(self.type, [pointer.type, self._mask, self.type])
        return self._call("llvm.masked.load." + self._suffix, signature, [pointer, mask, self.zero])

    def store(self, value: ir.Value, pointer: ir.Value, mask: ir.Value | None = None) -> None:
        pointer = self.builder.bitcast(pointer, self.type.as_pointer())
        if mask is None:
            self.builder.store(value, pointer, align=self.itemsize)
        else:
            signature = ir.FunctionType(_VOID, [self.type, pointer.type, self._mask])
            self._call("llvm.masked.store." + self._suffix, signature, [value, pointer, mask])

    def prefetch(self, pointer: ir.Value, *, write: bool = False) -> None:
        """Fetch the cache line of what will be read, or written, at `pointer`."""
        flag, byte = ir.IntType(32), ir.IntType(8).as_pointer()
        signature = ir.FunctionType(_VOID, [byte, flag, flag, flag])
        arguments = [self.builder.bitcast(pointer, byte), flag(int(write)), flag(3), flag(1)]
        self._call("llvm.prefetch.p0", signature, arguments)

    def _call(self, name: str, signature: ir.FunctionType, arguments: Sequence[ir.Value]) -> ir.Value:
        function = cgutils.get_or_insert_function(self.builder.module, signature, name)
        return self.builder.call(function, arguments)

    def add(self, total: ir.Value, value: ir.Value) -> None:
        """*total += value."""
        self.builder.store(self.builder.fadd(self.builder.load(total), value, flags=("contract",)), total)

    def add_product(self, total: ir.Value, x: ir.Value, y: ir.Value) -> None:
        """*total += x * y, fused where the machine can: "contract" permits it, llvm.fma would demand it."""
        self.add(total, self.builder.fmul(x, y, flags=("contract",)))

    def sums_of_four(self, vectors: Sequence[ir.Value]) -> ir.Value:
        """The four numbers sum(vectors[0]) .. sum(vectors[3]), by folding all four at once."""
        pairs = [self._fold(u, v, (0, 4, 1, 5), (2, 6, 3, 7)) for u, v in (vectors[:2], vectors[2:])]
        total = self._fold(*pairs, (0, 1, 4, 5), (2, 3, 6, 7))
        half = self.lanes // 2
        while half >= 4:
            low, high = range(half), range(half, 2 * half)
            total = self.builder.fadd(self.shuffle(total, total, low), self.shuffle(total, total, high))
            half //= 2
        return total

    def _fold(self, u: ir.Value, v: ir.Value, low: Sequence[int], high: Sequence[int]) -> ir.Value:
        """The sum of two picks, alike in all groups of four lanes: 0-3 are from u's group, 4-7 from v's."""
        low, high = (
            [group + i % 4 + i // 4 * self.lanes for group in range(0, self.lanes, 4) for i in pick]
            for pick in (low, high)
        )
        return self.builder.fadd(self.shuffle(u, v, low), self.shuffle(u, v, high))


def _is_zero(builder: ir.IRBuilder, value: ir.Value) -> ir.Value:
    return builder.icmp_signed("==", value, _INT(0))


def _rows(builder: ir.IRBuilder, pointer: ir.Value, stride: ir.Value, count: int) -> list[ir.Value]:
    return [builder.gep(pointer, [builder.mul(stride, _INT(i))]) for i in range(count)]


def _clamped_rows(
    builder: ir.IRBuilder, pointer: Any, stride: Any, count: int, existing: Any
) -> list[ir.Value]:
    """Pointers to `count` rows, of which those that do not exist repeat the last: safe to read, of no use."""
    last = builder.sub(existing, _INT(1))
    indices = [builder.select(builder.icmp_signed("<", _INT(i), last), _INT(i), last) for i in range(count)]
    return [builder.gep(pointer, [builder.mul(stride, i)]) for i in indices]


def _add_start(simd: _Vectors, sums: Any, parts: Any, start: Any, row: Any, col: Any) -> None:
    """Add to the sums their initial values; all of a row have the same if col is zero."""
    builder = simd.builder
    sources = _rows(builder, start, row, len(sums))
    with builder.if_else(_is_zero(builder, col)) as (same, different):
        with same:
            for totals, source in zip(sums, sources, strict=True):
                value = simd.splat(builder.load(source))
                for total in totals:
                    simd.add(total, value)
        with different:
            for totals, source in zip(sums, sources, strict=True):
                for total, (at, mask) in zip(totals, parts, strict=True):
                    simd.add(total, simd.load(builder.gep(source, [at]), mask))


def _store(simd: _Vectors, sums: Any, parts: Any, c: Any, row: Any) -> None:
    builder = simd.builder
    for totals, target in zip(sums, _rows(builder, c, row, len(sums)), strict=True):
        for total, (at, mask) in zip(totals, parts, strict=True):
            simd.store(builder.load(total), builder.gep(target, [at]), mask)


# ----------------------------------------------------------------------------------------------------
# The functions. Their parameters from `builder` on are values: pointers to elements, and integers.

# Sums this long give c time to arrive.
_LONG_DEPTH = 16
# So many rows ahead the widest tiles, to which b comes from the second-level cache, fetch it.
_AHEAD = 4
_POINTERS = frozenset({"a", "b", "start", "c", "source", "target"})
_INT_POINTERS = frozenset({"a_runs", "b_runs"})


def _tile(
    element, lanes, rows, vectors, builder,
    tiles, columns, runs, a_runs, b_runs, depth, a, a_row, a_col, a_tile, b, b_row, start, start_row, start_col,
    c, c_row,
):  # fmt: skip
    """c = start + a @ b as sums of outer products, for `tiles` tiles one below the other.

    The terms are `runs` runs of `depth` each; run i is a_runs[i] and b_runs[i] elements from the first. The last
    vector of a row may be partly filled. In a, tiles are a_tile elements apart.
    """
    simd = _Vectors(builder, element, lanes)
    offsets = [_INT(v * lanes) for v in range(vectors)]
    last_mask = simd.first(builder.sub(columns, offsets[-1]))
    parts = [(at, last_mask if at is offsets[-1] else None) for at in offsets]
    sums = [[cgutils.alloca_once(builder, simd.type) for _ in parts] for _ in range(rows)]
    with cgutils.for_range(builder, tiles) as tile:
        first = builder.mul(tile.index, _INT(rows))
        a_rows = _rows(builder, builder.gep(a, [builder.mul(tile.index, a_tile)]), a_row, rows)
        target = builder.gep(c, [builder.mul(first, c_row)])
        for row in sums:
            for total in row:
                builder.store(simd.zero, total)
        with builder.if_then(builder.icmp_signed(">", builder.mul(runs, depth), _INT(_LONG_DEPTH))):
            # c comes from a far cache while the products are summed.
            for row_target in _rows(builder, target, c_row, rows):
                for at in offsets:
                    simd.prefetch(builder.gep(row_target, [at]), write=True)
        with cgutils.for_range(builder, runs) as run:
            a_run = builder.load(builder.gep(a_runs, [run.index]))
            b_run = builder.gep(b, [builder.load(builder.gep(b_runs, [run.index]))])
            run_rows = [builder.gep(source, [a_run]) for source in a_rows]
            with cgutils.for_range(builder, depth) as step:
                b_at = builder.gep(b_run, [builder.mul(step.index, b_row)])
                if vectors > HIGH_VECTORS:
                    ahead = builder.gep(b_run, [builder.mul(builder.add(step.index, _INT(_AHEAD)), b_row)])
                    for at in offsets:
                        simd.prefetch(builder.gep(ahead, [at]))
                a_at = builder.mul(step.index, a_col)
                b_vectors = [
                    simd.load(builder.gep(b_at, [at]), mask if MASKED_LOADS else None) for at, mask in parts
                ]
                for row, source in zip(sums, run_rows, strict=True):
                    factor = simd.splat(builder.load(builder.gep(source, [a_at])))
                    for total, vector in zip(row, b_vectors, strict=True):
                        simd.add_product(total, factor, vector)
        _add_start(
            simd, sums, parts, builder.gep(start, [builder.mul(first, start_row)]), start_row, start_col
        )
        _store(simd, sums, parts, target, c_row)


def _dot_tile(
    element, lanes, rows, width, builder,
    columns, depth, a, a_row, b, b_row, start, start_row, start_col, c, c_row,
):  # fmt: skip
    """c = start + a @ b.T, each number as a dot product: a vector of partial sums, summed in the end."""
    simd, quad = _Vectors(builder, element, lanes), _Vectors(builder, element, 4)
    sums = [[cgutils.alloca_once_value(builder, simd.zero) for _ in range(width)] for _ in range(rows)]
    a_rows = _rows(builder, a, a_row, rows)
    b_rows = _clamped_rows(builder, b, b_row, width, columns)

    def step(at, mask=None):
        b_vectors = [simd.load(builder.gep(source, [at]), mask) for source in b_rows]
        for row, source in zip(sums, a_rows, strict=True):
            factor = simd.load(builder.gep(source, [at]), mask)
            for total, vector in zip(row, b_vectors, strict=True):
                simd.add_product(total, factor, vector)

    steps = builder.sdiv(depth, _INT(lanes))
    with cgutils.for_range(builder, steps) as loop:
        step(builder.mul(loop.index, _INT(lanes)))
    done = builder.mul(steps, _INT(lanes))
    rest = builder.sub(depth, done)
    with builder.if_then(builder.icmp_signed(">", rest, _INT(0))):
        step(done, simd.first(rest))
    parts = [(_INT(j), quad.first(builder.sub(columns, _INT(j)))) for j in range(0, width, 4)]
    totals = [
        [
            cgutils.alloca_once_value(
                builder, simd.sums_of_four([builder.load(total) for total in row[j : j + 4]])
            )
            for j in range(0, width, 4)
        ]
        for row in sums
    ]
    _add_start(quad, totals, parts, start, start_row, start_col)
    _store(quad, totals, parts, c, c_row)


def _transpose(element, lanes, builder, rows, columns, source, source_row, target, target_row):
    """target = source.T for a square block; rows that do not exist repeat the last, columns are zero."""
    simd = _Vectors(builder, element, lanes)
    block = [cgutils.alloca_once(builder, simd.type) for _ in range(lanes)]
    pointers = _clamped_rows(builder, source, source_row, lanes, rows)
    with builder.if_else(builder.icmp_signed(">=", columns, _INT(lanes))) as (whole, partial):
        with whole:
            for pointer, variable in zip(pointers, block, strict=True):
                builder.store(simd.load(pointer), variable)
        with partial:
            mask = simd.first(columns)
            for pointer, variable in zip(pointers, block, strict=True):
                builder.store(simd.load(pointer, mask), variable)
    vectors = [builder.load(variable) for variable in block]
    # Butterflies: exchange the off-diagonal halves of blocks of 2 by 2, then 4 by 4, ... numbers.
    half = 1
    while half < lanes:
        low = [i if i & half == 0 else lanes + i - half for i in range(lanes)]
        high = [i + half if i & half == 0 else lanes + i for i in range(lanes)]
        for i in range(lanes):
            if i & half == 0:
                u, v = vectors[i], vectors[i + half]
                vectors[i], vectors[i + half] = simd.shuffle(u, v, low), simd.shuffle(u, v, high)
        half *= 2
    for vector, pointer in zip(vectors, _rows(builder, target, target_row, lanes), strict=True):
        simd.store(vector, pointer)


def _copy(
    element, lanes, builder, rows, columns, width, source, source_row, target, target_row, target_panel
):
    """Copy row after row, `width` columns each to the next panel; the last panel is filled up with zeros."""
    simd = _Vectors(builder, element, lanes)
    panels = builder.sdiv(builder.add(columns, builder.sub(width, _INT(1))), width)
    vectors = builder.sdiv(builder.add(width, _INT(lanes - 1)), _INT(lanes))
    with cgutils.for_range(builder, rows) as row:
        reading = builder.gep(source, [builder.mul(row.index, source_row)])
        writing = builder.gep(target, [builder.mul(row.index, target_row)])
        with cgutils.for_range(builder, panels) as panel:
            first = builder.mul(panel.index, width)
            panel_row = builder.gep(writing, [builder.mul(panel.index, target_panel)])
            with cgutils.for_range(builder, vectors) as vector:
                at = builder.mul(vector.index, _INT(lanes))
                column = builder.add(first, at)
                value = simd.load(builder.gep(reading, [column]), simd.first(builder.sub(columns, column)))
                simd.store(value, builder.gep(panel_row, [at]), simd.first(builder.sub(width, at)))


# ----------------------------------------------------------------------------------------------------
# Their compilation

_TILES = 0
_DOTS = HIGH_ROWS * ONE_ROW_VECTORS
_TRANSPOSE = _DOTS + DOT_ROWS
_COPY = _TRANSPOSE + 1


def _functions(element: ir.Type, lanes: int) -> dict[int, Callable[..., None]]:
    """By number in the table, what writes each function."""
    functions: dict[int, Callable[..., None]] = {}
    for rows in range(1, HIGH_ROWS + 1):
        most = ONE_ROW_VECTORS if rows == 1 else TILE_VECTORS if rows <= TILE_ROWS else HIGH_VECTORS
        for vectors in range(1, most + 1):
            number = _TILES + (rows - 1) * ONE_ROW_VECTORS + vectors - 1
            functions[number] = partial(_tile, element, lanes, rows, vectors)
    for rows in range(1, DOT_ROWS + 1):
        width = ONE_ROW_COLUMNS if rows == 1 else DOT_COLUMNS
        functions[_DOTS + rows - 1] = partial(_dot_tile, element, max(lanes, 4), rows, width)
    functions[_TRANSPOSE] = partial(_transpose, element, lanes)
    functions[_COPY] = partial(_copy, element, lanes)
    return functions


class _Table:
    """The addresses of the compiled functions for an element type.

    njit code refers to the table by its name, so that these functions are compiled once in a process and not
    again into everything that multiplies matrices. Code from a disk cache finds the table empty and has
    it filled.
    """

    def __init__(self, element: ir.Type, itemsize: int):
        self._element, self.lanes = element, VECTOR_BYTES // itemsize
        self._name = f"fastnn_tiles_{element}"
        self._library: Any = None
        self._addresses = (ctypes.c_void_p * (_COPY + 1))()
        self._fill = ctypes.CFUNCTYPE(None)(self.fill)
        binding.add_symbol(self._name, ctypes.addressof(self._addresses))
        binding.add_symbol(self._name + "_fill", ctypes.cast(self._fill, ctypes.c_void_p).value)

    def fill(self) -> None:
        with global_compiler_lock:
            if self._library is not None:
                return
            library = _CODEGEN.create_library(self._name)
            module = library.create_ir_module(self._name)
            functions = _functions(self._element, self.lanes)
            for number, write in functions.items():
                _, *parameters = inspect.signature(write).parameters
                kinds = [self._kind(name) for name in parameters]
                function = ir.Function(module, ir.FunctionType(_VOID, kinds), f"{self._name}_{number}")
                builder = ir.IRBuilder(function.append_basic_block())
                write(builder, *function.args)
                builder.ret_void()
            library.add_ir_module(module)
            library.finalize()
            for number in functions:
                self._addresses[number] = library.get_pointer_to_function(f"{self._name}_{number}")
            self._library = library

    def _kind(self, parameter: str) -> ir.Type:
        if parameter in _POINTERS:
            return self._element.as_pointer()
        return _INT.as_pointer() if parameter in _INT_POINTERS else _INT

    def call(self, builder: ir.IRBuilder, number: ir.Value, arguments: Sequence[ir.Value]) -> None:
        """Write a call of the function of that number."""
        self.fill()
        module = builder.module
        table = module.globals.get(self._name)
        if table is None:
            table = ir.GlobalVariable(module, ir.ArrayType(_INT, len(self._addresses)), self._name)
        entry = builder.gep(table, [_INT(0), number])
        missing, found = builder.append_basic_block("missing"), builder.append_basic_block("found")
        builder.cbranch(_is_zero(builder, builder.load(entry)), missing, found).set_weights([1, 99])
        builder.position_at_end(missing)
        fill = cgutils.get_or_insert_function(module, ir.FunctionType(_VOID, []), self._name + "_fill")
        builder.call(fill, [])
        # Once more if Ctrl-C came in between.
        builder.cbranch(_is_zero(builder, builder.load(entry)), missing, found)
        builder.position_at_end(found)
        signature = ir.FunctionType(_VOID, [argument.type for argument in arguments])
        builder.call(builder.inttoptr(builder.load(entry), signature.as_pointer()), arguments)


_TABLES = {types.float32: _Table(ir.FloatType(), 4), types.float64: _Table(ir.DoubleType(), 8)}


# ----------------------------------------------------------------------------------------------------
# What njit code calls


class Matrix(NamedTuple):
    """A matrix in memory: element (i, j) is data[i * row + j * col].

    `data` is a bare pointer, which nobody counts: whoever makes a Matrix keeps the memory alive.
    """

    data: Any
    row: int
    col: int


def _unpack(builder: ir.IRBuilder, signature: Any, values: Sequence[ir.Value]) -> tuple[Any, ...]:
    """The table of the dtype of the last argument, which is a Matrix, and all arguments, tuples as lists."""
    return _TABLES[signature.args[-1].types[0].dtype], *(
        cgutils.unpack_tuple(builder, value) if isinstance(kind, types.BaseTuple) else value
        for kind, value in zip(signature.args, values, strict=True)
    )


@intrinsic
def multiply_panel(typing_context, shape, height, a, a_tile, b, runs, start, c):
    """c = start + a @ b for shape (rows, columns, depth), in tiles of `height` rows.

    That is TILE_ROWS for at most TILE_VECTORS vectors of columns or HIGH_ROWS for HIGH_VECTORS; a single row may
    have ONE_ROW_VECTORS. The columns of b and c are contiguous; start has column stride
    1, or 0 to repeat one number along each row. In a, tiles are a_tile elements apart. `runs` is
    (number, pointer, pointer) for a sum of so many products, whose a and b are so far from the first: windows of
    an image are multiplied where they lie.
    """

    def codegen(context, builder, signature, values):
        table, (rows, columns, depth), height, a, a_tile, b, runs, start, c = _unpack(
            builder, signature, values
        )
        vectors = builder.sdiv(builder.add(columns, _INT(table.lanes - 1)), _INT(table.lanes))

        def call(tiles, tile_rows):
            first = builder.mul(tile_rows, _INT(ONE_ROW_VECTORS))
            number = builder.add(first, builder.sub(vectors, _INT(ONE_ROW_VECTORS + 1)))
            operands = [*runs, depth, *a, a_tile, *b[:2]]
            table.call(builder, number, [tiles, columns, *operands, *start, *c[:2]])

        whole, rest = builder.sdiv(rows, height), builder.srem(rows, height)
        with builder.if_then(builder.icmp_signed(">", whole, _INT(0))):
            call(whole, height)
        with builder.if_then(builder.icmp_signed(">", rest, _INT(0))):
            a[0] = builder.gep(a[0], [builder.mul(whole, a_tile)])
            for matrix in start, c:
                matrix[0] = builder.gep(matrix[0], [builder.mul(builder.sub(rows, rest), matrix[1])])
            call(_INT(1), rest)
        return context.get_dummy_value()

    return types.void(shape, types.intp, a, a_tile, b, runs, start, c), codegen


@intrinsic
def dot_tile(typing_context, shape, a, b, start, c):
    """c = start + a @ b.T for shape (rows, columns, depth).

    At most DOT_ROWS by DOT_COLUMNS, or 1 by ONE_ROW_COLUMNS. The columns of a, b and c are contiguous;
    start as in multiply_panel.
    """

    def codegen(context, builder, signature, values):
        table, (rows, columns, depth), a, b, start, c = _unpack(builder, signature, values)
        number = builder.add(rows, _INT(_DOTS - 1))
        table.call(builder, number, [columns, depth, *a[:2], *b[:2], *start, *c[:2]])
        return context.get_dummy_value()

    return types.void(shape, a, b, start, c), codegen


@intrinsic
def transpose_tile(typing_context, shape, source, target):
    """target = source.T for source of shape (rows, columns), both at most one vector long.

    The columns of both are contiguous. A whole square block of vectors is written: the caller leaves room.
    """

    def codegen(context, builder, signature, values):
        table, (rows, columns), source, target = _unpack(builder, signature, values)
        table.call(builder, _INT(_TRANSPOSE), [rows, columns, *source[:2], *target[:2]])
        return context.get_dummy_value()

    return types.void(shape, source, target), codegen


@intrinsic
def copy_panels(typing_context, shape, source, step, target):
    """Copy source, of shape (rows, columns), to panels of target.row columns, `step` elements apart.

    The columns of both are contiguous. The last panel is filled up with zeros.
    """

    def codegen(context, builder, signature, values):
        table, (rows, columns), source, step, target = _unpack(builder, signature, values)
        width = target[1]
        table.call(builder, _INT(_COPY), [rows, columns, width, *source[:2], *target[:2], step])
        return context.get_dummy_value()

    return types.void(shape, source, step, target), codegen


@intrinsic
def pointer(typing_context, array):
    """A pointer to the first element of an array of any layout; the array must outlive it."""

    def codegen(context, builder, signature, values):
        return context.make_array(array)(context, builder, values[0]).data

    return types.CPointer(array.dtype)(array), codegen


@intrinsic
def offset(typing_context, base, count):
    """The pointer `count` elements further."""

    def codegen(context, builder, signature, values):
        return builder.gep(values[0], [values[1]])

    return base(base, types.intp), codegen


@intrinsic
def one_run(typing_context):
    """The `runs` of a sum that is a single product."""
    integers = types.CPointer(types.int64)

    def codegen(context, builder, signature, values):
        none = cgutils.global_constant(builder, "one_run", _INT(0))
        return cgutils.pack_struct(builder, [_INT(1), none, none])

    return types.Tuple([types.int64, integers, integers])(), codegen


@intrinsic
def zero(typing_context, base):
    """A pointer to one zero of the type that `base` points to."""

    def codegen(context, builder, signature, values):
        number = ir.Constant(context.get_data_type(base.dtype), 0.0)
        return cgutils.global_constant(builder, "zero", number)

    return base(base), codegen
