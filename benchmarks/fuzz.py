"""Feed broken and hostile bytes to everything that is read from outside, and count what goes wrong.

Each input either works or gives one sentence (UserError, Failure). A defect is anything else: another exception, more
than 10 s, more than 2 GB, a file written outside the input's folder, a program started.

    python benchmarks/fuzz.py --inputs 100000          writes benchmarks/fuzz.json
    python benchmarks/fuzz.py --collect                writes the corpus in tests/fuzz/corpus

It works in parts and goes on after the last whole one when it is started again.
"""

import argparse
import json
import os
import random
import re
import resource
import signal
import socket
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import Any

from fuzz_targets import TARGETS, Target
from mutate import mutate
from record import write_record

from reslab.data.storage.cache import find_cache
from reslab.errors import Failure, UserError
from reslab.runs import write_json

SECONDS, BYTES = 10, 2 * 10**9
PART = 1000  # inputs after which the counts are kept
CORPUS = Path(__file__).parents[1] / "tests/fuzz/corpus"
PER_SOURCE, MAX_BYTES = 8, 20_000  # of the corpus
PROGRAMS = ("subprocess.Popen", "os.system", "os.exec", "os.posix_spawn", "os.fork", "os.startfile")
CHANGES = ("os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.link", "os.symlink", "os.truncate", "os.chmod")

Found = dict[str, Any]


class HangError(BaseException):
    """It took too long; not an Exception, which some readers catch."""


class Guard:
    """Notes what a process does outside of the folder and the cache that it may write to."""

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
        if not (place.is_relative_to(folder) or place.is_relative_to(find_cache().resolve())):
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
    warm_up(folder)
    guard, chance = Guard(), random.Random(seed)
    seeds = {name: target.seeds() + read_corpus(name) for name, target in TARGETS.items()}
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


def warm_up(folder: Path) -> None:
    """Read something sound of every source: PyTorch makes a folder for its cache when it is first asked for much."""
    for target in TARGETS.values():
        with suppress(UserError, Failure):
            target.read(target.seeds()[0], folder)


def fuzz_in_parts(num_inputs: int, *, seed: int, folder: Path, kept: Path, defects: Path | None = None) -> Found:
    """Feed so many inputs, adding up in `kept` what each part has found; begins after the parts that are there."""
    total: Found = json.loads(kept.read_text()) if kept.exists() else {"inputs": 0, "peak_bytes": 0, "by_source": {}}
    while total["inputs"] < num_inputs:
        size = min(PART, num_inputs - total["inputs"])
        found = fuzz(size, seed=seed * 10**6 + total["inputs"], folder=folder, defects=defects)
        for name, row in found.items():
            total["by_source"][name] = add(total["by_source"].get(name), row)
        total["inputs"] += size
        total["peak_bytes"] = max(total["peak_bytes"], _peak())
        write_json(kept, total)
    return total


def add(before: Found | None, row: Found) -> Found:
    """Put the counts of two parts together."""
    if before is None:
        return row
    defects = {each: before["defects"].get(each, 0) + row["defects"].get(each, 0) for each in row["defects"]}
    return {
        "works": before["works"] + row["works"],
        "refused": before["refused"] + row["refused"],
        "slowest_seconds": max(before["slowest_seconds"], row["slowest_seconds"]),
        "defects": before["defects"] | defects,
    }


def read_corpus(name: str) -> list[bytes]:
    """Read the committed inputs of a source."""
    folder = CORPUS / name.replace(" ", "-")
    return [path.read_bytes() for path in sorted(folder.iterdir())] if folder.exists() else []


def collect(tries: int, *, folder: Path) -> None:
    """Keep of each source one input for every sentence that refuses it, the shortest first."""
    for name, target in TARGETS.items():
        seeds, chance, said = target.seeds(), random.Random(0), dict[str, bytes]()
        for number in range(tries):
            whole = number < len(seeds)
            content = seeds[number] if whole else mutate(chance.choice(seeds), chance, others=seeds)
            try:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")
                    target.read(content, folder)
                sentence = "works"
            except (UserError, Failure) as error:
                sentence = re.sub(r"'[^']*'|[0-9]+", "", str(error).replace(str(folder), ""))[:60]
            if len(content) <= min(MAX_BYTES, len(said.get(sentence, bytes(MAX_BYTES)))):
                said[sentence] = content
        place = CORPUS / name.replace(" ", "-")
        place.mkdir(parents=True, exist_ok=True)
        for number, content in enumerate(sorted(said.values(), key=len)[:PER_SOURCE]):
            (place / f"{number}").write_bytes(content)


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
    parser.add_argument("--collect", action="store_true", help="write the corpus instead")
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".json"))
    options = parser.parse_args()
    sys.dont_write_bytecode = True
    stay_here()
    kept = options.out.with_suffix(".part.json")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name).resolve()
        if options.collect:
            return collect(options.inputs // 1000, folder=folder)
        total = fuzz_in_parts(options.inputs, seed=options.seed, folder=folder, kept=kept, defects=options.defects)
    by_source = total["by_source"]
    figures = {
        "inputs": total["inputs"],
        **{outcome: sum(row[outcome] for row in by_source.values()) for outcome in ("works", "refused")},
        "defects": sum(sum(row["defects"].values()) for row in by_source.values()),
        "peak_megabytes": total["peak_bytes"] // 10**6,
    }
    write_record(options.out, {**figures, "by_source": by_source})
    kept.unlink()
    return None


if __name__ == "__main__":
    main()
