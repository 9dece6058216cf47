"""`reslab study`: lists, runs, reports, and its sentences for what cannot be."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from reslab.recipe.recipe import Recipe
from reslab.runs import Run
from reslab.study import STUDIES, Study
from reslab.study.plan import Job, Machine, StudyOutcome

Command = Callable[..., Any]


@pytest.fixture
def untrained(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Let every run be done at once and cost 10 seconds; gives their names."""
    done: list[str] = []

    def do(job: Job, machine: Machine) -> None:
        done.append(job.out.name)

    monkeypatch.setattr("reslab.study.execute.do", do)
    monkeypatch.setattr("reslab.study.execute._write_gradients", lambda *arguments, **options: None)
    monkeypatch.setattr("reslab.study.execute.estimate", lambda jobs, **options: [10.0 for _ in jobs])
    return done


def test_the_studies_are_listed(reslab: Command) -> None:
    lines = reslab("study", "list").out.splitlines()
    for name, study in STUDIES.items():
        assert any(line.split()[:2] == [name, str(len(study.rows))] for line in lines)
    listed = json.loads(reslab("study", "list", "--json").out)
    assert {name: Study.model_validate(study) for name, study in listed.items()} == STUDIES


def test_a_study_can_be_printed_changed_and_run(reslab: Command, untrained: list[str]) -> None:
    content = json.loads(reslab("study", "list", "digits").out)
    content["name"], content["rows"] = "mine", content["rows"][:1]
    content |= {"contrasts": [], "gradients": []}
    Path("mine.json").write_text(json.dumps(content))
    outcome = reslab("study", "run", "mine.json", "--seeds", "2")
    assert (outcome.code, untrained) == (0, ["relu-0", "relu-1"])
    assert outcome.out == "Runs done: 2; next: reslab study report mine.json --runs runs/mine\n"
    assert "mine: none of 2 runs done" in outcome.err


@pytest.mark.parametrize(
    ("options", "threads"),
    [
        (("--ray", "auto"), 1),
        (("--ray", "auto", "--threads", "3"), 3),
        (("--workers", "2", "--threads", "3"), 3),
        ((), None),
    ],
)
def test_the_cost_is_measured_with_as_many_threads_as_a_run_has(
    reslab: Command,
    untrained: list[str],
    monkeypatch: pytest.MonkeyPatch,
    options: tuple[str, ...],
    threads: int | None,
) -> None:
    used: list[int | None] = []
    monkeypatch.setattr("reslab.cli.studying.use_threads", used.append)
    for name in ("do_by_workers", "do_on_cluster"):
        monkeypatch.setattr(f"reslab.study.execute.{name}", lambda *arguments, **options: StudyOutcome((), ()))
    reslab("study", "run", "digits", "--budget", "0s", *options)
    assert used == [threads]


def test_rows_seeds_and_budget(reslab: Command, untrained: list[str]) -> None:
    outcome = reslab("study", "run", "digits", "--rows", "elu", "--seeds", 3, "--budget", "15s", "--out", "here")
    assert outcome.code == 0
    assert untrained == ["elu-0", "elu-1", "elu-2"]  # which took no time at all
    outcome = reslab("study", "run", "digits", "--seeds", 1, "--budget", "5s", "--out", "here")
    assert outcome.out == "Runs done: 0, 2 left out by --budget 5s\n"
    found = json.loads(reslab("study", "run", "digits", "--seeds", 1, "--out", "here", "--json").out)
    assert found == {"runs": ["here/relu-0", "here/elu-0"], "left": [], "elsewhere": []}


def test_a_report_prints_both_tables_and_gives_their_numbers_as_json(reslab: Command, small_recipe: Recipe) -> None:
    Path("small.json").write_text(small_recipe.model_dump_json())
    rows = [
        {"label": name, "job": {"kind": "training", "recipe": "small.json", "settings": ["epochs=1", *more]}}
        for name, more in (("all", []), ("two", ["data=digits:1,4@40"]), ("elu", ["model.activation=elu"]))
    ]
    contrasts = [{"first": "elu", "second": "all"}, {"first": "two", "second": "all"}]
    study = {"name": "mine", "title": "Mine", "rows": rows, "contrasts": contrasts, "gradients": []}
    Path("mine.json").write_text(json.dumps(study))
    assert reslab("study", "run", "mine.json", "--seeds", "1").code == 0
    out = reslab("study", "report", "mine.json").out
    assert "elu minus all" in out
    assert "not decided: one seed has no interval" in out
    assert "not compared: their classes differ" in out
    assert "digits:1,4@40 (" in out
    found = json.loads(reslab("study", "report", "mine.json", "--json").out)
    assert [row["data"] for row in found["rows"]] == ["digits:1,4,7@40", "digits:1,4@40", "digits:1,4,7@40"]
    values = [row["values"]["0"] for row in found["rows"]]
    assert [row["mean"] for row in found["rows"]] == values
    assert [each["difference"] for each in found["contrasts"]] == [pytest.approx(values[2] - values[0], abs=2e-6), None]
    assert found["contrasts"][1]["not_comparable"] == "their classes differ"
    for name in ("page", "markdown", "csv", "contrasts_csv"):
        assert Path(found[name]).is_file()


def test_runs_of_another_process_are_left_to_it(reslab: Command, untrained: list[str]) -> None:
    Path("runs/digits/relu-0").mkdir(parents=True)
    with Run("runs/digits/relu-0").locked():
        outcome = reslab("study", "run", "digits", "--seeds", 1)
    assert (outcome.code, untrained) == (0, ["elu-0"])
    assert outcome.out.startswith("Runs done: 1, 1 left to another process; next: reslab study report digits")
    assert "relu-0: another process is doing it, so it is left to that one" in outcome.err


def test_wrong_arguments_get_a_sentence(refuse: Command) -> None:
    assert "did you mean 'digits'?" in refuse("study", "run", "digit")
    assert "did you mean 'elu'?" in refuse("study", "run", "digits", "--rows", "relu,elo")
    assert "separate the rows by single commas" in refuse("study", "run", "digits", "--rows", "relu,")
    assert "--budget 2 weeks: write a number and s, m, h or d" in refuse(
        "study", "run", "digits", "--budget", "2 weeks"
    )
    assert "--epochs-scale 2: give a share" in refuse("study", "run", "digits", "--epochs-scale", "2")
    both = ("study", "run", "digits", "--workers", 2, "--ray", "auto")
    assert "--workers run on this machine, --ray on a cluster: omit one of them" in refuse(*both)
    assert "add --ray ADDRESS" in refuse("study", "run", "digits", "--workers", 2, "--gpus-per-run", "0.5")
    assert "holds no study: reslab study run begins one" in refuse("study", "report", "digits")
    assert "unknown device 'gpu'" in refuse("study", "run", "digits", "--device", "gpu")


def test_a_begun_study_without_a_run_has_no_report(reslab: Command, refuse: Command, untrained: list[str]) -> None:
    assert reslab("study", "run", "digits", "--seeds", 1, "--epochs-scale", "0.5").code == 0
    assert "runs/digits has no finished run yet" in refuse("study", "report", "digits")
    assert reslab("study", "run", "digits", "--seeds", 1).code == 0  # no run holds it to a length
