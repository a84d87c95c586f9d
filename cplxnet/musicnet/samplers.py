"""How windows are fed: one of every recording at random for training, all in order for scoring."""

from collections.abc import Iterator

import torch

from .dataset import MusicNet

Batch = tuple[torch.Tensor, torch.Tensor]  # signal (B, window), notes (B, 84), float32


class OnePerRecording:
    """`n_batches` batches, each one window of every recording at a random start.

    Starts are uniform (`MusicNet.draw`). Each pass goes on with `generator` where the last one
    stopped, so epochs differ and a seed gives one run.

    Args:
        dataset: where windows are from.
        generator: random numbers on the dataset's device; None for torch's own.
        n_batches: batches in an epoch, at least 1.

    Raises:
        ValueError: n_batches below 1.
    """

    def __init__(
        self, dataset: MusicNet, generator: torch.Generator | None = None, n_batches: int = 1000
    ) -> None:
        self.dataset = dataset
        self.generator = generator
        self.n_batches = _at_least_one("n_batches", n_batches)

    def __len__(self) -> int:
        return self.n_batches

    def __iter__(self) -> Iterator[Batch]:
        yield from self.dataset.draws(self.n_batches, self.generator)


class InOrder:
    """Every window of the dataset once, in order.

    Args:
        dataset: where windows are from.
        batch_size: windows of a batch; the last one may be smaller.

    Raises:
        ValueError: batch_size below 1.
    """

    def __init__(self, dataset: MusicNet, batch_size: int = 256) -> None:
        self.dataset = dataset
        self.batch_size = _at_least_one("batch_size", batch_size)

    def __len__(self) -> int:
        return -(-len(self.dataset) // self.batch_size)

    def __iter__(self) -> Iterator[Batch]:
        for first in range(0, len(self.dataset), self.batch_size):
            after = min(first + self.batch_size, len(self.dataset))
            yield self.dataset.windows(torch.arange(first, after))


def _at_least_one(name: str, value: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ValueError(f"expected {name} as a whole number >= 1, got {value!r}")
    return value


SAMPLERS = {"one-per-recording": OnePerRecording, "in-order": InOrder}
