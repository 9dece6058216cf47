"""What many runs cost beside their training: handing them out to workers, the driver's memory, the report.

Every run is simulated: a worker sleeps for its length. The overhead of a run is what its place on a worker costs beyond
that. For the report, finished runs of the digits are copied under their seeds.

    python benchmarks/scale.py          writes benchmarks/scale.json
"""

import argparse
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from record import write_record

from reslab.recipe.settings import with_settings
from reslab.recipe.shipped import find_recipe
from reslab.runs import Run, write_json
from reslab.study import STUDIES
from reslab.study.cluster import Cluster, do_all
from reslab.study.folder import claim
from reslab.study.job import do
from reslab.study.plan import Job, Machine, Saved, make_jobs
from reslab.study.report import write_study_report

SECONDS = 0.02  # of a simulated run
WORKERS, RUNS = (1, 2, 4), (100, 300, 1000)
REPORTED = (100, 300, 1000)
SCALE = 0.1  # of the digits' epochs


def simulate(job: Job, machine: Machine, *, saved: Saved | None = None) -> None:
    time.sleep(SECONDS)


def hand_out(num_workers: int) -> dict[str, Any]:
    """Let workers, which have started before, do more and more simulated runs."""
    import ray

    ray.init(address="local", num_cpus=num_workers, include_dashboard=False, log_to_driver=False)
    recipe = with_settings(find_recipe("digits-quick"), [])
    cluster, machine = Cluster(address="auto"), Machine()

    def send(num_runs: int) -> float:
        jobs = [Job("run", seed, Path(f"run-{seed}"), recipe) for seed in range(num_runs)]
        began = time.perf_counter()
        costs = [0.0] * num_runs
        outcome = do_all(
            jobs, costs, action=simulate, cluster=cluster, budget=None, machine=machine, say=lambda line: None
        )
        assert len(outcome.done) == num_runs
        return time.perf_counter() - began

    send(8 * num_workers)
    found: dict[str, Any] = {"driver_mb_before": read_megabytes()}
    for num_runs in RUNS:
        seconds = send(num_runs)
        overhead = 1000 * (seconds * num_workers / num_runs - SECONDS)
        found[str(num_runs)] = {
            "seconds": round(seconds, 3),
            "overhead_per_run_ms": round(overhead, 2),
            "driver_mb": read_megabytes(),
        }
    return found


def read_megabytes() -> int:
    """Read the most memory that this process has had."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 // 10**6


def report(num_runs: int, made: Path) -> dict[str, float]:
    """Time the report of a study with so many finished runs."""
    study = STUDIES["digits"]
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "digits"
        claim(out, study, scale=SCALE)
        shutil.copy(made / "gradients.json", out) if (made / "gradients.json").exists() else None
        for seed in range(num_runs // 2):
            for label in ("relu", "elu"):
                copy_run(made / f"{label}-0", out / f"{label}-{seed}", seed=seed)
        began = time.perf_counter()
        write_study_report(study, runs=out, out=Path(folder) / "report")
        seconds = time.perf_counter() - began
    return {"seconds": round(seconds, 3), "per_run_ms": round(1000 * seconds / num_runs, 2), "mb": read_megabytes()}


def copy_run(run: Path, out: Path, *, seed: int) -> None:
    """Copy what a report reads, under another seed."""
    out.mkdir()
    for name in ("recipe.json", "log.jsonl", "evaluation.json"):
        shutil.copy(run / name, out)
    (out / "model.safetensors").touch()
    write_json(out / "environment.json", Run(run).environment.model_copy(update={"seed": seed}).model_dump(mode="json"))


def measure(*arguments: object) -> Any:
    """Measure in a process of its own, since memory is a process's."""
    command = [sys.executable, __file__, "--serve", *map(str, arguments)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".json"))
    parser.add_argument("--serve", nargs="+", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.serve is not None:
        what, number, *made = arguments.serve
        found = hand_out(int(number)) if what == "hand-out" else report(int(number), Path(made[0]))
        print(json.dumps(found))
        return
    os.environ |= {"OMP_NUM_THREADS": "1", "RAY_USAGE_STATS_ENABLED": "0"}
    result: dict[str, Any] = {"simulated_seconds": SECONDS}
    with tempfile.TemporaryDirectory() as folder:
        made = Path(folder) / "made"
        for job in make_jobs(STUDIES["digits"], out=made, seeds=1, scale=SCALE):
            do(job, Machine())
        result["report"] = {str(runs): measure("report", runs, made) for runs in REPORTED}
    result["workers"] = {}
    for num in WORKERS:
        result["workers"][str(num)] = measure("hand-out", num)
        write_record(arguments.out, result | {"load": [round(load, 2) for load in os.getloadavg()]})


if __name__ == "__main__":
    main()
