"""The runs of one folder or several as one table, with the method of each, and what is missing in it."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from cplxnet.auto.manifest import grid
from cplxnet.auto.manifest.experiments import C
from cplxnet.auto.manifest.read import Manifest

from . import tables

ALWAYS = {"method": "", "seed": 0, "folder": ""}  # what a table of `report.collect` alone may lack
_NO_METHOD = ("name", "seed", "threshold", C)  # what differs between runs of one method
_IN_MODEL = ("model.", "features.cplx")  # told by the network's name and its options
_FORMS = ("VD", "ARD")


class Lacking(ValueError):
    """No run has what a kind of report is made of; the text says what that is."""


def gather(*folders: str | Path) -> pd.DataFrame:
    """`report.collect` of the folders, one under another, with columns folder, method, seed, n_epochs and file.

    method: in words what a run differs in beside C, seed and threshold ("complex VD", say; empty where nothing does);
    n_epochs: planned for the row's stage; file: that the row's scorer reads. Runs without scores are left out.

    Raises ValueError for no folder at all; FileNotFoundError and ManifestError as `report.collect`.
    """
    if not folders:
        raise ValueError("expected a folder of manifests at least, got none; try runs/demo")
    manifests = {
        f"{folder}/{name}": one for folder in folders for name, one in grid.read(folder).items()
    }
    labels, rows = methods(manifests), []
    for folder in dict.fromkeys(map(str, folders)):
        for row in tables.collect(folder).to_dict("records"):
            run = f"{folder}/{row['run']}"
            one = manifests[run]
            feed = one.feeds[one.scorers[row["scorer"]].feed]
            own = {"folder": folder, "method": labels[run], "seed": one.seed, C: grid.value(one, C)}
            own |= {
                "n_epochs": one.stage(row["stage"]).n_epochs,
                "file": one.datasets[feed.dataset].file,
            }
            rows.append({str(key): value for key, value in row.items()} | own)
    return pd.DataFrame(rows)


def methods(manifests: Mapping[str, Manifest]) -> dict[str, str]:
    """In words what each manifest differs in from the others, beside C, seed and threshold."""
    varied = grid.varied(manifests)
    others = [path for path in varied if not path.startswith(_IN_MODEL) and path not in _NO_METHOD]
    others = [path for path in others if ".model." not in path]
    traits = {
        name: _network(one) | {path: varied[path][name] for path in others}
        for name, one in manifests.items()
    }
    names = dict.fromkeys(name for found in traits.values() for name in found)
    shown = [
        name for name in names if len({repr(found.get(name)) for found in traits.values()}) > 1
    ]
    return {
        run: " ".join(_said(name, found.get(name)) for name in shown).strip()
        for run, found in traits.items()
    }


def _network(manifest: Manifest) -> dict[str, Any]:
    """Field, architecture, variational form and options of the network that is sparsified."""
    models = [stage.model for stage in manifest.all_stages()]
    model = next((model for model in models if model.name.endswith(_FORMS)), models[0])
    field, _, rest = model.name.rpartition(".")
    form = next((form for form in reversed(_FORMS) if rest.endswith(form)), "")
    return {"field": field, "network": rest.removesuffix(form), "form": form} | model.kwargs


def _said(name: str, value: Any) -> str:
    if name in ("field", "network", "form"):
        return str(value)
    short = name.rpartition(".")[2]
    return f"{short} default" if value is None else f"{short}={value}"


def chosen(table: pd.DataFrame, scorer: str, stage: str | None = None) -> pd.DataFrame:
    """The rows of one scorer, and one stage; with all columns of `ALWAYS`.

    Raises ValueError, saying what there is instead, where there are none.
    """
    if table.empty or not (table["scorer"] == scorer).any():
        known = ", ".join(sorted(set(table["scorer"]))) if len(table) else "none"
        raise Lacking(
            f"expected runs scored by {scorer!r}, got none (scorers: {known}); "
            "try `python -m cplxnet.auto status` on the folder"
        )
    table = table.assign(**{name: value for name, value in ALWAYS.items() if name not in table})
    table = table[table["scorer"] == scorer]
    found = table if stage is None else table[table["stage"] == stage]
    if found.empty:
        raise Lacking(
            f"expected runs with scores after stage {stage!r}, got none (stages: {', '.join(set(table['stage']))}); "
            "try again when one is through with it"
        )
    return found.reset_index(drop=True)


def by_method(rows: pd.DataFrame) -> list[tuple[str, pd.DataFrame]]:
    """The rows of each method, in the order of their names."""
    return [(str(method), group) for method, group in rows.groupby("method", sort=True)]


def missing(folders: Iterable[str | Path]) -> list[str]:
    """A sentence for each folder with runs that are not done: how many, which, and how far each is."""
    sentences = []
    for folder in folders:
        states = tables.status(folder)
        left = states[states["state"] != "done"]
        if len(left):
            named = ", ".join(_how_far(str(run), row) for run, row in left.head(8).iterrows())
            more = f" and {len(left) - 8} more" if len(left) > 8 else ""
            sentences.append(
                f"{folder}: {len(left)} of {len(states)} runs are not done: {named}{more}."
            )
    return sentences


def _how_far(run: str, row: pd.Series) -> str:
    where = (
        f" in {row['stage']}, epoch {row['epoch']:.0f} of {row['n_epochs']:.0f}"
        if pd.notna(row["stage"])
        else ""
    )
    return f"{run} ({row['state']}{where if pd.notna(row['epoch']) and pd.notna(row['n_epochs']) else ''})"
