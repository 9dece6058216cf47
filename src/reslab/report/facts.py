"""The setup of a run as terms and descriptions: what was run, where, and for how long."""

from collections.abc import Iterator
from statistics import median

from reslab.language import grouped, say, short
from reslab.measure.shortfall import find_kept
from reslab.recipe.recipe import Extension, Flip, Imported, LinearHead, Recipe
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
    source_words,
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
        (say("Recipe"), recipe.name if recipe.extension else f"{recipe.name} ({source_words(recipe.source)})"),
        *(_extension_facts(recipe.extension) if recipe.extension else ()),
        (say("Network"), recipe.model.words),
        *(
            [(say("Starts from"), say("the ImageNet weights of {network}", network=recipe.pretrained))]
            if recipe.pretrained
            else []
        ),
        *([(say("Starts from"), f"{recipe.start.file}, SHA-256 {recipe.start.sha256[:16]}…")] if recipe.start else []),
        (say("Parameters"), grouped(inputs.num_parameters)),
        (say("Images"), images + resizing),
        *(_training_facts(inputs) if recipe.imported is None else [(say("Imported"), _imported(recipe.imported))]),
        *([(say("Sampling"), sampling_words(recipe.sampling))] if recipe.sampling else []),
        *(
            [(say("Not trained"), "; ".join(each.words(epochs=epochs) for each in recipe.freeze))]
            if recipe.freeze
            else []
        ),
        (say("Validation"), _validation(inputs)),
        (say("Seed"), str(inputs.environment.seed)),
    ]


def _validation(inputs: Inputs) -> str:
    if number := inputs.recipe.validation:
        used = inputs.environment.used("validation")  # a source with validation images of its own brings another number
        return say("{images} held out", images=counted(used.num_images if used else number, "image"))
    calibration = inputs.weights.calibration
    if calibration is not None and calibration.out_of_folds:
        return say("training images, judged out of folds")
    return say("nothing held out")


def _imported(imported: Imported) -> str:
    what = say("trained elsewhere: {file} ({map})", file=imported.file, map=imported.map)
    return f"{what}, SHA-256 {imported.sha256[:16]}…"


def _training_facts(inputs: Inputs) -> Facts:
    recipe = inputs.recipe
    return [
        (say("Augmentation"), _augmentation(recipe)),
        *([(say("Mixing"), mixing_words(recipe.mixing))] if recipe.mixing else []),
        (say("Optimizer"), optimizer_words(recipe.optimizer)),
        *(_update_facts(inputs) if not isinstance(recipe.optimizer, LinearHead) else ()),
    ]


def _augmentation(recipe: Recipe) -> str:
    """Describe the augmentation; a computed head sees every image and its mirror image, not one of both by chance."""
    if isinstance(recipe.optimizer, LinearHead) and all(isinstance(part, Flip) for part in recipe.augment):
        return say("each image and its mirror image") if recipe.augment else say("none")
    return augment_words(recipe.augment)


def _update_facts(inputs: Inputs) -> Facts:
    recipe, epochs, updates = inputs.recipe, len(inputs.log), inputs.log[-1].updates if inputs.log else 0
    return [
        (say("Learning rate"), recipe.rate_words(epochs=epochs, updates=updates)),
        (say("Loss"), _loss(recipe)),
        (say("Length"), _length(inputs)),
        *([(say("Weights"), _kept(inputs))] if recipe.early_stopping and inputs.log else []),
        (say("Batch"), _batch(recipe)),
    ]


def _loss(recipe: Recipe) -> str:
    parts = [say("cross-entropy")]
    if recipe.label_smoothing:
        parts.append(say("label smoothing {strength}", strength=short(recipe.label_smoothing)))
    if recipe.logit_adjustment:
        parts.append(adjustment_words(recipe.logit_adjustment))
    if recipe.class_weights:
        parts.append(say("classes weighted ({weights})", weights=class_weights_words(recipe)))
    return ", ".join(parts)


def _batch(recipe: Recipe) -> str:
    images = counted(recipe.batch_size, "image")
    if not recipe.micro_batch_size:
        return images
    return say("{images}, in micro-batches of {size}", images=images, size=grouped(recipe.micro_batch_size))


def _extension_facts(extension: Extension) -> Iterator[tuple[str, str]]:
    base = say(
        "a network of {classes}, weights {digest}… (SHA-256)",
        classes=counted(extension.num_old, "class"),
        digest=extension.base[:16],
    )
    yield say("Method"), method_words(extension.method)
    yield say("Base"), base
    yield say("Old data"), old_data_words(extension) + (say(", classes of one name merged") if extension.merge else "")
    if extension.backbone_lr != 1:
        slowed = say("at {factor} times the rate", factor=short(extension.backbone_lr))
        yield say("Backbone"), slowed if extension.backbone_lr else say("left as it is")
    if extension.distill:
        yield say("Distillation"), distill_words(extension)


def _length(inputs: Inputs) -> str:
    parts = [say("{done} of {epochs}", done=len(inputs.log), epochs=counted(inputs.recipe.epochs, "epoch"))]
    if inputs.log:
        parts.append(counted(inputs.log[-1].updates, "update"))
    if (limit := inputs.recipe.updates) and inputs.log and inputs.log[-1].updates >= limit:
        parts.append(say("ended by the limit of {updates}", updates=counted(limit, "update")))
    return ", ".join(parts)


def _kept(inputs: Inputs) -> str:
    return say(
        "those of epoch {epoch}, the best of {epochs} on the validation images",
        epoch=find_kept(inputs.log, inputs.recipe).epoch,
        epochs=counted(len(inputs.log), "epoch"),
    )


def machine_facts(inputs: Inputs) -> Facts:
    """Say how long it took, on what machine, and when."""
    environment = inputs.environment
    return [
        *_time_facts(inputs),
        *_setup_facts(environment),
        (say("Begun"), moment(environment.started)),
        *(fact for segment in environment.segments for fact in _segment_facts(segment)),
        (say("Evaluated"), moment(inputs.evaluation.evaluated)),
    ]


def _setup_facts(setup: Setup) -> Facts:
    return [
        (say("Device"), _setup_words(setup)),
        (say("Processor"), setup.processor),
        (say("Platform"), setup.platform),
        (say("Versions"), _versions(setup)),
        (say("Commit"), setup.commit or say("not known")),
    ]


def _segment_facts(segment: Segment) -> Facts:
    """Describe the machine that resumed the run, and from which update on."""
    words = "; ".join(description for _, description in _setup_facts(segment))
    term = say("From update {number}", number=grouped(segment.updates + 1))
    return [(term, f"{words}; {say('begun')} {moment(segment.started)}")]


def _time_facts(inputs: Inputs) -> Iterator[tuple[str, str]]:
    if inputs.recipe.imported is not None:
        return
    yield say("Training time"), duration(training_seconds(inputs))
    if inputs.log and not isinstance(inputs.recipe.optimizer, LinearHead):  # it has no epochs, only one computation
        speed = median(epoch.images_per_second for epoch in inputs.log)
        yield (
            say("Speed"),
            say("{images} a second (median of the epochs)", images=counted(round(speed), "training image")),
        )


def device_words(environment: Environment) -> str:
    """Name the devices of all segments of the training."""
    return f", {say('then')} ".join(dict.fromkeys(map(_setup_words, (environment, *environment.segments))))


def _setup_words(setup: Setup) -> str:
    together = "" if setup.ranks == 1 else say(", {number} processes together", number=setup.ranks)
    return f"{setup.device}, {counted(setup.threads, 'thread')}{together}, {setup.multiplied}"


def _versions(setup: Setup) -> str:
    names = {"reslab": setup.reslab, "PyTorch": setup.torch, "NumPy": setup.numpy}
    return ", ".join(f"{name} {version}" for name, version in {**names, "Python": setup.python}.items())
