"""How windows are fed: one of every recording at random for training, all in order for scoring."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch

from .dataset import MusicNet

Batch = tuple[torch.Tensor, torch.Tensor]  # signal (B, window), notes (B, 84), float32


@dataclass(eq=False)
class OnePerRecording:
    """`n_batches` batches, each one window of every recording at a random start.

    Starts are uniform (`MusicNet.draw`). Each pass goes on with `generator` where the last one
    stopped, so epochs differ and a seed gives one run.

    Raises:
        ValueError: n_batches below 1.
    """

    dataset: MusicNet  # where windows are from
    generator: torch.Generator | None = None  # on the dataset's device; None: torch's own
    n_batches: int = 1000  # in an epoch

    def __post_init__(self) -> None:
        _check_count("n_batches", self.n_batches)

    def __len__(self) -> int:
        return self.n_batches

    def __iter__(self) -> Iterator[Batch]:
        yield from self.dataset.draws(self.n_batches, self.generator)


@dataclass(eq=False)
class InOrder:
    """Every window of the dataset once, in order.

    Raises:
        ValueError: batch_size below 1.
    """

    dataset: MusicNet  # where windows are from
    batch_size: int = 256  # windows of a batch; the last one may be smaller

    def __post_init__(self) -> None:
        _check_count("batch_size", self.batch_size)

    def __len__(self) -> int:
        return -(-len(self.dataset) // self.batch_size)

    def __iter__(self) -> Iterator[Batch]:
        for first in range(0, len(self.dataset), self.batch_size):
            after = min(first + self.batch_size, len(self.dataset))
            yield self.dataset.windows(torch.arange(first, after))


def _check_count(name: str, value: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ValueError(f"expected {name} as a whole number >= 1, got {value!r}")


SAMPLERS = {"one-per-recording": OnePerRecording, "in-order": InOrder}
