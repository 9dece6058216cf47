"""Numbers and names in words, the same on the terminal, in reports, studies and model cards."""

import json
import re
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Literal

from reslab.language import decimal, form_of, grouped, say, short

if TYPE_CHECKING:
    from reslab.records import Estimate

NBSP = "\u00a0"
DAY = 86400  # seconds
MOST_DECIMALS = 6
WITHOUT_COPIES = "without copies of training images"

Unit = Literal["percent", "plain", "points"]


# ---- figures


def percent(value: float, *, decimals: int = 2) -> str:
    """Write a fraction as percent."""
    return f"{decimal(100 * value, decimals)}{NBSP}%"


def between(low: float, high: float) -> str:
    """Write a range of fractions in percent, or the one figure where both ends are the same."""
    return percent(low) if low == high else f"{decimal(100 * low, 2)}–{percent(high)}"


def certainty(probability: float) -> str:
    """Write a probability in percent without rounding it up to certainty."""
    return percent(probability) if probability < 0.99995 else say("over\u00a0{figure}", figure=percent(0.9999))


def points(difference: float, *, decimals: int = 2) -> str:
    """Write a difference of fractions in percentage points, with its sign; 0 has none."""
    rounded = round(100 * difference, decimals)
    return decimal(rounded, decimals, sign="+").replace("-", "\u2212") if rounded else decimal(0, decimals)


_ENDS: dict[Unit, tuple[Callable[[float, int], str], str, int]] = {
    "percent": (lambda end, decimals: decimal(100 * end, decimals), "–", 2),
    "plain": (decimal, "–", 3),
    "points": (lambda end, decimals: points(end, decimals=decimals), " to ", 2),
}


def interval(low: float, high: float, *, unit: Unit = "percent", decimals: int | None = None) -> str:
    """Write the ends of an interval in parentheses; nothing where it has no width, which would claim certainty.

    Ends that look the same get more decimals.
    """
    if low == high:
        return ""
    write, joint, usual = _ENDS[unit]
    decimals = usual if decimals is None else decimals
    while write(low, decimals) == write(high, decimals) and decimals < MOST_DECIMALS:
        decimals += 1
    return f"({write(low, decimals)}{say(joint)}{write(high, decimals)})"


def figure(estimate: "Estimate", *, unit: Unit = "percent") -> str:
    """Write a figure with its interval."""
    return f"{figure_alone(estimate, unit=unit)} {interval(estimate.low, estimate.high, unit=unit)}".strip()


def figure_alone(estimate: "Estimate", *, unit: Unit = "percent") -> str:
    """Write a figure without its interval."""
    write, _, decimals = _ENDS[unit]
    return write(estimate.value, decimals) + {"percent": f"{NBSP}%", "plain": "", "points": f" {say('points')}"}[unit]


def errors_among(wrong: int, total: int) -> str:
    """Write how many answers of how many are wrong."""
    errors = counted(wrong, "error") if wrong else say("no errors")
    return say("{errors} among {total}", errors=errors, total=grouped(total))


def less_copies(num_copies: int) -> str:
    """Write how many images an accuracy without copies leaves out."""
    return say("{images} left out", images=counted(num_copies, "image")) if num_copies else say("no copies found")


# ---- times


def duration(seconds: float) -> str:
    """Write a time with its two largest units."""
    if seconds < 59.95:
        return f"{decimal(seconds, 1)}{NBSP}{say('s')}"
    if seconds < 3599.5:
        (large, small), units = divmod(round(seconds), 60), ("min", "s")
    elif seconds < 2 * DAY:
        (large, small), units = divmod(round(seconds / 60), 60), ("h", "min")
    else:
        (large, small), units = divmod(round(seconds / 3600), 24), ("d", "h")
    return f"{large}{NBSP}{say(units[0])}" + (f" {small}{NBSP}{say(units[1])}" if small else "")


def moment(iso: str) -> str:
    """Write a time stamp (ISO 8601, UTC) to the minute."""
    return datetime.fromisoformat(iso).strftime(f"%Y-%m-%d, %H:%M{NBSP}UTC")


# ---- counts and names


def quantity(number: int) -> str:
    """Write a number of parameters with three figures."""
    size, unit = (number / 1e6, "M") if number >= 100_000 else (number / 1e3, "k")
    return f"{short(size, 3)}{NBSP}{say(unit)}"


def counted(number: int, noun: str) -> str:
    """Write how many there are of a thing."""
    return f"{grouped(number)} {form_of(number, noun)}"


def listing(words: Sequence[str]) -> str:
    """Join words as a sentence does."""
    joint = f" {say('and')} "
    return joint.join([", ".join(words[:-1]), words[-1]] if len(words) > 2 else words)


def named(words: Sequence[str], *, most: int = 10) -> str:
    """Join names as a sentence does, the last ones only counted where there are more than `most`."""
    return listing(
        words if len(words) <= most else [*words[: most - 1], say("{number} more", number=len(words) - most + 1)]
    )


def some(words: Sequence[str], count: int, most: int | None) -> str:
    """Write the first `most` words of a list that stands for `count`, None: all, and how many more there are."""
    more = count - len(words[:most])
    return ", ".join(words[:most]) + (f" {say('and')} {say('{number} more', number=grouped(more))}" if more else "")


# Control characters, what turns the direction of writing, and bytes of a file's name that are no text at all.
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
_MARKDOWN = re.compile(r"[\\`*_\[\]<>|#~&$]")


def printable(text: str) -> str:
    """Escape what a terminal would obey or cannot show, as in \\x1b; non-breaking spaces become plain ones."""
    return _CONTROL.sub(lambda found: found[0].encode("unicode_escape").decode(), text).replace("\u00a0", " ")


def is_text(text: str) -> bool:
    """Say whether a UTF-8 file could hold it."""
    return not any("\ud800" <= letter <= "\udfff" for letter in text)


def markdown(text: str) -> str:
    """Write text so that Markdown shows it as it is, in one line."""
    return _MARKDOWN.sub(r"\\\g<0>", printable(" ".join(text.splitlines())))


def markdown_code(text: str) -> str:
    """Write text as code within a line of Markdown, between more backticks than it holds."""
    text = printable(" ".join(text.splitlines()))
    fence = _fence(text, fewest=1)
    gap = " " if text[:1] == "`" or text[-1:] == "`" else ""
    return f"{fence}{gap}{text}{gap}{fence}"


def markdown_block(text: str) -> str:
    """Write a line of text as a block of code in Markdown."""
    fence = _fence(text, fewest=3)
    return f"{fence}\n{printable(text)}\n{fence}"


def yaml(text: str) -> str:
    """Write text as a string in YAML, where it is one in JSON too."""
    quoted = json.dumps(text, ensure_ascii=False)
    return _CONTROL.sub(lambda found: f"\\u{ord(found[0]):04x}", quoted)


def _fence(text: str, *, fewest: int) -> str:
    longest = max(map(len, re.findall("`+", text)), default=0)
    return "`" * max(fewest, longest + 1)
