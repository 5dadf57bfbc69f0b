"""PTX and machine code of the kernels without a GPU: what each claims of accesses and registers.

For every op, storage and regime, on compute capabilities 8.0, 9.0 and 10.0: 128-bit loads and stores where
rows are whole vectors, no spills and no local memory, and as many blocks an SM as the plan counts on. Takes
some minutes; ``make test-cuda-compile`` runs it, with ``-k`` words to choose cases. ``--model`` prints the
most of a copy's speed that each case of the bench could reach on an H100.
"""

import argparse
import re
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path

from bench import gpu_cases
from fastsoftmax._cuda.compiler import to_cubin, to_ptx
from fastsoftmax._cuda.plan import SHARED_MEMORY, WARP
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
    (8192, 1),
    (12_288, 1),
    (16_384, 1),
    (25_600, 1),
    (32_768, 1),
    (100_000, 1),
    (1001, 1),
    (12_289, 1),
    (50_257, 1),
    (100, 64),
)
FEWER_SHAPES = ((128, 1), (2048, 1), (16_384, 1), (25_600, 1), (50_257, 1), (100_000, 1))


@dataclass(frozen=True)
class Found:
    """What the assembler and the machine code say of one kernel."""

    registers: int
    shared: int
    spilled: int
    stack: int
    loads: int
    stores: int
    shuffles: int
    local: int
    instructions: int  # of the way through, without loops
    loops: bool


def cases():
    """Names and kernels to compile."""
    for storage in STORAGES:
        for n in (10, 64, 1024, 4096):
            for op in JACOBIANS:
                yield f"{storage} {op} n={n}", jacobian_recipe(op, storage, (100, n, 1)).launches[0].spec
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
        shared=_number(r"(\d+) bytes smem", log),
        spilled=_number(r"(\d+) bytes spill stores", log) + _number(r"(\d+) bytes spill loads", log),
        stack=_number(r"(\d+) bytes stack frame", log),
        loads=len(re.findall(r"\bLDG\.E\S*\.128", sass)),
        stores=len(re.findall(r"\bSTG\.E\S*\.128", sass)),
        shuffles=len(re.findall(r"\bSHFL", sass)),
        local=len(re.findall(r"\b(?:LDL|STL)\b", sass)),
        **_way_through(sass),
    )


def _way_through(sass):
    """How many instructions a thread passes, and whether there are loops beside the way.

    Left out are loops, functions that are called (a division of 64 bits) and what lies behind the last exit
    (lanes that had parted).
    """
    kernel = sass[: sass.rindex("EXIT")].rpartition(".section\t.text.")[2].splitlines()
    begins, counted, loops = {}, [0], False
    for before, this in pairwise(kernel):
        counted.append(counted[-1] + bool(re.search(r"/\*[0-9a-f]{4,}\*/ +(?!NOP)\S", this)))
        if before.startswith(".L"):
            begins[before.rstrip(":")] = counted[-2]
        target = re.search(r"\bBRA\S* .*`\((\S+)\)", this)
        if target and target[1] in begins:
            counted[-1] = begins[target[1]]
            loops = True
    return {"instructions": counted[-1], "loops": loops}


def _number(pattern, log):
    return sum(map(int, re.findall(pattern, log)))


# An H100 as the model has it: bytes a second, SMs, and each one's instructions of a warp a clock and clocks.
MEMORY, SMS, ISSUE, CLOCK = 3.0e12, 132, 3.2, 1.755e9
REGISTERS, THREADS, BLOCKS = 65_536, 2048, 32  # of an SM


def blocks_an_sm(spec, found):
    """Blocks of a kernel that an SM holds at once."""
    plan = spec.plan
    warps = -(-plan.block[0] * plan.block[1] // WARP)
    by_registers = REGISTERS // (-(-found.registers * WARP // 256) * 256 * warps)
    shared = found.shared + plan.shared_bytes(_arrays(spec)) + 1024  # which the system takes of each block
    return min(by_registers, THREADS // (warps * WARP), (SHARED_MEMORY + 1024) // shared, BLOCKS)


def instructions_an_entry(spec, found):
    """Loops may be over vectors: what one more of them takes is seen of one and two, held in registers."""
    if not found.loops:
        return found.instructions / spec.plan.slots
    width = spec.plan.width
    few = [replace(spec, plan=replace(spec.plan, slots=k * width, shared=False)) for k in (1, 2)]
    first, second = (inspect(to_ptx(spec)[0], (9, 0), _disassembler()).instructions for spec in few)
    return (first + (spec.plan.slots // width - 1) * (second - first)) / spec.plan.slots


def part_of_memory_speed(spec, found, instructions):
    """The most that a kernel of so many an entry can reach of a plain copy's speed.

    A block holds its row before it computes, and computes before it writes: what one does not overlap,
    the next one may.
    """
    issue = instructions / (SMS * ISSUE * WARP * CLOCK)
    memory = _bytes_an_entry(spec) / MEMORY
    return min(1.0, memory / issue, blocks_an_sm(spec, found) * memory / (memory + issue))


def _arrays(spec):
    return 2 if spec.module in ("vjp", "log_products") else 1


def _bytes_an_entry(spec):
    options = dict(spec.options)
    reads = 0 if spec.module == "jacobian" else _arrays(spec)
    writes = spec.name != "partial" and options.get("op") != "logsumexp" and options.get("gradient", True)
    return spec.plan.itemsize * (reads + writes)


def complaints(spec, found):
    """What a kernel claims and does not keep."""
    plan, wide = spec.plan, spec.plan.vector and spec.plan.width * spec.plan.itemsize == 16
    reads = spec.module != "reductions"
    writes = spec.name in ("whole", "combined", "line") and dict(spec.options).get("op") != "logsumexp"
    writes = writes and dict(spec.options).get("gradient", True)
    reads = reads and (writes or spec.name != "combined")
    if found.spilled or found.stack or found.local:
        yield f"spills {found.spilled} bytes, stack {found.stack}, {found.local} local accesses"
    if (blocks := blocks_an_sm(spec, found)) < spec.resident:
        yield f"{blocks} blocks an SM, {spec.resident} expected"
    if wide and reads and not found.loads:
        yield "no 128-bit load"
    if wide and writes and not found.stores:
        yield "no 128-bit store"
    reduces = reads and dict(spec.options).get("op") != "log_softmax_jacobian"
    if plan.threads <= WARP and not plan.tile and reduces and not found.shuffles:
        yield "no shuffle"


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("-k", default="", help="only cases with all of these words in their name")
    parser.add_argument(
        "--capability", type=int, choices=[10 * a + b for a, b in CAPABILITIES], action="append"
    )
    parser.add_argument("--model", action="store_true", help="what the bench's cases can reach at most")
    options = parser.parse_args(arguments)
    if options.model:
        for row in model(options.k.split()):
            print(row, flush=True)
        return 0
    chosen = {spec: name for name, spec in cases() if all(word in name for word in options.k.split())}
    capabilities = [divmod(c, 10) for c in options.capability or ()] or CAPABILITIES
    failed = 0
    for spec, name in chosen.items():
        ptx, _ = to_ptx(spec)
        for capability in capabilities:
            found = inspect(ptx, capability, _disassembler())
            wrong = "; ".join(complaints(spec, found))
            failed += bool(wrong)
            print(line(name, capability, found, wrong), flush=True)
    print(f"{len(chosen)} kernels for {len(capabilities)} architectures, {failed} failed")
    return 1 if failed or not chosen else 0


def model(words):
    """Of the bench's cases: blocks an SM, instructions an entry, and the most of a copy's speed."""
    yield "| regime | case | registers | blocks an SM | instructions an entry | at most | accept |"
    yield "|---|---|---|---|---|---|---|"
    for timed in gpu_cases.times():
        if not all(word in f"{timed.regime} {timed.case.name}" for word in words):
            continue
        specs = [spec for spec in timed.case.specs() if spec.module != "reductions"]
        found = [inspect(to_ptx(spec)[0], (9, 0), _disassembler()) for spec in specs]
        pairs = list(zip(specs, found, strict=True))
        entries = [instructions_an_entry(spec, f) for spec, f in pairs]
        parts = [part_of_memory_speed(*pair, k) for pair, k in zip(pairs, entries, strict=True)]
        took = sum(_bytes_an_entry(spec) / part for spec, part in zip(specs, parts, strict=True))
        columns = (
            ", ".join(str(f.registers) for f in found),
            ", ".join(str(blocks_an_sm(spec, f)) for spec, f in pairs),
            ", ".join(f"{k:.0f}" for k in entries),
            f"{_bytes_an_entry(specs[-1]) / took:.0%}",
            "" if timed.accept is None else f"{timed.accept:.0%}",
        )
        yield f"| {timed.regime} | {timed.case.name} | {' | '.join(columns)} |"


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
