"""A vector of 128 bytes as a numba type, and the operations on it that kernels need.

Numba leaves vectorising to LLVM, which gives up on a maximum, on a sum that must keep its order, and
on arrays that may overlap (``out=x``). Explicit vectors need none of its consent: one lane count at
every instruction set, so one order of summation, and code for 128, 256 or 512 bits from the same
source. A vector takes two or more registers, whose dependent steps fill each other's gaps. LLVM
fuses ``fma`` where the CPU can, and contracts nothing else.
"""

import operator

from llvmlite import ir
from numba.core import cgutils, types
from numba.core.typing.templates import AbstractTemplate, infer_global, signature
from numba.extending import intrinsic, lower_builtin, models, register_model

BYTES = 128
_CACHE_LINE = 64
_PIECE_BYTES = 16


class Vector(types.Type):
    """As many lanes of a float dtype as fill `BYTES`."""

    def __init__(self, dtype):
        self.dtype = dtype
        self.lanes = BYTES * 8 // dtype.bitwidth
        super().__init__(f"Vector({dtype} x {self.lanes})")


@register_model(Vector)
class _VectorModel(models.PrimitiveModel):
    def __init__(self, manager, vector):
        element = manager.lookup(vector.dtype).get_value_type()
        super().__init__(manager, vector, ir.VectorType(element, vector.lanes))


# Floats that differ by dtype. LN2_HI ends in so many zeros that k * LN2_HI is exact for every k that
# exp_shifted meets; the low bits of EXP_MAGIC hold the exponent's bias and POWER, 2**POWER being the
# factor that keeps its results from becoming subnormal. ABOVE is more than any of them, or 0 where sums
# need no such number. OFFSET and EXP are those of src_cy/real.hpp, LOG_LN2_HI to LOG those of fdlibm's
# s_log1p.c and its float twin (Sun Microsystems, 1993).
_CONSTANTS = {
    types.float32: {
        "LOG2E": 1.4426950408889634,
        "LN2_HI": 0.693145751953125,
        "LN2_LO": 1.428606820309417e-06,
        "ROUND": 1.5 * 2**23,
        "EXP_MAGIC": 1.5 * 2**23 + 127 + 64,
        "POWER_INVERSE": 2.0**-64,
        "ALL_DIGITS": 2.0**-103,  # of a pair that is less, the second part may be subnormal
        "ABOVE": 0.0,
        "EXP_LOWEST": -128.0,
        "NEAR": 256.0,
        "OFFSET": 0.0,
        "EXP": (1.3821273e-3, 8.368681e-3, 4.1668262e-2, 1.6666521e-1, 4.9999994e-1),
        "LOG_LN2_HI": 6.9313812256e-01,
        "LOG_LN2_LO": 9.0580006145e-06,
        "LOG": (0.24279078841, 0.28498786688, 0.40000972152, 0.66666662693),
    },
    types.float64: {
        "LOG2E": 1.4426950408889634,
        "LN2_HI": 6.93147180369123816490e-01,
        "LN2_LO": 1.90821492927058770002e-10,
        "ROUND": 1.5 * 2**52,
        "EXP_MAGIC": 1.5 * 2**52 + 1023 + 512,
        "POWER_INVERSE": 2.0**-512,
        "ALL_DIGITS": 2.0**-970,
        "ABOVE": 2.0**513,
        "EXP_LOWEST": -800.0,
        "NEAR": 2048.0,
        "OFFSET": 0.05889151782819173,
        "EXP": (
            2.6457316079685612e-08,
            2.759078955918679e-07,
            2.7554116964701935e-06,
            2.4801575279892647e-05,
            1.984127249705058e-04,
            1.3888888885813047e-03,
            8.333333332409704e-03,
            4.166666666668427e-02,
            1.666666666666776e-01,
            4.999999999999999e-01,
        ),
        "LOG_LN2_HI": 6.93147180369123816490e-01,
        "LOG_LN2_LO": 1.90821492927058770002e-10,
        "LOG": (
            1.479819860511658591e-01,
            1.531383769920937332e-01,
            1.818357216161805012e-01,
            2.222219843214978396e-01,
            2.857142874366239149e-01,
            3.999999999940941908e-01,
            6.666666666666735130e-01,
        ),
    },
}
_MANTISSA_BITS = {types.float32: 23, types.float64: 52}
_SQRT_HALF_BITS = {types.float32: 0x3F3504F3, types.float64: 0x3FE6A09E667F3BCD}


def _infix(function, instruction):
    """Let ``function`` of two vectors emit one LLVM instruction."""

    class Template(AbstractTemplate):
        def generic(self, args, kws):
            if len(args) == 2 and isinstance(args[0], Vector) and args[0] == args[1]:
                return signature(args[0], *args)
            return None

    infer_global(function)(Template)

    @lower_builtin(function, Vector, Vector)
    def lower(context, builder, sig, args):
        return getattr(builder, instruction)(*args)


_infix(operator.add, "fadd")
_infix(operator.sub, "fsub")
_infix(operator.mul, "fmul")
_infix(operator.truediv, "fdiv")


def _constant(vector, value):
    element = ir.FloatType() if vector.dtype == types.float32 else ir.DoubleType()
    return ir.Constant(ir.VectorType(element, vector.lanes), [ir.Constant(element, value)] * vector.lanes)


def _splat(builder, scalar, lanes):
    vector = ir.VectorType(scalar.type, lanes)
    one = builder.insert_element(ir.Constant(vector, ir.Undefined), scalar, ir.IntType(32)(0))
    zeros = ir.Constant(ir.VectorType(ir.IntType(32), lanes), [0] * lanes)
    return builder.shuffle_vector(one, one, zeros)


def _fmuladd(builder, a, b, c):
    name = f"llvm.fmuladd.v{a.type.count}{'f32' if a.type.element == ir.FloatType() else 'f64'}"
    function = cgutils.get_or_insert_function(builder.module, ir.FunctionType(a.type, [a.type] * 3), name)
    return builder.call(function, (a, b, c))


def _two_sum(builder, a, b):
    """``a + b`` and its rounding error (Knuth)."""
    s = builder.fadd(a, b)
    z = builder.fsub(s, a)
    return s, builder.fadd(builder.fsub(a, builder.fsub(s, z)), builder.fsub(b, z))


def _fast_two_sum(builder, a, b):
    """The same where ``abs(b) <= abs(a)`` (Dekker)."""
    s = builder.fadd(a, b)
    return s, builder.fadd(builder.fsub(a, s), b)


def _element(context, builder, array, value, i):
    data = context.make_array(array)(context, builder, value).data
    return builder.gep(data, [i])


def _masked(builder, vector, operation):
    """The ``llvm.masked`` function of that name on lanes of ``vector``."""
    i32, mask = ir.IntType(32), ir.VectorType(ir.IntType(1), vector.count)
    pointer = vector.as_pointer()
    kind = "f32" if vector.element == ir.FloatType() else "f64"
    name = f"llvm.masked.{operation}.v{vector.count}{kind}.p0"
    of = {
        "load": ir.FunctionType(vector, [pointer, i32, mask, vector]),
        "store": ir.FunctionType(ir.VoidType(), [vector, pointer, i32, mask]),
    }
    return cgutils.get_or_insert_function(builder.module, of[operation], name)


def _first_lanes(builder, live, lanes):
    i32 = ir.IntType(32)
    numbers = ir.Constant(ir.VectorType(i32, lanes), list(range(lanes)))
    return builder.icmp_signed("<", numbers, _splat(builder, builder.trunc(live, i32), lanes))


@intrinsic
def lanes(typingctx, like):
    """The number of lanes of a vector, or of the vectors an array is made of."""
    count = Vector(like.dtype).lanes
    return types.intp(like), lambda context, builder, sig, args: context.get_constant(types.intp, count)


@intrinsic
def splat(typingctx, like, value):
    """A vector of ``like``'s dtype, with ``value`` in each lane."""
    vector = Vector(like.dtype)

    def codegen(context, builder, sig, args):
        scalar = context.cast(builder, args[1], value, like.dtype)
        return _splat(builder, scalar, vector.lanes)

    return vector(like, value), codegen


@intrinsic(prefer_literal=True)
def constant(typingctx, like, name):
    """The constant of that name for ``like``'s dtype."""
    vector = Vector(like.dtype)
    value = _CONSTANTS[like.dtype][name.literal_value]
    return vector(like, name), lambda context, builder, sig, args: _constant(vector, value)


@intrinsic(prefer_literal=True)
def polynomial(typingctx, r, name):
    """The polynomial whose coefficients, highest first, are the constant of that name."""
    first, *others = _CONSTANTS[r.dtype][name.literal_value]

    def codegen(context, builder, sig, args):
        p = _constant(r, first)
        for c in others:
            p = _fmuladd(builder, p, args[0], _constant(r, c))
        return p

    return r(r, name), codegen


@intrinsic
def load(typingctx, a, i):
    """The vector at element ``i`` of an array's memory."""
    vector = Vector(a.dtype)

    def codegen(context, builder, sig, args):
        pointer = _element(context, builder, a, args[0], args[1])
        to = context.get_value_type(vector).as_pointer()
        return builder.load(builder.bitcast(pointer, to), align=a.dtype.bitwidth // 8)

    return vector(a, types.intp), codegen


@intrinsic
def store(typingctx, a, i, v):
    """Write a vector at element ``i`` of an array's memory."""

    def codegen(context, builder, sig, args):
        pointer = _element(context, builder, a, args[0], args[1])
        to = context.get_value_type(v).as_pointer()
        builder.store(args[2], builder.bitcast(pointer, to), align=a.dtype.bitwidth // 8)
        return context.get_dummy_value()

    return types.void(a, types.intp, v), codegen


@intrinsic(prefer_literal=True)
def prefetch(typingctx, a, i, write):
    """Bring the vector at element ``i`` closer; it may lie beyond the array."""

    def codegen(context, builder, sig, args):
        i32 = ir.IntType(32)
        pointer = _element(context, builder, a, *args[:2])
        of = ir.FunctionType(ir.VoidType(), [pointer.type, i32, i32, i32])
        function = cgutils.get_or_insert_function(builder.module, of, "llvm.prefetch.p0")
        keep_close, data = i32(3), i32(1)
        for _ in range(BYTES // _CACHE_LINE):
            builder.call(function, (pointer, i32(write.literal_value), keep_close, data))
            pointer = builder.gep(pointer, [i32(_CACHE_LINE * 8 // a.dtype.bitwidth)])
        return context.get_dummy_value()

    return types.void(a, types.intp, write), codegen


@intrinsic
def is_set(typingctx, address):
    """Whether the byte at an address is not 0; other threads may set it."""

    def codegen(context, builder, sig, args):
        byte = builder.inttoptr(args[0], ir.IntType(8).as_pointer())
        return builder.icmp_unsigned("!=", builder.load_atomic(byte, "monotonic", 1), ir.IntType(8)(0))

    return types.boolean(address), codegen


@intrinsic
def load_some(typingctx, a, i, live, fill):
    """Like `load` for the first ``live`` lanes; the others are ``fill``'s, and their memory is not read."""

    def codegen(context, builder, sig, args):
        array, i, live, fill = args
        pointer = builder.bitcast(_element(context, builder, a, array, i), fill.type.as_pointer())
        align = ir.IntType(32)(a.dtype.bitwidth // 8)
        mask = _first_lanes(builder, live, fill.type.count)
        return builder.call(_masked(builder, fill.type, "load"), (pointer, align, mask, fill))

    return fill(a, types.intp, types.intp, fill), codegen


@intrinsic
def store_some(typingctx, a, i, live, v):
    """Like `store` for the first ``live`` lanes."""

    def codegen(context, builder, sig, args):
        array, i, live, value = args
        pointer = builder.bitcast(_element(context, builder, a, array, i), value.type.as_pointer())
        align = ir.IntType(32)(a.dtype.bitwidth // 8)
        mask = _first_lanes(builder, live, value.type.count)
        builder.call(_masked(builder, value.type, "store"), (value, pointer, align, mask))
        return context.get_dummy_value()

    return types.void(a, types.intp, types.intp, v), codegen


def _shuffled(builder, a, b, order):
    i32 = ir.IntType(32)
    return builder.shuffle_vector(a, b, ir.Constant(ir.VectorType(i32, len(order)), list(order)))


@intrinsic
def piece(typingctx, like):
    """How many entries of a row `load_rows` moves at once."""
    count = _PIECE_BYTES * 8 // like.dtype.bitwidth
    return types.intp(like), lambda context, builder, sig, args: context.get_constant(types.intp, count)


@intrinsic
def load_rows(typingctx, a, i, stride, tile, at):
    """Write a `piece` of as many rows as there are lanes, ``stride`` elements apart, from element ``i`` on.

    They become as many vectors of ``tile``, from its element ``at`` on, a row in each lane. Faster than
    `load_strided` for each of them: an insertion a piece, not one an entry.
    """
    vector = Vector(a.dtype)
    count = _PIECE_BYTES * 8 // a.dtype.bitwidth

    def codegen(context, builder, sig, args):
        pointer = _element(context, builder, a, *args[:2])
        of_piece = ir.VectorType(pointer.type.pointee, count).as_pointer()
        align = a.dtype.bitwidth // 8
        rows = []
        for _ in range(vector.lanes):
            rows.append(builder.load(builder.bitcast(pointer, of_piece), align=align))
            pointer = builder.gep(pointer, [args[2]])
        while len(rows) > 1:
            order = range(2 * rows[0].type.count)
            rows = [_shuffled(builder, *pair, order) for pair in zip(rows[::2], rows[1::2], strict=True)]
        to = _element(context, builder, tile, *args[3:])
        for entry in range(count):
            v = _shuffled(builder, rows[0], rows[0], range(entry, vector.lanes * count, count))
            builder.store(v, builder.bitcast(to, v.type.as_pointer()), align=align)
            to = builder.gep(to, [context.get_constant(types.intp, vector.lanes)])
        return context.get_dummy_value()

    return types.void(a, types.intp, types.intp, tile, types.intp), codegen


@intrinsic
def load_strided(typingctx, a, i, stride):
    """The elements ``i``, ``i + stride``, ... of an array's memory, as many as there are lanes."""
    vector = Vector(a.dtype)

    def codegen(context, builder, sig, args):
        pointer = _element(context, builder, a, args[0], args[1])
        v = ir.Constant(context.get_value_type(vector), ir.Undefined)
        for lane in range(vector.lanes):
            v = builder.insert_element(v, builder.load(pointer), ir.IntType(32)(lane))
            pointer = builder.gep(pointer, [args[2]])
        return v

    return vector(a, types.intp, types.intp), codegen


@intrinsic
def store_strided(typingctx, a, i, stride, v):
    """Write the lanes to elements ``i``, ``i + stride``, ... of an array's memory."""

    def codegen(context, builder, sig, args):
        pointer = _element(context, builder, a, args[0], args[1])
        for lane in range(v.lanes):
            builder.store(builder.extract_element(args[3], ir.IntType(32)(lane)), pointer)
            pointer = builder.gep(pointer, [args[2]])
        return context.get_dummy_value()

    return types.void(a, types.intp, types.intp, v), codegen


@intrinsic
def load_element(typingctx, a, i):
    """Element ``i`` of an array's memory."""

    def codegen(context, builder, sig, args):
        return builder.load(_element(context, builder, a, *args))

    return a.dtype(a, types.intp), codegen


@intrinsic
def store_element(typingctx, a, i, value):
    """Write element ``i`` of an array's memory."""

    def codegen(context, builder, sig, args):
        builder.store(args[2], _element(context, builder, a, *args[:2]))
        return context.get_dummy_value()

    return types.void(a, types.intp, a.dtype), codegen


@intrinsic
def lane(typingctx, v, i):
    """One lane as a scalar."""
    return v.dtype(v, types.intp), lambda context, builder, sig, args: builder.extract_element(*args)


@intrinsic
def with_lane(typingctx, v, i, value):
    """``v`` with another value in one lane."""

    def codegen(context, builder, sig, args):
        return builder.insert_element(args[0], context.cast(builder, args[2], value, v.dtype), args[1])

    return v(v, types.intp, value), codegen


@intrinsic
def fma(typingctx, a, b, c):
    """``a * b + c``, rounded once where the CPU can."""
    return a(a, a, a), lambda context, builder, sig, args: _fmuladd(builder, *args)


@intrinsic
def larger(typingctx, a, b):
    """The larger of both; ``b`` if either is NaN."""

    def codegen(context, builder, sig, args):
        return builder.select(builder.fcmp_ordered(">", *args), *args)

    return a(a, a), codegen


@intrinsic
def where_equal(typingctx, a, b, yes, no):
    """``yes`` in the lanes where ``a == b``, else ``no``."""

    def codegen(context, builder, sig, args):
        return builder.select(builder.fcmp_ordered("==", *args[:2]), *args[2:])

    return a(a, a, a, a), codegen


@intrinsic
def where_greater(typingctx, a, b, yes, no):
    """``yes`` in the lanes where ``a > b``, else ``no``."""

    def codegen(context, builder, sig, args):
        return builder.select(builder.fcmp_ordered(">", *args[:2]), *args[2:])

    return a(a, a, a, a), codegen


@intrinsic
def differ(typingctx, a, b):
    """Whether any lane differs; NaN differs from everything."""

    def codegen(context, builder, sig, args):
        unequal = builder.fcmp_unordered("!=", *args)
        bits = ir.IntType(a.lanes)
        return builder.icmp_unsigned("!=", builder.bitcast(unequal, bits), bits(0))

    return types.boolean(a, a), codegen


@intrinsic
def low_bits_as_exponent(typingctx, t):
    """The float whose exponent field is the low bits of ``t``'s mantissa: one shift makes 2**k."""
    integers = ir.VectorType(ir.IntType(t.dtype.bitwidth), t.lanes)

    def codegen(context, builder, sig, args):
        bits = builder.bitcast(args[0], integers)
        shift = ir.Constant(integers, [_MANTISSA_BITS[t.dtype]] * t.lanes)
        return builder.bitcast(builder.shl(bits, shift), args[0].type)

    return t(t), codegen


@intrinsic
def exponent_and_fraction(typingctx, v):
    """``k`` and ``f`` of positive ``v = 2**k * f``, ``f`` between ``sqrt(1/2)`` and ``sqrt(2)``."""
    integers = ir.VectorType(ir.IntType(v.dtype.bitwidth), v.lanes)

    def codegen(context, builder, sig, args):
        floats = args[0].type
        mantissa_bits = ir.Constant(integers, [_MANTISSA_BITS[v.dtype]] * v.lanes)
        bits = builder.bitcast(args[0], integers)
        above = builder.sub(bits, ir.Constant(integers, [_SQRT_HALF_BITS[v.dtype]] * v.lanes))
        exponent = builder.ashr(above, mantissa_bits)
        fraction = builder.bitcast(builder.sub(bits, builder.shl(exponent, mantissa_bits)), floats)
        magic = _constant(v, _CONSTANTS[v.dtype]["ROUND"])  # its low bits are an integer
        k = builder.bitcast(builder.add(builder.bitcast(magic, integers), exponent), floats)
        return context.make_tuple(builder, sig.return_type, (builder.fsub(k, magic), fraction))

    return types.UniTuple(v, 2)(v), codegen


def _swapped(builder, v, distance):
    return _shuffled(builder, v, v, [lane ^ distance for lane in range(v.type.count)])


def _distances(vector):
    distance = vector.lanes
    while distance := distance // 2:
        yield distance


@intrinsic
def fold_largest(typingctx, v):
    """The largest lane, in all lanes."""

    def codegen(context, builder, sig, args):
        (m,) = args
        for distance in _distances(v):
            other = _swapped(builder, m, distance)
            m = builder.select(builder.fcmp_ordered(">", m, other), m, other)
        return m

    return v(v), codegen


# Sums are two vectors of float64: of float32 terms, those of each half of the lanes; of float64 terms, their
# sum and that of its rounding errors. `like` is a vector of the terms' dtype.


@intrinsic
def widened(typingctx, v):
    """A sum of one term."""

    def codegen(context, builder, sig, args):
        (term,) = args
        if v.dtype == types.float32:
            half = ir.VectorType(ir.DoubleType(), v.lanes // 2)
            lanes = range(v.lanes)
            parts = [
                builder.fpext(_shuffled(builder, term, term, some), half)
                for some in (lanes[: half.count], lanes[half.count :])
            ]
        else:
            parts = term, _constant(v, -0.0)  # which LLVM knows to change nothing
        return context.make_tuple(builder, sig.return_type, parts)

    return types.UniTuple(Vector(types.float64), 2)(v), codegen


def _joined(builder, like, halves):
    """Two vectors of doubles, rounded to floats."""
    half = ir.VectorType(ir.FloatType(), halves[0].type.count)
    return _shuffled(builder, *(builder.fptrunc(part, half) for part in halves), range(like.lanes))


@intrinsic
def narrowed(typingctx, like, first, second):
    """A finite sum as two vectors of the terms' dtype: its rounded value, and what that lacks."""

    def codegen(context, builder, sig, args):
        _, *parts = args
        if like.dtype == types.float32:
            half = ir.VectorType(ir.FloatType(), first.lanes)
            lost = [
                builder.fsub(part, builder.fpext(builder.fptrunc(part, half), part.type)) for part in parts
            ]
            parts = _joined(builder, like, parts), _joined(builder, like, lost)
        else:
            parts = _fast_two_sum(builder, *parts)
        return context.make_tuple(builder, sig.return_type, parts)

    return types.UniTuple(like, 2)(like, first, second), codegen


@intrinsic
def rounded(typingctx, like, first, second):
    """A sum as a vector of the terms' dtype; of infinities and NaN, what IEEE arithmetic gives."""

    def codegen(context, builder, sig, args):
        _, *parts = args
        if like.dtype == types.float32:
            return _joined(builder, like, parts)
        hi, _ = parts  # the other part of an infinite sum is NaN
        finite = builder.fcmp_ordered("==", builder.fsub(hi, hi), _constant(like, 0.0))
        return builder.select(finite, builder.fadd(*parts), hi)

    return like(like, first, second), codegen


@intrinsic
def plus(typingctx, like, a, a_second, b, b_second):
    """Two sums as one."""

    def codegen(context, builder, sig, args):
        _, *parts = args
        return context.make_tuple(builder, sig.return_type, _plus(builder, like, *parts, _two_sum))

    return types.UniTuple(a, 2)(like, a, a_second, b, b_second), codegen


@intrinsic
def plus_smaller(typingctx, like, a, a_second, b, b_second):
    """`plus` where ``abs(b) <= a``."""

    def codegen(context, builder, sig, args):
        _, *parts = args
        return context.make_tuple(builder, sig.return_type, _plus(builder, like, *parts, _fast_two_sum))

    return types.UniTuple(a, 2)(like, a, a_second, b, b_second), codegen


def _plus(builder, like, a, a_second, b, b_second, two_sum):
    if like.dtype == types.float32:
        return builder.fadd(a, b), builder.fadd(a_second, b_second)
    s, error = two_sum(builder, a, b)
    return s, builder.fadd(builder.fadd(a_second, b_second), error)


@intrinsic
def fold_sum(typingctx, like, first, second):
    """The sum of all lanes, in all lanes."""

    def codegen(context, builder, sig, args):
        _, s, c = args
        if like.dtype == types.float32:
            s = builder.fadd(s, c)
            for distance in _distances(first):
                s = builder.fadd(s, _swapped(builder, s, distance))
            return context.make_tuple(builder, sig.return_type, (s, s))
        for distance in _distances(first):
            s, error = _two_sum(builder, s, _swapped(builder, s, distance))
            c = builder.fadd(builder.fadd(c, _swapped(builder, c, distance)), error)
        return context.make_tuple(builder, sig.return_type, (s, c))

    return types.UniTuple(first, 2)(like, first, second), codegen


@intrinsic
def two_sum(typingctx, a, b):
    """``a + b`` and its rounding error."""

    def codegen(context, builder, sig, args):
        return context.make_tuple(builder, sig.return_type, _two_sum(builder, *args))

    return types.UniTuple(a, 2)(a, b), codegen
