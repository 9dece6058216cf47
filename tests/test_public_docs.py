"""The example of every public name does what it says, and names every argument beside it."""

import doctest
import inspect
import re
import shutil
from pathlib import Path

import pytest

import reslab
from reslab import lab
from reslab.recipe.recipe import derive

TINY = Path(__file__).parent / "fixtures/tiny"
WITHOUT_EXAMPLE = {"MODELS", "RECIPES"}  # two tables


@pytest.fixture(scope="session")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the examples find: the committed run, evaluated, a copy of it, and its network as an ONNX file."""
    folder = tmp_path_factory.mktemp("examples")
    shutil.copytree(TINY, folder / "runs/digits")
    run = reslab.Run.open(folder / "runs/digits")
    reslab.evaluate(run)
    shutil.copytree(run.path, folder / "runs/again")
    reslab.export(run, to=folder / "digits.onnx")
    return folder


@pytest.mark.parametrize("name", sorted(set(reslab.__all__) - WITHOUT_EXAMPLE))
def test_the_example_does_what_it_says(
    name: str, work: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, hub: dict[str, dict[str, bytes]]
) -> None:
    shutil.copytree(work, tmp_path / "work")
    monkeypatch.chdir(tmp_path / "work")
    short = derive(lab.lab_recipe(), name="lab", epochs=1)
    monkeypatch.setattr(lab, "lab_recipe", lambda: short)
    monkeypatch.setattr(lab, "write_report", lambda run: run)  # tests/test_lab.py has it in full
    found = getattr(reslab, name)
    (examples,) = [each for each in doctest.DocTestFinder(recurse=False).find(found, name) if each.examples]
    said: list[str] = []
    result = doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE).run(examples, out=said.append)
    assert result.failed == 0, "".join(said)


@pytest.mark.parametrize("name", [name for name in reslab.__all__ if inspect.isfunction(getattr(reslab, name))])
def test_every_argument_is_described(name: str) -> None:
    found = getattr(reslab, name)
    described = re.findall(r"^([\w, *]+?)(?: : |$)", inspect.getdoc(found) or "", re.MULTILINE)
    names = {each for line in described for each in line.replace("*", "").split(", ")}
    assert set(inspect.signature(found).parameters) <= names
