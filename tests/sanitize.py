"""The suite on compiled kernels that watch themselves.

    python -m tests.sanitize address     reads and writes beyond arrays, undefined behaviour
    python -m tests.sanitize thread      data races

A copy of the project under .cache/sanitize/ is built with GCC's sanitizers, for one level of x86-64, and
tested with their libraries loaded before Python; without Numba, whose OpenMP they do not know. What
follows are arguments of pytest.
"""

import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path

from tests.processes import HIDE, WITHOUT_EDITABLE

ROOT = Path(__file__).parents[1]
LEVEL = "v3"
"""The widest that runs on most machines; a level is minutes to compile."""

COMMON = "-O1 -fno-omit-frame-pointer"
FLAGS = {
    "address": f"{COMMON} -fsanitize=address,undefined -fno-sanitize-recover=undefined",
    "thread": f"{COMMON} -fsanitize=thread",
}
LIBRARIES = {"address": ("libasan.so", "libubsan.so"), "thread": ("libtsan.so",)}
OPTIONS = {
    # Python keeps objects to the end, which are no leaks of ours: test_endurance.py counts those.
    "ASAN_OPTIONS": "detect_leaks=0:allocator_may_return_null=1",
    "UBSAN_OPTIONS": "print_stacktrace=1",
    "TSAN_OPTIONS": "halt_on_error=1:exitcode=66:die_after_fork=0",
}
LEFT_OUT = {
    "tests/test_generated_code.py": "the machine code is another",
    "tests/test_surroundings.py::test_a_small_stack": "they take more stack",
    "tests/test_threads.py::test_ctrl_c": "and more time",
    "tests/test_robustness.py::test_ctrl_c_within_a_wide_row": "and more time",
    "tests/test_registry.py::test_import_takes_little_longer_than_numpys": "and more time",
    "tests/test_threads.py::test_forked_while_another_thread_is_at_work": "children may find malloc locked",
    "tests/test_robustness.py::test_no_memory_for_scratch": "of the address space they take terabytes",
    "tests/test_guard_pages.py::test_a_step_beyond_is_noticed": "ends as the sanitizer has it",
    "tests/test_guard_pages.py::test_compiled_kernels[x86-64-v2-0]": "another level",
    "tests/test_guard_pages.py::test_compiled_kernels[x86-64-v2-1]": "another level",
    "tests/test_stored.py::test_peak_memory": "what TSan notes of each byte takes four more",
    "tests/test_dask_module.py::test_peak_memory": "what TSan notes of each byte takes four more",
}


def build(sanitizer):
    """The copy, built."""
    copy = ROOT / ".cache" / "sanitize" / sanitizer
    shutil.rmtree(copy, ignore_errors=True)
    for name in _files():
        (copy / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, copy / name)
    (copy / "sitecustomize.py").write_text(HIDE.format(names=["numba"]) + WITHOUT_EDITABLE, "utf-8")
    flags = {"CFLAGS": FLAGS[sanitizer], "LDFLAGS": FLAGS[sanitizer], "FASTSOFTMAX_CPU_LEVELS": LEVEL}
    print(f"{sanitizer}: compiling, some minutes", flush=True)
    pip = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps"]
    # Not by setup.py: pip has Cython in an environment of its own.
    _run([*pip, "--target", str(copy / "installed"), str(copy)], copy, flags)
    built = list(copy.glob("installed/fastsoftmax/_kernels.*.so"))
    if not built:
        sys.exit("the kernels were not built: see above")
    shutil.copy(built[0], copy / "fastsoftmax")
    return copy


CHECK = """
import sys
from fastsoftmax._isa import load
kernels, _ = load()
maps = open("/proc/self/maps").read()
sys.exit(not (kernels.__file__.startswith(sys.argv[1]) and sys.argv[2] in maps))
"""


def _files():
    command = ["git", "ls-files", "-co", "--exclude-standard", "-z"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, check=True, text=True)
    return [name for name in listed.stdout.split("\0") if name and (ROOT / name).is_file()]


def test(sanitizer, copy, arguments):
    """The exit status of pytest, whose tests see the sanitizer's reports as the ends of their processes."""
    libraries = [_library(name) for name in LIBRARIES[sanitizer]]
    variables = OPTIONS | {
        "LD_PRELOAD": " ".join(libraries),
        "PYTHONPATH": str(copy),
        "FASTSOFTMAX_TEST_BACKENDS": "cython",
    }
    if _run(["-c", CHECK, str(copy), LIBRARIES[sanitizer][0]], copy, variables):
        sys.exit("other kernels than those that were built are loaded, or the sanitizer is not")
    left_out = [f"--deselect={name}" for name in LEFT_OUT]
    return _run(
        ["-m", "pytest", "-q", "-n", "auto", "-p", "no:cacheprovider", *left_out, *arguments], copy, variables
    )


def _library(name):
    compiler = os.environ.get("CC", "gcc")
    found = subprocess.run([compiler, f"-print-file-name={name}"], capture_output=True, check=True, text=True)
    return found.stdout.strip()


def _run(arguments, directory, variables):
    command, environment = [sys.executable, *arguments], os.environ | variables
    return subprocess.run(command, cwd=directory, env=environment, check=False).returncode


def main(sanitizer, *arguments):
    if platform.machine() not in ("x86_64", "AMD64"):
        sys.exit("the level of the kernels that are built is one of x86-64")
    return test(sanitizer, build(sanitizer), arguments)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
