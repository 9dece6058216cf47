"""The report in Markdown: its tables and pictures, for a paper, a pull request or a diff."""

from collections.abc import Iterator, Sequence

from reslab.report.beside import Beside
from reslab.report.extension import Account, give_account
from reslab.report.facts import machine_facts, recipe_facts
from reslab.report.inputs import Inputs
from reslab.report.looks import doubts_sentence
from reslab.report.mistakes import Mistakes, pair_table
from reslab.report.pictures import Picture
from reslab.report.shortfall import warn_of_shortfall
from reslab.report.tables import Table, candidate_table, class_table, data_table, field_table, metric_table
from reslab.report.verdict import verdict
from reslab.words import markdown as escape
from reslab.words import markdown_block, percent


def render_markdown(inputs: Inputs, *, pictures: Sequence[Picture], beside: Beside | None) -> str:
    """Write the report's tables in Markdown, with links to its pictures in `figures/`."""
    return "\n".join(_lines(inputs, pictures, beside)) + "\n"


def _lines(inputs: Inputs, pictures: Sequence[Picture], beside: Beside | None) -> Iterator[str]:
    evaluation, published = inputs.evaluation, inputs.recipe.published
    yield f"# {escape(inputs.recipe.name)} on {escape(inputs.recipe.data)}"
    yield from ("", f"{escape(inputs.recipe.model.words)}, {inputs.num_parameters:,} parameters.")
    yield f"Ranges in parentheses are {percent(evaluation.confidence, decimals=0)} intervals."
    if shortfall := warn_of_shortfall(evaluation, inputs.log):
        yield from ("", "> [!CAUTION]", f"> {escape(shortfall)}")  # a red box, where Markdown knows it
    if account := give_account(inputs):
        yield from _extension(account)
    if beside:
        yield from ("", f"## Compared with {escape(beside.name)}", "", *_table(beside.table), "")
        yield escape(f"{beside.accuracy} {beside.macro_f1}")
    yield from ("", "## Metrics", "", *_table(metric_table(evaluation)))
    yield from ("", "## Per class, test split", "", *_table(class_table(inputs.test, classes=evaluation.classes)))
    if confusions := Mistakes(inputs).confusions():
        yield from ("", "## Most confused pairs, test split", "", *_table(pair_table(confusions)))
    if inputs.candidates:
        yield from ("", "## How it was chosen", "", *_table(candidate_table(inputs.candidates)))
    if published:
        judged = verdict(published, inputs.test.accuracy)
        yield from (
            "",
            "## Compared with the published result",
            "",
            escape(f"{judged.sentence} Source: {published.source}."),
        )
    if inputs.recipe.data == "cifar10":
        yield from ("", "## Compared with published networks", "", *_table(field_table(inputs)))
    if inputs.gallery.doubts is not None:
        yield from ("", "## Suspicious labels", "", escape(doubts_sentence(inputs)))
    yield from ("", "## Setup", "")
    for term, description in (*recipe_facts(inputs), *machine_facts(inputs)):
        yield f"- {term}: {escape(description)}"
    yield from ("", *_table(data_table(inputs)), "", markdown_block(inputs.environment.command))
    yield from ("", "## Pictures")
    for picture in pictures:
        yield from (
            "",
            f"![{escape(picture.alt)}](figures/{picture.name}.png)",
            "",
            escape(f"{picture.title} {picture.caption}"),
        )


def _extension(account: Account) -> Iterator[str]:
    """Say what the extension has done, as the page does."""
    yield from ("", "## Old classes before and after", "", escape(account.old_sentence))
    yield from ("", *_table(account.old_table), "", "## New classes", "", escape(account.new_sentence))
    yield from ("", *_table(account.new_table))
    if account.confusions:
        yield from ("", "### Worst confusions of the new classes", "", *_table(pair_table(account.confusions)))
    yield from ("", "## How much of the prior is removed", "", escape(account.prior_sentence))


def _table(table: Table) -> Iterator[str]:
    num_text = table.num_text_columns
    yield _row(table.header)
    yield "|" + "|".join("---" if place < num_text else "---:" for place in range(len(table.header))) + "|"
    for row in table.rows:
        yield _row([f"{cell.text} {cell.aside}".strip() for cell in row])


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(map(escape, cells)) + " |"
