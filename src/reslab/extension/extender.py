"""Carry out an extension: train the head or all layers, and write the new weights."""

import hashlib
import time
from collections.abc import Iterator
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from reslab.data.folds import number_groups, split_folds
from reslab.errors import UserError
from reslab.extension import announce, fusion, heads
from reslab.extension.features import as_epoch, compute_features, is_mirrored, set_head, train_head
from reslab.extension.fusion import LabelledFeatures
from reslab.extension.memory import KEPT, read_base_memory, see
from reslab.extension.methods import METHODS
from reslab.extension.prior import Priors, choose_prior, priors_of
from reslab.machine.memory import keep_freed_memory
from reslab.models.layers import ImageClassifier
from reslab.network.finishing import Finished, finish, finish_on
from reslab.network.network import Network
from reslab.pretrained.fusion import fuse
from reslab.recipe.networks import Fusion
from reslab.records import Epoch, PriorChoice
from reslab.runs import Run
from reslab.training.begin import Begun
from reslab.training.loop import Start, Trainer
from reslab.training.objective import make_objective
from reslab.training.progress import Display
from reslab.training.safety import Safety
from reslab.training.seen import has_frozen_base, leave_out_seen
from reslab.words import counted, duration

FEWEST_HELD_OUT = 10  # images per class for choosing tau
MOST_CENTRED = 1000  # old images by which a single new class is centred


class _Fused(NamedTuple):
    """Features for a head on fused networks: those of the new data, for training and held-out images.

    `remembered` are sampled features that stand for old images, and `kept` are real features of some old images.
    """

    new: LabelledFeatures
    new_held_out: LabelledFeatures
    remembered: LabelledFeatures | None
    kept: LabelledFeatures | None

    @property
    def training(self) -> LabelledFeatures:
        return self.remembered.followed_by(self.new) if self.remembered else self.new

    @property
    def real(self) -> LabelledFeatures:
        """The features of available training images, with those kept of old images."""
        return self.kept.followed_by(self.new) if self.kept else self.new

    @property
    def held_out(self) -> LabelledFeatures:
        return self.kept.followed_by(self.new_held_out) if self.kept else self.new_held_out


class _OutOfFolds(NamedTuple):
    """Features of held-out images and of the training images at `places`, if any; logits (H, K) are out of folds."""

    seen: LabelledFeatures
    logits: Tensor | None
    places: Tensor


class Extender:
    """Carries out the recipe of a started extension."""

    def __init__(self, begun: Begun, *, silent: bool, safety: Safety) -> None:
        keep_freed_memory()
        self.begun, self.run, self.recipe = begun, begun.run, begun.run.recipe
        assert self.recipe.extension is not None
        self.extension, self.device = self.recipe.extension, begun.team.device
        self.images, self.held_out = begun.splits[0], begun.splits[1] if len(begun.splits) > 1 else None
        self.silent, self.safety = silent, safety
        self.base = self._load_base()
        self.memory = read_base_memory(self.run) if METHODS[self.extension.method].remembers else None
        self.is_unchanged = has_frozen_base(self.run)
        self.has_unseen = self._keep_unseen()
        self.fused: _Fused | None = None
        self.out_of_folds: _OutOfFolds | None = None
        self.display = Display(total_updates=0, total_epochs=self.recipe.epochs, silent=silent)

    def extend(self) -> Run:
        """Announce, train, choose the prior, write the weights."""
        self._announce()
        network = self._teach()
        if self.extension.method == "weight-align":
            heads.align_norms(network.module.head, num_old=self.extension.num_old)
        if not METHODS[self.extension.method].is_fused:  # those choose head and prior together
            self._settle_prior(network)
        calibrated, coming = bool(self.extension.keep_old), self._priors().coming.exp()
        if not self.has_unseen:
            finished = finish(network, images=self.images, held_out=None, calibrated=calibrated)
            finished = replace(finished, note="not calibrated: the base has learned from the held-out images too")
        elif self.fused:
            finished = self._finish_fused(network, self.fused, calibrated=calibrated, coming=coming)
        else:
            finished = finish(network, images=self.images, held_out=self.held_out, calibrated=calibrated, coming=coming)
        self.display.say(finished.note)
        content = finished.network.to_bytes()
        if self.memory and self.fused:  # before the weights, which finish the run
            kept = self.fused.new_held_out.few(self.images.classes, num=KEPT)
            learned = self.memory.joined(self.fused.new, kept=kept)
            self.run.write_memory(learned.to_bytes(base=hashlib.sha256(content).hexdigest()))
        self.run.write_weights(content)
        return self.run

    def _finish_fused(self, network: Network, fused: _Fused, *, calibrated: bool, coming: Tensor) -> Finished:
        if not self.is_unchanged:
            statistics = None
            if self.held_out is not None and not self.memory:  # of whose old images only features are left
                statistics = network.texture(self.images.images), network.texture(self.held_out.images)
            return finish_on(
                network, fused.training, fused.held_out, statistics=statistics, calibrated=calibrated, coming=coming
            )
        judges = self.out_of_folds or _OutOfFolds(fused.held_out, None, torch.empty(0, dtype=torch.long))
        return finish_on(
            network,
            fused.real,
            judges.seen,
            logits=judges.logits,
            groups=self._number_groups(fused, also=judges.places),
            is_unchanged=True,
            calibrated=calibrated,
            coming=coming,
        )

    def _number_groups(self, fused: _Fused, *, also: Tensor) -> tuple[Tensor, Tensor]:
        """Number the groups of the known images, and of the held-out ones with the training images `also`."""
        assert self.held_out is not None
        num_kept = 0 if fused.kept is None else len(fused.kept.labels)
        parts = [np.zeros(num_kept, dtype=np.uint64)]
        parts += [
            np.zeros(len(images.labels), dtype=np.uint64) if images.keys is None else images.keys
            for images in (self.images, self.held_out)
        ]
        keys = np.concatenate(parts)
        groups = torch.from_numpy(number_groups(keys, num=len(keys)))
        kept, new, held_out = torch.tensor_split(groups, np.cumsum([len(part) for part in parts[:-1]]).tolist())
        return torch.cat([kept, new]), torch.cat([kept, held_out, new[also]])

    def _teach(self) -> Network:
        match self.extension.method:
            case "fusion":
                return self._fuse(self.base)
            case "finetune-fusion":
                return self._fuse(self._tune())
            case method:
                return self._extend_on_features() if METHODS[method].on_features else self._tune()

    def _announce(self) -> None:
        num_old, num_remembered = self.extension.num_old, int(self.memory.counts.sum()) if self.memory else 0
        for line in announce.describe_classes(self.images, num_old=num_old, num_remembered=num_remembered):
            self.display.say(line)
        if overlaps := announce.describe_overlaps(self.images, num_old=num_old):
            self.display.say(overlaps)
        seconds = announce.estimate_seconds(self.base, self.recipe, images=self.images)
        self.display.say(f"{self.extension.method} will take about {duration(max(1.0, seconds))} here")

    def _load_base(self) -> Network:
        return Network.load(self.run.base_path, device=str(self.device))

    def _grown(self) -> Network:
        """Load a fresh base with a head that includes the new classes."""
        module = self._load_base().module
        heads.grow(module, num_new=len(self.images.classes) - self.extension.num_old)
        return self._named(module)

    def _named(self, module: ImageClassifier) -> Network:
        """Make a network with the names of all classes from layers that include the new ones."""
        changes = {"model": self.recipe.model, "classes": self.images.classes, "calibration": None, "class_sets": None}
        return Network(module, self.base.metadata.model_copy(update=changes))

    def _fuse(self, first: Network) -> Network:
        """Fuse a network with the pretrained one; choose the head and the prior on the held-out images."""
        began = time.perf_counter()
        assert isinstance(self.recipe.model, Fusion)
        assert self.held_out is not None
        network = self._named(fuse(first, self.recipe.model, num_classes=len(self.images.classes)))
        self.fused = self._see(network)
        training, held_out, priors = self.fused.training, self.fused.held_out, self._priors()
        are_few = min(held_out.labels.bincount()) < FEWEST_HELD_OUT
        folds = self._folds() if are_few else []
        candidates = fusion.candidates(
            network.module.head,
            training,
            held_out=held_out,
            coming=priors.coming.exp(),
            num_old=self.extension.num_old,
            num_known=first.module.head.out_features,
            num_base_features=fusion.num_features(self.recipe.model.base),
            keep_old=self.extension.keep_old is not None,
            is_unchanged=self.is_unchanged,
            folds=folds,
        )
        priors = replace(priors, carried=priors.coming)  # by which the held-out images were weighted
        choices = [
            choose_prior(each.head.logits(held_out.features), held_out.labels, priors=priors) for each in candidates
        ]

        def rank(place: int) -> float:  # tau 0 is the one that the loss is of
            return -candidates[place].loss if are_few else choices[place].best

        place = max(range(len(choices)), key=rank)
        head = candidates[place].head
        if folds and self.is_unchanged:  # else layers below the head know the training images
            places = torch.cat(folds)
            judged = held_out.followed_by(training.at(places))
            self.out_of_folds = _OutOfFolds(
                judged, candidates[place].logits, places - len(training.labels) + len(self.images.labels)
            )
        chosen = {"strength": head.strength} | ({"tau": 0.0} if are_few else {})
        choice = choices[place].model_copy(update=chosen)
        head.write(network.module.head)
        logits = head.logits(training.features)
        self._log_head(as_epoch(logits, training.labels, seconds=time.perf_counter() - began))
        self._add_prior(network, choice, priors, num_held_out=len(held_out.labels))
        return network

    def _see(self, network: Network) -> _Fused:
        assert self.held_out is not None
        return _Fused(
            see(network, self.images),
            see(network, self.held_out),
            remembered=self.memory.draw(seed=self.begun.seed) if self.memory else None,
            kept=self.memory.kept if self.memory else None,
        )

    def _folds(self) -> list[Tensor]:
        """Divide the training images that the features have not seen: those of new classes, or of all."""
        assert self.fused is not None
        if self.extension.method != "fusion":
            return []
        labels, keys = self.images.labels.numpy(), self.images.keys
        unseen = np.flatnonzero(labels >= (0 if self.is_unchanged else self.extension.num_old))
        try:
            folds = split_folds(
                np.unique(labels[unseen], return_inverse=True)[1], None if keys is None else keys[unseen]
            )
        except UserError:  # a class has a single image or group
            return []
        offset = len(self.fused.training.labels) - len(labels)
        return [torch.from_numpy(unseen[held] + offset) for _, held in folds]

    def _keep_unseen(self) -> bool:
        """Leave out held-out images that the base has learned from; return whether those left speak of old classes."""
        if self.held_out is None:
            return True
        answers_anew = self.is_unchanged and not self.extension.keep_old
        if self.memory and self.extension.redrawn and not answers_anew:
            return False
        unseen = leave_out_seen(self.held_out, self.run)
        if unseen is not None:
            self.held_out = unseen
        return unseen is not None

    def _priors(self) -> Priors:
        return priors_of(self.recipe, counts=self.images.counts())

    def _log_head(self, solved: Epoch) -> None:
        """Log a solved head: as an epoch of its own, or as part of the last epoch that trained the layers below it."""
        log = self.run.log if METHODS[self.extension.method].is_tuned else []
        if log:
            solved = log[-1].model_copy(update={"seconds": log[-1].seconds + solved.seconds})
        self.run.cut_log(max(0, len(log) - 1))
        self.run.append_log(solved)

    def _extend_on_features(self) -> Network:
        network = self._grown()
        began = time.perf_counter()
        features = compute_features(network, self.images, mirrored=is_mirrored(self.recipe))
        seconds = time.perf_counter() - began
        self.run.cut_log(0)
        for epoch in self._head_epochs(network.module.head, features):
            if epoch.epoch == 1:  # it includes computing the features
                epoch = epoch.model_copy(update={"seconds": epoch.seconds + seconds})
            self.run.append_log(epoch)
            self.display.epoch(epoch)
        return network

    def _head_epochs(self, head: nn.Linear, features: Tensor) -> Iterator[Epoch]:
        recipe, labels = self.recipe, self.images.labels
        if self.extension.method == "nearest-mean":
            return iter([set_head(head, features=features, labels=labels)])
        objective = make_objective(recipe, images=self.images, teacher=None, device=torch.device("cpu"))
        return train_head(
            head, features=features, labels=labels, recipe=recipe, objective=objective, seed=self.begun.seed
        )

    def _tune(self) -> Network:
        start = None
        if METHODS[self.extension.method].is_tuned:
            grown = self._grown()
            self._imprint(grown)
            start = Start(grown.module, teacher=self.base.module if self.extension.distill else None)
        judges = (self.held_out,) if self.has_unseen and self.held_out is not None else ()
        begun = self.begun._replace(splits=(self.images, *judges))
        trainer = Trainer(begun, silent=self.silent, start=start, safety=self.safety).catch_up()
        trainer.run_epochs()
        return self._named(trainer.state.model)

    def _imprint(self, network: Network) -> None:
        num_old = self.extension.num_old
        new = self.images.subset((self.images.labels >= num_old).nonzero().flatten())
        features, labels = network.features(new.images).to(self.device), new.labels.to(self.device)
        old, old_features = (self.images.labels < num_old).nonzero().flatten(), None
        if len(old) and len(self.images.classes) == num_old + 1:
            some = old[torch.linspace(0, len(old) - 1, min(MOST_CENTRED, len(old))).long()]
            old_features = network.features(self.images.subset(some).images).to(self.device)
        heads.imprint(network.module.head, features=features, labels=labels, num_old=num_old, old_features=old_features)

    def _settle_prior(self, network: Network) -> None:
        """Choose the strength of prior correction on the held-out images and build it into the head's biases."""
        if self.extension.old_data == "none" or self.held_out is None:
            self.run.write_prior(PriorChoice(tau=1.0, curve=()))
            return
        priors = self._priors()
        choice = choose_prior(network.logits(self.held_out.images), self.held_out.labels, priors=priors)
        self._add_prior(network, choice, priors, num_held_out=len(self.held_out.labels))

    def _add_prior(self, network: Network, choice: PriorChoice, priors: Priors, *, num_held_out: int) -> None:
        """Build the chosen prior correction into the head's biases, record and announce it."""
        with torch.no_grad():
            network.module.head.bias.add_(priors.offset(choice.tau).to(self.device))
        self.run.write_prior(choice)
        where = f"on {counted(num_held_out, 'validation image')}"
        if not choice.is_best:
            self.display.say(
                f"prior correction: tau {choice.tau:g}, since a class has too few validation images to choose by"
            )
        elif choice.is_flat:
            self.display.say(f"prior correction: tau {choice.tau:g}; all others have the same macro F1 {where}")
        else:
            strength = "" if choice.strength is None else f" and a strength of {choice.strength:g}"
            self.display.say(f"prior correction: tau {choice.tau:g}{strength}, the best macro F1 {where}")
