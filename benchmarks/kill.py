"""Kill training processes with SIGKILL, at random moments and inside writes, and count what is lost.

Every second attempt dies at a random moment; the others die right before or after a random flush or rename of the
run folder's files. Each run is then gone on with, and compared byte by byte with one that was never killed.
`compiled` updates are compiled; of `two` processes that train one run one or both die, and the other must end by
itself; a `study` trains a network, teaches it a class, and measures both.

    python benchmarks/kill.py --kills 300                  writes benchmarks/kill.json
    python benchmarks/kill.py --kills 100 --kind study     writes benchmarks/kill-study.json
"""

import argparse
import multiprocessing
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, NamedTuple

from record import write_record
from torch.distributed import TCPStore  # type: ignore[attr-defined]

from reslab.errors import Failure
from reslab.recipe import Linear, PreActResNet, Recipe, Sgd, Shift
from reslab.study.execute import run_study
from reslab.study.spec import Row, Study, Teaching, Training
from reslab.training import Safety, resume, train

OFTEN = Safety(5, "updates")
PATIENCE = 300.0  # seconds until what should have ended by itself counts as hung
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


class Kind(NamedTuple):
    """What is killed: so many processes that do this, at a moment within so many seconds."""

    size: int
    seconds: float


KINDS = {"one": Kind(1, 2.0), "compiled": Kind(1, 8.0), "two": Kind(2, 3.0), "study": Kind(1, 4.0)}


def work(kind: str, out: Path, environment: dict[str, str], die_at: int | None) -> None:
    """Begin the run or go on with it; with `die_at`, die at that step of writing, counted from 0."""
    os.environ.update(environment)
    if die_at is not None:
        die_in_a_write(die_at)
    try:
        if kind == "study":
            do_study(out)
        elif (out / "recipe.json").exists():
            resume(out, safety=OFTEN)
        else:
            train(RECIPE, out=out, safety=OFTEN, compile="on" if kind == "compiled" else "off")
    except Failure:
        sys.exit(1)


def do_study(out: Path) -> None:
    """Do what is missing of a small study."""
    recipe = out.with_name("recipe.json")
    recipe.write_text(RECIPE.model_dump_json())
    network = Row(label="network", job=Training(recipe=str(recipe)))
    lesson = Row(label="taught", job=Teaching(base="network", data="digits:0@20", method="nearest-mean"))
    run_study(Study(name="kill", title="Killed", rows=(network, lesson), seeds=1), out=out)


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


def attempt(kind: str, out: Path, *, chance: random.Random | None, inside: bool) -> list[int | None]:
    """Start the processes, kill where there is a `chance`; give their exit codes, None for one that hangs."""
    size, seconds = KINDS[kind]
    die_at = chance.randrange(60) if chance and inside else None
    store = TCPStore("127.0.0.1", 0, is_master=True)  # as torchrun's, which outlives those that it has started
    shared = {
        "WORLD_SIZE": str(size),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(store.port),
        "TORCHELASTIC_USE_AGENT_STORE": "True",
        "TORCHELASTIC_RESTART_COUNT": "0",
    }
    context, processes = multiprocessing.get_context("forkserver"), []
    for rank in range(size):
        environment = {**shared, "RANK": str(rank), "LOCAL_RANK": str(rank)}
        arguments = (kind, out, environment, None if rank else die_at)
        processes.append(context.Process(target=work, args=arguments))
        processes[-1].start()
    if chance and not inside:
        time.sleep(chance.uniform(0.0, seconds))
        for process in chance.sample(processes, chance.randint(1, size)):
            process.kill()
    return [end(process) for process in processes]


def end(process: BaseProcess) -> int | None:
    """Wait for a process that ends by itself; gives its exit code, or None where it does not."""
    process.join(PATIENCE)
    code = process.exitcode
    process.kill()
    process.join()
    return code


def read(folder: Path) -> dict[str, bytes]:
    """Read what must be equal: networks, and what they say."""
    files = [*folder.rglob("model.safetensors"), *folder.rglob("predictions-*.npz")]
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(files)}


def kill(kind: str, num_kills: int, *, folder: Path, out: Path) -> None:
    """Kill so often, count the runs that ended, were lost, or differ, and write the counts after each run."""
    assert attempt(kind, folder / "whole", chance=None, inside=False) == [0] * KINDS[kind].size
    whole, run, chance = read(folder / "whole"), folder / "run", random.Random(0)
    found: dict[str, Any] = {
        "kind": kind,
        "kills": 0,
        "inside_writes": 0,
        "runs": 0,
        "lost": 0,
        "hung": 0,
        "different": 0,
    }
    number = 0
    while found["kills"] < num_kills or run.exists():
        inside = number % 2 == 1
        number += 1
        codes = attempt(kind, run, chance=chance if found["kills"] < num_kills else None, inside=inside)
        count(found, kills=-signal.SIGKILL in codes, hung=None in codes)
        if -signal.SIGKILL in codes:
            count(found, inside_writes=inside)
            continue
        lost = any(codes)
        count(found, runs=True, lost=lost, different=not lost and read(run) != whole)
        shutil.rmtree(run)
        write_record(out, found)


def count(found: dict[str, Any], **seen: bool) -> None:
    for name, value in seen.items():
        found[name] += value


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=300)
    parser.add_argument("--kind", choices=KINDS, default="one")
    parser.add_argument("--out", type=Path, help="kill.json or kill-KIND.json here by default")
    options = parser.parse_args()
    name = "kill.json" if options.kind == "one" else f"kill-{options.kind}.json"
    os.environ["OMP_NUM_THREADS"] = "1"  # of the processes to come
    preloaded = ["reslab.training", "reslab.study", "reslab.evaluation", "sklearn.datasets"]
    multiprocessing.get_context("forkserver").set_forkserver_preload(preloaded)
    with tempfile.TemporaryDirectory() as folder:
        kill(options.kind, options.kills, folder=Path(folder), out=options.out or Path(__file__).with_name(name))


if __name__ == "__main__":
    main()
