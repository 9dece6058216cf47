"""What the first pages tell people to type, typed: every command block, in order, in a fresh folder for each page."""

import re
import shlex
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas
import pytest
from PIL import Image

from reslab.fitting import choice
from reslab.recipe.recipe import Recipe, Sgd, derive
from reslab.recipe.shipped import RECIPES

ROOT = Path(__file__).parents[2]
PAGES = ("README.md", "docs/quickstart.md", "docs/lab.md", "docs/own-pictures.md")
NEW = [f"new-pictures/{number}.png" for number in range(12)]
PYTHON = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)
BLOCK = re.compile(r"(?:^ {4}\S.*\n)+", re.MULTILINE)


@pytest.fixture
def _stand_ins(reslab: object, official: Path, small_recipe: Recipe, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tiny CIFAR files, recipes of one epoch, two small sizes of images; a server that ends at once."""
    monkeypatch.setenv("RESLAB_DATA", str(official))  # which the fixture before has set to an empty place
    tiny: dict[str, Any] = {"epochs": 1, "updates": 3, "optimizer": Sgd(peak_lr=0.01)}
    for name, validation in {"lab-resnet32-short": 0, "extension-base": 20}.items():
        tiny["validation"] = validation
        monkeypatch.setitem(RECIPES, name, derive(small_recipe, name=name, data="cifar10", image_size=32, **tiny))
    monkeypatch.setattr(choice, "SIZES", {"efficientnet_lite0": (48, 64)})
    monkeypatch.setattr("reslab.serving.server.run", lambda app, address, say: say("http://127.0.0.1"))


def make_pictures() -> None:
    """Put down what a reader would have: two classes of pictures, tables of them, some others."""
    random = np.random.default_rng(0)

    def draw(path: Path, brightness: int) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(random.integers(0, 60, (40, 40, 3), dtype=np.uint8) + np.uint8(brightness)).save(path)

    files = [Path(f"pictures/{name}/{number}.png") for name in ("dark", "light") for number in range(14)]
    for path in files:
        draw(path, 180 if path.parent.name == "light" else 0)
    for name in ("holiday.jpg", "some.jpg", "other.png", "photos/one.jpg", "more/two.jpg", *NEW):
        draw(Path(name), 90)
    plain, scans = ["file,label"], ["scan\tfinding\tfold\tpatient"]
    for number, path in enumerate(files):
        plain.append(f"{path},{path.parent.name}")
        fold = "test" if number % 7 == 0 else "train"
        scans.append(f"{path}\t{path.parent.name}\t{fold}\t{fold}{number % 5}")
    Path("labels.csv").write_text("\n".join(plain) + "\n")
    Path("beans/data").mkdir(parents=True)
    rows = [{"image": {"bytes": path.read_bytes(), "path": None}, "label": path.parent.name} for path in files]
    pandas.DataFrame(rows).to_parquet("beans/data/train-00000-of-00001.parquet")
    Path("scans.tsv").write_text("\n".join(scans) + "\n")


def install(*arguments: str) -> None:
    """Check a line of pip's: reslab out of a clone, since it is on no index, pinned, with extras that there are."""
    verb, *constraint, asked = arguments
    assert constraint == ["--constraint", "constraints.txt"]
    assert (ROOT / "constraints.txt").is_file()
    extras = re.fullmatch(r"\.\[([\w,]+)\]", asked)
    known = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert verb == "install"
    assert extras is not None
    assert set(extras[1].split(",")) <= set(known)


@pytest.mark.usefixtures("_stand_ins")
@pytest.mark.parametrize("page", PAGES)
def test_every_command_block_runs_in_order(page: str, reslab: Callable[..., Any]) -> None:
    make_pictures()
    targets = (ROOT / "Makefile").read_text()
    typed = 0
    text = (ROOT / page).read_text(encoding="utf-8")
    for block in BLOCK.findall(PYTHON.sub("", text)):
        for line in block.splitlines():
            program, *arguments = shlex.split(line, comments=True)
            match program:
                case "reslab":
                    outcome = reslab(*arguments)
                    assert outcome.code == 0, (line, outcome.err)
                    typed += 1
                case "pip":
                    install(*arguments)
                case "make":
                    assert re.search(rf"^{arguments[0]}:", targets, re.MULTILINE), line
                case "export":
                    assert arguments == ["RESLAB_DATA=~/data"]
                case "python3":
                    assert arguments == ["-m", "venv", ".venv"]
                case "source":
                    assert arguments == [".venv/bin/activate"]
                case _:
                    pytest.fail(f"{page} has a line that this test does not know: {line}")
    assert typed >= 4
    if page == "docs/own-pictures.md":  # with the network that its commands have fitted
        for example in PYTHON.findall(text):
            exec(compile(example, page, "exec"), {})
    # What the lab leaves, as tests/test_lab.py has it.
    named = set(re.findall(r"`(runs/lab/[^`]+)`", (ROOT / page).read_text(encoding="utf-8")))
    assert named <= {"runs/lab/base/report.html", "runs/lab/extended/report.html"}
