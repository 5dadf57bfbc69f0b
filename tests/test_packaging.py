"""Promise: a wheel has the compiled kernels, or is for any machine; there is one for each Python."""

import os
import re
import shutil
import subprocess
import sys
import venv
from pathlib import Path

import pytest

from tests.processes import ROOT

PYPROJECT = (ROOT / "pyproject.toml").read_text("utf-8")


def test_wheels_are_for_the_pythons_that_are_named():
    named = re.findall(r'"Programming Language :: Python :: 3\.(\d+)"', PYPROJECT)
    built = re.search(r"^\[tool\.cibuildwheel\]\nbuild = (.*)", PYPROJECT, re.MULTILINE)[1]
    assert re.findall(r'"cp3(\d+)-\*"', built) == named
    assert re.search(r'requires-python = ">=3\.(\d+)"', PYPROJECT)[1] == named[0]


@pytest.mark.slow
def test_without_a_compiler(tmp_path):
    """A wheel for any machine; but an error for those who build wheels of one."""
    source = shutil.copytree(ROOT, tmp_path / "source", ignore=shutil.ignore_patterns(".*", "*.so", "build"))
    venv.create(tmp_path / "venv", with_pip=True)
    (wheel,) = _built(tmp_path, source).glob("*.whl")
    assert wheel.name.endswith("-py3-none-any.whl")
    with pytest.raises(subprocess.CalledProcessError, match="non-zero"):
        _built(tmp_path, source, FASTSOFTMAX_REQUIRE_KERNELS="1")


def _built(folder, source, **variables):
    to = folder / "wheels"
    python = folder / "venv" / Path(sys.executable).relative_to(sys.prefix)
    environment = os.environ | {"CC": "no-compiler"} | variables
    command = [python, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", to, source]
    subprocess.run(command, env=environment, check=True, capture_output=True)
    return to
