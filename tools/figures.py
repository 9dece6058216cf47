"""The figures, tables and help texts of README and docs. `make figures` inserts them; `make check` compares.

A cog block prints a table, or renews the figures inside the prose that it surrounds:

    <!--[[[cog fill() ]]]-->
    `fast94` reaches <!--accuracy("fast94")-->93.07 %<!--/--> on CIFAR-10.
    <!--[[[end]]]-->

The first comment of a figure is an expression over the functions below, followed by a format where it needs one. Begin
no line with it: Markdown would end the paragraph there. Everything else in a block is prose; edit it freely.
"""

import inspect
import io
import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import redirect_stdout
from functools import cache
from pathlib import Path
from statistics import fmean, median
from typing import Any, Final, Literal, get_args, get_origin

import numpy as np
from numpy.typing import NDArray

from reslab import words
from reslab.data.check.findings import Report
from reslab.records import Environment, Epoch, Evaluation, PriorChoice, SplitFigures

ROOT: Final = Path(__file__).parents[1]
FIGURE: Final = re.compile(r"<!--(.+?)-->.*?<!--/-->")
EXTENSIONS: Final = ROOT / "results/reptiles"
IMAGENET: Final = 1_281_167  # training images
Cells = Iterable[Sequence[str]]


def fill() -> None:
    """Renew the figures inside the prose of the block."""
    import cog

    text: str = cog.previous
    assert not re.search(r"^\s*<!--", text, re.MULTILINE), (
        f"{cog.inFile}: a line begins with a figure; break it elsewhere"
    )
    cog.out(FIGURE.sub(lambda found: f"<!--{found[1]}-->{_evaluate(found[1])}<!--/-->", text))


def _evaluate(expression: str) -> str:
    return str(eval(f'f"""{{{expression}}}"""', globals()))


def table(header: Sequence[str], rows: Cells) -> str:
    """Write a Markdown table."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines).replace("| --- |", "|---|").replace("| --- ", "|---")


def percent(value: float, decimals: int = 2) -> str:
    """Write a fraction in percent."""
    return words.percent(value, decimals=decimals).replace(words.NBSP, " ")


def ru(text: str) -> str:
    """Write a number with a decimal comma."""
    return text.replace(".", ",")


# ---- results/


def folders(name: str) -> list[Path]:
    """Find the runs of a result: the folder itself, one for each seed inside it, or `NAME-SEED` beside each other."""
    folder = ROOT / "results" / name
    found = [folder] if (folder / "recipe.json").exists() else sorted(folder.glob("seed*"))
    return found or sorted(folder.parent.glob(f"{folder.name}-[0-9]"))


@cache
def read_evaluation(folder: Path) -> Evaluation:
    return Evaluation.model_validate_json((folder / "evaluation.json").read_bytes())


@cache
def read_log(folder: Path) -> list[Epoch]:
    return [Epoch.model_validate_json(line) for line in (folder / "log.jsonl").read_text().splitlines()]


def splits(name: str, *, split: str = "test", views: bool = False) -> list[SplitFigures]:
    """Read the metrics of every seed, with or without test-time augmentation."""
    found = [read_evaluation(folder).splits[split] for folder in folders(name)]
    return [each.test_time_augmentation.figures for each in found if each.test_time_augmentation] if views else found


def accuracy(name: str, *, split: str = "test", views: bool = False, decimals: int = 2) -> str:
    """Write the mean accuracy over the seeds."""
    return percent(fmean(each.accuracy.value for each in splits(name, split=split, views=views)), decimals)


def accuracy_between(name: str, *, views: bool = False) -> str:
    """Write the accuracy with its interval, or the mean over seeds with the lowest and the highest."""
    found = [each.accuracy for each in splits(name, views=views)]
    values = [each.value for each in found]
    ends = (min(values), max(values)) if len(found) > 1 else (found[0].low, found[0].high)
    return f"{percent(fmean(values))} {words.interval(*ends)}"


def f1(name: str, decimals: int = 1) -> str:
    """Write the mean macro F1 on the test split over the seeds."""
    return percent(fmean(each.macro_f1.value for each in splits(name)), decimals)


def minutes(name: str) -> float:
    """Give the mean training time over the seeds."""
    return fmean(sum(epoch.seconds for epoch in read_log(folder)) / 60 for folder in folders(name))


def seconds(name: str) -> list[float]:
    """Give the time of each epoch of a run."""
    return [epoch.seconds for epoch in read_log(folders(name)[0])]


def last(name: str) -> Epoch:
    """Give the log of a run's last epoch."""
    return read_log(folders(name)[0])[-1]


def validation_accuracy(name: str) -> str:
    """Write the validation accuracy after a run's last epoch."""
    found = last(name).validation_accuracy
    assert found is not None
    return percent(found)


def trial(name: str) -> str:
    """Write two cells: validation accuracy and training loss after a trial's last epoch."""
    return f"{validation_accuracy(f'trials/{name}')} | {last(f'trials/{name}').train_loss:.3f}"


def ablation(variant: str) -> str:
    """Write the validation accuracy of a variant of `fast-conv`."""
    return percent(bench("ablations", variant, "validation_accuracy"))


def measured(name: str) -> str:
    """Write three cells: test accuracy, macro F1, minutes."""
    return f"{accuracy_between(name)} | {f1(name, 2)} | {minutes(name):.0f}"


def measured_recipes() -> str:
    """Write the entries of `reslab.recipe.shipped.measured`: what the recipe of a result has reached."""
    from reslab.recipe.shipped import RECIPES

    lines = []
    for name in RECIPES:
        records = sorted(f"record/{folder.name}" for folder in (ROOT / "results" / "record").glob(f"{name}-*"))
        for result in (*records, name, f"ledger/{name.removeprefix('zoo-')}"):
            if found := [folder for folder in folders(result) if (folder / "evaluation.json").exists()]:
                reached = fmean(each.accuracy.value for each in splits(result))
                values = f'{reached:.4f}, {minutes(result):.1f}, {len(found)}, "{processors(found[0])}"'
                lines.append(f'"{name}": MeasuredRecipe({values}),')
                break
    return "\n".join(lines)


def processors(folder: Path) -> str:
    """Name the processors that computed a run."""
    ran = Environment.model_validate_json((folder / "environment.json").read_bytes())
    return " and ".join(dict.fromkeys(setup.processor for setup in (ran, *ran.segments)))


def fast_resnet(name: str, *, published: float) -> str:
    """Write four cells: test accuracy without and with six views, what is published, minutes."""
    return f"{accuracy(name)} | {accuracy(name, views=True)} | {percent(published)} | {minutes(name):.0f}"


def metrics(name: str, split: str, decimals: int = 2) -> str:
    """Write four cells: accuracy, macro precision, recall and F1."""
    (found,) = splits(name, split=split)
    estimates = (found.accuracy, found.macro_precision, found.macro_recall, found.macro_f1)
    return " | ".join(percent(each.value, decimals) for each in estimates)


def printed_evaluation(name: str) -> str:
    """Quote what `reslab evaluate` prints of a run."""
    from reslab.cli.show import print_evaluation

    (folder,) = folders(name)
    with redirect_stdout(io.StringIO()) as said:
        print_evaluation(read_evaluation(folder))
    return "\n".join(["```text", *(line.rstrip() for line in said.getvalue().splitlines() if line.strip()), "```"])


def mistaken(name: str, true: str, predicted: str) -> int:
    """Count the test images of a class that were taken for another."""
    (folder,) = folders(name)
    found = read_evaluation(folder)
    return found.splits["test"].confusion_matrix[found.classes.index(true)][found.classes.index(predicted)]


# ---- benchmarks/


@cache
def read_benchmark(name: str) -> Any:
    return json.loads((ROOT / f"benchmarks/{name}.json").read_text())["result"]


def bench(name: str, *keys: str) -> Any:
    """Look up a value in the result of a benchmark."""
    found = read_benchmark(name)
    for key in keys:
        found = found[key]
    return found


def ratio(name: str, *keys: str) -> str:
    """Write the median and the quartiles of a ratio."""
    return write_ratio(bench(name, *keys))


def write_ratio(found: dict[str, float]) -> str:
    return f"{found['median']:.2f} ({found['lower_quartile']:.2f}–{found['upper_quartile']:.2f})"


def agreement() -> str:
    """List how each runtime answers beside PyTorch."""
    found = bench("agreement", "runtimes")
    rows = [
        [
            name,
            f"{each['other_class']:,}",
            f"{each['other_class_within_the_margin']:,}",
            f"{each['largest_difference']:.1e}",
        ]
        for name, each in found.items()
    ]
    return "\n" + table(["runtime", "another class", "within the margin", "largest difference"], rows)


# ---- the check of data


def checked(name: str) -> str:
    """Quote what `reslab data check` prints of what it has found in a set."""
    from reslab.cli.data import check_lines

    found = Report.model_validate(json.loads((ROOT / f"results/checks/{name}.json").read_text())["result"]["report"])
    return "\n".join(["```text", *check_lines(found, expression=f"folder:{name}"), "```"])


def planted() -> str:
    """List how many planted copies of each kind were found."""
    found = bench("duplicates", "planted_found")
    return "\n" + table(["copies", "found"], [[name, percent(share, 1)] for name, share in found.items()])


# ---- few images, strangers


def fitted() -> str:
    """List what `fit` makes of a few of CIFAR-10's images a class, and of all."""
    found = [
        (path, json.loads(path.read_text())["result"]) for path in sorted((ROOT / "results/fit").glob("cifar10-*.json"))
    ]
    rows = []
    for path, result in sorted(found, key=lambda each: each[1]["images_per_class"]):
        values = [draw["test_accuracy"]["value"] for draw in result["draws"]]
        chosen = [each for draw in result["draws"] for each in draw["candidates"] if each["chosen"]]
        accuracy = f"{percent(fmean(values))} {words.interval(min(values), max(values))}"
        if len(values) == 1:
            accuracy = f"{percent(values[0])}, one run"
        sides = words.listing([str(size) for size in sorted({each["image_size"] for each in chosen})])
        trained = {_kind(each["trained"]["name"]) for each in chosen if "trained" in each}
        second = words.listing(sorted({"thawed": "fine-tuned"}.get(each, each) for each in trained)) or "–"
        name = f"[{result['images_per_class']:,}]({path.relative_to(ROOT)})"
        rows.append([name, f"{result['minutes']:g}", accuracy, sides, second])
    header = [
        "images per class",
        "time limit, minutes",
        "test accuracy: mean and range over three random subsets",
        "input size, pixels",
        "second network",
    ]
    return "\n" + table(header, rows)


def unequal_signs() -> str:
    """Say what `fit` makes of hand signs of which some classes have more than others."""
    result = json.loads((ROOT / "results/fit/signs-unequal.json").read_text())["result"]
    values = [draw["test_accuracy"]["value"] for draw in result["draws"]]
    longest = max(draw["seconds"] for draw in result["draws"])
    num = f"{result['draws'][0]['num_images']:,}"
    return (
        f"Of [{num} in ten unequal classes](../results/fit/signs-unequal.json), the first with four times as many as "
        f"the\nlast, it gets {percent(fmean(values), 1)} right (mean of three random subsets, "
        f"{percent(min(values), 1)} to {percent(max(values), 1)}; students in both splits),\nin at most "
        f"{longest / 60:.1f} of the {result['minutes']:g} minutes that it was given on one busy core."
    )


def _kind(name: str) -> str:
    """Leave out how many updates a recipe was shortened to."""
    return re.sub("-[0-9]+updates$", "", name)


def calibrated() -> str:
    """Put calibration error and log loss before the temperature beside those after, for every result that has both."""
    rows, without = [], Counter[str]()
    for path in sorted((ROOT / "results").glob("**/evaluation.json")):
        name, test = path.parent.relative_to(ROOT / "results"), read_evaluation(path.parent).splits.get("test")
        if test is None or test.log_loss_uncalibrated is None or test.expected_calibration_error_uncalibrated is None:
            without[name.parts[0]] += 1
            continue
        errors = test.expected_calibration_error_uncalibrated, test.expected_calibration_error
        losses = [f"{each.value:.4f}" for each in (test.log_loss_uncalibrated, test.log_loss)]
        rows.append([f"[`{name}`](../results/{name})", *map(words.figure, errors), *losses])
    others = ", ".join(f"`{name}` ({words.counted(num, 'run')})" for name, num in without.items())
    header = ["result", "calibration error before", "after", "log loss before", "after"]
    return "\n" + table(header, rows) + f"\n\nWithout a temperature: {others}."


def class_sets() -> str:
    """Put the sets that were promised beside what they were on test images."""
    rows = [
        [percent(each.promised, 0), words.figure(each.covered), f"{each.size:.2f}", percent(each.single, 1)]
        for each in splits("fast94-held-out")[0].class_sets
    ]
    return "\n" + table(["promised", "sets with the true class", "classes in a set", "sets of one class"], rows)


def strangers() -> str:
    """List how well each score tells strangers from a network's own pictures."""
    found = bench("strangers", "auroc")
    scores = list(next(iter(found.values())))
    rows = [[name, *(percent(each[score], 1) for score in scores)] for name, each in found.items()]
    return "\n" + table(["strangers", *scores], rows)


def watched() -> str:
    """List how often each corruption of the pictures is noticed, and by what."""
    rows = []
    for name, found in bench("watch", "power").items():
        trials = found["trials"]
        by = [aspect for aspect in found if aspect not in ("trials", "any") and 2 * found[aspect] >= trials]
        rows.append([name, f"{found['any']} of {trials}", ", ".join(by)])
    return "\n" + table(["corruption, level 2", "noticed", "mostly by"], rows)


# ---- recipes, commands


def recipes() -> str:
    """List the shipped recipes."""
    from reslab.recipe.shipped import RECIPES

    def published(low: float, high: float) -> str:
        return words.between(low, high).replace(words.NBSP, " ")

    return table(
        ["recipe", "data", "network", "epochs", "published accuracy", "source"],
        [
            [
                f"`{each.name}`",
                f"`{each.data}`",
                each.model.label,
                str(each.epochs),
                published(each.published.low, each.published.high) if each.published else "–",
                each.source,
            ]
            for each in RECIPES.values()
        ],
    )


IN_JSON: Final = {
    **{"str": "text", "int": "integer", "float": "number", "bool": "true or false", "tuple of": "list of"},
    "dict": "object of parts",
}
SET_BY_COMMANDS: Final = {"published", "start", "imported", "extension"}  # fields whose parts nobody writes


def recipe_fields() -> str:
    """List the fields of a recipe with their defaults, and what its docstring says of each."""
    from reslab.recipe.recipe import Recipe

    return table(["field", "values", "default", "meaning"], _fields(Recipe))


def study_fields() -> str:
    """List the fields of a study and of its parts, as of a recipe."""
    from reslab.recipe.recipe import Published
    from reslab.study.spec import Contrast, Row, Study, Teaching, Training

    parts = {
        "study": Study,
        "`rows`": Row,
        "`job`, kind `training`": Training,
        "`job`, kind `teaching`": Teaching,
        "`published`": Published,
        "`contrasts`": Contrast,
    }
    rows = [[name, *field] for name, part in parts.items() for field in _fields(part)]
    return table(["part", "field", "values", "default", "meaning"], rows)


def _fields(part: Any) -> list[list[str]]:
    """Write a line for each field of a part but its kind: the values, the default, what the docstring says."""
    attributes = (inspect.getdoc(part) or "").partition("Attributes\n-")[2].partition("\n\n")[0]
    described = {}
    for names, values, meaning in re.findall(r"^([\w, ]+?) : (.+)\n    (.+)$", attributes, re.MULTILINE):
        described |= dict.fromkeys(names.split(", "), (_in_json(values), meaning))
    fields = {name: field for name, field in part.model_fields.items() if name not in ("schema_version", "kind")}
    assert list(described) == list(fields), f"{part.__name__}'s docstring describes other fields than it has"
    return [
        [
            f"`{name}`",
            described[name][0],
            "required" if field.is_required() else _json(field.get_default(call_default_factory=True)),
            described[name][1],
        ]
        for name, field in fields.items()
    ]


def recipe_parts() -> str:
    """List what the parts of a recipe hold, field by field, all but the network."""
    from reslab.recipe.recipe import Recipe

    rows = [
        [f"`{name}`", *_part(part), " ".join((inspect.getdoc(part) or "").split())]
        for name, field in Recipe.model_fields.items()
        if name not in SET_BY_COMMANDS | {"model"}
        for part in _parts_of(field.annotation)
    ]
    return table(["field", "kind", "options", "meaning"], rows)


def networks() -> str:
    """List the kinds of networks with their options."""
    from reslab.recipe.recipe import Recipe

    parts = [part for part in _parts_of(Recipe.model_fields["model"].annotation) if "kind" in part.model_fields]
    return table(["kind", "options"], [list(_part(part)) for part in parts])


def _parts_of(annotation: Any) -> list[Any]:
    """Find the parts in a field's type, those of unions and tuples included."""
    from reslab.recipe.value import Part

    if isinstance(annotation, type) and issubclass(annotation, Part):
        return [annotation]
    return [part for each in get_args(annotation) for part in _parts_of(each)]


def _part(part: Any) -> Iterator[str]:
    """Write two cells: a part's kind, and its options with their defaults."""
    fields = part.model_fields
    yield f"`{fields['kind'].default}`" if "kind" in fields else "–"
    yield ", ".join(_option(name, each) for name, each in fields.items() if name != "kind") or "–"


def _in_json(values: str) -> str:
    """Say in the words of JSON which values a docstring names."""
    values = re.sub("tuple of [A-Z][A-Za-z]+", "list of parts", re.sub(", (optional|default .+)$", "", values))
    values = re.sub("^[A-Z][A-Za-z]+( or [A-Z][A-Za-z]+)*$", "part", values)
    for python, json_word in IN_JSON.items():
        values = re.sub(rf"\b{python}\b", json_word, values)
    return values.replace("list of number", "list of numbers")


def _option(name: str, field: Any) -> str:
    choices = [_json(each) for each in get_args(field.annotation)] if get_origin(field.annotation) is Literal else []
    default = [] if field.is_required() else [_json(field.default)]
    listed = words.listing(default + [each for each in choices if each not in default]).replace(" and ", " or ")
    return f"`{name}` {listed}" if default else f"`{name}` ({listed})" if choices else f"`{name}`"


def _json(value: Any) -> str:
    if isinstance(value, float):
        value = float(f"{value:.4g}")
    return f"[{', '.join(map(_json, value))}]" if isinstance(value, tuple) else json.dumps(value)


def commands() -> str:
    """Quote `--help` of every command."""
    import typer

    from reslab.cli import app

    def quote(name: str, command: Any) -> Iterator[str]:
        if hasattr(command, "commands"):
            for each, inner in command.commands.items():
                yield from quote(f"{name} {each}", inner)
            return
        context = command.make_context(name, [], resilient_parsing=True, terminal_width=100, max_content_width=100)
        text = "\n".join(line.rstrip() for line in command.get_help(context).strip().splitlines())
        yield f"## {name}\n\n```text\n{text}\n```\n"

    return "\n".join(quote("reslab", typer.main.get_command(app)))


# ---- new classes


def methods() -> str:
    """List the methods of `reslab extend`."""
    from reslab.extension.methods import METHODS

    need, or_remembered = {True: "needed", False: "optional"}, ", or [remembered](#without-the-old-images)"
    rows = [
        [
            f"[`{name}`](methods/{name}.md)",
            about.summary,
            need[about.needs_old] + (or_remembered if about.remembers else ""),
        ]
        for name, about in METHODS.items()
    ]
    return table(["method", "what it does", "images of the old classes"], rows)


def extensions() -> str:
    """Write what every measured method reached on CIFAR-10 and the five reptiles."""
    from reslab.extension.methods import METHODS

    header = ["method", "seeds", "accuracy", "macro precision", "macro recall", "macro F1", "reptile F1"]
    measured = {name: f"reptiles/{name}" for name in METHODS if folders(f"reptiles/{name}")}
    rows = [[f"[`{name}`](methods/{name}.md)", *_extension(result)] for name, result in measured.items()]
    return table([*header, "old classes", "change, points", "minutes"], rows)


def extensions_of_fast94() -> str:
    """Write what each case reached on CIFAR-10 and the five reptiles, with `fast94` as the base."""
    cases = {
        "`finetune-fusion`": "fusion/tuned",
        "`fusion`": "fusion/fusion",
        "`fusion`, 20 images of each reptile": "fusion/few",
        "`fusion --keep-old exact`": "fusion/exact",
        "`fusion --old-data 20`": "fusion/old20",
        "`fusion --old-data none`, after `remember`": "fusion/none-memory",
        "the same, 20 images of each reptile": "fusion/none-memory-few",
        "`weight-align --old-data none`": "fusion/none-weight-align",
        "`finetune-distill --old-data none`": "fusion/none-finetune-distill",
    }
    header = ["case", "seeds", "accuracy", "macro precision", "macro recall", "macro F1", "reptile F1"]
    rows = [[case, *_extension(result)] for case, result in cases.items()]
    return table([*header, "old classes", "change, points", "minutes"], rows)


def called_new(name: str) -> str:
    """Write precision and recall of any new class against any old one, and what old classes new ones are taken for."""
    matrix, classes, num_old = _confusions(name)
    called, actual, hits = matrix[:, num_old:].sum(), matrix[num_old:].sum(), matrix[num_old:, num_old:].sum()
    missed = matrix[num_old:, :num_old].sum(axis=0)
    most = [f"{missed[place]:,} {classes[place]}" for place in (-missed).argsort(kind="stable")[:4]]
    return (
        f"{called:,} test images are classified as reptiles, {percent(hits / called, 1)} correctly; of the {actual:,} "
        f"reptiles, {missed.sum():,} are classified as an old class: {', '.join(most[:-1])} and {most[-1]}"
    )


def _confusions(name: str) -> tuple[NDArray[np.int64], tuple[str, ...], int]:
    """Sum the confusion matrices of the test split over the seeds; with the classes, and how many are old."""
    found = [read_evaluation(folder) for folder in folders(name)]
    assert found[0].extension is not None
    matrix = np.sum([each.splits["test"].confusion_matrix for each in found], axis=0)
    return matrix, found[0].classes, found[0].extension.num_old


def _extension(name: str) -> Iterator[str]:
    found = folders(name)
    tests = splits(name)
    parts = [part for folder in found if (part := read_evaluation(folder).extension)]
    f1s = [test.macro_f1.value for test in tests]
    yield str(len(found))
    yield percent(fmean(test.accuracy.value for test in tests), 1)
    yield percent(fmean(test.macro_precision.value for test in tests), 1)
    yield percent(fmean(test.macro_recall.value for test in tests), 1)
    yield percent(fmean(f1s), 1) + (f" ({100 * min(f1s):.1f}–{100 * max(f1s):.1f})" if len(f1s) > 1 else "")
    yield percent(fmean(part.new_macro_f1.value for part in parts), 1)
    yield percent(fmean(part.old_after.value for part in parts), 1)
    yield words.points(old_change(name), decimals=1)
    yield f"{minutes_on_one_core(name):.0f}"


def threads(folder: Path) -> int:
    return Environment.model_validate_json((folder / "environment.json").read_bytes()).threads


def minutes_on_one_core(name: str) -> float:
    """Give the mean training time of the seeds that had one core."""
    alone = [folder for folder in folders(name) if threads(folder) == 1]
    return fmean(sum(epoch.seconds for epoch in read_log(folder)) / 60 for folder in alone)


def minutes_on_two_cores(name: str) -> float:
    """Give the training time of the one seed that had two cores."""
    (folder,) = (folder for folder in folders(name) if threads(folder) == 2)
    return sum(epoch.seconds for epoch in read_log(folder)) / 60


def old_change(name: str) -> float:
    """Give by how much the accuracy on the old classes changed, the mean over the seeds."""
    return fmean(part.old_change.value for folder in folders(name) if (part := read_evaluation(folder).extension))


def new_f1(name: str) -> str:
    """Write the macro F1 over the new classes, the mean over the seeds."""
    found = [part.new_macro_f1.value for folder in folders(name) if (part := read_evaluation(folder).extension)]
    return percent(fmean(found), 1)


def f1_of_tau(name: str) -> str:
    """Write the macro F1 on validation images at the tau that was chosen."""
    prior = PriorChoice.model_validate_json((ROOT / "results" / name / "prior.json").read_bytes())
    return next(percent(point.macro_f1.value, 1) for point in prior.curve if point.tau == prior.tau)


# ---- speed


def cpu_record() -> str:
    """List the runs for the record of processors, the quickest first."""
    names = [
        "fast94",
        "fast94-bfloat16",
        *(f"record/{path.name}" for path in sorted((ROOT / "results/record").glob("*"))),
    ]
    rows = []
    for name in sorted(names, key=record_minutes):
        recipe = json.loads((folders(name)[0] / "recipe.json").read_text())["name"]
        ran = [Environment.model_validate_json((folder / "environment.json").read_bytes()) for folder in folders(name)]
        rows.append(
            [
                f"[`{recipe}`](../results/{name})",
                f"{ran[0].processor}, {ran[0].multiplied}",
                str(len(ran)),
                f"{record_minutes(name):.1f}",
                accuracy_between(name),
                accuracy_between(name, views=True),
            ]
        )
    return table(["recipe", "processor", "seeds", "minutes", "test accuracy", "with six views"], rows)


def record_minutes(name: str) -> float:
    """Give the mean minutes of the whole process, or where only the log is left, of the training."""
    path = ROOT / "results" / name / "record.json"
    if not path.exists():
        return minutes(name)
    return fmean(each["minutes"] for each in json.loads(path.read_text())["result"]["seeds"])


def updates() -> str:
    """Write how fast an update of each recipe is."""
    loops = {"by hand": "standard", "by hand, bfloat16": "standard, bfloat16", "reslab, float32": "reslab, float32"}
    loops |= {"reslab": "reslab", "reslab, compiled": "compiled"}
    rows = []
    for name, found in bench("throughput", "recipes").items():
        speedup, measured = found["ratio"]["by hand"], found["loops"]
        rates = [f"{measured[loop]['images_per_second']:,.0f}" for loop in loops]
        ratios = [write_ratio(speedup[loop]) for loop in ("reslab", "reslab, compiled")]
        rows.append([f"`{name}`", *rates, *ratios, f"{measured['reslab']['peak_megabytes']:,}"])
    return table(["recipe", *loops.values(), "reslab, speed-up", "compiled, speed-up", "MB"], rows)


def zoo_updates() -> str:
    """Write how fast an update of the networks of the zoo is."""
    rows = []
    for name, found in (bench("throughput-zoo", "recipes") | bench("throughput-large", "recipes")).items():
        loops = found["loops"]
        rates = [f"{loops[loop]['images_per_second']:,.0f}" for loop in ("by hand", "by hand, bfloat16", "reslab")]
        speed = [write_ratio(found["ratio"]["by hand"]["reslab"]), f"{loops['reslab']['gflops']:,.0f}"]
        rows.append([f"`{name}`", str(found["batch_size"]), *rates, *speed, f"{loops['reslab']['peak_megabytes']:,}"])
    return table(["recipe", "batch", "standard", "standard, bfloat16", "reslab", "speed-up", "GFLOP/s", "MB"], rows)


def peak(key: str) -> float:
    """Give the most GFLOP/s that the two cores reached beside the large networks."""
    return float(max(found[key] for found in bench("throughput-large", "recipes").values()))


def lab_minutes() -> float:
    """Give what `lab-resnet32` would take at the throughput that was measured."""
    from reslab.recipe.shipped import find_recipe

    rate = bench("throughput", "recipes", "lab-resnet32", "loops", "reslab", "images_per_second")
    return float(find_recipe("lab-resnet32").epochs * 50_000 / rate / 60)


def inference_speedup() -> list[float]:
    """Give the median speed-ups of inference, the lowest first."""
    return sorted(found["ratio"]["median"] for found in bench("inference", "models").values())


def gpu_gain() -> float:
    """Give how many times the updates of one process twelve have on a GPU."""
    rates = bench("gpu", "resnet-20, graph: updates a second by processes at once")
    return float(rates["12"] / rates["1"])


def augment_rate() -> int:
    """Give the images a second of the slowest augmentation."""
    return int(min(found["images_per_second"] for found in read_benchmark("augment").values()))


# ---- the zoo


def zoo() -> str:
    """Write the rows of the public table with the parameters of our networks."""
    from reslab.recipe.shipped import RECIPES
    from reslab.recipe.shipped.zoo import PUBLISHED

    return table(
        ["recipe", "parameters: table", "ours", "published accuracy"],
        [
            [f"`{name}`", short(row.parameters), short(parameters(RECIPES[name].model)), percent(row.test_accuracy)]
            for name, row in PUBLISHED.items()
        ],
    )


def short(number: int) -> str:
    return words.quantity(number).replace(words.NBSP, " ")


def parameters(model: Any, *, trained_only: bool = True, **options: Any) -> int:
    """Count the parameters of a network for CIFAR-10."""
    import torch

    from reslab.models import build
    from reslab.models.costs import count_parameters

    with torch.device("meta"):
        network = build(model.model_copy(update=options), num_classes=10, channels=3)
    return count_parameters(network, trained_only=trained_only)


def script_parameters(recipe: str, **options: Any) -> str:
    """Write two cells: the parameters of the script's variant, without and with running statistics."""
    from reslab.recipe.shipped import RECIPES

    model = RECIPES[recipe].model
    counts = (parameters(model, trained_only=alone, **options) for alone in (True, False))
    return " | ".join(map(short, counts))


def first_updates() -> str:
    """Write what two hundred updates did to every network of the zoo."""
    rows = []
    for name, found in read_benchmark("zoo").items():
        taken, batch = found["seconds_per_step"], found["batch_size"]
        losses = [f"{found[end]:.2f}" for end in ("first_loss", "last_loss")]
        epoch = f"{50_000 / batch * taken / 60:.1f}"
        rows.append([f"`{name}`", str(batch), *losses, f"{taken:.2f}", epoch, f"{found['peak_megabytes']:,}"])
    header = ["network", "batch", "first loss", "last loss", "seconds per update", "minutes per epoch", "MB"]
    return table(header, rows)


# ---- pretrained networks, exports, reproducibility, scale


def probes() -> str:
    """Write the accuracy of linear probes on pretrained features."""

    def cell(draws: Sequence[float]) -> str:
        return f"{fmean(draws):.1f} ({min(draws):.1f}–{max(draws):.1f})"

    heads = bench("probe_features", "accuracy")
    shots = next(iter(heads.values()))
    rows = [[head, *(cell(found["draws"]) for found in each.values())] for head, each in heads.items()]
    return table(["head", *(name.replace(" a class", " per class") for name in shots)], rows)


ROUTES: Final = {
    "plain": "the network as it is",
    "channels last": "channels last",
    "folded": "batch norms folded, channels last (`folded`)",
    "frozen": "the same, traced and frozen",
    "onnxruntime": "ONNX Runtime (`onnxruntime`)",
}


def routes() -> str:
    """Write how fast each way to compute features is."""
    sizes = [bench("features", f"{side} pixels") for side in (128, 192)]
    speedup = sizes[0]["plain_takes_times_as_long_as"] | {"plain": {"median": 1}}
    rows = [
        [name, *(f"{size['pictures_per_second'][way]:.0f}" for size in sizes), f"{speedup[way]['median']:.1f}"]
        for way, name in ROUTES.items()
    ]
    return table(["way", "128 pixels", "192 pixels", "speed-up at 128"], rows)


def feature_difference() -> float:
    """Give the largest difference of a feature between the ways to compute it."""
    return float(max(max(bench("features", f"{side} pixels", "largest_difference").values()) for side in (128, 192)))


def exported() -> str:
    """Write what quantisation costs."""
    rows = []
    for name, size in bench("export", "bytes").items():
        test = bench("export", "test", name)
        change = test["change"]
        ends = words.interval(change["low"], change["high"], unit="points")
        accuracy, points = percent(test["accuracy"]["value"]), f"{words.points(change['value'])} {ends}".strip()
        rows.append([f"`{name}`", accuracy, points, f"{test['images_per_second']:.0f}", f"{size / 1e6:.1f}"])
    return table(["file", "test accuracy", "change, points", "images/s", "MB"], rows)


def kills() -> str:
    """Write what became of killed processes."""
    rows = []
    for path in sorted(ROOT.glob("benchmarks/kill*.json")):
        found = read_benchmark(path.stem)
        rows.append([f"`{path.name}`", *(str(found[key]) for key in KILLS)])
    return table(["file in `benchmarks/`", *KILLS.values()], rows)


KILLS: Final = {
    "kills": "kills",
    "inside_writes": "during a write",
    "runs": "runs",
    "lost": "lost",
    "different": "different bytes",
}


def differences() -> str:
    """Write how far training with another setup moves the result."""
    labels = {"again": "the same again", "deterministic": "`--deterministic`", "two_threads": "two threads"}
    labels |= {"compiled": "compiled", "bfloat16": "bfloat16"}
    rows = []
    for key, label in labels.items():
        found = bench("differences", key)
        cells = (f"{found['largest_weight']:.2f}", f"{found['train_loss']:.3f}", f"{found['validation_accuracy']:.3f}")
        rows.append([label, "equal", "0", "0", "0"] if found["same_bytes"] else [label, "different", *cells])
    header = ["compared with one thread, uncompiled, float32", "bytes", "largest difference of a weight"]
    return table([*header, "of the training loss", "of validation accuracy"], rows)


def processes() -> str:
    """Write how far gradients of several processes are from those of one."""
    names = {"2": "2 processes", "3": "3 processes, unequal parts", "4": "4 processes, unequal parts"}
    found = bench("ddp", "processes")
    rows = [[name, *(f"{found[num][key]:.1e}" for key in ("gradients", "weights"))] for num, name in names.items()]
    return table(["compared with one process", "gradients, relative", "weights after three epochs"], rows)


def shards() -> str:
    """Write the test accuracy from memory, from shards and streamed."""
    rows = []
    for name, data in (("digits", "digits"), ("cifar10", "CIFAR-10")):
        found = bench("shards", name)
        cells = [percent(found[source]["test_accuracy"]) for source in ("memory", "shards", "streamed")]
        low, high = found["streamed"]["interval"]
        cells[2] += f" ({100 * low:.1f}–{100 * high:.1f})"
        rows.append([f"{data}, {words.counted(found['epochs'], 'epoch')} of `{found['recipe']}`", *cells])
    return table(["data", "from memory", "from shards", "streamed"], rows)


def thousand_runs() -> str:
    """Work out what a thousand runs of `lab-resnet32-short` take."""
    hours = round(1000 * minutes("lab-resnet32-short") / 60, -2)
    return table(
        ["a thousand runs of `lab-resnet32-short`", "two cores each"],
        [
            ["compute", f"{hours:.0f} hours of two cores"],
            ["with 64 workers", f"{hours / 64:.0f} hours"],
            ["money", f"{hours * 2 * 0.04:.0f}"],
            ["storage: 12 MB per run", "12 GB, 0.28 per month"],
        ],
    )


def lab_rate() -> float:
    """Give the images a second that `lab-resnet32-short` trained at."""
    return median(epoch.images_per_second for epoch in read_log(folders("lab-resnet32-short")[0]))


def imagenet() -> str:
    """Work out what ninety epochs of ImageNet take."""
    images = 90 * IMAGENET
    slow = lab_rate() * 69.124736 / 3855.945728  # million multiply-adds per image: ResNet-32 at 32 pixels, 50 at 224
    days, hours = images / slow / words.DAY, images / 3.6e6
    return table(
        ["", "two cores", "one GPU", "eight GPUs, if nothing is lost"],
        [
            ["images per second", f"{slow:.0f}", "1,000", "8,000"],
            ["time", f"{days:.0f} days", f"{hours:.0f} hours", f"{hours / 8:.0f} hours"],
            ["money", f"{days * 24 * 2 * 0.04:.0f}", f"{hours * 2.5:.0f}", f"{hours * 2.5:.0f}"],
        ],
    )


# ---- studies and the ledger


def ledger(function: str) -> str:
    """Call a function of `tools/ledger.py` for the runs that are kept."""
    import ledger

    return str(getattr(ledger, function)())


def studies() -> str:
    """List the shipped studies."""
    from reslab.study import STUDIES

    return table(
        ["study", "what it repeats", "rows"],
        [[f"[`{name}`](studies/{name}.md)", each.title, str(len(each.rows))] for name, each in STUDIES.items()],
    )


def study_row(name: str, label: str) -> str:
    """Quote a row of a study in JSON."""
    from reslab.study import find_study
    from reslab.study.spec import pick_row

    row = pick_row(find_study(name), label).model_dump(mode="json")
    return f"```json\n{json.dumps(row, indent=1)}\n```"


def study_rows(name: str) -> str:
    """List the rows of a study with what is published for them."""
    from reslab.study import STUDIES
    from reslab.study.spec import Training

    rows = []
    for row in STUDIES[name].rows:
        job = row.job
        if isinstance(job, Training):
            done = ", ".join(f"`{part}`" for part in (job.recipe, *job.settings))
        else:
            done = f"`{job.base}` extended by `{job.data}`, method `{job.method}`"
        figures = "; ".join(
            f"{metric.replace('_f1', ' F1')} {words.between(each.low, each.high).replace(words.NBSP, ' ')}"
            for metric, each in row.published.items()
        )
        sources = "; ".join(sorted({each.source for each in row.published.values()}))
        rows.append([f"`{row.label}`", done, figures or "–", sources or "–"])
    return table(["row", "recipe", "published", "source"], rows)


def contrasts(name: str) -> str:
    """List the pairs of rows that a study compares."""
    from reslab.study import STUDIES

    return "\n".join(f"- `{each.first}` with `{each.second}`" for each in STUDIES[name].contrasts)


def study_results(name: str) -> str:
    """Quote the tables of the report that is committed, without the rows that have no run yet."""
    report = ROOT / "results" / name / "report.md"
    headline, *sections = report.read_text(encoding="utf-8").split("\n## ")
    said, scaled, *_, rows = headline.split("\n\n")[1:]
    done = [line for line in rows.splitlines() if line.startswith("|") and "no run yet" not in line]
    pairs = [text.partition("\n\n")[2].split("\n\n")[0] for text in sections if text.startswith("Rows against")]
    parts = [f"[{said.rstrip('.')}](../../results/{name}/report.md). {scaled}", "\n".join(done)]
    return "\n\n".join([*parts, *(text.strip() for text in pairs)])
