"""A manifest edited: a file of its own, named by what changed, in a folder beside its grid's."""

from __future__ import annotations

import hashlib
import re
from collections import Counter, defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from . import grid
from .read import load
from .schema import Manifest, canonical
from .vocabulary import TABLES

EDITED = "-edited"  # what the name of the folder of a grid's edits ends in
MAX_NAME = 80  # characters of a file's name that say what changed; longer ones end in a digest


def edit(path: str | Path, changes: Mapping[str, Any]) -> Path:
    """Write a manifest with other values into a folder of its own, and return the file's path.

    ``edit("runs/demo/c2e-02-r0.json", {"stages.dense.n_epochs": 20})`` writes
    ``runs/demo-edited/c2e-02-r0-dense.n_epochs20.json``. The name says what differs from the
    original, so the same changes give the same file, and the same run. The manifest's key "parent"
    names the original ("demo/c2e-02-r0"); `auto.run` takes the stages that the change does not
    touch from its grid's runs. The grid's own folder stays as it is.

    An edited manifest can be edited again: the result lies beside it, named by all that differs
    from the original.

    Args:
        path: a manifest's file.
        changes: dotted path -> value, the paths as `Manifest.flatten` has them. What a stage
            inherits from the first one changes with the first one.

    Returns:
        The edited manifest's file; the original's if nothing differs from that.

    Raises:
        ManifestError: a path leads nowhere (the nearest is named), or the result is wrong.
        ManifestNotFoundError: no such file, or the original is gone.
        FileExistsError: the file holds another manifest, and its run is there.
    """
    path = Path(path)
    folder = path.parent if path.parent.name.strip(".") else path.parent.resolve()
    manifest = load(path)
    if manifest.parent is not None:
        path = folder.parent / f"{manifest.parent}.json"
        folder = path.parent
    original = load(path)

    edited = grid.edit(manifest, changes)
    changed = differences(original, edited)
    if not changed:
        return path

    change_text = ", ".join(f"{path} {grid.text_of(value)}" for path, value in changed.items())
    about = {
        "name": changes.get("name", f"{original.name}, edited: {change_text}"),
        "parent": f"{folder.name}/{path.stem}",
    }
    edited = grid.edit(edited, about)

    file = folder.with_name(folder.name + EDITED) / f"{path.stem}-{_label(changed)}.json"
    if file.exists() and not differences(load(file), edited):
        return file
    if file.exists() and file.with_suffix("").is_dir():
        raise FileExistsError(
            f"{file}: expected the manifest of this edit, got another one that has been run; "
            "try to move it and its folder away"
        )
    edited.save(file)
    return file


def differences(original: Manifest, edited: Manifest) -> dict[str, Any]:
    """What differs, name and parent aside: a short name of each path -> its value in `edited`.

    - The last key alone, if no other path ends in it: `threshold`.
    - Otherwise the path within its entry of a table: `optimizer.name` of stages.dense.
    - Led by the entry's name, `dense.n_epochs`, unless all entries with the key change alike.
    """
    before = original.flatten()
    after = edited.flatten()
    new = {path: value for path, value in after.items() if before.get(path, ...) != value}
    for path in before.keys() - after.keys():
        if not any(
            path.startswith(f"{changed_path}.") or changed_path.startswith(f"{path}.")
            for changed_path in new
        ):
            new[path] = "default"

    paths_by_key = defaultdict(list)  # paths without the entry of their table -> the paths
    for path in {**before, **after}:
        paths_by_key[_without_entry(path)].append(path)
    n_keys = Counter(path.rpartition(".")[2] for path in paths_by_key)

    changed = {}
    for path, value in new.items():
        inner = _without_entry(path)
        last = inner.rpartition(".")[2]
        name = last if n_keys[last] == 1 else inner
        if inner != path and any(
            other not in before or new.get(other, ...) != value for other in paths_by_key[inner]
        ):
            name = f"{path.split('.')[1]}.{name}"
        changed[name] = value
    return {name: changed[name] for name in sorted(changed) if name not in ("name", "parent")}


def _without_entry(path: str) -> str:
    """optimizer.lr for stages.dense.optimizer.lr."""
    table, *rest = path.split(".")
    return ".".join(rest[1:]) if table in TABLES.values() and len(rest) > 1 else path


def _label(changed: Mapping[str, Any]) -> str:
    """The part of a file's name that says what changed."""
    text = "-".join(f"{name}{grid.text_of(value)}" for name, value in changed.items())
    label = re.sub(r"[^A-Za-z0-9_.+-]+", "_", text)
    if label == text and len(label) <= MAX_NAME:
        return label
    digest = hashlib.sha256(canonical(changed).encode()).hexdigest()
    return f"{label[: MAX_NAME - 9]}-{digest[:8]}"
