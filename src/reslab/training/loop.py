"""The training loop: epochs are logged and saved, and the final weights are written.

The test split is never read here. Epochs and updates count from 0 in code; epochs count from 1 in the log.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from math import isfinite

import torch
import torch.nn.functional as F
from torch import Tensor

from reslab import models
from reslab.data.batches import Batches, seeded, standardize
from reslab.data.images import ImageSet
from reslab.errors import Failure, Stopped, UserError
from reslab.machine.memory import keep_freed_memory
from reslab.machine.signals import StopRequest, listen_for_stop
from reslab.measure.shortfall import describe_shortfall, find_kept
from reslab.models.layers import ImageClassifier
from reslab.network.finishing import Finished, finish
from reslab.network.inference import place_on, predict_logits
from reslab.network.network import Network, describe_weights
from reslab.pretrained import standardize_for, start_from
from reslab.recipe.recipe import LinearHead, Standardize
from reslab.records import Epoch, Progress
from reslab.runs import Checkpoint, Run
from reslab.training.begin import Begun
from reslab.training.compiling import Work, compiling, settle_compiled
from reslab.training.distributed import LOST, is_lost
from reslab.training.freezing import check_freezing, freeze, freeze_norms
from reslab.training.graphs import Updater, make_updater
from reslab.training.objective import Forward, make_objective
from reslab.training.optim import describe_layers, make_optimizer, rate_at
from reslab.training.progress import Display, warn
from reslab.training.safety import EVERY_EPOCH, LOWERED, Clock, Safety
from reslab.training.seen import leave_out_seen
from reslab.training.starting import take_start
from reslab.training.state import State, capture, restore
from reslab.training.statistics import BATCH_SIZE, NUM_IMAGES, check_norms, renew_statistics
from reslab.training.step import make_forward
from reslab.words import counted

NUM_LOOKED = 512  # training images on which the finished network is checked
IMAGES_TO_PREPARE = 5000  # for whitened patches
UPDATES_BETWEEN_CHECKS = {"cpu": 1, "cuda": 50}  # reading a loss makes a GPU wait
SECONDS_BETWEEN_BEATS = 5.0


@dataclass(frozen=True)
class _Length:
    """Length of a run: updates per epoch, total updates, total epochs."""

    per_epoch: int
    updates: int
    epochs: int


@dataclass(frozen=True)
class Start:
    """A network to start from, and the teacher to distil from, if any."""

    model: ImageClassifier
    teacher: ImageClassifier | None = None


class _NotFinite(Exception):  # noqa: N818 - handled here, never seen
    """Signals that a loss or a weight is not finite; the message says where."""


class Trainer:
    """A run in progress: its data, state and epochs."""

    def __init__(
        self,
        begun: Begun,
        *,
        silent: bool,
        start: Start | None = None,
        safety: Safety = EVERY_EPOCH,
    ) -> None:
        keep_freed_memory()
        self.run, splits, self.seed, self.team = begun
        self.recipe, self.device = self.run.recipe, self.team.device
        self.images = splits[0]
        self.held_out, self.notes = self._find_unseen(splits[1] if len(splits) > 1 else None)
        self.by: Standardize = self.recipe.standardize or self._find_standardize()
        self.batches = Batches(
            self.images,
            recipe=self.recipe,
            by=self.by,
            seed=self.seed,
            device=self.device,
            rank=self.team.rank,
            num_ranks=self.team.size,
        )
        per_epoch = len(self.batches)
        updates = self.recipe.count_updates(per_epoch)
        self.length = _Length(per_epoch, updates, -(-updates // per_epoch))
        self.is_late = False
        self.state = self._begin(start)
        if self.state.updates == 0:  # older versions began such runs
            check_norms(self.state.model, self.recipe, fewest_images=min(self.batches.sizes))
        self.trained = [parameter for parameter in self.state.model.parameters() if parameter.requires_grad]
        self.epoch_start = capture(self.state)
        self.clock, self.stop = Clock(safety), StopRequest()
        self.beaten = 0.0
        self.precision = self.team.from_first(lambda: self.run.environment.newest.multiplied)
        self.objective = make_objective(
            self.recipe, images=self.images, teacher=self._make_teacher(start), device=self.device
        )
        self.display = Display(total_updates=updates, total_epochs=self.length.epochs, silent=silent)
        largest = max(self.batches.sizes)
        self.micro_batch_size = min(self.recipe.micro_batch_size or largest, largest)
        batch = (self.micro_batch_size, *self.images.images.shape[1:])
        chunks = -(-largest // self.micro_batch_size)
        work = Work(updates * chunks, batch, self.batches.count_shapes(), self.precision)
        self.compiled = self.team.from_first(
            lambda: settle_compiled(self.run, self.state.model, work=work, say=self.display.say)
        )
        self.expected, self.forward = [True for _ in self.trained], self._make_forward()
        self.update = self._make_updater()

    def _begin(self, start: Start | None) -> State:
        if isinstance(self.recipe.optimizer, LinearHead):
            raise UserError("this recipe computes a head without updates: reslab fit makes such runs")
        torch.manual_seed(self.seed)
        model = place_on(start.model if start else self._build(), self.device)
        extension = self.recipe.extension
        return State(
            model=model,
            optimizer=make_optimizer(
                model, settings=self.recipe.optimizer, backbone=extension.backbone_lr if extension else 1.0
            ),
            losses=torch.zeros(self.length.per_epoch, device=self.device),
            hits=torch.zeros(self.length.per_epoch, dtype=torch.int64, device=self.device),
        )

    def _find_unseen(self, held_out: ImageSet | None) -> tuple[ImageSet | None, list[str]]:
        """Return the held-out images that the starting weights have not learned from, and what to say about others."""
        start = self.recipe.start
        if held_out is None or start is None or (unseen := leave_out_seen(held_out, self.run)) is held_out:
            return held_out, []
        if unseen is None:
            return None, [f"not validated: {start.file} has learned from the held-out images"]
        num_seen = len(held_out.labels) - len(unseen.labels)
        return unseen, [
            f"{num_seen:,} of {counted(len(held_out.labels), 'held-out image')} left out of validation, since "
            f"{start.file} has learned from them"
        ]

    def _find_standardize(self) -> Standardize:
        """Return what pretrained weights expect, else the statistics of the training images."""
        if self.recipe.pretrained is not None:
            return standardize_for(self.images.images.shape[1])
        return self.team.measure(self.images)

    def _make_forward(self) -> Forward:
        network = self.team.wrap(self.state.model)
        return make_forward(network, device=self.device, precision=self.precision, compiled=self.compiled)

    def _make_teacher(self, start: Start | None) -> Forward | None:
        if start is None or start.teacher is None:
            return None
        return make_forward(start.teacher.to(self.device).eval(), device=self.device, precision=self.precision)

    def _build(self) -> ImageClassifier:
        sizes = {"num_classes": len(self.images.classes), "channels": self.images.images.shape[1]}
        if self.recipe.pretrained is not None:
            return start_from(self.recipe.pretrained, self.recipe.model, **sizes)
        model = models.build(self.recipe.model, **sizes)
        if self.team.is_first:  # all processes start with its weights
            if model.is_prepared:
                order = torch.randperm(len(self.images.labels), generator=seeded(self.seed, "prepare"))
                model.prepare(standardize(self.images.images[order[:IMAGES_TO_PREPARE]], by=self.by))
            if self.recipe.start is not None:
                self.notes.insert(0, take_start(model, self.run, self.recipe.start))
        return model

    def _make_updater(self) -> Updater:
        alone = self.team.size == 1
        return make_updater(
            self.forward, self.state.optimizer, objective=self.objective, device=self.device, alone=alone
        )

    def catch_up(self) -> "Trainer":
        """Restore the newest checkpoint, if there is one."""
        newest = self.team.from_first(lambda: self.run.read_checkpoint() if self.run.has_checkpoint else None)
        if newest is not None:
            restore(self.state, newest)
            self.update = self._make_updater()
        self.run.cut_log(self.state.epochs)
        return self

    def train(self) -> Run:
        """Run the remaining epochs, then write the weights."""
        self.run_epochs()
        self.write_weights()
        return self.run

    def run_epochs(self) -> None:
        """Run the remaining epochs, then keep the weights of the last one, or of the best with early stopping.

        Raises: UserError if the recipe freezes everything or unknown parameters.
        """
        for note in self.notes if self.state.updates == 0 else ():
            self.display.say(note)
        if line := describe_layers(self.state.model, self.recipe.optimizer):
            self.display.say(line)
        check_freezing(self.state.model, self.recipe.freeze, epochs=self.length.epochs)
        shown = self.display.shown(updates=self.state.updates)
        with compiling(self.compiled), listen_for_stop() as self.stop, shown:
            while not self._is_over():
                with self._rescue():
                    self._run_epoch()
        if self.state.best_epoch is not None:
            self.state.model.load_state_dict(self.state.best)
            self.display.say(f"kept the weights of epoch {self.state.best_epoch}, the best on the validation images")

    def _is_over(self) -> bool:
        """Return whether all epochs are done, time has run out, or early stopping has run out of patience."""
        state, stopping = self.state, self.recipe.early_stopping
        was_late = state.updates < state.epochs * self.length.per_epoch  # before it was resumed
        if self.is_late or was_late:
            return True
        if stopping is not None and stopping.patience is not None and state.best_epoch is not None:
            return state.epochs >= min(self.length.epochs, state.best_epoch + stopping.patience)
        return state.epochs >= self.length.epochs

    def write_weights(self) -> None:
        """Finish the network in its current state and write it, which finishes the run."""
        if self.is_late and self.state.updates < self.length.updates:
            self.display.say(
                f"time ran out after {self.state.updates:,} of {self.length.updates:,} updates, before the "
                "learning rate has fallen: allow more minutes"
            )
        network = Network(self.state.model, describe_weights(self.recipe, self.images, by=self.by))
        finished = self._finish(network)
        self.display.say(finished.note)
        self.run.write_weights(finished.network.to_bytes())
        self._warn_of_shortfall(finished.network)

    def _finish(self, network: Network) -> Finished:
        if self.recipe.start is not None and self.recipe.validation and self.held_out is None:
            finished = finish(network, images=self.images, held_out=None)
            return replace(
                finished, note=f"not calibrated: {self.recipe.start.file} has learned from the held-out images"
            )
        return finish(network, images=self.images, held_out=self.held_out, usual=self.recipe.temperature)

    def _warn_of_shortfall(self, network: Network) -> None:
        """Check the finished network on a few training images; warn if its accuracy is far below the logged one."""
        if not self.team.is_first or self.batches.is_streamed:
            return
        some = self.images.subset(
            torch.randperm(len(self.images.labels), generator=seeded(self.seed, "look"))[:NUM_LOOKED]
        )
        hits = network.logits(some.images).argmax(1) == some.labels
        logged, measured = find_kept(self.run.log, self.recipe).train_accuracy, float(hits.float().mean())
        if shortfall := describe_shortfall(logged=logged, measured=measured):
            warn(shortfall, silent=self.display.console.quiet)

    @contextmanager
    def _rescue(self) -> Iterator[None]:
        """If another process is lost, keep the newest complete state, without the update in progress."""
        try:
            yield
        except RuntimeError as error:
            if self.team.size == 1 or not is_lost(error):
                raise
            newest = self._newest_before(self.state.updates)
            if newest is self.epoch_start:
                self.run.write_checkpoint(*newest)
            raise Failure(f"{LOST}; resume with {self.run.resume_command}") from None

    def _run_epoch(self) -> None:
        try:
            self._train_epoch()
            self._close_epoch()
        except _NotFinite as error:
            self._lower_rate(error)

    def _train_epoch(self) -> None:
        state, epoch = self.state, self.state.epochs
        state.model.train()
        if self.recipe.freeze_norms:
            freeze_norms(state.model)
        freeze(state.model, self.recipe.freeze, epoch=epoch)
        are_trained = [parameter.requires_grad for parameter in self.trained]
        if self.team.size > 1 and are_trained != self.expected:  # DDP must expect the right set of gradients
            self.expected, self.forward = are_trained, self._make_forward()
            self.update = self._make_updater()
        began = time.perf_counter() - state.seconds
        start = state.updates - epoch * self.length.per_epoch
        if start == 0:
            self.epoch_start = capture(state)
        for place, batch in enumerate(self.batches.epoch(epoch, start=start), start):
            if state.updates == self.length.updates or self.is_late:
                return
            self.team.reseed(self.seed, state.updates)
            share = self.team.weigh(*batch, of=self.batches.sizes[place])
            chunks = share.chunks(self.micro_batch_size)
            loss, hits = self.update(chunks, rate=self._rate(state.updates), weight=share.part.weight)
            state.losses[place], state.hits[place] = self.team.total(loss, hits, weight=share.part.weight)
            state.updates += 1
            state.seconds = time.perf_counter() - began
            self._check_losses(place)
            num_seen = sum(self.batches.sizes[: place + 1])
            so_far = partial(self._so_far, place, num_seen)
            self.display.update(
                done=state.updates, epoch=epoch, images_per_second=num_seen / state.seconds, so_far=so_far
            )
            self._beat(epoch=epoch, share=(place + 1) / self.length.per_epoch, so_far=so_far)
            self._heed_clock_and_stop()

    def _so_far(self, place: int, num_seen: int) -> tuple[float, float]:
        """Return loss and accuracy over the epoch's updates up to `place`."""
        losses, hits = self.state.losses[: place + 1], self.state.hits[: place + 1]
        sizes = torch.tensor(self.batches.sizes[: place + 1], device=self.device)
        return float((losses * sizes).sum()) / num_seen, int(hits.sum()) / num_seen

    def _beat(self, *, epoch: int, share: float, so_far: Callable[[], tuple[float, float]]) -> None:
        """Write a heartbeat with the progress from time to time, for other programs."""
        now = time.monotonic()
        if self.team.is_first and now - self.beaten >= SECONDS_BETWEEN_BEATS:
            loss, accuracy = so_far()
            if isfinite(loss):  # else the next check of the losses ends the epoch
                self.run.beat(Progress(epoch=epoch + 1, share=share, train_loss=loss, train_accuracy=accuracy))
            self.beaten = now

    def _heed_clock_and_stop(self) -> None:
        """Save if it is time, and stop if any process has been asked to."""
        due = self.clock.is_due(updates=self.state.updates)
        is_due, is_asked, self.is_late = self.team.any(due, self.stop.requested, self.clock.is_over)
        if is_due:
            self._save()
        if is_asked:
            self.stop.requested = True
            self._heed_stop()

    def _heed_stop(self) -> None:
        """Save and stop if that was requested."""
        if self.stop.requested:
            self._save()
            saved = f"stopped after {self.state.updates} updates, all of them saved"
            raise Stopped(f"{saved}; resume with {self.run.resume_command}")

    def _rate(self, update: int) -> float:
        """Return the share of the peak rate."""
        rate = rate_at(
            self.recipe.schedule,
            update=update,
            updates_per_epoch=self.length.per_epoch,
            total_updates=self.length.updates,
        )
        cold = None if self.state.is_warm else self.recipe.warm_until
        return rate * (1.0 if cold is None else cold.factor) * self._factor(update)

    def _factor(self, update: int) -> float:
        return LOWERED if self.state.lowered_from is not None and update >= self.state.lowered_from else 1.0

    def _check_losses(self, place: int, *, now: bool = False) -> None:
        """Check for a loss that is not finite; on a GPU only at intervals or `now`, since checking makes it wait."""
        between = UPDATES_BETWEEN_CHECKS[self.device.type]
        is_last = place + 1 == self.length.per_epoch or self.state.updates == self.length.updates
        if (place + 1) % between and not (is_last or now):
            return
        begin = place - place % between
        for wrong in (~torch.isfinite(self.state.losses[begin : place + 1])).nonzero().flatten().tolist():
            raise _NotFinite(
                f"the loss is not finite in epoch {self.state.epochs + 1}, batch {begin + wrong + 1} of "
                f"{self.length.per_epoch}"
            )

    def _lower_rate(self, error: Exception) -> None:
        """Go back to the newest state from before the epoch, which is then trained at a lower rate.

        The result does not depend on when checkpoints were saved: updates before the epoch repeat unchanged.
        """
        begin = self.state.epochs * self.length.per_epoch
        is_too_late = self.is_late and begin == 0  # to train anything that could be written
        if self.clock.safety.on_nonfinite == "stop" or self.state.lowered_from is not None or is_too_late:
            again = " again, at a lower rate" if self.state.lowered_from is not None else ""
            kept = "its last checkpoint" if self.run.has_checkpoint else "nothing to resume from"
            raise Failure(
                f"{error}{again}: lower optimizer.peak_lr (now {self.recipe.optimizer.peak_lr:g}); "
                f"{self.run.path} keeps {kept}"
            ) from None
        then = "which ends the run" if self.is_late else f"from there on at {LOWERED:g} times the rate"
        self.display.say(f"{error}: returning to the start of the epoch, {then}")
        for parameter in self.trained:  # some may have been frozen in the meantime
            parameter.requires_grad_(True)
        restore(self.state, self.team.from_first(lambda: self._newest_before(begin)))
        self.state.lowered_from = begin
        self.update = self._make_updater()
        self.run.cut_log(self.state.epochs)
        if self.is_late:  # these weights are the last
            self.team.from_first(self._settle)
            self._save()

    def _newest_before(self, begin: int) -> Checkpoint:
        known = [*self.run.read_checkpoints(), self.epoch_start]
        return max((one for one in known if one.state["updates"] <= begin), key=lambda one: one.state["updates"])

    def _close_epoch(self) -> None:
        """Log the finished epoch, and save."""
        state, number = self.state, self.state.epochs + 1
        num_batches = state.updates - state.epochs * self.length.per_epoch
        sizes = torch.tensor(self.batches.sizes[:num_batches], device=self.device)
        num_seen = int(sizes.sum())
        began = time.perf_counter()
        self._check_losses(num_batches - 1, now=True)
        if number == self.length.epochs or self.is_late:
            self.team.from_first(self._settle)
        validation = self.team.from_first(self._validate)
        if wrong := self.team.from_first(lambda: self._find_not_finite(validation)):
            raise _NotFinite(f"{wrong} not finite after epoch {number}")
        done = Epoch(
            epoch=number,
            updates=state.updates,
            seconds=state.seconds + time.perf_counter() - began,
            images_per_second=num_seen / state.seconds,
            learning_rate=self.recipe.optimizer.peak_lr * self._rate(state.updates - 1),
            train_loss=float((state.losses[:num_batches].double() * sizes).sum() / num_seen),
            train_accuracy=int(state.hits[:num_batches].sum()) / num_seen,
            rate_factor=self._factor(state.updates - 1),
            **validation,
        )
        if self.recipe.warm_until is not None and 1 - done.train_accuracy < self.recipe.warm_until.training_error:
            state.is_warm = True
        if self.recipe.early_stopping is not None:
            state.compare(epoch=number, accuracy=validation["validation_accuracy"], loss=validation["validation_loss"])
        self.run.append_log(done)
        self.display.epoch(done)
        state.epochs, state.seconds = number, 0.0
        if self.clock.is_due_after(epochs=number) or self._is_over():
            self._save()

    def _save(self) -> None:
        """Write a checkpoint, but never one with a loss that is not finite."""
        num_batches = self.state.updates - self.state.epochs * self.length.per_epoch
        if num_batches > 0:
            self._check_losses(num_batches - 1, now=True)
        self.run.write_checkpoint(*capture(self.state))
        if self.clock.safety.saved is not None and self.team.is_first:
            self.clock.safety.saved(self.run.path)
        self.clock.restart()

    def _settle(self) -> None:
        """Recompute batch norm's statistics, so that the last validation is of the weights that are written."""
        if self.recipe.freeze_norms:
            return
        stored = self.batches.stored(num_images=NUM_IMAGES, batch_size=BATCH_SIZE)
        # A stop waits until the statistics are whole.
        renew_statistics(self.state.model, (standardize(images.to(self.device), by=self.by) for images in stored))

    def _validate(self) -> dict[str, float]:
        """Measure loss and accuracy on the held-out images, if there are any."""
        if self.held_out is None:
            return {}
        logits = predict_logits(self.state.model, self.held_out.images, prepare=self._prepare)
        labels = self.held_out.labels
        return {
            "validation_loss": float(F.cross_entropy(logits, labels)),
            "validation_accuracy": float((logits.argmax(1) == labels).float().mean()),
        }

    def _find_not_finite(self, validation: dict[str, float]) -> str | None:
        """Say what is not finite after an epoch; no training loss shows the effect of the last update."""
        if not all(map(isfinite, validation.values())):
            return "the validation loss is"
        are_finite = torch.stack([value.isfinite().all() for value in self.state.model.state_dict().values()])
        return None if are_finite.all() else "the weights are"

    def _prepare(self, images: Tensor) -> Tensor:
        if self.team.size == 1:  # with several processes, all stop together afterwards
            self._heed_stop()  # validation can take long
        return standardize(images.to(self.device), by=self.by)
