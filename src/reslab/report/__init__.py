"""The report of an evaluated run: one HTML file that opens without a network, and its figures as PNG.

`tables` turns numbers into rows, `figures` arrays into PNG, `page` puts both together. It reads a run folder, and
neither torch nor a recipe's code.
"""

from pathlib import Path

from reslab.errors import Failure
from reslab.report import page
from reslab.report.beside import put_beside
from reslab.report.inputs import read_inputs
from reslab.report.pictures import confusion_matrices, learning_curves, prior_pictures, reliability_picture
from reslab.report.tables import reliability
from reslab.report.verdict import Verdict, verdict
from reslab.runs import Run, write_bytes

__all__ = ["Verdict", "verdict", "write_report"]


def write_report(run: Run, *, against: Run | None = None) -> Path:
    """Write `report.html` and `figures/*.png` into a run folder and give the page's path.

    Raises: UserError where the run is not evaluated, a file is damaged or the run `against` which it is tested was not
    tested on the same images of the same classes; Failure where the disk refuses.
    """
    inputs = read_inputs(run)
    beside = put_beside(run, against=against) if against else None
    pictures = {
        "curves": learning_curves(inputs),
        "matrices": confusion_matrices(inputs),
        "prior": prior_pictures(inputs),
        "calibration": [reliability_picture(reliability(inputs.predictions))],
    }
    html = page.render(inputs, pictures=pictures, beside=beside)
    folder = run.path / "figures"
    try:
        folder.mkdir(exist_ok=True)
    except OSError as error:
        raise Failure(f"{folder} cannot be made: {error.strerror}") from None
    for picture in (picture for group in pictures.values() for picture in group):
        write_bytes(folder / f"{picture.name}.png", picture.png)
    path = run.path / "report.html"
    write_bytes(path, html.encode())
    return path
