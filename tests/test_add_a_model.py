"""The diff in `docs/add-a-model.md` makes a network that is listed, trained and under the contract."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs/add-a-model.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def changed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the source and of the networks' tests, with the diff of the page applied."""
    (diff,) = re.findall(r"^```diff\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)
    copy = tmp_path_factory.mktemp("changed")
    for folder in ("src", "tests/models"):
        shutil.copytree(ROOT / folder, copy / folder)
    alone = os.environ | {"GIT_CEILING_DIRECTORIES": str(copy.parent)}  # no repository around it has a say
    subprocess.run(["git", "apply", "-"], input=diff, text=True, encoding="utf-8", cwd=copy, env=alone, check=True)
    return copy


def run(changed: Path, *arguments: str) -> str:
    environment = os.environ | {"PYTHONPATH": str(changed / "src"), "COLUMNS": "120"}
    done = subprocess.run(
        [sys.executable, "-P", *arguments], cwd=changed, env=environment, capture_output=True, encoding="utf-8"
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_it_is_listed_as_the_page_shows(changed: Path) -> None:
    (shown,) = re.findall(r"^```text\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)
    assert run(changed, "-m", "reslab", "models", "conv_mixer").split() == shown.split()


def test_it_is_trained(changed: Path) -> None:
    model = '{"kind": "conv_mixer", "width": 8, "blocks": 1}'
    run(
        changed, "-m", "reslab", "train", "digits-quick", "--set", "epochs=1", "--set", f"model={model}", "--out", "run"
    )
    assert (changed / "run/model.safetensors").stat().st_size > 0


def test_it_keeps_the_contract(changed: Path) -> None:
    """Its counts are those of the page; under contract a narrow one is enough, which is twenty times as fast."""
    tests = ("-m", "pytest", "--noconftest", "-q", "-p", "no:cacheprovider", "-k", "conv_mixer")
    assert "1 passed" in run(changed, *tests, "tests/models/test_counts.py")
    networks = changed / "src/reslab/recipe/networks.py"
    networks.write_text(networks.read_text(encoding="utf-8").replace("ConvMixer()", "ConvMixer(width=8, blocks=1)"))
    told = run(changed, *tests, "tests/models/test_contract.py")
    assert re.search(r"\d\d passed", told), told
