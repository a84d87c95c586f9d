"""The stages of one run, one after another, from open data to scores."""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from .. import nn as cplx
from . import atomic, stages, tasks
from .earlier import Earlier
from .epoch import Diverged, predict, train_epoch
from .folder import RunFolder
from .manifest import Manifest, Stage
from .objective import Objective
from .optim import load_named_state, make_optimizer, make_schedule, named_state, set_rate
from .progress import bar, ticking
from .watch import Watch

COMPILE_FROM = 200  # steps of a stage from which compiling the KL, some ten seconds the first time, pays


class Session:
    """The state of one run between its stages: open datasets, the network, the optimiser's state, the scores."""

    model: nn.Module  # of the stage at hand

    def __init__(self, manifest: Manifest, files: RunFolder, *, device: str, data: Path, progress: bool) -> None:
        self.manifest, self.files, self.device, self.progress = manifest, files, device, progress
        self.task = tasks.TASKS[manifest.task]
        self.datasets = {
            name: self.task.open_dataset(data / spec.file, window=spec.window, stride=spec.stride, device=device)
            for name, spec in manifest.datasets.items()
        }
        self.optimizer_state: dict[str, Any] = {}
        self.history: list[dict[str, Any]] = []
        self.stage_scores: dict[str, Any] = {}
        self._check_feeds()

    # -- what manifests name ------------------------------------------------------------------------------------------

    def inputs(self, signal: Tensor) -> Tensor:
        """A batch of signals as the network takes it."""
        spec = self.manifest.features
        return self.task.features(signal, spec.kind, cplx=spec.cplx, shift=spec.shift)

    def feed(self, name: str, generator: torch.Generator | None = None) -> Any:
        """The batches of a feed; `generator` is for those that draw, which have a number of batches."""
        spec = self.manifest.feeds[name]
        draws = spec.batch_size is None
        options = {"n_batches": spec.n_batches, "generator": generator} if draws else {"batch_size": spec.batch_size}
        try:
            return self.task.SAMPLERS[spec.sampler](self.datasets[spec.dataset], **options)
        except TypeError as error:
            other = "batch_size" if draws else "n_batches"
            raise ValueError(
                f"feeds.{name}: expected keys of sampler {spec.sampler}, got {error}; try {other}"
            ) from error

    def _check_feeds(self) -> None:
        """Raise ValueError, before anything is trained, for a feed that cannot be made or scored."""
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
        return self.task.build(stage.model.name, example, **stage.model.kwargs).to(self.device)

    # -- stages -------------------------------------------------------------------------------------------------------

    def run(self, reuse: Sequence[RunFolder]) -> dict[str, Any]:
        """Every stage in order, from the folder, from another run's folder, or by training; returns all scores."""
        previous, previous_key = None, None
        earlier = [Earlier.read(self.files), *Earlier.of_others(reuse)]  # before this run writes anything there
        fingerprints = {name: dataset.fingerprint for name, dataset in self.datasets.items()}
        for number, name in enumerate(self.manifest.stage_order):
            stage = self.manifest.stage(name)
            key = stages.key_of(self.manifest, name, previous=previous_key, data=fingerprints, device=self.device)
            self.model = self.build(stage)
            masked = False
            if previous is not None and not stage.reset:
                masked = stages.inherit(self.model, previous, threshold=self.manifest.threshold)
            if not any(self._take_over(found, number, name, key) for found in earlier):
                self._train_and_score(stage, key, number, masked)
                self._save()
            previous, previous_key = self.model, key
        self._save()
        return self.scores()

    def _take_over(self, other: Earlier, number: int, name: str, key: str) -> bool:
        """Load a stage that `other` has finished under the same key; False if it has not."""
        found = other.take_over(self.files, number, name, key)
        if found is None:
            return False
        self.model.load_state_dict(found.snapshot["model"])
        self.optimizer_state = found.snapshot["optimizer"]
        self.history += found.history
        self.stage_scores[name] = found.result
        return True

    def _train_and_score(self, stage: Stage, key: str, number: int, masked: bool) -> None:
        began = time.time()
        start = {name: self.score(name) for name in self.manifest.scorers} if masked else {}
        optimizer = self._optimizer(stage)
        n_epochs, stopped = self._train(stage, optimizer)
        self.optimizer_state = named_state(self.model, optimizer)
        ends = {name: self.score(name) for name in self.manifest.scorers}
        snapshot = {"schema": 1, "key": key, "stage": stage.name, "model": self.model.state_dict()}
        atomic.write_tensors(self.files.snapshot(number, stage.name), snapshot | {"optimizer": self.optimizer_state})
        self.stage_scores[stage.name] = {
            "key": key,
            "epochs": n_epochs,
            "stopped_early": stopped,
            "seconds": time.time() - began,
            "reused_from": None,
            **stages.counts(self.model, self.manifest.threshold),
            "scores": {name: {"start": start.get(name), "end": end} for name, end in ends.items()},
        }

    def _optimizer(self, stage: Stage) -> torch.optim.Optimizer:
        """The stage's optimiser, going on from the state of the stage before unless it is to start afresh."""
        spec = stage.optimizer
        optimizer = make_optimizer(self.model, spec.name, lr=spec.lr, lr_log_sigma2=spec.lr_log_sigma2, **spec.kwargs)
        if not stage.restart:
            load_named_state(self.model, optimizer, self.optimizer_state)
        return optimizer

    def _train(self, stage: Stage, optimizer: torch.optim.Optimizer) -> tuple[int, bool]:
        """Train until the last epoch or an early stop; returns the epochs trained and whether it stopped early."""
        watch, n_epochs = Watch(stage.early, self.model, self.average_precision), 0
        generator = torch.Generator(self.device).manual_seed(stages.seed_of(self.manifest, stage.name, "windows"))
        torch.manual_seed(stages.seed_of(self.manifest, stage.name, "noise"))
        feed = self.feed(stage.feed, generator)
        objective = Objective(self.manifest.objective_terms, stage.objective)
        factor = make_schedule(stage.lr_scheduler, stage.n_epochs)
        cplx.compile_kernels(bool(objective.penalties) and stage.n_epochs * len(feed) >= COMPILE_FROM)
        with bar(total=stage.n_epochs * len(feed), desc=stage.name, unit="batch", disable=not self.progress) as shown:
            for epoch in range(stage.n_epochs):
                began, score = time.time(), watch.score()
                if watch.stopped:
                    break
                rate, batches = set_rate(optimizer, factor(epoch)), ticking(shown, feed)
                means = train_epoch(self.model, batches, self.inputs, objective, optimizer, grad_clip=stage.grad_clip)
                line = {"stage": stage.name, "epoch": epoch, **means._asdict(), "lr": rate, "validation": score}
                line |= {} if objective.penalties else {"kl": None}
                self._log(line | {"seconds": time.time() - began}, n_epochs=stage.n_epochs)
                shown.set_postfix({"loss": f"{means.loss:.4f}"} | ({"AP": f"{score:.3f}"} if score is not None else {}))
                n_epochs = epoch + 1
        watch.restore_best()
        return n_epochs, watch.stopped

    def _log(self, line: dict[str, Any], *, n_epochs: int) -> None:
        """Take an epoch into history.jsonl and status.json."""
        self.history.append(line)
        self.files.write_history(self.history)
        self.files.update(stage=line["stage"], epoch=line["epoch"] + 1, n_epochs=n_epochs)

    # -- scores -------------------------------------------------------------------------------------------------------

    def average_precision(self, scorer: str) -> float:
        """Pooled average precision of the network as it is; Diverged if an output is not finite."""
        target, logit = self._predict(self.feed(self.manifest.scorers[scorer].feed))
        return self.task.pooled_average_precision(target, logit)

    def score(self, scorer: str) -> dict[str, Any]:
        """Every score of the network as it is, for scores.json."""
        spec = self.manifest.scorers[scorer]
        feed = self.feed(spec.feed)
        target, logit = self._predict(feed, f"{scorer} scores")
        return self.task.score_dataset(target, logit, feed.dataset, curves=spec.curves)

    def _predict(self, feed: Any, label: str | None = None) -> tuple[Tensor, Tensor]:
        if label is None:
            target, logit = predict(self.model, feed, self.inputs)
        else:
            with bar(total=len(feed), desc=label, unit="batch", leave=False, disable=not self.progress) as shown:
                target, logit = predict(self.model, ticking(shown, feed), self.inputs)
        if not torch.isfinite(logit).all():
            raise Diverged("the network's output is NaN or infinite; try a lower learning rate")
        return target, logit

    def scores(self) -> dict[str, Any]:
        """What scores.json holds so far."""
        return {
            "schema": 1,
            "name": self.manifest.name,
            "seed": self.manifest.seed,
            "manifest": self.manifest.to_dict(),
            "stages": self.stage_scores,
        }

    def _save(self) -> None:
        self.files.write_history(self.history)
        self.files.write_scores(self.scores())
        finished = {name: {key: done[key] for key in ("key", "seconds")} for name, done in self.stage_scores.items()}
        self.files.update(stages=finished)
