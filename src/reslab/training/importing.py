"""Import of weights trained elsewhere into a run folder.

Even if all shapes fit, predictions can be noise, so the network is tested on training images; the test split stays
closed.
"""

from pathlib import Path

import torch

from reslab import models
from reslab.data.batches import seeded
from reslab.data.images import ImageSet
from reslab.data.load import check_outside
from reslab.data.recipe_data import find_base
from reslab.errors import UserError, did_you_mean
from reslab.machine.device import pick_device
from reslab.models.maps import FAMILIES, adapt, translate
from reslab.network.network import Network, describe_weights
from reslab.network.state_dict import read_state_dict
from reslab.recipe.networks import MODELS, Model
from reslab.recipe.recipe import Imported, Recipe, derive
from reslab.recipe.shipped import find_recipe
from reslab.runs import Run
from reslab.training.begin import Computing, begin, read_splits
from reslab.training.distributed import Team
from reslab.words import percent

NUM_TRIED = 2000  # training images
AT_LEAST = 0.5  # accuracy on them


def import_weights(
    file: Path | str,
    *,
    model: str,
    map: str,
    data: str,
    out: Path | str,
    image_size: int | None = None,
    at_least: float = AT_LEAST,
    data_dir: Path | None = None,
) -> tuple[Run, float]:
    """Import a file of weights as a finished run.

    Parameters
    ----------
    file : Path or str
        A `.safetensors` file, or a state dict written by `torch.save`; loading never executes code in it.
    model : str
        One of `reslab.MODELS`, such as `resnet56`.
    map : str
        How its tensors are named: `akamaster`, `chenyaofo`, `torchvision`, or `order` for any other names, if the
        tensors are in the order of the forward pass.
    data : str
        Data expression that it was trained on; its classes must be in the same order.
    out : Path or str
        The run folder to make.
    image_size : int, optional
        Side in pixels to which images are resized; by default the one that the network was designed for, such as 32
        or 224.
    at_least : float, default 0.5
        Refuse the weights if the accuracy on training images is lower.
    data_dir : Path, optional
        Folder of downloaded data, instead of `$RESLAB_DATA` or the cache directory.

    Returns
    -------
    Run
        The finished run, which can be evaluated, reported, extended or exported like any other.
    float
        The accuracy on up to 2000 training images.

    Raises
    ------
    UserError
        If the file cannot be read, its tensors do not fit the network, or its accuracy is too low.

    Examples
    --------
    >>> import reslab, torch
    >>> network = reslab.build(reslab.MODELS["resnet20"], num_classes=2, channels=1)
    >>> torch.save(network.state_dict(), "mine.pth")
    >>> run, accuracy = reslab.import_weights(
    ...     "mine.pth", model="resnet20", map="order", data="digits:1,4", out="runs/mine", at_least=0
    ... )
    >>> run.is_finished, run.recipe.source
    (True, 'imported')
    """
    if model not in MODELS:
        raise UserError(f"--model {model}: {did_you_mean(model, MODELS, otherwise='reslab models lists them')}")
    check_outside(out, data, data_dir=data_dir)
    options, found = adapt(MODELS[model], map), read_state_dict(Path(file))
    family = FAMILIES.get(map)
    recipe = derive(
        find_recipe("resnet-20"),
        name=f"imported-{model}",
        source="imported",
        published=None,
        data=data,
        image_size=image_size or _usual_size(options),
        model=options,
        standardize=family.standardize if family else None,
        imported=Imported(file=Path(file).name, sha256=found.sha256, map=map),
    )
    team = Team(pick_device("cpu"))
    with begin(
        recipe,
        out=out,
        seed=0,
        team=team,
        read=lambda: read_splits(recipe, data_dir=data_dir, allow_remote=True, team=team),
        computing=Computing(compile="off", precision="float32"),
        data_from=find_base(data, data_dir),
    ) as begun:
        images = begun.splits[0]
        network = _build(recipe, images)
        like = network.module.state_dict()
        network.module.load_state_dict(translate(found.tensors, name=map, like=like))
        accuracy = _try(network, images)
        if accuracy < at_least:
            raise UserError(
                f"only {percent(accuracy)} of the training images are classified correctly at {recipe.image_size} "
                "pixels a side: the tensors fit, but the channels, the standardization, the image size or the order of "
                "the classes may not; try another --map, --image-size or --data, or accept it with --at-least 0"
            )
        begun.run.write_weights(network.to_bytes())
    return begun.run, accuracy


def _usual_size(model: Model) -> int:
    """Return the side in pixels of the images that a network was designed for."""
    with torch.device("meta"):
        return models.build(model, num_classes=2, channels=3).image_size


def _build(recipe: Recipe, images: ImageSet) -> Network:
    weights = describe_weights(recipe, images, by=recipe.standardize or images.statistics())
    module = models.build(recipe.model, num_classes=len(weights.classes), channels=weights.channels)
    return Network(module.eval(), weights)


def _try(network: Network, images: ImageSet) -> float:
    chosen = torch.randperm(len(images.labels), generator=seeded(0, "import"))[:NUM_TRIED]
    some = images.subset(chosen)
    return float((network.logits(some.images).argmax(1) == some.labels).float().mean())
