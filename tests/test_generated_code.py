"""Promise: loops that take exponentials run on whole vectors of their level, in the machine code itself.

Such a loop holds the products of the polynomial and the integer shift that makes 2**k, both on registers of
that width. Where a compiler gives up it leaves scalar products or calls, several times slower, and the
results are the same: no other test would notice.
"""

import math
import os
import platform
import re
import shutil
import subprocess
from functools import cache
from importlib.util import find_spec

import numpy as np
import pytest

import fastsoftmax as fs
from fastsoftmax import _isa

X86 = platform.machine().lower() in ("x86_64", "amd64")
LEVELS = {"v2": "xmm", "v3": "ymm", "v4": "zmm"}

# Passes of src_cy/passes.hpp that take exponentials, and kinds of grid by their numbers in grid.hpp.
PASSES = [*(f"Exps<{{}}, {how}>" for how in range(4)), "LogVjp<{}>", "OneMinusExp<{}>", "ExpDot<{}>"]
KINDS = {"row": 0, "narrow": 1, "wide": 3}

# Of each dtype: how an instruction's name ends, the shift, and the products that the polynomial needs.
DTYPES = {"f32": ("s", "d", 5), "f64": ("d", "q", 10)}
REALS = {"f32": "float", "f64": "double"}

_FUNCTION = re.compile(r"[0-9a-f]+ <void pass_over<(.+, \(Kind\)\d)>\(.*>:$")
_INSTRUCTION = re.compile(r"\s+([0-9a-f]+):\s+(.*)")


class Code:
    """Instructions of one function in order, each with its address."""

    def __init__(self, instructions):
        self.instructions = instructions

    def loops(self):
        """What lies between each jump backwards and its target."""
        addresses = {address: i for i, (address, _) in enumerate(self.instructions)}
        for i, (_, text) in enumerate(self.instructions):
            if (jump := re.match(r"j\w+\s+(\S+)", text)) and addresses.get(jump[1], i + 1) <= i:
                yield [text for _, text in self.instructions[addresses[jump[1]] : i + 1]]

    def scalar_products(self, dtype):
        return [text for _, text in self.instructions if _is_product(text, "s" + DTYPES[dtype][0])]

    def has_exp_loop(self, dtype, width, fused):
        return any(_is_exp_loop(loop, dtype, width, fused) for loop in self.loops())


def _is_product(text, suffix, fused=False):
    fma = rf"vfn?m(add|sub)\d+{suffix}\b"
    return re.match(fma if fused else rf"({fma}|v?mul{suffix}\b)", text) is not None


def _is_exp_loop(loop, dtype, width, fused):
    suffix, shift, products = DTYPES[dtype]
    wide = [text for text in loop if f"%{width}" in text]
    return (
        sum(_is_product(text, "p" + suffix, fused) for text in wide) >= products - fused
        and any(re.match(rf"v?psll{shift}\b", text) for text in wide)
        and not any(text.startswith("call") for text in loop)
    )


# ---- the compiled extension --------------------------------------------------------------------


@cache
def _disassembled():
    """`Code` of the passes in the module, by level, pass and kind; skips where there can be none."""
    if not X86:
        pytest.skip(f"{platform.machine()} has other instructions than those looked for here")
    if (spec := find_spec("fastsoftmax._kernels")) is None:
        pytest.skip("the compiled kernels are not built")
    if (objdump := shutil.which("objdump")) is None:
        pytest.skip("objdump is not installed")
    command = [objdump, "-d", "--demangle", "--no-show-raw-insn", spec.origin]
    listing = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    functions = {}
    for line in listing.replace("(anonymous namespace)::", "").splitlines():
        if line.endswith(">:"):
            name = _FUNCTION.match(line)
            instructions = functions.setdefault(name[1], []) if name else []
        elif instruction := _INSTRUCTION.match(line):
            instructions.append(instruction.groups())
    return {name: Code(instructions) for name, instructions in functions.items()}


def _pass(level, name, kind, dtype):
    """Of a level that was built: a pass that is not there has another name, and is not looked at."""
    functions = _disassembled()
    name = f"{level}, {name.format(REALS[dtype])}, (Kind){KINDS[kind]}"
    if level not in os.environ.get("FASTSOFTMAX_CPU_LEVELS", level):
        pytest.skip(f"{level} is not built")
    assert name in functions, "there are other names, or none: a stripped library?"
    return functions[name]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", PASSES)
@pytest.mark.parametrize("level", LEVELS)
def test_compiled_passes(level, name, kind, dtype):
    code = _pass(level, name, kind, dtype)
    assert code.has_exp_loop(dtype, LEVELS[level], fused=level != "v2")
    assert not code.scalar_products(dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("level", "wider"), [("v2", "ymm"), ("v2", "zmm"), ("v3", "zmm")])
def test_narrower_code_is_noticed(level, wider, dtype):
    code = _pass(level, "Exps<{}, 0>", "row", dtype)
    assert code.has_exp_loop(dtype, LEVELS[level], fused=False)
    assert not code.has_exp_loop(dtype, wider, fused=False)


# ---- what is looked for ------------------------------------------------------------------------

VECTOR_LOOP = [*["vfmadd231ps %zmm1,%zmm2,%zmm3"] * 5, "vpslld $0x17,%zmm4,%zmm4", "vmulps %zmm4,%zmm3,%zmm0"]


def _looping(body):
    return Code([(str(i), text) for i, text in enumerate([*body, "jne 0", "ret"])])


def test_a_vector_loop_is_recognised():
    assert _looping(VECTOR_LOOP).has_exp_loop("f32", "zmm", fused=True)


@pytest.mark.parametrize(
    "body",
    [
        [text.replace("zmm", "xmm").replace("ps ", "ss ") for text in VECTOR_LOOP],
        [text.replace("zmm", "ymm") for text in VECTOR_LOOP],
        [text for text in VECTOR_LOOP if "psll" not in text],
        [text for text in VECTOR_LOOP if "fma" not in text],
        [*VECTOR_LOOP, "call 1000 <expf@plt>"],
    ],
    ids=["scalar", "narrow", "no shift", "no polynomial", "a call"],
)
def test_another_loop_is_not(body):
    assert not _looping(body).has_exp_loop("f32", "zmm", fused=True)


def test_straight_code_is_no_loop():
    assert not Code(list(enumerate(VECTOR_LOOP))).has_exp_loop("f32", "zmm", fused=True)


def test_scalar_products_are_found():
    scalar = ["vmulss %xmm1,%xmm2,%xmm3", "vfnmadd132ss %xmm1,%xmm2,%xmm3"]
    assert _looping([*VECTOR_LOOP, *scalar]).scalar_products("f32") == scalar


# ---- numba -------------------------------------------------------------------------------------


def _numba_code(compiled):
    """`Code` of a dispatcher's one signature."""
    (listing,) = compiled.inspect_asm().values()
    instructions, label = [], None
    for line in map(str.strip, listing.splitlines()):
        if target := re.match(r"(\.LBB\w+):", line):
            label = target[1]
        elif line and not line.startswith("."):
            instructions.append((label, line))
            label = None
    return Code(instructions)


@pytest.fixture
def numba_jit():
    """The site of compilation, where numba can run and the CPU has the registers looked for."""
    if (status := fs.backend_status()["numba"]) != "available":
        pytest.skip(f"backend numba: {status}")
    if not X86 or "x86-64-v3" not in _isa.levels():
        pytest.skip("the CPU has no AVX2")
    from fastsoftmax.backends import _numba_jit

    return _numba_jit


@pytest.mark.parametrize("dtype", DTYPES)
def test_numba_softmax(dtype, numba_jit):
    from fastsoftmax.backends.numba import softmax

    signature = softmax._signature(np.dtype(dtype.replace("f", "float")))
    intp = numba_jit.types.intp
    compiled = numba_jit.jit(softmax._function)  # from the disk cache it could not be inspected
    compiled.compile((*signature, intp, intp, intp))
    code = _numba_code(compiled)
    assert any(code.has_exp_loop(dtype, width, fused=True) for width in ("ymm", "zmm"))


def test_numba_with_a_call_of_exp_is_noticed(numba_jit):
    def exps(x, out):
        for i in range(len(x)):
            out[i] = math.exp(x[i])

    compiled = numba_jit.jit(exps)
    array = numba_jit.types.float32[::1]
    compiled.compile((array, array))
    code = _numba_code(compiled)
    assert list(code.loops())
    assert not any(code.has_exp_loop("f32", width, fused=False) for width in ("xmm", "ymm", "zmm"))
