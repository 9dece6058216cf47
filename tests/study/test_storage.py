"""Run folders on storage: what goes up, in which order, and what comes down."""

from collections.abc import Iterator
from pathlib import Path

import fsspec
import pytest

from reslab.errors import Failure, UserError
from reslab.recipe.recipe import Recipe
from reslab.runs import Run
from reslab.study.storage import Storage
from reslab.training import Safety, resume, train


@pytest.fixture(params=["memory", "file", "local"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    yield f"{request.param}://{tmp_path}/kept"
    if request.param == "memory":
        fsspec.filesystem("memory").rm("/", recursive=True)


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_run_comes_down_as_it_went_up(url: str, finished: Run, tmp_path: Path) -> None:
    assert not Storage(url).has("small")
    Storage(url).keep(finished.path)
    assert Storage(url).has("small")
    Storage(url).fetch("small", into=tmp_path / "down")
    assert contents(tmp_path / "down") == contents(finished.path)
    Storage(url).fetch("another", into=tmp_path / "nothing")
    assert not (tmp_path / "nothing").exists()


def test_only_what_has_changed_goes_up_and_the_oldest_first(
    finished: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    storage, put = Storage(f"file://{tmp_path}/kept"), []
    original = storage._put

    def note(name: str, content: bytes) -> None:
        put.append(name)
        original(name, content)

    monkeypatch.setattr(storage, "_put", note)
    storage.keep(finished.path)
    order = [put.index(f"small/{name}") for name in ("recipe.json", "model.safetensors", "evaluation.json")]
    assert order == sorted(order)
    assert put.index("small/checkpoint/previous.safetensors") < put.index("small/checkpoint/newest.safetensors")
    put.clear()
    (finished.path / ".recipe.json.7.part").touch()
    (finished.path / "log.jsonl").write_text("")
    storage.keep(finished.path)
    assert put == ["small/log.jsonl"]


def test_what_lies_there_at_any_moment_can_be_gone_on_with(
    small_recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The storage is cut off after every number of files in turn."""
    whole = train(small_recipe, out=tmp_path / "whole")
    put = Storage._put
    for moment in range(10):  # as many as go up while it is trained
        left = iter(range(moment))
        storage = Storage(f"file://{tmp_path}/kept-{moment}")

        def cut_off(self: Storage, name: str, content: bytes, left: Iterator[int] = left) -> None:
            if next(left, None) is None:
                raise OSError("no route to host")
            put(self, name, content)

        with monkeypatch.context() as patched:
            patched.setattr(Storage, "_put", cut_off)
            with pytest.raises(Failure, match="cannot be reached: no route to host"):
                train(small_recipe, out=tmp_path / f"at-{moment}/small", safety=Safety(saved=storage.keep))
        storage.fetch("small", into=tmp_path / f"down-{moment}")
        if storage.has("small"):
            run = resume(tmp_path / f"down-{moment}")
            assert run.weights_path.read_bytes() == whole.weights_path.read_bytes()


def test_a_wrong_url_gets_a_sentence() -> None:
    with pytest.raises(UserError, match=r"--storage tape://reel: reslab does not open tape: addresses"):
        Storage("tape://reel")


def test_what_comes_down_stays_in_its_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An object's name on a storage may hold "..", unlike a file's."""
    storage = Storage("memory://hostile")
    monkeypatch.setattr(storage.files, "exists", lambda path: True)
    monkeypatch.setattr(storage.files, "find", lambda path: ["/hostile/small/../../harmed"])
    monkeypatch.setattr(storage.files, "cat_file", lambda path: b"harm")
    with pytest.raises(Failure, match=r"which would be written outside of"):
        storage.fetch("small", into=tmp_path / "runs/small")
    assert not (tmp_path / "harmed").exists()
