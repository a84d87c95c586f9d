"""Before anything is timed: do all libraries compute the same thing?

Relative differences from cplxnet's values: in the dense network the outputs of a training forward,
the first layer's gradient, and the outputs in eval mode (running statistics included); in the
variational ones the KL and its gradient by the last layer's log_sigma2 and weights. The noise of
variational layers is random and left out. All in float32.
"""

from typing import Any

import torch
from torch import Tensor

from cplxnet import nn as cplx

from .peers import PEERS, ours, theirs
from .steps import CONTESTANTS, example

TOLERANCE = 1e-4  # of float32 through the whole network; seen: below 1e-5
# of a gradient through ReLUs: an input that rounding moves across 0 makes it jump; the largest
# jump seen is 4e-3
KINK = 1e-2
THROUGH_RELU = "gradient of the first weights"
Row = tuple[str, str, float]  # contestant, what was compared, largest relative difference


class Disagreement(RuntimeError):
    """Two libraries computed different things from the same weights: times would say nothing."""


def difference(value: Tensor, expected: Tensor) -> float:
    """max |value - expected| / max |expected|."""
    delta = (value - expected).detach().abs().max()
    return float(delta / expected.detach().abs().max())


def check(batch: int = 8) -> list[Row]:
    """All comparisons. Raises Disagreement if one is too large."""
    x, _ = example(batch)
    rows = [row for library in PEERS for row in _networks(library, x)]
    rows += [row for kind in ("VD", "ARD") for row in _penalties(kind)]
    wrong = [row for row in rows if not row[2] <= (KINK if row[1] == THROUGH_RELU else TOLERANCE)]
    if wrong:
        raise Disagreement(
            f"expected relative differences up to {TOLERANCE} (gradients {KINK}), got {wrong}"
        )
    return rows


def _networks(library: str, x: Tensor) -> list[Row]:
    model: Any = ours("")
    peer: Any = theirs(library, "", model)
    inputs = PEERS[library].inputs(x)
    outputs = [model(x), peer(inputs)]
    for output in outputs:
        output.square().mean().backward()
    grads = [model[0].weight_ri.grad, torch.stack(_grads(library, peer[0]), -1)]
    rows = [
        (library, "output, training", difference(outputs[1], outputs[0])),
        (library, THROUGH_RELU, difference(grads[1], grads[0])),
    ]
    model.eval()  # running statistics of one batch
    with torch.no_grad():
        delta = difference(theirs(library, "", model)(inputs), model(x))
    return [*rows, (library, "output, evaluation", delta)]


def _grads(library: str, layer: Any) -> tuple[Tensor, Tensor]:
    """Gradient of the real and of the imaginary parts of a layer's weight."""
    if library == "cplxmodule":
        return layer.weight.real.grad, layer.weight.imag.grad
    grad: Any = next(p.grad for p in layer.parameters() if p.is_complex())
    return grad.real, grad.imag


def _penalties(kind: str) -> list[Row]:
    model: Any = ours(kind)
    rows: list[Row] = []
    with torch.no_grad():
        for layer in model:
            if isinstance(
                layer, cplx.GaussianWeight
            ):  # log_alpha from about -12 to 4, not only the start's -6
                layer.log_sigma2.uniform_(-16, 0)
    value = cplx.kl_sum(model)
    value.backward()
    for name, (library, own_kind) in CONTESTANTS[kind].items():
        if library != "cplxnet":
            peer: Any = theirs(library, own_kind, model)
            penalty = torch.stack(list(PEERS[library].penalties(peer))).sum()
            penalty.backward()
            if own_kind != "bogus":  # whose value is meant to be wrong
                rows.append((name, f"KL {kind}", difference(penalty, value)))
            delta = difference(peer[-2].log_sigma2.grad, model[-2].log_sigma2.grad)
            rows.append((name, f"KL {kind}, gradient by log_sigma2", delta))
            delta = difference(torch.stack(_grads(library, peer[-2]), -1), model[-2].weight_ri.grad)
            rows.append((name, f"KL {kind}, gradient by weights", delta))
    return rows
