"""The commands that list what is shipped: networks and recipes."""

from collections.abc import Iterable
from typing import TYPE_CHECKING, Annotated, Any

import typer

from reslab.cli.options import Device, Json, Threads, use_threads
from reslab.errors import UserError, did_you_mean

if TYPE_CHECKING:
    from reslab.recipe.networks import Model
    from reslab.recipe.recipe import Published, Recipe

EPOCH = 50_000  # images, as in CIFAR
NUM_IMAGES = {"cifar10": EPOCH, "cifar100": EPOCH, "digits": 1_438}  # to train on
BATCH = 32  # images per timed update


def models(
    names: Annotated[list[str] | None, typer.Argument(help="Only these networks.")] = None,
    num_classes: Annotated[int, typer.Option(min=2, max=100_000, help="Number of classes.")] = 10,
    channels: Annotated[int, typer.Option(min=1, max=1024, help="Image channels.")] = 3,
    measure: Annotated[bool, typer.Option("--measure", help="Time an epoch of 50,000 images on this machine.")] = False,
    device: Device = "auto",
    threads: Threads = None,
    json: Json = False,
) -> None:
    """List the networks with their parameters, multiply-adds and training memory per image, and receptive field."""
    use_threads(threads)
    from reslab.cli.show import print_json, print_table
    from reslab.data.progress import counting
    from reslab.recipe.networks import MODELS

    for name in names or ():
        if name not in MODELS:
            hint = did_you_mean(name, MODELS, otherwise="choose another,")
            raise UserError(f"unknown network {name!r}: {hint} see reslab models")
    found = {}
    with counting("counting", total=len(names or MODELS), unit="networks") as show:
        for place, name in enumerate(names or MODELS, 1):
            timed_on = device if measure else None
            found[name] = _cost(MODELS[name], num_classes=num_classes, channels=channels, device=timed_on)
            show(place)
    if json:
        print_json(found)
        return
    columns = ["name", "image", "parameters", "multiply-adds", "memory per image", "receptive field"]
    print_table(
        f"Networks for {num_classes} classes and images of {channels} channels",
        [*columns, f"seconds for {EPOCH:,} images"] if measure else columns,
        [[name, *_cost_words(row)] for name, row in found.items()],
    )


def _cost(options: "Model", *, num_classes: int, channels: int, device: str | None) -> dict[str, Any]:
    """Count what a network costs, and time it on `device` if one is given."""
    import torch

    from reslab.machine import kernels
    from reslab.machine.device import pick_device
    from reslab.machine.timing import time_update
    from reslab.models import build, costs
    from reslab.network.inference import place_on

    with torch.device("meta"):
        model = build(options, num_classes=num_classes, channels=channels)
    side = model.image_size
    image = torch.zeros(channels, side, side, device="meta")
    found = {
        "image_size": side,
        "parameters": costs.count_parameters(model),
        "multiply_adds": costs.count_multiply_adds(model, image=image),
        "memory": costs.count_memory(model, image=image),
        "receptive_field": costs.measure_receptive_field(model, image=image),
    }
    if device is None:
        return found
    chosen = pick_device(device)
    kernels.enable(chosen)
    real = place_on(build(options, num_classes=num_classes, channels=channels), chosen)
    seconds = time_update(real, batch=(BATCH, channels, side, side))
    return found | {"seconds_per_epoch": round(seconds * EPOCH / BATCH, 1)}


def _cost_words(row: dict[str, Any]) -> list[str]:
    words = [
        f"{row['image_size']}x{row['image_size']}",
        f"{row['parameters']:,}",
        f"{row['multiply_adds'] / 1e6:,.1f} M",
        f"{row['memory'] / 1e6:,.1f} MB",
        f"{row['receptive_field']:,}",
    ]
    return [*words, f"{row['seconds_per_epoch']:,.0f}"] if "seconds_per_epoch" in row else words


def methods(json: Json = False) -> None:
    """List the methods of `reslab extend`."""
    from reslab.cli.show import print_json, print_table
    from reslab.extension.methods import DEFAULT, DEFAULT_OF_FIT, METHODS

    default_after = {DEFAULT: "train", DEFAULT_OF_FIT: "fit"}
    need = {True: "needed", False: "optional"}
    if json:
        shown = ("summary", "needs_old", "on_features")
        print_json(
            {
                name: {field: getattr(about, field) for field in shown} | {"default_after": default_after.get(name)}
                for name, about in METHODS.items()
            }
        )
        return
    print_table(
        "Methods of extension",
        ["name", "what it does", "old images", "default after"],
        [
            [
                name,
                about.summary,
                need[about.needs_old] + (", or remembered" if about.remembers else ""),
                default_after.get(name, ""),
            ]
            for name, about in METHODS.items()
        ],
    )


def recipes(
    name: Annotated[str | None, typer.Argument(help="Print this recipe as JSON.")] = None,
    measure: Annotated[
        bool, typer.Option("--measure", help="Time the networks to estimate the minutes on this machine, also as JSON.")
    ] = False,
    threads: Threads = None,
    json: Json = False,
) -> None:
    """List the shipped recipes with their published and measured accuracies, or print one as JSON to edit.

    Train an edited recipe by its file name. The minutes were measured on the processors named in results/; --measure
    estimates those of this machine from a few timed updates.
    """
    from reslab.cli.show import echo_sentences, print_json, print_table
    from reslab.recipe.shipped import RECIPES, find_recipe
    from reslab.recipe.shipped.measured import MEASURED
    from reslab.words import listing, percent

    if name is not None and not measure:
        print_json(find_recipe(name).model_dump(mode="json"))
        return
    chosen = RECIPES if name is None else {name: find_recipe(name)}
    use_threads(threads)
    estimates = _estimate_minutes(chosen.values()) if measure else {}
    if json:
        dumped = {name: recipe.model_dump(mode="json") for name, recipe in chosen.items()}
        print_json(estimates if measure else dumped)
        return

    def row(recipe: "Recipe") -> list[str]:
        known, here = MEASURED.get(recipe.name), estimates.get(recipe.name)
        return [
            *(recipe.name, recipe.data, str(recipe.epochs), _accuracy(recipe.published)),
            *((percent(known.accuracy), f"{known.minutes:,.0f}") if known else ("-", "-")),
            *(["-" if here is None else f"{here:,.0f}" if here >= 1 else f"{here:.1f}"] if measure else []),
        ]

    print_table(
        "Recipes; reslab recipes NAME prints one",
        ["name", "data", "epochs", "published", "measured", "minutes", *(["here"] if measure else [])],
        [row(recipe) for recipe in chosen.values()],
    )
    processors = sorted({name for each in MEASURED.values() for name in each.processor.split(" and ")})
    echo_sentences(
        f"Published and measured: test accuracy. Minutes: one or two cores of one of these: {', '.join(processors)}."
    )
    if measure and (unknown := [each.name for each in chosen.values() if each.name not in estimates]):
        them = "its number of images is" if len(unknown) == 1 else "their numbers of images are"
        echo_sentences(f"Not estimated: {listing(unknown)}, since {them} not known.")
    if not measure:
        echo_sentences("reslab recipes [NAME] --measure estimates the minutes on this machine.")


def _estimate_minutes(recipes: "Iterable[Recipe]") -> dict[str, float]:
    """Estimate each recipe's minutes here from a few timed updates; recipes for a user's own pictures are skipped."""
    from reslab.data.progress import counting
    from reslab.machine import kernels
    from reslab.machine.device import pick_device
    from reslab.machine.timing import time_update
    from reslab.models import build
    from reslab.network.inference import place_on

    device = pick_device("auto")
    kernels.enable(device)
    sized = [recipe for recipe in recipes if recipe.data in NUM_IMAGES]
    per_image: dict[Model, float] = {}
    with counting("timing networks", total=len(sized), unit="recipes") as show:
        for done, recipe in enumerate(sized):
            show(done)
            if recipe.model not in per_image:
                channels = 1 if recipe.data == "digits" else 3
                network = place_on(build(recipe.model, num_classes=10, channels=channels), device)
                batch = (BATCH, channels, recipe.image_size, recipe.image_size)
                per_image[recipe.model] = time_update(network, batch=batch) / BATCH
    return {
        each.name: per_image[each.model] * NUM_IMAGES[each.data] * each.epochs * each.share_of_pixels / 60
        for each in sized
    }


def _accuracy(figure: "Published | None") -> str:
    if figure is None:
        return "-"
    from reslab.words import between

    return between(figure.low, figure.high)
