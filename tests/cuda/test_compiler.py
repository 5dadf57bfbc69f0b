"""Compiling without a GPU, where numba-cuda is installed; `compile_check` looks into the machine code."""

import ctypes

import numpy as np
import pytest

from bench.gpu_cases import compile_all
from fastsoftmax._cuda.recipes import rows_recipe

pytest.importorskip("cuda.core", reason="the CUDA compiler is not installed", exc_type=ImportError)
pytest.importorskip("llvmlite", reason="the CUDA compiler is not installed")

SPEC = rows_recipe("softmax", "float32", (8, 40, 1)).launches[0].spec


@pytest.fixture
def compiler(monkeypatch, tmp_path):
    """The module, with a cache of its own, and code that needs no driver to load."""
    module = pytest.importorskip("fastsoftmax._cuda.compiler", exc_type=ImportError)

    class Code:
        def __init__(self, code):
            self.code = code

        from_cubin = classmethod(lambda cls, code: cls(code))
        from_ptx = module.ObjectCode.from_ptx

        def get_kernel(self, name):
            return name, self.code

    monkeypatch.setenv(module.CACHE, str(tmp_path / "cache"))
    monkeypatch.setattr(module, "ObjectCode", Code)
    return module


@pytest.mark.filterwarnings("default")
def test_a_second_process_finds_the_kernel(compiler, monkeypatch, tmp_path):
    first = compiler.load(SPEC, (9, 0))
    assert len(list((tmp_path / "cache").iterdir())) == 1
    monkeypatch.setattr(compiler, "to_ptx", lambda *_: pytest.fail("compiled again"))
    assert compiler.load(SPEC, (9, 0)) == first


def test_kernels_are_compiled_beforehand(compiler):
    """In processes of their own, those that are not there yet."""
    assert list(compile_all([SPEC], (9, 0))) == [0, 1]
    assert list(compile_all([SPEC], (9, 0))) == [1]


@pytest.mark.filterwarnings("default")
def test_an_unwritable_cache_is_no_error(compiler, monkeypatch, tmp_path):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv(compiler.CACHE, str(tmp_path / "file"))
    name, code = compiler.load(SPEC, (9, 0))
    assert name
    assert code


@pytest.mark.filterwarnings("default")
def test_ptx_neither_flushes_nor_approximates(compiler):
    ptx, _ = compiler.to_ptx(SPEC)
    assert ".ftz" not in ptx
    assert "rcp.rn.f32" in ptx
    assert "ld.global.v4.f32" in ptx


@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize(("number", "lowest", "highest"), [(np.float32, -150, 100), (np.float64, -1075, 900)])
def test_scale_on_the_cpu(number, lowest, highest, compiler):
    """The instructions of `scale` compiled for this machine, against ldexp: subnormals are rounded once."""
    rounder = number(1.5 * 2 ** (23 if number is np.float32 else 52))
    scale, _engine = _scale_on_the_cpu(number)
    for k in range(lowest, highest):
        for value in map(number, (0.75, 1.0, 1.4142135)):
            assert scale(value, rounder + number(k)) == np.ldexp(value, k)


def _scale_on_the_cpu(number):
    from llvmlite import binding, ir

    from fastsoftmax._cuda.intrinsics import scaled

    kind, c_kind = (
        (ir.FloatType(), ctypes.c_float) if number is np.float32 else (ir.DoubleType(), ctypes.c_double)
    )
    module = ir.Module()
    function = ir.Function(module, ir.FunctionType(kind, [kind, kind]), "scale")
    builder = ir.IRBuilder(function.append_basic_block())
    builder.ret(scaled(builder, *function.args))
    binding.initialize_native_target()
    binding.initialize_native_asmprinter()
    machine = binding.Target.from_default_triple().create_target_machine()
    engine = binding.create_mcjit_compiler(binding.parse_assembly(str(module)), machine)
    engine.finalize_object()
    return ctypes.CFUNCTYPE(c_kind, c_kind, c_kind)(engine.get_function_address("scale")), engine
