"""A study's folder: which study it belongs to, and the gradients that were measured for it."""

from pathlib import Path

from reslab.errors import UserError
from reslab.runs import Run, make_folder, write_json
from reslab.runs.files import read_record
from reslab.study.spec import Gradients, Study, StudyRecord


def claim(out: Path, study: Study, *, scale: float) -> None:
    """Claim a folder for a study at one scale. Raises: UserError if it holds runs of another, or is a run's."""
    check_is_no_run(out)
    wanted = StudyRecord(study=study.name, epochs_scale=scale)
    if not (out / "study.json").exists() or not any(map(Run.is_at, out.iterdir())):
        make_folder(out)
        write_json(out / "study.json", wanted.model_dump())
    elif (begun := read_begun(out)) != wanted:
        raise UserError(
            f"{out} holds runs of {begun.study} at {begun.epochs_scale:g} of the epochs, not of {study.name} at "
            f"{scale:g}: choose another --out"
        )


def check_is_no_run(out: Path) -> None:
    """Raises: UserError if a folder is that of a run, whose report a study's would replace."""
    if Run.is_at(out):
        raise UserError(f"{out} is the folder of a run, not of a study: choose another --out")


def read_begun(out: Path) -> StudyRecord:
    """Read which study a folder belongs to. Raises: UserError if there is none."""
    if not (out / "study.json").is_file():
        raise UserError(f"{out} holds no study: reslab study run begins one")
    return read_record(out / "study.json", StudyRecord)


def write_gradients(out: Path, measured: Gradients) -> None:
    """Write the gradient norms."""
    write_json(out / "gradients.json", measured.model_dump())


def read_gradients(out: Path) -> Gradients:
    """Read the gradient norms; none if they were not measured."""
    path = out / "gradients.json"
    return read_record(path, Gradients) if path.exists() else Gradients(norms={})
