import io
import json
import os
import pickle

import numpy as np
import pytest

from reslab.errors import UserError
from reslab.runs import read_weights

READERS = {
    "recipe.json": lambda run: run.recipe,
    "environment.json": lambda run: run.environment,
    "evaluation.json": lambda run: run.evaluation,
    "log.jsonl": lambda run: run.log,
    "model.safetensors": lambda run: read_weights(run.path),
    "checkpoint/newest.safetensors": lambda run: run.read_checkpoint(),
    "predictions-test.npz": lambda run: run.read_predictions("test"),
    "examples-test.npz": lambda run: run.read_examples("test"),
}


class Payload:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def place_file(run, name, content):
    (run.path / name).parent.mkdir(exist_ok=True)
    (run.path / name).write_bytes(content)


def pickled(payload):
    return pickle.dumps(payload) + b"\n"


def pickled_as_text(payload):
    return pickle.dumps(payload, protocol=0) + b"\n"


def pickled_in_npy(payload):
    buffer = io.BytesIO()
    np.save(buffer, np.array([payload]), allow_pickle=True)
    return buffer.getvalue() + b"\n"


def pickled_in_npz(payload):
    array, buffer = np.array([payload]), io.BytesIO()
    np.savez(buffer, logits=array, labels=array, indices=array, images=array)
    return buffer.getvalue() + b"\n"


@pytest.mark.parametrize("pack", [pickled, pickled_as_text, pickled_in_npy, pickled_in_npz])
@pytest.mark.parametrize("name", READERS)
def test_a_pickle_in_place_of_a_file_is_refused_and_does_not_run(run, tmp_path, name, pack):
    place_file(run, name, pack(Payload(tmp_path / "harmed")))
    with pytest.raises(UserError, match=name):
        READERS[name](run)
    assert not (tmp_path / "harmed").exists()


def test_the_pickle_of_the_test_above_would_run(tmp_path):
    pickle.loads(pickled(Payload(tmp_path / "harmed")))
    assert (tmp_path / "harmed").exists()


@pytest.mark.parametrize("content", [b"\n", b"{\n", b"[]\n", b"3\n", b"null\n", b"\xff\xfe\n", b"[" * 100_000 + b"\n"])
@pytest.mark.parametrize("name", READERS)
def test_a_file_of_something_else_is_refused_by_name(run, name, content):
    place_file(run, name, content)
    with pytest.raises(UserError, match=name):
        READERS[name](run)


@pytest.mark.parametrize("name", READERS)
def test_a_folder_in_place_of_a_file_is_refused_by_name(run, name):
    (run.path / name).unlink(missing_ok=True)
    (run.path / name).mkdir(parents=True)
    with pytest.raises(UserError, match=name):
        READERS[name](run)


@pytest.mark.parametrize("name", ["recipe.json", "environment.json", "evaluation.json"])
def test_a_newer_schema_is_refused_by_its_number(run, name):
    place_file(run, name, b'{"schema_version": 9, "something_new": 1}')
    with pytest.raises(UserError, match=rf"{name} has .*schema 9, this reslab reads up to [12]: upgrade"):
        READERS[name](run)


def test_damage_in_a_record_is_named_by_its_place(run, sample):
    content = sample.evaluation.model_dump(mode="json")
    content["splits"]["test"]["accuracy"]["low"] = "far"
    place_file(run, "evaluation.json", json.dumps(content).encode())
    with pytest.raises(UserError, match=r"is damaged: splits\.test\.accuracy\.low should be a number, not 'far'"):
        _ = run.evaluation


@pytest.mark.parametrize("bits", [0x01, 0x80, 0xFF])
def test_a_damaged_archive_is_refused_or_gives_what_was_written(run, bits, sample):
    run.write_predictions("test", sample.predictions())
    path = run.path / "predictions-test.npz"
    whole = path.read_bytes()
    refused = 0
    for offset in range(0, len(whole), 3):
        sample.flip(path, offset, bits=bits)
        try:
            found = run.read_predictions("test")
        except UserError:
            refused += 1
        else:  # the place held a date, say
            sample.assert_same(found._asdict(), sample.predictions()._asdict())
        path.write_bytes(whole)
    assert refused > len(whole) / 3 / 2


def test_a_truncated_archive_is_refused(run, sample):
    run.write_predictions("test", sample.predictions())
    path = run.path / "predictions-test.npz"
    whole = path.read_bytes()
    for length in range(0, len(whole), 11):
        path.write_bytes(whole[:length])
        with pytest.raises(UserError, match=r"predictions-test\.npz is damaged, it should hold logits and labels: "):
            run.read_predictions("test")


def test_a_single_array_is_no_archive(run):
    np.save(run.path / "array.npy", np.zeros(3))
    place_file(run, "predictions-test.npz", (run.path / "array.npy").read_bytes())
    with pytest.raises(UserError, match="is damaged, it should hold logits and labels"):
        run.read_predictions("test")


def test_an_archive_without_one_of_the_arrays_is_refused(run):
    np.savez(run.path / "predictions-test.npz", logits=np.zeros((2, 2), np.float32))
    with pytest.raises(UserError, match="labels is not a file in the archive"):
        run.read_predictions("test")
