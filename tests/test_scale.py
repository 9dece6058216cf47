"""The cluster scripts of docs/scale.md parse, Ray's is run, and its measurements show what the page says."""

import json
import os
import re
import shutil
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from reslab.runs import Run
from reslab.study import STUDIES

ROOT = Path(__file__).parents[1]
SCRIPTS = sorted([*ROOT.glob("docs/cluster/*.sh"), *ROOT.glob("docs/cluster/*.sbatch")])


def read_result(name: str) -> Any:
    return json.loads((ROOT / f"benchmarks/{name}.json").read_text())["result"]


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


# ---- measurements


def test_gradients_of_several_processes_are_those_of_one() -> None:
    assert all(found["gradients"] <= 1e-5 for found in read_result("ddp")["processes"].values())


def test_costs_beside_training_grow_in_proportion() -> None:
    """A run costs about as much of a thousand as of a hundred."""
    scale = read_result("scale")
    for found in scale["workers"].values():
        assert found["1000"]["overhead_per_run_ms"] < 2 * max(found["100"]["overhead_per_run_ms"], 15)
        assert found["1000"]["driver_mb"] - found["driver_mb_before"] < 200
    assert scale["report"]["1000"]["per_run_ms"] < 2 * scale["report"]["100"]["per_run_ms"]


@pytest.mark.parametrize("name", ["digits", "cifar10"])
def test_shards_train_as_memory_does(name: str) -> None:
    found = read_result("shards")[name]
    assert found["shards"]["weights"] == found["memory"]["weights"]


def test_a_million_images_fit_into_little_memory() -> None:
    found = read_result("larger_than_memory")
    assert found["file"]["peak_resident"] < 1.5e9 < found["bytes_of_images"]
