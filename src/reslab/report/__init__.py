"""The report of an evaluated run: one HTML file that opens without a network, and its figures as PNG.

`tables` turns numbers into rows, `figures` arrays into PNG, `page` puts both together. It reads a run folder, and
neither torch nor a recipe's code.
"""

from pathlib import Path

from reslab.report import page
from reslab.report.beside import put_beside
from reslab.report.card import kept_files, write_card
from reslab.report.inputs import read_inputs
from reslab.report.interactive import interact
from reslab.report.markdown import render_markdown
from reslab.report.parts import draw, tabulate
from reslab.report.pictures import (
    Picture,
    confusion_matrices,
    feature_picture,
    learning_curves,
    prior_pictures,
    reliability_picture,
    selection_pictures,
)
from reslab.report.plane import to_plane
from reslab.report.spreadsheets import copies_csv, doubts_csv, mistakes_csv
from reslab.report.tables import reliability
from reslab.report.verdict import Verdict, verdict
from reslab.runs import Run, make_folder, write_bytes

__all__ = ["Verdict", "draw", "tabulate", "verdict", "write_report"]


def write_report(run: Run, *, against: Run | None = None) -> Path:
    """Write the report of an evaluated run: `report.html`, `report.md`, `model-card.md` and `figures/*.png`.

    Beside them lie `mistakes.csv` and, where evaluation looked for them, `doubts.csv` and `copies.csv`.

    Parameters
    ----------
    run : Run
        The evaluated run; the files are written into its folder.
    against : Run, optional
        Another run to test it against, by McNemar's test on the same test images.

    Returns
    -------
    Path
        The page, one file that opens without a network.

    Raises
    ------
    UserError
        Where the run is not evaluated, a file is damaged, or `against` was not tested on the same images of the same
        classes.
    Failure
        Where the disk refuses.

    Examples
    --------
    >>> import reslab
    >>> print(reslab.write_report(reslab.Run.open("runs/digits")).as_posix())
    runs/digits/report.html
    """
    inputs = read_inputs(run)
    beside = put_beside(run, against=against) if against else None
    features = inputs.gallery.features
    plane, method = (None, "") if features is None else to_plane(features.features)
    pictures = {
        "curves": learning_curves(inputs),
        "matrices": confusion_matrices(inputs),
        "prior": prior_pictures(inputs),
        "calibration": [reliability_picture(reliability(inputs.predictions))],
        "answered": selection_pictures(inputs),
        "features": [] if plane is None else [feature_picture(inputs, plane, method)],
    }
    html = page.render(inputs, pictures=pictures, beside=beside, interaction=interact(inputs, plane=plane))
    every = [picture for group in pictures.values() for picture in group]
    _write_figures(run.path / "figures", every)
    path = run.path / "report.html"
    write_bytes(path, html.encode())
    write_bytes(run.path / "mistakes.csv", mistakes_csv(inputs))
    for name, content in (("doubts.csv", doubts_csv(inputs)), ("copies.csv", copies_csv(inputs))):
        if content is not None:
            write_bytes(run.path / name, content)
    write_bytes(run.path / "report.md", render_markdown(inputs, pictures=every, beside=beside).encode())
    card = write_card(run, weights=inputs.weights, files=kept_files(run))
    write_bytes(run.path / "model-card.md", card.encode())
    return path


def _write_figures(folder: Path, pictures: list[Picture]) -> None:
    make_folder(folder)
    for picture in pictures:
        write_bytes(folder / f"{picture.name}.png", picture.png)
