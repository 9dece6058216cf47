"""The notebook runs from top to bottom on digits, in a kernel of its own, and shows what it promises."""

import sys
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

from reslab.runs import Run

NOTEBOOK = Path(__file__).parents[2] / "notebooks" / "lab.ipynb"
# Of the kernel's messages and of the machinery around it, not of the notebook.
pytestmark = pytest.mark.filterwarnings("default")


@pytest.fixture(scope="module")
def executed(tmp_path_factory):
    """The notebook with its outputs, and the folder that it ran in."""
    folder = tmp_path_factory.mktemp("notebook")
    kernels = folder / "kernels" / "python3"
    kernels.mkdir(parents=True)
    command = f'["{sys.executable}", "-m", "ipykernel_launcher", "-f", "{{connection_file}}"]'
    (kernels / "kernel.json").write_text(f'{{"argv": {command}, "display_name": "Python 3", "language": "python"}}')
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("JUPYTER_PATH", str(folder))  # this interpreter's kernel, whatever others a person has
        patch.setenv("IPYTHONDIR", str(folder / "ipython"))
        patch.setenv("OMP_NUM_THREADS", "1")
        resources = {"metadata": {"path": str(folder)}}
        NotebookClient(notebook, timeout=600, startup_timeout=300, kernel_name="python3", resources=resources).execute()
    return notebook, folder


def html_of(notebook, source):
    """Give what the cell that begins so shows."""
    cell = next(cell for cell in notebook.cells if cell.cell_type == "code" and cell.source.startswith(source))
    return "".join(output.get("data", {}).get("text/html", "") + output.get("text", "") for output in cell.outputs)


def test_every_cell_runs_and_both_parts_are_reported(executed):
    notebook, folder = executed
    assert all(cell.execution_count for cell in notebook.cells if cell.cell_type == "code")
    (runs,) = folder.glob("runs/notebook-digits-*")
    base, extended = (Run.open(runs / name) for name in ("base", "extended"))
    assert (len(base.evaluation.classes), len(extended.evaluation.classes)) == (7, 10)
    assert base.evaluation.splits["test"].accuracy.value > 0.8
    for run in (base, extended):
        assert (run.path / "report.html").exists()
        assert run.environment.command == "ipykernel_launcher.py"
    text = html_of(notebook, "change =")
    assert f"test accuracy {base.evaluation.splits['test'].accuracy.value:.2%}" in text
    assert f"{extended.evaluation.extension.new_macro_f1.value:.3f}" in text


def test_no_cell_complains(executed):
    notebook, _ = executed
    outputs = [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]
    assert [output.text for output in outputs if output.get("name") == "stderr"] == []


def test_figures_and_tables_are_shown(executed):
    notebook, _ = executed
    assert html_of(notebook, 'reslab.draw(base, part="matrices")').count("<img") == 4
    assert html_of(notebook, 'reslab.draw(extended, part="matrices")').count("<img") == 4
    assert html_of(notebook, 'reslab.draw(base, part="features")').count("<img") == 1
    assert "Macro F1" in html_of(notebook, "evaluation =")
    assert "<img" in html_of(notebook, "train_images =")


def test_live_curves_end_with_every_epoch(executed):
    notebook, _ = executed
    assert 'alt="Accuracy over 6 epochs."' in html_of(notebook, 'with reslab.live_curves(runs / "base")')


def test_the_committed_notebook_is_clean_and_switches_by_one_line():
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert not any(cell.outputs or cell.execution_count for cell in code)
    assert sum(cell.source.startswith('LAB = "digits"') for cell in code) == 1
    assert sum("%pip install" in cell.source for cell in code) == 1
