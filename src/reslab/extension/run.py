"""An extension from a finished run to the run folder of a network that knows its classes and new ones."""

import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn

from reslab.data.expression import join_expressions, name_classes
from reslab.data.images import ImageSet
from reslab.data.recipe_data import check_remote, find_base, read_split, recipe_here
from reslab.errors import UserError
from reslab.extension import announce, fusion, heads
from reslab.extension.features import as_epoch, compute_features, is_mirrored, set_head, train_head
from reslab.extension.fusion import LabelledFeatures
from reslab.extension.learned import read_learned
from reslab.extension.memory import KEPT, Memory, read_base_memory, read_memory, see
from reslab.extension.methods import (
    DISTILLED,
    FUSED,
    METHODS,
    TUNED,
    backbone_rate,
    check_method,
    default_method,
    fit,
    num_held_out,
    plan,
)
from reslab.extension.more import knows_all, plan_more
from reslab.extension.prior import Priors, choose_prior, priors_of
from reslab.machine.device import pick_device
from reslab.machine.memory import keep_freed_memory
from reslab.models.layers import ImageClassifier
from reslab.network.familiarity import Neighbours
from reslab.network.finishing import finish, finish_on
from reslab.network.network import Network
from reslab.pretrained.fusion import fuse
from reslab.recipe.networks import Fusion
from reslab.recipe.recipe import Extension, LinearHead, Recipe, derive
from reslab.recipe.settings import with_settings
from reslab.records import Epoch, PriorChoice, Weights
from reslab.runs import Run, read_weights
from reslab.training.begin import Begun, Computing, begin, go_on, read_recorded, read_splits
from reslab.training.budget import within
from reslab.training.distributed import Team
from reslab.training.findings import tell_findings
from reslab.training.loop import EVERY_EPOCH, Start, Trainer
from reslab.training.objective import make_objective
from reslab.training.progress import Display
from reslab.training.safety import Safety
from reslab.training.session import train
from reslab.words import counted, duration

PRIORS = ("base", "used")
FEWEST_HELD_OUT = 10  # images of a class that a tau is chosen by
FORWARD_SHARE = 3 / 4  # of an update with a teacher, which adds a forward pass to three
FIXED = ("data", "model", "image_size", "channels", "standardize", "resize", "validation", "trial", "extension")


@dataclass(frozen=True)
class _Wish:
    data: str
    method: str
    old_data: str | int
    merge: bool
    prior: str
    keep_old: str | None
    settings: tuple[str, ...]
    minutes: float | None
    skip_damaged: bool


def extend(
    base: Path | str,
    *,
    data: str,
    out: Path | str,
    method: str | None = None,
    old_data: str | int = "all",
    merge: bool = False,
    prior: str = "base",
    keep_old: str | None = None,
    settings: Iterable[str] = (),
    minutes: float | None = None,
    skip_damaged: bool = False,
    seed: int = 0,
    device: str = "auto",
    data_dir: Path | None = None,
    allow_remote: bool = False,
    silent: bool = True,
    safety: Safety = EVERY_EPOCH,
    compile: str = "auto",
    precision: str = "auto",
    deterministic: bool = False,
) -> Run:
    """Teach the network of a finished run new classes.

    Parameters
    ----------
    base : Path or str
        The folder of the finished run; it stays as it is.
    data : str
        Data expression of the new classes, such as `folder:PATH`.
    out : Path or str
        The run folder to make, for a network that knows the old and the new classes.
    method : str, optional
        One of `reslab.extension.METHODS`; by default `finetune-distill`, or `fusion` for a base that is a head on the
        features of a pretrained network, such as `fit` makes, and with `old_data="none"` for one that remembers its
        images.
    old_data : int or str, default "all"
        Training images of the old classes to use: `all`, `none`, or the number of each class.
    merge : bool, default False
        Whether a name that both sides have is one class; without it such names are refused. Where `data` has no new
        class, the network is trained on with more pictures of those that it knows, head and all.
    prior : str, default "base"
        How frequent pictures of the old classes will be: as in all training images of the base, whatever `old_data`
        takes of them (`base`), as in those that are used (`used`), or so many times as frequent as pictures of a new
        class (a whole number, such as `10`).
    keep_old : {None, "exact"}, default None
        With `exact` the logits of the old classes stay what they are, to the bit; by the method `fusion` alone.
    settings : iterable of str, default ()
        Overrides `field=value` of how the method trains, such as `epochs=5`, as `with_settings` takes them.
    minutes : float, optional
        Train as many updates as fit into so much time here, if those are fewer; for methods that train all layers.
    skip_damaged : bool, default False
        Whether pictures that cannot be read are left out, as the base does where it did.
    seed : int, default 0
        Decides what is random in the training.
    device : str, default "auto"
        `cpu`, `cuda` or `cuda:N`; `auto` is the first GPU where there is one.
    data_dir : Path, optional
        Where downloaded data lies, instead of `$RESLAB_DATA` or the cache directory.
    allow_remote : bool, default False
        Whether another machine that the run's recipe names may be contacted.
    silent : bool, default True
        Whether to hide the progress bar and the line of each epoch.
    safety : Safety, optional
        How often to save, and what to do about a loss that is not finite; by default each epoch, and one retry.
    compile : {"auto", "on", "off"}, default "auto"
        Whether the network is compiled; `auto` does so where that saves more time than it takes.
    precision : {"auto", "float32", "bfloat16"}, default "auto"
        Type of the numbers that are multiplied; `auto` is bfloat16 where the processor or GPU has units for it.
    deterministic : bool, default False
        Whether to allow only algorithms that repeat to the bit, also on a GPU. No network is compiled then.

    Returns
    -------
    Run
        The finished run.

    Raises
    ------
    UserError
        Where the base, the data, the method or the folder do not allow it.
    Failure
        As `train`.

    Examples
    --------
    >>> import reslab
    >>> run = reslab.extend("runs/digits", data="digits:8@20", out="runs/four", method="nearest-mean")
    >>> reslab.Network.load(run.path).classes
    ('1', '4', '7', '8')
    """
    team = Team(pick_device(device))
    run = Run.open(base)
    # What `data` adds to it, the caller has named.
    check_remote(run.recipe.data, of=f"the recipe {run.recipe.name}", allow_remote=allow_remote)
    if merge and knows_all(read_weights(run.path)[1], data, data_dir=data_dir, skip_damaged=skip_damaged):
        if method or keep_old or prior != "base":
            raise UserError(f"{data!r} has no new class, only more pictures: omit --method, --keep-old and --prior")
        read_learned(run, data_dir=data_dir)  # which must not have changed
        more = plan_more(run, data=data, old_data=old_data, skip_damaged=skip_damaged, data_dir=data_dir)
        return train(
            _with_settings(more, tuple(settings)),
            out=out,
            seed=seed,
            device=device,
            data_dir=data_dir,
            allow_remote=True,
            silent=silent,
            safety=safety,
            compile=compile,
            precision=precision,
            deterministic=deterministic,
            minutes=minutes,
            start=run.path,
        )
    memory = read_memory(run) if old_data == "none" else None
    method = method or ("fusion" if memory else default_method(run.recipe))
    computing = _read_computing(method, Computing(compile, precision, deterministic))
    weights = Network.load(run.path, device=str(team.device)).metadata
    wish = _Wish(data, method, old_data, merge, prior, keep_old, tuple(settings), minutes, skip_damaged)
    recipe = _plan(run, weights, wish, memory=memory, data_dir=data_dir, device=team.device)

    def bring_base(made: Run) -> None:
        made.write_base(run.weights_path.read_bytes())
        made.write_base_recipe(run.base_recipe)
        if memory:
            made.write_base_memory(run.memory_path.read_bytes())
        made.write_digests("base", run.learned_digests)

    with begin(
        recipe,
        out=out,
        seed=seed,
        team=team,
        read=lambda: read_splits(recipe, data_dir=data_dir, allow_remote=True, team=team),
        computing=computing,
        bring=bring_base,
        data_from=find_base(recipe.data, data_dir),
    ) as begun:
        tell_findings(begun, data_dir=data_dir, silent=silent)
        return _Extender(begun, silent=silent, safety=safety).extend()


def resume_extension(
    path: Path | str,
    *,
    device: str = "auto",
    data_dir: Path | None = None,
    allow_remote: bool = False,
    silent: bool = True,
    safety: Safety = EVERY_EPOCH,
    threads: int | None = None,
) -> Run:
    """Resume an interrupted extension from its newest checkpoint, or from the start where there is none yet.

    Parameters
    ----------
    path : Path or str
        The run folder that `extend` has made.
    device : str, default "auto"
        `cpu`, `cuda` or `cuda:N`; `auto` is the first GPU where there is one.
    data_dir : Path, optional
        Where downloaded data lies, instead of `$RESLAB_DATA` or the cache directory.
    allow_remote : bool, default False
        Whether another machine that the run's recipe names may be contacted.
    silent : bool, default True
        Whether to hide the progress bar and the line of each epoch.
    safety : Safety, optional
        How often to save, and what to do about a loss that is not finite; by default each epoch, and one retry.
    threads : int, optional
        Threads to compute with, instead of as many as before.

    Returns
    -------
    Run
        The finished run.

    Raises
    ------
    UserError
        Where the folder holds no extension or its data has changed; and as `extend`.
    Failure
        As `train`.

    Examples
    --------
    >>> import reslab
    >>> run = reslab.extend("runs/digits", data="digits:8@20", out="runs/more", method="nearest-mean")
    >>> reslab.resume_extension(run.path).is_finished  # it was not interrupted
    True
    """
    team = Team(pick_device(device))
    record = read_recorded(path, command="extend", team=team)
    if record.is_finished:
        return Run(path)
    with go_on(
        record, team=team, data_dir=data_dir, allow_remote=allow_remote, threads=threads, silent=silent
    ) as begun:
        return _Extender(begun, silent=silent, safety=safety).extend()


def _read_computing(method: str, wanted: Computing) -> Computing:
    """Give how an extension computes; a head on features that stay as they are is trained in float32, uncompiled.

    Raises: UserError where something else was asked for.
    """
    if method not in METHODS or not METHODS[method].on_features:
        return wanted
    if wanted.compile == "on" or wanted.precision == "bfloat16":
        raise UserError(
            f"{method} trains a head alone, in float32 and uncompiled: omit --compile and --precision, or choose "
            "another --method"
        )
    return replace(wanted, compile="off", precision="float32")


# ---- what to do


def _plan(
    run: Run, weights: Weights, wish: _Wish, *, memory: Memory | None, data_dir: Path | None, device: torch.device
) -> Recipe:
    method = check_method(wish.method, old_data=wish.old_data, base=run.path, remembers=memory is not None)
    if method != "fusion":
        memory = None
    if wish.prior not in PRIORS and not (wish.prior.isdecimal() and int(wish.prior)):
        raise UserError(f"--prior {wish.prior}: choose from {', '.join(PRIORS)}, or write a whole number, such as 10")
    if wish.prior == "used" and wish.old_data == "none":
        raise UserError("--prior used goes by the old images used, and --old-data none uses none: omit --prior")
    if wish.keep_old not in (None, "exact"):
        raise UserError(f"--keep-old {wish.keep_old}: write exact, or omit it")
    if wish.keep_old and method != "fusion":
        raise UserError(f"{method} changes the old classes' logits: choose --method fusion, or omit --keep-old")
    if wish.minutes is not None and METHODS[method].on_features:
        raise UserError(f"{method} takes as long as its features do: omit --minutes, or choose another --method")
    if method == "finetune-fusion" and isinstance(weights.model, Fusion):
        raise UserError(f"{run.path} is joined with a pretrained network already: choose finetune-distill or fusion")
    base = run.recipe
    limit = {"all": None, "none": 0}.get(str(wish.old_data), wish.old_data)
    if base.trial and wish.old_data == "none":
        raise UserError(
            f"{run.path} is a trial, which is measured on validation images, and --old-data none holds none out: "
            "extend a run that is no trial"
        )
    extension = Extension(
        method=method,
        base=run.weights_digest,
        base_test=next((data.fingerprint for data in run.environment.data if data.split == "test"), None),
        num_old=len(weights.classes),
        old_data=wish.old_data,  # type: ignore[arg-type]
        merge=wish.merge or bool(base.extension and base.extension.merge),
        keep_old=wish.keep_old,  # type: ignore[arg-type]
        backbone_lr=backbone_rate(method, old_data=wish.old_data),
        distill=1.0 if method in DISTILLED else 0.0,
    )
    old = recipe_here(run, data_dir=data_dir).data
    if memory:  # whose images may be gone
        old = name_classes(old, weights.classes)
    data = join_expressions(old, wish.data, old_limit=None if limit is None else int(limit))
    draft = plan(run.base_recipe, weights=weights, extension=extension, data=data)
    draft = derive(draft, name=draft.name, skip_damaged=base.skip_damaged or wish.skip_damaged)
    images = read_split(draft, "train", data_dir=data_dir, allow_remote=True)
    _check_fit(run, weights, images, wish)
    old_counts = memory.counts.tolist() if memory else _count_old(run, data_dir=data_dir)
    coming = _expect(wish, images, old_counts=old_counts, remembers=memory is not None)
    draft = derive(draft, name=draft.name, extension=extension.model_copy(update={"coming": coming}))
    held_out = 0 if extension.old_data == "none" and not memory else num_held_out(run, images)
    recipe = fit(draft, num_images=len(images.labels), validation=held_out, trial=base.trial)
    recipe = _with_settings(recipe, wish.settings)
    if wish.minutes is None:
        return recipe
    share = 1.0 if extension.distill == 0 else FORWARD_SHARE  # the rest is for the base's opinion
    tuned = recipe
    if isinstance(recipe.model, Fusion) and method == "finetune-fusion":  # the pretrained network is not trained
        tuned = derive(recipe, name=recipe.name, model=recipe.model.base)
    shortened = within(tuned, minutes=share * wish.minutes, images=images, device=device)
    return derive(shortened, name=recipe.name, model=recipe.model)


def _with_settings(recipe: Recipe, settings: tuple[str, ...]) -> Recipe:
    """Change how the method trains. Raises: UserError where it does not, or what it is to learn would change."""
    if settings and isinstance(recipe.optimizer, LinearHead):
        raise UserError("fusion solves its head, which nothing sets: omit --set and --epochs")
    changed = with_settings(recipe, settings)
    for field in FIXED:
        if getattr(changed, field) != getattr(recipe, field):
            raise UserError(f"--set {field}: an extension takes it from its base and its data, so omit it")
    return changed


def _count_old(run: Run, *, data_dir: Path | None) -> list[int]:
    """Count the images of each class that the base was trained on or held out, which must be as they were."""
    parts = [part.counts() for part in read_learned(run, data_dir=data_dir) if part is not None]
    return [sum(counts) for counts in zip(*parts, strict=True)]


def _expect(wish: _Wish, images: ImageSet, *, old_counts: list[int], remembers: bool) -> tuple[int, ...] | None:
    """Say how frequent pictures of each class (K,) will be, where that is not as in training."""
    counts, num_old = images.counts(), len(old_counts)
    if wish.prior.isdecimal():
        return (int(wish.prior),) * num_old + (1,) * (len(counts) - num_old)
    if remembers:
        return (*old_counts, *counts[num_old:])
    if wish.prior == "used" or not isinstance(wish.old_data, int):
        return None
    for label, count in enumerate(old_counts):  # as if none of the base's were left out
        counts[label] += count - min(count, wish.old_data)
    return tuple(counts)


def _check_fit(run: Run, weights: Weights, images: ImageSet, wish: _Wish) -> None:
    num_old = len(weights.classes)
    if images.classes[:num_old] != weights.classes:
        raise UserError(f"{run.path} was trained on other classes than {run.recipe.data} has now: train it again")
    if len(images.classes) == num_old:
        raise UserError(
            f"{wish.data!r} has no new class: {run.path} knows {', '.join(weights.classes)}; to train on with more "
            "pictures of these, add --merge"
        )
    if wish.old_data != "none" and 0 in images.counts()[:num_old]:
        raise UserError(
            f"{run.path} has learned some of its classes without images, which {run.recipe.data!r} therefore leaves "
            "out: extend it by --method fusion --old-data none too"
        )
    if images.images.shape[1] != weights.channels:
        raise UserError(
            f"{run.path} takes images of {weights.channels} channels, those of {wish.data!r} have "
            f"{images.images.shape[1]}: make them alike"
        )


# ---- doing it


class _Fused(NamedTuple):
    """What a head beside a pretrained network is given: features of the new data, training and held-out images.

    `remembered` are drawn features that stand for old images, and `kept` those of some old images as they are.
    """

    new: LabelledFeatures
    new_held_out: LabelledFeatures
    remembered: LabelledFeatures | None
    kept: LabelledFeatures | None

    @property
    def training(self) -> LabelledFeatures:
        return self.remembered.followed_by(self.new) if self.remembered else self.new

    @property
    def held_out(self) -> LabelledFeatures:
        return self.kept.followed_by(self.new_held_out) if self.kept else self.new_held_out


class _Extender:
    def __init__(self, begun: Begun, *, silent: bool, safety: Safety) -> None:
        keep_freed_memory()
        self.begun, self.run, self.recipe = begun, begun.run, begun.run.recipe
        assert self.recipe.extension is not None
        self.extension, self.device = self.recipe.extension, begun.team.device
        self.images, self.held_out = begun.splits[0], begun.splits[1] if len(begun.splits) > 1 else None
        self.silent, self.safety = silent, safety
        self.base = self._load_base()
        self.memory = read_base_memory(self.run) if self.extension.method == "fusion" else None
        self.fused: _Fused | None = None
        self.display = Display(total_updates=0, total_epochs=self.recipe.epochs, silent=silent)

    def extend(self) -> Run:
        """Announce, train, choose the prior, write the weights."""
        self._announce()
        network = self._teach()
        if self.extension.method == "weight-align":
            heads.align_norms(network.module.head, num_old=self.extension.num_old)
        if self.extension.method not in FUSED:  # which choose head and prior at once
            self._settle_prior(network)
        calibrated, coming = bool(self.extension.keep_old), self._priors().coming.exp()
        if self.fused:
            known, held_out = self.fused.training, self.fused.held_out
            finished = finish_on(
                network, known, held_out, unchanged=self._unchanged(), calibrated=calibrated, coming=coming
            )
        else:
            finished = finish(network, images=self.images, held_out=self.held_out, calibrated=calibrated, coming=coming)
        self.display.say(finished.note)
        self.run.write_weights(finished.network.to_bytes())
        if self.memory and self.fused:
            kept = self.fused.new_held_out.few(self.images.classes, num=KEPT)
            learned = self.memory.joined(self.fused.new, kept=kept)
            self.run.write_memory(learned.to_bytes(base=self.run.weights_digest))
        return self.run

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
        """Load the base anew, with a head for the new classes too."""
        module = self._load_base().module
        heads.grow(module, num_new=len(self.images.classes) - self.extension.num_old)
        return self._named(module)

    def _named(self, module: ImageClassifier) -> Network:
        """Give layers that know the new classes the names of all."""
        changes = {"model": self.recipe.model, "classes": self.images.classes, "calibration": None, "class_sets": None}
        return Network(module, self.base.metadata.model_copy(update=changes))

    def _fuse(self, first: Network) -> Network:
        """Put a network beside the pretrained one; choose the head and the prior on the held-out images."""
        began = time.perf_counter()
        assert isinstance(self.recipe.model, Fusion)
        assert self.held_out is not None
        network = self._named(fuse(first, self.recipe.model, num_classes=len(self.images.classes)))
        self.fused = self._see(network)
        training, held_out = self.fused.training, self.fused.held_out
        candidates = fusion.candidates(
            network.module.head,
            training,
            held_out=held_out,
            num_old=self.extension.num_old,
            num_known=first.module.head.out_features,
            num_base_features=fusion.num_features(self.recipe.model.base),
            keep_old=self.extension.keep_old is not None,
        )
        # However often a class was drawn, held-out images are as frequent as they are.
        priors = self._priors(held_out.labels if self.memory else None)
        choices = [choose_prior(head.logits(held_out.features), held_out.labels, priors=priors) for head in candidates]
        place = max(range(len(choices)), key=lambda place: choices[place].best)
        head, choice = candidates[place], choices[place].model_copy(update={"strength": candidates[place].strength})
        if min(held_out.labels.bincount()) < FEWEST_HELD_OUT:  # which would choose by chance
            choice = choice.model_copy(update={"tau": 0.0})
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

    def _unchanged(self) -> Tensor | None:
        """Give the features of the images at hand where a memory stands for the rest and no layer has seen any."""
        familiarity = self.base.familiarity
        if not (self.fused and self.fused.kept and familiarity and isinstance(familiarity.measure, Neighbours)):
            return None
        new = self.fused.new.few(self.images.classes, num=KEPT)
        return self.fused.held_out.followed_by(new).features

    def _priors(self, held_out: Tensor | None = None) -> Priors:
        """Find the priors; logits that were calibrated on `held_out` labels alone carry theirs."""
        recipe = self.recipe.model_copy(update={"sampling": None}) if self.extension.method in FUSED else self.recipe
        counts = held_out.bincount().tolist() if held_out is not None else self.images.counts()
        return priors_of(recipe, counts=counts)

    def _log_head(self, solved: Epoch) -> None:
        """Log a head that was solved: alone, or as the end of the last epoch that trained the layers below it."""
        log = self.run.log if self.extension.method in TUNED else []
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
            if epoch.epoch == 1:  # which the features are part of
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
        if self.extension.method in TUNED:
            grown = self._grown()
            self._imprint(grown)
            start = Start(grown.module, teacher=self.base.module if self.extension.distill else None)
        trainer = Trainer(self.begun, silent=self.silent, start=start, safety=self.safety).catch_up()
        trainer.run_epochs()
        return self._named(trainer.state.model)

    def _imprint(self, network: Network) -> None:
        num_old = self.extension.num_old
        new = self.images.subset((self.images.labels >= num_old).nonzero().flatten())
        features, labels = network.features(new.images).to(self.device), new.labels.to(self.device)
        heads.imprint(network.module.head, features=features, labels=labels, num_old=num_old)

    def _settle_prior(self, network: Network) -> None:
        """Choose the prior's strength on the held-out images and build it into the head's biases."""
        if self.extension.old_data == "none" or self.held_out is None:
            self.run.write_prior(PriorChoice(tau=1.0, curve=()))
            return
        priors: Priors = priors_of(self.recipe, counts=self.images.counts())
        choice = choose_prior(network.logits(self.held_out.images), self.held_out.labels, priors=priors)
        self._add_prior(network, choice, priors, num_held_out=len(self.held_out.labels))

    def _add_prior(self, network: Network, choice: PriorChoice, priors: Priors, *, num_held_out: int) -> None:
        """Build the chosen prior into the head's biases, record it and say so."""
        with torch.no_grad():
            network.module.head.bias.add_(priors.offset(choice.tau).to(self.device))
        self.run.write_prior(choice)
        where = f"on {counted(num_held_out, 'validation image')}"
        best = max(point.macro_f1.value for point in choice.curve)
        if best > next(point.macro_f1.value for point in choice.curve if point.tau == choice.tau):
            self.display.say(f"tau {choice.tau:g}: a class has too few validation images to choose another by")
        elif choice.is_flat:
            self.display.say(f"every tau has the same macro F1 {where}, so {choice.tau:g} is as good as any")
        else:
            strength = "" if choice.strength is None else f" and a strength of {choice.strength:g}"
            self.display.say(f"tau {choice.tau:g}{strength}: the best macro F1 {where}")
