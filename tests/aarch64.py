"""The environment of `make test-aarch64`: a Python for aarch64 that QEMU runs, and a compiler that runs here.

    python tests/aarch64.py .venv/aarch64

Debian's packages for arm64 are unpacked there; nothing is installed on the machine. Their `python3` is made a
script that emulates it, so pip, environments, the tests and what they start use it as any other. It names its
compiler aarch64-linux-gnu-gcc, which is a cross compiler here, at full speed: setup.py knows nothing of this.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

TOOLS = {
    "aarch64-linux-gnu-g++": "g++-aarch64-linux-gnu",
    "apt-get": "apt",
    "dpkg-deb": "dpkg",
    "qemu-aarch64": "qemu-user",
}
PACKAGES = ["libpython3-dev", "libstdc++6", "python3-venv"]

# Of a state of its own: what is installed here, and for which machines, is neither looked at nor changed.
APT = """
APT::Architecture "arm64";
#clear APT::Architectures;
APT::Architectures {{ "arm64"; }};
APT::Install-Recommends "false";
Dir::State "{0}";
Dir::State::status "{0}/status";
Dir::Cache "{0}";
"""

# Neither Python nor the compiler would look for headers there.
PYTHON = """#!/bin/sh
export C_INCLUDE_PATH='{root}/usr/include/{name}:{root}/usr/include'
exec qemu-aarch64 -L '{root}' -0 "$0" '{root}/usr/bin/emulated-{name}' "$@"
"""


def main(to):
    environment = Path(to).resolve()
    if (environment / "bin" / "pip3").exists():  # which is made last
        return
    if missing := [package for tool, package in TOOLS.items() if shutil.which(tool) is None]:
        sys.exit(f"what is missing here, on Debian: apt-get install {' '.join(missing)}")
    shutil.rmtree(environment, ignore_errors=True)
    for package in _downloaded(environment / "apt"):
        subprocess.run(["dpkg-deb", "--extract", package, environment / "root"], check=True)
    _make_python(environment, environment / "root")


def _downloaded(state):
    """The packages and what they depend on."""
    for name in ("lists", "archives"):
        (state / name / "partial").mkdir(parents=True)
    (state / "status").touch()
    (state / "conf").write_text(APT.format(state), "utf-8")
    for command in (["update"], ["install", "--yes", "--download-only", *PACKAGES]):
        with_conf = os.environ | {"APT_CONFIG": str(state / "conf")}
        subprocess.run(["apt-get", "--quiet=2", *command], env=with_conf, check=True)
    return sorted(state.glob("archives/*.deb"))


def _make_python(environment, root):
    """What `python -m venv` would make, and the script that its link leads to."""
    name = Path(root, "usr", "bin", "python3").readlink().name
    script = root / "usr" / "bin" / name
    script.rename(script.with_name(f"emulated-{name}"))
    script.write_text(PYTHON.format(root=root, name=name), "utf-8")
    script.chmod(0o755)
    (environment / "bin").mkdir()
    (environment / "lib" / name / "site-packages").mkdir(parents=True)
    (environment / "pyvenv.cfg").write_text(f"home = {root}/usr/bin\n", "utf-8")
    python = environment / "bin" / "python"
    python.symlink_to(script)
    subprocess.run([python, "-m", "ensurepip"], stdout=subprocess.DEVNULL, check=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
