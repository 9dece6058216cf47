"""`torchrun … -m reslab train`: the launcher itself, as a person would type it."""

import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from reslab.runs import Run

COMMAND = (sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "reslab")


def test_two_processes_train_one_run_and_say_so_once(tmp_path: Path) -> None:
    arguments = ("train", "digits-quick", "--set", "epochs=2", "--out", "both")
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [*COMMAND, *arguments], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    assert re.fullmatch(r"Trained in [\d.]+ s; next: reslab evaluate both\n", done.stdout)
    assert len(re.findall(r"^epoch", done.stderr, re.MULTILINE)) == 2
    assert "Warning" not in done.stderr
    assert Run.open(tmp_path / "both").environment.ranks == 2


def test_no_thread_of_the_group_outlives_it(tmp_path: Path) -> None:
    """One that did could meet the end of the interpreter, and abort a process whose work was done."""
    script = tmp_path / "threads.py"
    script.write_text(
        "import os\n"
        "from pathlib import Path\n"
        "import torch\n"
        "from reslab.training.distributed import joined\n"
        "def count() -> int:\n"
        "    return sum('gloo' in file.read_text() for file in Path('/proc/self/task').glob('*/comm'))\n"
        "with joined(torch.device('cpu')) as team:\n"
        "    team.wrap(torch.nn.Linear(2, 2))(torch.ones(1, 2)).sum().backward()\n"
        "    meanwhile = count()\n"
        "os.write(1, f'threads {meanwhile > 0} {count()}\\n'.encode())\n"  # whole, though two processes write
    )
    done = subprocess.run([*COMMAND[:-2], script], capture_output=True, text=True, timeout=300)
    assert done.stdout.count("threads True 0") == 2, (done.stdout, done.stderr)


def test_what_is_no_training_is_refused(refuse: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert "torchrun is for reslab train only: run reslab evaluate without it" in refuse("evaluate", "runs/one")
