"""Wheels of Linux without a container, as their users get them.

    python -m tests.wheels build     into dist/: a source distribution, and from it one for each Python found
    python -m tests.wheels test      each in an empty environment, no compiler in reach: the suite on `cython`
    python -m tests.wheels matrix    each on the oldest and the newest NumPy, SciPy and Numba of its Python

PYTHONS names the interpreters; else they are those of PATH. What follows `test` or `matrix` are arguments of
pytest. Kernels are compiled by the compiler that a local build takes, and are the same objects. Zig's linker
has the symbols of every version of glibc, of which the oldest that manylinux knows are taken.
"""

import os
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
DIST = ROOT / "dist"
WORK = ROOT / ".cache" / "wheels"
GLIBC = "2.17"

NAMES = [f"python3.{minor}{free}" for minor in range(10, 16) for free in ("", "t")]
"""Of interpreters, where PYTHONS is not set: a `t` is of those without a GIL."""

ABOUT = """
import sys, sysconfig
free = "t" if sysconfig.get_config_var("Py_GIL_DISABLED") else ""
print(f"cp{sys.version_info[0]}{sys.version_info[1]}{free}", sysconfig.get_platform().rpartition("-")[2])
"""

LEFT_OUT = "tests/test_the_tests.py::test_mutants_are_of_these_sources"
"""It reads the sources of the package, which are not beside these tests."""

CHECK = """
import sys
import fastsoftmax as fs
assert fs.__file__.startswith(sys.prefix), fs.__file__
assert fs.backend_status()["cython"] == "available", fs.backend_status()
"""

# What of NumPy, SciPy and Numba the package touches; the rest of the suite is about its own arithmetic.
OF_OTHERS = "array_likes arrays halves jacobian_layouts numba_overloads ops_as_functions registry"
OF_OTHERS += " scipy_module special_values stored weighted_logsumexp"


def build():
    """Into dist/: the source distribution, and of it a wheel for each Python."""
    source = _unpacked(_source_distribution(), WORK / "source")
    _share_units(source)
    for python in _pythons():
        tag, machine = _about(python)
        linker = f"{sys.executable} -m ziglang cc -target {machine}-linux-gnu.{GLIBC} -shared"
        variables = {"FASTSOFTMAX_REQUIRE_KERNELS": "1", "LDSHARED": linker}
        made = WORK / f"{tag}-{machine}"
        shutil.rmtree(made, ignore_errors=True)
        command = ["uv", "build", "--quiet", "--wheel", "--python", python, "--out-dir", made, source]
        _run(command, **variables)
        (wheel,) = made.glob("*.whl")
        _run(["auditwheel", "repair", "--wheel-dir", DIST, wheel])
    for path in sorted(DIST.iterdir()):
        print(f"{path.stat().st_size / 1e6:6.2f} MB  {path.name}")


def test(arguments):
    """The status of each wheel's suite, on Pythons that are here."""
    suite, failed = _suite(), []
    for name, python, wheel in _wheels():
        environment = _environment(name, python, [f"fastsoftmax[test] @ {wheel.as_uri()}"])
        _run([environment / "bin" / "python", "-m", "fastsoftmax"], suite, **_apart(environment))
        failed += _test(environment, suite, arguments, FASTSOFTMAX_TEST_BACKENDS="cython")
    return failed


def matrix(arguments):
    """The same for the oldest and the newest of what the package works on."""
    suite, failed = _suite(), []
    arguments = arguments or [f"tests/test_{name}.py" for name in OF_OTHERS.split()]
    for name, python, wheel in _wheels():
        for age in ("lowest", "highest"):
            found = [f"fastsoftmax[numba,scipy] @ {wheel.as_uri()}"]
            environment = _environment(f"{name}-{age}", python, found, "--resolution", age)
            _install(environment, [f"fastsoftmax[test] @ {wheel.as_uri()}"])
            _run(["uv", "pip", "list", "--quiet", "--python", environment])
            failed += _test(environment, suite, arguments)
    return failed


def _source_distribution():
    shutil.rmtree(DIST, ignore_errors=True)
    _run(["uv", "build", "--quiet", "--sdist", "--out-dir", DIST, ROOT])
    (made,) = DIST.glob("*.tar.gz")
    return made


def _unpacked(archive, to):
    shutil.rmtree(to, ignore_errors=True)
    with tarfile.open(archive) as file:
        file.extractall(to)
    (source,) = to.iterdir()
    return source


def _share_units(source):
    """Have its kernels compiled where those of a local build are, or are already."""
    units = ROOT / "build" / "units"
    units.mkdir(parents=True, exist_ok=True)
    (source / "build").mkdir()
    (source / "build" / "units").symlink_to(units)


def _suite():
    """All but the package, as it is in the source distribution."""
    (archive,) = DIST.glob("*.tar.gz")
    suite = _unpacked(archive, WORK / "suite")
    shutil.rmtree(suite / "fastsoftmax")
    return suite


def _pythons():
    named = os.environ.get("PYTHONS", "").split() or list(filter(None, map(shutil.which, NAMES)))
    return [python for python in named if _about(python)]


def _about(python):
    """The tag of an interpreter and its machine, or nothing if it is a name without one."""
    return subprocess.run([python, "-c", ABOUT], capture_output=True, text=True, check=False).stdout.split()


def _wheels():
    """Those in dist/ whose Python is here."""
    for python in _pythons():
        tag, machine = _about(python)
        for wheel in DIST.glob(f"*-{tag}-*_{machine}.whl"):
            yield f"{tag}-{machine}", python, wheel


def _environment(name, python, requirements, *options):
    """A new one, of wheels alone."""
    environment = WORK / f"env-{name}"
    _run(["uv", "venv", "--quiet", "--clear", "--python", python, environment])
    _install(environment, requirements, *options)
    return environment


def _install(environment, requirements, *options):
    command = ["uv", "pip", "install", "--quiet", "--only-binary", ":all:", "--python", environment]
    _run([*command, *options, *requirements])


def _test(environment, suite, arguments, **variables):
    """The environment's name if its tests fail: the others are run all the same."""
    python = environment / "bin" / "python"
    _run([python, "-c", CHECK], suite, **_apart(environment))
    command = [python, "-m", "pytest", "-q", "-n", "auto", f"--deselect={LEFT_OUT}", *arguments]
    status = _run(command, suite, check=False, **_apart(environment), **variables)
    return [environment.name] if status else []


def _apart(environment):
    return {"PATH": str(environment / "bin"), "NUMBA_CACHE_DIR": str(environment / "numba")}


def _run(command, directory=ROOT, *, check=True, **variables):
    command = list(map(str, command))
    print(f"{' '.join(command)}", flush=True)
    return subprocess.run(command, cwd=directory, env=os.environ | variables, check=check).returncode


if __name__ == "__main__":
    what, *arguments = sys.argv[1:]
    failed = {"build": build, "test": test, "matrix": matrix}[what](*([arguments] if what != "build" else []))
    sys.exit(f"tests fail in {', '.join(failed)}" if failed else 0)
