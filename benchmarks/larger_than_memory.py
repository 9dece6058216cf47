"""A million images from a file on the disk against the same images in memory: resident memory, and batches a second.

python benchmarks/larger_than_memory.py             writes benchmarks/larger_than_memory.json; needs 7 GB of disk

Both processes read the same npz file by `load`, hold validation images out, take the fingerprint and the statistics,
as every training does, and then shuffle, standardise and augment batches in turn. The first one reads the file into the
cache and takes batches from there; the second one copies the set into memory. Memory is what Linux says of a process:
`peak_resident` is the most that was resident (VmHWM); `peak_private` the most that was its own (RssAnon), which no
other process shares and the system cannot take back. What was read of the file stays in the system's cache as long as
there is room, and counts for no process.
"""

import argparse
import json
import os
import re
import statistics
import sys
import tempfile
import time
import zipfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from alternate import Worker, alternate, compare, serve
from record import write_record

from reslab.data.batches import Batches
from reslab.data.load import load
from reslab.data.split import hold_out
from reslab.recipe.shipped import find_recipe

NUM_IMAGES, SIDE, CLASSES = 1_000_000, 32, 10
STEP = 16  # batches
HELD_OUT = 5000


def write_npz(path: Path, num: int) -> None:
    """Write noise to an npz file, a few images at a time."""
    generator = np.random.default_rng(0)
    with zipfile.ZipFile(path, "w") as archive:
        for name, count in (("images", num), ("test_images", 100)):
            with archive.open(f"{name}.npy", "w", force_zip64=True) as stream:
                header = {"descr": "|u1", "fortran_order": False, "shape": (count, SIDE, SIDE, 3)}
                np.lib.format.write_array_header_1_0(stream, header)
                for start in range(0, count, 10_000):
                    stream.write(generator.bytes(min(10_000, count - start) * SIDE * SIDE * 3))
            labels = np.arange(count) % CLASSES
            with archive.open(f"{name.replace('images', 'labels')}.npy", "w") as stream:
                np.lib.format.write_array(stream, labels)


def memory(field: str) -> int:
    """Ask Linux for a figure of this process, in bytes."""
    found = re.search(rf"{field}:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found
    return int(found[1]) * 1024


def take_steps(where: str, path: Path, out: Path) -> Iterator[None]:
    """Load, then yield after every so many batches; the memory is written to `out`."""
    torch.set_num_threads(1)
    began = time.perf_counter()
    images, held = hold_out(load(f"npz:{path}", "train"), HELD_OUT, seed=0)
    loaded = time.perf_counter() - began
    if where == "memory":
        images = replace(images, images=images.images[:])
    fingerprint, by = images.fingerprint, images.statistics()
    prepared = time.perf_counter() - began
    batches = Batches(images, recipe=find_recipe("lab-resnet32"), by=by, seed=0, device=torch.device("cpu"))
    private = 0
    for place, _ in enumerate((batch for epoch in range(100) for batch in batches.epoch(epoch)), 1):
        if place % STEP == 0:
            private = max(private, memory("RssAnon"))
            found = {
                "peak_resident": memory("VmHWM"),
                "peak_private": private,
                "seconds_to_load": round(loaded, 1),
                "seconds_to_load_and_sum_up": round(prepared, 1),
                "images": len(images.labels) + len(held.labels),
                "fingerprint": fingerprint,
            }
            out.write_text(json.dumps(found))
            yield


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--num", type=int, default=NUM_IMAGES)
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--folder", type=Path, help="where to write 7 GB; a temporary folder by default")
    parser.add_argument("--worker", nargs=3, metavar=("WHERE", "NPZ", "OUT"), help=argparse.SUPPRESS)
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".json"))
    arguments = parser.parse_args()
    if arguments.worker:
        serve(take_steps(arguments.worker[0], *map(Path, arguments.worker[1:])))
        return
    with tempfile.TemporaryDirectory(dir=arguments.folder) as name:
        write_record(arguments.out, measure(Path(name), num=arguments.num, steps=arguments.steps))


def measure(folder: Path, *, num: int, steps: int) -> dict[str, object]:
    path = folder / "noise.npz"
    write_npz(path, num)
    found, workers = {}, {}
    for where in ("file", "memory"):  # the file first: to write it is part of what its memory is
        command = [sys.executable, __file__, "--worker", where, str(path), str(folder / f"{where}.json")]
        workers[where] = Worker(command, environment={"RESLAB_CACHE": str(folder / "cache"), "OMP_NUM_THREADS": "1"})
        workers[where].step()
    times = alternate(workers, steps=steps)
    for where, worker in workers.items():
        assert worker.process.stdin is not None
        worker.process.stdin.close()
        worker.process.wait()
        found[where] = json.loads((folder / f"{where}.json").read_text())
        found[where]["images_per_second"] = round(STEP * 128 / statistics.median(times[where]))
    assert found["file"].pop("fingerprint") == found["memory"].pop("fingerprint")
    return {
        "bytes_of_images": num * SIDE * SIDE * 3,
        **found,
        "file_takes_times_as_long": compare(times["file"], times["memory"]),
        "load": [round(value, 2) for value in os.getloadavg()],
    }


if __name__ == "__main__":
    main()
