import importlib
import json
import re
import shlex

import numpy as np
import pytest
import safetensors.numpy

from reslab.errors import Failure, Stopped, UserError
from reslab.recipe.shipped import RECIPES
from reslab.runs import Run, pack_weights, read_weights


def test_create_makes_a_folder_with_its_parents_and_takes_an_empty_one(tmp_path):
    assert Run.create(tmp_path / "a" / "b").path.is_dir()
    assert Run.create(str(tmp_path / "a" / "b")).name == "b"


def test_create_refuses_a_folder_that_holds_something_and_changes_nothing(tmp_path, sample):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(UserError, match="exists and is not empty: choose another folder, or resume it with --resume"):
        Run.create(tmp_path)
    with pytest.raises(UserError, match="exists and is not empty: choose another --out, or remove the folder"):
        Run.create(tmp_path, can_resume=False)
    assert sample.listing(tmp_path) == {"notes.txt": b"mine"}


def test_a_run_that_was_only_trained_can_be_completed(finished):
    with pytest.raises(UserError, match=r"or remove the folder$"):
        Run.create(finished.path, can_resume=False)
    (finished.path / "evaluation.json").unlink()
    with pytest.raises(UserError, match=r"folder; its run is trained, and reslab evaluate .* completes it"):
        Run.create(finished.path, can_resume=False)


def test_create_refuses_a_file_and_changes_nothing(tmp_path, sample):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(UserError, match=r"notes\.txt exists"):
        Run.create(tmp_path / "notes.txt")
    with pytest.raises(Failure, match=r"cannot be written: (Not a directory|File exists)"):
        Run.create(tmp_path / "notes.txt" / "run")
    assert sample.listing(tmp_path) == {"notes.txt": b"mine"}


def test_a_name_that_no_disk_takes_is_told_in_one_sentence(tmp_path):
    with pytest.raises(Failure, match="cannot be written: File name too long"):
        Run.create(tmp_path / ("x" * 300))
    with pytest.raises(UserError, match="is not a run folder"):
        Run.open(tmp_path / ("x" * 300))


def test_open_wants_a_recipe(tmp_path, run):
    assert Run.open(run.path).recipe == RECIPES["digits-quick"]
    for path in (tmp_path, run.path / "recipe.json"):
        with pytest.raises(UserError, match=r"is not a run folder: it holds no recipe\.json"):
            Run.open(path)
    with pytest.raises(UserError, match=r"is not a run folder: nothing is there \(reslab train makes one\)"):
        Run.open(tmp_path / "absent")


@pytest.mark.parametrize("path", ["", "x" * 5000, "a\0b", "digits:1,4,7+folder:pictures"])
def test_any_text_can_be_asked_whether_it_is_a_run(run, path):
    assert Run.is_at(run.path)
    assert not Run.is_at(path)


def test_looking_at_a_run_touches_nothing(tmp_path):
    absent = Run(tmp_path / "absent")
    assert (absent.is_finished, absent.is_evaluated, absent.has_checkpoint, absent.log) == (False, False, False, [])
    assert not absent.path.exists()


# ---- what is written is read


def test_records_are_read_as_they_were_written(run, sample):
    run.write_environment(sample.environment)
    run.write_evaluation(sample.evaluation)
    assert run.recipe == RECIPES["digits-quick"]
    assert run.environment == sample.environment
    assert run.evaluation == sample.evaluation
    assert "Käfer" in (run.path / "evaluation.json").read_text(encoding="utf-8")


def test_predictions_and_examples_are_read_as_they_were_written(run, sample):
    run.write_predictions("test", sample.predictions(0))
    run.write_predictions("test", sample.predictions(1), augmented=True)
    run.write_predictions("train", sample.predictions(2))
    run.write_examples("test", sample.examples())
    sample.assert_same(run.read_predictions("test")._asdict(), sample.predictions(0)._asdict())
    sample.assert_same(run.read_predictions("test", augmented=True)._asdict(), sample.predictions(1)._asdict())
    sample.assert_same(run.read_predictions("train")._asdict(), sample.predictions(2)._asdict())
    sample.assert_same(run.read_examples("test")._asdict(), sample.examples()._asdict())


def test_what_evaluation_leaves_is_asked_for_by_its_command_where_it_is_missing(run):
    with pytest.raises(UserError, match="holds no finished network: resume with reslab train --resume"):
        _ = run.evaluation
    with run.locked(), pytest.raises(UserError, match="is being trained by another process: wait until it"):
        _ = run.evaluation
    run.weights_path.touch()
    with pytest.raises(UserError, match=r"has not been evaluated: run reslab evaluate .*run$"):
        _ = run.evaluation
    with pytest.raises(UserError, match=r"predictions-test\.npz is missing: run reslab evaluate .*run$"):
        run.read_predictions("test")
    with pytest.raises(UserError, match=r"examples-train\.npz is missing"):
        run.read_examples("train")
    with pytest.raises(UserError, match=r"environment\.json cannot be read: No such file"):
        _ = run.environment


def test_a_path_in_a_command_can_be_copied_into_a_shell(tmp_path):
    run = Run.create(tmp_path / "my run $1")
    run.write_recipe(RECIPES["digits-quick"])
    assert shlex.split(run.resume_command) == ["reslab", "train", "--resume", str(run.path)]
    run.weights_path.touch()
    with pytest.raises(UserError) as told:
        _ = run.evaluation
    assert shlex.split(str(told.value).partition(": run ")[2]) == ["reslab", "evaluate", str(run.path)]


def test_weights_are_read_as_they_were_written_from_the_file_and_from_the_folder(run, sample):
    assert not run.is_finished
    run.write_weights(pack_weights(sample.tensors(), sample.weights))
    assert run.is_finished
    for path in (run.path, run.weights_path):
        tensors, weights = read_weights(path)
        assert weights == sample.weights
        sample.assert_same(tensors, sample.tensors())


def test_weights_that_are_not_there_are_told_apart(tmp_path, run):
    with pytest.raises(UserError, match="holds no finished network: resume with reslab train --resume"):
        read_weights(run.path)
    with pytest.raises(UserError, match="is not a run folder"):
        read_weights(tmp_path)
    with pytest.raises(UserError, match=r"absent\.safetensors does not exist"):
        read_weights(tmp_path / "absent.safetensors")
    near = rf"/{run.name}t does not exist: did you mean .*/{run.name}\?"
    for look in (read_weights, Run.open):
        with pytest.raises(UserError, match=near):
            look(run.path.with_name(f"{run.name}t"))


def test_a_file_that_is_no_network_is_called_so(tmp_path):
    (tmp_path / "page.html").write_text("<!doctype html>")
    with pytest.raises(UserError, match=r"page\.html holds no network: give a run folder"):
        read_weights(tmp_path / "page.html")


@pytest.mark.parametrize("metadata", [None, {"format": "pt"}])
def test_weights_of_another_program_are_refused(tmp_path, metadata):
    path = tmp_path / "foreign.safetensors"
    safetensors.numpy.save_file({"kernel": np.zeros(3, np.float32)}, path, metadata)
    with pytest.raises(UserError, match="does not say which network it holds: it was not written by reslab"):
        read_weights(path)


@pytest.mark.parametrize("dtype", ["BF16", "F8_E4M3", "Q9"])
def test_weights_of_a_type_that_numpy_lacks_are_refused(tmp_path, dtype):
    size = 1 if dtype.startswith("F8") else 2
    header = json.dumps({"kernel": {"dtype": dtype, "shape": [1], "data_offsets": [0, size]}}).encode()
    path = tmp_path / "foreign.safetensors"
    path.write_bytes(len(header).to_bytes(8, "little") + header + bytes(size))
    with pytest.raises(UserError, match="cannot be read as a safetensors file"):
        read_weights(path)
    importlib.import_module("ml_dtypes")  # as onnx does: NumPy then knows bfloat16
    with pytest.raises(UserError, match="cannot be read as a safetensors file"):
        read_weights(path)


@pytest.mark.parametrize("metadata", ["", "{", "[]", '{"model": 3}', '{"schema_version": 9}'])
def test_weights_whose_description_is_damaged_are_refused(tmp_path, metadata):
    path = tmp_path / "model.safetensors"
    safetensors.numpy.save_file({"kernel": np.zeros(3, np.float32)}, path, {"reslab": metadata})
    with pytest.raises(UserError, match=r"model\.safetensors (is damaged: |has schema 9, this reslab reads up to 2)"):
        read_weights(path)


@pytest.mark.parametrize(
    ("error", "checkpoint", "left"),
    [
        (Failure("x"), False, True),
        (UserError("x"), False, False),
        (KeyboardInterrupt(), False, False),
        (UserError("x"), True, True),
    ],
)
def test_what_ends_a_beginning_is_raised_and_leaves_nothing_unless_it_can_be_resumed(
    tmp_path, sample, error, checkpoint, left
):
    run = Run.create(tmp_path / "new")

    def begin():
        with run.beginning():
            run.write_recipe(RECIPES["digits-quick"])
            for name in ("prior.json", "candidates.json", "model.safetensors", "memory.safetensors"):
                (run.path / name).touch()
            if checkpoint:
                run.write_checkpoint(sample.tensors(), {"epochs": 1})
            raise error

    with pytest.raises(type(error)):
        begin()
    assert run.path.exists() == left


def test_ctrl_c_after_something_is_saved_tells_how_to_go_on(tmp_path, sample):
    """The same command would be refused, since the folder is not empty."""
    run = Run.create(tmp_path / "new")

    def begin():
        with run.beginning():
            run.write_recipe(RECIPES["digits-quick"])
            run.write_checkpoint(sample.tensors(), {"epochs": 1})
            raise KeyboardInterrupt

    with pytest.raises(Stopped, match=re.escape(f"stopped: resume with reslab train --resume {run.path}")):
        begin()


def test_weights_that_are_not_finite_are_not_written(finished):
    tensors, weights = read_weights(finished.path)
    with pytest.raises(Failure, match=r"head\.bias is not finite, so no weights are written"):
        pack_weights(tensors | {"head.bias": np.full_like(tensors["head.bias"], np.inf)}, weights)


def test_reports_of_other_weights_are_removed_with_their_evaluation(finished):
    mine = finished.path / "report-of-mine.html"
    for name in ("report.html", "report.ru.md", "model-card.md", "report.pdf", mine.name):
        (finished.path / name).write_text("x")
    finished.remove_evaluation()
    assert mine.exists()
    left = {path.name for path in finished.path.iterdir()}
    assert not left & {"report.html", "report.ru.md", "model-card.md", "report.pdf", "evaluation.json"}
    assert "predictions-test.npz" not in left
