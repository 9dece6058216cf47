"""Every command, started in a folder full of modules that are named like what reslab needs: none of them runs."""

import ast
import io
import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

from reslab.runs import Run

ROOT = Path(__file__).parents[2]
RESLAB = (sys.executable, "-P", "-m", "reslab")
# What is imported under another name than it is installed by, and some of what that imports in turn.
MODULES = """PIL sklearn yaml multipart prometheus_client huggingface_hub mlflow skinny starlette anyio httpx click rich
cuda triton sympy networkx filelock typing_extensions certifi idna charset_normalizer markupsafe dateutil pandas
cloudpickle msgpack google grpc six packaging torchvision timm captum tqdm joblib threadpoolctl sitecustomize json
base64 random socket secrets tempfile logging asyncio ctypes struct inspect""".split()  # noqa: SIM905


def named() -> set[str]:
    """Name modules as the packages are called that pyproject.toml asks for."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    asked = [*project["dependencies"], *(each for extra in project["optional-dependencies"].values() for each in extra)]
    return {re.split(r"[\[<>=; ]", each)[0].replace("-", "_") for each in asked} - {"reslab"}


@pytest.fixture
def hostile(finished: Run, tmp_path: Path) -> Iterator[dict[str, str]]:
    """Fill the folder; gives the environment of a command, and fails the test where a module has run."""
    marks = tmp_path / "marks"
    marks.mkdir()
    code = f"import os\nos.mkdir({str(marks)!r} + '/' + __name__)\nraise SystemExit(__name__)\n"
    for name in {*named(), *MODULES}:
        (tmp_path / f"{name}.py").write_text(code)
    Image.new("RGB", (9, 9), "red").save(tmp_path / "a.png")
    environment = {**os.environ, "RESLAB_DATA": str(tmp_path / "none"), "OMP_NUM_THREADS": "1"}
    environment["RAY_worker_niceness"] = "0"
    environment["COLUMNS"] = "200"
    yield environment
    assert list(marks.iterdir()) == []


def start(folder: Path, environment: dict[str, str], *arguments: str, python: tuple[str, ...] = RESLAB) -> str:
    done = subprocess.run([*python, *arguments], cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode in (0, 2), done.stderr
    assert "Traceback" not in done.stderr
    return done.stdout + done.stderr


def test_the_modules_would_run(hostile: dict[str, str], tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-c", "import PIL"], cwd=tmp_path, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (1, "PIL\n")
    (tmp_path / "marks/PIL").rmdir()


# Each command, and how it ends there.
COMMANDS = {
    "train digits-quick --set epochs=1 --compile off --out new": 0,
    "calibrate small": 2,  # it holds images out itself
    "remember small": 0,
    "evaluate small --splits test": 0,
    "extend small --with digits:0@5 --method nearest-mean --out more": 0,
    "report small": 0,
    "compare small twin": 0,
    "predict small a.png": 0,
    "watch small a.png": 2,  # too few
    "export small --to new.onnx": 0,
    "track small --to tensorboard:logs": 0,
    "push small some/one": 1,  # there is no hub
    "pull some/one --out pulled": 1,
    "doctor": 0,
    "models lenet --measure": 0,
    "methods": 0,
    "recipes": 0,
    "import absent.pth --model resnet20 --data digits --out foreign": 2,
    "data show digits": 0,
    "data list": 0,
    "data check digits": 0,
    "data plan digits:0,1@10": 0,
    "fit digits:0,1@10 --minutes 0.01 --out fitted": 0,
    "data verify": 0,
    "data pack digits --to packed --image-size 8": 0,
    "data cache": 0,
    "study list": 0,
    "study report digits": 2,  # nor a study
}
ALL_IN_TURN = """
import sys
from reslab.cli import main
for command in sys.argv[1:]:
    sys.argv = ["reslab", *command.split()]
    try:
        main()
    except SystemExit as end:
        print(f"{command}: {end.code}", file=sys.stderr)
"""


def test_commands_import_nothing_from_there(hostile: dict[str, str], tmp_path: Path) -> None:
    hostile["HF_ENDPOINT"] = "http://127.0.0.1:9"
    shutil.copytree(tmp_path / "small", tmp_path / "twin")
    said = start(tmp_path, hostile, "-c", ALL_IN_TURN, *COMMANDS, python=(sys.executable, "-P")).splitlines()
    for command, code in COMMANDS.items():
        assert f"{command}: {code}" in said


def test_every_command_is_started() -> None:
    """But those that a test below starts in another way, or that do what several of these do."""
    from typer.main import get_command

    from reslab.cli import app

    groups = {"data", "study"}
    group = get_command(app)
    names = {name for name in group.commands if name not in groups}  # type: ignore[attr-defined]
    names |= {f"{name} {each}" for name in groups for each in group.commands[name].commands}  # type: ignore[attr-defined]
    started = {name for name in names for command in COMMANDS if command.startswith(name)}
    assert names - started == {"demo", "lab", "serve", "dashboard", "study run"}


def test_python_s_own_switch_is_not_needed(hostile: dict[str, str], tmp_path: Path) -> None:
    """`python -m` and torchrun put the working directory first on the path; it is taken away again."""
    for name in MODULES:
        if name in sys.stdlib_module_names or name == "sitecustomize":
            (tmp_path / f"{name}.py").unlink()  # which Python itself imports before reslab
    start(tmp_path, hostile, "data", "show", "digits", python=(sys.executable, "-m", "reslab"))


@pytest.mark.parametrize("command", ["serve small --port 0 --neighbours 5", "dashboard . --port 0"])
def test_a_server_imports_nothing_from_there(hostile: dict[str, str], tmp_path: Path, command: str) -> None:
    picture = io.BytesIO()
    Image.new("RGB", (9, 9), "red").save(picture, "PNG")
    with subprocess.Popen(
        [*RESLAB, *command.split()], cwd=tmp_path, env=hostile, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        try:
            url = re.search(r"http://\S+:\d+", process.stdout.readline())
            assert url is not None
            opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
            if command.startswith("serve"):
                boundary = b"--b\r\nContent-Disposition: form-data; name=files; filename=a.png\r\n\r\n"
                body = boundary + picture.getvalue() + b"\r\n--b--\r\n"
                kind = {"Content-Type": "multipart/form-data; boundary=b"}
                asked = urllib.request.Request(f"{url[0]}/v1/predict", body, kind)
                found = json.load(opener.open(asked, timeout=60))
                assert found["pictures"][0]["answers"]
            else:
                assert b"small" in opener.open(f"{url[0]}/v1/runs", timeout=60).read()
        finally:
            process.terminate()


def test_workers_of_ray_import_nothing_from_there(hostile: dict[str, str], tmp_path: Path) -> None:
    command = "study run digits --rows relu --seeds 1 --epochs-scale 0.03 --workers 1 --out new"
    assert "relu-0: done, run 1 of 1" in start(tmp_path, hostile, *command.split())


# ---- programs that start Python


def children(path: Path) -> Iterator[tuple[int, str]]:
    """Give what follows this Python in each list that begins with it."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.List | ast.Tuple) and node.elts and ast.unparse(node.elts[0]) == "sys.executable":
            yield node.lineno, ast.unparse(node.elts[1]) if len(node.elts) > 1 else "nothing"


PROGRAMS = [path for folder in ("src", "benchmarks", "tools") for path in sorted((ROOT / folder).rglob("*.py"))]


def test_every_child_is_started_without_the_working_directory() -> None:
    """By a file's path, whose folder is then the first on the path, or with -P."""
    found = {f"{path.name}:{line}": follows for path in PROGRAMS for line, follows in children(path)}
    assert "'-P'" in found.values()
    assert {place: follows for place, follows in found.items() if follows not in ("'-P'", "__file__")} == {}
