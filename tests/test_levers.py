"""The log of levers quotes the files that hold their outcomes."""

import json
from pathlib import Path
from typing import Any

import pytest

from reslab.records import Evaluation

ROOT = Path(__file__).parents[1]
LOG = (ROOT / "benchmarks/log.md").read_text(encoding="utf-8")


def read(stem: str) -> Any:
    return json.loads((ROOT / f"benchmarks/{stem}.json").read_text())["result"]


@pytest.mark.parametrize("trial", ["cifar100-crop-4", "cifar100-batch-1000", "cifar100-wide"])
def test_a_trial_on_a_hundred_classes(trial: str) -> None:
    folder = ROOT / "results/trials" / trial
    end = json.loads((folder / "log.jsonl").read_text().splitlines()[-1])
    (row,) = (line for line in LOG.splitlines() if f"results/trials/{trial})" in line)
    assert f"{100 * end['validation_accuracy']:.2f} % of" in row
    assert json.loads((folder / "recipe.json").read_text())["validation"] == 5000


def test_batched_orthogonalisation() -> None:
    found = read("orthogonalize")
    conv, deep = found["fast-conv"], found["fast-resnet56"]
    shares = [f"{100 * each['share_of_update']:.2f} %" for each in (conv, deep)]
    ratios = [f"{each['ratio']['median']:.2f}" for each in (conv, deep)]
    assert f"take {shares[0]} of an update of `fast-conv` and {shares[1]} of one of `fast-resnet56`" in LOG
    assert f"batched they are {ratios[0]} and {ratios[1]} times as fast" in LOG


def test_a_narrower_stem() -> None:
    assert f"an update {read('stem')['ratio']['median']:.2f} times as fast" in LOG


def test_layouts() -> None:
    ratios = read("layouts")["channels"]["16"]["ratio to NHWC"]
    plain, wide = (ratios[way]["median"] for way in ("NCHW", "NHWC, 64 channels"))
    assert f"NCHW takes {plain:.2f} times as long, NHWC filled up to 64 channels {wide:.2f} times" in LOG
    assert min(plain, wide) > 1


def test_statistics_taken_anew() -> None:
    found = read("norm_statistics")
    accuracies = [f"{100 * found[way]['accuracy']:.2f} %" for way in ("anew", "running")]
    losses = [f"{found[way]['loss']:.3f}" for way in ("anew", "running")]
    assert f"{' against '.join(accuracies)} of 5,000 validation images, a loss of {' against '.join(losses)}" in LOG


def test_statistics_renewed_at_the_end_of_a_run() -> None:
    runs = read("settling")["runs"]
    (row,) = (line for line in LOG.splitlines() if "settling.json" in line)
    ways = ("2048 whole images", "as training left them")
    for name, found in runs.items():
        accuracies = " against ".join(f"{100 * found[way]['accuracy']:.2f} %" for way in ways)
        losses = " against ".join(f"{found[way]['loss']:.3f}" for way in ways)
        assert f"{name}: {accuracies}, a loss of {losses}" in row
    for kind in ("2048 augmented images", "all whole images"):
        assert ", ".join(f"{100 * found[kind]['accuracy']:.2f} %" for found in runs.values()) in row
    renewed, left = (runs["240 updates"][way]["accuracy"] for way in ways)
    assert abs(renewed - left) < 0.005  # nothing material after many updates


def test_label_smoothing_for_a_residual_network() -> None:
    plain, smooth = ROOT / "results/fast-resnet56", ROOT / "results/chosen-by-test/resnet56-label-smoothing"
    assert json.loads((smooth / "recipe.json").read_text()) == {
        **json.loads((plain / "recipe.json").read_text()),
        "label_smoothing": 0.1,
    }
    right = json.loads((plain / "log.jsonl").read_text().splitlines()[-1])["train_accuracy"]
    without, test = (
        Evaluation.model_validate_json((folder / "evaluation.json").read_text()).splits["test"]
        for folder in (plain, smooth)
    )
    assert test.test_time_augmentation
    page, views = " ".join((ROOT / "docs/speed.md").read_text().split()), test.test_time_augmentation.figures.accuracy
    for where in (LOG, page):
        assert f"ends with {100 * right:.1f} % of its training images right" in where
    assert f"{100 * test.accuracy.value:.2f} % without and {100 * views.value:.2f} % with six views ([files]" in page
    assert f"{100 * test.accuracy.value:.2f} % against {100 * without.accuracy.value:.2f} % without" in LOG


@pytest.mark.parametrize(
    ("variant", "page"),
    [("learned stem", "whitening"), ("flip drawn anew", "flip"), ("lookahead", None)],
)
def test_a_part_changed_alone(variant: str, page: str | None) -> None:
    found = read("ablations")
    with_part, without = (100 * found[name]["validation_accuracy"] for name in ("as shipped", variant))
    assert (found["recipe"], found["epochs"], found["validation_images"]) == ("fast-conv", 4, 5000)
    assert f"| {without:.2f} % against {with_part:.2f} %" in LOG
    if page:
        words = " ".join((ROOT / f"docs/parts/{page}.md").read_text().split())
        assert f"reach {with_part:.2f} % of 5,000 validation images with" in words
        assert f" and {without:.2f} % with" in words


def test_what_whitened_patches_gain() -> None:
    found = read("ablations")
    gain = 100 * (found["as shipped"]["validation_accuracy"] - found["learned stem"]["validation_accuracy"])
    assert f"the patches gain {gain:.2f} points" in LOG
