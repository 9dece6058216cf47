"""The page: everything put into one HTML file that opens offline."""

from collections.abc import Mapping, Sequence
from importlib import resources
from typing import Any

import jinja2

from reslab import __version__
from reslab.errors import in_shell
from reslab.language import current_language, grouped, say
from reslab.measure.shortfall import warn_of_shortfall
from reslab.recipe.published import CIFAR10_SOURCE
from reslab.report.beside import Beside
from reslab.report.calibration import calibration_sentence
from reslab.report.extension import give_account, in_points
from reslab.report.facts import device_words, machine_facts, recipe_facts, training_seconds
from reslab.report.findings import beside_published, findings
from reslab.report.inputs import Inputs
from reslab.report.interactive import Interaction
from reslab.report.looks import doubts, doubts_sentence, looks
from reslab.report.mistakes import Mistakes
from reslab.report.nearest import PublishedRow, difference
from reslab.report.pictures import Picture
from reslab.report.tables import (
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
from reslab.words import counted, duration, errors_among, listing, named, percent


def render(
    inputs: Inputs,
    *,
    pictures: Mapping[str, Sequence[Picture]],
    row: PublishedRow | None,
    beside: Beside | None,
    interaction: Interaction,
) -> str:
    """Put the pictures of each section, all tables and the comparison into the page."""
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    template = environment.from_string(_file("page.html.jinja"))
    return template.render(
        inputs=inputs,
        pictures=pictures,
        language=current_language().name,
        version=__version__,
        style=_file("page.css"),
        say=say,
        counted=counted,
        grouped=grouped,
        in_percent=in_percent,
        account=give_account(inputs),
        beside=beside,
        interaction=interaction,
        left_out=left_out(inputs),
        confidence=percent(inputs.evaluation.confidence, decimals=0),
        **_headline(inputs),
        **_published(inputs, row),
        **_tables(inputs),
        **_mistakes(inputs),
        looks=looks(inputs),
        doubts=doubts(inputs),
        doubts_sentence=doubts_sentence(inputs),
    )


def left_out(inputs: Inputs) -> list[str]:
    """Say in sentences what the page lacks, and why or which commands add it."""
    path, gallery, language = in_shell(inputs.path), inputs.gallery, current_language().name
    again = f"reslab evaluate {path}; reslab report {path}" + (f" --lang {language}" if language != "en" else "")
    if gallery.features is None:
        return [say("Single images behind the figures were not kept: run {commands}.", commands=again)]
    found, missing = [], []
    if gallery.heat_maps is None:
        missing.append(say("heat maps"))
    elif not len(gallery.heat_maps.indices):
        found.append(say("There are no heat maps: no layer of this network has spatial extent."))
    if gallery.doubts is None:
        if absent := sum(each.support == 0 for each in inputs.test.per_class):
            classes = counted(absent, "class")
            found.append(say("There are no test images of {classes}, so no label is doubted.", classes=classes))
        elif len(inputs.evaluation.classes) > 1:
            missing.append(say("doubtful labels"))
    if missing:
        commands = f"pip install 'reslab[report]'; {again}"
        found.append(say("Left out: {what}. To have them, run {commands}.", what=listing(missing), commands=commands))
    return found


def _file(name: str) -> str:
    return resources.files("reslab.report").joinpath(name).read_text(encoding="utf-8")


def _headline(inputs: Inputs) -> dict[str, Any]:
    extension = inputs.evaluation.extension
    recipe = inputs.recipe
    return {
        "title": say("{recipe} on {data}", recipe=recipe.name, data=recipe.data)
        if extension is None
        else say(
            "{recipe}: taught {classes}", recipe=recipe.name, classes=counted(len(extension.new_classes), "new class")
        ),
        "what": _what(inputs),
        "shortfall": warn_of_shortfall(inputs.evaluation, inputs.log, inputs.recipe),
        "network": inputs.recipe.model.words,
        "accuracy": in_percent(inputs.test.accuracy),
        "errors": errors_among(num_wrong(inputs.test), inputs.test.num_images),
        "macro_f1": in_percent(inputs.test.macro_f1),
        "device": device_words(inputs.environment) if recipe.imported is None else "",
        "training_time": duration(training_seconds(inputs)) if recipe.imported is None else say("not known"),
    }


def _what(inputs: Inputs) -> str:
    """Say how the network was trained, and what it was measured on."""
    classes, extension = inputs.evaluation.classes, inputs.evaluation.extension
    images, num_classes = counted(inputs.test.num_images, "test image"), counted(len(classes), "class")
    if inputs.recipe.imported is not None:
        return say(
            "Trained elsewhere. Measured on {images} of {classes}, which that training may have seen.",
            images=images,
            classes=num_classes,
        )
    if inputs.origin.imported is None and inputs.origin.start is None:
        test = say("Measured on {images} of {classes} that training never saw.", images=images, classes=num_classes)
    else:
        test = say(
            "Measured on {images} of {classes} that this training never saw; the weights that it began from may have.",
            images=images,
            classes=num_classes,
        )
    if extension is not None:
        taught = say(
            "A network that knew {num} ({old}) was taught {new} by the method {method}.",
            num=counted(extension.num_old, "class"),
            old=named(classes[: extension.num_old]),
            new=named(classes[extension.num_old :]),
            method=extension.method,
        )
    elif inputs.recipe.pretrained:
        taught = say("Started from ImageNet weights.")
    else:
        taught = say("Trained for {epochs}.", epochs=counted(len(inputs.log), "epoch"))
    return f"{taught} {test}"


def _published(inputs: Inputs, row: PublishedRow | None) -> dict[str, Any]:
    judged = row.judged(inputs.test) if row else None
    compared = judged or inputs.test.accuracy
    is_published = inputs.recipe.published is not None  # a recipe that is changed or shortened loses its result
    return {
        "row": row,
        "findings": findings(inputs, row=row),
        "published_sentence": beside_published(inputs.test, row) if row else "",
        "gap": in_points(difference(row, compared)) if row else None,
        "alike": judged is not None,
        "verdict": verdict(row.published, judged) if row and judged and is_published else None,
        "unpublished": row is not None and row.kin == "same" and not is_published,
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
    mistakes, extension = Mistakes(inputs), inputs.evaluation.extension
    confusions = mistakes.confusions(num_old=extension.num_old if extension else 0)
    return {
        "confusions": confusions,
        "worst": mistakes.worst(),
        "mistakes": counted(num_wrong(inputs.test), "mistake"),
    }
