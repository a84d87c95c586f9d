"""From a masked network to an ordinary module that computes the same, smaller and faster.

The network is read as a chain of stages (`read`). Units that are constant or unread are removed
(`dead_units`). Each stage is run by the engine (`backends`) that was fastest on this machine.
"""

import functools
import timeit
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, NoReturn

import torch
from torch import Tensor, nn

from . import backends
from .backends import ENGINES, Engine
from .block import Stage
from .dead_units import shrink
from .read import read_chain

MEASURED = 16  # positions that the input gives on which engines are timed, if not one
Plan = dict[int, list[str]]  # {batch size it was measured at: engine of each stage}


class Compact(nn.Module):
    """What `compact` gives: a chain of stages for evaluation, without trainable parameters.

    It takes what the network took, complex or real (B, channels, length), and gives what it gave.
    A complex input to a real network counts as real parts, then imaginary parts, along the
    channels. `save_compact` writes it to a file; it has no state dict.

    Args:
        stages: what is computed.
        inputs: int64, the input's units that are read.
        in_channels: units of the input.
        metadata: text of the user's.

    Attributes:
        plan: the engines; empty: chosen by a fixed rule.
    """

    def __init__(
        self,
        stages: Sequence[Stage],
        inputs: Tensor,
        in_channels: int,
        *,
        metadata: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__()
        _check_chain(stages, inputs, in_channels)

        self.stages = tuple(stages)
        self.inputs = inputs
        self.in_channels = in_channels
        self.metadata = dict(metadata or {})

        self.plan: Plan = {}
        self._built: dict[tuple[int, str], Engine] = {}
        self.eval()

    def state_dict(self, *args: Any, **kwargs: Any) -> NoReturn:
        """Refused: an empty one would be taken for the weights."""
        raise TypeError(
            "a compact network has no state dict; try nn.save_compact and nn.load_compact"
        )

    load_state_dict = state_dict  # type: ignore[assignment]

    @torch.no_grad()
    def forward(self, x: Tensor) -> Tensor:
        x = self._read(self._as_real(x))
        for stage, engine in zip(self.stages, self._engines(x), strict=True):
            stage.check(x)
            x = engine(x)

        y = x.squeeze(2) if self.stages[-1].whole else x
        if self.stages[-1].gives == 2:
            y = torch.view_as_complex(y.unflatten(1, (-1, 2)).movedim(2, -1).contiguous())
        return y

    @torch.no_grad()
    def measure(self, batch_sizes: Sequence[int]) -> "Compact":
        """Choose each stage's engine at each batch size by the least time of a few calls.

        Times hold for the number of threads torch has now. A call uses the plan of the nearest
        batch size.
        """
        self.plan = {}
        for batch in batch_sizes:
            # noise of the shortest length that goes through
            shape = (batch, self.in_channels * self.stages[0].takes, self.shortest(MEASURED))
            x = self._read(torch.randn(shape, generator=torch.Generator().manual_seed(0)))
            plan: list[str] = []

            for i, stage in enumerate(self.stages):
                calls = {name: self._engine(i, name) for name in backends.candidates(stage, x)}
                plan.append(_fastest(calls, x))
                x = self._engine(i, plan[-1])(x)
            self.plan[batch] = plan

        chosen = {(i, name) for plan in self.plan.values() for i, name in enumerate(plan)}
        self._built = {key: self._built[key] for key in chosen}
        return self

    def shortest(self, n_out: int = 1) -> int:
        """The least length of an input that gives `n_out` positions; a linear layer gives one."""
        length = 1 if self.stages[-1].whole else n_out
        for stage in reversed(self.stages):
            length = stage.weight.shape[2] if stage.whole else stage.shortest(length)
        return length

    def _as_real(self, x: Tensor) -> Tensor:
        """x as real numbers (B, takes * in, length)."""
        first = self.stages[0]
        computes_complex = first.takes == 2
        if x.dim() != 3 and not (first.whole and x.dim() > 1):
            field = "complex" if computes_complex else "real"
            shape = "(B, features)" if first.whole else f"(B, {self.in_channels}, length)"
            raise ValueError(f"expected {field} {shape}, got {tuple(x.shape)}")

        if x.is_complex() and not computes_complex:
            x = torch.cat((x.real, x.imag), 1)
        if first.whole:
            x = x.flatten(1).unsqueeze(1)  # all of it is one unit, as long as the layer is wide
        if not computes_complex:
            return x

        z = x if x.is_complex() else torch.complex(x, torch.zeros_like(x))
        return torch.view_as_real(z.resolve_conj()).movedim(-1, 2).flatten(1, 2)

    def _read(self, x: Tensor) -> Tensor:
        """The units that are read, checked."""
        takes = self.stages[0].takes
        if x.shape[1] != self.in_channels * takes:
            raise ValueError(f"expected {self.in_channels} channels, got {x.shape[1] / takes:g}")

        if len(self.inputs) < self.in_channels:
            x = x.unflatten(1, (-1, takes)).index_select(1, self.inputs).flatten(1, 2)
        return x

    def _engines(self, x: Tensor) -> list[Engine]:
        if not self.plan:
            names = [backends.by_rule(stage, x) for stage in self.stages]
        else:
            n = max(len(x), 1)
            names = self.plan[min(self.plan, key=lambda batch: max(batch / n, n / batch))]
        return [self._engine(i, name) for i, name in enumerate(names)]

    def _engine(self, i: int, name: str) -> Engine:
        if (i, name) not in self._built:
            self._built[i, name] = ENGINES[name](self.stages[i])
        return self._built[i, name]

    def extra_repr(self) -> str:
        engines = self.plan or "by rule"
        lines = [f"{self.in_channels} channels in, {len(self.inputs)} read; engines {engines}"]

        for stage in self.stages:
            left = f"{int(stage.weight.count_nonzero())} of {stage.weight.numel()} weights left"
            lines.append(f"{stage.name}: {tuple(stage.weight.shape)}, {left}")
        return "\n".join(lines)


@torch.no_grad()
def compact(
    model: nn.Module,
    *,
    threshold: float = -0.5,
    masks: Mapping[str, Tensor] | None = None,
    batch_sizes: Sequence[int] = (1, 64),
    measure: bool = True,
) -> Compact:
    """`model` in evaluation under its masks, without what they switch off.

        |compact(model)(x) - model(x)| <= 1e-5 max |model(x)|    in float32

    Args:
        model: a `Sequential`, dense, variational or masked, complex or real (see
            `read.read_chain`). Left as it is.
        threshold: a weight of a variational layer is kept if log_alpha <= threshold.
        masks: {layer name: mask, True = keep}, in place of the layers' own.
        batch_sizes: at which engines are timed; each call uses those of the nearest.
        measure: False: engines by a fixed rule, so that the last bits are the same every time.

    Raises:
        UnknownLayer: a layer that it does not know, named.
        ValueError: masks that do not fit, or weights that are not finite.

    Warns:
        RuntimeWarning: a layer of which no weight is left; the result gives a constant.
    """
    stages = read_chain(model, threshold, masks or {})
    in_channels = stages[0].weight.shape[1]

    stages, inputs = shrink(stages)
    small = Compact([_on_cpu(stage) for stage in stages], inputs.cpu(), in_channels)
    return small.measure(batch_sizes) if measure else small


def _on_cpu(stage: Stage) -> Stage:
    tensors = {key: value for key, value in vars(stage).items() if isinstance(value, Tensor)}
    on_cpu: dict[str, Any] = {key: value.cpu() for key, value in tensors.items()}
    return replace(stage, **on_cpu)


def _check_chain(stages: Sequence[Stage], inputs: Tensor, in_channels: int) -> None:
    given = (len(inputs), stages[0].takes)  # units, real numbers a unit
    if not bool(((inputs >= 0) & (inputs < in_channels)).all()):
        raise ValueError(
            f"expected stages that read units 0 to {in_channels - 1}, got {inputs.tolist()}"
        )

    for stage in stages:
        stage.check_tensors()

        wanted = (stage.weight.shape[1], stage.takes)
        if wanted != given:
            raise ValueError(
                f"{stage.name}: expected to read {given[0]} units of {given[1]} numbers, got "
                f"{wanted}"
            )
        given = (len(stage.weight), stage.gives)


def _fastest(calls: Mapping[str, Engine], x: Tensor) -> str:
    """The name of the call with the least time, of three each in turn.

    A first call warms up. One that takes ten times as long as another even then is left out.
    """
    timers = {name: timeit.Timer(functools.partial(call, x)) for name, call in calls.items()}
    warm_up = {name: timer.timeit(1) for name, timer in timers.items()}
    limit = 10 * min(warm_up.values())

    contenders = [name for name, seconds in warm_up.items() if seconds <= limit]
    if len(contenders) == 1:
        return contenders[0]
    return min(contenders, key=lambda name: min(timers[name].repeat(3, 1)))
