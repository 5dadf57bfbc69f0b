"""Promise: a ragged row has, bit for bit, what the op itself gives for it alone, whatever is beside it."""

import os
from itertools import pairwise

import ml_dtypes
import numpy as np
import pytest

import fastsoftmax as fs
from fastsoftmax import _threads, registry
from tests import checks, inputs, oracle, processes

# Lengths of segments. The compiled kernels take those of one length together up to 512 bytes, Numba up to 100
# entries.
LENGTHS = {
    "one to nineteen": inputs.rng(1).integers(1, 20, 700),
    "empty ones at both ends": np.r_[0, 0, inputs.rng(2).integers(0, 4, 300), 0],
    "around what is short": np.r_[63, 64, 65, 99, 100, 101, 127, 128, 129, 64, 128, 100, 65, 129, 1],
    "of one length": np.full(101, 7),
    "of one entry": np.ones(200, int),
    "one": np.array([37]),
    "one entry": np.array([1]),
    "a huge one among small ones": np.r_[
        inputs.rng(3).integers(0, 9, 200), 50_000, inputs.rng(4).integers(0, 9, 200)
    ],
    "all but one empty": np.r_[np.zeros(50, int), 3, np.zeros(50, int)],
    "more than are sorted at a time": inputs.rng(5).integers(0, 3, 9000),
}


def ptr_of(lengths):
    return np.concatenate([[0], np.cumsum(lengths)])


def segments_of(op, name, dtype, backend="numpy"):
    """The arguments of an op for segments of these lengths, fewer of them where a backend is slow."""
    lengths = LENGTHS[name]
    if checks.is_slow(backend):
        lengths = np.minimum(lengths, 500)[:600]
    ptr = ptr_of(lengths)
    x = (inputs.rng(6).normal(size=ptr[-1]) * 6).astype(dtype)
    if op != "segment_softmax_vjp":
        return x, ptr
    y = fs.segment_softmax(x.astype(np.float32 if np.dtype(dtype).itemsize == 2 else dtype), ptr)
    return y.astype(dtype), inputs.rng(7).normal(size=x.size).astype(dtype), ptr


def assert_bits_of_rows_alone(op, actual, args, backend):
    *arrays, ptr = args
    checks.assert_same_bits(actual, checks.of_each_segment(registry.SEGMENTS[op], arrays, ptr, backend))


EACH_OP = pytest.mark.parametrize("op", registry.SEGMENTS)


@EACH_OP
@pytest.mark.parametrize("name", LENGTHS)
def test_bits_are_those_of_rows_alone(op, name, backend, dtype):
    args = segments_of(op, name, dtype, backend)
    (actual,) = checks.call(op, *args, backend=backend)
    assert_bits_of_rows_alone(op, actual, args, backend)


@EACH_OP
@pytest.mark.parametrize(
    "name", ["one to nineteen", "empty ones at both ends", "a huge one among small ones"]
)
@pytest.mark.usefixtures("every_row_a_block")
def test_any_number_of_threads(op, name, backend, dtype):
    args = segments_of(op, name, dtype, backend)
    (expected,) = checks.call(op, *args, backend=backend, num_threads=1)
    for threads in (2, 3, 7):
        checks.assert_same_bits(checks.call(op, *args, backend=backend, num_threads=threads), (expected,))


@EACH_OP
def test_threads_at_a_size_that_takes_them(op, backend, dtype):
    rows = 100 if checks.is_slow(backend) else 60_000
    ptr = ptr_of(np.r_[inputs.rng(8).integers(0, 9, rows), 30 * rows // 10, 0])
    x = inputs.rng(9).normal(size=ptr[-1]).astype(dtype)
    args = (x, x[::-1].copy(), ptr) if op == "segment_softmax_vjp" else (x, ptr)
    (expected,) = checks.call(op, *args, backend=backend, num_threads=1)
    checks.assert_same_bits(checks.call(op, *args, backend=backend, num_threads=2), (expected,))


@EACH_OP
def test_hostile_neighbours(op, backend, dtype):
    """NaN, infinities, what overflows and what vanishes in the segments beside."""
    *arrays, ptr = segments_of(op, "one to nineteen", dtype)
    (expected,) = checks.call(op, *arrays, ptr, backend=backend)
    top = np.finfo(dtype).max
    for value in (np.nan, np.inf, -np.inf, top, -top, np.finfo(dtype).smallest_subnormal):
        hostile = [a.copy() for a in arrays]
        is_entry = np.repeat(np.arange(len(ptr) - 1) % 2 == 1, np.diff(ptr))
        for a in hostile:
            a[is_entry] = value
        (actual,) = checks.call(op, *hostile, ptr, backend=backend)
        mine = np.arange(len(ptr) - 1) % 2 == 0 if op == "segment_logsumexp" else ~is_entry
        checks.assert_same_bits(actual[mine], expected[mine])


@EACH_OP
def test_autograd(op, backend):
    """Segment by segment, in float64."""
    lengths = [3, 0, 1, 17, 5, 5, 2, 70]
    ptr = ptr_of(lengths)
    x, g = inputs.rng(10).normal(size=(2, ptr[-1])) * 4
    plain, extra = registry.SEGMENTS[op], [g] if op == "segment_softmax_vjp" else []
    rows = [slice(i, j) for i, j in pairwise(ptr) if i < j]
    desired = [oracle.autograd_answer(plain, x[r], extra=[a[r] for a in extra])[0] for r in rows]
    first = fs.segment_softmax(x, ptr, backend=backend) if extra else x
    (actual,) = checks.call(op, first, *extra, ptr, backend=backend)
    if op == "segment_logsumexp":
        assert actual[1] == -np.inf
        actual = np.delete(actual, 1)
    checks.assert_close(actual, np.hstack(desired), np.dtype(float), scale=np.abs(g).max())


@pytest.mark.parametrize("op", ["segment_softmax", "segment_log_softmax", "segment_logsumexp"])
@pytest.mark.parametrize(
    "name", ["offset_rows", "far_apart", "saturated", "subnormal_results", "largest_numbers", "ties"]
)
def test_bounds(op, name, backend, dtype):
    """Rows of a family one after the other, with empty ones between, against mpmath."""
    x = inputs.FAMILIES[name](dtype)
    ptr = np.arange(len(x) + 1).repeat(2)[1:] * x.shape[1]
    (actual,) = checks.call(op, x.ravel(), ptr, backend=backend)
    plain = registry.SEGMENTS[op]
    if op == "segment_logsumexp":
        assert (actual[1::2] == -np.inf).all()
        actual = actual[::2]
    checks.check_forward_bound(
        plain, x, actual.reshape(x.shape if plain != "logsumexp" else len(x)), oracle.exact_forward(plain, x)
    )


def test_special_values(backend, dtype):
    rows = [np.array(case.row, dtype) for case in inputs.SPECIAL_ROWS.values()]
    ptr = ptr_of([len(row) for row in rows])
    for op in oracle.FORWARD:
        desired = np.hstack([getattr(case, op) for case in inputs.SPECIAL_ROWS.values()])
        (actual,) = checks.call(f"segment_{op}", np.concatenate(rows), ptr, backend=backend)
        checks.assert_close(actual, desired, dtype)
        checks.assert_exact_values(actual, desired)


# ---- what arrays may be ------------------------------------------------------------------------


@EACH_OP
@pytest.mark.parametrize("stored", [np.float16, ml_dtypes.bfloat16])
@pytest.mark.usefixtures("every_row_a_block")
def test_halves(op, stored, backend):
    args = segments_of(op, "empty ones at both ends", np.dtype(stored), backend)
    expected = checks.of_each_segment(registry.SEGMENTS[op], args[:-1], args[-1], backend)
    for threads in (1, 3):
        (actual,) = checks.call(op, *args, backend=backend, num_threads=threads)
        checks.assert_same_bits(actual, expected)


@EACH_OP
def test_other_arrays(op, backend):
    """Integers, lists, other strides and byte orders: as their numbers in float64."""
    ptr = ptr_of([3, 0, 2, 9])
    a = inputs.rng(11).integers(0, 3, ptr[-1])
    arrays = [a] * (2 if op == "segment_softmax_vjp" else 1)
    function = getattr(fs, op)
    expected = function(*(a.astype(float) for a in arrays), ptr, backend=backend)
    for convert in (
        np.asarray,
        list,
        lambda a: a.astype(np.int8),
        lambda a: a.astype(">f8"),
        lambda a: np.repeat(a.astype(float), 3)[::3],
        lambda a: a[::-1].astype(float)[::-1],
    ):
        checks.assert_same_bits(function(*map(convert, arrays), ptr, backend=backend), expected)
    for given in (
        list(ptr),
        ptr.astype(np.int32),
        ptr.astype(np.uint64),
        ptr.astype(">i2"),
        np.repeat(ptr, 2)[::2],
    ):
        checks.assert_same_bits(function(*map(float_of, arrays), given, backend=backend), expected)


def float_of(a):
    return a.astype(float)


@EACH_OP
def test_out(op, backend, dtype):
    """The input itself, overlapping it, or with strides; returned as it is."""
    *arrays, ptr = segments_of(op, "one to nineteen", dtype, backend)
    function = getattr(fs, op)
    expected = function(*arrays, ptr, backend=backend)
    out = np.full(2 * expected.size, np.nan, dtype)[::2]
    assert function(*arrays, ptr, out=out, backend=backend) is out
    checks.assert_same_bits(out, expected)
    for i, a in enumerate(arrays):
        for shift in (0, 1):
            memory = np.zeros(a.size + 1, dtype)
            given, out = memory[: a.size], memory[shift:][: expected.size]
            given[...] = a
            mixed = [*arrays[:i], given, *arrays[i + 1 :]]
            assert function(*mixed, ptr, out=out, backend=backend) is out
            checks.assert_same_bits(out, expected)


def test_one_a_segment_over_the_entries(backend, dtype):
    """As many segments as entries: results would take the place of what is still to be read."""
    for ptr in ([0, 0, 2], [0, 3, 3, 3], [0, 1, 2, 3], [0, 0, 1, 3]):
        x = np.array([3.0, 5.0, -2.0], dtype)[: ptr[-1]]
        expected = fs.segment_logsumexp(x.copy(), ptr, backend=backend)
        checks.assert_same_bits(fs.segment_logsumexp(x, ptr, out=x, backend=backend), expected)


def test_out_in_the_memory_of_ptr(backend):
    """Of several lengths: results of one would be written before the segments of the next are looked up."""
    ptr = ptr_of(np.arange(30) % 7)
    x, out = np.cos(np.arange(ptr[-1])), ptr.view(np.float64)[:-1]
    expected = fs.segment_logsumexp(x, ptr.copy(), backend=backend)
    checks.assert_same_bits(fs.segment_logsumexp(x, ptr, out=out, backend=backend), expected)


def test_no_entries(backend, dtype):
    nothing = np.empty(0, dtype)
    for ptr in ([0], [0, 0], [0, 0, 0, 0]):
        for op in ("segment_softmax", "segment_log_softmax"):
            checks.assert_same_bits(getattr(fs, op)(nothing, ptr, backend=backend), nothing)
        checks.assert_same_bits(fs.segment_softmax_vjp(nothing, nothing, ptr, backend=backend), nothing)
        desired = np.full(len(ptr) - 1, -np.inf, dtype)
        checks.assert_same_bits(fs.segment_logsumexp(nothing, ptr, backend=backend), desired)


WRONG = {
    "a float": ([0.0, 3.0], TypeError, "ptr has dtype float64; expected an integer dtype"),
    "bools": (np.array([False, True]), TypeError, "ptr has dtype bool"),
    "two dimensions": ([[0, 3]], ValueError, r"ptr has shape \(1, 2\); expected \(segments \+ 1,\)"),
    "a scalar": (3, ValueError, r"ptr has shape \(\)"),
    "no entry": (np.empty(0, int), ValueError, r"ptr has shape \(0,\)"),
    "an empty list": ([], ValueError, r"ptr has shape \(0,\)"),
    "masked": (np.ma.array([0, 3], mask=[0, 1]), TypeError, r"would be lost: pass np\.ma\.getdata\(ptr\)"),
    "another start": ([1, 3], ValueError, r"ptr\[0\] is 1; expected 0"),
    "a negative start": ([-1, 3], ValueError, r"ptr\[0\] is -1; expected 0"),
    "a fall": ([0, 2, 1, 0, 3], ValueError, r"ptr\[2\] is 1; expected 2 or more, as ptr\[1\] is"),
    "a fall of unsigned ones": (
        np.array([0, 2, 1, 3], np.uint8),
        ValueError,
        r"ptr\[2\] is 1; expected 2 or more",
    ),
    "beyond the end": ([0, 2, 4], ValueError, r"ptr\[2\] is 4; expected 3, the number of entries"),
    "before the end": ([0, 2], ValueError, r"ptr\[1\] is 2; expected 3"),
    "beyond and back": ([0, 9, 3], ValueError, r"ptr\[2\] is 3; expected 9 or more"),
    "more than an index": (
        np.array([0, 2**64 - 1], np.uint64),
        ValueError,
        r"ptr\[1\] is 18446744073709551615",
    ),
}


@EACH_OP
@pytest.mark.parametrize("name", WRONG)
def test_wrong_ptr(op, name, backend):
    """The first bad position, before anything is written."""
    ptr, error, words = WRONG[name]
    arrays = [np.array([1.0, 2.0, 3.0])] * (2 if op == "segment_softmax_vjp" else 1)
    out = np.full(1 if op == "segment_logsumexp" else 3, 7.0)
    with pytest.raises(error, match=words):
        getattr(fs, op)(*arrays, ptr, out=out, backend=backend)
    assert (out == 7.0).all()


@EACH_OP
def test_wrong_arrays(op, backend):
    function, arrays = getattr(fs, op), [np.ones(4)] * (2 if op == "segment_softmax_vjp" else 1)
    with pytest.raises(ValueError, match=r"has shape \(2, 2\); expected one dimension"):
        function(*(a.reshape(2, 2) for a in arrays), [0, 4], backend=backend)
    with pytest.raises(ValueError, match=r"has shape \(\); expected one dimension"):
        function(*(a[0] for a in arrays), [0, 1], backend=backend)
    with pytest.raises(ValueError, match=r"out has shape \(2, 2\)"):
        function(*arrays, [0, 4], out=np.ones((2, 2)), backend=backend)
    with pytest.raises(TypeError, match=r"out has dtype <f4"):
        function(*arrays, [0, 4], out=np.ones(4, np.float32), backend=backend)
    with pytest.raises(TypeError, match=r"dtype complex128"):
        function(*(a * 1j for a in arrays), [0, 4], backend=backend)
    if len(arrays) == 2:
        with pytest.raises(ValueError, match=r"y and g must have the same shape; got y \(4,\) and g \(3,\)"):
            function(arrays[0], arrays[1][:3], [0, 4], backend=backend)


# ---- backends and threads ----------------------------------------------------------------------


@EACH_OP
def test_a_backend_without_the_op(op):
    """As "cuda" is: named, it says what it has; else another one runs."""
    fs.register_backend("plain", {"softmax": lambda x, out: None}, priority=1000)
    args = segments_of(op, "one", np.float64)
    with pytest.raises(fs.BackendUnavailable, match=f"no kernel for '{op}'; it has softmax"):
        getattr(fs, op)(*args, backend="plain")
    assert fs.explain(op, (100,)).backend != "plain"
    assert np.isfinite(getattr(fs, op)(*args)).all()


def test_explain(backend):
    with fs.use_backend(backend):
        choice = fs.explain("segment_softmax", (10**7,), num_threads=3)
    assert choice.num_threads == (1 if backend == "python" else 3)
    assert choice.kernel.startswith(f"{backend}.segment_softmax")


def test_shares():
    """Every segment is in one share, whole; shares differ by less than the longest segment has entries."""
    for name, lengths in LENGTHS.items():
        ptr = ptr_of(lengths)
        x, results = np.arange(ptr[-1]).reshape(1, -1, 1), np.arange(len(lengths)).reshape(1, -1)
        for blocks in (2, 3, 50):
            parts = list(_threads.cut_segments(None, (x, ptr, results), blocks, 1))
            assert all(p[0] == 0 and p[-1] == a.size for a, p, _ in parts), name
            np.testing.assert_array_equal(np.concatenate([a.ravel() for a, _, _ in parts]), x.ravel())
            np.testing.assert_array_equal(np.concatenate([np.diff(p) for _, p, _ in parts]), lengths)
            np.testing.assert_array_equal(np.concatenate([r.ravel() for _, _, r in parts]), results.ravel())
            share = (ptr[-1] + len(lengths)) / blocks
            assert max(a.size + r.size for a, _, r in parts) <= share + lengths.max() + 1


INTERRUPTED = """
import signal
import numpy as np
import fastsoftmax as fs

class Interrupted(Exception): pass

def interrupt(*_): raise Interrupted

signal.signal(signal.SIGALRM, interrupt)
x = np.zeros(2**26, np.float32)
ptr = np.r_[0:1001, {rest}]
out = np.empty_like(x)
with fs.threads({threads}):
    fs.segment_softmax(x, ptr, out=out, backend={backend!r})
    out[-1] = -1
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.001)
        fs.segment_softmax(x, ptr, out=out, backend={backend!r})
    except Interrupted:
        print(out[-1] == -1)
    fs.segment_softmax(x, ptr, out=out, backend={backend!r})
    print(out[-1] != -1)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this platform has no setitimer and fork")
@pytest.mark.parametrize(
    ("rest", "threads"),
    [("x.size", 1), ("x.size", 2), ("2000:x.size + 1:10_000, x.size", 1)],
    ids=["one long", "one long on two", "many"],
)
def test_interrupted(rest, threads, backend):
    """Within a segment, and between them; the call after it is whole."""
    if checks.is_slow(backend):
        pytest.skip("naive loops: an hour")
    if rest == "x.size" and not hasattr(registry.find("segment_softmax", backend), "parallel"):
        threads = 1  # the row of a helper that is a Python thread is waited for to its end
    code = INTERRUPTED.format(rest=rest, threads=threads, backend=backend)
    assert processes.python(code, timeout=60).split() == ["True", "True"]


GUARDED = """
import ctypes, mmap
import numpy as np
import fastsoftmax as fs
from fastsoftmax import registry

PAGE, ROOM = mmap.PAGESIZE, 1 << 20
libc = ctypes.CDLL(None, use_errno=True)

def guarded(a, at_end):
    '''A copy between two pages that may not be touched.'''
    memory = mmap.mmap(-1, ROOM + 2 * PAGE)
    start = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    for at in (start, start + PAGE + ROOM):
        assert libc.mprotect(ctypes.c_void_p(at), PAGE, 0) == 0
    moved = np.frombuffer(memory, a.dtype, a.size, PAGE + (ROOM - a.nbytes if at_end else 0))
    moved[...] = a
    return moved

rng = np.random.default_rng(0)
for count in (1, 2, 3, 40):
    for dtype in ("f8", "f4"):
        for longest in (2, 5, 20, 70, 140):
            ptr = np.r_[0, np.cumsum(rng.integers(0, longest, count)) + 1]
            x, g = rng.normal(size=(2, ptr[-1])).astype(dtype)
            y = fs.segment_softmax(x, ptr)
            for op in registry.SEGMENTS:
                args = (y, g) if op == "segment_softmax_vjp" else (x,)
                function = getattr(fs, op)
                expected = function(*args, ptr)
                for at_end in (False, True):
                    moved = [guarded(a, at_end) for a in args]
                    out = guarded(np.zeros_like(expected), at_end)
                    function(*moved, guarded(ptr, at_end), out=out, backend={backend!r})
                    assert np.allclose(out, expected, rtol=1e-5, atol=1e-6)
print("whole")
"""


@pytest.mark.skipif(os.name == "nt", reason="maps pages by mprotect")
def test_reads_and_writes_within_its_arrays(backend):
    """To the byte: a step beyond ends the process."""
    assert processes.python(GUARDED.format(backend=backend), timeout=300) == "whole\n"


@pytest.mark.parametrize("level", ["x86-64-v4", "x86-64-v3", "x86-64-v2"])
def test_every_level_of_the_compiled_kernels(level):
    from fastsoftmax import _isa

    if level not in _isa.levels() or fs.backend_status()["cython"] != "available":
        pytest.skip(f"no build for {level} runs on this CPU")
    code = """
import numpy as np
from tests import checks, test_segments as t
for op in t.registry.SEGMENTS:
    for name in t.LENGTHS:
        for dtype in (np.dtype("f8"), np.dtype("f4")):
            args = t.segments_of(op, name, dtype)
            (actual,) = checks.call(op, *args, backend="cython")
            t.assert_bits_of_rows_alone(op, actual, args, "cython")
print("whole")
"""
    assert processes.python(code, timeout=300, **{_isa.ENVIRONMENT: level}) == "whole\n"
