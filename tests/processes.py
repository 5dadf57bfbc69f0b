"""Python processes of their own: for imports, environments, forks and signals."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]

# Makes `import NAME` fail in a child, with this in front of its code.
HIDE = """
import sys
for name in {names!r}:
    sys.modules[name] = None
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
