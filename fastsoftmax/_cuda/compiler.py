"""Kernels as machine code: by numba-cuda and the assembler, or from the cache of earlier runs."""

import hashlib
import os
import tempfile
from contextlib import suppress
from functools import cache
from pathlib import Path

from cuda.core import Linker, LinkerOptions, ObjectCode

from fastsoftmax._cuda import compat
from fastsoftmax._cuda.plan import LOWEST_CAPABILITY
from fastsoftmax._cuda.target import argument_types, make_target

CACHE = "FASTSOFTMAX_CUDA_CACHE"

_HEADER = ".address_size 64\n"

SOURCES = (
    "arithmetic.py",
    "compat.py",
    "compiler.py",
    "held.py",
    "intrinsics.py",
    "kernels/*.py",
    "plan.py",
    "target.py",
    "teams.py",
)


def load(spec, capability):
    """The kernel of a spec, ready to launch on GPUs of this compute capability."""
    if capability < LOWEST_CAPABILITY:  # a second device, of which the status does not speak
        raise RuntimeError("compute capability {}.{} is below {}.{}".format(*capability, *LOWEST_CAPABILITY))
    name, code = cached(spec, capability) or compiled(spec, capability)
    return ObjectCode.from_cubin(code).get_kernel(name)


def cached(spec, capability):
    """The name of a kernel's entry and its machine code, or None where no earlier run has left them whole."""
    try:
        found = _place(spec, capability).read_bytes()
    except OSError:
        return None
    digest, content = found[:32], found[32:]
    if hashlib.sha256(content).digest() != digest:
        return None
    name, code = content.split(b"\0", 1)
    return name.decode(), code


def compiled(spec, capability):
    """The same from the compiler, and left in the cache; needs no GPU."""
    ptx, name = to_ptx(spec)
    code, _ = to_cubin(ptx, capability)
    with suppress(OSError):  # an unwritable cache costs time, no more
        _write(_place(spec, capability), name.encode() + b"\0" + code)
    return name, code


def to_ptx(spec):
    """PTX, the same for every GPU since nothing needs a newer one, and the name of its entry."""
    kernel, types = spec.build(make_target), argument_types(spec.plan, spec.signature)
    threads = spec.plan.block[0] * spec.plan.block[1]
    ptx, name = compat.compile_ptx(kernel, types, LOWEST_CAPABILITY, (threads, spec.resident))
    if spec.plan.shared:  # the assembler too would unroll loops, and spill
        ptx = ptx.replace(_HEADER, f'{_HEADER}.pragma "nounroll";\n', 1)
    return ptx, name


def to_cubin(ptx, capability, *, verbose=False):
    """Machine code, and what the assembler said."""
    options = LinkerOptions(arch="sm_{}{}".format(*capability), ptxas_options=["-v"] if verbose else None)
    linker = Linker(ObjectCode.from_ptx(ptx.encode()), options=options)
    return linker.link("cubin").code, linker.get_info_log()


def _place(spec, capability):
    base = os.environ.get(CACHE) or Path.home() / ".cache" / "fastsoftmax"
    key = hashlib.sha256(repr((_source_digest(), spec, capability)).encode()).hexdigest()[:32]
    return Path(base) / f"{spec.module}-{spec.name}-{key}.cubin"


def _write(place, content):
    place.parent.mkdir(parents=True, exist_ok=True)
    # Processes of two containers may have one number, so that it makes no name.
    with tempfile.NamedTemporaryFile(dir=place.parent, suffix=".partial", delete=False) as partial:
        partial.write(hashlib.sha256(content).digest() + content)
    os.replace(partial.name, place)  # at once: other processes read it


@cache
def _source_digest():
    """Changes with the sources of the machine code.

    Not with the compiler's version: kernels are compiled on one machine to be run on another.
    """
    digest = hashlib.sha256()
    for source in sorted(p for name in SOURCES for p in Path(__file__).parent.glob(name)):
        digest.update(source.read_bytes())
    return digest.hexdigest()
