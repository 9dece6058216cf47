"""The first screen, and help that groups the commands by purpose."""

import os
from collections.abc import Iterator
from typing import Any, Final

import typer
import typer.core

START, TRAIN, USE, LOOK = "Start here", "Train and measure", "Use", "Look inside"

MAP: Final = """\
reslab trains small-image classifiers, measures them with confidence
intervals, and teaches them new classes.

  reslab demo                       classify pictures on a web page, with a
                                    network that comes with reslab
  reslab fit folder:pictures        find the best classifier for your pictures
  reslab train digits-quick         train, then: reslab evaluate, reslab report

All commands: reslab -h. One of them, with an example: reslab train -h."""


class Grouped(typer.core.TyperGroup):
    """A group of commands whose help lists them under headings, each with its first sentence.

    Its arguments are untyped, since some versions of Typer pass their own classes and others pass click's.
    """

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        panels: dict[str, list[tuple[str, str]]] = {}
        for name, command in self._listed(ctx):
            heading = getattr(command, "rich_help_panel", None)
            summary = command.get_short_help_str(limit=10_000)  # unshortened; the formatter wraps it
            panels.setdefault(heading if isinstance(heading, str) else "Commands", []).append((name, summary))
        for heading, rows in panels.items():
            with formatter.section(_bold(heading)):
                formatter.write_dl(rows)

    def _listed(self, ctx: Any) -> Iterator[tuple[str, Any]]:
        for name in self.list_commands(ctx):
            command = self.get_command(ctx, name)
            if command is not None and not command.hidden:
                yield name, command


def _bold(text: str) -> str:
    """Make text bold; the codes are stripped again if the help is not written to a terminal."""
    return text if os.environ.get("NO_COLOR") else typer.style(text, bold=True)
