"""Promise: the recipes run as they stand, with the packages that they are for."""

import re

import pytest

from tests import processes

RECIPES = re.findall(
    r"^## (.*?)$.*?^```python\n(.*?)^```$",
    (processes.ROOT / "docs/recipes.md").read_text("utf-8"),
    re.M | re.S,
)
PACKAGES = {"jax", "numba", "scipy", "torch", "xarray", "xgboost"}


@pytest.mark.parametrize(("title", "code"), RECIPES, ids=[title for title, _ in RECIPES])
def test_recipes(title, code, tmp_path):
    """As a script: Numba reads the source of what it compiles."""
    for name in PACKAGES & set(re.findall(r"^import (\w+)", code, re.M)):
        pytest.importorskip(name)
    script = tmp_path / "recipe.py"
    prelude = "import fastsoftmax._numba_entry\nfastsoftmax._numba_entry.init()\n" if "numba" in code else ""
    script.write_text(prelude + code)
    result = processes.start([str(script)])
    assert result.returncode == 0, result.stderr


def test_there_are_some():
    assert len(RECIPES) == 11
