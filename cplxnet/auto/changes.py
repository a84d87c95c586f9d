"""A manifest that is not the one its run was started with: noticed by the fingerprint and refused, both shown."""

from typing import Any

from pydantic import ValidationError

from .folder import RunFolder
from .manifest import Manifest


class ManifestChanged(ValueError):
    """The manifest has changed since its run was started."""


def unchanged(files: RunFolder, manifest: Manifest) -> bool:
    """Whether the folder's run, if it was started, was started with this manifest.

    Defaults are written out first, so that a default spelt out, or one that a newer version has added, is no change.
    """
    config = files.config
    return not config or config.get("fingerprint") == manifest.fingerprint() or _started(config) == _flat(manifest)


def refuse_changes(files: RunFolder, manifest: Manifest) -> None:
    """Raise ManifestChanged, with what differs as it was and as it is, if the folder was started with another one."""
    if unchanged(files, manifest):
        return
    config = files.config
    before, now = _started(config) or {}, _flat(manifest)
    paths = [path for path in {**before, **now} if before.get(path) != now.get(path)]
    lines = [f"  {path}: {before.get(path)!r} when it was started, {now.get(path)!r} now" for path in paths]
    versions = f"{str(config.get('fingerprint'))[:12]} when it was started, {manifest.fingerprint()[:12]} now"
    raise ManifestChanged(
        "\n".join(
            [
                f"{files.path}: expected the manifest that this run was started with, got another ({versions}):",
                *lines,
                "try the manifest as it was, another folder, or --accept-changes (accept_changes=True), which keeps "
                "the stages that the change does not touch",
            ]
        )
    )


def _started(config: dict[str, Any]) -> dict[str, Any] | None:
    """The manifest in a config.json, flat; None where it cannot be read by this version."""
    try:
        return _flat(Manifest.model_validate(config["manifest"]))
    except (KeyError, ValidationError):
        return None


def _flat(manifest: Manifest) -> dict[str, Any]:
    def leaves(raw: dict[str, Any], prefix: str = "") -> dict[str, Any]:
        flat: dict[str, Any] = {}
        for key, value in raw.items():
            flat |= leaves(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value}
        return flat

    return leaves(manifest.resolved().to_dict())
