"""A run made to choose between settings is measured on its validation images, and nothing opens its test split."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from reslab.data.load import load
from reslab.recipe.recipe import Recipe, derive
from reslab.runs import Run

TRIAL = ("train", "small.json", "--trial", "--set", "validation=40", "--set", "epochs=1")


@pytest.fixture
def no_test_split(reslab: Callable[..., Any], small_recipe: Recipe, monkeypatch: pytest.MonkeyPatch) -> None:
    """A recipe file in an empty folder; reading any test split fails the test."""
    Path("small.json").write_text(derive(small_recipe, name="small", data="digits").model_dump_json())

    def guarded(expression: str, split: str, **options: Any) -> Any:
        assert split != "test", "a trial's test split was opened"
        return load(expression, split, **options)  # type: ignore[arg-type]

    monkeypatch.setattr("reslab.data.recipe_data.load", guarded)


@pytest.mark.usefixtures("no_test_split")
def test_a_trial_is_measured_on_validation_images_alone(reslab: Callable[..., Any], refuse: Callable[..., str]) -> None:
    for seed in (0, 1):
        assert reslab(*TRIAL, "--seed", seed, "--out", f"t{seed}").code == 0
        assert reslab("evaluate", f"t{seed}").code == 0
        assert list(Run(f"t{seed}").evaluation.splits) == ["train", "validation"]
    for asked in ("test", "train,validation,test"):
        assert "is a trial" in refuse("evaluate", "t0", "--splits", asked, untouched=asked == "test")
    assert list(Run("t0").evaluation.splits) == ["train", "validation"]
    assert "reslab compare" in refuse("report", "t0")
    assert reslab("train", "--resume", "t0").out.splitlines()[-1] == "Already finished; next: reslab compare RUN RUN …"
    compared = reslab("compare", "t0", "t1", "--out", "compared")
    assert compared.code == 0
    assert "Validation split" in compared.out
    assert Run("t0").environment.data[-1].split == "validation"


def test_only_a_trial_is_to_be_compared_without_test_metrics(reslab: Callable[..., Any], finished: Run) -> None:
    finished.remove_evaluation()
    said = reslab("evaluate", finished.path, "--splits", "train").out.splitlines()[-1]
    assert said == f"Next: reslab evaluate {finished.path}"
    resumed = reslab("train", "--resume", finished.path).out.splitlines()[-1]
    assert resumed == f"Already finished; next: reslab evaluate {finished.path}"


@pytest.mark.usefixtures("no_test_split")
def test_what_is_made_of_a_trial_is_a_trial(reslab: Callable[..., Any], refuse: Callable[..., str]) -> None:
    assert reslab(*TRIAL, "--set", "data=digits:0-6", "--out", "base").code == 0
    teach = ("extend", "base", "--with", "digits:7-9@20", "--method", "nearest-mean", "--out", "more")
    assert "holds none out" in refuse(
        *teach[:-4], "--method", "finetune-distill", "--old-data", "none", "--out", "more"
    )
    assert reslab(*teach).code == 0
    assert Run("more").recipe.trial
    assert reslab("evaluate", "more").code == 0
    assert list(Run("more").evaluation.splits) == ["train", "validation"]


@pytest.mark.usefixtures("no_test_split")
def test_a_trial_without_validation_images_is_refused_before_it_trains(refuse: Callable[..., str]) -> None:
    said = refuse("train", "small.json", "--trial", "--set", "validation=0", "--out", "t")
    assert "set validation" in said


def test_trials_are_compared_with_trials(
    reslab: Callable[..., Any], refuse: Callable[..., str], small_recipe: Recipe
) -> None:
    Path("small.json").write_text(derive(small_recipe, name="small", data="digits").model_dump_json())
    plain = [word for word in TRIAL if word != "--trial"]
    for arguments, out in ((TRIAL, "t"), (plain, "u")):
        assert reslab(*arguments, "--out", out).code == 0
        assert reslab("evaluate", out).code == 0
    assert list(Run("u").evaluation.splits) == ["train", "test"]
    assert "compare trials with trials" in refuse("compare", "t", "u")
