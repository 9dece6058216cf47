"""A run to a hub on this machine and back; what comes from there is checked before a file of it is kept."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from reslab.errors import Failure, UserError
from reslab.evaluation import evaluate
from reslab.evaluation.classify import classify
from reslab.integrations import hub as hub_module
from reslab.integrations.hub import pull, push
from reslab.recipe.recipe import Recipe, derive
from reslab.runs import Run
from reslab.training import train

Hub = dict[str, dict[str, bytes]]
RUN = {"model.safetensors", "recipe.json", "environment.json", "log.jsonl", "evaluation.json"}


def test_a_run_comes_back_as_it_was(finished: Run, hub: Hub, tmp_path: Path, opened: list[str]) -> None:
    assert push(finished, to="some-one/small").endswith("/some-one/small")
    assert set(hub["some-one/small"]) == RUN | {"README.md"}
    hub["some-one/small"]["evil.bin"] = b"cos\nsystem\n"
    run = pull("some-one/small", out=tmp_path / "pulled")
    assert {path.name for path in run.path.iterdir()} == RUN
    assert not [path for path in opened if "evil.bin" in path]
    for name in RUN:
        assert (run.path / name).read_bytes() == (finished.path / name).read_bytes()
    assert evaluate(run).splits["test"].accuracy == finished.evaluation.splits["test"].accuracy


def test_a_run_that_started_from_other_weights_comes_back_with_them(
    finished: Run, small_recipe: Recipe, hub: Hub, tmp_path: Path
) -> None:
    started = train(derive(small_recipe, name="started", epochs=1), out=tmp_path / "started", start=finished.path)
    evaluate(started)
    push(started, to="a/b")
    pulled = pull("a/b", out=tmp_path / "pulled")
    assert pulled.base_path.read_bytes() == started.base_path.read_bytes()
    hub["a/b"]["base.safetensors"] = finished.weights_path.read_bytes()
    with pytest.raises(UserError, match=r"a valid run: base\.safetensors does not hold the weights of small"):
        pull("a/b", out=tmp_path / "no")
    assert not (tmp_path / "no").exists()


def test_the_network_that_comes_along_is_pulled_without_a_hub_and_answers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # where nothing is called demo
    run = pull("demo", out="pulled")
    assert run.evaluation.splits["test"].accuracy.value > 0.92
    pictures = sorted((run.path / "pictures").iterdir())
    answers = classify(pictures, weights=run.path)
    assert sum(answer.classes[0] == path.stem for answer, path in zip(answers, pictures, strict=True)) == 8
    assert [path.stem for answer, path in zip(answers, pictures, strict=True) if not answer.answered] == ["frog"]
    assert classify(pictures, weights=Path("demo")) == answers  # by its name


def test_the_card_says_what_it_is(finished: Run, hub: Hub) -> None:
    push(finished, to="a/b")
    card = hub["a/b"]["README.md"].decode()
    accuracy = finished.evaluation.splits["test"].accuracy.value
    assert card.startswith("---\nlibrary_name: reslab\n")
    assert f"| Test split, 108 images | {100 * accuracy:.2f} %" in card.replace("\u00a0", " ")
    assert "- Classes, in the order of the logits: 1, 4, 7" in card
    assert all(f"`{name}`: " in card for name in RUN)


def test_an_interrupted_pull_leaves_nothing_in_the_way(
    finished: Run, hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub["a/b"] = {each: (finished.path / each).read_bytes() for each in RUN}

    def stopping(path: Path, content: bytes) -> None:
        if path.name == "log.jsonl":
            raise KeyboardInterrupt
        path.write_bytes(content)

    with monkeypatch.context() as interrupted:
        interrupted.setattr("reslab.integrations.hub.write_bytes", stopping)
        with pytest.raises(KeyboardInterrupt):
            pull("a/b", out=tmp_path / "pulled")
    assert list((tmp_path / "pulled").iterdir()) == []
    assert pull("a/b", out=tmp_path / "pulled").is_finished


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("recipe.json", lambda _: b'{"name": 3}', r"a/b does not hold a valid run: recipe.json: "),
        (
            "model.safetensors",
            lambda content: content[:99],
            "a/b does not hold a valid run: model.safetensors cannot be read",
        ),
        ("log.jsonl", lambda content: content + b"{}\n", "a/b does not hold a valid run: log.jsonl:4 is damaged"),
        ("evaluation.json", lambda _: b"[]", "a/b does not hold a valid run: evaluation.json is damaged"),
        ("environment.json", lambda _: b"{}", "a/b does not hold a valid run: environment.json is damaged"),
        ("model.safetensors", None, "a/b does not hold a valid run: model.safetensors is missing"),
        ("recipe.json", None, "a/b does not hold a valid run: recipe.json is missing"),
    ],
)
def test_a_damaged_run_is_not_kept(
    finished: Run, hub: Hub, tmp_path: Path, name: str, change: Callable[[bytes], bytes] | None, message: str
) -> None:
    hub["a/b"] = {each: (finished.path / each).read_bytes() for each in RUN}
    if change is None:
        del hub["a/b"][name]
    else:
        hub["a/b"][name] = change(hub["a/b"][name])
    with pytest.raises(UserError, match=message):
        pull("a/b", out=tmp_path / "pulled")
    assert not (tmp_path / "pulled").exists()


def test_what_cannot_be_kept_is_not_downloaded(
    finished: Run, hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Closed(dict[str, bytes]):
        """Files whose sizes may be asked for, but not their contents."""

        def __getitem__(self, name: str) -> bytes:
            raise AssertionError(f"{name} was downloaded")

    files = {each: (finished.path / each).read_bytes() for each in RUN}
    hub["a/b"] = Closed(files | {"other.bin": bytes(99)})
    with pytest.raises(UserError, match="small exists and is not empty: choose another --out, or remove the folder"):
        pull("a/b", out=finished.path)
    size = sum(map(len, files.values()))
    monkeypatch.setattr(hub_module, "LARGEST", size - 1)
    with pytest.raises(UserError, match=f"the run a/b has {size:,} bytes, but at most {size - 1:,} are downloaded"):
        pull("a/b", out=tmp_path / "pulled")
    assert not (tmp_path / "pulled").exists()
    hub["a/b"] = files
    monkeypatch.setattr(hub_module, "LARGEST", size)
    assert pull("a/b", out=tmp_path / "pulled").is_finished


def test_what_is_not_there_and_what_is_no_name(finished: Run, hub: Hub, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="a/none is not on the hub, or not accessible"):
        pull("a/none", out=tmp_path / "pulled")
    for name in ("small", "a/b/c", "a/../b", "a b/c"):
        with pytest.raises(UserError, match="write OWNER/NAME"):
            push(finished, to=name)
    with pytest.raises(UserError, match="is not a name for a model"):
        push(finished, to="a/b--c")
    finished.weights_path.unlink()
    with pytest.raises(UserError, match="holds no finished network"):
        push(finished, to="a/b")
    assert hub == {}


def test_a_hub_that_does_not_answer_is_a_failure(
    finished: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with pytest.raises(Failure, match="the request to the hub for a/b failed: "):
        push(finished, to="a/b", endpoint="http://127.0.0.1:9")


def test_without_the_package_the_extra_is_named(finished: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "huggingface_hub", None)
    with pytest.raises(UserError, match=r"huggingface_hub is not installed: pip install 'reslab\[hub\]'"):
        push(finished, to="a/b")


def test_the_commands(finished: Run, hub: Hub, tmp_path: Path, monkeypatch: Any, capsys: Any) -> None:
    from reslab.cli import main

    def run(*arguments: object) -> str:
        monkeypatch.setattr("sys.argv", ["reslab", *map(str, arguments)])
        with pytest.raises(SystemExit) as end:
            main()
        assert end.value.code == 0
        return str(capsys.readouterr().out)

    assert "a/b" in run("push", finished.path, "a/b", "--private")
    assert json.loads(run("pull", "a/b", "--out", tmp_path / "pulled", "--json")) == {"run": str(tmp_path / "pulled")}
