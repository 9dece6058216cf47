"""What was run, where and for how long, as terms and their descriptions."""

from collections.abc import Iterator
from statistics import median

from reslab.recipe.recipe import Extension, Imported, LinearHead, Recipe
from reslab.records import Environment, Segment, Setup
from reslab.report.inputs import Inputs
from reslab.report.words import (
    adjustment_words,
    augment_words,
    class_weights_words,
    distill_words,
    method_words,
    mixing_words,
    old_data_words,
    optimizer_words,
    sampling_words,
    standardize_words,
)
from reslab.words import counted, duration, moment

Facts = list[tuple[str, str]]


def training_seconds(inputs: Inputs) -> float:
    """Add up the time of all epochs."""
    return sum(epoch.seconds for epoch in inputs.log)


def recipe_facts(inputs: Inputs) -> Facts:
    """Say what was trained and how."""
    recipe = inputs.recipe
    side = inputs.weights.image_size
    images = f"{inputs.weights.channels} x {side} x {side}, {standardize_words(inputs.weights.standardize)}"
    epochs = len(inputs.log)
    resizing = f"; {recipe.resizing_words(epochs=epochs)}" if recipe.progressive_resizing else ""
    return [
        ("Recipe", f"{recipe.name} ({recipe.source})"),
        *(_extension_facts(recipe.extension) if recipe.extension else ()),
        ("Network", recipe.model.words),
        *([("Starts from", f"the ImageNet weights of {recipe.pretrained}")] if recipe.pretrained else []),
        *([("Starts from", f"{recipe.start.file}, SHA-256 {recipe.start.sha256[:16]}…")] if recipe.start else []),
        ("Parameters", f"{inputs.num_parameters:,}"),
        ("Images", images + resizing),
        *(_training_facts(inputs) if recipe.imported is None else [("Imported", _imported(recipe.imported))]),
        *([("Sampling", sampling_words(recipe.sampling))] if recipe.sampling else []),
        *([("Not trained", "; ".join(each.words(epochs=epochs) for each in recipe.freeze))] if recipe.freeze else []),
        ("Validation", f"{recipe.validation:,} images held out" if recipe.validation else "nothing held out"),
        ("Seed", str(inputs.environment.seed)),
    ]


def _imported(imported: Imported) -> str:
    return f"trained elsewhere: {imported.file} ({imported.map}), SHA-256 {imported.sha256[:16]}…"


def _training_facts(inputs: Inputs) -> Facts:
    recipe = inputs.recipe
    return [
        ("Augmentation", augment_words(recipe.augment)),
        *([("Mixing", mixing_words(recipe.mixing))] if recipe.mixing else []),
        ("Optimizer", optimizer_words(recipe.optimizer)),
        *(_update_facts(inputs) if not isinstance(recipe.optimizer, LinearHead) else ()),
    ]


def _update_facts(inputs: Inputs) -> Facts:
    recipe, epochs, updates = inputs.recipe, len(inputs.log), inputs.log[-1].updates if inputs.log else 0
    return [
        ("Learning rate", recipe.rate_words(epochs=epochs, updates=updates)),
        ("Loss", _loss(recipe)),
        ("Length", _length(inputs)),
        *([("Weights", _kept(inputs))] if recipe.early_stopping and inputs.log else []),
        ("Batch", _batch(recipe)),
    ]


def _loss(recipe: Recipe) -> str:
    smoothing = f" with label smoothing {recipe.label_smoothing:g}" if recipe.label_smoothing else ""
    adjusted = f", {adjustment_words(recipe.logit_adjustment)}" if recipe.logit_adjustment else ""
    weighted = f", classes weighted ({class_weights_words(recipe)})" if recipe.class_weights else ""
    return f"cross-entropy{smoothing}{adjusted}{weighted}"


def _batch(recipe: Recipe) -> str:
    parts = f", in micro-batches of {recipe.micro_batch_size:,}" if recipe.micro_batch_size else ""
    return f"{recipe.batch_size:,} images{parts}"


def _extension_facts(extension: Extension) -> Iterator[tuple[str, str]]:
    yield "Method", method_words(extension.method)
    yield "Base", f"a network of {counted(extension.num_old, 'class')}, weights {extension.base[:16]}… (SHA-256)"
    yield "Old data", old_data_words(extension) + (", classes of one name merged" if extension.merge else "")
    if extension.backbone_lr != 1:
        yield "Backbone", f"at {extension.backbone_lr:g} times the rate" if extension.backbone_lr else "left as it is"
    if extension.distill:
        yield "Distillation", distill_words(extension)


def _length(inputs: Inputs) -> str:
    words = f"{len(inputs.log)} of {counted(inputs.recipe.epochs, 'epoch')}"
    limit = f", ended by the limit of {inputs.recipe.updates:,} updates" if inputs.recipe.updates else ""
    return words + (f", {inputs.log[-1].updates:,} updates" if inputs.log else "") + limit


def _kept(inputs: Inputs) -> str:
    best = max(inputs.log, key=lambda epoch: (epoch.validation_accuracy or 0.0, -(epoch.validation_loss or 0.0)))
    return f"those of epoch {best.epoch}, the best of {counted(len(inputs.log), 'epoch')} on the validation images"


def machine_facts(inputs: Inputs) -> Facts:
    """Say how long it took, on what, and how to do it again."""
    environment = inputs.environment
    return [
        *_time_facts(inputs),
        *_setup_facts(environment),
        ("Begun", moment(environment.started)),
        *(fact for segment in environment.segments for fact in _segment_facts(segment)),
        ("Evaluated", moment(inputs.evaluation.evaluated)),
    ]


def _setup_facts(setup: Setup) -> Facts:
    return [
        ("Device", _setup_words(setup)),
        ("Processor", setup.processor),
        ("Platform", setup.platform),
        ("Versions", _versions(setup)),
        ("Commit", setup.commit or "not known"),
    ]


def _segment_facts(segment: Segment) -> Facts:
    """Say what went on with the run, from which update on."""
    words = "; ".join(description for _, description in _setup_facts(segment))
    return [(f"From update {segment.updates + 1:,}", f"{words}; begun {moment(segment.started)}")]


def _time_facts(inputs: Inputs) -> Iterator[tuple[str, str]]:
    yield "Training time", duration(training_seconds(inputs))
    if inputs.log:
        speed = median(epoch.images_per_second for epoch in inputs.log)
        yield "Speed", f"{speed:,.0f} training images a second (median of the epochs)"


def device_words(environment: Environment) -> str:
    """Say on what was trained, in all its segments."""
    return ", then ".join(dict.fromkeys(map(_setup_words, (environment, *environment.segments))))


def _setup_words(setup: Setup) -> str:
    together = "" if setup.ranks == 1 else f", {setup.ranks} processes together"
    return f"{setup.device}, {counted(setup.threads, 'thread')}{together}, {setup.multiplied}"


def _versions(setup: Setup) -> str:
    names = {"reslab": setup.reslab, "PyTorch": setup.torch, "NumPy": setup.numpy}
    return ", ".join(f"{name} {version}" for name, version in {**names, "Python": setup.python}.items())
