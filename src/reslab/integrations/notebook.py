"""Displays for notebooks: pictures of the data, and live learning curves.

Training knows nothing of them: the curves are read from the log in the run folder.
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from reslab.data.images import ImageSet
from reslab.errors import UserError, extra
from reslab.language import LanguageName, read_language, say, speaking
from reslab.report.curves import series_of
from reslab.report.figures import image_rows, learning_curve, short_name
from reslab.report.pictures import Picture
from reslab.report.tables import split_words
from reslab.runs import Run
from reslab.words import counted

SECONDS_BETWEEN_LOOKS = 1.0


def draw_images(images: ImageSet, *, each: int = 8, language: LanguageName = "en") -> Picture:
    """Draw the first images of every class.

    Parameters
    ----------
    images : ImageSet
        A split, as `load` returns it.
    each : int, default 8
        Number of images per class.
    language : {"en", "ru"}, default "en"
        The language of title and caption.

    Returns
    -------
    Picture
        A plot as PNG with a row for each class, which a notebook shows.

    Examples
    --------
    >>> import reslab
    >>> reslab.draw_images(reslab.load("digits:1,4,7", "train"), each=4).caption
    'The first 4 of each class.'
    """
    labels = images.labels.numpy()
    rows = [images.images[np.flatnonzero(labels == label)[:each]].numpy() for label in range(len(images.classes))]
    with speaking(read_language(language)):
        names = [short_name(name, number=number) for number, name in enumerate(images.classes, 1)]
        return Picture(
            name=f"images-{images.split}",
            png=image_rows(rows, names=names),
            alt=say("The first {number} of each class.", number=each),
            title=f"{split_words(images.split)}, {counted(len(labels), 'image')}.",
            caption=say("The first {number} of each class.", number=each),
        )


@contextmanager
def live_curves(out: Path | str) -> Iterator[None]:
    """Show the learning curves of a run in a notebook while the block trains it.

    Parameters
    ----------
    out : Path or str
        The run folder that the block trains into.

    Raises
    ------
    UserError
        If IPython is not installed.

    Examples
    --------
    >>> import reslab
    >>> with reslab.live_curves("runs/digits"):
    ...     run = reslab.resume("runs/digits")
    """
    with extra("notebook"):
        from IPython.display import display
    shown: object = display(display_id=True)  # type: ignore[no-untyped-call]
    ended = threading.Event()

    def look() -> None:
        drawn = 0
        while True:
            last_look = ended.wait(SECONDS_BETWEEN_LOOKS)
            drawn = _draw_log(Run(out), shown, drawn=drawn)
            if last_look:
                return

    thread = threading.Thread(target=look, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def _draw_log(run: Run, shown: object, *, drawn: int) -> int:
    """Draw the log if it has grown; return the number of epochs drawn."""
    try:
        log = run.log
    except UserError:
        return drawn
    if shown is None or len(log) <= drawn:
        return drawn
    png = learning_curve(series_of(log, "accuracy", scale=100), label="accuracy (%)")
    shown.update(Picture(name="live", png=png, alt=f"Accuracy over {counted(len(log), 'epoch')}."))  # type: ignore[attr-defined]
    return len(log)
