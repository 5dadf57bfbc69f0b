"""PTX and machine code of the kernels without a GPU: what each claims of accesses and registers.

For every op, storage and regime, on compute capabilities 8.0, 9.0 and 10.0: 128-bit loads and stores where
rows are whole vectors, no spills and no local memory. Takes some minutes; ``make test-cuda-compile``
runs it, with ``-k`` words to choose cases.
"""

import argparse
import re
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from fastsoftmax._cuda.compiler import to_cubin, to_ptx
from fastsoftmax._cuda.plan import WARP
from fastsoftmax._cuda.recipes import cross_entropy_recipe, jacobian_recipe, rows_recipe
from fastsoftmax.registry import JACOBIANS

CAPABILITIES = ((8, 0), (9, 0), (10, 0))
STORAGES = ("float32", "float64", "float16", "bfloat16")
OPS = ("softmax", "log_softmax", "logsumexp", "softmax_vjp", "log_softmax_vjp", "log_softmax_jvp")

# Row lengths of every regime, with whole vectors and without; (n, inner). Fewer where only storage differs.
SHAPES = (
    (40, 1),
    (128, 1),
    (512, 1),
    (2048, 1),
    (12_288, 1),
    (25_600, 1),
    (100_000, 1),
    (1001, 1),
    (100, 64),
)
FEWER_SHAPES = ((128, 1), (2048, 1), (25_600, 1), (100_000, 1))


@dataclass(frozen=True)
class Found:
    """What the assembler and the machine code say of one kernel."""

    registers: int
    spilled: int
    stack: int
    loads: int
    stores: int
    shuffles: int
    local: int


def cases():
    """Names and kernels to compile."""
    for storage in STORAGES:
        for op in JACOBIANS:
            yield f"{storage} {op}", jacobian_recipe(op, storage, (100, 64, 1)).launches[0].spec
        for n, inner in SHAPES if storage == STORAGES[0] else FEWER_SHAPES:
            shape = (64, n, inner)
            recipes = {op: rows_recipe(op, storage, shape) for op in OPS}
            recipes["cross_entropy"] = cross_entropy_recipe(storage, shape, False, False, False)
            recipes["cross_entropy_with_grad"] = cross_entropy_recipe(storage, shape, False, False, True)
            smoothed = cross_entropy_recipe(storage, shape, True, True, True, "mean")
            recipes["cross_entropy_with_grad, all options"] = smoothed
            for op, recipe in recipes.items():
                for launch in recipe.launches:
                    regime = launch.spec.plan.regime
                    yield f"{storage} {op} {regime} n={n} inner={inner} {launch.spec.name}", launch.spec


def inspect(ptx, capability, disassembler):
    """Assemble a kernel and count what matters in it."""
    code, log = to_cubin(ptx, capability, verbose=True)
    with tempfile.TemporaryDirectory() as folder:
        cubin = Path(folder) / "kernel.cubin"
        cubin.write_bytes(code)
        sass = subprocess.run([disassembler, "-c", cubin], capture_output=True, text=True, check=True).stdout
    return Found(
        registers=_number(r"Used (\d+) registers", log),
        spilled=_number(r"(\d+) bytes spill stores", log) + _number(r"(\d+) bytes spill loads", log),
        stack=_number(r"(\d+) bytes stack frame", log),
        loads=len(re.findall(r"\bLDG\.E\S*\.128", sass)),
        stores=len(re.findall(r"\bSTG\.E\S*\.128", sass)),
        shuffles=len(re.findall(r"\bSHFL", sass)),
        local=len(re.findall(r"\b(?:LDL|STL)\b", sass)),
    )


def _number(pattern, log):
    return sum(map(int, re.findall(pattern, log)))


def complaints(spec, found):
    """What a kernel claims and does not keep."""
    plan, wide = spec.plan, spec.plan.vector and spec.plan.width * spec.plan.itemsize == 16
    reads = spec.module not in ("jacobian", "reductions")
    writes = spec.name in ("whole", "combined", "flat") and dict(spec.options).get("op") != "logsumexp"
    writes = writes and dict(spec.options).get("gradient", True)
    reads = reads and (writes or spec.name != "combined")
    if found.spilled or found.stack or found.local:
        yield f"spills {found.spilled} bytes, stack {found.stack}, {found.local} local accesses"
    if wide and reads and not found.loads:
        yield "no 128-bit load"
    if wide and writes and not found.stores:
        yield "no 128-bit store"
    if plan.threads <= WARP and not plan.tile and reads and not found.shuffles:
        yield "no shuffle"


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("-k", default="", help="only cases with all of these words in their name")
    parser.add_argument(
        "--capability", type=int, choices=[10 * a + b for a, b in CAPABILITIES], action="append"
    )
    options = parser.parse_args(arguments)
    chosen = {spec: name for name, spec in cases() if all(word in name for word in options.k.split())}
    capabilities = [divmod(c, 10) for c in options.capability or ()] or CAPABILITIES
    failed = 0
    for spec, name in chosen.items():
        ptx, _ = to_ptx(spec, CAPABILITIES[0])
        for capability in capabilities:
            found = inspect(ptx, capability, _disassembler())
            wrong = "; ".join(complaints(spec, found))
            failed += bool(wrong)
            print(line(name, capability, found, wrong), flush=True)
    print(f"{len(chosen)} kernels for {len(capabilities)} architectures, {failed} failed")
    return 1 if failed or not chosen else 0


def line(name, capability, found, wrong):
    """One line of the report."""
    verdict = f"FAIL ({wrong})" if wrong else "ok"
    return (
        f"sm_{capability[0]}{capability[1]:<2} {found.registers:3} registers, {found.loads:2} loads and "
        f"{found.stores:2} stores of 128 bits  {name}: {verdict}"
    )


def _disassembler():
    if found := shutil.which("nvdisasm"):
        return found
    packaged = [Path(folder) / "nvidia" for folder in sys.path]
    return str(next(path for folder in packaged for path in folder.glob("**/bin/nvdisasm")))


if __name__ == "__main__":
    sys.exit(main())
