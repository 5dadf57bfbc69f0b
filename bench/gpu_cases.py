"""What `bench.gpu` checks and times, in order of value, and the kernels of it all.

Nothing here needs torch or a GPU: ``make cuda-cache`` compiles the kernels beforehand, into a folder that can
be carried to a machine without network.
"""

import argparse
import os
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

from fastsoftmax import get_num_threads
from fastsoftmax._arrays import rows_of
from fastsoftmax._cuda.plan import ACCESS_BYTES, ITEMSIZE
from fastsoftmax._cuda.recipes import cross_entropy_recipe, jacobian_recipe, rows_recipe
from tests.inputs import SPECIAL_ROWS

CACHE = Path(__file__).parents[1] / ".cache" / "cuda"

FORWARD = ("softmax", "log_softmax", "logsumexp")
PRODUCTS = ("softmax_vjp", "log_softmax_vjp", "log_softmax_jvp")


@dataclass(frozen=True)
class Case:
    """An op on arrays of one dtype and shape."""

    op: str
    dtype: str
    shape: tuple
    axis: int = -1
    options: tuple = ()  # of a cross-entropy, as pairs
    offset: int = 0  # entries from an aligned address to the arrays

    @property
    def name(self):
        along = "" if self.axis == -1 else f" axis={self.axis}"
        options = "".join(f" {name}={value}" for name, value in self.options)
        return f"{self.op} {self.shape} {self.dtype}{along}{options}{' unaligned' if self.offset else ''}"

    @property
    def canonical(self):
        """The shape as (outer, n, inner)."""
        return rows_of(self.shape, self.axis).canonical

    def specs(self):
        """The kernels to compile."""
        given = {"vector": self.offset * ITEMSIZE[self.dtype] % ACCESS_BYTES == 0}
        if self.op == "softmax_jacobian":
            recipe = jacobian_recipe(self.op, self.dtype, self.canonical, **given)
        elif self.op == "cross_entropy_with_grad":
            options = dict(self.options)
            flags = ("label_smoothing" in options, "weight" in options, True)
            every = not options.keys() & {"weight", "ignore_index"}
            reduction = options.get("reduction", "mean")
            recipe = cross_entropy_recipe(self.dtype, self.canonical, *flags, reduction, every, **given)
        else:
            recipe = rows_recipe(self.op, self.dtype, self.canonical, **given)
        return [launch.spec for launch in recipe.launches]


@dataclass(frozen=True)
class Timed:
    """A case to time, and what is hoped of it: parts of a plain copy's speed, and times torch's."""

    regime: str
    case: Case
    accept: float | None = None
    aim: float | None = None
    against_torch: float | None = None


# ---- right ---------------------------------------------------------------------------------------

# Every regime in float32, three of them in the other dtypes: each width compiles some ten kernels.
WIDTHS = {"float32": (2048, 512, 1001, 12_288, 50_257, 100_000, 100, 5)} | dict.fromkeys(
    ("bfloat16", "float16", "float64"), (2048, 40)
)
_LOSSES = (
    (("reduction", "none"), ("ignore_index", 3)),
    (("label_smoothing", 0.125), ("weight", True), ("reduction", "mean")),
)


def checks():
    for dtype, widths in WIDTHS.items():
        for n in widths:
            yield from _checks_of(dtype, (3 if n > 10_000 else 37, n), -1)
        yield from _checks_of(dtype, (3, 70, 33), 1)
        yield Case("softmax_jacobian", dtype, (11, 13))
        yield Case("softmax", dtype, (37, 512), offset=1)
    yield from _checks_of("float32", (1, 5000, 2), 1)


def _checks_of(dtype, shape, axis):
    for op in (*FORWARD, *PRODUCTS):
        yield Case(op, dtype, shape, axis)
    for options in _LOSSES:
        yield Case("cross_entropy_with_grad", dtype, shape, axis, options)


def specials():
    """The rows beyond the reals, whose answers are known."""
    for dtype in WIDTHS:
        for op in FORWARD:
            yield Case(op, dtype, (len(SPECIAL_ROWS), 3))


# ---- fast ----------------------------------------------------------------------------------------

MOVED = 256 << 20  # bytes a call reads and writes at least
STREAMS = {"softmax_vjp": 3, "logsumexp": 1} | dict.fromkeys(
    ("softmax", "log_softmax", "cross_entropy_with_grad"), 2
)


def _rows(op, n, dtype):
    return max(1, MOVED // (STREAMS[op] * n * ITEMSIZE[dtype])), n


def times():
    for dtype in ("float32", "bfloat16"):
        for n in (1024, 2048, 4096, 8192, 16_384, 32_768, 50_257):
            yield Timed("1K - 56K", Case("softmax", dtype, _rows("softmax", n, dtype)), 0.88, 0.95, 1.0)
    for n in (65_536, 131_072):
        case = Case("softmax", "float32", _rows("softmax", n, "float32"))
        yield Timed("longer, two passes", case, 0.58, 0.65, 1.0)
    for dtype, accept, aim in (("float32", 0.78, 0.88), ("bfloat16", 0.63, 0.78)):
        for n in (256, 512):
            yield Timed("256 - 1K", Case("softmax", dtype, _rows("softmax", n, dtype)), accept, aim, 1.0)
    for dtype in ("float32", "bfloat16"):
        for n in (1024, 256, 4096, 12_288):
            yield Timed("VJP", Case("softmax_vjp", dtype, _rows("softmax_vjp", n, dtype)), 0.85, 0.92, 1.5)
    for shape in ((4096, 128), (64, 1024)):
        yield Timed("Jacobian", Case("softmax_jacobian", "float32", shape), 0.85, 0.95, 3.0)
    for dtype in ("float32", "bfloat16"):
        for n in (1024, 32_768, 50_257):
            shape = _rows("cross_entropy_with_grad", n, dtype)
            yield Timed("cross-entropy", Case("cross_entropy_with_grad", dtype, shape))
    for op in ("log_softmax", "logsumexp"):
        for n in (1024, 16_384):
            yield Timed(op, Case(op, "float32", _rows(op, n, "float32")))
    for n in (10, 32, 64, 128):
        yield Timed("short", Case("softmax", "float32", _rows("softmax", n, "float32")))
    for shape in ((64, 1000, 512), (8, 4096, 1024), (4096, 1000, 8)):
        yield Timed("columns", Case("softmax", "float32", shape, 1))
    for n in (1024, 8192):
        yield Timed("float16", Case("softmax", "float16", _rows("softmax", n, "float16")))
    for shape in ((4, 1 << 23), (32, 1 << 17), (8, 32_768)):
        yield Timed("few long rows", Case("softmax", "float32", shape))
    for n in (1024, 8192):
        shape = _rows("softmax", n, "float32")
        yield Timed("unaligned", Case("softmax", "float32", shape, offset=1))
    for n in (1024, 8192):
        yield Timed("float64", Case("softmax", "float64", _rows("softmax", n, "float64")))


def tutorial():
    """The shapes of Triton's tutorial, whose geometric mean is compared with torch."""
    return [Case("softmax", "float32", (4096, n)) for n in range(256, 12_673, 1024)]


NUMPY_ARRAYS = Case("softmax", "float32", (37, 2048))  # to be copied there and back

# What a call takes of the host's time shows with small arrays.
HOST = (
    Case("softmax", "float32", (16, 128)),
    Case("softmax_vjp", "float32", (16, 128)),
    Case("cross_entropy_with_grad", "float32", (16, 128)),
)


# ---- compiled ------------------------------------------------------------------------------------


def specs():
    """Every kernel once, in the order in which they are needed."""
    cases = (*checks(), *specials(), *(timed.case for timed in times()), *tutorial(), *HOST, NUMPY_ARRAYS)
    return list(dict.fromkeys(spec for case in cases for spec in case.specs()))


def compile_all(wanted, capability):
    """Compile what the cache lacks, in as many processes as CPUs may be used; yields how many are there."""
    from fastsoftmax._cuda.compiler import cached, compiled

    missing = [spec for spec in wanted if cached(spec, capability) is None]
    done = len(wanted) - len(missing)
    yield done
    if missing:
        with ProcessPoolExecutor(get_num_threads(), get_context("spawn")) as pool:
            for future in as_completed([pool.submit(compiled, spec, capability) for spec in missing]):
                done += future.exception() is None
                yield done


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--capability", type=int, default=90, help="of the GPU: 90 for H100 and H200")
    capability = divmod(parser.parse_args().capability, 10)
    os.environ.setdefault("FASTSOFTMAX_CUDA_CACHE", str(CACHE))
    wanted = specs()
    for done in compile_all(wanted, capability):
        print(f"\r{done} of {len(wanted)} kernels", end="", flush=True)
    print(f" in {os.environ['FASTSOFTMAX_CUDA_CACHE']}")
    return 0 if done == len(wanted) else 1


if __name__ == "__main__":
    raise SystemExit(main())
