"""Networks from runs: loaded from a run's folder, written to files for use elsewhere, read again.

A run's network is built from the manifest in its folder; its weights are those of a stage's
snapshot.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor, nn

from cplxnet import files
from cplxnet import nn as cplx
from cplxnet.musicnet.features import check_heard
from cplxnet.musicnet.resample import TARGET_HZ

from . import tasks
from .manifest.read import Manifest, Stage, parse
from .runner.folder import RunFolder

if TYPE_CHECKING:
    from cplxnet.musicnet.export import OnnxNetwork  # onnxruntime: imported where it is needed


HEARD = "cplxnet"  # the key in a compact file's metadata that says what its network hears, as JSON
EXPORTS = ("compact", "compact-float16", "onnx", "onnx-compact", "cplxmodule")
_HOW_TO = "try auto.run(manifest, folder, again=True), which trains what is missing"


# -- from a run's folder ---------------------------------------------------------------------------


def load_model(folder: str | Path, stage: str | None = None) -> tuple[nn.Module, Manifest]:
    """The network of a run at the end of a stage, in evaluation mode on the CPU, and the manifest.

    Neither data nor the manifest's own file is needed: `config.json` in the folder has it. A
    variational network comes back with its log_sigma2, a masked one with its masks.

    Args:
        folder: of a run, `runs/demo/c2e-02-r0` say.
        stage: its name in the manifest; None: the last of `stage_order`.

    Raises:
        FileNotFoundError: no run in the folder, or no snapshot of that stage; the text says which
            there are.
        ValueError: no such stage, a damaged snapshot, or one of another network.
        ManifestError: an unreadable manifest.
    """
    run = RunFolder(folder)
    manifest = read_manifest(folder)
    name = manifest.stage_order[-1] if stage is None else stage
    if name not in manifest.stage_order:
        raise ValueError(f"expected a stage of {', '.join(manifest.stage_order)}, got {name!r}")

    path = run.snapshot(manifest.stage_order.index(name), name)
    if not path.is_file():
        snapshots = ", ".join(sorted(file.name for file in run.path.glob("*.pt"))) or "none"
        raise FileNotFoundError(
            f"expected a snapshot at {path}, got nothing there (snapshots: {snapshots}); {_HOW_TO}"
        )

    snapshot = files.read_tensors(path)
    model = build(manifest, manifest.stage(name))
    try:
        model.load_state_dict(snapshot["model"])
    except (KeyError, RuntimeError) as error:
        raise ValueError(
            f"{path}: expected the weights of {manifest.stage(name).model.name}, got others: "
            f"{error}"
        ) from error
    return model.eval(), manifest


def read_manifest(folder: str | Path) -> Manifest:
    """The manifest that the run in `folder` was started with. Raises as `load_model`."""
    run = RunFolder(folder)
    if "manifest" not in run.config:
        raise FileNotFoundError(
            f"expected a run's folder with config.json at {run.path}, got none; try the folder of "
            "one run, runs/demo/c2e-02-r0 say"
        )
    return parse(run.config["manifest"], source=run.path / "config.json")


def heard(manifest: Manifest) -> dict[str, Any]:
    """What the network hears: `window` in samples; `kind`, `cplx` and `shift` of its features."""
    first = manifest.stage(manifest.stage_order[0])
    window = manifest.datasets[manifest.feeds[first.feed].dataset].window
    return {"window": window, **manifest.features.model_dump()}


def build(manifest: Manifest, stage: Stage) -> nn.Module:
    """The network of a stage with weights of no meaning yet, on the CPU, from the manifest alone.

    Its input has the shape of the features of a window of silence. The global random numbers are
    left as they were.
    """
    task = tasks.TASKS[manifest.task]
    options = heard(manifest)
    silence = torch.zeros(1, options.pop("window"))
    example = task.features(silence, **options)
    with torch.random.fork_rng(devices=[]):
        return task.build(stage.model.name, example, **stage.model.kwargs)


# -- in files for use elsewhere --------------------------------------------------------------------


class Deployed(NamedTuple):
    """A network as a function of features, and what it hears.

    That is `window` (samples), `rate_hz`, and `kind`, `cplx` and `shift` of its features.
    """

    network: Callable[[Tensor], Tensor]
    heard: dict[str, Any]


def load_deployed(path: str | Path, *, stage: str | None = None) -> Deployed:
    """The network in a file, or in a run's folder.

    Args:
        path: a run's folder, a snapshot in one, a compact or an ONNX file.
        stage: of a run's folder; None: the last.

    Raises:
        FileNotFoundError: nothing there.
        ValueError: unreadable, or a file that does not say what its network hears.
    """
    path = Path(path)

    # a run's folder, or a snapshot 2-fine-tune.pt in one
    snapshot = re.fullmatch(r"\d+-(.+)", path.stem) if path.suffix == ".pt" else None
    if path.is_dir() or snapshot:
        folder = path.parent if snapshot else path
        model, manifest = load_model(folder, snapshot[1] if snapshot else stage)
        return Deployed(model, {"rate_hz": TARGET_HZ, **heard(manifest)})

    if not path.is_file():
        raise FileNotFoundError(
            f"{path}: expected a run's folder, a snapshot, a compact or an ONNX file, got nothing"
        )
    if path.suffix == ".onnx":
        from cplxnet.musicnet.export import OnnxNetwork

        return _from_onnx(OnnxNetwork(path))

    small = cplx.load_compact(path)
    if HEARD not in small.metadata:
        raise ValueError(
            f"{path}: expected what the network hears in its metadata, got none; try "
            "`python -m cplxnet.auto export`"
        )
    try:
        about = json.loads(small.metadata[HEARD])
    except ValueError:
        about = small.metadata[HEARD]
    return Deployed(small, check_heard(about, f"{path}"))


def _from_onnx(network: OnnxNetwork) -> Deployed:
    if not network.raw_audio:
        return Deployed(network, network.heard)

    # the graph makes its own features: it is given the raw window
    raw = {**network.heard, "kind": "raw", "cplx": False, "shift": False}
    return Deployed(lambda x: network(x[:, 0]), raw)


def export(
    folder: str | Path,
    path: str | Path,
    *,
    kind: str,
    stage: str | None = None,
    raw_audio: bool = False,
) -> Path:
    """Write the network of a run's folder to the file `path`.

    Args:
        folder: of the run.
        path: of the file.
        kind: "compact" (`nn.save_compact`), "compact-float16", "onnx", "onnx-compact", or
            "cplxmodule": a state dict in that library's layout, which `torch.load(path,
            weights_only=True)` reads.
        stage: its name; None: the last.
        raw_audio: of ONNX, the features inside.

    Raises:
        ValueError: another kind, or raw_audio of a kind that is not ONNX. Otherwise as
            `load_model`.
    """
    if kind not in EXPORTS or (raw_audio and not kind.startswith("onnx")):
        raise ValueError(
            f"expected a kind of {', '.join(EXPORTS)}, raw_audio with ONNX only, got {kind!r}"
        )
    model, manifest = load_model(folder, stage)
    about: dict[str, Any] = {"rate_hz": TARGET_HZ, **heard(manifest)}
    if kind == "cplxmodule":
        files.write_tensors(path, dict(cplx.cplxmodule_state(model)))
        return Path(path)
    if kind.startswith("onnx"):
        from cplxnet.musicnet.export import export_onnx

    if kind == "onnx":
        export_onnx(model, path, raw_audio=raw_audio, **about)
        return Path(path)

    # what runs a compact network fastest is not in the file, so nothing is measured
    small = cplx.compact(model, threshold=manifest.threshold, measure=False)
    if kind == "onnx-compact":
        export_onnx(small, path, raw_audio=raw_audio, **about)
    else:
        half = kind.endswith("float16")
        metadata = {HEARD: json.dumps(about)}
        cplx.save_compact(small, path, dtype="float16" if half else "float32", metadata=metadata)
    return Path(path)
