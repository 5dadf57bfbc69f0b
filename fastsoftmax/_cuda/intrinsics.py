"""What numba-cuda has no function for: vector accesses, 16-bit storage, scaling by a power of two."""

from functools import lru_cache

from fastsoftmax._cuda.compat import intrinsic, ir, types
from fastsoftmax._cuda.plan import ITEMSIZE

_I16, _I32, _I64 = ir.IntType(16), ir.IntType(32), ir.IntType(64)
_FLOAT, _DOUBLE, _HALF = ir.FloatType(), ir.DoubleType(), ir.HalfType()

_NARROW = {"float16": "cvt.rn.f16x2.f32 $0, $1, $2;", "bfloat16": "cvt.rn.bf16x2.f32 $0, $1, $2;"}


@intrinsic
def scale(typingctx, value, shifted):
    """``value * 2**k``, where ``shifted`` is k plus the constant that rounded it: k is in its low bits."""

    def codegen(context, builder, signature, args):
        return scaled(builder, *args)

    return value(value, shifted), codegen


def scaled(builder, value, shifted):
    """The instructions of `scale`: by 2^(k + offset), exactly, and back, which alone rounds a subnormal."""
    double = value.type == _DOUBLE
    bias, offset = (1023, 54) if double else (127, 24)
    bits = builder.bitcast(shifted, _I64 if double else _I32)
    if double:
        high = builder.shl(builder.add(builder.trunc(bits, _I32), _I32(bias + offset)), _I32(20))
        factor = builder.shl(builder.zext(high, _I64), _I64(32))
    else:
        # The low nine bits of the rounding constant are 0, so that this shifts it out.
        factor = builder.add(builder.shl(bits, _I32(23)), _I32((bias + offset) << 23))
    value = builder.fmul(value, builder.bitcast(factor, value.type))
    return builder.fmul(value, ir.Constant(value.type, 2.0**-offset))


@intrinsic
def ex2(typingctx, x):
    """The hardware's 2**x, to 2^-22 relative, subnormals included."""

    def codegen(context, builder, signature, args):
        return builder.call(_assembly(_FLOAT, [_FLOAT], "ex2.approx.f32 $0, $1;", "=f,f"), args)

    return types.float32(types.float32), codegen


@intrinsic
def hidden(typingctx, k):
    """``k``, which the compiler does not see, nor unrolls a loop with it in."""

    def codegen(context, builder, signature, args):
        k = context.cast(builder, args[0], signature.args[0], types.int32)
        return builder.call(_assembly(_I32, [_I32], "mov.b32 $0, $1;", "=r,r"), [k], attrs=("convergent",))

    return types.int32(k), codegen


@lru_cache
def make_load(storage):
    """``load(p, i)``: one stored entry as a number."""
    number = types.float64 if storage == "float64" else types.float32

    @intrinsic
    def load(typingctx, p, i):
        def codegen(context, builder, signature, args):
            source = _element(context, builder, signature.args[1], *args)
            return _widen(builder, storage, [builder.load(source)])[0]

        return number(p, i), codegen

    return load


@lru_cache
def make_store(storage):
    """``store(p, i, v)``: a number as one stored entry."""

    @intrinsic
    def store(typingctx, p, i, v):
        def codegen(context, builder, signature, args):
            p, i, v = args
            target = _element(context, builder, signature.args[1], p, i)
            builder.store(_narrow_one(builder, storage, v), target)
            return context.get_dummy_value()

        return types.void(p, i, v), codegen

    return store


@lru_cache
def make_fetch(storage, width, vector):
    """``fetch(p, i, numbers, k)``: ``width`` entries from ``i`` on as numbers, from ``k`` on."""

    @intrinsic
    def fetch(typingctx, p, i, numbers, k):
        def codegen(context, builder, signature, args):
            source, target = _both_ends(context, builder, signature, args)
            values = (_load_vector if vector else _load_each)(builder, storage, source, width)
            for q, value in enumerate(values):
                builder.store(value, builder.gep(target, [_I64(q)], inbounds=True))
            return context.get_dummy_value()

        return types.void(p, i, numbers, k), codegen

    return fetch


@lru_cache
def make_put(storage, width, vector):
    """``put(p, i, numbers, k)``: ``width`` numbers from ``k`` on as entries, from ``i`` on."""

    @intrinsic
    def put(typingctx, p, i, numbers, k):
        def codegen(context, builder, signature, args):
            target, source = _both_ends(context, builder, signature, args)
            values = [builder.load(builder.gep(source, [_I64(q)], inbounds=True)) for q in range(width)]
            (_store_vector if vector else _store_each)(builder, storage, target, values)
            return context.get_dummy_value()

        return types.void(p, i, numbers, k), codegen

    return put


@lru_cache
def make_copy(storage, width, vector):
    """``copy(p, i, words, k)``: ``width`` entries from ``i`` on as they are, into a thread's own words."""

    @intrinsic
    def copy(typingctx, p, i, words, k):
        def codegen(context, builder, signature, args):
            source, target = _both_ends(context, builder, signature, args)
            if not vector:
                entries = [builder.load(builder.gep(source, [_I64(q)], inbounds=True)) for q in range(width)]
                units = _paired(builder, entries)
            elif storage in _NARROW:
                units = _load_words(builder, source, _I32, width // 2, width * 2)
            else:
                units = _load_words(builder, source, source.type.pointee, width, width * ITEMSIZE[storage])
            _store_units(builder, storage, target, units)
            return context.get_dummy_value()

        return types.void(p, i, words, k), codegen

    return copy


@lru_cache
def make_blank(storage, width):
    """``blank(fill, words, k)``: ``width`` times the same there."""

    @intrinsic
    def blank(typingctx, fill, words, k):
        def codegen(context, builder, signature, args):
            fill, words, k = args
            _, words_type, k_type = signature.args
            target = _element(context, builder, k_type, words, k, words_type)
            _store_units(builder, storage, target, _paired(builder, [fill] * width))
            return context.get_dummy_value()

        return types.void(fill, words, k), codegen

    return blank


@lru_cache
def make_move(storage, width):
    """``move(words, k, shared, i)``: ``width`` of a thread's own words to where all see them."""

    @intrinsic
    def move(typingctx, words, k, shared, i):
        def codegen(context, builder, signature, args):
            source, target = _both_ends(context, builder, signature, args)
            paired = width > 1 and storage in _NARROW
            if paired:
                source = builder.bitcast(source, _I32.as_pointer())
            places = [
                builder.gep(source, [_I64(q)], inbounds=True) for q in range(width // 2 if paired else width)
            ]
            units = [builder.load(place, align=ITEMSIZE[storage]) for place in places]
            _store_words(builder, target, units, width * ITEMSIZE[storage])
            return context.get_dummy_value()

        return types.void(words, k, shared, i), codegen

    return move


def _paired(builder, entries):
    """16-bit entries, if more than one, as words of 32 bits, which LLVM stores as one vector."""
    if len(entries) == 1 or entries[0].type != _I16:
        return entries
    wide = [builder.zext(entry, _I32) for entry in entries]
    pairs = zip(wide[::2], wide[1::2], strict=True)
    return [builder.or_(low, builder.shl(high, _I32(16))) for low, high in pairs]


def _store_units(builder, storage, target, units):
    target = builder.bitcast(target, units[0].type.as_pointer())
    for q, unit in enumerate(units):
        builder.store(unit, builder.gep(target, [_I64(q)], inbounds=True), align=ITEMSIZE[storage])


def _both_ends(context, builder, signature, args):
    """Where two pairs of a pointer or an array and an index point to."""
    p, i, q, k = args
    p_type, i_type, q_type, k_type = signature.args
    return _element(context, builder, i_type, p, i, p_type), _element(context, builder, k_type, q, k, q_type)


def _element(context, builder, i_type, p, i, p_type=None):
    if isinstance(p_type, types.Array):
        p = context.make_array(p_type)(context, builder, p).data
    return builder.gep(p, [context.cast(builder, i, i_type, types.int64)], inbounds=True)


def _load_vector(builder, storage, source, width):
    """One access of ``width`` entries; 16-bit ones as pairs, which LLVM loads as one vector."""
    if storage in _NARROW:
        words = _load_words(builder, source, _I32, width // 2, width * 2)
        halves = [builder.trunc(builder.lshr(w, _I32(16 * k)), _I16) for w in words for k in range(2)]
        return _widen(builder, storage, halves)
    element = source.type.pointee
    return _load_words(builder, source, element, width, width * (8 if element == _DOUBLE else 4))


def _load_words(builder, source, element, count, align):
    vector = ir.VectorType(element, count)
    loaded = builder.load(builder.bitcast(source, vector.as_pointer()), align=align)
    return [builder.extract_element(loaded, _I32(k)) for k in range(count)]


def _load_each(builder, storage, source, width):
    raw = [builder.load(builder.gep(source, [_I64(q)], inbounds=True)) for q in range(width)]
    return _widen(builder, storage, raw)


def _store_vector(builder, storage, target, values):
    align = len(values) * ITEMSIZE[storage]
    if storage in _NARROW:
        pairs = zip(values[::2], values[1::2], strict=True)
        values = [_narrow(builder, storage, low, high) for low, high in pairs]
    _store_words(builder, target, values, align)


def _store_words(builder, target, values, align):
    vector = ir.Constant(ir.VectorType(values[0].type, len(values)), ir.Undefined)
    for k, value in enumerate(values):
        vector = builder.insert_element(vector, value, _I32(k))
    builder.store(vector, builder.bitcast(target, vector.type.as_pointer()), align=align)


def _store_each(builder, storage, target, values):
    for q, value in enumerate(values):
        builder.store(_narrow_one(builder, storage, value), builder.gep(target, [_I64(q)], inbounds=True))


def _widen(builder, storage, raw):
    if storage == "float16":
        return [builder.fpext(builder.bitcast(v, _HALF), _FLOAT) for v in raw]
    if storage == "bfloat16":
        return [builder.bitcast(builder.shl(builder.zext(v, _I32), _I32(16)), _FLOAT) for v in raw]
    return raw


def _narrow(builder, storage, low, high):
    """Two numbers rounded to 16 bits, in one word."""
    return builder.call(_assembly(_I32, [_FLOAT, _FLOAT], _NARROW[storage], "=r,f,f"), [high, low])


def _narrow_one(builder, storage, value):
    if storage not in _NARROW:
        return value
    return builder.trunc(_narrow(builder, storage, value, ir.Constant(_FLOAT, 0.0)), _I16)


def _assembly(result, arguments, text, constraints):
    return ir.InlineAsm(ir.FunctionType(result, arguments), text, constraints)
