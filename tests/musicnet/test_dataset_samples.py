"""Recordings in half the memory, against the float32 ones."""

import numpy as np
import pytest
import torch

from cplxnet.musicnet import MusicNet, dataset


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
        stored, scale = dataset.store(data, "int16")
        assert np.abs(stored).max() == 32767
        np.testing.assert_allclose(stored * scale, data, atol=level / 65000, rtol=0)
    stored, scale = dataset.store(np.zeros(5, np.float32), "int16")
    assert not stored.any() and np.isfinite(scale)


def test_unknown_forms_and_samples_beyond_float16_are_refused(tiny_corpus):
    with pytest.raises(ValueError, match="expected samples of float32, float16, int16, got 'int8'"):
        MusicNet(tiny_corpus / "musicnet_11khz_test.h5", samples="int8")
    with (
        pytest.raises(ValueError, match=r"up to 65504 for float16, got 100000\.0"),
        np.errstate(over="ignore"),
    ):
        dataset.store(np.array([1e5], np.float32), "float16")


def test_fingerprints_tell_the_forms_apart(tiny_corpus):
    path = tiny_corpus / "musicnet_11khz_test.h5"
    assert len({MusicNet(path, samples=samples).fingerprint for samples in dataset.FORMS}) == 3
