"""The report in Markdown: its tables and pictures, for a paper, a pull request or a diff."""

from collections.abc import Iterator, Sequence

from reslab.records import Evaluation
from reslab.report.beside import Beside
from reslab.report.extension import Account, give_account
from reslab.report.facts import machine_facts, recipe_facts
from reslab.report.inputs import Inputs
from reslab.report.looks import doubts_sentence
from reslab.report.mistakes import Mistakes, pair_table
from reslab.report.pictures import Picture
from reslab.report.shortfall import warn_of_shortfall
from reslab.report.tables import (
    calibration_sentence,
    candidate_table,
    class_table,
    coverage_table,
    data_table,
    field_table,
    markdown_table,
    metric_table,
    promise_table,
)
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
        yield from ("", f"## Compared with {escape(beside.name)}", "", *markdown_table(beside.table), "")
        yield escape(f"{beside.accuracy} {beside.macro_f1}")
    yield from ("", "## Metrics", "", *markdown_table(metric_table(evaluation)))
    yield from (
        "",
        "## Per class, test split",
        "",
        *markdown_table(class_table(inputs.test, classes=evaluation.classes)),
    )
    yield from _trust(evaluation)
    if confusions := Mistakes(inputs).confusions():
        yield from ("", "## Most confused pairs, test split", "", *markdown_table(pair_table(confusions)))
    if inputs.candidates:
        yield from ("", "## How it was chosen", "", *markdown_table(candidate_table(inputs.candidates)))
    if published:
        judged = verdict(published, inputs.test.accuracy)
        yield from (
            "",
            "## Compared with the published result",
            "",
            escape(f"{judged.sentence} Source: {published.source}."),
        )
    if inputs.recipe.data == "cifar10":
        yield from ("", "## Compared with published networks", "", *markdown_table(field_table(inputs)))
    if inputs.gallery.doubts is not None:
        yield from ("", "## Suspicious labels", "", escape(doubts_sentence(inputs)))
    yield from ("", "## Setup", "")
    for term, description in (*recipe_facts(inputs), *machine_facts(inputs)):
        yield f"- {term}: {escape(description)}"
    yield from ("", *markdown_table(data_table(inputs)), "", markdown_block(inputs.environment.command))
    yield from ("", "## Pictures")
    for picture in pictures:
        yield from (
            "",
            f"![{escape(picture.alt)}](figures/{picture.name}.png)",
            "",
            escape(f"{picture.title} {picture.caption}"),
        )


def _trust(evaluation: Evaluation) -> Iterator[str]:
    """Say what the probabilities are worth, and how the promises that rest on held-out images were kept."""
    if sentence := calibration_sentence(evaluation):
        yield from ("", "## Calibration", "", escape(sentence))
    if promises := promise_table(evaluation):
        yield from ("", "## Promises kept on test images", "", *markdown_table(promises))
    if coverage := coverage_table(evaluation):
        yield from ("", "## Sets that hold the truth, by class", "", *markdown_table(coverage))


def _extension(account: Account) -> Iterator[str]:
    """Say what the extension has done, as the page does."""
    yield from ("", "## Old classes before and after", "", escape(account.old_sentence))
    yield from ("", *markdown_table(account.old_table), "", "## New classes", "", escape(account.new_sentence))
    yield from ("", *markdown_table(account.new_table))
    if account.confusions:
        yield from ("", "### Worst confusions of the new classes", "", *markdown_table(pair_table(account.confusions)))
    yield from ("", "## How much of the prior is removed", "", escape(account.prior_sentence))
