"""The report of an evaluated run: one HTML file that opens offline, and its plots as PNG.

`tables` turns numbers into rows, `figures` turns arrays into PNG, and `page` puts both together. It reads a run folder
and does not load torch.
"""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from reslab.data.progress import waiting
from reslab.language import LanguageName, read_language, speaking
from reslab.report import page
from reslab.report.beside import put_beside
from reslab.report.card import kept_files, write_card
from reslab.report.inputs import Inputs, read_inputs
from reslab.report.interactive import interact
from reslab.report.markdown import render_markdown
from reslab.report.nearest import nearest_row
from reslab.report.parts import draw, summarize, tabulate
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

__all__ = ["Verdict", "draw", "summarize", "tabulate", "verdict", "write_report"]

PLOTS = ("loss", "accuracy", "confusion-*", "reliability-*", "answered-*", "features-*", "prior", "mistakes")  # by name


def write_report(run: Run, *, against: Run | None = None, language: LanguageName = "en") -> Path:
    """Write the report of an evaluated run: `report.html`, `report.md`, `model-card.md` and `figures/*.png`.

    It also writes `mistakes.csv` and, if evaluation looked for them, `doubts.csv` and `copies.csv`.

    Parameters
    ----------
    run : Run
        The evaluated run; the files are written into its folder.
    against : Run, optional
        Another run to test it against, by McNemar's test on the same test images.
    language : {"en", "ru"}, default "en"
        The language of the page, the Markdown and the model card; Russian ones are called `report.ru.html`,
        `report.ru.md` and `model-card.ru.md`, with their plots in `figures-ru`.

    Returns
    -------
    Path
        The page, one file that opens offline.

    Raises
    ------
    UserError
        If the run is not evaluated, a file is damaged, or `against` was not tested on the same images of the same
        classes.
    Failure
        If the disk refuses.

    Examples
    --------
    >>> import reslab
    >>> print(reslab.write_report(reslab.Run.open("runs/digits")).as_posix())
    runs/digits/report.html
    """
    with speaking(read_language(language)):
        return _write(run, against, suffix="" if language == "en" else f".{language}")


def _write(run: Run, against: Run | None, *, suffix: str) -> Path:
    told = f"report{suffix}.html"
    with waiting(f"{told}: reading the run"):
        inputs = read_inputs(run)
        row = nearest_row(inputs.recipe, num_parameters=inputs.num_parameters)
        beside = put_beside(run, against=against) if against else None
    with waiting(f"{told}: placing test images by their features"):
        features = inputs.gallery.features
        plane, method = (None, "") if features is None else to_plane(features.features)
    with waiting(f"{told}: drawing plots"):
        pictures = _draw(inputs, plane, method)
    with waiting(f"{told}: writing the page"):
        interaction = interact(inputs, plane=plane, row=row)
        html = page.render(inputs, pictures=pictures, row=row, beside=beside, interaction=interaction)
        every = [picture for group in pictures.values() for picture in group]
        folder = f"figures{suffix.replace('.', '-')}"
        _write_figures(run.path / folder, every)
        path = run.path / f"report{suffix}.html"
        write_bytes(path, html.encode())
        write_bytes(run.path / "mistakes.csv", mistakes_csv(inputs))
        for name, content in (("doubts.csv", doubts_csv(inputs)), ("copies.csv", copies_csv(inputs))):
            if content is not None:
                write_bytes(run.path / name, content)
            else:
                (run.path / name).unlink(missing_ok=True)  # of an earlier evaluation
        markdown = render_markdown(inputs, pictures=every, folder=folder, row=row, beside=beside)
        write_bytes(run.path / f"report{suffix}.md", markdown.encode())
        card = write_card(run, weights=inputs.weights, files=kept_files(run))
        write_bytes(run.path / f"model-card{suffix}.md", card.encode())
        return path


def _draw(inputs: Inputs, plane: NDArray[np.float64] | None, method: str) -> dict[str, list[Picture]]:
    """Draw every plot, by section of the page."""
    return {
        "curves": learning_curves(inputs),
        "test": confusion_matrices(inputs, splits=["test"]),
        "matrices": confusion_matrices(inputs, splits=[name for name in inputs.evaluation.splits if name != "test"]),
        "prior": prior_pictures(inputs),
        "calibration": [reliability_picture(reliability(inputs.predictions))],
        "answered": selection_pictures(inputs),
        "features": [] if plane is None else [feature_picture(inputs, plane, method)],
    }


def _write_figures(folder: Path, pictures: list[Picture]) -> None:
    """Write the plots, and remove those of an earlier report that this one lacks."""
    make_folder(folder)
    for picture in pictures:
        write_bytes(folder / f"{picture.name}.png", picture.png)
    written = {picture.name for picture in pictures}
    for pattern in PLOTS:
        for path in folder.glob(f"{pattern}.png"):
            if path.stem not in written:
                path.unlink(missing_ok=True)
