"""The language of a report: English is in the code, other languages in a table beside this file.

A sentence is looked up by its English text including its placeholders, so the code shows what the report says.
`russian.toml` has tables of sentences, of texts in the page's script, and of nouns with their three forms.
"""

import tomllib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Literal, get_args

from reslab.errors import UserError

LanguageName = Literal["en", "ru"]
LANGUAGES: tuple[LanguageName, ...] = get_args(LanguageName)


@dataclass(frozen=True)
class Language:
    """A language: how it writes numbers, and its translations of English sentences and nouns."""

    name: LanguageName
    point: str = "."
    grouping: str = ","
    sentences: Mapping[str, str] | None = None
    script: Mapping[str, str] | None = None  # texts in the page's script
    nouns: Mapping[str, tuple[str, str, str]] | None = None  # forms for 1, 2 and 5


ENGLISH = Language("en")
_current: ContextVar[Language] = ContextVar("language", default=ENGLISH)


@cache
def read_language(name: LanguageName) -> Language:
    """Read the table of a language. Raises: UserError if it is unknown."""
    if find_language(name) == "en":
        return ENGLISH
    table = tomllib.loads(resources.files("reslab").joinpath("russian.toml").read_text(encoding="utf-8"))
    nouns = {noun: tuple(forms) for noun, forms in table["nouns"].items()}
    return Language(name, ",", "\u00a0", table["sentences"], table["script"], nouns)


def find_language(name: str) -> LanguageName:
    """Look up a language by name. Raises: UserError if it is unknown."""
    for language in LANGUAGES:
        if name == language:
            return language
    raise UserError(f"no language {name!r}: choose from {', '.join(LANGUAGES)}")


@contextmanager
def speaking(language: Language) -> Iterator[None]:
    """Use a language for everything written within the block."""
    token = _current.set(language)
    try:
        yield
    finally:
        _current.reset(token)


def current_language() -> Language:
    """Return the language in use."""
    return _current.get()


def say(sentence: str, /, **values: object) -> str:
    """Translate a sentence into the current language and fill its placeholders; untranslated ones stay English."""
    table = _current.get().sentences
    said = sentence if table is None else table.get(sentence, sentence)
    return said.format(**values) if values else said


# ---- numbers


def decimal(value: float, decimals: int, *, sign: str = "") -> str:
    """Format a number with a fixed number of decimals."""
    return f"{value:{sign}.{decimals}f}".replace(".", _current.get().point)


def short(value: float, digits: int = 6) -> str:
    """Format a number with at most `digits` significant digits, without trailing zeros."""
    return f"{value:.{digits}g}".replace(".", _current.get().point)


def series(values: Iterable[float], digits: int = 6) -> str:
    """Format several numbers, separated by semicolons if the decimal mark is a comma."""
    return (", " if _current.get().point == "." else "; ").join(short(value, digits) for value in values)


def grouped(number: int) -> str:
    """Format a whole number with its thousands grouped."""
    return f"{number:,}".replace(",", _current.get().grouping)


def form_of(number: int, noun: str) -> str:
    """Return the form of a noun that follows `number`."""
    nouns = _current.get().nouns
    if nouns is None or noun not in nouns:
        ending = "" if number == 1 else "es" if noun.endswith("s") else "s"
        return noun + ending
    one, few, many = nouns[noun]
    if number % 10 == 1 and number % 100 != 11:
        return one
    return few if number % 10 in (2, 3, 4) and number % 100 not in (12, 13, 14) else many
