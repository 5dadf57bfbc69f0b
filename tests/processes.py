"""Python processes of their own: for imports, environments, forks and signals."""

import os
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

WITHOUT_GIL = bool(sysconfig.get_config_var("Py_GIL_DISABLED"))
"""Whether this Python is free-threaded."""

# Makes `import NAME` fail in a child, with this in front of its code.
HIDE = """
import sys
for name in {names!r}:
    sys.modules[name] = None
"""

# An editable installation finds what is missing where the package was imported from.
WITHOUT_EDITABLE = """
import sys
sys.meta_path[:] = [finder for finder in sys.meta_path if "editable" not in repr(finder).lower()]
"""

# Makes every compiled module of the package fail to import.
HIDE_EXTENSIONS = """
import importlib.machinery as machinery, sys

class Hide(machinery.PathFinder):
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        if not name.startswith("fastsoftmax."):
            return None
        spec = super().find_spec(name, path, target)
        if spec is not None and isinstance(spec.loader, machinery.ExtensionFileLoader):
            raise ImportError(f"{name} is hidden by this test")
        return spec

sys.meta_path.insert(0, Hide)
"""


def threading_layer(name):
    """The variables of a child in which Numba uses this layer, of those it finds by itself or by its path."""
    if name != "tbb":
        return {"NUMBA_THREADING_LAYER": name}
    libraries = Path(sys.prefix, "lib")  # where pip installs it, and no loader looks
    if not list(libraries.glob("libtbb.so*")):
        pytest.skip("threading layer tbb: the library is not installed")
    return {"NUMBA_THREADING_LAYER": "tbb", "LD_LIBRARY_PATH": str(libraries)}


def python(code, *, timeout=120, **environment):
    """What ``code`` prints, run by a new interpreter with warnings as errors; its failure is this one's."""
    result = start(["-c", code], timeout=timeout, **environment)
    assert result.returncode == 0, f"exit status {result.returncode}\n{result.stdout}\n{result.stderr}"
    return result.stdout


def start(arguments, *, timeout=120, **environment):
    """The completed process of ``python arguments``; variables of None are removed."""
    given = os.environ | environment
    env = {k: v for k, v in given.items() if v is not None}
    env["PYTHONPATH"] = os.pathsep.join(filter(None, [str(ROOT), env.get("PYTHONPATH")]))
    return subprocess.run(
        [sys.executable, "-W", "error", *arguments],
        capture_output=True,
        text=True,
        timeout=timeout,
        env=env,
        cwd=ROOT,
        check=False,
    )
