"""Names of classes as people write them, on disk and in the choice of classes after a path (`:cat,dog`, `:-junk`)."""

import difflib
import re
import unicodedata
from collections import defaultdict
from collections.abc import Sequence

from reslab.words import named

WHERE = "(after the path, before any ?)"
SIMILAR = 0.8  # of letters, as difflib measures it, in names that may be one misspelt


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


def find_alike(names: Sequence[str]) -> tuple[tuple[str, ...], ...]:
    """Find names that differ only in case, spaces, hyphens or Unicode normalization."""
    groups: dict[str, list[str]] = defaultdict(list)
    for name in names:
        groups[_plain(name)].append(name)
    return tuple(tuple(names) for names in groups.values() if len(names) > 1)


def find_twin(name: str, others: Sequence[str]) -> str | None:
    """Find another spelling of a name; a name with other digits is another name."""
    plain = {_plain(other): other for other in others if re.sub(r"\D", "", other) == re.sub(r"\D", "", name)}
    near = difflib.get_close_matches(_plain(name), plain, n=1, cutoff=SIMILAR)
    return plain[near[0]] if near else None


def _plain(name: str) -> str:
    plain = unicodedata.normalize("NFKC", name).casefold()
    return "".join(letter for letter in plain if letter.isalnum()) or plain
