"""What a file names is not contacted: not what a run folder, a recipe or a study names, without --allow-remote."""

import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from reslab.recipe.recipe import derive
from reslab.runs import Run


class Listener(BaseHTTPRequestHandler):
    """Has nothing, and keeps what it was asked for."""

    asked: list[str]

    def do_GET(self) -> None:
        self.asked.append(self.path)
        self.send_error(404)

    do_HEAD = do_GET  # noqa: N815

    def log_message(self, *arguments: Any) -> None:
        """Stay silent."""


@pytest.fixture
def asked() -> Iterator[list[str]]:
    """Serve an address, which is the first of the list; what it is asked for follows."""
    asked: list[str] = []
    with ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (Listener,), {"asked": asked})) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        asked.append(f"http://127.0.0.1:{server.server_port}/packed")
        yield asked
        server.shutdown()


@pytest.fixture
def pulled(finished: Run, asked: list[str]) -> Run:
    """A run whose recipe names that address, as one from a hub could."""
    finished.write_recipe(derive(finished.recipe, name="small", data=f"shards:{asked[0]}"))
    return finished


@pytest.mark.parametrize(
    "command", ["evaluate small", "extend small --with digits:0 --out new", "export small --to new.onnx --int8"]
)
def test_a_run_from_elsewhere_contacts_nobody(
    refuse: Callable[..., str], reslab: Callable[..., Any], pulled: Run, asked: list[str], command: str
) -> None:
    said = refuse(*command.split())
    assert f"takes images from {asked[0]}, which was named by a file and not by you" in said
    assert "--allow-remote" in said
    assert len(asked) == 1
    assert "holds no reslab.json" in reslab(*command.split(), "--allow-remote").err
    assert len(asked) > 1


def test_an_exported_file_is_not_measured_there(
    refuse: Callable[..., str], reslab: Callable[..., Any], pulled: Run, asked: list[str]
) -> None:
    """Exporting itself compares on generated images instead."""
    assert "generated images" in reslab("export", "small", "--to", "small.onnx").out
    assert "--allow-remote" in refuse("evaluate", "small", "--onnx", "small.onnx")
    assert len(asked) == 1


@pytest.mark.parametrize(
    "command", ["report small", "compare small small", "predict small a.png", "track small --to tensorboard:logs"]
)
def test_commands_without_images_of_the_run_contact_nobody(
    reslab: Callable[..., Any], pulled: Run, asked: list[str], command: str
) -> None:
    reslab(*command.split())
    assert len(asked) == 1


def test_going_on_contacts_nobody(refuse: Callable[..., str], pulled: Run, asked: list[str]) -> None:
    pulled.weights_path.unlink()
    assert "--allow-remote" in refuse("train", "--resume", "small", untouched=False)
    assert len(asked) == 1


def test_a_recipe_is_a_file_and_a_setting_is_not(refuse: Callable[..., str], pulled: Run, asked: list[str]) -> None:
    assert "--allow-remote" in refuse("train", "small/recipe.json", "--out", "new")
    assert len(asked) == 1
    said = refuse("train", "digits-quick", "--set", f"data=shards:{asked[0]}", "--out", "new")
    assert "holds no reslab.json" in said
    assert len(asked) > 1


def test_new_classes_are_named_by_who_extends(refuse: Callable[..., str], finished: Run, asked: list[str]) -> None:
    said = refuse("extend", "small", "--with", f"shards:{asked[0]}", "--out", "new")
    assert "holds no reslab.json" in said
    assert len(asked) > 1


@pytest.mark.parametrize("label", ["trained", "taught"])
def test_a_study_is_a_file(refuse: Callable[..., str], asked: list[str], label: str) -> None:
    remote = f"shards:{asked[0]}"
    settings = [f"data={remote}"] if label == "trained" else []
    rows = [{"label": "trained", "job": {"kind": "training", "recipe": "digits-quick", "settings": settings}}]
    if label == "taught":
        rows += [{"label": label, "job": {"kind": "teaching", "base": "trained", "data": remote, "method": "frozen"}}]
    Path("mine.json").write_text(json.dumps({"name": "mine", "title": "Mine", "seeds": 1, "rows": rows}))
    assert f"the row {label} takes images from {asked[0]}" in refuse("study", "run", "mine.json", "--out", "new")
    assert len(asked) == 1


def test_serving_goes_without_its_own_images(
    reslab: Callable[..., Any], pulled: Run, asked: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The whole app starts and prepares itself, but no socket is opened."""
    from fastapi.testclient import TestClient

    def visit(app: Any, **options: Any) -> None:
        with TestClient(app, base_url="http://localhost") as client:
            while "being prepared" in (notes := client.get("/v1/model").text):
                pass
            assert "which was named by a file and not by you" in notes

    monkeypatch.setattr("reslab.serving.server.run", visit)
    outcome = reslab("serve", "small")
    assert outcome.code == 0
    assert f"small is served without its own images: its recipe takes images from {asked[0]}" in outcome.out
    assert len(asked) == 1
