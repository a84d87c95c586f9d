"""A training step captured as a CUDA graph: one launch a step in place of a hundred.

The first steps run as they are, on a stream of their own, so that kernels are compiled and memory
is found; then the step is captured, which computes nothing, and from there on replayed. Each step
computes the same bits either way: random generators go on by the same amounts, and what changes
between steps lies in tensors on the device.

What would go wrong in silence: a replay uses the numbers that stood in host memory when it was
captured. Learning rate and coefficients are tensors, refreshed from outside (`optim.set_rate`).
"""

import warnings
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from .state import Feed

EAGER_STEPS = 3  # torch asks for some before a capture


class Graphed:
    """Callable () -> Tensor, the same values as `step`, replayed from the fourth call on.

    Args:
        step: draws its batch, trains on it and returns a small tensor; nothing in it waits for the
            device.
        device: a CUDA device; on others, and where capturing fails, `step` runs as it is.
        generators: what `step` draws from beside torch's own generator.
    """

    def __init__(
        self,
        step: Callable[[], Tensor],
        device: torch.device,
        generators: Sequence[torch.Generator] = (),
        *,
        cuda: "Cuda | None" = None,
    ) -> None:
        self._step, self._generators = step, generators
        self._cuda = cuda or (Cuda(device) if device.type == "cuda" else None)
        self._graph: torch.cuda.CUDAGraph | None = None
        self._result: Tensor | None = None
        self._n_steps = 0

    def __call__(self) -> Tensor:
        if self._cuda is None:
            return self._step()

        self._n_steps += 1
        if self._n_steps <= EAGER_STEPS:
            return self._cuda.aside(self._step)

        if self._graph is None:
            failed = None
            try:
                self._graph, self._result = self._cuda.capture(self._step, self._generators)
            except (RuntimeError, torch.OutOfMemoryError) as error:
                failed = (str(error).strip().splitlines() or [type(error).__name__])[0]
            if failed is not None:  # out here the error holds the capture's memory no more
                warnings.warn(
                    f"no CUDA graph, training goes on step by step: {failed}",
                    RuntimeWarning,
                    stacklevel=2,
                )
                self._cuda = None
                return self._step()

        assert self._graph is not None and self._result is not None
        self._graph.replay()
        return self._result


class Cuda:
    """What graphs need of CUDA, behind one small interface that a test can stand in for."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._stream = torch.cuda.Stream(device)

    def aside(self, step: Callable[[], Tensor]) -> Tensor:
        """Run the step on the stream that will capture it."""
        now = torch.cuda.current_stream(self._device)
        self._stream.wait_stream(now)
        with torch.cuda.stream(self._stream):
            result = step()
        now.wait_stream(self._stream)
        return result

    def capture(
        self, step: Callable[[], Tensor], generators: Sequence[torch.Generator]
    ) -> tuple[torch.cuda.CUDAGraph, Tensor]:
        """The step as a graph, and where each replay leaves its result."""
        graph = torch.cuda.CUDAGraph()
        now = torch.cuda.current_stream(self._device)
        for generator in generators:
            graph.register_generator_state(generator)
        try:
            with torch.cuda.graph(graph, stream=self._stream):
                result = step()
        except BaseException:
            # torch leaves the capture's stream current, and generators in the capture: a clone of
            # their state is not
            torch.cuda.set_stream(now)
            for source in (torch.cuda.default_generators[now.device_index], *generators):
                source.graphsafe_set_state(source.clone_state())
            self._abandoned = graph  # the allocator may still ask it
            raise
        return graph, result


def drawn(step: Callable[[Tensor, Tensor], Tensor], feed: Feed) -> Tensor:
    """Draw a batch and train on it: what is captured."""
    return step(*feed.draw())
