"""Scripts that no other test runs, benchmarks above all, import only names that are there."""

import ast
import importlib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SCRIPTS = sorted(
    path.relative_to(ROOT)
    for folder in ("extra", "legacy")
    for path in (ROOT / folder).rglob("*.py")
)


@pytest.mark.parametrize("path", SCRIPTS, ids=str)
def test_names_of_the_package_are_there(path: Path) -> None:
    for node in ast.walk(ast.parse((ROOT / path).read_text())):
        if not isinstance(node, ast.ImportFrom) or node.level:
            continue
        name = node.module or ""
        if name.partition(".")[0] == "cplxnet":
            module = importlib.import_module(name)
            for alias in node.names:
                if not hasattr(module, alias.name):
                    importlib.import_module(f"{name}.{alias.name}")
