"""Training: epochs of updates, each epoch logged and saved, the last weights written at the end.

The test split is never read here. Epochs and updates count from 0 inside, epochs from 1 in the log.
"""

import time
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from reslab import models
from reslab.data import ImageSet
from reslab.data.batches import Batches, seeded, standardize
from reslab.data.recipe_data import describe_data, read_split
from reslab.errors import Failure, UserError
from reslab.models import Classifier
from reslab.models.device import pick_device
from reslab.models.inference import predict_logits
from reslab.models.memory import keep_freed_memory
from reslab.recipe import Recipe, Standardize
from reslab.records import Epoch, SplitName, Weights
from reslab.runs import Run
from reslab.training.environment import describe_environment
from reslab.training.freezing import check_freezing, freeze
from reslab.training.objective import make_objective
from reslab.training.optim import make_optimizer, rate_at
from reslab.training.progress import Display
from reslab.training.signals import StopRequest, listen_for_stop
from reslab.training.state import State, capture, restore
from reslab.training.step import make_forward, update

IMAGES_TO_PREPARE = 5000  # what the whitened patches are measured on
UPDATES_BETWEEN_CHECKS = {"cpu": 1, "cuda": 50}  # reading a loss makes a GPU wait


def train(
    recipe: Recipe,
    *,
    out: Path | str,
    seed: int = 0,
    device: str = "auto",
    data_dir: Path | None = None,
    silent: bool = True,
) -> Run:
    """Train a network from scratch into the new run folder `out`.

    Raises: UserError where the recipe, the data or the folder do not allow it; Failure where the loss is not finite,
    the disk refuses or somebody interrupts.
    """
    chosen = pick_device(device)
    splits = _read_splits(recipe, data_dir)
    run = Run.create(out)
    run.write_environment(describe_environment(device=chosen, seed=seed, data=tuple(map(describe_data, splits))))
    run.write_recipe(recipe)
    return Trainer(run, splits, seed=seed, device=chosen, silent=silent).train()


def resume(path: Path | str, *, device: str = "auto", data_dir: Path | None = None, silent: bool = True) -> Run:
    """Go on with the run in `path` from its newest checkpoint, or from the start where there is none yet.

    Raises: UserError where the folder holds no run, its data has changed or its checkpoint is corrupt; as `train`.
    """
    run = Run.open(path)
    if run.recipe.extension is not None:
        raise UserError(f"{path} is an extension: go on with reslab extend --resume {path}")
    if run.is_finished:
        return run
    splits = _read_splits(run.recipe, data_dir)
    # What an evaluation has added to the record is none of training's business.
    if tuple(map(describe_data, splits)) != tuple(data for data in run.environment.data if data.split != "test"):
        raise UserError(f"the data of {path} has changed since it was begun: its fingerprint differs, so train anew")
    trainer = Trainer(run, splits, seed=run.environment.seed, device=pick_device(device), silent=silent)
    return trainer.catch_up().train()


def _read_splits(recipe: Recipe, data_dir: Path | None) -> tuple[ImageSet, ...]:
    names: tuple[SplitName, ...] = ("train", "validation") if recipe.validation else ("train",)
    splits = tuple(read_split(recipe, name, data_dir=data_dir) for name in names)
    channels = splits[0].images.shape[1]
    if recipe.standardize is not None and len(recipe.standardize.mean) != channels:
        raise UserError(
            f"recipe {recipe.name} standardises {len(recipe.standardize.mean)} channels but {recipe.data} has "
            f"{channels}: add --set standardize=null, which takes mean and deviation from the training images"
        )
    return splits


@dataclass(frozen=True)
class _Length:
    """How long a run is: updates per epoch, updates in all, epochs in all."""

    per_epoch: int
    updates: int
    epochs: int


@dataclass(frozen=True)
class Start:
    """A network that is not trained from scratch, and the one whose opinion it should keep."""

    model: Classifier
    teacher: Classifier | None = None


class Trainer:
    """One run under way: its data, its state, its epochs."""

    def __init__(
        self,
        run: Run,
        splits: tuple[ImageSet, ...],
        *,
        seed: int,
        device: torch.device,
        silent: bool,
        start: Start | None = None,
    ) -> None:
        keep_freed_memory()
        self.run, self.recipe, self.seed, self.device = run, run.recipe, seed, device
        self.images, self.held_out = splits[0], splits[1] if len(splits) > 1 else None
        self.by: Standardize = self.recipe.standardize or self.images.statistics()
        self.batches = Batches(self.images, recipe=self.recipe, by=self.by, seed=seed, device=device)
        per_epoch = len(self.batches)
        updates = min(self.recipe.epochs * per_epoch, self.recipe.updates or self.recipe.epochs * per_epoch)
        self.length = _Length(per_epoch, updates, -(-updates // per_epoch))
        self.state = self._begin(start)
        self.objective = make_objective(
            self.recipe, images=self.images, teacher=start.teacher if start else None, device=device
        )
        self.forward = make_forward(self.state.model, device=device)
        self.display = Display(total_updates=updates, total_epochs=self.length.epochs, silent=silent)

    def _begin(self, start: Start | None) -> State:
        torch.manual_seed(self.seed)
        model = (start.model if start else self._build()).to(self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        extension = self.recipe.extension
        return State(
            model=model,
            optimizer=make_optimizer(
                model, settings=self.recipe.optimizer, backbone=extension.backbone_lr if extension else 1.0
            ),
            losses=torch.zeros(self.length.per_epoch, device=self.device),
            hits=torch.zeros(self.length.per_epoch, dtype=torch.int64, device=self.device),
        )

    def _build(self) -> Classifier:
        model = models.build(
            self.recipe.model.model_dump(),
            num_classes=len(self.images.classes),
            channels=self.images.images.shape[1],
        )
        some = torch.randperm(len(self.images.labels), generator=seeded(self.seed, "prepare"))[:IMAGES_TO_PREPARE]
        model.prepare(standardize(self.images.images[some], by=self.by))
        return model

    def catch_up(self) -> "Trainer":
        """Go to the newest checkpoint, where there is one."""
        if self.run.has_checkpoint:
            restore(self.state, self.run.read_checkpoint())
        self.run.cut_log(self.state.epochs)
        return self

    def train(self) -> Run:
        """Run the epochs that are missing, then write the weights."""
        self.run_epochs()
        self.write_weights()
        return self.run

    def run_epochs(self) -> None:
        """Run the epochs that are missing. Raises: UserError where the recipe freezes all or what is not there."""
        check_freezing(self.state.model, self.recipe.freeze, epochs=self.length.epochs)
        with listen_for_stop() as stop, self.display.shown(updates=self.state.updates):
            while self.state.epochs < self.length.epochs:
                self._train_epoch(stop)
                self._close_epoch()

    def write_weights(self) -> None:
        """Write the network as it is now; the run is then finished."""
        tensors = {name: value.cpu().numpy() for name, value in self.state.model.state_dict().items()}
        self.run.write_weights(tensors, self._describe_weights())

    def _train_epoch(self, stop: StopRequest) -> None:
        state, epoch = self.state, self.state.epochs
        state.model.train()
        freeze(state.model, self.recipe.freeze, epoch=epoch)
        began = time.perf_counter() - state.seconds
        start = state.updates - epoch * self.length.per_epoch
        for place, (images, labels) in enumerate(self.batches.epoch(epoch, start=start), start):
            if state.updates == self.length.updates:
                return
            state.losses[place], state.hits[place] = update(
                self.forward,
                state.optimizer,
                objective=self.objective,
                chunks=self._chunks(images, labels),
                rate=self._rate(state.updates),
            )
            state.updates += 1
            state.seconds = time.perf_counter() - began
            self._check_losses(place)
            self.display.update(epoch=epoch, images_per_second=self._num_seen(place) / state.seconds)
            if stop.requested:
                self._save()
                raise Failure(
                    f"stopped after {state.updates} updates, all of them saved; "
                    f"go on with reslab train --resume {self.run.path}"
                )

    def _chunks(self, images: Tensor, labels: Tensor) -> list[tuple[Tensor, Tensor]]:
        """Cut a batch into even parts: one image left over would be a poor basis for batch norm's statistics."""
        num_chunks = -(-len(labels) // (self.recipe.chunk_size or len(labels)))
        return list(zip(images.tensor_split(num_chunks), labels.tensor_split(num_chunks), strict=True))

    def _rate(self, update: int) -> float:
        """Give the share of the peak rate."""
        rate = rate_at(
            self.recipe.schedule,
            update=update,
            updates_per_epoch=self.length.per_epoch,
            total_updates=self.length.updates,
        )
        cold = None if self.state.is_warm else self.recipe.warm_until
        return rate if cold is None else rate * cold.factor

    def _num_seen(self, place: int) -> int:
        return min((place + 1) * self.recipe.batch_size, self.batches.num_images)

    def _check_losses(self, place: int) -> None:
        """Stop at a loss that is not finite, by name; on a GPU only now and then, since to look is to wait."""
        between = UPDATES_BETWEEN_CHECKS[self.device.type]
        if (place + 1) % between and place + 1 < self.length.per_epoch:
            return
        begin = place - place % between
        for wrong in (~torch.isfinite(self.state.losses[begin : place + 1])).nonzero().flatten().tolist():
            raise Failure(
                f"the loss is not finite in epoch {self.state.epochs + 1}, batch {begin + wrong + 1} of "
                f"{self.length.per_epoch}: lower optimizer.peak_lr (now {self.recipe.optimizer.peak_lr:g}); "
                f"{self.run.path} keeps the state after its last whole epoch"
            )

    def _close_epoch(self) -> None:
        """Log the epoch that has ended, and save."""
        state, number = self.state, self.state.epochs + 1
        num_batches = state.updates - state.epochs * self.length.per_epoch
        num_seen = self._num_seen(num_batches - 1)
        sizes = torch.full((num_batches,), self.recipe.batch_size, device=self.device)
        sizes[-1] = num_seen - (num_batches - 1) * self.recipe.batch_size
        began = time.perf_counter()
        validation = self._validate()
        done = Epoch(
            epoch=number,
            updates=state.updates,
            seconds=state.seconds + time.perf_counter() - began,
            images_per_second=num_seen / state.seconds,
            learning_rate=self.recipe.optimizer.peak_lr * self._rate(state.updates - 1),
            train_loss=float((state.losses[:num_batches].double() * sizes).sum() / num_seen),
            train_accuracy=int(state.hits[:num_batches].sum()) / num_seen,
            **validation,
        )
        if self.recipe.warm_until is not None and 1 - done.train_accuracy < self.recipe.warm_until.training_error:
            state.is_warm = True
        self.run.append_log(done)
        self.display.epoch(done)
        state.epochs, state.seconds = number, 0.0
        self._save()

    def _save(self) -> None:
        self.run.write_checkpoint(*capture(self.state))

    def _validate(self) -> dict[str, float]:
        """Measure loss and accuracy on the held-out images, where there are any."""
        if self.held_out is None:
            return {}
        logits = predict_logits(
            self.state.model, self.held_out.images, prepare=lambda images: standardize(images, by=self.by)
        )
        labels = self.held_out.labels
        return {
            "validation_loss": float(F.cross_entropy(logits, labels)),
            "validation_accuracy": float((logits.argmax(1) == labels).float().mean()),
        }

    def _describe_weights(self) -> Weights:
        return Weights(
            model=self.recipe.model,
            classes=self.images.classes,
            channels=self.images.images.shape[1],
            image_size=self.recipe.image_size,
            standardize=self.by,
        )
