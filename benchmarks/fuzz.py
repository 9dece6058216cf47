"""Feed broken and hostile bytes to everything that is read from outside, and count what goes wrong.

Each input either works or gives one sentence (UserError, Failure). A defect is anything else: another exception, more
than 10 s, more than 2 GB, a file written outside the input's folder, a program started.

    python benchmarks/fuzz.py --inputs 100000          writes benchmarks/fuzz.json
"""

import argparse
import os
import random
import resource
import signal
import socket
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

from fuzz_targets import TARGETS, Target
from mutate import mutate
from record import write_record

from reslab.errors import Failure, UserError

SECONDS, BYTES = 10, 2 * 10**9
PROGRAMS = ("subprocess.Popen", "os.system", "os.exec", "os.posix_spawn", "os.fork", "os.startfile")
CHANGES = ("os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.link", "os.symlink", "os.truncate", "os.chmod")

Found = dict[str, Any]


class HangError(BaseException):
    """It took too long; not an Exception, which some readers catch."""


class Guard:
    """Notes what a process does outside of the folder that it may write to."""

    folder: Path | None = None
    escapes: list[str]

    def __init__(self) -> None:
        self.escapes = []
        sys.addaudithook(self.note)  # it stays, and listens only inside `watching`

    def note(self, event: str, arguments: tuple[Any, ...]) -> None:
        if self.folder is None:
            return
        if event in PROGRAMS:
            self.escapes.append(f"{event} {arguments[0]}")
        elif event == "open" and isinstance(arguments[0], str | bytes):
            if arguments[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC):
                self.check(event, arguments[0])
        elif event in CHANGES:
            for path in arguments[:2]:
                if isinstance(path, str | os.PathLike) and os.path.isabs(path):
                    self.check(event, path)

    def check(self, event: str, path: Any) -> None:
        folder, self.folder = self.folder, None  # to look is no offence
        assert folder is not None
        place = Path(os.path.realpath(os.fsdecode(path)))
        self.folder = folder
        if not place.is_relative_to(folder):
            self.escapes.append(f"{event} {place}")

    @contextmanager
    def watching(self, folder: Path) -> Iterator[list[str]]:
        self.folder, self.escapes = folder, []
        try:
            yield self.escapes
        finally:
            self.folder = None


def feed(target: Target, content: bytes, *, folder: Path, guard: Guard) -> str:
    """Read one input; gives `works`, `refused`, or what went wrong."""

    def stop(number: int, frame: FrameType | None) -> None:
        raise HangError

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(SECONDS)
    try:
        with warnings.catch_warnings(), guard.watching(folder) as escapes:
            warnings.simplefilter("ignore")
            outcome = _read(target, content, folder)
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)
    return f"writes or runs {escapes[0]}" if escapes else outcome


def _read(target: Target, content: bytes, folder: Path) -> str:
    try:
        target.read(content, folder)
    except (UserError, Failure) as error:
        return "refused" if str(error).strip() else "refused without a word"
    except HangError:
        return f"hangs for {SECONDS} s"
    except BaseException as error:
        places = [frame for frame in traceback.extract_tb(error.__traceback__) if "reslab" in frame.filename]
        where = f"{Path(places[-1].filename).name}:{places[-1].lineno}" if places else "?"
        return f"{type(error).__name__} at {where}: {error}"[:200]
    return "works"


def fuzz(num_inputs: int, *, seed: int, folder: Path, defects: Path | None = None) -> Found:
    """Feed so many inputs, evenly to all targets, each one's first seed as it is, and count outcomes."""
    guard, chance = Guard(), random.Random(seed)
    seeds = {name: target.seeds() for name, target in TARGETS.items()}
    found: Found = {name: {"works": 0, "refused": 0, "slowest_seconds": 0.0, "defects": {}} for name in TARGETS}
    names = list(TARGETS)
    for number in range(num_inputs):
        name = names[number % len(names)]
        corpus = seeds[name]
        content = corpus[0] if number < len(names) else mutate(chance.choice(corpus), chance, others=corpus)
        began, memory = time.monotonic(), _peak()
        outcome = feed(TARGETS[name], content, folder=folder, guard=guard)
        seconds = time.monotonic() - began
        if _peak() > max(memory, BYTES):
            outcome = f"takes {_peak() / 1e9:.1f} GB"
        row = found[name]
        row["slowest_seconds"] = max(row["slowest_seconds"], round(seconds, 2))
        if outcome in ("works", "refused"):
            row[outcome] += 1
            continue
        row["defects"][outcome] = row["defects"].get(outcome, 0) + 1
        if defects is not None and row["defects"][outcome] == 1:
            (defects / f"{number}-{name.replace(' ', '-')}").write_bytes(content)
    return found


def _peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def stay_here() -> None:
    """Look up no name but this machine's: an answer may send its reader anywhere."""
    look_up = socket.getaddrinfo

    def find(host: Any, *arguments: Any, **options: Any) -> Any:
        if host not in ("127.0.0.1", b"127.0.0.1"):
            raise socket.gaierror(socket.EAI_NONAME, "not this machine")
        return look_up(host, *arguments, **options)

    socket.getaddrinfo = find
    os.environ["NO_PROXY"] = "*"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--inputs", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--defects", type=Path, help="a folder for the inputs that went wrong")
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".json"))
    options = parser.parse_args()
    sys.dont_write_bytecode = True
    stay_here()
    with tempfile.TemporaryDirectory() as folder:
        found = fuzz(options.inputs, seed=options.seed, folder=Path(folder).resolve(), defects=options.defects)
    total = {
        "inputs": options.inputs,
        **{outcome: sum(row[outcome] for row in found.values()) for outcome in ("works", "refused")},
        "defects": sum(sum(row["defects"].values()) for row in found.values()),
        "peak_megabytes": _peak() // 10**6,
    }
    write_record(options.out, {**total, "by_source": found})


if __name__ == "__main__":
    main()
