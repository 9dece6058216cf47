import os
import shutil
import time
from functools import partial

import pytest
from fastapi import testclient

from reslab.errors import UserError
from reslab.records import Progress
from reslab.runs import Run
from reslab.serving.app import Access
from reslab.serving.dashboard import dashboard_app, find_runs

TestClient = partial(testclient.TestClient, base_url="http://localhost")  # a name that a server answers to


@pytest.fixture
def folder(finished: Run, tmp_path):
    """Three runs: an evaluated one, one in progress two levels below, one whose log is damaged."""
    for name in ("deep/er/going", "broken"):
        shutil.copytree(finished.path, tmp_path / "runs" / name)
    shutil.move(finished.path, tmp_path / "runs/small")
    going, broken = Run(tmp_path / "runs/deep/er/going"), Run(tmp_path / "runs/broken")
    for file in ("model.safetensors", "evaluation.json"):
        (going.path / file).unlink()
    going.cut_log(2)
    (broken.path / "log.jsonl").write_text("nonsense\n")
    return tmp_path / "runs"


@pytest.fixture
def client(folder):
    """A process trains the one in progress, that is, it holds its lock."""
    with Run(folder / "deep/er/going").locked(), TestClient(dashboard_app(folder, access=Access())) as client:
        yield client


def test_runs_are_listed_with_how_far_they_are(client, folder):
    runs = {run["name"]: run for run in client.get("/v1/runs").json()["runs"]}
    assert {name: run["state"] for name, run in runs.items()} == {
        "small": "evaluated",
        "deep/er/going": "running",
        "broken": "damaged",
    }
    small, going = runs["small"], runs["deep/er/going"]
    assert (small["epochs"], small["num_epochs"], small["seconds_left"]) == (3, 3, None)
    assert small["test"]["value"] == Run(folder / "small").evaluation.splits["test"].accuracy.value
    log = Run(folder / "deep/er/going").log
    assert going["validation_accuracy"] == log[-1].validation_accuracy
    assert going["seconds_left"] == pytest.approx(sum(epoch.seconds for epoch in log) / 2)
    assert "log.jsonl" in runs["broken"]["problem"]


def test_a_folder_of_no_text_hides_no_other_run(client, folder):
    shutil.copytree(folder / "small", os.fsdecode(os.fsencode(folder) + b"/a\xff"))
    assert {run["name"] for run in client.get("/v1/runs").json()["runs"]} > {"small", "a\\udcff"}
    assert client.get("/v1/log", params={"run": "a\\udcff"}).status_code == 200


def test_a_run_that_goes_on_is_read_anew(client, folder):
    name = "deep/er/going"
    going, rest = Run(folder / name), Run(folder / "small").log[2]
    assert len(client.get("/v1/log", params={"run": name}).json()) == 2
    client.get("/v1/runs")
    going.append_log(rest)
    os.utime(going.path / "log.jsonl", (time.time() + 1, time.time() + 1))
    (added,) = client.get("/v1/log", params={"run": name, "after": 2}).json()
    assert added == rest.model_dump()
    assert find(client, name)["epochs"] == 3


def test_the_epoch_under_way_is_shown_where_it_is_the_next_one(client, folder):
    name = "deep/er/going"
    assert find(client, name)["progress"] is None
    so_far = Progress(epoch=3, share=0.25, train_loss=1.5, train_accuracy=0.5)
    Run(folder / name).beat(so_far)
    assert find(client, name)["progress"] == so_far.model_dump()
    Run(folder / name).beat(so_far.model_copy(update={"epoch": 9}))  # of a process that was killed
    assert find(client, name)["progress"] is None
    (folder / name / ".lock").write_text('{"epoch": 3,')
    assert find(client, name)["progress"] is None
    assert find(client, "small")["progress"] is None


def test_the_fields_in_which_recipes_differ_are_listed(client, folder):
    going = Run(folder / "deep/er/going")
    recipe = going.recipe
    changed = {"optimizer": recipe.optimizer.model_copy(update={"peak_lr": 0.5}), "class_weights": "balanced"}
    going.write_recipe(recipe.model_copy(update=changed | {"name": "other"}))
    answer = client.get("/v1/differences", params={"run": ["small", "deep/er/going"]}).json()
    assert answer == {"optimizer.peak_lr": ["0.1", "0.5"], "class_weights": ["–", "balanced"]}
    assert client.get("/v1/differences", params={"run": ["small", "small"]}).json() == {}
    assert client.get("/v1/differences", params={"run": "small"}).status_code == 422
    assert client.get("/v1/differences", params={"run": ["small", "../small"]}).status_code == 404


def test_a_run_is_going_on_while_its_lock_is_held_however_long_it_is_silent(folder, monkeypatch):
    name = "deep/er/going"
    going = Run(folder / name)
    with TestClient(dashboard_app(folder, access=Access())) as client:
        with going.locked():
            os.utime(going.path / "log.jsonl", (time.time() - 9999, time.time() - 9999))
            assert find(client, name)["state"] == "running"
        os.utime(going.path / "log.jsonl")
        assert find(client, name)["state"] == "stopped"
        (going.path / ".lock").touch()  # of a process that was killed
        assert find(client, name)["state"] == "stopped"
        monkeypatch.setattr("reslab.runs.lock.fcntl", None)  # where there are no locks, its silence tells
        assert find(client, name)["state"] == "running"
        os.utime(going.path / "log.jsonl", (time.time() - 9999, time.time() - 9999))
        assert find(client, name)["state"] == "stopped"


def find(client, name):
    return next(run for run in client.get("/v1/runs").json()["runs"] if run["name"] == name)


def test_evaluated_runs_are_compared(client, folder):
    shutil.copytree(folder / "small", folder / "twin")
    found = client.get("/v1/compare", params={"run": ["small", "twin"]}).json()
    assert [row["name"] for row in found["rows"]] == ["small", "twin"]
    assert found["pairs"][0]["mcnemar"]["p_value"] == 1.0
    refused = client.get("/v1/compare", params={"run": ["small", "deep/er/going"]})
    assert refused.status_code == 422
    assert client.get("/v1/compare", params={"run": ["small"]}).status_code == 422


@pytest.mark.parametrize("name", ["../runs/small", "deep/er/../../small", "/etc", "", "nothing"])
def test_no_path_of_a_clients_making_is_opened(client, name):
    assert client.get("/v1/log", params={"run": name}).status_code == 404


def test_linked_runs_are_listed_and_a_loop_of_links_ends(folder, tmp_path):
    elsewhere = tmp_path / "elsewhere"
    shutil.copytree(next(path.parent for path in folder.rglob("recipe.json")), elsewhere / "away")
    (folder / "linked").symlink_to(elsewhere)
    (elsewhere / "back").symlink_to(folder)
    (folder / "again").symlink_to(folder / "linked" / "away")
    (folder / "itself").symlink_to(folder / "itself")
    assert len(find_runs(folder)) == len(list(folder.rglob("recipe.json"))) + 1
    assert "again" in find_runs(folder)  # the same as linked/away


def test_a_run_folder_itself_is_a_list_of_one(folder):
    with TestClient(dashboard_app(folder / "small", access=Access())) as client:
        assert [run["name"] for run in client.get("/v1/runs").json()["runs"]] == ["small"]
        assert len(client.get("/v1/log", params={"run": "small"}).json()) == 3
        assert "<h1>Runs</h1>" in client.get("/").text


def test_a_folder_that_is_none_is_refused(tmp_path):
    with pytest.raises(UserError, match="is not a folder"):
        dashboard_app(tmp_path / "none", access=Access())


def test_a_report_is_shown_where_there_is_one_and_may_ask_for_nothing(client, folder):
    (folder / "small/report.html").unlink(missing_ok=True)
    assert not find(client, "small")["has_report"]
    assert client.get("/v1/report", params={"run": "small"}).status_code == 404
    (folder / "small/report.html").write_text("<h1>A report</h1>")
    assert find(client, "small")["has_report"]
    shown = client.get("/v1/report", params={"run": "small"})
    assert shown.text == "<h1>A report</h1>"
    assert shown.headers["content-security-policy"] == "sandbox allow-scripts"
    assert client.get("/v1/report", params={"run": "../small"}).status_code == 404


def test_openapi_says_what_each_request_is_answered_with(client):
    """The page of the API lists it; one answer without a content once left the whole page empty."""
    paths = client.get("/openapi.json").json()["paths"]
    content = {path: list(methods["get"]["responses"]["200"]["content"]) for path, methods in paths.items()}
    assert content.pop("/v1/report") == ["text/html"]
    assert {path for path, kinds in content.items() if kinds == ["application/json"]} == {
        f"/v1/{name}" for name in ("runs", "log", "compare", "differences")
    }
    assert {path for path, kinds in content.items() if kinds == ["text/plain"]} == {"/healthz", "/metrics"}
