"""The stages of one run, one after another, from open data to scores."""

import contextlib
import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from cplxnet.auto.manifest.read import Manifest, Stage
from cplxnet.auto.progress import bar, ticking
from cplxnet.auto.train.early_stopping import Watch
from cplxnet.auto.train.loop import Diverged, predict, train_epoch
from cplxnet.auto.train.objective import Objective
from cplxnet.auto.train.state import Training

from . import lock, stages
from .checkpoint import Checkpoints
from .components import Materials
from .folder import RunFolder
from .reuse import Earlier, finished_elsewhere

LOOK_EVERY_S = 0.5  # at a stage that another run is training


class Session:
    """The state of one run between its stages: the network, the optimiser's state, the scores.

    check: called at every batch; what it raises ends the run.
    """

    model: nn.Module  # of the stage at hand

    def __init__(
        self,
        manifest: Manifest,
        files: RunFolder,
        *,
        device: str,
        data: Path,
        progress: bool,
        check: Callable[[], None] = lambda: None,
        timeout_s: float = lock.TIMEOUT_S,
    ) -> None:
        self.manifest, self.files, self.device, self.progress = manifest, files, device, progress
        self.check, self.timeout_s = check, timeout_s
        self.materials = Materials(manifest, device=device, data=data)
        self.task, self.feed = self.materials.task, self.materials.feed
        self.checkpoints = Checkpoints(files)
        self.optimizer_state: dict[str, Any] = {}
        self.history: list[dict[str, Any]] = []
        self.stage_scores: dict[str, Any] = {}

    # -- stages -------------------------------------------------------------------------------------------------------

    def run(self, reuse: Sequence[RunFolder]) -> dict[str, Any]:
        """Every stage in order, from the folder, from another run's folder, or by training; returns all scores."""
        previous, previous_key, saved = None, None, False
        own = Earlier.read(self.files)  # before this run writes anything there
        fingerprints = self.materials.fingerprints
        for number, name in enumerate(self.manifest.stage_order):
            stage = self.manifest.stage(name)
            key = stages.key_of(
                self.manifest, name, previous=previous_key, data=fingerprints, device=self.device
            )
            self.model = self.materials.build(stage)
            masked = False
            if previous is not None and not stage.reset:
                masked = stages.inherit(self.model, previous, threshold=self.manifest.threshold)
            saved = not self._take_over([own], number, name, key)
            if saved:
                self._obtain(stage, key, number, masked, reuse)
            previous, previous_key = self.model, key
        if not saved:
            self._save()
        return self.scores()

    def _obtain(
        self, stage: Stage, key: str, number: int, masked: bool, reuse: Sequence[RunFolder]
    ) -> None:
        """The stage from another run or trained here, and saved; one that another run is training is waited for."""
        while not self._take_over(
            finished_elsewhere(reuse, stage.name, key), number, stage.name, key
        ):
            try:
                held = (
                    lock.hold(self.files.path.parent / ".claims" / key[:32], self.timeout_s)
                    if reuse
                    else None
                )
            except lock.Held:
                self.check()
                time.sleep(LOOK_EVERY_S)
                continue
            with held or contextlib.nullcontext():
                others = finished_elsewhere(reuse, stage.name, key) if held else []
                if not self._take_over(others, number, stage.name, key):
                    self._train_and_score(stage, key, number, masked)
                self._save()  # before others may have the stage's claim
                if held:
                    held.finish()
            break
        else:
            self._save()
        self.checkpoints.clear()

    def _take_over(self, found: Sequence[Earlier], number: int, name: str, key: str) -> bool:
        """Load a stage that one of `found` has finished under the same key; False if none has."""
        goes_on = stages.optimizer_goes_on(self.manifest, name)
        for earlier in found:
            stage = earlier.take_over(self.files, number, name, key, optimizer=goes_on)
            if stage is not None:
                self.model.load_state_dict(stage.snapshot["model"])
                self.optimizer_state = stage.snapshot["optimizer"] or {}
                self.history += stage.history
                self.stage_scores[name] = stage.result
                return True
        return False

    def _train_and_score(self, stage: Stage, key: str, number: int, masked: bool) -> None:
        began, goes_on = time.time(), stages.optimizer_goes_on(self.manifest, stage.name)
        checkpoint = self.checkpoints.latest(key, optimizer=goes_on)
        if checkpoint is not None:
            start = json.loads(checkpoint["start"])
        else:
            start = {name: self.score(name) for name in self.manifest.scorers} if masked else {}
        training = self._training(stage, checkpoint)
        began -= training.seconds
        try:
            restored = self._train(training, key, start, began)
            ends = {
                name: self.score(name) for name in self.manifest.scorers
            }  # while the last checkpoint is written
        except BaseException:
            with contextlib.suppress(OSError):  # one error is on its way already
                self.checkpoints.wait()
            raise
        self.checkpoints.wait()
        self.optimizer_state = training.optimizer_state()
        path, last = self.files.snapshot(number, stage.name), len(self.history)
        if (
            restored or not training.n_epochs or (training.watch.stopped and not goes_on)
        ):  # no checkpoint is as wanted
            self.checkpoints.write(path, last, self._state(training, key, start, ended=True))
        else:
            self.checkpoints.keep(path, last)
        self.stage_scores[stage.name] = {
            "key": key,
            "epochs": training.n_epochs,
            "stopped_early": training.watch.stopped,
            "seconds": time.time() - began,
            "reused_from": None,
            **stages.counts(self.model, self.manifest.threshold),
            "scores": {name: {"start": start.get(name), "end": end} for name, end in ends.items()},
        }

    def _training(self, stage: Stage, checkpoint: dict[str, Any] | None) -> Training:
        """The stage's training at its start, or where the checkpoint was taken."""
        watch = Watch(stage.early, self.model, self.average_precision)
        seeds = {
            purpose: stages.seed_of(self.manifest, stage.name, purpose)
            for purpose in ("windows", "noise")
        }
        training = Training(stage, self.model, watch, device=self.device, seeds=seeds)
        if checkpoint is not None:
            training.load(checkpoint)
            self.history += training.history
        elif not stage.restart:
            training.inherit(self.optimizer_state)
        return training

    def _train(self, training: Training, key: str, start: dict[str, Any], began: float) -> bool:
        """Train until the last epoch or an early stop, with a checkpoint after every epoch.

        Returns whether the network went back to weights from before its last epoch.
        """
        stage, watch = training.stage, training.watch
        feed = self.feed(stage.feed, training.windows)
        objective = Objective(self.manifest.objective_terms, stage.objective)
        n_batches, done = stage.n_epochs * len(feed), training.n_epochs * len(feed)
        with bar(
            total=n_batches, initial=done, desc=stage.name, unit="batch", disable=not self.progress
        ) as shown:
            for epoch in range(training.n_epochs, stage.n_epochs):
                at, score = time.time(), watch.score()
                if watch.stopped:
                    break
                rate, batches = training.set_rate(), ticking(shown, feed, self.check)
                means = train_epoch(
                    self.model,
                    batches,
                    self.materials.inputs,
                    objective,
                    training.optimizer,
                    grad_clip=stage.grad_clip,
                )
                line = {
                    "stage": stage.name,
                    "epoch": epoch,
                    **means._asdict(),
                    "lr": rate,
                    "validation": score,
                }
                line |= {} if objective.penalties else {"kl": None}
                line["seconds"] = time.time() - at
                training.n_epochs, training.seconds = epoch + 1, time.time() - began
                training.history.append(line)
                self._log(line, n_epochs=stage.n_epochs)
                ended = training.n_epochs == stage.n_epochs
                self.checkpoints.save(
                    len(self.history), self._state(training, key, start, ended=ended)
                )
                shown.set_postfix(
                    {"loss": f"{means.loss:.4f}"}
                    | ({"AP": f"{score:.3f}"} if score is not None else {})
                )
        return watch.restore_best()

    def _state(
        self, training: Training, key: str, start: dict[str, Any], *, ended: bool
    ) -> dict[str, Any]:
        """What a checkpoint holds, and a stage's snapshot: key, the scores at its start (JSON), the training's state.

        Of a stage that has ended, the optimiser's state only where the next one goes on with it.
        """
        optimizer = not ended or stages.optimizer_goes_on(self.manifest, training.stage.name)
        return training.state(optimizer=optimizer) | {"key": key, "start": json.dumps(start)}

    def _log(self, line: dict[str, Any], *, n_epochs: int) -> None:
        """Take an epoch into history.jsonl and status.json."""
        self.history.append(line)
        self.files.write_history(self.history)
        stage, epoch, order = line["stage"], line["epoch"] + 1, self.manifest.stage_order
        later = [self.manifest.stage(name).n_epochs for name in order[order.index(stage) + 1 :]]
        left_s = line["seconds"] * (n_epochs - epoch + sum(later))  # at the pace of this epoch
        known = {} if line["validation"] is None else {"validation": line["validation"]}
        self.files.update(stage=stage, epoch=epoch, n_epochs=n_epochs, left_s=left_s, **known)

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
        silent = label is None or not self.progress
        with bar(total=len(feed), desc=label, unit="batch", leave=False, disable=silent) as shown:
            target, logit = predict(
                self.model, ticking(shown, feed, self.check), self.materials.inputs
            )
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
        finished = {
            name: {key: done[key] for key in ("key", "seconds")}
            for name, done in self.stage_scores.items()
        }
        self.files.update(stages=finished, **self._last_epoch())

    def _last_epoch(self) -> dict[str, Any]:
        """Where the run is by its history, for the status: also where it took over all of it and trained nothing."""
        if not self.history:
            return {}
        last = self.history[-1]
        scored = [line["validation"] for line in self.history if line["validation"] is not None]
        where = {"stage": last["stage"], "epoch": last["epoch"] + 1, "left_s": None}
        where |= {"n_epochs": self.manifest.stage(last["stage"]).n_epochs}
        return where | ({"validation": scored[-1]} if scored else {})
