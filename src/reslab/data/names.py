"""Names of classes as people write them, on disk and in the choice of classes after a path (`:cat,dog`, `:-junk`)."""

import re
import unicodedata
from collections.abc import Sequence

from reslab.words import named

WHERE = "(after the path, before any ?)"


def nfc(name: str) -> str:
    """Compose the letters of a name: macOS may write é as e with an accent, which looks the same."""
    return unicodedata.normalize("NFC", name)


def can_be_chosen(name: str) -> bool:
    """Return whether a name can be written after a path."""
    return name == name.strip() and not re.search(r"^-|[,:/\\?&@+]", name)


def write_choice(classes: Sequence[str], without: Sequence[str]) -> tuple[str, ...]:
    """Write classes to take, or to leave out, as after a path."""
    return (*classes, *(f"-{name}" for name in without))


def choose_without(names: Sequence[str], *, choice: Sequence[str] = ()) -> list[str]:
    """Return a choice of classes that leaves out `names`, too."""
    left_out = [each for each in choice if each.startswith("-")]
    taken = [each for each in choice if each not in left_out and each not in names]
    return taken or [*left_out, *write_choice((), names)]


def advise_leaving_out(names: Sequence[str], *, choice: Sequence[str] = ()) -> str:
    """Say how to leave out `names`, too."""
    if odd := [repr(name) for name in names if not can_be_chosen(name)]:
        return f"rename {named(odd)} to leave it out (a name after a path has none of , : / ? & @ + and no - in front)"
    return f"leave out :{','.join(choose_without(names, choice=choice))} {WHERE}"
