"""The model card: a README that says what the files are, what they were made from, and how good they are."""

from collections.abc import Iterable, Iterator

from reslab.language import say, short
from reslab.recipe.recipe import Recipe
from reslab.records import Evaluation, Weights
from reslab.report.calibration import calibration_sentence
from reslab.report.few_images import few_images
from reslab.report.findings import gain
from reslab.report.tables import markdown_table, promise_table, split_words
from reslab.report.words import method_words, source_words
from reslab.runs import Run
from reslab.words import counted, figure, markdown, markdown_code, percent, yaml

FIRST_LINES = ("---", "library_name: reslab")


def is_card(content: bytes) -> bool:
    """Return whether a README begins as those that reslab writes."""
    return tuple(content.decode(errors="replace").splitlines()[:2]) == FIRST_LINES


def write_card(run: Run, *, weights: Weights, files: Iterable[str]) -> str:
    """Write the card of a finished run in Markdown, with the header that hubs read; metrics if it is evaluated."""
    recipe = run.recipe
    return "\n".join(
        [
            *(*FIRST_LINES, *_head(run), "---", ""),
            f"# {markdown(recipe.name)}",
            "",
            _what(recipe, weights),
            "",
            *_facts(recipe, weights),
            "",
            *_figures(run),
            f"## {say('Files')}",
            "",
            *(f"- `{name}`: {say(FILES[name])}" for name in files),
            "",
        ]
    )


def _what(recipe: Recipe, weights: Weights) -> str:
    """Say in a sentence what network it is, and who trained it."""
    network = {"model": markdown(weights.model.label), "classes": counted(len(weights.classes), "class")}
    if recipe.imported is not None:
        file = markdown_code(recipe.imported.file)
        return say("{model} for {classes}, trained elsewhere and imported from {file}.", file=file, **network)
    name = markdown_code(recipe.name)
    return say("{model} for {classes}, trained by reslab's recipe {recipe}.", recipe=name, **network)


EXPORTED = {
    "model.onnx": "RGB pixels (N, rows, columns, 3) uint8 to `logits` and `probabilities` (N, K) float32, with "
    "held-out images also `familiarity` (N,), for ONNX Runtime",
    "model-int8.onnx": "the same in 8-bit integers",
}
SHARED = {  # on a hub, and taken from there
    "model.safetensors": "the weights; their metadata name the network, so `reslab predict` needs no other file",
    "recipe.json": "the recipe: enough to train it again",
    "environment.json": "versions, processor, seed and fingerprints of the data",
    "log.jsonl": "an object for each epoch",
    "evaluation.json": "every figure with its interval",
    "base.safetensors": "the weights of the network that it began from",
    "base.json": "the recipe of that network",
    "prior.json": "how the weight of the old classes was chosen",
}
REPORTS = {
    "report.html": "the report: open it in a browser, it needs no network",
    "report.ru.html": "the report in Russian",
}
FILES = EXPORTED | SHARED | REPORTS

# The data sets' names on hubs, and the names that people know.
_HUB_DATA = {
    "cifar10": ("uoft-cs/cifar10", "CIFAR-10"),
    "cifar100": ("uoft-cs/cifar100", "CIFAR-100"),
}


def kept_files(run: Run) -> list[str]:
    """Name the files of a run folder that its card describes."""
    return [name for name in FILES if (run.path / name).exists()]


def _head(run: Run) -> Iterator[str]:
    """Yield the metadata that hubs read, as YAML, which includes JSON strings. The licence is the owner's choice."""
    recipe = run.recipe
    sources = [part.partition("@")[0].partition(":")[0].strip() for part in recipe.data.split("+")]
    known = [_HUB_DATA[name][0] for name in dict.fromkeys(sources) if name in _HUB_DATA]
    yield "pipeline_tag: image-classification"
    yield from ("tags:", "- image-classification", "- pytorch", f"- {yaml(recipe.model.kind)}")
    if known:
        yield from ("datasets:", *(f"- {name}" for name in known))
    if run.is_evaluated and "test" in run.evaluation.splits:
        yield from ("metrics:", "- accuracy", "- f1")
        yield from _results(run, known)


def _results(run: Run, known: list[str]) -> Iterator[str]:
    data, figures = run.recipe.data, run.evaluation.splits["test"]
    names = dict(_HUB_DATA.values())
    kind = known[0] if len(known) == 1 and data in _HUB_DATA else data
    yield from ("model-index:", f"- name: {yaml(run.recipe.name)}", "  results:", "  - task:")
    yield from ("      type: image-classification", "      name: Image classification", "    dataset:")
    yield from (f"      type: {yaml(kind)}", f"      name: {yaml(names.get(kind, data))}", "      split: test")
    yield "    metrics:"
    for metric, name, estimate in (
        ("accuracy", "Test accuracy", figures.accuracy),
        ("f1", "Test macro F1", figures.macro_f1),
    ):
        yield from (f"    - type: {metric}", f"      name: {name}", f"      value: {estimate.value:.6f}")


def _facts(recipe: Recipe, weights: Weights) -> list[str]:
    kinds = {1: say("grey"), 3: "RGB"}
    images = say(
        "{kind}, {side}x{side} pixels, 0 to 255; standardization is inside",
        kind=kinds.get(weights.channels, say("{number}-channel", number=weights.channels)),
        side=weights.image_size,
    )
    start = say("the ImageNet weights of {network}", network=recipe.pretrained)
    source = markdown(source_words(recipe.source))
    facts = [
        (say("Images"), images),
        (say("Trained on"), markdown_code(recipe.data)),
        *([(say("Starts from"), start)] if recipe.pretrained else []),
        *([(say("Method"), method_words(recipe.extension.method))] if recipe.extension else []),
        *([] if recipe.extension or recipe.imported else [(say("Source of the recipe"), source)]),
        (say("Probabilities"), _calibration(weights)),
        (say("Sets of classes"), _class_sets(weights)),
        (say("Classes, in the order of the logits"), ", ".join(map(markdown, weights.classes))),
    ]
    return [f"- {term}: {description}" for term, description in facts]


def _calibration(weights: Weights) -> str:
    found = weights.calibration
    return say("not calibrated") if found is None else say("{source}, which is inside", source=found.words)


def _class_sets(weights: Weights) -> str:
    known = weights.class_sets
    if known is None:
        return say("none can be promised, since too few images were held out that the network had not learned from")
    return say(
        "`reslab predict --coverage` promises up to {most} % on {images}",
        most=short(100 * known.thresholds[-1][0]),
        images=counted(known.num_images, "image"),
    )


def _figures(run: Run) -> list[str]:
    if not run.is_evaluated:
        return [say("It has not been evaluated."), ""]
    evaluation = run.evaluation
    rows = [
        f"| {split_words(split)}, {counted(figures.num_images, 'image')} | {figure(figures.accuracy)} "
        f"| {figure(figures.macro_f1)} |"
        for split, figures in evaluation.splits.items()
    ]
    return [
        f"## {say('Metrics with {confidence} intervals', confidence=percent(evaluation.confidence, decimals=0))}",
        "",
        f"| {say('split')} | {say('accuracy')} | {say('macro F1')} |",
        "|---|---|---|",
        *rows,
        "",
        *(
            [markdown(note), ""]
            if "test" in evaluation.splits and (note := few_images(evaluation.splits["test"]))
            else []
        ),
        *([markdown(gain(evaluation.splits["test"], evaluation.extension)), ""] if evaluation.extension else []),
        *_promises(evaluation),
    ]


def _promises(evaluation: Evaluation) -> Iterator[str]:
    """Say whether the promises were kept, and what calibration achieved."""
    if (table := promise_table(evaluation)) is not None:
        yield from (f"## {say('Promises and test images')}", "", *markdown_table(table), "")
    if (sentence := calibration_sentence(evaluation)) is not None:
        yield from (markdown(sentence), "")
