"""Scores against scikit-learn, the older protocol against its definition."""

import dataclasses
import json
import warnings

import numpy as np
import pytest
import torch
from sklearn import metrics

from cplxnet.musicnet import recordings
from cplxnet.musicnet.dataset import MusicNet
from cplxnet.musicnet.scores import (
    curve,
    per_note,
    pooled_average_precision,
    score_dataset,
    trabelsi2018_windows,
)
from extra.corpora import hdf5

N_WINDOWS = 400


@dataclasses.dataclass
class Windows:
    """What scores ask a dataset: the recording of each window and where it starts there."""

    recording: torch.Tensor
    start: torch.Tensor
    rate_hz: int = 11000
    path: str = "some.h5"

    def __len__(self) -> int:
        return len(self.start)

    def recording_of(self, index: torch.Tensor) -> torch.Tensor:
        return self.recording[index]

    def starts(self, index: torch.Tensor) -> torch.Tensor:
        return self.start[index]


def problem(seed: int, *, ties: int | None = None) -> tuple[torch.Tensor, torch.Tensor]:
    """Targets (400, 84), 5% positive, and logits that tell something, of `ties` values."""
    rng = np.random.default_rng(seed)
    target = rng.random((N_WINDOWS, 84)) < 0.05
    logit = (rng.standard_normal(target.shape) + 1.5 * target - 2).astype(np.float32)
    logit = np.round(logit / 8 * ties).astype(np.float32) if ties else logit
    return torch.from_numpy(target.astype(np.float32)), torch.from_numpy(logit)


@pytest.mark.parametrize("ties", [None, 1000, 20, 3, 1])
@pytest.mark.parametrize("seed", range(3))
def test_pooled_against_sklearn(seed, ties):
    target, logit = problem(seed, ties=ties)
    expected = metrics.average_precision_score(target.ravel().numpy(), logit.ravel().numpy())
    assert pooled_average_precision(target, logit) == pytest.approx(expected, abs=1e-9)
    assert pooled_average_precision(target.numpy(), logit.double().numpy()) == pytest.approx(
        expected, abs=1e-9
    )


def test_pooled_by_hand():
    # ranks 1, 3 and 4 of 5 are positive
    target, logit = torch.tensor([1, 0, 1, 1, 0]), torch.tensor([5.0, 4, 3, 2, 1])
    assert pooled_average_precision(target, logit) == pytest.approx(
        (1 + 2 / 3 + 3 / 4) / 3, abs=1e-15
    )
    assert pooled_average_precision(target, torch.zeros(5)) == pytest.approx(3 / 5, abs=1e-15)
    assert pooled_average_precision(target, target.float()) == 1.0


def test_signed_zeros_tie_and_infinities_rank():
    target = torch.tensor([1, 0, 1, 0])
    assert pooled_average_precision(target, torch.tensor([0.0, -0.0, -0.0, 0.0])) == 0.5
    inf = float("inf")
    assert pooled_average_precision(target, torch.tensor([inf, 0.0, -inf, 1.0])) == pytest.approx(
        (1 + 2 / 4) / 2
    )


def test_gradients_and_half_precision_are_accepted():
    target, logit = problem(0)
    expected = pooled_average_precision(target, logit.bfloat16().float())
    assert pooled_average_precision(target, logit.bfloat16().requires_grad_()) == expected


def test_per_note_against_sklearn():
    target, logit = problem(4, ties=50)
    target[:, 7] = 0  # never sounds
    logit[:, 9] = -3  # sounds, never reported
    got = per_note(target, logit)
    for note in range(84):
        if note == 7:
            assert all(np.isnan(got[name][note]) for name in ("ap", "precision", "recall"))
            continue
        t, x = target[:, note].numpy(), logit[:, note].numpy()
        precision, recall, _, _ = metrics.precision_recall_fscore_support(
            t, x > 0, average="binary", zero_division=np.nan
        )
        assert got["ap"][note] == pytest.approx(metrics.average_precision_score(t, x), abs=1e-9)
        assert got["precision"][note] == pytest.approx(precision, abs=1e-12, nan_ok=True)
        assert got["recall"][note] == pytest.approx(recall, abs=1e-12)
    assert np.isnan(got["precision"][9]) and got["recall"][9] == 0
    assert got["support"].tolist() == target.sum(0).tolist()


@pytest.mark.parametrize("ties", [None, 20])
@pytest.mark.parametrize("n_points", [2, 50, 100_000])
def test_curve_is_of_exact_points_with_both_ends(ties, n_points):
    target, logit = problem(5, ties=ties)
    got = curve(target, logit, n_points=n_points)
    precision, recall, _ = metrics.precision_recall_curve(
        target.ravel().numpy(), logit.ravel().numpy()
    )
    exact = {(round(p, 12), round(r, 12)) for p, r in zip(precision, recall, strict=True)}
    points = [
        (round(p, 12), round(r, 12)) for p, r in zip(got["precision"], got["recall"], strict=True)
    ]
    assert set(points) <= exact and len(points) <= n_points
    assert (np.diff(got["recall"]) > 0).all()
    assert got["recall"][-1] == 1.0 and got["recall"][0] == pytest.approx(recall[recall > 0].min())


def test_area_under_the_steps_of_the_whole_curve_is_the_average_precision():
    target, logit = problem(5)
    got = curve(target, logit, n_points=100_000)
    area = (np.diff(got["recall"], prepend=0) * got["precision"]).sum()
    assert area == pytest.approx(pooled_average_precision(target, logit), abs=1e-12)
    thin = curve(target, logit)
    assert 400 < len(thin["recall"]) <= 500
    assert (np.diff(thin["recall"], prepend=0) * thin["precision"]).sum() == pytest.approx(
        area, abs=5e-3
    )


@pytest.mark.parametrize(
    ("target", "logit", "text"),
    [
        ([1.0, 0], [float("nan"), 0], "expected logits to rank, got 1 NaN of 2"),
        ([0.0, 0], [1.0, 0], "expected a positive target at least, got none among 2"),
        ([0.5, 0], [1.0, 0], r"expected targets of 0 and 1, got others; try \(target, logit\)"),
        ([1.0, 0], [1.0, 0, 2], r"one shape, got \(2,\) and \(3,\)"),
        ([1.0, 0], [1.0, 2j], "expected real targets and logits, got complex ones"),
    ],
)
def test_faults_are_named(target, logit, text):
    for function in (pooled_average_precision, curve):
        with pytest.raises(ValueError, match=text):
            function(torch.tensor(target), torch.tensor(logit))


def grid(n_samples: list[int], stride: int) -> tuple[torch.Tensor, torch.Tensor]:
    starts = [torch.arange(0, n - 4096 + 1, stride) for n in n_samples]
    return torch.cat([torch.full_like(s, k) for k, s in enumerate(starts)]), torch.cat(starts)


LONG = 11008 + 7499 * 128 + 4096  # just long enough for 7500 windows


def test_older_protocol_takes_7500_windows_from_one_second_on():
    recording, start = grid([LONG + 5000, LONG], 128)
    chosen = trabelsi2018_windows(recording, start, 11000)
    for number in (0, 1):
        assert start[(recording == number) & chosen].tolist() == list(
            range(11008, 11008 + 7500 * 128, 128)
        )


def test_older_protocol_on_a_finer_grid_starts_at_one_second():
    recording, start = grid([LONG], 8)
    chosen = trabelsi2018_windows(recording, start, 11000)
    assert start[chosen].tolist() == [11000 + 128 * k for k in range(7500)]


@pytest.mark.parametrize(
    ("n_samples", "stride"),
    [([LONG - 1], 128), ([LONG, LONG - 1], 128), ([LONG], 256), ([5000], 128), ([LONG], 48)],
)
def test_older_protocol_is_not_there(n_samples, stride):
    assert trabelsi2018_windows(*grid(n_samples, stride), 11000) is None


def test_older_protocol_needs_the_windows_right_after_one_second():
    recording, start = grid([LONG + 200], 128)
    late = (
        start >= 11000 + 128
    )  # 7500 windows are left on the grid, the first one 136 samples after 1 s
    assert late.sum() == 7500
    assert trabelsi2018_windows(recording[late], start[late], 11000) is None


def test_score_of_a_short_recording():
    target, logit = problem(6)
    target[:, 7] = 0
    windows = Windows(torch.zeros(N_WINDOWS), 128 * torch.arange(N_WINDOWS))
    got = score_dataset(target, logit, windows)
    assert got["average_precision"] == pooled_average_precision(target, logit)
    assert got["average_precision_trabelsi2018"] is None
    assert got["n_windows"] == N_WINDOWS and got["positive_share"] == pytest.approx(
        float(target.mean()), rel=1e-6
    )
    assert (
        got["notes"]["ap"][7] is None and got["notes"]["ap"][8] == per_note(target, logit)["ap"][8]
    )
    assert {name: len(values) for name, values in got["notes"].items()} == {
        "ap": 84,
        "precision": 84,
        "recall": 84,
        "support": 84,
    }
    assert "curve" not in got
    assert json.loads(json.dumps(got, allow_nan=False)) == got


def test_score_with_both_protocols_and_a_curve():
    recording, start = grid([LONG + 20_000], 128)
    rng = np.random.default_rng(0)
    target = rng.random((len(start), 84)) < 0.05
    logit = (
        rng.standard_normal(target.shape) + np.where(start[:, None] < 11000, -3, 1) * target
    ).astype(np.float32)
    got = score_dataset(target, logit, Windows(recording, start), curves=True)
    inside = slice(86, 86 + 7500)
    expected = metrics.average_precision_score(target[inside].ravel(), logit[inside].ravel())
    assert got["average_precision_trabelsi2018"] == pytest.approx(expected, abs=1e-9)
    assert got["average_precision"] != got["average_precision_trabelsi2018"]
    assert got["curve"] == curve(target, logit)


def test_score_of_a_dataset_uses_its_recordings_starts_and_rate(tiny_corpus):
    data = MusicNet(tiny_corpus / "musicnet_11khz_test.h5", stride=1000)
    target = data.windows(torch.arange(len(data)))[1]
    logit = torch.randn(target.shape)
    recording = [
        number for number, n in enumerate(data.samples.tolist()) for _ in range(0, n - 4095, 1000)
    ]
    start = [s for n in data.samples.tolist() for s in range(0, n - 4095, 1000)]
    windows = Windows(torch.tensor(recording), torch.tensor(start))
    expected = score_dataset(target, logit, windows, curves=True)
    assert score_dataset(target, logit, data, curves=True) == expected
    with pytest.raises(
        ValueError, match=r"expected the 69 windows of .*test\.h5, got 3; feed it in order"
    ):
        score_dataset(target[:3], logit[:3], data)


def test_score_of_a_dataset_in_both_protocols(tmp_path):
    samples = np.random.default_rng(0).standard_normal(LONG).astype(np.float32)
    labels = np.array(
        [(0, LONG // 2, 1, 60, 0, 0, b""), (500, LONG, 1, 70, 0, 0, b"")], recordings.LABELS
    )
    hdf5.write(tmp_path / "long.h5", [recordings.Recording("id_1", samples, labels)], rate_hz=11000)
    data = MusicNet(tmp_path / "long.h5")
    target = data.windows(torch.arange(len(data)))[1]
    logit = torch.randn(target.shape)
    expected = metrics.average_precision_score(
        target[86:].numpy().ravel(), logit[86:].numpy().ravel()
    )
    assert score_dataset(target, logit, data)["average_precision_trabelsi2018"] == pytest.approx(
        expected, abs=1e-9
    )


def test_nothing_warns_on_a_note_never_sounding():
    target, logit = problem(1)
    target[:, :83] = 0
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert np.isnan(per_note(target, logit)["ap"][:83]).all()
