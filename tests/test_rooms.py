"""Imports only go down, between the rooms of `extra/design.md`, and never in a circle.

They are read from the sources: those inside functions count too, those for type checkers do not.
"""

import ast
import functools
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

ROOT = Path(__file__).parents[1]
SOURCES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
    for path in sorted((ROOT / "cplxnet").rglob("*.py"))
}
# from the ground up; a module is in the longest one that its own name begins with
ROOMS = (
    "cplxnet",
    "cplxnet.nn.fast",
    "cplxnet.nn.fast.gpu",
    "cplxnet.nn",
    "cplxnet.nn.compaction",
    "cplxnet.musicnet",
    "cplxnet.musicnet.transcription",
    "cplxnet.musicnet.trained",
    "cplxnet.musicnet.export",
    "cplxnet.musicnet.deployment",
    "cplxnet.auto.manifest",
    "cplxnet.auto.train",
    "cplxnet.auto.tasks",
    "cplxnet.auto.runner",
    "cplxnet.auto.models",
    "cplxnet.auto.sweep",
    "cplxnet.auto.report",
    "cplxnet.auto",
)
# `__init__.py` that only collect what a floor offers, from its upper rooms too
FACADES = ("cplxnet.nn", "cplxnet.musicnet")


def room_of(module: str) -> str:
    return max((r for r in ROOMS if f"{module}.".startswith(f"{r}.")), key=len)


def statements(tree: ast.AST) -> Iterator[ast.Import | ast.ImportFrom]:
    """Every import but those under `if TYPE_CHECKING`."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            yield node
        elif not (isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)):
            yield from statements(node)


@functools.cache
def imported(module: str) -> set[str]:
    """The modules of the package that one of them imports."""
    path = SOURCES[module]
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]
    names: set[str] = set()
    for node in statements(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
            continue

        origin = node.module or ""
        if node.level:
            above = package.rsplit(".", node.level - 1)[0]
            origin = f"{above}.{origin}".strip(".")
        for alias in node.names:
            submodule = f"{origin}.{alias.name}"
            names.add(submodule if submodule in SOURCES else origin)
    return names & SOURCES.keys()


def test_imports_of_every_kind_are_seen():
    assert {"cplxnet.nn.fast.gpu.layers", "cplxnet.nn.parameters"} <= imported(
        "cplxnet.nn.batchnorm"
    )
    assert {"cplxnet.files", "cplxnet.nn"} <= imported("cplxnet.auto.runner.stages")
    assert {room_of(module) for module in SOURCES} == set(ROOMS)


def test_no_circle():
    TopologicalSorter({module: imported(module) for module in SOURCES}).prepare()


def test_rooms_import_only_down():
    height = {room: number for number, room in enumerate(ROOMS)}
    upwards = [
        f"{module} imports {other}"
        for module in SOURCES
        if module not in FACADES
        for other in imported(module)
        if height[room_of(other)] > height[room_of(module)]
    ]
    assert upwards == []
