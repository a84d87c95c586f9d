"""What a manifest names, as objects: its datasets open on the device, its feeds, its networks."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from cplxnet.auto import tasks
from cplxnet.auto.manifest.read import Manifest, Stage
from cplxnet.auto.train import precision

from . import stages


class Materials:
    """Opens the datasets of a manifest and makes its feeds and networks.

    Raises ValueError, before anything is trained, for a feed that cannot be made or scored; FileNotFoundError for a
    data file that is not there.
    """

    def __init__(self, manifest: Manifest, *, device: str, data: Path) -> None:
        self.manifest, self.device = manifest, device
        self.task = tasks.TASKS[manifest.task]
        self.datasets = {
            name: self.task.open_dataset(
                data / spec.file,
                window=spec.window,
                stride=spec.stride,
                device=device,
                samples=manifest.samples,
            )
            for name, spec in manifest.datasets.items()
        }
        self._check_feeds()

    @property
    def fingerprints(self) -> dict[str, str]:
        """What identifies each dataset's content, by its name."""
        return {name: dataset.fingerprint for name, dataset in self.datasets.items()}

    def inputs(self, signal: Tensor) -> Tensor:
        """A batch of signals as the network takes it."""
        spec = self.manifest.features
        return self.task.features(signal, spec.kind, cplx=spec.cplx, shift=spec.shift)

    def feed(self, name: str, generator: torch.Generator | None = None) -> Any:
        """The batches of a feed; `generator` is for those that draw, which have a number of batches."""
        spec = self.manifest.feeds[name]
        draws = spec.batch_size is None
        options = (
            {"n_batches": spec.n_batches, "generator": generator}
            if draws
            else {"batch_size": spec.batch_size}
        )
        try:
            return self.task.SAMPLERS[spec.sampler](self.datasets[spec.dataset], **options)
        except TypeError as error:
            other = "batch_size" if draws else "n_batches"
            raise ValueError(
                f"feeds.{name}: expected keys of sampler {spec.sampler}, got {error}; try {other}"
            ) from error

    def _check_feeds(self) -> None:
        for name in self.manifest.feeds:
            self.feed(name)
        for name, spec in self.manifest.scorers.items():
            if self.manifest.feeds[spec.feed].batch_size is None:
                raise ValueError(
                    f"scorers.{name}: expected a feed of every window once, got {spec.feed}; try batch_size"
                )

    def build(self, stage: Stage) -> nn.Module:
        """The stage's network on the device, initialised from the stage's own seed."""
        torch.manual_seed(stages.seed_of(self.manifest, stage.name, "weights"))
        dataset = next(iter(self.datasets.values()))
        example = self.inputs(dataset.windows(torch.arange(1))[0]).cpu()
        model = self.task.build(stage.model.name, example, **stage.model.kwargs).to(self.device)
        chosen = self.manifest
        precision.prepare(
            model, device=self.device, products=chosen.products, compiled=chosen.compile
        )
        return model
