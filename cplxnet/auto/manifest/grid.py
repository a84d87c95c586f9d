"""From a template and a grid to a folder of manifests, and back to the parameters that vary."""

from __future__ import annotations

import copy
import dataclasses
import functools
import itertools
import math
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cplxnet import files

from . import vocabulary
from .errors import Fault, ManifestError, ManifestNotFoundError, nearest
from .read import load, names_a_run, parse
from .schema import Manifest, canonical, leaves

if TYPE_CHECKING:
    import pandas as pd

Values = Mapping[str, Any]  # path -> the value it has in one manifest
Axis = str | tuple[str, ...]  # a path, or several that vary together

# the stages of the grids, in turn; reports compare the first and the last
STAGES = ("dense", "sparsify", "fine-tune")
DENSE, SPARSIFY, FINE_TUNE = STAGES
# the variable of the grids: the weight of the KL term while sparsifying
C = f"stages.{SPARSIFY}.objective.kl_div"
# the variational form of the network: ...VD or ...ARD
METHOD = f"stages.{SPARSIFY}.model.name"
# "sum": as the ELBO has it; "mean": averaged within each layer
REDUCTION = "objective_terms.kl_div.reduction"

# -- names of files --------------------------------------------------------------------------------


def short(value: float) -> str:
    """A number for file names, in the fewest digits that read back the same.

    2.5e-03 for 0.0025, 1e+00 for 1.

    Raises:
        ValueError: it is NaN or infinite.
    """
    import numpy as np  # here: `status` does without it

    if not math.isfinite(value):
        raise ValueError(f"expected a finite number, got {value!r}; try a float")
    return np.format_float_scientific(float(value), trim="-", exp_digits=2)


def text_of(value: Any) -> str:
    """A value for names."""
    return short(value) if isinstance(value, float) else str(value)


def default_label(values: Values) -> str:
    """The file name of a manifest: the last part of each varied path, and its value.

    kl_div2.5e-03-seed0, say.
    """
    parts = [path.rpartition(".")[2] + text_of(value) for path, value in values.items()]
    return re.sub(r"[^A-Za-z0-9_.+-]+", "_", "-".join(parts)) or "only"


# -- manifests from a template ---------------------------------------------------------------------


def expand(
    template: Manifest | Mapping[str, Any],
    grid: Mapping[Axis, Sequence[Any]],
    *,
    replicates: int | None = None,
    label: Callable[[Values], str] = default_label,
    title: Callable[[Values], str] | None = None,
) -> dict[str, Manifest]:
    """One manifest for each combination of the grid's values, the last path varying fastest.

    Args:
        template: a manifest, or the JSON values of one.
        grid: dotted JSON path, such as "stages.sparsify.objective.kl_div" -> the values it takes.
            A path that the template does not have is a fault. Paths that vary together are one
            tuple, and each of its values a tuple of theirs.
        replicates: adds "seed": 0, ..., replicates - 1 as the last path.
        label: the varied values of a manifest -> its key in the result (file name without .json).
        title: the same -> its "name"; None: the template's name and the label.

    Raises:
        ManifestError: the template, a path of the grid, or any resulting manifest is wrong; all
            faults at once.
        ValueError: two combinations have one label, or a label is no file name.
    """
    base = template if isinstance(template, Manifest) else parse(dict(template), source="template")
    if replicates is not None and replicates < 1:
        raise ValueError(f"expected at least 1 replicate, got {replicates}")

    axes = dict(grid) if replicates is None else {**grid, "seed": range(replicates)}
    faults = list(_grid_faults(base.whole(), axes))
    if faults:
        raise ManifestError("grid", faults)

    manifests: dict[str, Manifest] = {}
    for combination in itertools.product(*axes.values()):
        values: dict[str, Any] = {}
        for axis, value in zip(axes, combination, strict=True):
            if isinstance(axis, tuple):
                values |= zip(axis, value, strict=True)
            else:
                values[axis] = value
        name = label(values)
        _check_label(name, values, manifests)
        heading = title(values) if title else f"{base.name} {name}"
        try:
            manifests[name] = edit(base, {"name": heading, **values})
        except ManifestError as error:
            faults += [fault for fault in error.faults if fault not in faults]

    if faults:
        raise ManifestError("grid", faults)
    return manifests


def _check_label(name: str, values: Values, manifests: Mapping[str, Manifest]) -> None:
    is_file_name = re.fullmatch(r"[A-Za-z0-9_.+-]+", name) and names_a_run(name)
    if name in manifests or not is_file_name:
        why = "a second time" if name in manifests else "which is no file name"
        raise ValueError(
            f"expected a label of its own for {values}, got {name!r} {why}; try another `label`"
        )


def edit(manifest: Manifest, changes: Values) -> Manifest:
    """A copy of `manifest` with other values at the given paths.

    Args:
        manifest: is left as it is.
        changes: dotted JSON path -> value. The last key of a path may be new. What the manifest
            leaves out on the way there is filled in first: its default, or what it inherits.

    Raises:
        ManifestError: a path leads nowhere, or the result is wrong.
    """
    raw = manifest.to_dict()
    whole = manifest.whole()
    faults: list[Fault] = []
    for path, value in changes.items():
        *parents, last = path.split(".")
        part: Any = raw
        default: Any = whole
        for key in parents:
            default = default.get(key) if isinstance(default, dict) else None
            if isinstance(part, dict) and isinstance(default, dict):
                part.setdefault(key, copy.deepcopy(default))
            part = part.get(key) if isinstance(part, dict) else None

        if isinstance(part, dict):
            part[last] = copy.deepcopy(value)
        else:
            faults.append(_no_path("no such path", whole, path))
    return parse(raw, source=manifest.name, faults=faults)


def _grid_faults(raw: Mapping[str, Any], grid: Mapping[Axis, Sequence[Any]]) -> Iterator[Fault]:
    known = set(_paths(raw))
    flat = [
        (path, values)
        for axis, values in grid.items()
        for path in (axis if isinstance(axis, tuple) else (axis,))
    ]
    for path, n in Counter(path for path, _ in flat).items():
        if n > 1:
            accepted = "it alone, or together with other paths"
            yield Fault(path, "varies alone and together with other paths", path, accepted)

    by_path = dict(flat)
    for path, values in by_path.items():
        is_list = isinstance(values, Sequence) and not isinstance(values, (str, bytes))
        if path not in known:
            yield _no_path("no such path in the template", raw, path)
        elif not is_list or not len(values):
            yield Fault(path, "no values to take", accepted="a list of values")
        for other in by_path:
            if path.startswith(other + "."):
                problem = "lies inside another path of the grid"
                yield Fault(path, problem, path, f"either it or {other}")


def _no_path(problem: str, raw: Mapping[str, Any], path: str) -> Fault:
    return Fault(path, problem, path, "a path written there", nearest(path, _paths(raw)))


def _paths(raw: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    """The dotted paths of all values in `raw`, objects included, lists as one value."""
    for key, value in raw.items():
        yield prefix + key
        if isinstance(value, Mapping):
            yield from _paths(value, f"{prefix}{key}.")


# -- the grids that the default task brings --------------------------------------------------------


def expanded(preset: str, *values: Any, **options: Any) -> dict[str, Manifest]:
    """The manifests of a preset of the default task; values, options: of what makes it."""
    make = vocabulary.of_task(None).presets[preset]
    return expand(**make(*values, **options))


experiment_1 = functools.partial(expanded, "experiment-1")
experiment_2 = functools.partial(expanded, "experiment-2")
demo = functools.partial(expanded, "demo")
reference = functools.partial(expanded, "reference")
structured = functools.partial(expanded, "structured")
settled = functools.partial(expanded, "settled")


def tiny(**options: Any) -> Manifest:
    """A manifest of three stages of two epochs of three batches, for tests."""
    return expanded("tiny", **options)["tiny"]


# -- back from manifests to the parameters that vary -----------------------------------------------


def varied(manifests: Mapping[str, Manifest]) -> pd.DataFrame:
    """The parameters that differ: a row a manifest, a column a JSON path. Undoes `expand`.

    The keys "name" and "parent" are left out. A path that some manifests do not write is None
    there. Lists are one value (a tuple).
    """
    return differing({name: dict(leaves(m.to_dict())) for name, m in manifests.items()})


def differing(rows: Mapping[str, Values]) -> pd.DataFrame:
    """`varied` of the values themselves: name of a manifest -> path -> value."""
    import pandas as pd  # here: a machine that trains need not have it

    names = ("name", "parent")
    paths = dict.fromkeys(path for row in rows.values() for path in row if path not in names)
    columns = {}
    for path in paths:
        values = [row.get(path) for row in rows.values()]
        written = {canonical([path in row, row.get(path)]) for row in rows.values()}
        if len(written) > 1:
            column = pd.Series(values, index=list(rows), dtype=object)
            is_numeric = all(isinstance(value, (bool, int, float)) for value in values)
            columns[path] = column.infer_objects() if is_numeric else column  # would make None NaN
    return pd.DataFrame(columns, index=pd.Index(list(rows), name="name", dtype=object))


def value(manifest: Manifest, path: str) -> Any:
    """What a manifest has at a dotted JSON path; None where it does not write it."""
    return dict(leaves(manifest.to_dict())).get(path)


# -- folders of manifests --------------------------------------------------------------------------


def write(
    folder: str | Path, manifests: Mapping[str, Manifest], *, overwrite: bool = False
) -> list[Path]:
    """Save each manifest as `folder`/<name>.json; equal files are left alone, others stay.

    Returns:
        The files written.

    Raises:
        FileExistsError: a file holds something else and `overwrite` is False; nothing is written.
    """
    changed = {}
    for name, manifest in manifests.items():
        path = Path(folder) / f"{name}.json"
        text = manifest.to_json()
        if not path.exists() or path.read_bytes() != text.encode():
            changed[path] = text

    different = sorted(path.name for path in changed if path.exists())
    if different and not overwrite:
        raise FileExistsError(
            f"expected no other manifests in {folder}, got {different}; try overwrite=True "
            "(--overwrite)"
        )

    for name in manifests:
        files.tidy(Path(folder) / f"{name}.json")  # of a call that was killed
    for path, text in changed.items():
        files.write_text(path, text)
    return list(changed)


def read(folder: str | Path) -> dict[str, Manifest]:
    """The manifests `folder`/*.json by file name without .json, sorted.

    Raises:
        ManifestError: with all faults of all files, each path led by its file.
        ManifestNotFoundError: no such folder.
    """
    if not Path(folder).is_dir():
        hint = "a folder of manifests: experiment_generator.ipynb writes them"
        raise ManifestNotFoundError(folder, [Fault("", "no such folder", accepted=hint)])

    faults: list[Fault] = []
    manifests = {}
    for path in sorted(Path(folder).glob("*.json")):
        try:
            manifests[path.stem] = load(path)
        except ManifestError as error:
            for fault in error.faults:
                where = f"{path.name}: {fault.path}".removesuffix(": ")
                faults.append(dataclasses.replace(fault, path=where))

    if not manifests and not faults:
        faults = [Fault("", "no manifests in this folder", accepted="files named *.json")]
    if faults:
        raise ManifestError(folder, faults)
    return manifests
