"""A manifest that is not the one its run was started with: noticed by the fingerprint and refused, both shown."""

from typing import Any

from pydantic import ValidationError

from cplxnet.auto.manifest.read import Manifest

from .folder import RunFolder


class ManifestChanged(ValueError):
    """The manifest has changed since its run was started."""


def unchanged(files: RunFolder, manifest: Manifest) -> bool:
    """Whether the folder's run, if it was started, was started with this manifest.

    Defaults are written out first, so that a default spelt out, or one that a newer version has added, is no change.
    """
    config = files.config
    return (
        not config
        or config.get("fingerprint") == manifest.fingerprint()
        or _started(config) == _flat(manifest)
    )


def refuse_changes(files: RunFolder, manifest: Manifest) -> None:
    """Raise ManifestChanged, with what differs as it was and as it is, if the folder was started with another one."""
    if unchanged(files, manifest):
        return
    config = files.config
    versions = str(config.get("fingerprint")), manifest.fingerprint()
    raise ManifestChanged(
        _both(
            files,
            "this run was started with",
            "when it was started",
            versions,
            _started(config) or {},
            manifest,
        )
        + "\ntry the manifest as it was, another folder, or --accept-changes (accept_changes=True), which keeps the "
        "stages that the change does not touch"
    )


def refuse_edits(files: RunFolder, manifest: Manifest, read: Manifest) -> None:
    """Raise ManifestChanged if the run is not started yet and its manifest is another than the command has `read`."""
    if files.config or _flat(manifest) == _flat(read):
        return  # one that is started is held to what it was started with
    versions = read.fingerprint(), manifest.fingerprint()
    raise ManifestChanged(
        _both(
            files,
            "this command has read",
            "when the command was started",
            versions,
            _flat(read),
            manifest,
        )
        + "\ntry the same command again: it runs the manifest as it is now"
    )


def _both(
    files: RunFolder,
    which: str,
    when: str,
    versions: tuple[str, str],
    before: dict[str, Any],
    manifest: Manifest,
) -> str:
    """Two versions of a manifest: their fingerprints, and the values that differ."""
    now = _flat(manifest)
    lines = [
        f"  {path}: {before.get(path)!r} {when}, {now.get(path)!r} now"
        for path in {**before, **now}
        if before.get(path) != now.get(path)
    ]
    first = f"{files.path}: expected the manifest that {which}, got another "
    return "\n".join([f"{first}({versions[0][:12]} {when}, {versions[1][:12]} now):", *lines])


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
            flat |= (
                leaves(value, f"{prefix}{key}.")
                if isinstance(value, dict)
                else {prefix + key: value}
            )
        return flat

    return leaves(manifest.resolved().to_dict())
