"""The stages of one run in turn: taken from its folder, from another run's, or trained here."""

import contextlib
import json
import time
import weakref
from collections.abc import Iterator, Sequence
from dataclasses import KW_ONLY, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from cplxnet import files
from cplxnet import nn as cplx
from cplxnet.auto.manifest.read import Manifest, Stage
from cplxnet.auto.train.graph import Cuda
from cplxnet.auto.train.loop import Diverged, predict, train_stage
from cplxnet.auto.train.objective import Distillation, Objective
from cplxnet.auto.train.pruning import Pruning
from cplxnet.auto.train.state import Batch, Feed, Training
from cplxnet.progress import bar, say

from . import checkpoint, lock, stages
from .components import Components
from .folder import RunFolder
from .stop import Stop

LOOK_EVERY_S = 0.5  # at a stage that another run is training


@dataclass(eq=False)
class Trainer:
    """What passes from stage to stage in one run: network, optimiser state, history, scores."""

    manifest: Manifest  # with every default written out
    folder: RunFolder  # of the run, which this process may write
    components: Components  # the manifest's datasets, feeds and networks
    _: KW_ONLY
    claim: lock.Claim  # on the folder; its timeout holds for claims on shared stages too
    stop: Stop  # a request to stop, heeded once an epoch is done and saved
    progress: bool  # show bars

    def __post_init__(self) -> None:
        device = self.components.device
        every_s = checkpoint.checkpoint_every_s(device)
        self.checkpoints = checkpoint.Checkpoints(
            self.folder, every_s=every_s, cuda=Cuda.of(device)
        )
        self.training: Training  # of the stage at hand
        self.networks: dict[str, nn.Module] = {}  # of the stages that later ones look at
        self.optimizer_state: dict[str, Any] = {}
        self.history: list[dict[str, Any]] = []  # of the stages that have ended
        self.results: dict[str, Any] = {}  # stage -> its entry in scores.json

    def run(self, others: Sequence[RunFolder]) -> dict[str, Any]:
        """Every stage in order; returns what scores.json holds then.

        A stage that one of the `others` has finished is taken from that run's folder.
        """
        before = (self.folder.scores or {}).get("stages", {})  # read before this run writes any
        plan = list(
            stages.planned(
                self.manifest, data=self.components.fingerprints, device=self.components.device
            )
        )
        looked_at = {stage.distill.teacher for stage, _ in plan if stage.distill}
        looked_at |= {stage.pruner.like for stage, _ in plan if stage.pruner and stage.pruner.like}
        previous: nn.Module | None = None

        for stage, shared in plan:
            # the network, with the weights and masks of the stage before
            model = self.components.build(stage)
            masked = False
            if previous is not None and not stage.reset:
                masked = stages.inherit(
                    model,
                    previous,
                    threshold=self.manifest.threshold,
                    posteriors=stage.log_sigma2 is None,
                )
            previous = model
            pruning = None
            if stage.pruner is not None:
                like = stage.pruner.like
                pruning = Pruning(
                    stage.pruner,
                    model,
                    like=None if like is None else self.networks[like],
                    threshold=self.manifest.threshold,
                    seed=stages.seed_of(self.manifest, stage.name, "masks"),
                )
                pruning.start()
                masked = masked or stage.pruner.name != "gradual"
            if stage.name in looked_at:
                self.networks[stage.name] = model
            self.training = self._training(stage, shared, model, pruning)

            # finished before, in this folder?
            if self._take_own(shared, before.get(stage.name, {})):
                continue

            # finished in another run's folder, or trained here
            with self._claimed(shared, others) as to_train:
                if to_train:
                    self._go_on(masked)
                    with self.checkpoints.writing():
                        restored = train_stage(
                            self.training,
                            self.components.feed(stage.feed, self.training.windows),
                            self._objective(stage),
                            check=self._check,
                            log=self._log,
                            save=self._checkpoint,
                            progress=self.progress,
                        )
                        ends = self._scores()  # while the last checkpoint is written
                    self._end(shared, ends, restored)
                self._save()  # before another run may have the claim on the stage
            self.checkpoints.clear()

        scores = self._save()
        # left by processes that died between a stage's snapshot and these lines
        self.checkpoints.clear()
        for _, shared in plan:
            lock.clear(_claim_on(shared, self.folder))
        return scores

    def _check(self) -> None:
        """Before a batch: raise ClaimLost, or Interrupted once the deadline of a stop has come."""
        self.claim.check()
        if self.stop.left_s == 0:
            self.stop.heed()

    # -- stages that are finished ------------------------------------------------------------------

    def _take_own(self, shared: stages.Shared, result: dict[str, Any]) -> bool:
        """Take the stage in as this run has finished it before; False if it has not.

        It is scored again if its scores are lost. `result` is its entry in scores.json, perhaps of
        another manifest or none.
        """
        try:
            snapshot = stages.read_snapshot(self.folder, shared)
        except ValueError as error:
            self.folder.set_aside(self.folder.snapshot(shared.number, shared.name), error)
            return False
        if snapshot is None:
            return False

        if result.get("key") != shared.key:
            if "n_epochs" not in snapshot:  # of before 2026-11-23
                return False
            result = self._scored_again(snapshot)
        self._take(snapshot, result)
        return True

    def _scored_again(self, snapshot: dict[str, Any]) -> dict[str, Any]:
        """A stage's entry in scores.json, lost there, from its snapshot."""
        training = self.training
        stage = training.stage
        self.folder.note(f"{stage.name} has its snapshot and no scores: it is scored again")
        training.load(snapshot)
        ends = self._scores()

        # the score of its last weights is not known any more where the best may have come back
        restored = stage.early is not None and stage.early.restore_best
        training.early.stopped = training.n_epochs < stage.n_epochs
        if stage.early is not None and not restored:
            training.early.last = ends[stage.early.scorer]["average_precision"]
        return self._result(ends, restored)

    def _take(self, snapshot: dict[str, Any], result: dict[str, Any]) -> None:
        """Take a finished stage in."""
        self.training.model.load_state_dict(snapshot["model"])
        self.optimizer_state = snapshot["optimizer"] or {}
        self._keep(json.loads(snapshot["history"]), result)

    def _keep(self, history: list[dict[str, Any]], result: dict[str, Any]) -> None:
        """Take in what a stage that has ended leaves for the files of the run."""
        after = result.get("validation_after", result.get("stopped_at"))
        if history and after is not None:
            history = [*history[:-1], history[-1] | {"validation_after": after}]
        self.history += history
        self.results[self.training.stage.name] = result

    @contextlib.contextmanager
    def _claimed(self, shared: stages.Shared, others: Sequence[RunFolder]) -> Iterator[bool]:
        """Give the block True if it has to train the stage, False if another run has finished it.

        Waits while another run trains it. Where stages are shared, the block has a claim on the
        stage, so that no other run of its grid trains it too. In other grids (of an edited run's
        original, or of a run's edits) nothing is claimed, but their claims are waited for.
        """
        if not others:
            yield True
            return

        def take_from_others() -> bool:
            finished = stages.from_others(others, self.folder, shared)
            if finished is not None:
                self._take(*finished)
            return finished is not None

        place = _claim_on(shared, self.folder)
        elsewhere = {_claim_on(shared, other) for other in others} - {place}
        while not take_from_others():
            try:
                for claimed in elsewhere:
                    lock.refuse_held(claimed)
                claim = lock.hold(place, self.claim.timeout_s)
            except lock.Held:
                self.claim.check()
                self.stop.heed()
                time.sleep(LOOK_EVERY_S)
                continue

            with claim:
                files.sweep(place.parent, place.name)
                # another run may have finished it just before
                yield not take_from_others()
                claim.finish()
            return
        yield False

    # -- a stage that is trained -------------------------------------------------------------------

    def _training(
        self, stage: Stage, shared: stages.Shared, model: nn.Module, pruning: Pruning | None
    ) -> Training:
        """The stage's training at its start."""
        # it is the trainer's own: a circle would keep data and networks beyond the run's end
        trainer = weakref.proxy(self)
        return Training(
            stage,
            model,
            lambda scorer: trainer.average_precision(scorer),
            device=torch.device(self.components.device),
            seeds={
                purpose: stages.seed_of(self.manifest, stage.name, purpose)
                for purpose in ("windows", "noise")
            },
            key=shared.key,
            goes_on=shared.goes_on,
            threshold=self.manifest.threshold,
            watched=next(
                (one.early.scorer for one in self.manifest.all_stages() if one.early), None
            ),
            cuda_graph=self.manifest.cuda_graph,
            shrunk=cplx.Shrunk(model) if stage.shrink else None,
            pruning=pruning,
        )

    def _go_on(self, masked: bool) -> None:
        """Bring a stage's training to its newest checkpoint, or to what the stage before left."""
        training = self.training
        state = self.checkpoints.latest(training.key, optimizer=training.goes_on)
        if state is not None:
            training.load(state)
            return

        training.began = time.time()  # after waiting for other runs
        if not training.stage.restart:
            training.inherit(self.optimizer_state)
        if masked:
            training.start = self._scores()

    def _objective(self, stage: Stage) -> Objective:
        distillation = None
        if stage.distill is not None:
            distillation = Distillation(self.networks[stage.distill.teacher], stage.distill)
        return Objective(
            self.manifest.objective_terms,
            stage.objective,
            kl_channels=stage.kl_channels,
            distillation=distillation,
            device=self.components.device,
        )

    def _n_epochs(self) -> int:
        """Epochs done over all stages."""
        return sum(result["epochs"] for result in self.results.values()) + self.training.n_epochs

    def _checkpoint(self) -> None:
        ended = self.training.n_epochs == self.training.stage.n_epochs
        asked = self.stop.asked  # once: an end asked for while it saves comes after the next epoch
        state = self.training.state(ended=ended)
        self.checkpoints.save(self._n_epochs(), state, last=ended or asked)
        if asked:
            self.stop.heed()

    def _log(self, line: dict[str, Any]) -> None:
        """Take an epoch into history.jsonl and status.json."""
        history = self.history + self.training.history
        self.folder.write_history(history)

        stages_left = (s for s in self.manifest.all_stages() if s.name not in self.results)
        n_left = sum(stage.n_epochs for stage in stages_left) - self.training.n_epochs
        left_s = line["seconds"] * n_left  # at the pace of this epoch
        self.folder.update(**self._position(history, left_s))

    def _end(self, shared: stages.Shared, ends: dict[str, Any], restored: bool) -> None:
        """Keep a stage that has just been trained: its snapshot, its scores, its history."""
        training = self.training
        early = training.early
        self.optimizer_state = training.optimizer_state()

        # the last checkpoint of a stage that stopped early has an optimiser state that the snapshot
        # may leave out
        self.checkpoints.end(
            self.folder.snapshot(shared.number, shared.name),
            self._n_epochs(),
            training.state(ended=True),
            changed=restored or (early.stopped and not training.goes_on),
        )

        result = self._result(ends, restored)
        if self.progress and not early.stopped and result.get("validation_after") is not None:
            after = result["validation_after"]
            say(f"{shared.name}: AP {after:.3f} after the last epoch")
        self._keep(training.history, result)

    def _result(self, ends: dict[str, Any], restored: bool) -> dict[str, Any]:
        """A stage's entry in scores.json; restored: its best weights came back at its end."""
        training = self.training
        early = training.early
        result = {
            "key": training.key,
            "epochs": training.n_epochs,
            "stopped_early": early.stopped,
            "seconds": time.time() - training.began,
            "reused_from": None,
            **stages.counts(training.model, self.manifest.threshold),
            "scores": {
                name: {"start": training.start.get(name), "end": end} for name, end in ends.items()
            },
        }
        if early.stopped:
            result["stopped_at"] = early.last
        if training.watched is not None and training.n_epochs:
            # with the last weights, where the best have come back since
            last = early.stopped or restored
            end = ends[training.watched]["average_precision"]
            result["validation_after"] = early.last if last else end
        return result

    # -- scores ------------------------------------------------------------------------------------

    def average_precision(self, scorer: str) -> float:
        """Pooled average precision of the network as it is; Diverged if an output is not finite."""
        target, logit = self._predict(self.components.feed(self.manifest.scorers[scorer].feed))
        return self.components.task.pooled_average_precision(target, logit)

    def _scores(self) -> dict[str, Any]:
        """Every score of the network as it is, by scorer, for scores.json."""
        scores = {}
        for name, scorer in self.manifest.scorers.items():
            feed = self.components.feed(scorer.feed)
            target, logit = self._predict(feed, f"{name} scores")
            scores[name] = self.components.task.score_dataset(
                target, logit, feed.sampler.dataset, curves=scorer.curves
            )
        return scores

    def _predict(self, feed: Feed, label: str | None = None) -> tuple[Tensor, Tensor]:
        if self.training.shrunk is not None:
            self.training.shrunk.refresh()

        silent = label is None or not self.progress
        with bar(total=len(feed), desc=label, leave=False, disable=silent) as shown:

            def batches() -> Iterator[Batch]:
                for batch in feed:
                    self._check()
                    yield batch
                    shown.update()

            target, logit = predict(self.training.network, batches())

        if not torch.isfinite(logit).all():
            raise Diverged("the network's output is NaN or infinite; try a lower learning rate")
        return target, logit

    def _save(self) -> dict[str, Any]:
        """Write the files of the stages that have ended; returns what scores.json holds."""
        scores = {
            "schema": 1,
            "name": self.manifest.name,
            "seed": self.manifest.seed,
            "manifest": self.manifest.to_dict(),
            "stages": self.results,
        }
        self.folder.write_history(self.history)
        self.folder.write_scores(scores)
        finished = {
            name: {key: result[key] for key in ("key", "seconds")}
            for name, result in self.results.items()
        }
        self.folder.update(stages=finished, **self._position(self.history))
        return scores

    def _position(
        self, history: list[dict[str, Any]], left_s: float | None = None
    ) -> dict[str, Any]:
        """Where the run is by its history, for its status: also if it took over all its stages."""
        if not history:
            return {}

        last = history[-1]
        position = {
            "stage": last["stage"],
            "epoch": last["epoch"] + 1,
            "n_epochs": self.manifest.stage(last["stage"]).n_epochs,
            "left_s": left_s,
        }
        lines = (line.get("validation_after", line["validation"]) for line in history)
        scores = [score for score in lines if score is not None]
        return position | ({"validation": scores[-1]} if scores else {})


def _claim_on(shared: stages.Shared, folder: RunFolder) -> Path:
    """Where a claim on a stage that runs share is, in the folder of a run's grid."""
    return folder.path.parent.resolve() / ".claims" / shared.key[:32]
