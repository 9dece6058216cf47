"""Kill training processes with SIGKILL, at random moments and inside writes, and count what is lost.

Every second attempt dies at a random moment; the others die right before or after a random flush or rename of the
run folder's files. Each run is then gone on with, and compared byte by byte with one that was never killed.
`compiled` updates are compiled, by each process anew, and the random moments come after its first one; of `two`
processes that train one run one or both die, and the other must end by itself; a `study` trains a network, teaches it a
class, and measures both.

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
import threading
import time
from functools import cache
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, NamedTuple

from record import write_record
from torch.distributed import TCPStore  # type: ignore[attr-defined]
from torch.optim.optimizer import register_optimizer_step_post_hook

from reslab.errors import Failure
from reslab.recipe.networks import PreActResNet
from reslab.recipe.recipe import Linear, Recipe, Sgd, Shift
from reslab.study.execute import run_study
from reslab.study.spec import Row, Study, Teaching, Training
from reslab.training import Safety, resume, train

OFTEN = Safety(5, "updates")
PATIENCE = 1200.0  # seconds until what should have ended by itself counts as hung; to compile may take minutes
NUM_STEPS = 60  # of writing, among which is the one to die at
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
    """What is killed: so many processes, within so many seconds that they have computed, however busy the machine."""

    size: int
    seconds: float


KINDS = {"one": Kind(1, 1.5), "compiled": Kind(1, 1.0), "two": Kind(2, 2.0), "study": Kind(1, 3.0)}


class Death(NamedTuple):
    """When a process kills itself: at a step of writing, counted from 0, after so many seconds, or never."""

    step: int | None = None
    seconds: float | None = None


def work(kind: str, out: Path, environment: dict[str, str], death: Death) -> None:
    """Begin the run or go on with it."""
    os.environ.update(environment)
    if death.step is not None:
        die_in_a_write(death.step)
    elif death.seconds is not None and kind == "compiled":
        die_in_training(death.seconds)
    elif death.seconds is not None:
        die_after(death.seconds)
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


def die_after(seconds: float) -> None:
    """Let the process kill itself once it has computed for so long from now."""
    end = time.process_time() + seconds

    def wait() -> None:
        while time.process_time() < end:
            time.sleep(0.001)
        os.kill(os.getpid(), signal.SIGKILL)

    threading.Thread(target=wait, daemon=True).start()


def die_in_training(seconds: float) -> None:
    """Let the process kill itself so long after its first update."""
    begin = cache(lambda: die_after(seconds))
    register_optimizer_step_post_hook(lambda *_: begin())


def attempt(kind: str, out: Path, deaths: list[Death]) -> list[int | None]:
    """Start a process for each of `deaths`; give their exit codes, None for one that hangs."""
    store = TCPStore("127.0.0.1", 0, is_master=True)  # as torchrun's, which outlives those that it has started
    shared = {
        "WORLD_SIZE": str(len(deaths)),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(store.port),
        "TORCHELASTIC_USE_AGENT_STORE": "True",
        "TORCHELASTIC_RESTART_COUNT": "0",
    }
    context, processes = multiprocessing.get_context("forkserver"), []
    for rank, death in enumerate(deaths):
        environment = {**shared, "RANK": str(rank), "LOCAL_RANK": str(rank)}
        processes.append(context.Process(target=work, args=(kind, out, environment, death)))
        processes[-1].start()
    return [end(process) for process in processes]


def draw(chance: random.Random, kind: Kind, *, inside: bool) -> list[Death]:
    """Draw which processes die, and when; in a write the first one does, since it alone writes."""
    deaths = [Death()] * kind.size
    if inside:
        deaths[0] = Death(step=chance.randrange(NUM_STEPS))
        return deaths
    seconds = chance.uniform(0.0, kind.seconds)
    for rank in chance.sample(range(kind.size), chance.randint(1, kind.size)):
        deaths[rank] = Death(seconds=seconds)
    return deaths


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
    nobody = [Death()] * KINDS[kind].size
    assert attempt(kind, folder / "whole", nobody) == [0] * KINDS[kind].size
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
        deaths = draw(chance, KINDS[kind], inside=inside) if found["kills"] < num_kills else nobody
        codes = attempt(kind, run, deaths)
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
    os.environ["OMP_NUM_THREADS"] = os.environ["TORCHINDUCTOR_COMPILE_THREADS"] = "1"  # of the processes to come
    preloaded = ["reslab.training", "reslab.study", "reslab.evaluation", "sklearn.datasets"]
    if options.kind == "compiled":
        preloaded += ["torch._inductor.compile_fx", "torch._dynamo.backends.inductor"]
    multiprocessing.get_context("forkserver").set_forkserver_preload(preloaded)
    with tempfile.TemporaryDirectory() as folder:
        kill(options.kind, options.kills, folder=Path(folder), out=options.out or Path(__file__).with_name(name))


if __name__ == "__main__":
    main()
