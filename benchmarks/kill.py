"""Kill training processes with SIGKILL, at random moments and inside writes, and count what is lost.

Every second process dies at a random moment; the others die right before or after a random flush or rename of the
run folder's files. Each run is then gone on with, and compared byte by byte with one that was never killed.

    python benchmarks/kill.py --kills 300          writes benchmarks/kill.json
"""

import argparse
import multiprocessing
import os
import random
import shutil
import signal
import tempfile
import time
from pathlib import Path
from typing import Any

from record import write_record

from reslab.recipe import Linear, PreActResNet, Recipe, Sgd, Shift
from reslab.training import Safety, resume, train

OFTEN = Safety(5, "updates")
RECIPE = Recipe(
    name="kill",
    source="benchmarks/kill.py",
    data="digits:1,4,7@40",
    image_size=8,
    validation=9,
    augment=(Shift(fraction=0.1),),
    model=PreActResNet(depth=8, width=8),
    optimizer=Sgd(peak_lr=0.1, weight_decay=1e-3),
    schedule=Linear(warmup=0.2),
    epochs=20,
    batch_size=20,
)


def work(out: Path, die_at: int | None) -> None:
    """Begin the run or go on with it; with `die_at`, die at that step of writing, counted from 0."""
    if die_at is not None:
        die_in_a_write(die_at)
    if (out / "recipe.json").exists():
        resume(out, safety=OFTEN)
    else:
        train(RECIPE, out=out, safety=OFTEN)


def die_in_a_write(step: int) -> None:
    """Let the process kill itself before (even) or after (odd) the flush or rename number `step // 2`."""
    steps = iter(range(2 * step + 2))

    def deadly(real: Any) -> Any:
        def call(*arguments: Any) -> Any:
            if next(steps) == step:
                os.kill(os.getpid(), signal.SIGKILL)
            result = real(*arguments)
            if next(steps) == step:
                os.kill(os.getpid(), signal.SIGKILL)
            return result

        return call

    os.fsync, os.replace = deadly(os.fsync), deadly(os.replace)


def run_process(out: Path, *, chance: random.Random | None, inside: bool) -> int:
    """Run one process and kill it where there is a `chance`; return its exit code."""
    die_at = chance.randrange(60) if chance and inside else None
    process = multiprocessing.get_context("forkserver").Process(target=work, args=(out, die_at))
    process.start()
    if chance and not inside:
        time.sleep(chance.uniform(0.0, 2.0))
        process.kill()
    process.join()
    assert process.exitcode is not None
    return process.exitcode


def kill(num_kills: int, *, folder: Path) -> dict[str, int]:
    """Kill so many processes and count the runs that ended, were lost, or differ."""
    run_process(folder / "whole", chance=None, inside=False)
    whole = (folder / "whole/model.safetensors").read_bytes()
    chance = random.Random(0)
    found = {"kills": 0, "inside_writes": 0, "runs": 0, "lost": 0, "different": 0}
    attempt = 0
    while found["kills"] < num_kills or (folder / "run").exists():
        inside = attempt % 2 == 1
        code = run_process(folder / "run", chance=chance if found["kills"] < num_kills else None, inside=inside)
        attempt += 1
        if code == -signal.SIGKILL:
            found["kills"] += 1
            found["inside_writes"] += inside
            continue
        found["runs"] += 1
        found["lost"] += code != 0
        found["different"] += code == 0 and (folder / "run/model.safetensors").read_bytes() != whole
        shutil.rmtree(folder / "run")
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=300)
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".json"))
    options = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"  # of the processes to come
    multiprocessing.get_context("forkserver").set_forkserver_preload(["reslab.training", "sklearn.datasets"])
    with tempfile.TemporaryDirectory() as folder:
        write_record(options.out, kill(options.kills, folder=Path(folder)))


if __name__ == "__main__":
    main()
