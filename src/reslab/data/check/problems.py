"""All problems that keep the sources of an expression from being read, named at once.

Reading ends with the first one: a class without pictures, then the damaged pictures of one split, then those of the
next. Whoever repairs pictures wants to know of all.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from reslab.data.expression import LocatedTerm, leave_out, parse, split_sources
from reslab.data.framing import Form
from reslab.data.load import load, load_validation
from reslab.data.notes import already_said
from reslab.data.sources.samples import EmptyClasses
from reslab.data.storage.stored import DamagedPictures
from reslab.errors import UserError
from reslab.records import SplitName


@dataclass(frozen=True)
class Reading:
    """How splits are read; as for `load`."""

    splits: Sequence[SplitName]
    form: Form
    skip_damaged: bool = False
    data_dir: Path | None = None


@contextmanager
def naming_all_problems(expression: str, reading: Reading) -> Iterator[None]:
    """If reading data fails in the block, name all problems of the folders, tables and arrays of the expression."""
    try:
        yield
    except UserError as error:
        problems = [str(error)] if not isinstance(error, DamagedPictures) else []
        with already_said():
            for text in split_sources(expression):
                problems += _find_problems(text, reading)
        problems = list(dict.fromkeys(problems)) or [str(error)]
        if problems == [str(error)]:
            raise
        raise UserError(". Also, ".join(problems)) from None


def _find_problems(text: str, reading: Reading) -> Iterator[str]:
    """Yield what keeps a source from being read; of one without pictures of some classes, what keeps the others."""
    (term,) = parse(text)
    if not isinstance(term, LocatedTerm):
        return
    damaged: list[str] = []
    for split in reading.splits:
        if term.limit == 0 and split != "test":  # none of its training images are taken
            continue
        try:
            _read(text, split, reading)
        except DamagedPictures as error:
            damaged += error.sentences
        except EmptyClasses as error:
            yield str(error)
            if not error.are_all and (others := leave_out(text, error.names)):
                yield from _find_problems(others, reading)
            return
        except UserError as error:
            yield str(error)
    if damaged:
        yield str(DamagedPictures(list(dict.fromkeys(damaged)), origin=term.origin))


def _read(text: str, split: SplitName, reading: Reading) -> None:
    form, data_dir, skip_damaged = reading.form, reading.data_dir, reading.skip_damaged
    if split != "validation":
        load(text, split, **form._asdict(), data_dir=data_dir, skip_damaged=skip_damaged)
        return
    training = load(text, "train", **form._asdict(), data_dir=data_dir, skip_damaged=True)
    form = form._replace(white=training.white)
    load_validation(text, classes=training.classes, form=form, data_dir=data_dir, skip_damaged=skip_damaged)
