"""Every figure in prose is backed by a committed result: README and docs against `results/` and `benchmarks/`."""

import csv
import json
import re
from pathlib import Path
from statistics import fmean

import pytest

from reslab.recipe.recipe import read_recipe
from reslab.recipe.shipped.zoo import PUBLISHED
from reslab.records import Environment, Epoch, Evaluation, PriorChoice

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
RESULTS = sorted(path.parent for path in ROOT.glob("results/**/evaluation.json"))
ALONE = [folder for folder in RESULTS if folder.parent == ROOT / "results"]
EXTENSIONS = ROOT / "results/reptiles"
BENCHMARKS = sorted(ROOT.glob("benchmarks/*.json"))


def minutes(folder: Path) -> float:
    lines = (folder / "log.jsonl").read_text().splitlines()
    return sum(Epoch.model_validate_json(line).seconds for line in lines) / 60


def test_there_is_something_to_hold_the_prose_against() -> None:
    assert RESULTS
    assert BENCHMARKS


@pytest.mark.parametrize("folder", RESULTS, ids=lambda folder: folder.name)
def test_a_result_is_whole_and_says_how_it_was_made(folder: Path) -> None:
    recipe = read_recipe(folder / "recipe.json")
    environment = Environment.model_validate_json((folder / "environment.json").read_text())
    evaluation = Evaluation.model_validate_json((folder / "evaluation.json").read_text())
    # `python -m reslab` was once recorded by the name of its file.
    began = (
        ("reslab extend ", "reslab study run ")
        if recipe.extension
        else ("reslab train ", "reslab study run ", "__main__.py train ")
    )
    assert environment.command.startswith(began) or folder.parent.name == "notebook"
    assert "/" not in environment.command.replace("runs/", "")  # no machine's paths
    assert environment.commit
    assert "dirty" not in environment.commit
    assert {used.split for used in environment.data} >= set(evaluation.splits)
    assert recipe.name == evaluation.recipe
    log = [Epoch.model_validate_json(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    assert len(log) == recipe.epochs or log[-1].updates == recipe.updates
    for split, figures in evaluation.splits.items():
        matrix = figures.confusion_matrix
        right = sum(matrix[label][label] for label in range(len(matrix)))
        assert figures.accuracy.value == pytest.approx(right / figures.num_images), split


@pytest.mark.parametrize("folder", ALONE, ids=lambda folder: folder.name)
def test_the_readme_quotes_the_result(folder: Path) -> None:
    evaluation = Evaluation.model_validate_json((folder / "evaluation.json").read_text())
    test = evaluation.splits["test"]
    row = next(line for line in README.splitlines() if f"(results/{folder.name})" in line)
    assert f"| {test.accuracy.value:.2%} ({100 * test.accuracy.low:.2f}–{100 * test.accuracy.high:.2f}) |" in row
    assert f"| {test.macro_f1.value:.4f} |" in row
    assert f"| {minutes(folder):.0f} |" in row


def threads(folder: Path) -> int:
    return Environment.model_validate_json((folder / "environment.json").read_text()).threads


def rows_of_extensions() -> dict[str, str]:
    """Write the table's row of every method: means over its seeds, and the ends where there are several."""
    folders: dict[str, list[Path]] = {}
    for folder in RESULTS:
        if folder.parent == EXTENSIONS and folder.name != "base":
            folders.setdefault(folder.name.rpartition("-")[0], []).append(folder)
    return {name: row_of_extension(found) for name, found in folders.items()}


def row_of_extension(folders: list[Path]) -> str:
    evaluations = [Evaluation.model_validate_json((folder / "evaluation.json").read_text()) for folder in folders]
    tests = [evaluation.splits["test"] for evaluation in evaluations]
    parts = [evaluation.extension for evaluation in evaluations if evaluation.extension]
    columns = [
        [test.accuracy.value for test in tests],
        [test.macro_precision.value for test in tests],
        [test.macro_recall.value for test in tests],
        [test.macro_f1.value for test in tests],
        [part.new_macro_f1.value for part in parts],
        [part.old_after.value for part in parts],
    ]
    change = 100 * fmean(part.old_change.value for part in parts)
    taken = fmean(minutes(folder) for folder in folders if threads(folder) == 1)
    cells = [f"{fmean(column):.3f}" for column in columns]
    if len(folders) > 1:
        cells[3] += f" ({min(columns[3]):.3f}–{max(columns[3]):.3f})"
    return f"| {len(folders)} | {' | '.join(cells)} | {change:+.1f} | {taken:.0f} |"


def test_the_page_of_extensions_quotes_every_measured_method() -> None:
    lines = (ROOT / "docs/extend.md").read_text(encoding="utf-8").splitlines()
    for name, row in rows_of_extensions().items():
        assert any(line.startswith(f"| [`{name}`]") and line.endswith(row) for line in lines), f"{name}: {row}"


def test_the_readme_quotes_the_table_of_extensions() -> None:
    cells = {name: row.split(" | ") for name, row in rows_of_extensions().items()}
    f1 = {name: row[4].split()[0] for name, row in cells.items()}
    (alone,) = (minutes(folder) for folder in EXTENSIONS.glob("finetune-distill-*") if threads(folder) == 2)
    words = " ".join(README.split())
    assert f"{f1['finetune-distill']} after {alone:.0f} minutes of `finetune-distill`, {f1['frozen']} with" in words
    page = " ".join((ROOT / "docs/extend.md").read_text(encoding="utf-8").split())
    assert f"with both cores for itself the default took {alone:.1f} minutes" in page
    assert alone <= 15


def best_of_prior(folder: Path) -> float:
    """Give the macro F1 on validation images at the tau that was chosen."""
    prior = PriorChoice.model_validate_json((folder / "prior.json").read_text())
    return next(point.macro_f1.value for point in prior.curve if point.tau == prior.tau)


def test_the_page_of_extensions_quotes_the_shorter_trial() -> None:
    words = " ".join((ROOT / "docs/extend.md").read_text(encoding="utf-8").split())
    shorter, longer = ROOT / "results/trials/finetune-distill-8-epochs", EXTENSIONS / "finetune-distill-0"
    assert f"stands at {best_of_prior(shorter):.3f} against {best_of_prior(longer):.3f} on validation images" in words
    log = (ROOT / "benchmarks/log.md").read_text(encoding="utf-8")
    assert f"{best_of_prior(longer):.3f} against {best_of_prior(shorter):.3f} on validation images" in log


@pytest.mark.parametrize("path", BENCHMARKS, ids=lambda path: path.stem)
def test_a_benchmark_says_how_it_was_made(path: Path) -> None:
    environment = json.loads(path.read_text())["environment"]
    assert environment["command"].startswith(f"{path.stem.partition('-')[0]}.py")
    assert " /" not in environment["command"]  # no machine's paths
    assert environment["torch"]
    assert environment["processor"]
    assert environment["started"]


def test_the_readme_quotes_the_benchmarks() -> None:
    step = json.loads((ROOT / "benchmarks/train_step.json").read_text())["result"]["ratio"]
    assert f"{step['median']:.2f} times ({step['lower_quartile']:.2f}–{step['upper_quartile']:.2f})" in README
    augment = json.loads((ROOT / "benchmarks/augment.json").read_text())["result"]
    slowest = min(entry["images_per_second"] for entry in augment.values())
    assert f"{slowest:,} images/s" in README
    assert slowest >= 25_000
    assert step["median"] >= 1.2


def test_the_page_of_the_app_quotes_its_benchmark() -> None:
    words = " ".join((ROOT / "docs/serve.md").read_text(encoding="utf-8").split())
    result = json.loads((ROOT / "benchmarks/serving.json").read_text())["result"]
    for ratio in result["times_faster_together_than"].values():
        assert f"{ratio['median']:.2f} times ({ratio['lower_quartile']:.2f}–{ratio['upper_quartile']:.2f}" in words
    assert f"load average was {result['load_average_before']}" in words
    assert f"within {result['servers']['batched']['p99_ms']:.0f} ms" in words
    assert f"held {result['pictures_of_a_batch']} pictures" in words
    assert result["burst"]["answers"] == {"200": 1000}
    assert f"within {result['burst']['p99_ms'] / 1000:.1f} s" in words
    (slower,) = result["slow_clients"]["times_slower"].values()
    assert f"waited {slower['median']:.2f} times" in words


def test_the_page_of_the_notebook_quotes_its_run_on_cifar10() -> None:
    folders = [ROOT / "results/notebook" / name for name in ("base", "extended")]
    base, extended = (Evaluation.model_validate_json((folder / "evaluation.json").read_text()) for folder in folders)
    assert extended.extension
    change = extended.extension.old_change
    words = " ".join((ROOT / "docs/report.md").read_text(encoding="utf-8").split()).replace(" %", "%")
    assert (
        f"{base.splits['test'].accuracy.value:.2%} of the test images after {minutes(folders[0]):.0f} minutes" in words
    )
    assert f"taught the reptiles in {minutes(folders[1]):.0f} more" in words
    assert f"macro F1 {extended.splits['test'].macro_f1.value:.3f} over the fifteen classes" in words
    assert f"the old ones changed by {100 * change.value:+.2f} points" in words
    environments = [Environment.model_validate_json((folder / "environment.json").read_text()) for folder in folders]
    assert {found.command for found in environments} == {"ipykernel_launcher.py"}


def row_of_updates(name: str, found: dict[str, float]) -> str:
    seconds, batch = found["seconds_per_step"], found["batch_size"]
    cells = [f"{batch}", *(f"{found[end]:.2f}" for end in ("first_loss", "last_loss")), f"{seconds:.2f}"]
    return f"| `{name}` | {' | '.join(cells)} | {50_000 / batch * seconds / 60:.1f} | {found['peak_megabytes']:,} |"


def test_every_network_of_the_zoo_has_learned_something_in_two_hundred_updates() -> None:
    page = (ROOT / "docs/zoo.md").read_text(encoding="utf-8")
    networks = json.loads((ROOT / "benchmarks/zoo.json").read_text())["result"]
    assert set(networks) == {*PUBLISHED, *(f"resnet{depth}" for depth in (18, 34, 50, 101, 152))}
    for name, found in networks.items():
        assert found["steps"] == 200
        assert found["last_loss"] < found["first_loss"]
        assert row_of_updates(name, found) in page


def test_the_page_of_exports_quotes_what_integers_cost() -> None:
    found = json.loads((ROOT / "benchmarks/export.json").read_text())["result"]
    page = (ROOT / "docs/export.md").read_text(encoding="utf-8")
    for name, size in found["bytes"].items():
        test = found["test"][name]
        value, low, high = (f"{100 * test['change'][end]:+.2f}" for end in ("value", "low", "high"))
        cells = f"{100 * test['accuracy']['value']:.2f} | {value} ({low} to {high})"
        assert f"| `{name}` | {cells} | {test['images_per_second']:.0f} | {size / 1e6:.1f} |" in page
    seconds = found["seconds_to_predict_from_the_start"]
    assert f"took {seconds:.2f} s there" in page
    assert seconds < 1


def test_no_prose_names_a_result_that_is_not_there() -> None:
    for page in (ROOT / "README.md", *sorted(ROOT.glob("docs/**/*.md"))):
        for target in re.findall(r"\]\(([^)#:]+)\)", page.read_text(encoding="utf-8")):
            assert (page.parent / target).exists(), f"{page.name} links to {target}"


def test_the_story_of_the_lab_quotes_its_results() -> None:
    story = " ".join((ROOT / "docs/lab.md").read_text(encoding="utf-8").split())
    first = Evaluation.model_validate_json((ROOT / "results/lab-resnet32-short/evaluation.json").read_text())
    for split, figures in first.splits.items():
        others = [figures.macro_precision, figures.macro_recall, figures.macro_f1]
        cells = [f"{100 * figures.accuracy.value:.2f} %", *(f"{each.value:.4f}" for each in others)]
        assert f"| {split} | {' | '.join(cells)} |" in story
    matrix = first.splits["test"].confusion_matrix
    cat, dog = map(first.classes.index, ("cat", "dog"))
    assert f"of 1,000 cats {matrix[cat][dog]} are taken for dogs, of 1,000 dogs {matrix[dog][cat]} for cats" in story
    assert f"two processor cores are done in {minutes(ROOT / 'results/lab-resnet32-short'):.0f} minutes" in story
    cells = {name: row.strip("| ").split(" | ") for name, row in rows_of_extensions().items()}
    assert f"it stands: macro F1 {cells['frozen'][4].split()[0]}" in story
    _, accuracy, _, _, f1, _, _, change, _ = cells["finetune-distill"]
    assert f"macro F1 {f1.split()[0]}, accuracy {accuracy}, for {-float(change)} points on the old classes" in story
    base, taught = (
        Evaluation.model_validate_json((ROOT / "results" / folder / "evaluation.json").read_text()).splits["test"]
        for folder in ("reptiles/base", "notebook/extended")
    )
    for page in ("docs/lab.md", "docs/ru/lab.md"):
        text = (ROOT / page).read_text(encoding="utf-8")
        assert f"{100 * base.accuracy.value:.2f} %" in text
        assert f"{taught.macro_f1.value:.3f}" in text
        assert f"reslab train {read_recipe(EXTENSIONS / 'base/recipe.json').name} --out runs/base" in text
    frozen = Evaluation.model_validate_json((EXTENSIONS / "frozen-0/evaluation.json").read_text())
    assert frozen.extension
    snake = frozen.extension.new_classes[frozen.classes.index("snake") - frozen.extension.num_old]
    assert 0.45 < snake.taken_for_old.value < 0.5
    assert snake.errors[0].mistaken_for == "frog"


def test_what_is_said_of_kills_and_of_determinism_is_what_was_measured() -> None:
    page = " ".join((ROOT / "docs/reproducibility.md").read_text(encoding="utf-8").split())
    for path in sorted(ROOT.glob("benchmarks/kill*.json")):
        found = json.loads(path.read_text())["result"]
        assert found["lost"] == found["different"] == found.get("hung", 0) == 0, path
        assert f"`{path.name}` | {found['kills']} | {found['inside_writes']} | {found['runs']} | 0 | 0 |" in page, path
    differences = json.loads((ROOT / "benchmarks/differences.json").read_text())["result"]
    for name, label in (("two_threads", "two threads"), ("compiled", "compiled"), ("bfloat16", "bfloat16")):
        row = differences[name]
        assert f"| {label} | other | {row['largest_weight']:.2f} | {row['train_loss']:.3f} |" in page
    for name in ("again", "deterministic"):
        assert differences[name]["same_bytes"]
    assert differences["bfloat16_repeats"]
    assert "Two runs in bfloat16 on one machine end with the same bytes" in page
    price = json.loads((ROOT / "benchmarks/deterministic.json").read_text())["result"]["ratio"]
    assert f"costs {100 * (price - 1):.0f} % of an update's time" in page


def test_fuzzing_has_found_nothing_that_is_still_there() -> None:
    for path in ROOT.glob("benchmarks/fuzz*.json"):
        found = json.loads(path.read_text())["result"]
        assert found["works"] + found["refused"] == found["inputs"], path
        assert found["defects"] == 0, path


STUDIES = sorted(path.parent for path in ROOT.glob("results/*/study.json"))


@pytest.mark.parametrize("folder", STUDIES, ids=lambda folder: folder.name)
def test_the_report_of_a_study_is_that_of_its_runs(folder: Path) -> None:
    lines = list(csv.DictReader((folder / "report.csv").read_text(encoding="utf-8").splitlines()))
    report = (folder / "report.md").read_text(encoding="utf-8")
    assert {path.parent.name.rpartition("-")[0] for path in folder.glob("*/evaluation.json")} == {
        line["row"] for line in lines if line["seeds"] != "0"
    }
    for line in lines:
        runs = sorted(folder.glob(f"{line['row']}-[0-9]*"))
        evaluations = [Evaluation.model_validate_json((run / "evaluation.json").read_text()) for run in runs]
        errors = [1 - evaluation.splits["test"].accuracy.value for evaluation in evaluations]
        assert line["values"] == " ".join(f"{error:.6g}" for error in errors), line["row"]
        if errors:
            (row,) = (each for each in report.splitlines() if each.startswith(f"| {line['row']} | error |"))
            assert f" | {100 * fmean(errors):.2f}" in row


# ---- what settings were chosen by

TRIALS = sorted(path.parent for path in ROOT.glob("results/trials/**/recipe.json"))
CHOSEN_BY_TEST = ROOT / "results/chosen-by-test"


def test_trials_are_committed() -> None:
    assert TRIALS
    assert {folder.name for folder in ROOT.glob("results/trials/*")} == {folder.name for folder in TRIALS}


@pytest.mark.parametrize("folder", TRIALS, ids=lambda folder: folder.name)
def test_a_trial_has_validation_figures_and_no_test_figures(folder: Path) -> None:
    assert read_recipe(folder / "recipe.json").validation > 0
    last = Epoch.model_validate_json((folder / "log.jsonl").read_text().splitlines()[-1])
    assert last.validation_accuracy is not None
    evaluation = folder / "evaluation.json"
    assert not evaluation.exists() or "test" not in Evaluation.model_validate_json(evaluation.read_text()).splits
    assert not [*folder.glob("*-test*")]


@pytest.mark.parametrize(
    "folder", [path for path in CHOSEN_BY_TEST.iterdir() if path.is_dir()], ids=lambda folder: folder.name
)
def test_a_choice_by_the_test_split_is_owned_up_to(folder: Path) -> None:
    test = Evaluation.model_validate_json((folder / "evaluation.json").read_text()).splits["test"]
    page = (CHOSEN_BY_TEST / "README.md").read_text(encoding="utf-8")
    (row,) = (line for line in page.splitlines() if f"({folder.name})" in line)
    assert f"| {100 * test.accuracy.value:.2f} %" in row
    log = (ROOT / "benchmarks/log.md").read_text(encoding="utf-8")
    (row,) = (line for line in log.splitlines() if f"results/chosen-by-test/{folder.name})" in line)
    assert "test split" in row
