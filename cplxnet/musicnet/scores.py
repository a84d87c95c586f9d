"""How well notes are transcribed: average precision, of all notes in one ranking and of each note.

N windows, 84 notes. `target` is 0 or 1 and `logit` any real number, both (N, 84), tensors or
arrays, on any one device.
"""

import math
from pathlib import Path, PurePosixPath
from typing import Any

import h5py
import numpy as np
import torch

from .dataset import MusicNet

TRABELSI2018_WINDOWS = 7500  # of a recording
TRABELSI2018_STRIDE = 128  # samples
CURVE_POINTS = 500

Values = torch.Tensor | np.ndarray


def pooled_average_precision(target: Values, logit: Values) -> float:
    """Average precision of one ranking of all entries.

        AP = sum over distinct thresholds t, falling, of (R(t) - R(before)) P(t)
           = mean over the positive entries i of TP(t_i) / count(logit >= t_i),    t_i = logit_i

    P and R are precision and recall of `logit >= t`. There is no interpolation, and equal logits
    rank together, as in `sklearn.metrics.average_precision_score`.

    Args:
        target: 0 or 1, any shape.
        logit: of the target's shape.

    Raises:
        ValueError: shapes differ, a target not 0 or 1, a NaN logit, no positive target (AP is
            undefined then).
    """
    hits, total = ranking(target, logit)[1:]
    return float((hits / total).mean())


def ranking(target: Values, logit: Values) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """What average precision counts.

    Returns:
        The logits of the positive entries, rising. At each as threshold: the true positives and all
        entries above it, float64.
    """
    target, logit = _checked(target, logit)
    positive = _sorted(logit[target])
    if not len(positive):
        raise ValueError(
            f"expected a positive target at least, got none among {target.numel()}: average "
            "precision is undefined; try more windows, or windows with notes"
        )

    # one sort of the values alone and a binary search for each positive (4 in 100)
    above = logit.numel() - torch.searchsorted(_sorted(logit.flatten()), positive)
    hits = len(positive) - torch.searchsorted(positive, positive)
    return positive, hits.double(), above.double()


def _sorted(values: torch.Tensor) -> torch.Tensor:
    # numpy sorts floats with vector instructions: 5 million in 0.04 s on one core, torch in 0.6 s
    if values.device.type == "cpu":
        return torch.from_numpy(np.sort(values.numpy()))
    return values.sort().values


def _checked(target: Values, logit: Values) -> tuple[torch.Tensor, torch.Tensor]:
    target = torch.as_tensor(target)
    logit = torch.as_tensor(logit).detach()
    if target.shape != logit.shape:
        raise ValueError(
            f"expected target and logit of one shape, got {tuple(target.shape)} and "
            f"{tuple(logit.shape)}"
        )
    if logit.is_complex() or target.is_complex():
        raise ValueError("expected real targets and logits, got complex ones; try logit.real")
    logit = logit if logit.dtype in (torch.float32, torch.float64) else logit.float()
    if logit.isnan().any():
        raise ValueError(
            f"expected logits to rank, got {int(logit.isnan().sum())} NaN of {logit.numel()}"
        )

    mask = target.bool()
    if target.dtype != torch.bool and (mask != target).any():
        raise ValueError(
            "expected targets of 0 and 1, got others; try (target, logit), in this order"
        )
    return mask, logit


def per_note(target: Values, logit: Values) -> dict[str, np.ndarray]:
    """Average precision of each note's own ranking, and its precision and recall.

    A note is reported where its probability is above a half, `logit > 0`.

    Returns:
        `ap`, `precision`, `recall`: float64 (notes,), nan where the note never sounds; precision
        also where it is never reported. `support`: the windows in which it sounds.

    Raises:
        ValueError: as `pooled_average_precision`; a note without positive targets is no fault.
    """
    mask, logits = _checked(target, logit)
    positives = mask.sum(0).double()
    reported = logits > 0
    hits = (reported & mask).sum(0).double()
    sounds = (positives > 0).tolist()
    # a note at a time, 84 in all, of contiguous columns
    columns = zip(sounds, mask.T.contiguous(), logits.T.contiguous(), strict=True)
    ap = [pooled_average_precision(m, x) if there else math.nan for there, m, x in columns]
    precision = hits / reported.sum(0)  # 0/0: nan
    precision[positives == 0] = math.nan
    return {
        "ap": np.array(ap),
        "precision": precision.cpu().numpy(),
        "recall": (hits / positives).cpu().numpy(),
        "support": positives.cpu().numpy(),
    }


def curve(target: Values, logit: Values, *, n_points: int = CURVE_POINTS) -> dict[str, list[float]]:
    """The pooled precision-recall curve at no more than `n_points` thresholds.

    Every point is exact: precision and recall of `logit >= t` for the logit t of a positive entry.
    Recall increases from the highest threshold's to 1, both ends kept, the others spread evenly in
    recall. Between two points the curve is a step (draw it with `where="pre"`: a precision holds
    from the recall before up to its own).

    Returns:
        `precision`, `recall`: lists of one length.

    Raises:
        ValueError: as `pooled_average_precision`.
    """
    positive, hits, total = ranking(target, logit)
    distinct = torch.ones_like(positive, dtype=torch.bool)
    distinct[1:] = positive[1:] != positive[:-1]

    # thresholds falling, recall rising
    hits = hits[distinct].flip(0)
    total = total[distinct].flip(0)
    recall = hits / len(positive)

    first = float(recall[0])
    even = torch.linspace(first, 1.0, n_points, dtype=recall.dtype, device=recall.device)
    keep = torch.searchsorted(recall, even).clamp(max=len(recall) - 1).unique()
    return {"precision": (hits / total)[keep].tolist(), "recall": recall[keep].tolist()}


def trabelsi2018_windows(
    recording: torch.Tensor, start: torch.Tensor, rate_hz: int
) -> torch.Tensor | None:
    """The windows of the older protocol among those given: bool (N,) on the CPU.

    Trabelsi et al. (2018) score, of each recording, the 7500 windows that start at 1 s + 128 k
    samples, k = 0..7499. Windows in order lie on a grid of their own. So the grid here begins at
    the first given window of the recording that starts at `rate_hz` samples or later (at 11 kHz and
    stride 128: 11008, 8 samples after 1 s), which must be less than 128 samples later.

    Args:
        recording: int (N,), each window's recording.
        start: int (N,), each window's first sample there.
        rate_hz: samples per second.

    Returns:
        The mask, or None if one of the 7500 is missing in any recording: it is shorter than
        rate_hz + 7499 * 128 + window samples (88.6 s at 11 kHz), or the stride does not divide 128.

    Reference: C. Trabelsi et al., Deep complex networks, ICLR 2018, sec. 4.2, and the authors' code
    (`eval_set`).
    """
    recordings = recording.cpu().numpy()
    starts = start.cpu().numpy()
    chosen = np.zeros(len(starts), bool)

    for number in np.unique(recordings):
        late = np.flatnonzero((recordings == number) & (starts >= rate_hz))
        first = starts[late].min() if len(late) else rate_hz + TRABELSI2018_STRIDE
        on_grid = first + TRABELSI2018_STRIDE * np.arange(TRABELSI2018_WINDOWS)
        if first >= rate_hz + TRABELSI2018_STRIDE or not np.isin(on_grid, starts[late]).all():
            return None
        chosen[late] = np.isin(starts[late], on_grid)
    return torch.from_numpy(chosen)


def score_dataset(
    target: Values, logit: Values, dataset: MusicNet, *, curves: bool = False
) -> dict[str, Any]:
    """All scores of a dataset, as plain numbers and lists for scores.json.

    Args:
        target, logit: (N, 84), of all N windows, as the feed `in-order` gives them.
        dataset: where the windows are from.
        curves: add the `curve`.

    Returns:
        `average_precision`: all windows, all notes in one ranking.
        `average_precision_trabelsi2018`: the same over `trabelsi2018_windows`.
        `n_windows`, `positive_share`: of all targets; the average precision of a random ranking.
        `notes`: what `per_note` gives, at probability above a half.
        `curve`: `precision`, `recall`.
        What is undefined is None.

    Raises:
        ValueError: as `pooled_average_precision`, or fewer or more windows than the dataset has.
    """
    if len(target) != len(dataset):
        raise ValueError(
            f"expected the {len(dataset)} windows of {dataset.path}, got {len(target)}; feed it in "
            "order"
        )
    target, logit = _checked(target, logit)
    notes = {
        name: [None if math.isnan(value) else float(value) for value in values]
        for name, values in per_note(target, logit).items()
    }
    result: dict[str, Any] = {
        "average_precision": pooled_average_precision(target, logit),
        "average_precision_trabelsi2018": None,
        "n_windows": len(target),
        "positive_share": float(target.double().mean()),
        "notes": notes,
    }

    index = torch.arange(len(dataset))
    older = trabelsi2018_windows(
        dataset.recording_of(index), dataset.starts(index), dataset.rate_hz
    )
    if older is not None:
        older = older.to(target.device)
        if target[older].any():
            ap = pooled_average_precision(target[older], logit[older])
            result["average_precision_trabelsi2018"] = ap
    if curves:
        result["curve"] = curve(target, logit)
    return result


# ---- published scores ----------------------------------------------------------------------------

# of Trabelsi et al. 2018 and all who followed them
TEST_RECORDINGS = frozenset({"id_2303", "id_2382", "id_1819"})
TEST_FILE = "musicnet_11khz_test.h5"

# Protocols differ (README). Nazarov and Burnaev give a range of compressions, in a figure.
PUBLISHED = {
    "Trabelsi 2018, real": 0.696,
    "Trabelsi 2018, complex": 0.729,
    "Yang 2020": 0.742,
    "Thickstun 2018": 0.773,
}


def published(
    file: str, *, data: str | Path = "data", older_protocol: bool = False
) -> dict[str, float]:
    """`PUBLISHED` where a score was taken on MusicNet's test recordings, else nothing.

    The recordings in the file tell. Where the file is not there (results looked at on another
    machine), MusicNet is what has the standard name at the top of the data folder (the demo corpora
    lie in folders of their own) and recordings long enough for the protocol of Trabelsi et al.:
    7500 windows each.

    Args:
        file: that was scored, relative to the data folder, as manifests have it.
        data: the data folder.
        older_protocol: whether there is a score by that protocol too.
    """
    path = Path(data) / file
    if not path.is_file():
        is_musicnet = older_protocol and str(PurePosixPath(file)) == TEST_FILE
        return dict(PUBLISHED) if is_musicnet else {}

    try:
        with h5py.File(path, "r") as opened:
            return dict(PUBLISHED) if set(opened) == TEST_RECORDINGS else {}
    except OSError:  # no HDF5: whoever trains on it is told
        return {}
