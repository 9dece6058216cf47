"""Give every command hostile lines, damaged folders, failing disks and sudden deaths, and count what goes wrong.

Each call ends with 0, or with one sentence and 2 or 1. A defect is anything else: a traceback, another exit code, no
sentence, a hang, a control character on the terminal. After a disk that failed and after a kill, the same command (or
`--resume`, where the run was begun) must do its work, and no half-written file may be left.

- hostile lines: options and arguments drawn from numbers, names and paths that few would write
- hostile files: a file of a run folder cut, emptied, mutated, swapped, or replaced by a folder, a pipe or a loop
- full disks: one step of reading or writing (open, write, flush, rename, make, remove) fails by ENOSPC, EIO or EINTR
- kills: SIGKILL right before such a step, and at random moments

    python benchmarks/fuzz_commands.py --trials 400        writes benchmarks/fuzz_commands.json
"""

import argparse
import contextlib
import errno
import io
import multiprocessing
import os
import random
import re
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import traceback
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import click
import torch
import typer
from mutate import mutate
from PIL import Image
from record import write_record

from reslab.cli import app, main
from reslab.evaluation import evaluate
from reslab.extension import extend
from reslab.recipe.networks import PreActResNet
from reslab.recipe.recipe import Linear, Recipe, Sgd
from reslab.report import write_report
from reslab.study.spec import Row, Study, Training
from reslab.training import Safety, train

SECONDS = 120  # until a call counts as hung
RECIPE = Recipe(
    name="small",
    source="benchmarks/fuzz_commands.py",
    data="digits:1,4,7@20",
    image_size=8,
    validation=6,
    model=PreActResNet(depth=8, width=8),
    optimizer=Sgd(peak_lr=0.1),
    schedule=Linear(warmup=0.2),
    epochs=2,
    batch_size=20,
)

# What each command does to a folder that `make_folder` has made; `{out}` is new.
COMMANDS = {
    "train": "train small.json --compile off --out {out}",
    "train --resume": "train --resume half",
    "evaluate": "evaluate small",
    "evaluate an extension": "evaluate more",
    "extend": "extend small --with digits:0@9 --method nearest-mean --out {out}",
    "extend, tuned": "extend small --with digits:0@9 --out {out}",
    "report": "report small",
    "report of an extension": "report more",
    "compare": "compare small twin --out {out}",
    "predict": "predict small a.png",
    "export": "export small --to {out}/small.onnx",
    "export, a folder": "export small --to {out}",
    "push": "push small me/small",
    "track": "track small --to tensorboard:{out}",
    "track, mlflow": "track small --to mlflow:{here}/new",
    "pack": "data pack folder:pictures --to {out} --image-size 8",
    "cache": "data show folder:pictures --image-size 8",
    "cache, cleared": "data cache --clear",
    "study": "study run study.json --out {out}",
    "study report": "study report study.json --runs study",
    "serve": "serve small more --port 0",
    "dashboard": "dashboard . --port 0",
}
READING = {"push", "serve", "dashboard", "predict"}  # these leave nothing behind, or end only when told


def words_of(name: str, *, out: str = "new") -> list[str]:
    """Give the words of a command for the working folder."""
    return COMMANDS[name].format(out=out, here=Path.cwd()).split()


def make_folder(folder: Path) -> Path:
    """Make what the commands work on: runs that are finished, half done, taught and compared, pictures, a study."""

    def keep(run: Path) -> None:
        if not (folder / "half").exists():
            shutil.copytree(run, folder / "half", ignore=shutil.ignore_patterns(".lock"))

    run = train(RECIPE, out=folder / "small", compile="off", safety=Safety(saved=keep))
    evaluate(run)
    write_report(run)
    shutil.copytree(folder / "small", folder / "twin")
    more = extend(run.path, data="digits:0@9", method="nearest-mean", out=folder / "more")
    evaluate(more)
    write_report(more)
    (folder / "small.json").write_text(RECIPE.model_dump_json())
    row = Row(label="one", job=Training(recipe="small.json", settings=("epochs=1",)))
    (folder / "study.json").write_text(Study(name="tiny", title="Tiny", rows=(row,), seeds=1).model_dump_json())
    Image.new("L", (8, 8), 99).save(folder / "a.png")
    for number in range(12):
        place = folder / f"pictures/{'ant' if number % 2 else 'bee'}/{number}.png"
        place.parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", (8, 8), number).save(place)
    with inside(folder):
        assert call(words_of("study", out="study")) == "works"
    return folder


def remove(folder: Path) -> None:
    """Remove a folder of any depth; the standard library would go down by recursion."""
    subprocess.run(["rm", "-rf", str(folder)], check=True)


# ---- one call


class HangError(BaseException):
    """It took too long; not an Exception, which some readers catch."""


def call(words: list[str]) -> str:
    """Run a command in this process; gives `works`, `refused`, or what went wrong."""
    out, err = io.StringIO(), io.StringIO()
    before = sys.argv, signal.signal(signal.SIGALRM, _hang), sys.excepthook
    signal.alarm(SECONDS)
    code: object = None
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            warnings.simplefilter("ignore")
            sys.argv = ["reslab", *words]
            main()
    except SystemExit as end:
        code = end.code
    except BaseException as error:
        return _name(error)
    finally:
        signal.alarm(0)
        sys.argv, sys.excepthook = before[0], before[2]
        signal.signal(signal.SIGALRM, before[1])
    return judge(code, out.getvalue(), err.getvalue())


def judge(code: object, out: str, err: str) -> str:
    """Say whether a command ended as it should."""
    if found := re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f]", out + err):
        return f"prints the control character {found[0]!r}"
    if "Traceback" in err:
        return f"prints a traceback: {err.splitlines()[-1]}"
    if code == 0:
        return "works"
    last = err.splitlines()[-1:] or [""]
    is_help = "Usage:" in err
    return "refused" if code in (1, 2) and (is_help or last[0].startswith("reslab: ")) else f"ends with {code}: {last}"


def _hang(number: int, frame: FrameType | None) -> None:
    raise HangError


def _name(error: BaseException) -> str:
    places = [frame for frame in traceback.extract_tb(error.__traceback__) if "/reslab/" in frame.filename]
    where = f"{Path(places[-1].filename).name}:{places[-1].lineno}" if places else "?"
    return f"{type(error).__name__} at {where}: {error}"[:200]


@contextmanager
def inside(folder: Path) -> Iterator[None]:
    """Work in a folder, with a cache of its own, no hub, and servers that end as soon as they have begun."""
    import uvicorn

    names = {
        "RESLAB_CACHE": str(folder / "cache"),
        "RESLAB_DATA": str(folder / "data"),
        "HF_ENDPOINT": "http://127.0.0.1:9",
        "HF_HUB_OFFLINE": "1",
        "NO_PROXY": "*",
    }
    before = {name: os.environ.get(name) for name in names}
    place, serve = Path.cwd(), uvicorn.Server.run
    os.environ.update(names)
    os.chdir(folder)
    uvicorn.Server.run = lambda self, sockets=None: None  # type: ignore[method-assign]
    try:
        yield
    finally:
        uvicorn.Server.run = serve  # type: ignore[method-assign]
        os.chdir(place)
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.update({name: value})


# ---- hostile lines

NUMBERS = ("0", "-1", "1", "3", str(10**18), str(2**63), "1e400", "nan", "0x10", "٣")
PATHS = ("", ".", "/", "absent", "small", "more", "half", "loop", "\udcff", "x" * 300, "d/" * 1500, "small.json")
WORDS = ("", "-", "--", "--help", "auto", "cpu", "é", "\x1b[31m", "a\nb", "[red]", "‮", "x" * 5000, "test", "train")
EXPRESSIONS = (
    "digits",
    "digits:1,4@0",
    f"digits:1@{10**30}",
    "digits:",
    "+",
    "folder:loop",
    "folder:\udcff",
    "npz:a.png",
)
SETTINGS = (
    *(f"{name}={value}" for name in ("micro_batch_size", "batch_size", "validation", "stream") for value in NUMBERS),
    *(
        "image_size=0",
        "model.depth=9",
        "model.kind=vgg19",
        "data=",
        "name=\x1b[2J",
        "schedule=null",
        "=",
        "x",
        "epochs=",
    ),
)
VALUES = NUMBERS + PATHS + WORDS + EXPRESSIONS + SETTINGS
NOT_HERE = {"lab", "doctor", "pull"}  # take long, look at the machine, ask a hub
ENDING = {"train": ["--set", "epochs=1", "--compile", "off"], "serve": ["--port", "0"], "dashboard": ["--port", "0"]}
ENDING["models"] = ["lenet"]  # all of them take a while


def leaves(group: Any = None, *path: str) -> dict[tuple[str, ...], Any]:
    """Find all commands by their words."""
    group = group or typer.main.get_command(app)
    found: dict[tuple[str, ...], Any] = {}
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            found |= leaves(command, *path, name)
        elif name not in NOT_HERE:
            found[(*path, name)] = command
    return found


def draw_line(chance: random.Random) -> list[str]:
    """Draw a command with some of its options, each with a value of any kind; half of the values are sound."""
    path = chance.choice(sorted(leaves()))
    words, sound = list(path), {"run": "small", "runs": "small", "recipe": "small.json", "to": "new", "out": "new"}
    sound |= {"data": "digits:0@9", "expression": "digits:1,4@9", "name": "study.json", "files": "a.png"}
    for parameter in leaves()[path].params:
        if chance.random() < (0.3 if not parameter.required else 0.9) and parameter.name not in ("help", "measure"):
            value = sound.get(parameter.name, "1") if chance.random() < 0.6 else chance.choice(VALUES)
            option = (
                [max(parameter.opts, key=len)]
                if isinstance(parameter, click.Option) or parameter.opts[0][:1] == "-"
                else []
            )
            words += option + ([] if getattr(parameter, "is_flag", False) else [value])
    return words + ENDING.get(path[0], [])


# ---- hostile files


def replaced(kind: str, path: Path, chance: random.Random, others: list[Path]) -> None:
    """Damage a file."""
    content = path.read_bytes()
    path.unlink()
    match kind:
        case "cut":
            path.write_bytes(content[: chance.randrange(len(content) + 1)])
        case "empty":
            path.write_bytes(b"")
        case "mutated":
            path.write_bytes(mutate(content, chance, others=[each.read_bytes() for each in others if each.is_file()]))
        case "swapped":
            alike = [each for each in others if each.suffix == path.suffix and each.is_file()]
            path.write_bytes(chance.choice(alike).read_bytes() if alike else b"{}")
        case "null":
            path.write_bytes(chance.choice((b"null", b"[]", b"{}", b"\xff\xfe", b"1" * 5000, b"[" * 100_000)))
        case "a folder":
            path.mkdir()
        case "a pipe":
            os.mkfifo(path)
        case "a loop":
            path.symlink_to(path.name)


DAMAGES = (
    "missing",
    "cut",
    "empty",
    "mutated",
    "mutated",
    "swapped",
    "swapped",
    "null",
    "a folder",
    "a pipe",
    "a loop",
)


def damage(chance: random.Random, words: list[str]) -> str:
    """Damage one of the files that a command names, or of the runs that it names; gives what was done."""
    files = sorted(path for path in Path().rglob("*") if path.is_file() and not path.is_symlink())
    files = [path for path in files if path.suffix in (".json", ".jsonl", ".npz", ".safetensors")]
    path = chance.choice([path for path in files if path.parts[0] in words or path.name in words] or files)
    kind = chance.choice(DAMAGES)
    replaced(kind, path, chance, [each for each in files if each != path])
    return f"{path} {kind}"


# ---- disks and kills

Blow = Callable[[], None]
STEPS = ("open", "os.rename", "os.mkdir", "os.remove", "os.rmdir")


class Steps:
    """Counts the steps of reading and writing below a folder, and does something to one of them."""

    def __init__(self) -> None:
        self.folder: Path | None = None
        sys.addaudithook(self._note)  # it stays, and listens only while there is a folder
        self._fsync: Callable[[Any], None] = os.fsync

    @contextmanager
    def watching(self, folder: Path, *, at: int | None = None, blow: Blow = lambda: None) -> Iterator["Steps"]:
        """Count from 0, and call `blow` right before the step `at`."""
        self.taken, self.at, self.blow, self.folder = 0, at, blow, folder
        os.fsync = self._flush  # type: ignore[assignment]
        try:
            yield self
        finally:
            self.folder = None
            os.fsync = self._fsync  # type: ignore[assignment]

    def _note(self, event: str, arguments: tuple[Any, ...]) -> None:
        if self.folder is not None and event in STEPS and isinstance(arguments[0], str | bytes | os.PathLike):
            place = os.path.abspath(os.fsdecode(arguments[0]))
            if place.startswith(str(self.folder)):
                self._step()

    def _flush(self, handle: Any) -> None:
        self._step()
        self._fsync(handle)

    def _step(self) -> None:
        self.taken += 1
        if self.taken - 1 == self.at:
            self.blow()


def fail(number: int) -> Blow:
    def blow() -> None:
        raise OSError(number, os.strerror(number))

    return blow


@contextmanager
def files_up_to(num_bytes: int) -> Iterator[None]:
    """Let the system refuse to make any file longer."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def again(name: str) -> str:
    """Do a command's work after it was disturbed; gives `works` or what hinders it."""
    words = words_of(name)
    if name.startswith(("train", "extend")) and Path("new/recipe.json").exists():
        words = [words[0], "--resume", "new"]
    outcome = call(words)
    left = [str(path) for path in Path().rglob("*.part")]
    if outcome != "works":
        return f"{name}, again: {outcome}"
    return f"{name} leaves {left[0]}" if left else "works"


def die(words: list[str], folder: Path, step: int | None, seconds: float) -> None:
    """Run a command in this process, which kills itself at a step, or after so much of the processor's time."""
    torch.set_num_threads(1)
    sys.stdout = sys.stderr = io.StringIO()

    def kill() -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    if step is None:
        signal.signal(signal.SIGPROF, lambda *_: kill())
        signal.setitimer(signal.ITIMER_PROF, seconds)
    with inside(folder), Steps().watching(folder, at=step, blow=kill):
        call(words)


# ---- trials: each gives its outcome, in a copy of the folder

Trial = Callable[[random.Random, Steps], tuple[str, str]]


def try_line(chance: random.Random, steps: Steps) -> tuple[str, str]:
    """Give a command a line."""
    Path("loop").symlink_to("loop")
    words = draw_line(chance)
    return words[0], call(words)


def try_damage(chance: random.Random, steps: Steps) -> tuple[str, str]:
    """Damage a file, and give the folder to a command."""
    name = chance.choice(sorted(COMMANDS))
    words = words_of(name)
    damaged, outcome = damage(chance, words), call(words)
    return name, outcome if outcome in ("works", "refused") else f"{damaged}: {outcome}"


def try_fault(chance: random.Random, steps: Steps) -> tuple[str, str]:
    """Let a step of a command fail, or files grow no further, and then do its work."""
    name = chance.choice(sorted(set(COMMANDS) - READING))
    words = words_of(name)
    number = chance.choice((errno.ENOSPC, errno.EIO, errno.EINTR))
    at = chance.randrange(chance.choice((8, 40, 150)))
    if chance.random() < 0.2:
        with files_up_to(chance.choice((0, 1, 500, 20_000, 100_000))):
            outcome = call(words)
    else:
        with steps.watching(Path.cwd(), at=at, blow=fail(number)):
            outcome = call(words)
    if outcome not in ("works", "refused"):
        return name, f"{errno.errorcode[number]} at step {at}: {outcome}"
    hindrance = again(name) if outcome == "refused" else "works"
    return name, outcome if hindrance == "works" else f"{errno.errorcode[number]} at step {at}: {hindrance}"


def try_kill(chance: random.Random, steps: Steps) -> tuple[str, str]:
    """Kill a command, and then do its work."""
    name = chance.choice(sorted(set(COMMANDS) - READING))
    words = words_of(name)
    step = chance.randrange(chance.choice((8, 40, 150))) if chance.random() < 0.7 else None
    context = multiprocessing.get_context("forkserver")
    process = context.Process(target=die, args=(words, Path.cwd(), step, chance.uniform(0.01, 2.0)))
    process.start()
    process.join(SECONDS)
    killed = process.exitcode == -signal.SIGKILL
    process.kill()
    process.join()
    if not killed:
        return name, "works"
    hindrance = again(name)
    return name, "killed" if hindrance == "works" else f"killed at step {step}: {hindrance}"


TRIALS: dict[str, Trial] = {
    "hostile lines": try_line,
    "hostile files": try_damage,
    "full disks": try_fault,
    "kills": try_kill,
}


def attack(kind: str, num_trials: int, *, whole: Path, seed: int = 0, folder: Path) -> dict[str, Any]:
    """Do so many trials of a kind, each in a copy of the folder `whole`, and count how they ended."""
    steps, counts, by_command, defects = Steps(), dict[str, int](), dict[str, int](), dict[str, int]()
    for number in range(num_trials):
        place = folder / f"{kind.replace(' ', '-')}-{number}"
        shutil.copytree(whole, place, symlinks=True)
        with inside(place):
            name, outcome = TRIALS[kind](random.Random(f"{seed} {kind} {number}"), steps)
        remove(place)
        by_command[name] = by_command.get(name, 0) + 1
        if outcome in ("works", "refused", "killed"):
            counts[outcome] = counts.get(outcome, 0) + 1
        else:
            defects[f"{number}: {name}: {outcome}".replace(str(folder), "")] = 1
            print(f"{kind} {number}: {name}: {outcome}", file=sys.stderr, flush=True)
    return {
        "trials": num_trials,
        **dict(sorted(counts.items())),
        "defects": len(defects),
        "by_command": dict(sorted(by_command.items())),
        "found": list(defects),
    }


def run() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=400, help="of each kind")
    parser.add_argument("--kind", choices=TRIALS, action="append", help="all by default")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".json"))
    options = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"
    torch.set_num_threads(1)
    multiprocessing.get_context("forkserver").set_forkserver_preload(["fuzz_commands", "sklearn.datasets"])
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name).resolve()
        whole = make_folder(folder / "whole")
        kinds = options.kind or TRIALS
        found = {kind: attack(kind, options.trials, whole=whole, seed=options.seed, folder=folder) for kind in kinds}
    write_record(options.out, {"defects": sum(each["defects"] for each in found.values()), "by_kind": found})


if __name__ == "__main__":
    run()
