"""Feeds: how many batches, of which windows, in which order."""

import pytest
import torch

from cplxnet.musicnet.dataset import SAMPLERS, MusicNet


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
