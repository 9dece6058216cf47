"""docs/scale.md: its scripts parse, Ray's is run, and its figures are those of the committed measurements."""

import json
import os
import re
import shutil
import socket
import subprocess
import sys
from pathlib import Path
from statistics import median
from typing import Any

import pytest
import yaml

from reslab.runs import Run
from reslab.study import STUDIES

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs/scale.md").read_text(encoding="utf-8")
WORDS = " ".join(PAGE.split())
SCRIPTS = sorted([*ROOT.glob("docs/cluster/*.sh"), *ROOT.glob("docs/cluster/*.sbatch")])


def read_result(name: str) -> Any:
    return json.loads((ROOT / f"benchmarks/{name}.json").read_text())["result"]


def read_log() -> list[dict[str, float]]:
    return [json.loads(line) for line in (ROOT / "results/lab-resnet32-short/log.jsonl").read_text().splitlines()]


# ---- scripts


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_a_script_parses(script: Path) -> None:
    done = subprocess.run(["bash", "-n", str(script)], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert "set -euo pipefail" in script.read_text()
    assert re.search(r"reslab (study run|train)", script.read_text())


def test_the_manifest_of_kubernetes_is_whole() -> None:
    parts = list(yaml.safe_load_all((ROOT / "docs/cluster/kubernetes.yaml").read_text()))
    assert [part["kind"] for part in parts] == ["Service", "Deployment", "Deployment", "Job"]
    for part in parts[1:]:
        pod = part["spec"]["template"]
        if part["kind"] == "Deployment":
            assert part["spec"]["selector"]["matchLabels"] == pod["metadata"]["labels"]
        (container,) = pod["spec"]["containers"]
        assert {"name", "image", "command", "resources"} <= container.keys()
        assert {"secretRef": {"name": "reslab-cluster"}} in container["envFrom"]
    assert parts[0]["spec"]["selector"] == parts[1]["spec"]["template"]["metadata"]["labels"]
    (command,) = parts[3]["spec"]["template"]["spec"]["containers"][0]["args"]
    study = re.search(r"reslab study run (\S+) --ray auto .*--storage s3://", command)
    assert study is not None
    assert study[1] in STUDIES


def test_ray_s_job_server_runs_a_study(tmp_path: Path) -> None:
    """Against a head node that the script starts by `ray start`, and ends."""
    with socket.create_server(("127.0.0.1", 0)) as one, socket.create_server(("127.0.0.1", 0)) as other:
        ports = {"PORT": str(one.getsockname()[1]), "JOBS": str(other.getsockname()[1])}
    tools = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = {**os.environ, **ports, "PATH": tools, "OMP_NUM_THREADS": "1"}
    environment.pop("RAY_API_SERVER_ADDRESS", None)
    assert shutil.which("ray", path=tools)
    arguments = ("digits", "--seeds", "1", "--rows", "relu", "--epochs-scale", "0.05", "--out", str(tmp_path / "out"))
    with (tmp_path / "said").open("w") as said:  # no pipe: a daemon that outlived the script would keep it open
        script = [str(ROOT / "docs/cluster/ray-job.sh"), *arguments]
        done = subprocess.run(script, cwd=tmp_path, env=environment, stdout=said, stderr=said, timeout=600)
    text = (tmp_path / "said").read_text()
    assert done.returncode == 0, text
    assert "Runs done: 1; next: reslab study report digits" in text
    assert Run.open(tmp_path / "out/relu-0").is_evaluated
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", int(ports["JOBS"])), timeout=10)


# ---- figures


def test_the_page_quotes_the_differences_of_gradients() -> None:
    for size, found in read_result("ddp")["processes"].items():
        assert found["gradients"] <= 1e-5
        row = next((line for line in PAGE.splitlines() if line.startswith(f"| {size} processes")), "")
        assert size == "1" or row.endswith(f"| {found['gradients']:.1e} | {found['weights']:.1e} |")


def test_the_thousand_runs_follow_from_what_was_measured() -> None:
    minutes = sum(epoch["seconds"] for epoch in read_log()) / 60
    gpu = read_result("gpu")
    updates = gpu["resnet-20, graph: updates a second by processes at once"]
    gain = updates["12"] / updates["1"]
    assert f"takes [{minutes:.0f} minutes]" in WORDS
    assert f"{gain:.1f} times as many updates" in WORDS
    hours = round(1000 * minutes / 60, -2)
    assert f"| compute | {hours:.0f} hours of two cores |" in WORDS
    assert f"| with 64 workers | {hours / 64:.0f} hours |" in WORDS
    assert f"| money | {hours * 2 * 0.04:.0f} |" in WORDS


def test_the_numbers_of_imagenet_follow_from_what_was_measured() -> None:
    rate = median(epoch["images_per_second"] for epoch in read_log())
    images = 90 * 1_281_167
    slow = rate * 69.124736 / 3855.945728
    days = images / slow / 86400
    assert f"trains {rate:.0f} images a second on two cores" in WORDS
    assert f"| images a second | {slow:.0f} | 1,000 | 8,000 |" in WORDS
    assert f"| time | {days:.0f} days | {images / 3.6e6:.0f} hours | {images / 8 / 3.6e6:.0f} hours |" in WORDS
    assert f"| money | {days * 24 * 2 * 0.04:.0f} | {images / 3.6e6 * 2.5:.0f} | {images / 3.6e6 * 2.5:.0f} |" in WORDS
    assert f"uint8 | {1_281_167 * 224 * 224 * 3 / 1e9:.0f} GB |" in WORDS
    slowest = min(each["images_per_second"] for each in read_result("augment").values())
    assert f"[{slowest:,} small images a second]" in WORDS


def test_costs_beside_training_grow_in_proportion() -> None:
    """A run costs about as much of a thousand as of a hundred."""
    scale = read_result("scale")
    for found in scale["workers"].values():
        assert found["1000"]["overhead_per_run_ms"] < 2 * max(found["100"]["overhead_per_run_ms"], 15)
        assert found["1000"]["driver_mb"] - found["driver_mb_before"] < 200
    assert scale["report"]["1000"]["per_run_ms"] < 2 * scale["report"]["100"]["per_run_ms"]
    one, two = (scale["workers"][num]["1000"] for num in "12")
    assert (
        f"{one['overhead_per_run_ms']:.0f} ms a run with one worker and {two['overhead_per_run_ms']:.0f} with" in WORDS
    )
    assert f"memory stays at {one['driver_mb']} MB" in WORDS
    assert f"a report of a thousand runs takes {scale['report']['1000']['seconds']:.1f} s" in WORDS


@pytest.mark.parametrize(("name", "words"), [("digits", "digits, 8 epochs of"), ("cifar10", "CIFAR-10, 1 epoch of")])
def test_shards_train_as_memory_does(name: str, words: str) -> None:
    found = read_result("shards")[name]
    assert found["shards"]["weights"] == found["memory"]["weights"]
    low, high = (100 * end for end in found["streamed"]["interval"])
    cells = [f"{100 * found[source]['test_accuracy']:.2f} %" for source in ("memory", "shards", "streamed")]
    assert f"| {words} `{found['recipe']}` | {' | '.join(cells)} ({low:.1f}–{high:.1f}) |" in PAGE


def test_a_million_images_fit_into_little_memory() -> None:
    found = read_result("larger_than_memory")
    file, held, ratio = found["file"], found["memory"], found["file_takes_times_as_long"]
    assert file["peak_resident"] < 1.5e9 < found["bytes_of_images"]
    own, other = file["peak_private"] / 1e9, held["peak_resident"] / 1e9
    assert (
        f"at most {file['peak_resident'] / 1e9:.2f} GB resident, {own:.2f} GB of it its own; the other {other:.2f} GB"
        in WORDS
    )
    quartiles = f"{ratio['lower_quartile']:.2f}–{ratio['upper_quartile']:.2f}"
    assert f"Batches took {ratio['median']:.2f} times as long from the file ({quartiles})" in WORDS
