"""The report in Markdown: its tables and pictures, for a paper, a pull request or a diff."""

from collections.abc import Iterator, Sequence

from reslab.language import grouped, say
from reslab.measure.shortfall import warn_of_shortfall
from reslab.records import Evaluation
from reslab.report.beside import Beside
from reslab.report.calibration import calibration_sentence
from reslab.report.extension import Account, give_account
from reslab.report.facts import machine_facts, recipe_facts
from reslab.report.findings import beside_published, findings
from reslab.report.inputs import Inputs
from reslab.report.looks import doubts_sentence
from reslab.report.mistakes import Mistakes, pair_table
from reslab.report.nearest import PublishedRow
from reslab.report.pictures import Picture
from reslab.report.tables import (
    candidate_table,
    class_table,
    coverage_table,
    data_table,
    field_table,
    markdown_table,
    metric_table,
    promise_table,
)
from reslab.words import markdown as escape
from reslab.words import markdown_block, percent


def render_markdown(
    inputs: Inputs, *, pictures: Sequence[Picture], folder: str, row: PublishedRow | None, beside: Beside | None
) -> str:
    """Write the report's findings and tables in Markdown, with links to its pictures in a folder."""
    return "\n".join([*_lines(inputs, row, beside), *_pictures(pictures, folder)]) + "\n"


def _lines(inputs: Inputs, row: PublishedRow | None, beside: Beside | None) -> Iterator[str]:
    evaluation, extension = inputs.evaluation, inputs.evaluation.extension
    title = say("{recipe} on {data}", recipe=inputs.recipe.name, data=inputs.recipe.data)
    yield f"# {escape(title)}"
    yield from ("", escape(" ".join(findings(inputs, row=row))), "")
    yield escape(
        say(
            "{network}, {parameters} parameters; ranges in parentheses are {confidence} intervals.",
            network=inputs.recipe.model.words[:1].upper() + inputs.recipe.model.words[1:],
            parameters=grouped(inputs.num_parameters),
            confidence=percent(evaluation.confidence, decimals=0),
        )
    )
    if shortfall := warn_of_shortfall(evaluation, inputs.log, inputs.recipe):
        yield from ("", "> [!CAUTION]", f"> {escape(shortfall)}")  # a red box, if the viewer knows it
    if account := give_account(inputs):
        yield from _extension(account)
    if beside:
        yield from ("", *_heading(say("Compared with {name}", name=beside.name)), *markdown_table(beside.table), "")
        yield escape(f"{beside.accuracy} {beside.macro_f1}")
    if row:
        source = say("Source: {source}.", source=row.published.source)
        yield from ("", *_heading(say("Compared with published networks")))
        yield escape(f"{beside_published(inputs.test, row)} {source}")
        if inputs.recipe.data == "cifar10":
            yield from ("", *markdown_table(field_table(inputs)))
    if confusions := Mistakes(inputs).confusions(num_old=extension.num_old if extension else 0):
        yield from ("", *_heading(say("Most confused pairs")), *markdown_table(pair_table(confusions)))
    yield from ("", *_heading(say("Per class")), *markdown_table(class_table(inputs.test, classes=evaluation.classes)))
    yield from ("", *_heading(say("Metrics")), *markdown_table(metric_table(evaluation)))
    yield from _trust(evaluation)
    if inputs.gallery.doubts is not None:
        yield from ("", *_heading(say("Suspicious labels")), escape(doubts_sentence(inputs)))
    if inputs.candidates:
        yield from ("", *_heading(say("How it was chosen")), *markdown_table(candidate_table(inputs.candidates)))
    yield from ("", *_heading(say("Setup")))
    for term, description in (*recipe_facts(inputs), *machine_facts(inputs)):
        yield f"- {term}: {escape(description)}"
    yield from ("", *markdown_table(data_table(inputs)), "", markdown_block(inputs.environment.command))


def _pictures(pictures: Sequence[Picture], folder: str) -> Iterator[str]:
    yield from ("", *_heading(say("Pictures")))
    for picture in pictures:
        image = f"![{escape(picture.alt)}]({folder}/{picture.name}.png)"
        yield from (image, "", escape(f"{picture.title} {picture.caption}"), "")


def _heading(text: str) -> tuple[str, str]:
    return f"## {escape(text)}", ""


def _trust(evaluation: Evaluation) -> Iterator[str]:
    """Yield the sections on calibration and on promises."""
    if sentence := calibration_sentence(evaluation):
        yield from ("", *_heading(say("Calibration")), escape(sentence))
    if promises := promise_table(evaluation):
        yield from ("", *_heading(say("Promises and test images")), *markdown_table(promises))
    if coverage := coverage_table(evaluation):
        yield from ("", *_heading(say("Sets of classes by true class")), *markdown_table(coverage))


def _extension(account: Account) -> Iterator[str]:
    """Yield the sections on the extension, as on the page."""
    yield from ("", *_heading(say("Old classes before and after")), escape(account.old_sentence))
    yield from ("", *markdown_table(account.old_table), "")
    yield from (*_heading(say("New classes")), escape(account.new_sentence), "", *markdown_table(account.new_table), "")
    yield from (*_heading(say("How much of the prior is removed")), escape(account.prior_sentence))
