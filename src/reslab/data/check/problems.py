"""All problems that keep the sources of an expression from being read, named at once.

Reading ends with the first one: a class without pictures, then the damaged pictures of one split, then those of the
next. Whoever repairs pictures wants to know of all. Any other mistake, such as a path that is wrong, is named alone:
looking for more would mean decoding every picture first.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from reslab.data.expression import LocatedTerm, leave_out, parse, split_sources
from reslab.data.framing import Form
from reslab.data.load import list_files, load, load_validation
from reslab.data.notes import already_said
from reslab.data.sources.samples import EmptyClasses
from reslab.data.split import SmallClasses
from reslab.data.storage.stored import DamagedPictures
from reslab.errors import UserError
from reslab.records import SplitName


@dataclass(frozen=True)
class SplitReading:
    """How splits are read, as for `load`; `form` may be a function that finds it from a sound expression."""

    splits: Sequence[SplitName]
    form: Form | Callable[[str], Form]
    skip_damaged: bool = False
    data_dir: Path | None = None


@contextmanager
def naming_all_problems(expression: str, reading: SplitReading) -> Iterator[None]:
    """If pictures or classes fail in the block, name all problems of the folders, tables and arrays of the expression.

    All sources are listed before any picture is decoded.
    """
    try:
        yield
    except (DamagedPictures, EmptyClasses, SmallClasses) as error:
        problems = [str(error)] if not isinstance(error, DamagedPictures) else []
        with already_said():
            problems += _find_problems(expression, reading)
        problems = list(dict.fromkeys(problems)) or [str(error)]
        if problems == [str(error)]:
            raise
        raise UserError(". Also, ".join(problems)) from None


def _find_problems(expression: str, reading: SplitReading) -> list[str]:
    """Find what keeps sources from being listed; if that is only some classes, also what keeps the others unread."""
    listed = [_list(text, reading) for text in split_sources(expression)]
    problems = [problem for each in listed for problem in each.problems]
    sound = [each.sound for each in listed if each.sound is not None]
    if not sound or not all(each.can_be_listed for each in listed):
        return problems
    try:
        form = reading.form if isinstance(reading.form, Form) else reading.form("+".join(sound))
    except UserError as error:
        return [*problems, str(error)]
    return problems + [problem for text in sound for problem in _find_unread(text, form, reading)]


@dataclass(frozen=True)
class _Listed:
    """What is wrong with the classes of a source, and the source without these; None if no class is left."""

    problems: tuple[str, ...]
    sound: str | None
    can_be_listed: bool = True


def _list(text: str, reading: SplitReading) -> _Listed:
    """List the files of a source, without the classes that have too few."""
    problems: list[str] = []
    sound: str | None = text
    while sound is not None:
        try:
            for term, listing in list_files(sound, data_dir=reading.data_dir):
                if term.limit != 0:
                    listing.of_split("train")
            break
        except (EmptyClasses, SmallClasses) as error:
            problems.append(str(error))
            sound = None if error.are_all else leave_out(sound, error.names)
        except UserError as error:
            return _Listed((*problems, str(error)), None, can_be_listed=False)
    return _Listed(tuple(problems), sound)


def _find_unread(text: str, form: Form, reading: SplitReading) -> Iterator[str]:
    """Yield what keeps the pictures of a source from being read."""
    (term,) = parse(text)
    if not isinstance(term, LocatedTerm):
        return
    damaged: list[str] = []
    for split in reading.splits:
        if term.limit == 0 and split != "test":  # none of its training images are taken
            continue
        try:
            _read(text, split, form, reading)
        except DamagedPictures as error:
            damaged += error.sentences
        except UserError as error:
            yield str(error)
    if damaged:
        yield str(DamagedPictures(list(dict.fromkeys(damaged)), origin=term.origin))


def _read(text: str, split: SplitName, form: Form, reading: SplitReading) -> None:
    data_dir, skip_damaged = reading.data_dir, reading.skip_damaged
    if split != "validation":
        load(text, split, **form._asdict(), data_dir=data_dir, skip_damaged=skip_damaged)
        return
    training = load(text, "train", **form._asdict(), data_dir=data_dir, skip_damaged=True)
    form = form._replace(white=training.white)
    load_validation(text, classes=training.classes, form=form, data_dir=data_dir, skip_damaged=skip_damaged)
