"""Make the network that comes with reslab from a run on CIFAR-10 that held images out: 8-bit weights, eight pictures.

python tools/demo.py RUN DATA
reslab pull demo --out runs/demo
reslab evaluate runs/demo --data-dir DATA       whose evaluation.json then belongs beside the weights
"""

import re
import sys
from pathlib import Path

import torch
from PIL import Image

from reslab.data.recipe_data import read_split
from reslab.machine import kernels
from reslab.network.finishing import finish
from reslab.network.network import Network
from reslab.runs import DEMO_FOLDER, Run, write_bytes

CLASSES = ("airplane", "automobile", "bird", "cat", "dog", "frog", "horse", "ship")


def main(source: Path, data: Path) -> None:
    """Write the folder."""
    run = Run.open(source)
    images, held_out = (read_split(run.recipe, split, data_dir=data) for split in ("train", "validation"))
    rounded = DEMO_FOLDER / "model.safetensors"
    DEMO_FOLDER.joinpath("pictures").mkdir(parents=True, exist_ok=True)
    write_bytes(rounded, Network.load(run.path).to_bytes(compact=True))
    network = Network.load(rounded)
    kernels.enable(network.device)
    # The images that the rounded network knows, and how like them the held-out ones are.
    network = finish(network, images=images, held_out=held_out, calibrated=True).network
    write_bytes(rounded, network.to_bytes(compact=True))
    demo = Run(DEMO_FOLDER)
    demo.write_recipe(run.recipe)
    here = re.sub(r"--out \S+", "--out runs/fast94", run.environment.command)  # not where this machine keeps it
    demo.write_environment(run.environment.model_copy(update={"command": here}))
    write_bytes(demo.path / "log.jsonl", (run.path / "log.jsonl").read_bytes())
    for name in CLASSES:  # the first of each that was held out, whatever the network says of it
        first = int((held_out.labels == held_out.classes.index(name)).nonzero()[0])
        pixels = held_out.images[torch.tensor([first])][0].permute(1, 2, 0).numpy()
        Image.fromarray(pixels).save(DEMO_FOLDER / "pictures" / f"{name}.png", optimize=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
