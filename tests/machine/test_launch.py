"""What a process sets before PyTorch is loaded, and what that does to a training beside a busy neighbour."""

import os
import signal
import statistics
import subprocess
import sys
from pathlib import Path

import pytest

from reslab.machine import launch


@pytest.fixture
def fresh(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """A process without PyTorch and without settings."""
    monkeypatch.delitem(sys.modules, "torch")
    monkeypatch.setattr(os, "environ", {})
    return monkeypatch


def test_threads_are_as_many_as_cores_and_wait_without_spinning_long(fresh: pytest.MonkeyPatch) -> None:
    fresh.setattr(launch, "count_cores", lambda: 3)
    launch.set_up_threads()
    settings = {name: value for name, value in os.environ.items() if "OMP_" in name}
    assert settings == {"OMP_NUM_THREADS": "3", "OMP_PROC_BIND": "false", "GOMP_SPINCOUNT": str(launch.SPINS)}


@pytest.mark.parametrize(
    "settings",
    [{"OMP_NUM_THREADS": "1"}, {"OMP_WAIT_POLICY": "ACTIVE"}, {"GOMP_SPINCOUNT": "5"}, {"OMP_PROC_BIND": "1"}],
)
def test_what_the_environment_says_stays(fresh: pytest.MonkeyPatch, settings: dict[str, str]) -> None:
    os.environ.update(settings)
    launch.set_up_threads()
    assert settings.items() <= os.environ.items()
    assert ("OMP_WAIT_POLICY" in os.environ) != ("GOMP_SPINCOUNT" in os.environ)


def test_nothing_is_set_too_late(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "environ", {})
    launch.set_up_threads()
    assert not any("OMP_" in name for name in os.environ)


def test_the_command_line_sets_it_before_pytorch_is_loaded() -> None:
    program = (
        "import os, sys\n"
        "from reslab import cli\n"
        "cli.app = lambda **options: None\n"
        "try: cli.main()\n"
        "except SystemExit: pass\n"
        "import torch\n"
        "print(os.environ['OMP_NUM_THREADS'], torch.get_num_threads(), os.environ['GOMP_SPINCOUNT'])"
    )
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("OMP_", "GOMP_"))}
    done = subprocess.run([sys.executable, "-c", program], env=clean, capture_output=True, text=True, check=True)
    assert done.stdout.split() == [str(launch.count_cores())] * 2 + [str(launch.SPINS)]


# ---- cores


def machine(root: Path, monkeypatch: pytest.MonkeyPatch, *, siblings: dict[int, str], limits: dict[str, str]) -> None:
    """Describe processors by their siblings, and a container by its files."""
    for number, names in siblings.items():
        folder = root / f"cpu{number}/topology"
        folder.mkdir(parents=True)
        (folder / "thread_siblings_list").write_text(f"{names}\n")
    for name, text in limits.items():
        (root / name).parent.mkdir(exist_ok=True)
        (root / name).write_text(f"{text}\n")
    monkeypatch.setattr(launch, "PROCESSORS", root)
    monkeypatch.setattr(launch, "CGROUP", root)


FOUR_OF_TWO = {0: "0,2", 1: "1,3", 2: "0,2", 3: "1,3"}
V1 = "cpu/cpu.cfs_quota_us", "cpu/cpu.cfs_period_us"


@pytest.mark.parametrize(
    ("allowed", "siblings", "limits", "expected"),
    [
        ({0, 1}, {}, {}, 2),
        ({0, 1, 2, 3}, FOUR_OF_TWO, {}, 2),
        ({1, 3}, FOUR_OF_TWO, {}, 1),
        ({0, 1, 2, 3}, {}, {"cpu.max": "max 100000"}, 4),
        ({0, 1, 2, 3}, {}, {"cpu.max": "250000 100000"}, 2),
        ({0, 1, 2, 3}, {}, {"cpu.max": "50000 100000"}, 1),
        ({0, 1, 2, 3}, {}, {"cpu.max": "900000 100000"}, 4),
        ({0, 1, 2, 3}, {}, dict(zip(V1, ("300000", "100000"), strict=True)), 3),
        ({0, 1, 2, 3}, {}, dict(zip(V1, ("-1", "100000"), strict=True)), 4),
        ({0, 1, 2, 3}, {}, {"cpu.max": "nonsense"}, 4),
    ],
)
def test_cores_that_may_be_used_are_counted(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    allowed: set[int],
    siblings: dict[int, str],
    limits: dict[str, str],
    expected: int,
) -> None:
    machine(tmp_path, monkeypatch, siblings=siblings, limits=limits)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: allowed, raising=False)
    assert launch.count_cores() == expected


# ---- a busy neighbour

NETWORK = """
import sys, time
from reslab.machine.launch import set_up_threads
set_up_threads()
import torch
import torch.nn.functional as F
from reslab import models
from reslab.recipe.networks import ResNet
model = models.build(ResNet(depth=8), num_classes=10).to(memory_format=torch.channels_last)
images, labels = torch.randn(16, 3, 32, 32).to(memory_format=torch.channels_last), torch.zeros(16, dtype=torch.int64)
for _ in sys.stdin:
    began = time.perf_counter()
    for _ in range(4):
        F.cross_entropy(model(images), labels).backward()
    print(time.perf_counter() - began, flush=True)
"""


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="only Linux lets a process be put on a core")
def test_a_busy_neighbour_costs_no_more_than_its_share() -> None:
    cores = set(sorted(os.sched_getaffinity(0))[:2])
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("OMP_", "GOMP_"))}
    spinner = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    trainer = subprocess.Popen(
        [sys.executable, "-c", NETWORK],
        env=clean,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: os.sched_setaffinity(0, cores),
    )
    assert trainer.stdin is not None
    assert trainer.stdout is not None
    os.sched_setaffinity(spinner.pid, {min(cores)})
    seconds: dict[int, list[float]] = {signal.SIGSTOP: [], signal.SIGCONT: []}
    try:
        for _ in range(1 + 5):
            for switch, taken in seconds.items():
                spinner.send_signal(switch)
                trainer.stdin.write("\n")
                trainer.stdin.flush()
                taken.append(float(trainer.stdout.readline()))
    finally:
        spinner.kill()
        trainer.kill()
        spinner.wait()
        trainer.communicate()
    quiet, busy = (statistics.median(taken[1:]) for taken in seconds.values())
    assert busy < 2.2 * quiet
