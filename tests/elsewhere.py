"""The compiled kernels and their threads on machines of which there is no Python here (tests/elsewhere.c).

    python -m tests.elsewhere [TARGET ...]

Zig, which brings the headers and libraries of each, compiles them by the commands of setup.py; what this
machine or an emulator can run is run, the rest is linked.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
WORK = ROOT / ".cache" / "elsewhere"
ZIG = [sys.executable, "-m", "ziglang", "cc"]

# What Python calls each machine, and what runs its programs.
TARGETS = {
    "x86_64-linux-musl": ("linux-x86_64", []),
    "aarch64-linux-musl": ("linux-aarch64", ["qemu-aarch64"]),
    "riscv64-linux-musl": ("linux-riscv64", ["qemu-riscv64"]),
    "powerpc64le-linux-musl": ("linux-ppc64le", ["qemu-ppc64le"]),
    "s390x-linux-musl": ("linux-s390x", ["qemu-s390x"]),
    "x86_64-windows-gnu": ("win-amd64", ["wine"]),
    "wasm32-wasi": ("wasi-wasm32", [sys.executable, "-m", "tests.elsewhere", "wasm"]),
    "aarch64-macos": ("macosx-11.0-arm64", None),
    "x86_64-macos": ("macosx-11.0-x86_64", None),
}
LEVEL = "v3"
"""Of x86-64: one is minutes to compile."""


def check(target):
    """Whether its program is right, or at least was linked."""
    platform, runner = TARGETS[target]
    program = _program(target, platform)
    if runner is None or (runner and shutil.which(runner[0]) is None):
        print(f"{target}: compiled and linked; nothing runs it here", flush=True)
        return True
    done = subprocess.run([*runner, program], cwd=ROOT, capture_output=True, text=True, check=False)
    print(f"{target}: {done.stdout.strip() or done.stderr.strip()}", flush=True)
    return done.returncode == 0


def _program(target, platform):
    from distutils.ccompiler import new_compiler  # of setuptools, which the tests do without
    from distutils.core import run_setup

    is_x86 = target.startswith("x86_64")
    os.environ |= {"_PYTHON_HOST_PLATFORM": platform, "FASTSOFTMAX_CPU_LEVELS": LEVEL}
    os.environ["CFLAGS"] = f"-march=x86_64_{LEVEL}" if is_x86 else ""  # Zig has names of its own
    command = run_setup(str(ROOT / "setup.py"), stop_after="init").get_command_obj("build_ext")
    command.force, command.compiler = False, new_compiler("unix")
    command.compiler.set_executables(compiler_so=[*ZIG, "-target", target])
    objects = command.units()
    WORK.mkdir(parents=True, exist_ok=True)
    program = WORK / target
    level = LEVEL if is_x86 else "baseline"
    sources = ["tests/elsewhere.c", "src_cy/pool.c"]
    flags = ["-std=gnu11", "-O2", "-Wall", "-Wno-unused-function", "-Isrc_cy"]
    flags += [f"-DLEVELS(EACH)=EACH({level})", "-o", program]
    subprocess.run([*ZIG, "-target", target, *flags, *sources, *objects], cwd=ROOT, check=True)
    return program


def run_wasm(program):
    """The exit status of a program for WebAssembly's system interface."""
    import wasmtime

    engine = wasmtime.Engine()
    linker, store = wasmtime.Linker(engine), wasmtime.Store(engine)
    linker.define_wasi()
    wasi = wasmtime.WasiConfig()
    wasi.inherit_stdout()
    store.set_wasi(wasi)
    instance = linker.instantiate(store, wasmtime.Module.from_file(engine, program))
    try:
        instance.exports(store)["_start"](store)
    except wasmtime.ExitTrap as status:
        return status.code
    return 0


if __name__ == "__main__":
    if sys.argv[1:2] == ["wasm"]:
        sys.exit(run_wasm(sys.argv[2]))
    os.chdir(ROOT)
    good = [check(target) for target in sys.argv[1:] or TARGETS]
    sys.exit(not all(good))
