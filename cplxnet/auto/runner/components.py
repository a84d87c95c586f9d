"""What a manifest names, as objects: its datasets open on the device, its feeds, its networks."""

from pathlib import Path
from typing import Any

import torch
from torch import nn

from cplxnet.auto import tasks
from cplxnet.auto.manifest.read import Manifest, Stage
from cplxnet.auto.train import precision
from cplxnet.auto.train.state import Feed
from cplxnet.nn.sparsity import variational_layers

from . import stages

# windows scored at once on a GPU, which small batches leave idle; scores do not depend on it
SCORED_AT_ONCE = 4096


class Components:
    """Opens the datasets of a manifest and makes its feeds and networks.

    Raises:
        FileNotFoundError: a data file is not there.
        ValueError: a feed cannot be made or scored, said before anything is trained.
    """

    def __init__(self, manifest: Manifest, *, device: str, data: Path) -> None:
        self.manifest = manifest
        self.device = device
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
        check_datasets = getattr(self.task, "check_datasets", None)  # a task need not have it
        if check_datasets is not None:
            check_datasets(self.datasets)
        self._check_feeds()

    @property
    def fingerprints(self) -> dict[str, str]:
        """What identifies each dataset's content, by its name."""
        return {name: dataset.fingerprint for name, dataset in self.datasets.items()}

    @property
    def trained_on(self) -> dict[str, str]:
        """What `stages.key_of` counts of every stage beside the manifest, by name: kind of device,
        torch, and the fingerprint of each dataset.
        """
        datasets = {f"dataset {name}": text for name, text in self.fingerprints.items()}
        kind = torch.device(self.device).type
        return {"device": kind, "torch": torch.__version__} | datasets

    def feed(self, name: str, generator: torch.Generator | None = None) -> Feed:
        """A feed of the manifest.

        Args:
            name: its key in `feeds`.
            generator: of the random windows of training; None: the feed is for scoring.

        Raises:
            ValueError: the sampler does not take the feed's keys.
        """
        spec = self.manifest.feeds[name]
        options: dict[str, Any]
        if spec.batch_size is None:
            options = {"n_batches": spec.n_batches, "generator": generator}
            other = "batch_size"
        else:
            scores_on_gpu = generator is None and self.device.startswith("cuda")
            options = {"batch_size": max(spec.batch_size, SCORED_AT_ONCE if scores_on_gpu else 1)}
            other = "n_batches"

        try:
            sampler = self.task.SAMPLERS[spec.sampler](self.datasets[spec.dataset], **options)
        except TypeError as error:
            raise ValueError(
                f"feeds.{name}: expected keys of sampler {spec.sampler}, got {error}; try {other}"
            ) from error

        task = self.manifest.task
        return Feed(sampler, lambda x: tasks.features_of(task, x, self.manifest.features))

    def _check_feeds(self) -> None:
        for name in self.manifest.feeds:
            self.feed(name)

        for name, scorer in self.manifest.scorers.items():
            feed = self.manifest.feeds[scorer.feed]
            if feed.batch_size is None:
                raise ValueError(
                    f"scorers.{name}: expected a feed of every window once, got {scorer.feed}; "
                    "try batch_size"
                )

            dataset = self.datasets[feed.dataset]
            if not dataset.targets(torch.arange(len(dataset))).any():
                file = self.manifest.datasets[feed.dataset].file
                raise ValueError(
                    f"scorers.{name}: expected labels in {file}, got windows without any, of which "
                    "there is no average precision; try a smaller stride, or another file"
                )

    def build(self, stage: Stage) -> nn.Module:
        """The stage's network on the device, initialised from the stage's own seed."""
        manifest = self.manifest
        torch.manual_seed(stages.seed_of(manifest, stage.name, "weights"))

        model = tasks.build(manifest.task, stage.model, manifest.features, manifest.window)
        model = model.to(self.device)
        if stage.log_sigma2 is not None:
            for layer in variational_layers(model).values():
                layer.fill_own(stage.log_sigma2)

        precision.prepare(
            model, device=self.device, products=manifest.products, compiled=manifest.compile
        )
        return model
