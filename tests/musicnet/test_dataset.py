"""Windows and draws against slices of the arrays that were written."""

import functools
import pickle

import numpy as np
import pytest
import torch

from cplxnet.musicnet import dataset as datasets
from cplxnet.musicnet import recordings as layout
from cplxnet.musicnet.dataset import SAMPLERS, MusicNet, sizes
from extra.corpora import hdf5


def recording(
    key: str, samples: int, notes: list[tuple[int, int, int]], *, ramp: int = 0
) -> layout.Recording:
    """Data that counts up from `ramp`; notes of (start, end, MIDI note)."""
    labels = np.array([(s, e, 1, n, 0.0, 0.0, b"") for s, e, n in notes], layout.LABELS)
    return layout.Recording(key, ramp + np.arange(samples, dtype=np.float32), labels)


def write(path, *recordings: layout.Recording):
    hdf5.write(path, recordings, rate_hz=100)
    return path


@pytest.fixture
def three(tmp_path):
    """Three recordings of 30, 12 and 41 samples, from 0, 1000, 2000 on; keys out of order."""
    notes = [(0, 6, 21), (5, 9, 60), (8, 12, 104)]
    return write(
        tmp_path / "three.h5",
        recording("id_0007", 41, [*notes, (30, 41, 60)], ramp=2000),
        recording("id_0001", 30, [*notes, (20, 30, 61)], ramp=0),
        recording("id_0003", 12, notes, ramp=1000),
    )


def expected_windows(path, window: int, stride: int):
    """By a loop over the file: signal, notes, recording and start of every window."""
    rows = []
    for number, item in enumerate(layout.recordings(path)):
        for start in range(0, len(item.data) - window + 1, stride):
            middle, notes = start + window // 2, np.zeros(84, np.float32)
            for label in item.labels:
                if label["start_time"] <= middle < label["end_time"]:
                    notes[label["note"] - 21] = 1
            rows.append((item.data[start : start + window], notes, number, start))
    return [np.stack(column) for column in zip(*rows, strict=True)]


@pytest.mark.parametrize("window", [1, 5, 12])
@pytest.mark.parametrize("stride", [1, 4, 7])
def test_windows_against_slices(three, window, stride):
    data = MusicNet(three, window=window, stride=stride)
    signal, notes, number, start = expected_windows(three, window, stride)
    index = torch.arange(len(data))
    assert len(data) == len(signal) == sum((n - window) // stride + 1 for n in (30, 12, 41))
    got_signal, got_notes = data.windows(index)
    assert torch.equal(got_signal, torch.from_numpy(signal)) and torch.equal(
        got_notes, torch.from_numpy(notes)
    )
    assert data.recording_of(index).tolist() == number.tolist()
    assert data.starts(index).tolist() == start.tolist()


def test_real_window_and_stride_against_slices(tiny_corpus):
    path = tiny_corpus / "musicnet_11khz_valid.h5"
    data = MusicNet(path)
    signal, notes, *_ = expected_windows(path, 4096, 128)
    got_signal, got_notes = data.windows(torch.arange(len(data)))
    assert torch.equal(got_signal, torch.from_numpy(signal)) and torch.equal(
        got_notes, torch.from_numpy(notes)
    )
    assert got_notes.sum() > 100
    assert data.rate_hz == 11000 and int(data.samples.sum()) == 7 * 11000


def test_windows_in_any_order_and_from_lists(three):
    data = MusicNet(three, window=5, stride=4)
    signal, notes = data.windows(torch.arange(len(data)))
    index = [16, 0, 3, 3]
    picked_signal, picked_notes = data.windows(index)
    assert torch.equal(picked_signal, signal[index]) and torch.equal(picked_notes, notes[index])
    assert data.windows([])[0].shape == (0, 5)


def test_what_a_window_returns_is_a_copy(three):
    data = MusicNet(three, window=5, stride=1)
    data.windows([0, 1])[0].zero_()
    assert data.windows([1])[0].tolist() == [[1, 2, 3, 4, 5]]


def test_no_window_and_no_label_crosses_recordings(tmp_path):
    # the first one's note runs past its end: it must be silent where the second one begins
    path = write(
        tmp_path / "two.h5",
        recording("id_1", 10, [(7, 500, 60)]),
        recording("id_2", 10, [(0, 1, 70)], ramp=1000),
    )
    data = MusicNet(path, window=2, stride=1)
    signal, notes = data.windows(torch.arange(len(data)))
    assert ((signal[:, 1] - signal[:, 0]) == 1).all()
    # middles are the samples 1..9 of each
    assert notes[:, 60 - 21].nonzero().flatten().tolist() == [6, 7, 8]
    assert notes[:, 70 - 21].sum() == 0


def test_draw_is_one_window_of_each_recording_with_its_notes(three):
    data = MusicNet(three, window=5, stride=4)
    every = MusicNet(three, window=5, stride=1)
    signal, notes = every.windows(torch.arange(len(every)))
    of_value = {float(row[0]): k for k, row in enumerate(signal)}
    for _ in range(50):
        got_signal, got_notes = data.draw()
        rows = [of_value[float(row[0])] for row in got_signal]
        assert every.recording_of(rows).tolist() == [0, 1, 2]
        assert torch.equal(got_signal, signal[rows]) and torch.equal(got_notes, notes[rows])


def test_draw_is_uniform_over_every_start(three):
    scipy_stats = pytest.importorskip("scipy.stats")
    data = MusicNet(three, window=5, stride=4)
    generator = torch.Generator().manual_seed(5)
    first = torch.stack([data.draw(generator)[0][:, 0] for _ in range(6000)]).long() % 1000
    for number, n_starts in enumerate((26, 8, 37)):
        counts = np.bincount(first[:, number].numpy(), minlength=n_starts)
        assert len(counts) == n_starts
        assert scipy_stats.chisquare(counts).pvalue > 1e-3


def test_draw_of_a_recording_as_long_as_the_window(tmp_path):
    path = write(tmp_path / "one.h5", recording("id_1", 8, []))
    assert MusicNet(path, window=8, stride=1).draw()[0].tolist() == [list(range(8))]


def test_draws_follow_the_generator_alone(three):
    data = MusicNet(three, window=5)
    first, again, other = (torch.Generator().manual_seed(seed) for seed in (1, 1, 2))
    drawn = [torch.cat([data.draw(g)[0] for _ in range(4)]) for g in (first, again, other)]
    assert torch.equal(drawn[0], drawn[1]) and not torch.equal(drawn[0], drawn[2])
    assert not torch.equal(drawn[0][:3], drawn[0][3:6])


@pytest.mark.parametrize("n", [1, 16, 37])
def test_draws_are_what_draw_gives_one_by_one(three, n):
    data = MusicNet(three, window=5)
    generators = [torch.Generator().manual_seed(1) for _ in range(2)]
    at_once = list(data.draws(n, generators[0]))
    one_by_one = [data.draw(generators[1]) for _ in range(n)]
    assert len(at_once) == n and torch.equal(*(generator.get_state() for generator in generators))
    for one, other in zip(at_once, one_by_one, strict=True):
        assert torch.equal(one[0], other[0]) and torch.equal(one[1], other[1])


@pytest.mark.parametrize(("device", "calls"), [("cpu", [(16, 3), (4, 3)]), ("cuda", [(1, 3)] * 20)])
def test_on_a_gpu_random_numbers_are_drawn_as_a_captured_step_draws_them(
    three, monkeypatch, device, calls
):
    """CUDA's generator gives one call of many batches other numbers than many calls of one."""
    data, shapes = MusicNet(three, window=5), []

    def randint(high, shape, *, generator, device):
        shapes.append(shape)
        return torch.zeros(shape, dtype=torch.int64)

    monkeypatch.setattr(torch, "randint", randint)
    data.device = torch.device(device)
    assert len(list(data.draws(20))) == 20
    assert shapes == calls


def test_keys_and_repr(three):
    data = MusicNet(three, window=5, stride=4)
    assert data.keys == ("id_0001", "id_0003", "id_0007") and data.n_recordings == 3
    assert data.samples.tolist() == [30, 12, 41]
    assert "3 recordings, 1 s at 100 Hz, 19 windows" in repr(data) and "three.h5" in repr(data)


def test_fingerprint_is_of_samples_notes_and_windows(tmp_path):
    def of(*recordings: layout.Recording, **options) -> str:
        return MusicNet(
            write(tmp_path / "some.h5", *recordings), **{"window": 5, **options}
        ).fingerprint

    one = recording("id_1", 20, [(2, 9, 60)])
    assert of(one) == of(one)
    others = [
        (recording("id_2", 20, [(2, 9, 60)]),),
        (recording("id_1", 21, [(2, 9, 60)]),),
        (recording("id_1", 20, [(2, 9, 60)], ramp=1),),
        (recording("id_1", 20, [(2, 8, 60)]),),
        (recording("id_1", 20, [(2, 9, 61)]),),
        (one, recording("id_2", 20, [])),
    ]
    cuts = {of(one, window=3), of(one, stride=7)}
    assert len({of(one), *cuts, *(of(*other) for other in others)}) == 9


def test_a_recording_shorter_than_the_window(three):
    text = r"three\.h5, recording id_0003: expected at least window = 13 samples, got 12"
    for read in (MusicNet, functools.partial(sizes, stride=1)):
        with pytest.raises(layout.RecordingError, match=text):
            read(three, window=13)
    assert sizes(three, window=12, stride=1)[0] == 3


@pytest.mark.parametrize("argument", [{"window": 0}, {"stride": 0}, {"stride": -1}])
def test_window_and_stride_at_least_one(three, argument):
    ((name, value),) = argument.items()
    with pytest.raises(ValueError, match=f"expected {name} >= 1 sample, got {value}"):
        MusicNet(three, **argument)


@pytest.mark.parametrize("index", [-1, 19])
@pytest.mark.parametrize("method", ["windows", "starts", "recording_of"])
def test_index_out_of_range(three, index, method):
    data = MusicNet(three, window=5, stride=4)
    with pytest.raises(IndexError, match=rf"indices in 0\.\.18 of .*three\.h5, got {index}"):
        getattr(data, method)([0, index])


@pytest.mark.parametrize("index", [[0.5], [True], 3])
def test_index_of_another_kind(three, index):
    with pytest.raises(TypeError, match=r"expected whole numbers of shape \(B,\)"):
        MusicNet(three, window=5).windows(index)


def test_generator_on_another_device(three):
    class Elsewhere:
        device = torch.device("cuda")

    with pytest.raises(
        ValueError,
        match=r"expected a generator on cpu, got one on cuda; try torch.Generator\('cpu'\)",
    ):
        MusicNet(three, window=5).draw(Elsewhere())


def test_missing_file(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"nowhere\.h5.*make demo"):
        MusicNet(tmp_path / "nowhere.h5")


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.filterwarnings("ignore:Synchronization debug mode is a prototype feature")
def test_on_cuda_as_on_the_cpu_and_without_a_wait(three):
    here, there = (
        MusicNet(three, window=5, stride=4),
        MusicNet(three, window=5, stride=4, device="cuda"),
    )
    for a, b in zip(here.windows(torch.arange(19)), there.windows(torch.arange(19)), strict=True):
        assert b.is_cuda and torch.equal(a, b.cpu())
    generator = torch.Generator("cuda").manual_seed(0)
    try:
        torch.cuda.set_sync_debug_mode("error")
        signal, notes = there.draw(generator)
        there.windows(torch.arange(5))
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert signal.is_cuda and notes.is_cuda
    assert (signal[:, 1:] - signal[:, :-1] == 1).all()


@pytest.mark.parametrize("samples", ["float32", "float16", "int16"])
def test_items_are_windows(three, samples: str) -> None:
    dataset = MusicNet(three, window=5, stride=3, samples=samples)
    signal, notes = dataset.windows(torch.arange(len(dataset)))
    for k in (0, 1, len(dataset) - 1, -1, -len(dataset)):
        assert torch.equal(dataset[k][0], signal[k]) and torch.equal(dataset[k][1], notes[k])
    for k in (len(dataset), -len(dataset) - 1):
        with pytest.raises(IndexError, match=f"expected a window below {len(dataset)} of .*, got"):
            dataset[k]
    assert sum(1 for _ in dataset) == len(dataset)


@pytest.mark.parametrize("samples", ["float32", "float16", "int16"])
def test_a_pickled_dataset_is_the_same_one(three, samples: str) -> None:
    dataset = MusicNet(three, window=5, stride=3, samples=samples)
    copied = pickle.loads(pickle.dumps(dataset))
    index = torch.arange(len(dataset))
    for before, after in zip(dataset.windows(index), copied.windows(index), strict=True):
        assert torch.equal(before, after)
    assert copied.fingerprint == dataset.fingerprint and copied.keys == dataset.keys


def test_workers_that_are_spawned_give_every_window(three) -> None:
    dataset = MusicNet(three, window=5, stride=3)
    loader = torch.utils.data.DataLoader(
        dataset, batch_size=4, num_workers=1, multiprocessing_context="spawn"
    )
    signal, notes = (torch.cat(parts) for parts in zip(*loader, strict=True))
    want_signal, want_notes = dataset.windows(torch.arange(len(dataset)))
    assert torch.equal(signal, want_signal) and torch.equal(notes, want_notes)


@pytest.mark.parametrize("samples", ["int16", "float16"])
def test_windows_are_off_by_half_a_step_at_most(samples, tiny_corpus):
    path = tiny_corpus / "musicnet_11khz_train.h5"
    exact, half = MusicNet(path), MusicNet(path, samples=samples)
    assert half._flat.element_size() == 2 and len(half) == len(exact)
    index = torch.arange(len(exact))
    (want, notes), (got, got_notes) = exact.windows(index), half.windows(index)
    assert got.dtype == torch.float32 and torch.equal(notes, got_notes)
    recording = exact.recording_of(index)
    if samples == "int16":
        peak = torch.tensor([float(want[recording == k].abs().max()) for k in range(3)])[recording]
        assert ((got - want).abs() <= 0.501 * peak[:, None] / 32767).all()
    else:
        assert ((got - want).abs() <= 2**-11 * want.abs() + 2**-25).all()
    assert (got - want).abs().max() > 0
    drawn = [data.draw(torch.Generator().manual_seed(3))[0] for data in (exact, half)]
    torch.testing.assert_close(drawn[0], drawn[1], atol=1e-3, rtol=0)


def test_int16_uses_its_whole_range_for_quiet_and_for_loud_recordings():
    rng = np.random.default_rng(0)
    for level in (1e-4, 1.0, 30.0):
        data = (level * rng.uniform(-1, 1, 1000)).astype(np.float32)
        stored, scale = datasets.store(data, "int16")
        assert np.abs(stored).max() == 32767
        np.testing.assert_allclose(stored * scale, data, atol=level / 65000, rtol=0)
    stored, scale = datasets.store(np.zeros(5, np.float32), "int16")
    assert not stored.any() and np.isfinite(scale)


def test_unknown_forms_and_samples_beyond_float16_are_refused(tiny_corpus):
    with pytest.raises(ValueError, match="expected samples of float32, float16, int16, got 'int8'"):
        MusicNet(tiny_corpus / "musicnet_11khz_test.h5", samples="int8")
    with (
        pytest.raises(ValueError, match=r"up to 65504 for float16, got 100000\.0"),
        np.errstate(over="ignore"),
    ):
        datasets.store(np.array([1e5], np.float32), "float16")


def test_fingerprints_tell_the_forms_apart(tiny_corpus):
    path = tiny_corpus / "musicnet_11khz_test.h5"
    assert len({MusicNet(path, samples=samples).fingerprint for samples in datasets.FORMS}) == 3


# -- samplers: how many batches, of which windows, in which order ----------------------------------


@pytest.fixture
def data(tiny_corpus) -> MusicNet:
    return MusicNet(tiny_corpus / "musicnet_11khz_train.h5", window=4096, stride=1000)


def test_registered_names():
    assert sorted(SAMPLERS) == ["in-order", "one-per-recording"]


@pytest.mark.parametrize("batch_size", [1, 7, 32, 10_000])
def test_in_order_gives_every_window_once(data, batch_size):
    feed = SAMPLERS["in-order"](data, batch_size=batch_size)
    batches = list(feed)
    assert len(feed) == len(batches) == -(-len(data) // batch_size)
    assert {len(signal) for signal, _ in batches[:-1]} <= {batch_size}
    signal, notes = data.windows(torch.arange(len(data)))
    assert torch.equal(torch.cat([s for s, _ in batches]), signal)
    assert torch.equal(torch.cat([n for _, n in batches]), notes)


def test_one_per_recording_follows_draw_and_goes_on(data):
    feed = SAMPLERS["one-per-recording"](
        data, generator=torch.Generator().manual_seed(3), n_batches=4
    )
    got = [signal for _ in range(2) for signal, _ in feed]
    generator = torch.Generator().manual_seed(3)
    expected = [data.draw(generator)[0] for _ in range(8)]
    assert len(feed) == 4 and len(got) == 8
    assert all(torch.equal(a, b) for a, b in zip(got, expected, strict=True))


@pytest.mark.parametrize("value", [0, -3, 1.5, True])
def test_counts_are_whole_numbers_from_one(data, value):
    with pytest.raises(ValueError, match=f"expected n_batches as a whole number >= 1, got {value}"):
        SAMPLERS["one-per-recording"](data, n_batches=value)
    with pytest.raises(
        ValueError, match=f"expected batch_size as a whole number >= 1, got {value}"
    ):
        SAMPLERS["in-order"](data, batch_size=value)


def test_a_file_that_is_replaced_while_it_is_read_is_refused(three, tmp_path, monkeypatch):
    """Shorter recordings would leave memory that nobody has written as windows."""
    other = write(tmp_path / "other.h5", *(recording(f"id_000{k}", 12, []) for k in (1, 3, 7)))
    monkeypatch.setattr(layout, "recordings", lambda path, read=layout.recordings: read(other))
    with pytest.raises(layout.RecordingError, match=r"three\.h5: changed while it was read; try"):
        MusicNet(three, window=8)
