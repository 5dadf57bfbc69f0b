"""Kernels as machine code: by numba-cuda and the assembler, or from the cache of earlier runs."""

import hashlib
import os
from contextlib import suppress
from functools import cache
from pathlib import Path

from cuda.core import Linker, LinkerOptions, ObjectCode

from fastsoftmax._cuda import compat
from fastsoftmax._cuda.availability import LOWEST_CAPABILITY
from fastsoftmax._cuda.target import argument_types, make_target

CACHE = "FASTSOFTMAX_CUDA_CACHE"


def load(spec, capability):
    """The kernel of a spec, ready to launch on GPUs of this compute capability."""
    if capability < LOWEST_CAPABILITY:  # a second device, of which the status does not speak
        raise RuntimeError("compute capability {}.{} is below {}.{}".format(*capability, *LOWEST_CAPABILITY))
    place = _place(spec, capability)
    with suppress(OSError, ValueError):
        name, code = place.read_bytes().split(b"\0", 1)
        return ObjectCode.from_cubin(code).get_kernel(name.decode())
    ptx, name = to_ptx(spec)
    code, _ = to_cubin(ptx, capability)
    with suppress(OSError):  # an unwritable cache costs time, no more
        _write(place, name.encode() + b"\0" + code)
    return ObjectCode.from_cubin(code).get_kernel(name)


def to_ptx(spec):
    """PTX, the same for every GPU since nothing needs a newer one, and the name of its entry."""
    kernel, types = spec.build(make_target), argument_types(spec.plan, spec.signature)
    threads = spec.plan.block[0] * spec.plan.block[1]
    return compat.compile_ptx(kernel, types, LOWEST_CAPABILITY, threads)


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
    partial = place.with_suffix(f".{os.getpid()}")
    partial.write_bytes(content)
    partial.replace(place)  # at once: other processes read it


@cache
def _source_digest():
    """Changes with this package's sources and the compiler's version."""
    digest = hashlib.sha256(compat.version().encode())
    for source in sorted(Path(__file__).parent.rglob("*.py")):
        digest.update(source.read_bytes())
    return digest.hexdigest()
