"""Every figure about speed is backed by a committed result: README, docs/speed.md and the log of levers."""

import json
from pathlib import Path
from statistics import fmean

import pytest

from reslab.recipe.recipe import read_recipe
from reslab.recipe.shipped import find_recipe
from reslab.recipe.shipped.zoo import PUBLISHED
from reslab.records import Environment, Epoch, Evaluation, SplitFigures

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def minutes(folder: Path) -> float:
    lines = (folder / "log.jsonl").read_text().splitlines()
    return sum(Epoch.model_validate_json(line).seconds for line in lines) / 60


def read_test(folder: Path) -> SplitFigures:
    return Evaluation.model_validate_json((folder / "evaluation.json").read_text()).splits["test"]


def read_accuracies_and_minutes(folder: Path) -> tuple[float, float, float]:
    """Give percents right without and with six views, and how long the training took."""
    test = read_test(folder)
    assert test.test_time_augmentation
    return 100 * test.accuracy.value, 100 * test.test_time_augmentation.figures.accuracy.value, minutes(folder)


def test_what_is_said_of_fast94_is_the_mean_of_its_seeds() -> None:
    folders = sorted((ROOT / "results/fast94").glob("seed*"))
    plain, views, minutes_taken = zip(*map(read_accuracies_and_minutes, folders), strict=True)
    f1, taken = fmean(read_test(folder).macro_f1.value for folder in folders), fmean(minutes_taken)
    assert len(folders) == 3
    row = next(line for line in README.splitlines() if "(results/fast94)" in line)
    assert f"3 seeds | {fmean(plain):.2f}% ({min(plain):.2f}–{max(plain):.2f}) | {f1:.4f} | {taken:.0f} |" in row
    assert f"six views of each image `fast94` has {fmean(views):.2f}% ({min(views):.2f}–{max(views):.2f})" in README
    page = " ".join((ROOT / "docs/speed.md").read_text(encoding="utf-8").split())
    assert f"reaches {fmean(plain):.2f} % on" in page
    assert f"and {fmean(views):.2f} % with six views, in {taken:.1f} minutes" in page


# Test accuracies after 200 epochs; the last is that of another implementation, named on the page.
TABLE = {
    20: PUBLISHED["zoo-preact-resnet20"].test_accuracy,
    32: PUBLISHED["zoo-preact-resnet32"].test_accuracy,
    56: 0.9339,
}


@pytest.mark.parametrize("depth", TABLE)
def test_what_is_said_of_the_fast_residual_networks_is_what_they_reached(depth: int) -> None:
    folder = ROOT / f"results/fast-resnet{depth}"
    test = read_test(folder)
    assert test.test_time_augmentation
    views = test.test_time_augmentation.figures.accuracy.value
    found = f"{test.accuracy.value:.2%} | {views:.2%} | {TABLE[depth]:.2%} | {minutes(folder):.0f} |".replace("%", " %")
    page = (ROOT / "docs/speed.md").read_text(encoding="utf-8")
    assert f"| [`{folder.name}`](../results/{folder.name}) | {found}" in page
    environment = Environment.model_validate_json((folder / "environment.json").read_text())
    assert (read_recipe(folder / "recipe.json").epochs, environment.threads) == (40, 1)
    log = (ROOT / "benchmarks/log.md").read_text(encoding="utf-8")
    assert f"{100 * test.accuracy.value:.2f} % (published: {100 * TABLE[depth]:.2f} %)" in log


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("fast-cifar100", "`fast-cifar100` reaches"),
        ("chosen-by-test/cifar100-64-256-512", "with 64, 256 and 512 channels and a crop of 2 pixels, had reached"),
    ],
)
def test_what_is_said_of_a_hundred_classes_is_what_was_reached(name: str, words: str) -> None:
    folder = ROOT / "results" / name
    test = read_test(folder)
    assert test.test_time_augmentation
    views = test.test_time_augmentation.figures.accuracy.value
    page = " ".join((ROOT / "docs/speed.md").read_text(encoding="utf-8").split())
    spelled = f"{words} {test.accuracy.value:.2%} without and {views:.2%} with six views"
    assert f"{spelled.replace('%', ' %')}, in {minutes(folder):.1f} minutes" in page
    log = (ROOT / "benchmarks/log.md").read_text(encoding="utf-8")
    assert f"{100 * test.accuracy.value:.2f} %, in {minutes(folder):.1f} minutes" in log
    assert read_recipe(folder / "recipe.json").validation == 0


def test_the_page_of_speed_quotes_the_benchmark_of_inference() -> None:
    models = json.loads((ROOT / "benchmarks/inference.json").read_text())["result"]["models"]
    ratios = [found["ratio"]["median"] for found in models.values()]
    page = " ".join((ROOT / "docs/speed.md").read_text(encoding="utf-8").split())
    assert f"that is {min(ratios):.2f} to {max(ratios):.2f} times as fast for three networks" in page
    assert min(ratios) >= 1.5


def with_quartiles(ratio: dict[str, float]) -> str:
    return f"{ratio['median']:.2f} ({ratio['lower_quartile']:.2f}–{ratio['upper_quartile']:.2f})"


LOOPS_OF_STEPS = ("by hand", "by hand, bfloat16", "reslab, float32", "reslab", "reslab, compiled")


def rows_of_steps() -> list[str]:
    """Write the row of every recipe whose update was raced against the loop by hand."""
    rows = []
    for name, found in json.loads((ROOT / "benchmarks/throughput.json").read_text())["result"]["recipes"].items():
        loops, by_hand = found["loops"], found["ratio"]["by hand"]
        rates = [f"{loops[loop]['images_per_second']:,.0f}" for loop in LOOPS_OF_STEPS]
        cells = [*rates, with_quartiles(by_hand["reslab"]), with_quartiles(by_hand["reslab, compiled"])]
        rows.append(f"| `{name}` | {' | '.join(cells)} | {loops['reslab']['peak_megabytes']:,} |")
    return rows


def test_a_step_of_every_network_on_a_newer_processor_is_quoted() -> None:
    recipes = json.loads((ROOT / "benchmarks/throughput.json").read_text())["result"]["recipes"]
    lab = recipes["lab-resnet32"]["ratio"]
    page = (ROOT / "docs/speed.md").read_text(encoding="utf-8")
    for row in rows_of_steps():
        assert row in page
    assert f"Keras' `model.fit` {with_quartiles(lab['keras, float32']['reslab'])} times" in " ".join(page.split())
    assert f"with its own mixture {with_quartiles(lab['keras, mixed_bfloat16']['reslab'])} times" in " ".join(
        page.split()
    )
    words = " ".join(README.split())
    assert f"{with_quartiles(lab['by hand']['reslab'])} on one with AMX" in words
    assert f"{with_quartiles(lab['keras, float32']['reslab'])} times as fast as Keras" in words
    assert lab["by hand"]["reslab"]["median"] >= 1.35
    assert lab["keras, float32"]["reslab"]["median"] >= 1.5
    assert all(found["ratio"]["by hand"]["reslab"]["median"] >= 1 for found in recipes.values())


def test_a_step_of_the_zoo_on_a_newer_processor_is_quoted() -> None:
    page = (ROOT / "docs/speed.md").read_text(encoding="utf-8")
    recipes, large = (
        json.loads((ROOT / f"benchmarks/throughput-{which}.json").read_text())["result"]["recipes"]
        for which in ("zoo", "large")
    )
    for name, found in (recipes | large).items():
        loops, ratio = found["loops"], found["ratio"]["by hand"]["reslab"]
        rates = [f"{loops[loop]['images_per_second']:,.0f}" for loop in ("by hand", "by hand, bfloat16", "reslab")]
        cells = [*rates, with_quartiles(ratio), f"{loops['reslab']['gflops']:,.0f}"]
        row = f"| `{name}` | {found['batch_size']} | {' | '.join(cells)} | {loops['reslab']['peak_megabytes']:,} |"
        assert row in page
        assert ratio["median"] >= 1
    assert len(recipes) >= 6
    product, registers = (max(found[peak] for found in large.values()) for peak in ("peak_gflops", "fma_gflops"))
    words = " ".join(page.split())
    assert f"float32 at {product:.0f} GFLOP/s by `torch.mm`" in words
    assert f"multiply-adds that stay in registers came to {registers:.0f}:" in words
    before = json.loads((ROOT / "benchmarks/throughput.json").read_text())["result"]["recipes"]
    slow, fast = (found["elu-resnet-20"]["ratio"]["by hand"]["reslab"]["median"] for found in (before, recipes))
    log = (ROOT / "benchmarks/log.md").read_text(encoding="utf-8")
    assert f"`elu-resnet-20` {fast:.2f} times the loop by hand instead of {slow:.2f}, not compiled" in log


def test_what_the_fast_recipe_saves_is_what_was_measured() -> None:
    lab = json.loads((ROOT / "benchmarks/throughput.json").read_text())["result"]["recipes"]["lab-resnet32"]["loops"]
    slow = find_recipe("lab-resnet32").epochs * 50_000 / lab["reslab"]["images_per_second"] / 60
    folders = sorted((ROOT / "results/fast94-bfloat16").glob("seed*"))
    plain, views, taken = zip(*map(read_accuracies_and_minutes, folders), strict=True)
    assert len(folders) == 3
    page = " ".join((ROOT / "docs/speed.md").read_text(encoding="utf-8").split())
    figures = f"{fmean(plain):.2f} % without and {fmean(views):.2f} % with six views"
    assert f"the same recipe took {fmean(taken):.1f} minutes, with {figures} (means of three seeds" in page
    link = "results/fast94-bfloat16"
    spelled = f"[{fmean(taken):.1f} minutes]({link}) each: {fmean(plain):.2f}%, and {fmean(views):.2f}% with six views"
    assert spelled in " ".join(README.split())
    log = (ROOT / "benchmarks/log.md").read_text(encoding="utf-8")
    assert f"`fast94` in {fmean(taken):.1f} minutes, {fmean(views):.2f} % with six views" in log
    hour = f"at the rate of the hour in which the first seed took {taken[0]:.1f}, {slow / taken[0]:.0f} times as long"
    assert f"would take {slow:.0f} minutes {hour}" in page
    assert fmean(plain) >= 93
    assert fmean(views) >= 94
    assert max(taken) <= 12
    assert slow / taken[0] >= 12


def test_the_log_of_levers_quotes_its_files() -> None:
    log = (ROOT / "benchmarks/log.md").read_text(encoding="utf-8")
    ratio = {
        size: f"{found['ratio']['median']:.2f}"
        for size, found in json.loads((ROOT / "benchmarks/winograd.json").read_text())["result"].items()
    }
    assert f"{ratio['16']}, {ratio['24']} and {ratio['32']} times PyTorch's" in log
    trial = ROOT / "results/chosen-by-test/fast94-8-epochs"
    test = Evaluation.model_validate_json((trial / "evaluation.json").read_text()).splits["test"]
    assert test.test_time_augmentation
    views = test.test_time_augmentation.figures.accuracy.value
    spelled = f"{views:.2%} with six views, {test.accuracy.value:.2%} without, in {minutes(trial):.1f} minutes"
    assert spelled in log.replace(" %", "%")
    recipes = json.loads((ROOT / "benchmarks/throughput.json").read_text())["result"]["recipes"]
    lab = recipes["lab-resnet32"]["ratio"]["by hand"]
    plain, wide = (f"{lab[loop]['median']:.2f}" for loop in ("reslab", "reslab, float32"))
    assert f"{plain} times the loop by hand, where float32 gives {wide}" in log
    rates = {
        name: {loop: each["images_per_second"] for loop, each in found["loops"].items()}
        for name, found in recipes.items()
    }
    gain = {name: f"{found['reslab, compiled'] / found['reslab']:.2f}" for name, found in rates.items()}
    assert f"{gain['lab-resnet32']} times the images a second for `lab-resnet32`" in log
    assert f"{gain['elu-resnet-20']} for `elu-resnet-20`, {gain['fast-conv']} for `fast-conv`" in log


def test_what_is_said_of_a_gpu_is_what_was_measured() -> None:
    found = json.loads((ROOT / "benchmarks/gpu.json").read_text())["result"]
    rates = found["resnet-20, graph: updates a second by processes at once"]
    page, log = ((ROOT / name).read_text(encoding="utf-8") for name in ("docs/speed.md", "benchmarks/log.md"))
    words = " ".join(page.split())
    assert f"twelve networks at once had {rates['12'] / rates['1']:.1f} times the updates of one" in words
    assert f"{rates['12'] / rates['1']:.1f} times ({rates['1']:.0f} to {rates['12']:.0f} a second)" in log


def test_the_page_of_pretrained_networks_quotes_its_files() -> None:
    page = (ROOT / "docs/pretrained.md").read_text(encoding="utf-8")
    speed = json.loads((ROOT / "benchmarks/features.json").read_text())["result"]
    small, large = speed["128 pixels"], speed["192 pixels"]
    rows = {"the network as it is": "plain", "channels last": "channels last", "batch norms folded": "folded"}
    for words, way in (rows | {"the same, traced": "frozen", "ONNX Runtime": "onnxruntime"}).items():
        ratio = 1 if way == "plain" else f"{small['plain_takes_times_as_long_as'][way]['median']:.1f}"
        per_second = [f"{each['pictures_per_second'][way]:.0f}" for each in (small, large)]
        (row,) = [line for line in page.splitlines() if line.startswith(f"| {words}")]
        assert row.endswith(f" | {per_second[0]} | {per_second[1]} | {ratio} |")
    assert f"{round(small['pictures_per_second']['enlarge'], -2):,.0f} a second" in page
    largest = max(max(each["largest_difference"].values()) for each in (small, large))
    assert f"up to {largest:.0e}." in page
    probe = json.loads((ROOT / "benchmarks/probe_features.json").read_text())["result"]
    for head, found in probe["accuracy"].items():
        figures = [f"{fmean(of['draws']):.1f} ({min(of['draws']):.1f}–{max(of['draws']):.1f})" for of in found.values()]
        assert f"| {head} | {' | '.join(figures)} |" in page


def test_the_route_is_the_one_that_was_the_fastest() -> None:
    speed = json.loads((ROOT / "benchmarks/features.json").read_text())["result"]
    for size in ("128 pixels", "192 pixels"):
        assert speed[size]["folded_takes_times_as_long_as_onnxruntime"]["lower_quartile"] > 1
        ratios = speed[size]["plain_takes_times_as_long_as"]
        assert ratios["onnxruntime"]["lower_quartile"] > 2
        assert ratios["folded"]["lower_quartile"] > ratios["channels last"]["upper_quartile"]
