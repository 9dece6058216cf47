"""Formatting of numbers and names, the same on the terminal, in reports, studies and model cards."""

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

Unit = Literal["percent", "plain", "points"]


# ---- figures


def percent(value: float, *, decimals: int = 2) -> str:
    """Format a fraction in percent."""
    return f"{decimal(100 * value, decimals)}{NBSP}%"


def percent_of_whole(value: float, *, decimals: int) -> str:
    """Format a fraction in percent, with more decimals where it would look like 100 % and is less."""
    while value < 1 and round(100 * value, decimals) == 100:
        decimals += 1
    return percent(value, decimals=decimals)


def between(low: float, high: float) -> str:
    """Format a range of fractions in percent, or a single value if both ends are equal."""
    return percent(low) if low == high else f"{decimal(100 * low, 2)}–{percent(high)}"


def certainty(probability: float) -> str:
    """Format a probability in percent without rounding it up to 100 %."""
    return percent(probability) if probability < 0.99995 else say("over\u00a0{figure}", figure=percent(0.9999))


def points(difference: float, *, decimals: int = 2) -> str:
    """Format a difference of fractions in percentage points, with its sign; 0 has none."""
    rounded = round(100 * difference, decimals)
    return decimal(rounded, decimals, sign="+").replace("-", "\u2212") if rounded else decimal(0, decimals)


_ENDS: dict[Unit, tuple[Callable[[float, int], str], str, int]] = {
    "percent": (lambda end, decimals: decimal(100 * end, decimals), "–", 2),
    "plain": (decimal, "–", 3),
    "points": (lambda end, decimals: points(end, decimals=decimals), " to ", 2),
}


def interval(low: float, high: float, *, unit: Unit = "percent", decimals: int | None = None) -> str:
    """Format the ends of an interval in parentheses, with more decimals if they would look the same.

    An interval without width, apart from rounding, becomes an empty string, because showing it would claim certainty.
    """
    write, joint, usual = _ENDS[unit]
    decimals = usual if decimals is None else decimals
    while write(low, decimals) == write(high, decimals) and decimals < MOST_DECIMALS:
        decimals += 1
    if write(low, decimals) == write(high, decimals):
        return ""
    return f"({write(low, decimals)}{say(joint)}{write(high, decimals)})"


def spread(value: float, low: float, high: float, *, unit: Unit = "percent") -> str:
    """Format an interval as ± half of its width, or by its ends if they are not equally far from the value."""
    if abs((high - value) - (value - low)) > 1e-9:
        return interval(low, high, unit=unit)
    return f"± {decimal(100 * (high - low) / 2, 2)}"


def figure(estimate: "Estimate", *, unit: Unit = "percent") -> str:
    """Format an estimate with its interval."""
    return f"{figure_alone(estimate, unit=unit)} {interval(estimate.low, estimate.high, unit=unit)}".strip()


def figure_alone(estimate: "Estimate", *, unit: Unit = "percent") -> str:
    """Format an estimate without its interval."""
    write, _, decimals = _ENDS[unit]
    return write(estimate.value, decimals) + {"percent": f"{NBSP}%", "plain": "", "points": f" {say('points')}"}[unit]


def errors_among(wrong: int, total: int) -> str:
    """Describe how many of `total` answers are wrong."""
    errors = counted(wrong, "error") if wrong else say("no errors")
    return say("{errors} among {total}", errors=errors, total=grouped(total))


def less_copies(num_copies: int) -> str:
    """Describe how many images an accuracy without copies leaves out."""
    return less_images(num_copies) if num_copies else say("no copies found")


def less_images(num: int) -> str:
    """Describe how many images an accuracy leaves out."""
    return say("{images} left out", images=counted(num, "image"))


# ---- times


def duration(seconds: float) -> str:
    """Format a duration with its two largest units."""
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
    """Format a timestamp (ISO 8601, UTC) to the minute."""
    return datetime.fromisoformat(iso).strftime(f"%Y-%m-%d, %H:%M{NBSP}UTC")


# ---- counts and names


def quantity(number: int) -> str:
    """Format a number of parameters with three significant digits."""
    size, unit = (number / 1e6, "M") if number >= 100_000 else (number / 1e3, "k")
    return f"{short(size, 3)}{NBSP}{say(unit)}"


def counted(number: int, noun: str) -> str:
    """Format a count with its noun."""
    return f"{grouped(number)} {form_of(number, noun)}"


def listing(words: Sequence[str]) -> str:
    """Join words with commas and a final "and"."""
    joint = f" {say('and')} "
    return joint.join([", ".join(words[:-1]), words[-1]] if len(words) > 2 else words)


def named(words: Sequence[str], *, most: int = 10) -> str:
    """Join names as `listing` does; if there are more than `most`, only count the last ones."""
    return listing(
        words if len(words) <= most else [*words[: most - 1], say("{number} others", number=len(words) - most + 1)]
    )


def some(words: Sequence[str], count: int, most: int | None) -> str:
    """List the first `most` words (None: all) and say how many of `count` are not shown."""
    more = count - len(words[:most])
    return ", ".join(words[:most]) + (f" {say('and')} {say('{number} more', number=grouped(more))}" if more else "")


# Control characters, marks that change the writing direction, and undecodable bytes of file names.
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
_MARKDOWN = re.compile(r"[\\`*_\[\]<>|#~&$]")


def printable(text: str) -> str:
    """Escape control characters and what a terminal cannot show, as in \\x1b; make non-breaking spaces plain ones."""
    return _CONTROL.sub(lambda found: found[0].encode("unicode_escape").decode(), text).replace("\u00a0", " ")


def is_text(text: str) -> bool:
    """Return whether the text can be encoded in UTF-8."""
    return not any("\ud800" <= letter <= "\udfff" for letter in text)


def markdown(text: str) -> str:
    """Escape text so that Markdown shows it literally, on one line."""
    return _MARKDOWN.sub(r"\\\g<0>", printable(" ".join(text.splitlines())))


def markdown_code(text: str) -> str:
    """Format text as inline code in Markdown, between more backticks than it contains."""
    text = printable(" ".join(text.splitlines()))
    fence = _fence(text, fewest=1)
    gap = " " if text[:1] == "`" or text[-1:] == "`" else ""
    return f"{fence}{gap}{text}{gap}{fence}"


def markdown_block(text: str) -> str:
    """Format a line of text as a code block in Markdown."""
    fence = _fence(text, fewest=3)
    return f"{fence}\n{printable(text)}\n{fence}"


def yaml(text: str) -> str:
    """Format text as a quoted string in YAML; the result is valid JSON too."""
    quoted = json.dumps(text, ensure_ascii=False)
    return _CONTROL.sub(lambda found: f"\\u{ord(found[0]):04x}", quoted)


def _fence(text: str, *, fewest: int) -> str:
    longest = max(map(len, re.findall("`+", text)), default=0)
    return "`" * max(fewest, longest + 1)
