"""The page: everything put into one HTML file that opens without a network."""

from collections.abc import Mapping, Sequence
from importlib import resources
from typing import Any

import jinja2

from reslab.recipe.published import CIFAR10_SOURCE
from reslab.report.beside import Beside
from reslab.report.extension import give_account
from reslab.report.facts import device_words, machine_facts, recipe_facts, training_seconds
from reslab.report.inputs import Inputs
from reslab.report.interactive import Interaction
from reslab.report.looks import doubts, doubts_sentence, looks
from reslab.report.mistakes import Mistakes
from reslab.report.pictures import Picture
from reslab.report.shortfall import warn_of_shortfall
from reslab.report.tables import (
    calibration_sentence,
    candidate_table,
    class_table,
    coverage_table,
    data_table,
    field_table,
    in_percent,
    metric_table,
    num_wrong,
    promise_table,
)
from reslab.report.verdict import verdict
from reslab.words import between, counted, duration, errors_among, percent


def render(
    inputs: Inputs, *, pictures: Mapping[str, Sequence[Picture]], beside: Beside | None, interaction: Interaction
) -> str:
    """Put the pictures of each section, all tables and the comparison into the page."""
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    template = environment.from_string(_file("page.html.jinja"))
    return template.render(
        inputs=inputs,
        pictures=pictures,
        style=_file("page.css"),
        counted=counted,
        in_percent=in_percent,
        account=give_account(inputs),
        beside=beside,
        interaction=interaction,
        left_out=left_out(inputs, interaction=interaction),
        confidence=percent(inputs.evaluation.confidence, decimals=0),
        **_headline(inputs),
        **_tables(inputs),
        **_mistakes(inputs),
        looks=looks(inputs),
        doubts=doubts(inputs),
        doubts_sentence=doubts_sentence(inputs),
    )


def left_out(inputs: Inputs, *, interaction: Interaction) -> list[str]:
    """Say in a sentence each what the page lacks, and what brings it."""
    again = f"reslab evaluate {inputs.name} and reslab report {inputs.name}"
    found = []
    if not interaction.has_charts:
        found.append("The charts do not answer to a pointer or a key: pip install 'reslab[report]' and report again.")
    if inputs.gallery.features is None:
        found.append(f"Single images behind the figures were not kept: run {again}.")
    elif inputs.gallery.heat_maps is None or inputs.gallery.doubts is None:
        missing = ["heat maps"] * (inputs.gallery.heat_maps is None) + ["doubtful labels"] * (
            inputs.gallery.doubts is None
        )
        found.append(f"Left out: {' and '.join(missing)}; pip install 'reslab[report]', then {again}.")
    return found


def _file(name: str) -> str:
    return resources.files("reslab.report").joinpath(name).read_text(encoding="utf-8")


def _headline(inputs: Inputs) -> dict[str, Any]:
    published = inputs.recipe.published
    return {
        "shortfall": warn_of_shortfall(inputs.evaluation, inputs.log),
        "network": inputs.recipe.model.words,
        "accuracy": in_percent(inputs.test.accuracy),
        "errors": errors_among(num_wrong(inputs.test), inputs.test.num_images),
        "macro_f1": in_percent(inputs.test.macro_f1),
        "device": device_words(inputs.environment),
        "training_time": duration(training_seconds(inputs)),
        "verdict": verdict(published, inputs.test.accuracy) if published else None,
        "published": between(published.low, published.high) if published else None,
        "changed": any(word.partition("=")[0] == "--set" for word in inputs.environment.command.split()),
    }


def _tables(inputs: Inputs) -> dict[str, Any]:
    evaluation = inputs.evaluation
    return {
        "recipe_facts": recipe_facts(inputs),
        "machine_facts": machine_facts(inputs),
        "data": data_table(inputs),
        "candidates": candidate_table(inputs.candidates) if inputs.candidates else None,
        "metrics": metric_table(evaluation),
        "calibration_sentence": calibration_sentence(evaluation),
        "promises": promise_table(evaluation),
        "coverage": coverage_table(evaluation),
        "per_class": class_table(inputs.test, classes=evaluation.classes),
        "field": field_table(inputs) if inputs.recipe.data == "cifar10" else None,
        "field_source": CIFAR10_SOURCE,
    }


def _mistakes(inputs: Inputs) -> dict[str, Any]:
    mistakes = Mistakes(inputs)
    return {"confusions": mistakes.confusions(), "worst": mistakes.worst()}
