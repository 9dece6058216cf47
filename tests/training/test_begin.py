"""A run goes on with what computed it before; what it has to compute otherwise is said and recorded."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from reslab.errors import UserError
from reslab.extension import extend, resume_extension
from reslab.integrations.scikit_learn import Classifier
from reslab.machine import Precision, kernels
from reslab.recipe.recipe import Recipe
from reslab.records import Segment, Setup
from reslab.runs import Run
from reslab.training import environment, resume, train
from reslab.training.loop import Trainer
from reslab.training.objective import Forward
from reslab.training.step import make_forward

PER_EPOCH = 6


@pytest.fixture
def threads(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Collects with how many threads each run is trained; a number only, since threads wait long on a busy machine."""
    seen, number, run_epochs = [], [1], Trainer.run_epochs

    def note(trainer: Trainer) -> None:
        seen.append(torch.get_num_threads())
        run_epochs(trainer)

    monkeypatch.setattr(Trainer, "run_epochs", note)
    monkeypatch.setattr(torch, "set_num_threads", lambda wanted: number.__setitem__(0, wanted))
    monkeypatch.setattr(torch, "get_num_threads", lambda: number[0])
    return seen


@pytest.fixture
def stopped(small_recipe: Recipe, tmp_path: Path) -> Run:
    """A run that was stopped after two of its three epochs."""
    return cut(train(small_recipe, out=tmp_path / "stopped", precision="float32"))


def cut(run: Run) -> Run:
    """Take away what the last epoch has left."""
    run.weights_path.unlink()
    (run.path / "checkpoint/newest.safetensors").unlink()
    return run


def change(run: Run, **fields: object) -> None:
    run.write_environment(run.environment.model_copy(update=fields))


def test_a_run_goes_on_with_the_threads_that_it_was_begun_with(
    small_recipe: Recipe, tmp_path: Path, threads: list[int], capsys: pytest.CaptureFixture[str]
) -> None:
    torch.set_num_threads(2)
    run = train(small_recipe, out=tmp_path / "run")
    whole, recorded = run.weights_path.read_bytes(), run.environment
    cut(run)
    torch.set_num_threads(1)
    resume(run.path, silent=False)
    assert threads == [2, 2]
    assert torch.get_num_threads() == 1
    assert run.weights_path.read_bytes() == whole
    assert run.environment == recorded
    assert "2 threads, as before; --threads 1 would be the default here" in capsys.readouterr().err


@pytest.mark.parametrize("saves", [False, True])
def test_a_late_refusal_leaves_the_record_as_it_was_unless_updates_were_saved_since(
    stopped: Run, monkeypatch: pytest.MonkeyPatch, saves: bool
) -> None:
    """The saved updates were computed by the present setup."""
    change(stopped, processor="another one")
    before, run_epochs = stopped.environment, Trainer.run_epochs

    def refuse(trainer: Trainer) -> None:
        if saves:
            run_epochs(trainer)
        raise UserError("too late")

    monkeypatch.setattr(Trainer, "run_epochs", refuse)
    with pytest.raises(UserError, match="too late"):
        resume(stopped.path)
    assert (stopped.environment == before) == (not saves)
    assert [segment.updates for segment in stopped.environment.segments] == [2 * PER_EPOCH] * saves


def test_other_threads_are_taken_where_they_are_asked_for_and_kept(
    stopped: Run, threads: list[int], capsys: pytest.CaptureFixture[str]
) -> None:
    begun = stopped.environment
    resume(stopped.path, threads=2, silent=False)
    (segment,) = stopped.environment.segments
    assert (segment.updates, segment.threads) == (2 * PER_EPOCH, 2)
    assert stopped.environment.model_copy(update={"segments": ()}) == begun
    said = capsys.readouterr().err
    assert "From update 13 on the setup differs" in said
    assert "threads 1, now 2 (environment.json records it)" in said
    cut(stopped)
    resume(stopped.path)
    assert threads == [2, 1]  # from the same checkpoint, so that the segment was lost
    assert stopped.environment == begun


@pytest.mark.parametrize(
    ("name", "value", "told"),
    [
        ("processor", "another", "processor another, now "),
        ("torch", "1.0", "torch 1.0, now "),
        ("ranks", 3, "ranks 3, now 1"),
        ("commit", "c0ffee", ""),
    ],
)
def test_what_differs_is_said_and_recorded(
    stopped: Run, capsys: pytest.CaptureFixture[str], name: str, value: object, told: str
) -> None:
    change(stopped, **{name: value})
    now = environment.describe_environment(device=torch.device("cpu"), seed=0, data=())
    resume(stopped.path, silent=False)
    recorded, (segment,) = stopped.environment, stopped.environment.segments
    assert getattr(recorded, name) == value
    assert getattr(segment, name) == getattr(now, name)
    assert segment.precision == recorded.precision
    said = capsys.readouterr().err
    assert (told in said) if told else ("otherwise" not in said)


def test_a_run_whose_kernels_are_switched_is_told_so(
    small_recipe: Recipe, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kernels, "_load", lambda: None)
    stopped = cut(train(small_recipe, out=tmp_path / "stopped", precision="float32"))
    assert stopped.environment.kernels == "off"
    change(stopped, kernels="on")
    resume(stopped.path, silent=False)
    (segment,) = stopped.environment.segments
    assert segment.kernels == "off"
    assert "kernels on, now off" in capsys.readouterr().err


def test_kernels_that_an_older_version_did_not_record_are_no_difference(
    stopped: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    content = json.loads((stopped.path / "environment.json").read_text())
    assert content.pop("kernels") in ("on", "off")
    (stopped.path / "environment.json").write_text(json.dumps(content))
    resume(stopped.path, silent=False)
    assert stopped.environment.kernels is None
    assert stopped.environment.segments == ()
    assert "kernels" not in capsys.readouterr().err


@pytest.mark.parametrize(
    ("before", "units", "taken"),
    [
        ({"processor": "one with AMX"}, (), "float32"),
        ({"processor": "one with AMX"}, ("amx_bf16",), "bfloat16"),
        ({"device": "a GPU"}, (), "float32"),
        ({}, (), "bfloat16"),  # it was asked for
    ],
)
def test_another_processor_or_device_without_units_for_bfloat16_goes_on_in_float32(
    small_recipe: Recipe,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    before: dict[str, str],
    units: tuple[str, ...],
    taken: str,
) -> None:
    run = cut(train(small_recipe, out=tmp_path / "run", precision="bfloat16"))
    change(run, **before)
    monkeypatch.setattr("reslab.machine.precision.read_features", lambda: set(units))
    multiplied = []

    def note(*args: Any, precision: Precision, **options: Any) -> Forward:
        multiplied.append(precision)
        return make_forward(*args, precision=precision, **options)

    monkeypatch.setattr("reslab.training.loop.make_forward", note)
    resume(run.path, silent=False)
    assert set(multiplied) == {taken}
    assert run.environment.newest.precision == taken
    assert ("precision bfloat16, now float32" in capsys.readouterr().err) == (taken == "float32")


def test_a_run_returns_to_its_precision_where_there_are_units_again(
    small_recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = cut(train(small_recipe, out=tmp_path / "run", precision="bfloat16"))
    change(run, processor="one with AMX")
    setup = run.environment.newest.model_dump() | {"processor": "one without", "precision": "float32"}
    kept = {name: setup[name] for name in Setup.model_fields}
    change(run, segments=(Segment(**kept, updates=1, started="2026-01-01T00:00:00+00:00"),))
    monkeypatch.setattr("reslab.machine.precision.read_features", lambda: {"avx512_bf16"})
    resume(run.path)
    assert [segment.precision for segment in run.environment.segments] == ["float32", "bfloat16"]


def test_where_nothing_was_saved_the_run_is_computed_from_its_start_by_what_is_here(
    stopped: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    (stopped.path / "checkpoint/previous.safetensors").unlink()
    change(stopped, processor="another", torch="1.0")
    resume(stopped.path, silent=False)
    assert "the setup differs" not in capsys.readouterr().err
    assert stopped.environment.segments == ()
    assert stopped.environment.torch == torch.__version__
    assert stopped.environment.processor != "another"


def test_a_run_of_an_older_reslab_goes_on_to_the_same_bytes(stopped: Run, small_recipe: Recipe, tmp_path: Path) -> None:
    path = stopped.path / "environment.json"
    content = json.loads(path.read_text())
    for name in ("segments", "precision", "compiled", "deterministic", "ranks"):
        del content[name]
    path.write_text(json.dumps(content))
    resume(stopped.path)
    whole = train(small_recipe, out=tmp_path / "whole", precision="float32", compile="off")
    assert stopped.weights_path.read_bytes() == whole.weights_path.read_bytes()
    assert stopped.environment.segments == ()


def test_a_compiled_run_goes_on_only_where_something_compiles(stopped: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    change(stopped, compiled="yes")
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(UserError, match=r"started compiled, which needs a C\+\+ compiler: install g\+\+"):
        resume(stopped.path)


# ---- every way to begin


def test_an_extension_computes_as_asked_records_it_and_goes_on_with_it(
    small_recipe: Recipe, tmp_path: Path, threads: list[int]
) -> None:
    base = train(small_recipe, out=tmp_path / "base")
    options = {"precision": "bfloat16", "deterministic": True}
    torch.set_num_threads(2)
    made = extend(base.path, data="digits:0@20", out=tmp_path / "more", **options)  # type: ignore[arg-type]
    assert (made.environment.precision, made.environment.compiled) == ("bfloat16", "no")
    assert made.environment.deterministic
    whole = made.weights_path.read_bytes()
    cut(made)
    torch.set_num_threads(1)
    with pytest.raises(UserError, match="--deterministic and threads 2, which is 1 here"):
        resume_extension(made.path, threads=1)
    assert resume_extension(made.path).weights_path.read_bytes() == whole
    assert threads == [1, 2, 2]
    assert made.environment.segments == ()


def test_a_head_alone_is_trained_and_recorded_in_float32(small_recipe: Recipe, tmp_path: Path) -> None:
    base = train(small_recipe, out=tmp_path / "base")
    options = {"data": "digits:0@20", "out": tmp_path / "more", "method": "nearest-mean"}
    with pytest.raises(UserError, match="nearest-mean trains a head alone, in float32 and uncompiled: omit"):
        extend(base.path, precision="bfloat16", **options)  # type: ignore[arg-type]
    made = extend(base.path, **options)  # type: ignore[arg-type]
    assert (made.environment.precision, made.environment.compiled) == ("float32", "no")
    made.weights_path.unlink()
    change(made, processor="another")
    resume_extension(made.path)
    assert made.environment.segments == ()  # it has no checkpoints: all of it is from here
    assert made.environment.processor != "another"


def test_the_classifier_locks_its_folder_and_records_all_that_a_run_records(
    small_recipe: Recipe, tmp_path: Path
) -> None:
    images, labels = torch.randint(0, 256, (20, 8, 8), dtype=torch.uint8).numpy(), [0, 1] * 10
    (tmp_path / "run").mkdir()
    with Run(tmp_path / "run").locked(), pytest.raises(UserError, match="another process works on"):
        Classifier(small_recipe, epochs=1, out=tmp_path / "run").fit(images, labels)
    Classifier(small_recipe, epochs=1, out=tmp_path / "run").fit(images, labels)
    recorded = Run(tmp_path / "run").environment
    assert recorded.compiled != "undecided"
    assert all(getattr(recorded, name) is not None for name in Setup.model_fields if name != "commit")


def test_to_repeat_to_the_bit_and_to_compile_exclude_each_other(small_recipe: Recipe, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="excludes --compile on"):
        train(small_recipe, out=tmp_path / "run", deterministic=True, compile="on")
    assert not (tmp_path / "run").exists()
