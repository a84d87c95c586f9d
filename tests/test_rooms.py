"""Imports only go down, between the rooms of `extra/design.md`, and never in a circle; tests stand
in the same tree.

Imports are read from the sources: those inside functions count too, those for type checkers do not.
"""

import ast
import functools
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path, PurePosixPath

import pytest

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
# folders of tests that are of no room of the package
OTHER_TESTS = ("extra", "faults", "legacy", "notebooks")
# tests of a room that are of no one module
TOPICS = (
    "test_readme.py",
    "test_rooms.py",
    "test_slow_tests.py",
    "auto/test_words.py",
    "auto/manifest/test_design.py",
)


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


def is_named_after_a_module(file: str) -> bool:
    """Whether a file of tests, by its path in `tests/`, has the name of a module of its room.

    A topic may come after it: auto/runner/test_run_early.py is of cplxnet/auto/runner/run.py.
    """
    path = PurePosixPath(file)
    package = ".".join(("cplxnet", *path.parent.parts))
    modules = [module for module in SOURCES if module.rpartition(".")[0] == package]
    names = [module.rpartition(".")[2].strip("_") for module in (package, *modules)]

    subject = path.stem.removeprefix("test_")
    return package in SOURCES and any(f"{subject}_".startswith(f"{name}_") for name in names)


def test_tests_are_named_after_modules():
    """Whoever looks for the tests of cplxnet/A/b.py opens tests/A/test_b.py."""
    tests = ROOT / "tests"
    files = [path.relative_to(tests).as_posix() for path in sorted(tests.rglob("test_*.py"))]
    assert set(TOPICS) < set(files)

    files = [file for file in files if file.partition("/")[0] not in OTHER_TESTS]
    assert len(files) > 50
    lost = [file for file in files if file not in TOPICS and not is_named_after_a_module(file)]
    assert lost == []


@pytest.mark.parametrize(
    ("file", "expected"),
    [
        ("auto/test_main.py", True),
        ("nn/fast/gpu/test_gpu_faults.py", True),
        ("auto/report/test_figures.py", False),
        ("auto/runner/test_runs.py", False),
        ("auto/test_trade_off.py", False),
        ("auto/reports/test_trade_off.py", False),
    ],
)
def test_a_name_of_no_module_is_noticed(file, expected):
    assert is_named_after_a_module(file) == expected
