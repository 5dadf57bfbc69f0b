"""Kernels between the compiler and the disk, with a pretended assembler; the real one: `test_compiler.py`."""

import os
import re
import sys
from importlib import import_module
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest

import fastsoftmax._cuda as package
from fastsoftmax._cuda.recipes import cross_entropy_recipe, rows_recipe
from tests.cuda import lockstep

SPEC = rows_recipe("softmax", "float32", (8, 40, 1)).launches[0].spec
CAPABILITY = (9, 0)


class ObjectCode:
    """Machine code is its source and target; a kernel is its name and code."""

    def __init__(self, code):
        self.code = code

    from_ptx = from_cubin = classmethod(lambda cls, code: cls(code))

    def get_kernel(self, name):
        return name, self.code


class Linker:
    def __init__(self, source, options):
        self.source, self.options = source, options

    def link(self, kind):
        return ObjectCode(b"%s \0 %s for %s" % (kind.encode(), self.source.code, self.options.arch.encode()))

    def get_info_log(self):
        return f"ptxas {self.options.ptxas_options}"


@pytest.fixture
def compiled():
    """The capability, and the block's threads and blocks an SM, of each compilation."""
    return []


@pytest.fixture
def compiler(compiled, monkeypatch, tmp_path):
    """The module, on a cache of its own."""

    def compile_ptx(kernel, types, capability, launch_bounds):
        compiled.append((capability, launch_bounds))
        return f"ptx of {types}", "entry"

    core, compat, target = (
        ModuleType(name) for name in ("cuda.core", "fastsoftmax._cuda.compat", "fastsoftmax._cuda.target")
    )
    core.Linker, core.LinkerOptions, core.ObjectCode = Linker, SimpleNamespace, ObjectCode
    compat.compile_ptx = compile_ptx
    target.make_target = lockstep.make_target
    target.argument_types = lambda plan, signature: signature
    for module in (ModuleType("cuda"), core, compat, target):
        monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setattr(package, "compat", compat, raising=False)
    sys.modules.pop("fastsoftmax._cuda.compiler", None)
    module = import_module("fastsoftmax._cuda.compiler")
    monkeypatch.setenv(module.CACHE, str(tmp_path / "cache"))
    yield module
    del sys.modules["fastsoftmax._cuda.compiler"]


def test_compiled_once(compiler, compiled, tmp_path):
    first = compiler.load(SPEC, CAPABILITY)
    assert first == ("entry", b"cubin \0 ptx of %s for sm_90" % SPEC.signature.encode())
    assert compiler.load(SPEC, CAPABILITY) == first
    assert len(compiled) == 1
    (file,) = (tmp_path / "cache").iterdir()
    assert file.name.startswith("forward-")


def test_one_file_for_each_target_and_source(compiler, compiled, monkeypatch, tmp_path):
    compiler.load(SPEC, (9, 0))
    assert compiler.load(SPEC, (8, 6))[1].endswith(b"sm_86")
    monkeypatch.setattr(compiler, "_source_digest", lambda: "of other sources")
    compiler.load(SPEC, (9, 0))
    assert len(compiled) == len(list((tmp_path / "cache").iterdir())) == 3


def test_the_cache_knows_all_sources_of_kernels(compiler):
    """What kernels and the compiler import, and what that imports; nothing that only calls them."""
    folder = Path(compiler.__file__).parent
    found, new = set(), {*folder.glob("kernels/*.py"), folder / "compiler.py"}
    while new:
        found |= new
        imports = re.findall(r"from fastsoftmax\._cuda\.([\w.]+) import", "".join(p.read_text() for p in new))
        imports += re.findall(r"from fastsoftmax\._cuda import (\w+)", "".join(p.read_text() for p in new))
        new = {folder / f"{name.replace('.', '/')}.py" for name in imports if "kernels" not in name} - found
    assert found == {p for name in compiler.SOURCES for p in folder.glob(name)}


def test_no_newer_instructions_than_the_kernels_need(compiler, compiled):
    for capability in ((12, 0), (8, 0)):
        compiler.load(SPEC, capability)
    assert compiled == [((8, 0), (SPEC.plan.block[0] * SPEC.plan.block[1], 1))] * 2


def test_long_rows_leave_room_for_a_second_block(compiler, compiled):
    """One computes while the other's accesses are under way."""
    for op in ("softmax", "softmax_vjp", "log_softmax_jvp"):
        for launch in rows_recipe(op, "bfloat16", (8, 200_000, 1)).launches:
            compiler.to_ptx(launch.spec)
    for launch in cross_entropy_recipe("float32", (8, 100_000, 1), False, False, True).launches:
        compiler.to_ptx(launch.spec)
    assert {bounds for _, bounds in compiled} == {(512, 2)}
    compiler.to_ptx(rows_recipe("softmax", "float32", (8, 32_768, 1)).launches[0].spec)
    assert compiled[-1][1] == (1024, 1)


def test_a_device_without_conversions_to_16_bits(compiler, compiled):
    with pytest.raises(RuntimeError, match=r"^compute capability 7.5 is below 8.0$"):
        compiler.load(SPEC, (7, 5))
    assert not compiled


@pytest.mark.parametrize("damage", [lambda whole: b"cut off", lambda whole: whole[:-1], lambda whole: b""])
def test_a_damaged_file_is_written_again(damage, compiler, compiled, tmp_path):
    """Machine code that is cut off too, which only the driver would notice, at each start anew."""
    first = compiler.load(SPEC, CAPABILITY)
    (file,) = (tmp_path / "cache").iterdir()
    whole = file.read_bytes()
    file.write_bytes(damage(whole))
    assert compiler.load(SPEC, CAPABILITY) == first
    assert len(compiled) == 2
    assert file.read_bytes() == whole


def test_processes_of_one_number_do_not_share_a_partial_file(compiler, monkeypatch, tmp_path):
    """As in two containers on one home: one is between writing and renaming while the other does both."""
    rename = os.replace

    def another_comes_between(partial, place):
        monkeypatch.setattr(os, "replace", rename)
        compiler.compiled(SPEC, CAPABILITY)
        rename(partial, place)

    monkeypatch.setattr(os, "replace", another_comes_between)
    monkeypatch.setattr(os, "getpid", lambda: 7)
    first = compiler.compiled(SPEC, CAPABILITY)
    assert compiler.cached(SPEC, CAPABILITY) == first
    assert len(list((tmp_path / "cache").iterdir())) == 1


def test_an_unwritable_place_is_no_error(compiler, compiled, monkeypatch, tmp_path):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv(compiler.CACHE, str(tmp_path / "file"))
    assert compiler.load(SPEC, CAPABILITY) == compiler.load(SPEC, CAPABILITY)
    assert len(compiled) == 2


def test_what_the_assembler_says(compiler):
    assert compiler.to_cubin("ptx", CAPABILITY, verbose=True)[1] == "ptxas ['-v']"
    assert compiler.to_cubin("ptx", CAPABILITY)[1] == "ptxas None"
