"""Break the code in small ways, one at a time, and count how often the mirroring tests notice.

    python benchmarks/mutations.py --num 200 --seed 0

Each mutation is made in a copy of the repository, in which the tests of the changed room run until one fails, those of
the file of the same name first. `--survivors` tries again those that no test noticed the last time, in the code as it
has become.
"""

import argparse
import ast
import json
import multiprocessing
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

ROOT = Path(__file__).parents[1]
RESULT = Path(__file__).with_suffix(".json")
ROOMS = ("training", "network", "measure", "runs")
PRELOADED = ["torch", "scipy.stats", "sklearn.datasets", "matplotlib.pyplot", "pydantic", "rich.progress", "jinja2"]
FORKS = multiprocessing.get_context("forkserver")
SLOW = {"test_kill.py", "test_distributed.py"}  # run only for the file that they mirror
CPU_SECONDS = 240  # a mutation may go round for ever,
SECONDS = 1200  # or wait for ever
COMPARISONS: dict[type[ast.cmpop], type[ast.cmpop]] = {
    **{ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq},
    **{ast.Is: ast.IsNot, ast.IsNot: ast.Is, ast.In: ast.NotIn, ast.NotIn: ast.In},
}
OPERATORS: dict[type[ast.operator], type[ast.operator]] = {
    **{ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult, ast.FloorDiv: ast.Mult},
}


class Mutation(NamedTuple):
    """A piece of a file, from a line and byte on, and what takes its place."""

    path: str
    line: int
    column: int
    old: str
    new: str


def find_mutations(path: Path) -> Iterator[Mutation]:
    """Give every small change that could be made to the functions of a file."""
    content = path.read_text()
    for function in (node for node in ast.walk(ast.parse(content)) if isinstance(node, ast.FunctionDef)):
        for node in (part for statement in function.body for part in code_of(statement)):
            old = ast.get_source_segment(content, node)
            for new in changed(node):
                assert old is not None
                yield Mutation(str(path.relative_to(ROOT)), node.lineno, node.col_offset, old, new)


def code_of(node: ast.AST) -> Iterator[Any]:
    """Walk through what is computed: no nested functions, which come by themselves, no types and no texts."""
    if isinstance(node, ast.FunctionDef | ast.JoinedStr):
        return
    yield node
    for name, value in ast.iter_fields(node):
        for child in value if isinstance(value, list) else [value]:
            if isinstance(child, ast.AST) and name != "annotation":
                yield from code_of(child)


def changed(node: ast.AST) -> Iterator[str]:
    """Give what may take the place of a node."""
    match node:
        case ast.Compare(left, [first, *rest], others) if type(first) in COMPARISONS:
            yield f"({ast.unparse(ast.Compare(left, [COMPARISONS[type(first)](), *rest], others))})"
        case ast.BoolOp(op, values):
            yield f"({ast.unparse(ast.BoolOp(ast.Or() if isinstance(op, ast.And) else ast.And(), values))})"
        case ast.UnaryOp(ast.Not(), operand):
            yield f"({ast.unparse(operand)})"
        case ast.BinOp(left, op, right) if type(op) in OPERATORS and not is_path(left):
            yield f"({ast.unparse(ast.BinOp(left, OPERATORS[type(op)](), right))})"
        case ast.Constant(bool() as value):
            yield str(not value)
        case ast.Constant(int() | float() as value):
            yield repr(value + 1)
        case ast.Expr(ast.Call(func)) if ast.unparse(func) != "assert_never":
            yield "pass"
        case ast.AugAssign() | ast.Assign([ast.Attribute() | ast.Subscript()]) | ast.Raise():
            yield "pass"


def is_path(node: ast.AST) -> bool:
    """Guess whether something names a folder, which is not divided."""
    return ast.unparse(node).endswith(("path", "folder", "parent"))


def is_noticed(copy: Path, mutation: Mutation) -> bool:
    """Run the tests on a mutation; the copy is afterwards as it was. One that never ends is noticed, too."""
    path = copy / mutation.path
    content = path.read_bytes()
    start = sum(map(len, content.splitlines(keepends=True)[: mutation.line - 1])) + mutation.column
    path.write_bytes(content[:start] + mutation.new.encode() + content[start + len(mutation.old.encode()) :])
    tests = copy / "tests" / path.parent.name
    same = [*tests.glob(f"test_{path.stem}.py"), *(copy / "tests").glob(f"*/test_{path.stem}.py")]
    others = sorted(other for other in tests.glob("test_*.py") if other.name not in SLOW)
    process = FORKS.Process(target=run_tests, args=(copy, [*dict.fromkeys([*same, *others])]))
    process.start()
    process.join(SECONDS)
    noticed = process.exitcode != 0
    if process.exitcode is None:
        os.killpg(process.pid or 0, signal.SIGKILL)
    path.write_bytes(content)
    return noticed


def run_tests(copy: Path, tests: list[Path]) -> None:
    """Run tests in a process of its own, which has loaded PyTorch but not reslab yet, and exit with their status."""
    os.setsid()
    silence = os.open(os.devnull, os.O_WRONLY)
    os.dup2(silence, 1)
    os.dup2(silence, 2)
    os.chdir(copy)
    resource.setrlimit(resource.RLIMIT_CPU, (CPU_SECONDS, CPU_SECONDS))
    sys.path.insert(0, str(copy / "src"))
    options = ["-x", "-n", "0", "-p", "no:cacheprovider", "--basetemp", str(copy / "made")]
    os._exit(pytest.main([*options, *map(str, tests)]))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--num", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--survivors", action="store_true")
    wanted = parser.parse_args()
    found = [
        each
        for room in ROOMS
        for path in sorted((ROOT / "src/reslab" / room).glob("*.py"))
        for each in find_mutations(path)
    ]
    chosen = random.Random(wanted.seed).sample(found, min(wanted.num, len(found)))
    before = json.loads(RESULT.read_text()) if wanted.survivors else None
    tried = list(survivors(before)) if before else chosen
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "reslab"
        os.environ |= {"PYTHONPATH": str(copy / "src"), "PYTHONDONTWRITEBYTECODE": "1", "OMP_NUM_THREADS": "1"}
        FORKS.set_forkserver_preload(PRELOADED)
        listed = subprocess.run(
            ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
            cwd=ROOT,
            check=True,
            capture_output=True,
        )
        for name in filter(None, listed.stdout.decode().split("\0")):
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / name, copy / name)
        for room in ROOMS:
            path = min((ROOT / "src/reslab" / room).glob("[a-z]*.py")).relative_to(ROOT)
            assert not is_noticed(copy, Mutation(str(path), 1, 0, "", "")), f"the tests of {room} fail as it is"
        left = []
        for place, mutation in enumerate(tried, 1):
            noticed = is_noticed(copy, mutation)
            print(f"{place}/{len(tried)} {'noticed' if noticed else 'SURVIVED'} {mutation}", flush=True)
            left += [] if noticed else [mutation]
    from record import write_record  # which loads reslab, as it is

    first = before["result"] if before else {"mutations": len(tried), "noticed_at_first": len(tried) - len(left)}
    counts = {name: first[name] for name in ("mutations", "noticed_at_first")}
    result = {"possible": len(found), "seed": wanted.seed, **counts, "noticed": counts["mutations"] - len(left)}
    write_record(RESULT, result | {"survivors": [each._asdict() for each in left]})


def survivors(record: dict[str, Any]) -> Iterator[Mutation]:
    """Find the mutations that none noticed in the code as it is now, by their lines; some have gone."""
    for each in record["result"]["survivors"]:
        old = subprocess.run(
            ["git", "show", f"{record['environment']['commit']}:{each['path']}"],
            cwd=ROOT,
            check=True,
            capture_output=True,
            text=True,
        )
        line = old.stdout.splitlines()[each["line"] - 1]
        lines = (ROOT / each["path"]).read_text().splitlines()
        places = [number for number, text in enumerate(lines, 1) if text == line]
        if places:
            yield Mutation(**each | {"line": min(places, key=lambda place: abs(place - each["line"]))})


if __name__ == "__main__":
    main()
