"""The same data trained from memory, from shards by way of the cache, and streamed from shards in every epoch.

python benchmarks/shards.py --data-dir DIR          writes benchmarks/shards.json
"""

import argparse
import hashlib
import os
import tempfile
from pathlib import Path

import torch
from record import write_record

from reslab.data.packing import pack
from reslab.evaluation import evaluate
from reslab.recipe.recipe import Recipe, derive
from reslab.recipe.shipped import find_recipe
from reslab.training import train

SETS = {  # expression, recipe, epochs, side, images in a shard, images in the buffer
    "digits": ("digits-quick", 8, 8, 200, 400),
    "cifar10": ("zoo-lenet", 1, 32, 5000, 10_000),
}


def measure(recipe: Recipe, *, out: Path, data_dir: Path | None) -> dict[str, object]:
    run = train(recipe, out=out, data_dir=data_dir, device="cpu", compile="off")
    test = evaluate(run, splits=["test"], data_dir=data_dir, device="cpu").splits["test"]
    return {
        "test_accuracy": test.accuracy.value,
        "interval": [round(test.accuracy.low, 4), round(test.accuracy.high, 4)],
        "seconds": round(sum(epoch.seconds for epoch in run.log), 1),
        "weights": hashlib.sha256(run.weights_path.read_bytes()).hexdigest(),
    }


def compare_ways(name: str, folder: Path, *, data_dir: Path | None) -> dict[str, object]:
    recipe_name, epochs, side, images_per_shard, buffer = SETS[name]
    url = str(folder / name)
    pack(name, url, data_dir=data_dir, image_size=side, images_per_shard=images_per_shard)
    changes = {"data": name, "epochs": epochs, "image_size": side}
    memory = derive(find_recipe(recipe_name), name=f"{name}-shards", **changes)
    shards = derive(memory, name=memory.name, data=f"shards:{url}")
    ways = {"memory": memory, "shards": shards, "streamed": derive(shards, name=memory.name, stream=buffer)}
    found = {way: measure(each, out=folder / f"{name}-{way}", data_dir=data_dir) for way, each in ways.items()}
    return {"recipe": recipe_name, "epochs": epochs, "buffer": buffer, **found}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data-dir", type=Path)
    parser.add_argument("--sets", default=",".join(SETS))
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".json"))
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name:
        os.environ["RESLAB_CACHE"] = str(Path(name) / "cache")
        result = {
            each: compare_ways(each, Path(name), data_dir=arguments.data_dir) for each in arguments.sets.split(",")
        }
    write_record(arguments.out, result)


if __name__ == "__main__":
    main()
