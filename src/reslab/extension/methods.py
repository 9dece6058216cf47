"""The extension methods: a description of each, and the recipe that it makes from a base.

Sources: see `heads` for nearest-mean, weight aligning and imprinting, `training.objective` for logit adjustment and
distillation. A new head first and the whole network afterwards is the linear probing, then fine-tuning of Kumar et al.
2022, arXiv:2202.10054, in a form that sets the head without training.
"""

from pathlib import Path
from typing import Any, Final, NamedTuple

from reslab.data.images import ImageSet
from reslab.errors import UserError, did_you_mean, in_shell
from reslab.extension import fusion
from reslab.recipe.networks import Fusion, Model
from reslab.recipe.recipe import (
    AdamW,
    Cosine,
    Extension,
    Flip,
    Freeze,
    Linear,
    LinearHead,
    Method,
    Muon,
    Recipe,
    Resize,
    Sampling,
    Sgd,
    derive,
)
from reslab.recipe.shapes import Channels
from reslab.records import Weights
from reslab.runs import Run


class About(NamedTuple):
    """What users need to know to choose a method, and what it does with the network."""

    summary: str
    needs_old: bool = True  # whether it needs images of the old classes
    on_features: bool = False  # whether it trains on features computed once by a frozen backbone
    is_tuned: bool = False  # whether it trains all layers of the base further
    distills: bool = False  # whether the base teaches it
    is_fused: bool = False  # whether the base is joined with a pretrained network
    remembers: bool = False  # whether what `reslab remember` keeps can stand in for the old images
    settings: tuple[str, ...] | None = None  # fields of the recipe that may be set; None if the training takes all


# Of a method that trains the head alone; of the optimizer only the peak rate. The prior correction does not know of
# class weights.
_OF_HEAD: Final = ("epochs", "batch_size", "optimizer", "schedule", "label_smoothing", "logit_adjustment", "augment")

METHODS: Final[dict[Method, About]] = {
    "frozen": About("train a new head on the frozen backbone for 20 epochs", on_features=True, settings=_OF_HEAD),
    "frozen-balanced": About("frozen, with all classes weighted equally", on_features=True, settings=_OF_HEAD),
    "nearest-mean": About(
        "take the class with the nearest mean feature; no training", on_features=True, settings=("augment",)
    ),
    "fusion": About(
        "combine the old network with a pretrained one; train only a head",
        on_features=True,
        is_fused=True,
        remembers=True,
    ),
    "finetune": About("train all layers, the backbone more slowly, on balanced classes", is_tuned=True),
    "finetune-distill": About(
        "finetune, with distillation from the old network", needs_old=False, is_tuned=True, distills=True
    ),
    "finetune-fusion": About(
        "finetune-distill, then combine with a pretrained network", is_tuned=True, distills=True, is_fused=True
    ),
    "weight-align": About(
        "train all layers with distillation, then scale the head's new rows",
        needs_old=False,
        is_tuned=True,
        distills=True,
    ),
    "joint": About("train on all classes from scratch, by the base's recipe"),
}
DEFAULT: Final[Method] = "finetune-distill"
DEFAULT_OF_FIT: Final[Method] = "fusion"  # a pretrained network stays frozen, since training it takes hours
FUSED_LAYERS: Final = ("base.", "pretrained.", "head")  # how the names of a fused network's parameters begin

# What is trained on from a base takes none of these fields over.
RESET: Final[dict[str, Any]] = {
    "published": None,
    "start": None,
    "imported": None,
    "validation": 0,
    "trial": False,
    "early_stopping": None,
    "stream": None,
    "warm_until": None,
    "updates": None,
}

BACKBONE_LR, BACKBONE_LR_ALONE = 0.4, 0.05  # the latter without images of old classes, to preserve those
TUNED_SHARE = 0.75  # of the base's epochs
MOST_DRAWN = 12 * 47_250  # images shown to a tuned network, however long the base was trained
FEWEST_EPOCHS = 2
VALIDATION_SHARE = 0.1  # of each class, if the base held nothing out
PEAK_SHARE = 0.5  # of the base's peak rate
BALANCE = 1.0  # every class is drawn equally often


def default_method(base: Recipe) -> Method:
    """Choose a method for a base, by whether a pretrained network is in it."""
    return DEFAULT_OF_FIT if isinstance(base.optimizer, LinearHead) or isinstance(base.model, Fusion) else DEFAULT


def check_method(method: str, *, old_data: str | int, base: Path, remembers: bool) -> Method:
    """Return the method of that name. Raises: UserError if it is unknown, or it needs the old images.

    `fusion` does not need them if the base `remembers` them.
    """
    if method not in METHODS:
        hint = did_you_mean(method, METHODS, otherwise=f"choose from {', '.join(METHODS)}")
        raise UserError(f"unknown method {method!r}: {hint}")
    known: Method = method
    if old_data == "none" and METHODS[known].needs_old and not (METHODS[known].remembers and remembers):
        others = " or ".join(name for name, about in METHODS.items() if not about.needs_old)
        remember = f"run reslab remember {in_shell(base)} while you have them"
        instead = remember if METHODS[known].remembers else f"take {others}"
        raise UserError(f"{method} needs images of the old classes: give --old-data all or a number, or {instead}")
    return known


def backbone_rate(method: Method, *, old_data: str | int) -> float:
    """Return the backbone's learning rate as a share of the head's."""
    if METHODS[method].on_features or method == "joint":
        return 1.0
    return BACKBONE_LR_ALONE if old_data == "none" else BACKBONE_LR


def derive_recipe(base: Recipe, *, trained: int, weights: Weights, extension: Extension, data: str) -> Recipe:
    """Derive the recipe of an extension from that of its base, which was `trained` for so many epochs.

    `data` is the expression of all classes.
    Values that depend on the number of images are filled in by `complete`.
    """
    model = _describe_model(base, weights, extension)
    own = model.pretrained if isinstance(model, Fusion) else model
    if extension.method == "joint":
        base = base.lasting(base.epochs)  # steps and limits counted in updates are those of the base's images
    changes: dict[str, Any] = {
        "source": f"reslab extend, method {extension.method}, of a network trained by {base.name}",
        "data": data,
        # New images become grey or RGB like those of the base.
        "channels": channels_of(weights),
        "white": weights.white,
        "standardize": weights.standardize,
        "model": model,
        "pretrained": base.pretrained if base.pretrained == own.label else None,  # it may be beside another one
        "class_weights": "balanced" if base.class_weights == "balanced" else None,  # others are of the old classes
        "extension": extension,
    }
    if isinstance(base.optimizer, LinearHead):  # it has no training settings to take over
        tuning = {"optimizer": AdamW(layer_decay=0.9), "epochs": 20, "batch_size": 32}
        base = derive(base, name=base.name, freeze_norms=True, **tuning)  # few pictures would spoil the statistics
    return derive(
        base,
        name=f"{base.name}-{extension.method}",
        **RESET | changes | _training(base, extension, model, trained=trained),
    )


def channels_of(weights: Weights) -> Channels:
    """Return the channels to which new images are converted: grey or RGB, like those of the base."""
    return 1 if weights.channels == 1 else 3 if weights.channels == 3 else "auto"


def _describe_model(base: Recipe, weights: Weights, extension: Extension) -> Model:
    model = weights.model
    if extension.method == "joint":
        return base.model
    if METHODS[extension.method].is_fused:
        return fusion.describe(weights, keep_old=extension.keep_old is not None)
    # A trained head has no kept rows.
    return model.model_copy(update={"kept": ()}) if isinstance(model, Fusion) else model


def complete(recipe: Recipe, *, num_images: int, validation: int, trial: bool) -> Recipe:
    """Fill in the number of held-out images, the trial flag, and for a tuned network the number of images shown."""
    assert recipe.extension is not None
    changes: dict[str, Any] = {"validation": validation, "trial": trial}
    method, per_epoch = recipe.extension.method, num_images - validation
    is_tuned = METHODS[method].is_tuned
    if is_tuned and method != "weight-align":
        changes["sampling"] = Sampling(images_per_epoch=per_epoch, balance=BALANCE)
        changes["class_weights"] = None  # the draw balances the classes already
    completed = derive(recipe, name=recipe.name, **changes)
    return limit_length(completed, num_images=per_epoch) if is_tuned else completed


def limit_length(recipe: Recipe, *, num_images: int) -> Recipe:
    """Shorten a recipe that shows more than `MOST_DRAWN` images, with `num_images` in each epoch."""
    epochs = min(recipe.epochs, most_epochs(num_images))
    resizing = _resizing(recipe.progressive_resizing, epochs=epochs)
    return derive(recipe, name=recipe.name, epochs=epochs, progressive_resizing=resizing)


def most_epochs(num_images: int) -> int:
    """Return how many epochs of `num_images` a tuned network is shown at most."""
    return max(FEWEST_EPOCHS, -(-MOST_DRAWN // num_images))


def num_held_out(run: Run, images: ImageSet) -> int:
    """Return how many images to hold out: the base's share of every class, so that its held-out images stay held out.

    Raises: UserError if the base does not record how many it had.
    """
    sizes = {data.split: data.num_images for data in run.environment.data}
    held_out = sizes.get("validation", 0)
    if held_out and "train" not in sizes:
        raise UserError(f"{run.path}/environment.json does not record the training split: restore it, or train again")
    share = held_out / (held_out + sizes["train"]) if held_out else VALIDATION_SHARE
    return max(round(share * len(images.labels)), sum(count > 0 for count in images.counts()))


def _training(base: Recipe, extension: Extension, model: Model, *, trained: int) -> dict[str, Any]:
    match extension.method:
        case "fusion":
            head = LinearHead(penalty="chosen")
            return _on_features(base, extension.method) | {"augment": (), "optimizer": head, "epochs": 1}
        case "frozen" | "frozen-balanced" | "nearest-mean":
            return _on_features(base, extension.method)
        case "joint":
            return {"sampling": None, "logit_adjustment": 0.0}
        case "finetune-fusion":  # the base alone is tuned
            return slower(base, trained=trained)
        case _:
            return slower(base, trained=trained, is_fused=isinstance(model, Fusion))


def _on_features(base: Recipe, method: Method) -> dict[str, Any]:
    return {
        "augment": tuple(Flip() for part in base.augment if isinstance(part, Flip)),
        "mixing": (),
        "progressive_resizing": (),
        "freeze": (Freeze(parameters="", epoch=0),),
        "optimizer": Sgd(peak_lr=0.02),
        "schedule": Cosine(),
        "label_smoothing": 0.0,
        "class_weights": None,
        "logit_adjustment": 1.0 if method == "frozen-balanced" else 0.0,
        "epochs": 1 if method == "nearest-mean" else 20,
        "batch_size": 128,
        "micro_batch_size": None,
        "sampling": None,
    }


def slower(base: Recipe, *, trained: int, is_fused: bool = False) -> dict[str, Any]:
    """Return the changes to a base's recipe for continued training: a lower rate and fewer epochs.

    Layers that were frozen in the last of the `trained` epochs stay frozen. If what is trained `is_fused` with a
    pretrained network, they go by their names in there.
    """
    optimizer = base.optimizer
    changes: dict[str, Any] = {"peak_lr": optimizer.peak_lr * PEAK_SHARE}
    if isinstance(optimizer, Muon):
        changes["head_lr"] = optimizer.head_lr * PEAK_SHARE
        changes["bias_lr"] = optimizer.bias_lr * PEAK_SHARE
    epochs = max(FEWEST_EPOCHS, round(base.epochs * TUNED_SHARE))
    return {
        "progressive_resizing": _resizing(base.progressive_resizing, epochs=epochs),
        "freeze": tuple(
            Freeze(parameters=_rename(part.parameters, is_fused), epoch=0)
            for part in base.freeze
            if part.epoch < trained
        ),
        "optimizer": optimizer.model_copy(update=changes),
        "schedule": Linear(warmup=0.1),
        "logit_adjustment": 0.0,
        "epochs": epochs,
    }


def _rename(name: str, is_fused: bool) -> str:
    return f"base.{name}" if is_fused and not name.startswith(FUSED_LAYERS) else name


def _resizing(base: tuple[Resize, ...], *, epochs: int) -> tuple[Resize, ...]:
    """Resize progressively if the base did: three quarters of a side, seven eighths, then full size from epoch 2 on."""
    if not base or epochs < 4:
        return ()
    size = base[-1].image_size
    return tuple(Resize(epoch=epoch, image_size=size * eighths // 8) for epoch, eighths in enumerate((6, 7, 8)))
