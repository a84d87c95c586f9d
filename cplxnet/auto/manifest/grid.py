"""From a template and a grid to a folder of manifests, and back to the parameters that vary."""

from __future__ import annotations

import copy
import itertools
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any

import pandas as pd

from cplxnet import files

from . import strict_json
from .errors import Fault, ManifestError, ManifestNotFoundError, nearest
from .read import Manifest, Vocabulary, load, parse

Values = Mapping[str, Any]  # path -> the value it has in one manifest


def short(value: float) -> str:
    """A number as text for file names, the fewest digits that read back the same: 2.5e-03 for 0.0025, 1e+00 for 1."""
    sign, digits, exponent = Decimal(repr(float(value))).normalize().as_tuple()
    if not isinstance(exponent, int):
        raise ValueError(f"expected a finite number, got {value!r}; try a float")
    mantissa = str(digits[0]) + ("." if len(digits) > 1 else "") + "".join(map(str, digits[1:]))
    return f"{'-' if sign else ''}{mantissa}e{exponent + len(digits) - 1:+03d}"


def default_label(values: Values) -> str:
    """File name of a manifest from its varied values: kl_div2.5e-03-seed0, the last part of each path and its value."""
    texts = [short(value) if isinstance(value, float) else str(value) for value in values.values()]
    pairs = [path.rpartition(".")[2] + text for path, text in zip(values, texts, strict=True)]
    return re.sub(r"[^A-Za-z0-9_.+-]+", "_", "-".join(pairs)) or "only"


def expand(
    template: Manifest | Mapping[str, Any],
    grid: Mapping[str, Sequence[Any]],
    *,
    replicates: int | None = None,
    label: Callable[[Values], str] = default_label,
    title: Callable[[Values], str] | None = None,
    task: Vocabulary | None = None,
) -> dict[str, Manifest]:
    """One manifest for each combination of the grid's values, the last path varying fastest.

    Args:
        template: a manifest, or the JSON values of one.
        grid: dotted JSON path, such as "stages.sparsify.objective.kl_div" -> the values it takes. The path has to
            be written in the template.
        replicates: adds "seed": 0, ..., replicates - 1 as the last path.
        label: the varied values of a manifest -> its key in the result (its file name without .json).
        title: the same -> its "name"; None: the template's name and the label.
        task: as in `manifest.load`.

    Raises:
        ManifestError: the template, a path of the grid, or any resulting manifest is wrong; all faults at once.
        ValueError: two combinations have one label, or a label is no file name.
    """
    base = (
        template
        if isinstance(template, Manifest)
        else parse(dict(template), task=task, source="template")
    )
    axes = dict(grid) if replicates is None else {**grid, "seed": range(replicates)}
    faults = list(_grid_faults(base.to_dict(), axes))
    if faults:
        raise ManifestError("grid", faults)
    manifests: dict[str, Manifest] = {}
    for combination in itertools.product(*axes.values()):
        values = dict(zip(axes, combination, strict=True))
        name = label(values)
        if name in manifests or not re.fullmatch(r"[A-Za-z0-9_+-][A-Za-z0-9_.+-]*", name):
            why = "a second time" if name in manifests else "which is no file name"
            raise ValueError(
                f"expected a label of its own for {values}, got {name!r} {why}; try another `label`"
            )
        heading = title(values) if title else f"{base.name} {name}"
        try:
            manifests[name] = edit(base, {"name": heading, **values}, task=task)
        except ManifestError as error:
            faults += [fault for fault in error.faults if fault not in faults]
    if faults:
        raise ManifestError("grid", faults)
    return manifests


def edit(manifest: Manifest, changes: Values, *, task: Vocabulary | None = None) -> Manifest:
    """A copy of `manifest` with other values at the given paths; the last key of a path may be new.

    Raises:
        ManifestError: a path leads nowhere, or the result is wrong.
    """
    raw = manifest.to_dict()
    faults: list[Fault] = []
    for path, value in changes.items():
        *parents, last = path.split(".")
        part = raw
        for key in parents:
            part = part.get(key) if isinstance(part, dict) else None  # type: ignore[assignment]
        if isinstance(part, dict):
            part[last] = copy.deepcopy(value)
        else:
            faults.append(_no_path(raw, path))
    return parse(raw, task=task, source=manifest.name, faults=faults)


def _no_path(raw: Mapping[str, Any], path: str) -> Fault:
    return Fault(
        path,
        "no such path in the template",
        path,
        "a path written there",
        nearest(path, _paths(raw)),
    )


def _grid_faults(raw: Mapping[str, Any], grid: Mapping[str, Sequence[Any]]) -> Iterator[Fault]:
    known = set(_paths(raw))
    for path, values in grid.items():
        if path not in known:
            yield _no_path(raw, path)
        elif (
            isinstance(values, (str, bytes)) or not isinstance(values, Sequence) or not len(values)
        ):
            yield Fault(path, "no values to take", accepted="a list of values")
        for other in grid:
            if path.startswith(other + "."):
                yield Fault(
                    path, "lies inside another path of the grid", path, f"either it or {other}"
                )


def _paths(raw: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    """The dotted paths of all values in `raw`, objects included, lists as one value."""
    for key, value in raw.items():
        yield prefix + key
        if isinstance(value, Mapping):
            yield from _paths(value, f"{prefix}{key}.")


def varied(manifests: Mapping[str, Manifest]) -> pd.DataFrame:
    """The parameters that differ: a row a manifest, a column a JSON path; "name" is left out. Undoes `expand`.

    A path that some manifests do not write is None there. Lists are one value (a tuple).
    """
    rows = {name: dict(_leaves(manifest.to_dict())) for name, manifest in manifests.items()}
    paths = dict.fromkeys(path for row in rows.values() for path in row if path != "name")
    columns = {}
    for path in paths:
        values = [row.get(path) for row in rows.values()]
        written = {strict_json.canonical([path in row, row.get(path)]) for row in rows.values()}
        if len(written) > 1:
            column = pd.Series(values, index=list(rows), dtype=object)
            numbers = all(isinstance(value, (bool, int, float)) for value in values)
            columns[path] = (
                column.infer_objects() if numbers else column
            )  # inferring makes None a NaN
    return pd.DataFrame(columns, index=pd.Index(list(rows), name="name", dtype=object))


def value(manifest: Manifest, path: str) -> Any:
    """What a manifest has at a dotted JSON path; None where it does not write it."""
    return dict(_leaves(manifest.to_dict())).get(path)


def _leaves(raw: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in raw.items():
        if isinstance(value, Mapping):
            yield from _leaves(value, f"{prefix}{key}.")
        else:
            yield prefix + key, tuple(value) if isinstance(value, list) else value


def write(
    folder: str | Path, manifests: Mapping[str, Manifest], *, overwrite: bool = False
) -> list[Path]:
    """Save each manifest as `folder`/<name>.json; equal files are left alone, others in the folder stay.

    Returns:
        The files written.

    Raises:
        FileExistsError: a file holds something else and `overwrite` is False; nothing is written then.
    """
    texts = {
        Path(folder) / f"{name}.json": manifest.to_json() for name, manifest in manifests.items()
    }
    changed = {
        path: text
        for path, text in texts.items()
        if not path.exists() or path.read_bytes() != text.encode()
    }
    different = sorted(path.name for path in changed if path.exists())
    if different and not overwrite:
        raise FileExistsError(
            f"expected no other manifests in {folder}, got {different}; try overwrite=True"
        )
    for path, text in changed.items():
        files.write_text(path, text)
    return list(changed)


def read(folder: str | Path, *, task: Vocabulary | None = None) -> dict[str, Manifest]:
    """The manifests `folder`/*.json by file name without .json, sorted.

    Raises:
        ManifestError: with all faults of all files, each path led by its file; ManifestNotFoundError: no such folder.
    """
    if not Path(folder).is_dir():
        hint = "a folder of manifests: experiment_generator.ipynb writes them"
        raise ManifestNotFoundError(folder, [Fault("", "no such folder", accepted=hint)])
    faults: list[Fault] = []
    manifests = {}
    for path in sorted(Path(folder).glob("*.json")):
        try:
            manifests[path.stem] = load(path, task=task)
        except ManifestError as error:
            faults += [
                Fault(
                    f"{path.name}: {f.path}".removesuffix(": "),
                    f.problem,
                    f.value,
                    f.accepted,
                    f.nearest,
                )
                for f in error.faults
            ]
    if not manifests and not faults:
        faults = [Fault("", "no manifests in this folder", accepted="files named *.json")]
    if faults:
        raise ManifestError(folder, faults)
    return manifests
