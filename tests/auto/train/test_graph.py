"""A captured step: the order of calls, scalars that change between replays, and the way out where
it fails.
"""

import contextlib
from types import SimpleNamespace

import pytest
import torch

from cplxnet.auto.train.graph import EAGER_STEPS, Cuda, Graphed, captured
from cplxnet.nn.fast import gpu


class Recorder:
    """Stands in for CUDA: a "graph" that runs the step again, noting every call."""

    def __init__(self, fails=None):
        self.calls, self.fails = [], fails

    def aside(self, step):
        self.calls.append("aside")
        return step()

    def capture(self, step, generators):
        self.calls.append(("capture", list(generators)))
        if self.fails:
            raise self.fails
        result = torch.zeros(())

        class Graph:
            def replay(graph):
                self.calls.append("replay")
                result.copy_(step())

        return Graph(), result


def counting():
    """A step that returns how often it was run."""
    n = torch.zeros(())

    def step():
        return n.add_(1).clone()

    return step


def test_some_steps_then_one_capture_then_replays():
    cuda, generator = Recorder(), torch.Generator()
    graphed = Graphed(counting(), torch.device("cpu"), [generator], cuda=cuda)
    values = [graphed().item() for _ in range(6)]
    assert values == [1, 2, 3, 4, 5, 6]  # a capture trains on nothing
    replays = ["replay"] * (6 - EAGER_STEPS)
    assert cuda.calls == ["aside"] * EAGER_STEPS + [("capture", [generator])] + replays


def test_a_rate_that_is_a_tensor_is_seen_by_replays():
    rate = torch.tensor(1.0)
    graphed = Graphed(lambda: rate * 2, torch.device("cpu"), cuda=Recorder())
    seen = []
    for value in (1.0, 1.0, 1.0, 1.0, 0.1, 0.01):
        rate.fill_(value)
        seen.append(round(graphed().item(), 6))
    assert seen == [2.0, 2.0, 2.0, 2.0, 0.2, 0.02]


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("operation not permitted when stream is capturing"),
        torch.cuda.OutOfMemoryError("2 GiB"),
    ],
)
def test_where_capturing_fails_training_goes_on_with_one_warning(error):
    cuda = Recorder(fails=error)
    graphed = Graphed(counting(), torch.device("cpu"), cuda=cuda)
    for _ in range(EAGER_STEPS):
        graphed()
    with pytest.warns(RuntimeWarning, match="no CUDA graph, training goes on step by step"):
        assert graphed().item() == EAGER_STEPS + 1
    assert [graphed().item() for _ in range(3)] == [5, 6, 7]
    assert sum(isinstance(call, tuple) for call in cuda.calls) == 1


def test_elsewhere_the_step_runs_as_it_is():
    graphed = Graphed(counting(), torch.device("cpu"))
    assert [graphed().item() for _ in range(5)] == [1, 2, 3, 4, 5]


# -- whether --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("cuda_graph", "kernels", "draws", "expected"),
    [
        (None, True, True, True),
        (None, False, True, False),
        (True, False, True, True),
        (False, True, True, False),
        (True, True, False, False),  # windows in order are no step to repeat
    ],
)
def test_the_manifest_says_whether_or_our_kernels_do(
    monkeypatch, cuda_graph, kernels, draws, expected
):
    monkeypatch.setattr(gpu, "usable", lambda *tensors: kernels)
    monkeypatch.setattr(Cuda, "of", lambda device: Recorder())
    training = SimpleNamespace(
        cuda_graph=cuda_graph,
        device=torch.device("cuda"),
        model=torch.nn.Linear(1, 1),
        windows=torch.Generator(),
    )
    steps = []

    class Feed(list):
        def draw(self):
            return "x", "notes"

    feed = Feed([("a", "b")] * 3)
    feed.draws = draws
    step, batches = captured(lambda *batch: steps.append(batch), feed, training)
    for batch in batches:
        step(*batch)
    assert isinstance(step, Graphed) == expected
    assert steps == [("x", "notes") if expected else ("a", "b")] * 3


def test_on_a_cpu_nothing_is_captured():
    training = SimpleNamespace(cuda_graph=True, device=torch.device("cpu"))
    feed = [()]
    step = counting()
    assert captured(step, feed, training) == (step, feed)


# -- copies to the host ---------------------------------------------------------------------------


def test_copies_wait_for_the_training_and_the_training_for_them(monkeypatch):
    """Their order on the device; the host waits for none of it."""
    calls = []

    class Stream:
        def __init__(self, name="second"):
            self.name = name

        def wait_stream(self, other):
            calls.append(f"{self.name} waits for {other.name}")

    class Event:
        def record(self, stream):
            calls.append(f"mark on {stream.name}")

        def synchronize(self):
            calls.append("host waits for the mark")

    @contextlib.contextmanager
    def on(stream):
        calls.append(f"on {stream.name}:")
        yield

    def pinned(tensor):
        calls.append("copy")
        return torch.empty_like(tensor)

    monkeypatch.setattr(torch.cuda, "Stream", lambda device: Stream())
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: Stream("training"))
    monkeypatch.setattr(torch.cuda, "stream", on)
    monkeypatch.setattr(torch.cuda, "Event", Event)
    monkeypatch.setattr(Cuda, "pinned", staticmethod(pinned))

    tensors = [torch.randn(3), torch.randn(2, 2).T]
    copies, wait = Cuda(torch.device("cuda")).to_host(tensors)
    order = ["second waits for training", "on second:", "copy", "copy", "mark on second"]
    assert calls == [*order, "training waits for second"]
    wait()
    assert calls[-1] == "host waits for the mark"
    assert all(torch.equal(a, b) and a is not b for a, b in zip(copies, tensors, strict=True))
