"""Text from elsewhere (names of classes, files and recipes) as it may be shown: on a terminal, in Markdown, in YAML."""

import json
import re

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
