"""The commands that list what is shipped: networks and recipes."""

from typing import Annotated

import typer

from reslab.cli.options import Json

IMAGE_SIZE = 32


def models(
    num_classes: Annotated[int, typer.Option(min=2, help="Classes of the head.")] = 10,
    channels: Annotated[int, typer.Option(min=1, help="Channels of an image.")] = 3,
    json: Json = False,
) -> None:
    """List the networks with their parameters and their multiply-adds for an image of 32x32 pixels."""
    import torch

    from reslab.cli.show import print_json, print_table
    from reslab.models import MODELS, build, count_multiply_adds, count_parameters

    image = torch.zeros(channels, IMAGE_SIZE, IMAGE_SIZE)
    found = {}
    for name, description in MODELS.items():
        model = build(description, num_classes=num_classes, channels=channels)
        found[name] = {"parameters": count_parameters(model), "multiply_adds": count_multiply_adds(model, image=image)}
    if json:
        print_json(found)
        return
    print_table(
        f"Networks for {num_classes} classes and images of {channels}x{IMAGE_SIZE}x{IMAGE_SIZE}",
        ["name", "parameters", "multiply-adds"],
        [[name, f"{row['parameters']:,}", f"{row['multiply_adds'] / 1e6:,.1f} M"] for name, row in found.items()],
    )


def methods(json: Json = False) -> None:
    """List the methods of `reslab extend`."""
    from reslab.cli.show import print_json, print_table
    from reslab.extension.methods import DEFAULT, METHODS

    if json:
        print_json({name: {**about._asdict(), "default": name == DEFAULT} for name, about in METHODS.items()})
        return
    print_table(
        "Methods of extension",
        ["name", "what it is", "old images", "default"],
        [
            [name, about.summary, "needed" if about.needs_old else "optional", "yes" if name == DEFAULT else ""]
            for name, about in METHODS.items()
        ],
    )


def recipes(
    name: Annotated[str | None, typer.Argument(help="Print this recipe whole, as JSON.")] = None, json: Json = False
) -> None:
    """List the shipped recipes, or print one, which can be changed and trained from its file."""
    from reslab.cli.show import print_json, print_table
    from reslab.recipe import Published
    from reslab.recipes import RECIPES, find_recipe

    if name is not None:
        print_json(find_recipe(name).model_dump(mode="json"))
        return
    if json:
        print_json({name: recipe.model_dump(mode="json") for name, recipe in RECIPES.items()})
        return

    def published(figure: Published | None) -> str:
        if figure is None:
            return "-"
        return f"{figure.low:.2%}" if figure.low == figure.high else f"{figure.low:.2%} to {figure.high:.2%}"

    print_table(
        "Recipes; reslab recipes NAME prints one",
        ["name", "data", "network", "epochs", "batch", "published accuracy"],
        [
            [r.name, r.data, r.model.label, str(r.epochs), str(r.batch_size), published(r.published)]
            for r in RECIPES.values()
        ],
    )
