"""The lab's notebook: the committed ones are its source, executed; and it trains from nothing, here on digits."""

import json
import runpy
from pathlib import Path

import nbformat
import pytest

import reslab
from reslab.runs import Run

TOOL = runpy.run_path(str(Path(__file__).parents[2] / "tools/lab_notebook.py"))
FILES, build, execute = TOOL["FILES"], TOOL["build"], TOOL["execute"]
# Of the kernel's messages and of the machinery around it, not of the notebook.
pytestmark = pytest.mark.filterwarnings("default")
ON_DIGITS = """import reslab

RECIPE = reslab.with_settings(reslab.find_recipe("digits-quick"), ["data=digits:0-6", "epochs=6"])
RUN, EXTENDED, PICTURES = Path("runs/ten"), Path("runs/extended"), Path("my-pictures")
NEW, METHOD, LANGUAGE = "digits:7-9@20", "frozen-balanced", "en"
"""


def code_of(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def shown(notebook, source):
    """Give what the cell that begins so shows."""
    cell = next(cell for cell in code_of(notebook) if cell.source.startswith(source))
    return "".join(output.get("data", {}).get("text/html", "") + output.get("text", "") for output in cell.outputs)


@pytest.fixture(scope="module")
def executed(tmp_path_factory):
    """The notebook on digits with its outputs, and the folder that it ran in."""
    folder = tmp_path_factory.mktemp("notebook")
    notebook = build("en")
    (parameters,) = (cell for cell in code_of(notebook) if cell.source.startswith("import reslab"))
    parameters.source = ON_DIGITS
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OMP_NUM_THREADS", "1")
        execute(notebook, folder=folder)
    return notebook, folder


def test_every_cell_runs_where_there_is_no_run_yet_and_both_parts_are_measured(executed):
    notebook, folder = executed
    assert all(cell.execution_count for cell in code_of(notebook))
    base, extended = (Run.open(folder / "runs" / name) for name in ("ten", "extended"))
    assert (len(base.evaluation.classes), len(extended.evaluation.classes)) == (7, 10)
    assert base.evaluation.splits["test"].accuracy.value > 0.8
    for run in (base, extended):
        assert run.environment.command == "ipykernel_launcher.py"
    text = shown(notebook, "print(reslab.summarize")
    assert f"{100 * base.evaluation.splits['test'].accuracy.value:.2f}" in text.replace("\u00a0", " ")


def test_no_cell_complains(executed):
    notebook, _ = executed
    outputs = [output for cell in code_of(notebook) for output in cell.outputs]
    assert [output.text for output in outputs if output.get("name") == "stderr"] == []


def test_plots_tables_and_live_curves_are_shown(executed):
    notebook, _ = executed
    assert shown(notebook, 'reslab.draw(run, part="matrices"').count("<img") == 4
    assert shown(notebook, 'reslab.draw(extended, part="mistakes"').count("<img") == 1
    assert 'alt="Accuracy over 6 epochs."' in shown(notebook, "if not reslab.Run(RUN)")
    assert "Macro F1" in shown(notebook, 'reslab.tabulate(run, part="splits"')
    (pictures,) = (cell for cell in code_of(notebook) if cell.source.startswith("import matplotlib"))
    assert [output.output_type for output in pictures.outputs] == ["display_data"]


@pytest.mark.parametrize("part", ["RUN", "EXTENDED"])
def test_an_interrupted_training_is_resumed_by_its_cell(finished, part):
    run = finished
    if part == "EXTENDED":
        run = reslab.extend(finished.path, data="digits:0@20", out=finished.path.parent / "more", method="frozen")
    weights = run.weights_path.read_bytes()
    run.weights_path.unlink()
    (cell,) = (cell for cell in code_of(build("en")) if cell.source.startswith(f"if not reslab.Run({part})"))
    exec(cell.source, {"reslab": reslab, part: run.path, "LANGUAGE": "en"})
    assert run.weights_path.read_bytes() == weights


@pytest.mark.parametrize("language", FILES)
def test_the_committed_notebook_is_its_source_executed_without_a_path_of_the_machine(language):
    text = FILES[language].read_text(encoding="utf-8")
    committed, source = nbformat.reads(text, as_version=4), build(language)
    assert [cell.source for cell in committed.cells] == [cell.source for cell in source.cells]
    assert [cell.execution_count for cell in code_of(committed)] == list(range(1, len(code_of(source)) + 1))
    outputs = [output for cell in code_of(committed) for output in cell.outputs]
    assert not [output for output in outputs if output.output_type == "error" or output.get("name") == "stderr"]
    assert not [
        path
        for path in ("/home/", "/tmp/", f"{Path(__file__).parents[2]}/", f"{Path.home()}/")
        if path in json.dumps(outputs)
    ]


def test_both_languages_say_their_own():
    russian = nbformat.read(FILES["ru"], as_version=4)
    assert "Доля верных ответов" in shown(russian, 'reslab.tabulate(run, part="splits"')
    assert [cell.source for cell in code_of(build("ru"))] == [
        cell.source.replace('LANGUAGE = "en"', 'LANGUAGE = "ru"') for cell in code_of(build("en"))
    ]
