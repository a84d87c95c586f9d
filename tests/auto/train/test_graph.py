"""A captured step: the order of calls, scalars that change between replays, and the way out where
it fails.
"""

import contextlib
import weakref
from types import SimpleNamespace

import pytest
import torch

from cplxnet.auto.train import graph
from cplxnet.auto.train.graph import EAGER_STEPS, Cuda, Graphed, captured
from cplxnet.auto.train.state import Feed
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


# -- captures that fail ---------------------------------------------------------------------------


class FakeGraph:
    """Stands in for `torch.cuda.CUDAGraph`: knows whether its capture has ended."""

    def __init__(self, resets):
        self.ended, self.resets = False, resets

    def pool(self):
        if not self.ended:
            raise RuntimeError("Called CUDAGraph::pool() without a preceding successful capture.")
        return (0, 1)

    def reset(self):
        self.resets.append(self.ended)


@pytest.fixture
def fake_cuda(monkeypatch):
    """CUDA as far as a capture needs it; .graphs: weak references to all there were."""
    stream = SimpleNamespace(device_index=0, wait_stream=lambda other: None)
    fake = SimpleNamespace(graphs=[], modes=[], resets=[], invalid=True)

    def new():
        made = FakeGraph(fake.resets)
        fake.graphs.append(weakref.ref(made))
        return made

    @contextlib.contextmanager
    def capturing(graph, *, stream, capture_error_mode="global"):
        fake.modes.append(capture_error_mode)
        try:
            yield
        finally:
            if fake.invalid:
                raise RuntimeError("operation failed due to a previous error during capture")
            graph.ended = True

    monkeypatch.setattr(graph, "_INVALIDATED", [])
    monkeypatch.setattr(torch.cuda, "CUDAGraph", new)
    monkeypatch.setattr(torch.cuda, "graph", capturing)
    monkeypatch.setattr(torch.cuda, "Stream", lambda device: stream)
    monkeypatch.setattr(torch.cuda, "stream", lambda stream: contextlib.nullcontext())
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: stream)
    monkeypatch.setattr(torch.cuda, "set_stream", lambda stream: None)
    source = SimpleNamespace(clone_state=lambda: None, graphsafe_set_state=lambda state: None)
    monkeypatch.setattr(torch.cuda, "default_generators", [source])
    return fake


def graphed_steps(step):
    """What six steps of a stage on a GPU return."""
    trained = Graphed(step, torch.device("cuda"))
    return [trained().item() for _ in range(6)]


def failing(kind, text):
    """A step that returns how often it was run, and fails in a capture."""
    n, runs = torch.zeros(()), []

    def step():
        runs.append(len(runs))
        if len(runs) == EAGER_STEPS + 1:
            raise kind(text)
        return n.add_(1).clone()

    return step


def test_an_invalidated_capture_is_kept_and_is_the_processs_last(fake_cuda):
    with pytest.warns(RuntimeWarning, match="previous error during capture") as caught:
        assert graphed_steps(failing(RuntimeError, "not permitted")) == [1, 2, 3, 4, 5, 6]
        assert graphed_steps(counting()) == [1, 2, 3, 4, 5, 6]  # the next stage
    (kept,) = fake_cuda.graphs
    assert kept() is not None and fake_cuda.resets == []  # torch's allocator still asks it
    assert len(caught) == 1
    assert fake_cuda.modes == ["thread_local"]  # a checkpoint's writer may wait meanwhile


def test_out_of_memory_ends_its_capture_and_gives_its_memory_back(fake_cuda):
    fake_cuda.invalid = False
    with pytest.warns(RuntimeWarning, match="step by step: 2 GiB"):
        assert graphed_steps(failing(torch.OutOfMemoryError, "2 GiB")) == [1, 2, 3, 4, 5, 6]
    assert fake_cuda.resets == [True] and fake_cuda.graphs[0]() is None
    assert Graphed(counting(), torch.device("cuda")).cuda is not None  # the next stage may try


# -- whether --------------------------------------------------------------------------------------


class Sampler:
    """Batches of a count that goes on from batch to batch."""

    def __init__(self):
        self.n = 0

    def __len__(self):
        return 6

    def __iter__(self):
        for _ in range(len(self)):
            self.n += 1
            yield torch.tensor(self.n), torch.tensor(-self.n)


class Drawing(Sampler):
    def draw(self):
        return next(iter(self))


@pytest.mark.parametrize(
    ("cuda_graph", "kernels", "sampler", "expected"),
    [
        (None, True, Drawing, True),
        (None, False, Drawing, False),
        (True, False, Drawing, True),
        (False, True, Drawing, False),
        (True, True, Sampler, False),  # only the sampler itself knows what comes next
    ],
)
def test_the_manifest_says_whether_or_our_kernels_do_and_batches_are_the_same(
    monkeypatch, cuda_graph, kernels, sampler, expected
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

    def note(x, notes):
        steps.append((x.item(), notes.item()))
        return torch.zeros(())

    step, batches = captured(note, Feed(sampler(), lambda signal: 10 * signal), training)
    for batch in batches:
        step(*batch)
    assert isinstance(step, Graphed) == expected
    assert steps == [(10 * n, -n) for n in range(1, 7)]


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

    @contextlib.contextmanager
    def current(device):
        calls.append(f"{device}:")
        yield

    def pinned(tensor, **options):
        assert options == {"device": "cpu", "pin_memory": True}
        calls.append("copy")
        return tensor.new_empty(tensor.shape)

    monkeypatch.setattr(torch.cuda, "Stream", lambda device: Stream())
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: Stream("training"))
    monkeypatch.setattr(torch.cuda, "stream", on)
    monkeypatch.setattr(torch.cuda, "device", current)
    monkeypatch.setattr(torch.cuda, "Event", Event)
    monkeypatch.setattr(torch, "empty_like", pinned)

    tensors = [torch.randn(3), torch.randn(2, 2).T]
    copies, wait = Cuda(torch.device("cuda:1")).to_host(tensors)
    order = ["second waits for training", "on second:", "copy", "copy", "mark on second"]
    assert calls == [*order, "training waits for second"]
    wait()
    assert calls[-2:] == ["cuda:1:", "host waits for the mark"]  # whatever thread it is
    assert all(torch.equal(a, b) and a is not b for a, b in zip(copies, tensors, strict=True))
