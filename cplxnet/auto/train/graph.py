"""A training step captured as a CUDA graph: one launch a step in place of a hundred.

The first steps run as they are, on a stream of their own, so that kernels are compiled and memory
is found; then the step is captured, which computes nothing, and from there on replayed. Each step
computes the same bits either way: random generators go on by the same amounts, and what changes
between steps lies in tensors on the device.

A replay repeats the numbers that were in host memory at the capture, without an error. So learning
rate and KL weights are tensors on the device, set from outside (`optim.held`).
"""

import warnings
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from cplxnet.nn.fast import gpu

from .state import Feed, Training

EAGER_STEPS = 3  # torch asks for some before a capture

# captures that could not be ended: torch's allocator still asks them, so they stay to the process's
# end, and nothing is captured beside them
_INVALIDATED: list[torch.cuda.CUDAGraph] = []


def captured(
    step: Callable[..., Tensor], feed: Feed, training: Training
) -> tuple[Callable[..., Tensor], Iterable[Any]]:
    """The step and its batches; or the step as a graph that draws its own, and empty batches.

    As a graph where the feed draws and the manifest's `cuda_graph` is true, or is null and our
    kernels run: some of torch's operations wait for the device.
    """
    wanted = training.cuda_graph
    if wanted is None:
        wanted = gpu.usable(*training.model.parameters())
    if not wanted or training.device.type != "cuda" or not feed.draws:
        return step, feed

    graphed = Graphed(lambda: step(*feed.draw()), training.device, [training.windows])
    return graphed, [()] * len(feed)


@dataclass(eq=False)
class Graphed:
    """Callable () -> Tensor, the same values as `step`, replayed from the fourth call on.

    Where there is no CUDA device, and where capturing fails, `step` runs as it is; after a capture
    that could not be ended, in the whole process.
    """

    step: Callable[[], Tensor]  # draws its batch, trains on it; nothing in it waits for the device
    device: torch.device
    generators: Sequence[torch.Generator] = ()  # what it draws from beside torch's own
    cuda: "Cuda | None" = None  # of `device`

    def __post_init__(self) -> None:
        self.cuda = None if _INVALIDATED else self.cuda or Cuda.of(self.device)
        self._graph: torch.cuda.CUDAGraph | None = None
        self._result: Tensor | None = None
        self._n_steps = 0

    def __call__(self) -> Tensor:
        if self.cuda is None:
            return self.step()

        self._n_steps += 1
        if self._n_steps <= EAGER_STEPS:
            return self.cuda.aside(self.step)

        if self._graph is None:
            failed = None
            try:
                self._graph, self._result = self.cuda.capture(self.step, self.generators)
            except RuntimeError as error:  # one of them is torch.OutOfMemoryError
                failed = gpu.first_line(error)
            if failed is not None:  # out here the error holds the capture's memory no more
                warnings.warn(
                    f"no CUDA graph, training goes on step by step: {failed}",
                    RuntimeWarning,
                    stacklevel=2,
                )
                self.cuda = None
                return self.step()

        assert self._graph is not None and self._result is not None
        self._graph.replay()
        return self._result


class Cuda:
    """What graphs and checkpoints need of CUDA: a small interface that a test can stand in for."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self.stream = torch.cuda.Stream(device)  # a second one, beside that of the training

    @classmethod
    def of(cls, device: str | torch.device) -> "Cuda | None":
        """That of a device; None: it is no CUDA device."""
        device = torch.device(device)
        return cls(device) if device.type == "cuda" else None

    def aside(self, step: Callable[[], Tensor]) -> Tensor:
        """Run the step on the stream that will capture it."""
        now = torch.cuda.current_stream(self._device)
        self.stream.wait_stream(now)
        with torch.cuda.stream(self.stream):
            result = step()
        now.wait_stream(self.stream)
        return result

    def capture(
        self, step: Callable[[], Tensor], generators: Sequence[torch.Generator]
    ) -> tuple[torch.cuda.CUDAGraph, Tensor]:
        """The step as a graph, and where each replay leaves its result.

        The mode "thread_local": what the checkpoints' writer waits for meanwhile is its own affair.
        """
        graph = torch.cuda.CUDAGraph()
        now = torch.cuda.current_stream(self._device)
        for generator in generators:
            graph.register_generator_state(generator)
        try:
            with torch.cuda.graph(graph, stream=self.stream, capture_error_mode="thread_local"):
                result = step()
        except BaseException:
            try:
                graph.pool()  # refused before the capture has ended
            except RuntimeError:
                _INVALIDATED.append(graph)
                # torch leaves the capture's stream current, and generators in the capture: a clone
                # of their state is not
                torch.cuda.set_stream(now)
                for source in (torch.cuda.default_generators[now.device_index], *generators):
                    source.graphsafe_set_state(source.clone_state())
            else:
                graph.reset()  # its memory goes back
            raise
        return graph, result

    def to_host(self, tensors: Sequence[Tensor]) -> tuple[list[Tensor], Callable[[], None]]:
        """Copies in pinned memory, made on the second stream, and what waits until they are whole.

        The host goes on at once. Training steps that it queues from now on start after the copies,
        which take some milliseconds, so that they change nothing that is being copied.
        """
        now = torch.cuda.current_stream(self._device)
        self.stream.wait_stream(now)
        with torch.cuda.stream(self.stream):
            copies = [
                torch.empty_like(t, device="cpu", pin_memory=True).copy_(t, non_blocking=True)
                for t in tensors
            ]
            whole = torch.cuda.Event()
            whole.record(self.stream)
        now.wait_stream(self.stream)

        def wait() -> None:
            with torch.cuda.device(self._device):  # a new thread would open GPU 0 beside it
                whole.synchronize()

        return copies, wait
