"""A captured step: the order of calls, scalars that change between replays, and the way out where
it fails.
"""

import pytest
import torch

from cplxnet.auto.train.graph import EAGER_STEPS, Graphed


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
