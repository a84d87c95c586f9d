"""The pruner of a stage: which weights it masks, at the stage's start or step by step."""

import functools

import torch
from torch import nn

from cplxnet import nn as cplx
from cplxnet.auto.manifest.schema import Pruner
from cplxnet.nn.pruning import Sparsity


def sparsity_after(step: int, n_steps: int, spec: Pruner, final: float) -> float:
    """Sparsity of gradual pruning once `step` of a stage's `n_steps` steps are done.

        s_t = s_f + (s_i - s_f) (1 - (t - t0)/(n dt))^3     from t0 to t0 + n dt

    Args:
        step: t, steps of the stage that are done.
        n_steps: steps of the stage in all.
        spec: `initial` is s_i (s_f where that is less); `begin` and `end`, parts of the stage, are
            t0 and t0 + n dt, in whole steps.
        final: s_f.

    Reference: Zhu and Gupta (2017), "To prune, or not to prune", equation 1.
    """
    first = round(spec.begin * n_steps)
    last = _last_step(spec, n_steps)
    if step >= last:
        return final

    share = max(step - first, 0) / (last - first)
    return final + (min(spec.initial, final) - final) * (1 - share) ** 3


def _last_step(spec: Pruner, n_steps: int) -> int:
    """The step after which gradual pruning is over: the first, if the stage is that short."""
    return max(round(spec.end * n_steps), 1)


class Pruning:
    """Masks the weights of one stage's network.

    The masks follow from weights, seed and the number of the step alone, and a checkpoint has them
    with the weights: a stage that goes on needs nothing else.

    Args:
        spec: the manifest's pruner.
        model: the stage's masked network.
        like: the network whose sparsity of each layer is taken; None: it is `spec.sparsity`.
        threshold: log_alpha above which a weight of `like` is irrelevant.
        seed: of random masks.
    """

    def __init__(
        self, spec: Pruner, model: nn.Module, *, like: nn.Module | None, threshold: float, seed: int
    ) -> None:
        self._spec = spec
        self._model = model
        self._final: Sparsity = spec.sparsity or 0.0
        if like is not None:
            self._final = {
                name.rpartition(".")[0]: n_zero / n_par
                for name, (n_zero, n_par) in cplx.sparsity(like, threshold).items()
                if name.endswith(("weight", "weight_ri"))
            }
        self._seed = seed

    def start(self) -> None:
        """Mask what is masked at once, before the stage's first step."""
        if self._spec.name == "random":
            generator = torch.Generator().manual_seed(self._seed)
            masks = cplx.random_masks(
                self._model, self._final, generator, by_layer=self._spec.by_layer
            )
            cplx.deploy_masks(self._model, masks)
        elif self._spec.name == "one-shot":
            self._by_magnitude(self._final)

    def after(self, step: int, n_steps: int) -> None:
        """Gradual pruning after `step` of `n_steps` steps: every so many, and at its end."""
        spec = self._spec
        last = _last_step(spec, n_steps)
        due = step == last or (step % spec.every == 0 and spec.begin * n_steps < step < last)
        if spec.name != "gradual" or not due:
            return

        sparsity = functools.partial(sparsity_after, step, n_steps, spec)
        if isinstance(self._final, float):
            self._by_magnitude(sparsity(self._final))
        else:
            self._by_magnitude({layer: sparsity(final) for layer, final in self._final.items()})

    def _by_magnitude(self, sparsity: Sparsity) -> None:
        masks = cplx.magnitude_masks(self._model, sparsity, by_layer=self._spec.by_layer)
        cplx.deploy_masks(self._model, masks)
