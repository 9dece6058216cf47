"""Names from elsewhere reach a terminal, a Markdown page and a model card as what they are, and as nothing else."""

import html
import re

import pytest
import yaml as reader
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from reslab.words import is_text, markdown, markdown_block, markdown_code, printable, yaml

HOSTILE = st.text(st.sampled_from("ab `\\*_[]()<>|#~&$!\x1b\x9b\x07\n\r\u202e\u2028é😀"), min_size=1, max_size=20)
CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


def one_line(text: str) -> str:
    return printable(" ".join(text.splitlines())).strip()


@given(text=st.text() | HOSTILE)
def test_nothing_that_a_terminal_obeys_is_left(text: str) -> None:
    assert not CONTROL.search(printable(text))


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("ant", "ant"),
        ("käfer 甲虫 😀", "käfer 甲虫 😀"),
        ("\x1b[31mred", "\\x1b[31mred"),
        ("a\nb", "a\\nb"),
        ("\udcff", "\\udcff"),
    ],
)
def test_what_is_shown(text: str, shown: str) -> None:
    assert printable(text) == shown
    assert is_text(text) == ("\udcff" not in text)


@given(text=HOSTILE)
def test_markdown_shows_a_name_as_it_is(text: str) -> None:
    shown = MarkdownIt().renderInline(f"a {markdown(text)} b")
    assert re.sub(" +", " ", shown) == re.sub(" +", " ", f"a {html.escape(printable(' '.join(text.splitlines())))} b")


@given(text=HOSTILE)
def test_code_holds_a_name_as_it_is(text: str) -> None:
    for part in ("`", "``", text):
        (token,) = MarkdownIt().parseInline(markdown_code(f"x{part}y"))[0].children or []
        assert (token.type, token.content) == ("code_inline", one_line(f"x{part}y"))
    (block,) = MarkdownIt().parse(markdown_block(f"```\n# {text}"))
    assert (block.type, block.content) == ("fence", printable(f"```\n# {text}") + "\n")


@given(text=st.text() | HOSTILE)
def test_yaml_reads_a_name_back(text: str) -> None:
    assert reader.safe_load(f"- name: {yaml(text)}\n  next: 1") == [{"name": text, "next": 1}]
