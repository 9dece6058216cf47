import errno

import pytest
import safetensors.numpy

from reslab.errors import Failure, UserError

STATE = {"epochs": 3, "seconds": 1.25, "is_warm": True, "nothing": None}


@pytest.fixture
def newest(run, sample):
    """Write two checkpoints, of epochs 3 and 4; the path of the newest."""
    run.write_checkpoint(sample.tensors(0), STATE)
    run.write_checkpoint(sample.tensors(1), STATE | {"epochs": 4})
    return run.path / "checkpoint" / "newest.safetensors"


def test_a_checkpoint_is_read_as_it_was_written(run, sample):
    assert not run.has_checkpoint
    with pytest.raises(UserError, match="has no checkpoint to resume from: train it again"):
        run.read_checkpoint()
    for seed in range(3):
        run.write_checkpoint(sample.tensors(seed), STATE | {"epochs": seed})
        tensors, state = run.read_checkpoint()
        sample.assert_same(tensors, sample.tensors(seed))
        assert state == STATE | {"epochs": seed, "schema_version": 1}
    assert run.has_checkpoint


def test_the_checkpoint_before_the_newest_stays(run, newest, sample):
    newest.unlink()
    assert run.has_checkpoint
    tensors, state = run.read_checkpoint()
    assert state["epochs"] == 3
    sample.assert_same(tensors, sample.tensors(0))


def test_a_damaged_newest_checkpoint_never_replaces_a_sound_previous_one(run, newest, sample):
    sample.flip(newest, newest.stat().st_size - 1)
    run.write_checkpoint(sample.tensors(2), STATE | {"epochs": 5})
    assert run.read_checkpoint().state["epochs"] == 5
    newest.unlink()
    assert run.read_checkpoint().state["epochs"] == 3


PLACES = ["length", "brace", "state", "checksum", "dtype", "offset", "padding", "first", "middle", "last"]


def find_place(content, place):
    """Find the offset of a part of a safetensors file."""
    data = 8 + int.from_bytes(content[:8], "little")
    found = {
        "length": 0,
        "brace": 8,
        "state": content.index(b"seconds"),
        "checksum": content.index(b'"sha256":"') + 10,
        "dtype": content.index(b"F32"),
        "offset": content.index(b"data_offsets") + 15,
        "padding": data - 1,
        "first": data,
        "middle": (data + len(content)) // 2,
        "last": len(content) - 1,
    }
    return found[place]


@pytest.mark.parametrize("place", PLACES)
def test_a_flipped_bit_makes_the_previous_checkpoint_the_newest(run, newest, place, sample):
    sample.flip(newest, find_place(newest.read_bytes(), place))
    tensors, state = run.read_checkpoint()
    assert state["epochs"] == 3
    sample.assert_same(tensors, sample.tensors(0))


@pytest.mark.parametrize("place", PLACES)
def test_a_flipped_bit_in_the_only_checkpoint_is_told(run, newest, place, sample):
    newest.with_name("previous.safetensors").unlink()
    sample.flip(newest, find_place(newest.read_bytes(), place))
    with pytest.raises(UserError, match=r"newest\.safetensors (is corrupt|cannot be read)"):
        run.read_checkpoint()


def test_no_flipped_byte_goes_unnoticed(run, newest, sample):
    newest.with_name("previous.safetensors").unlink()
    whole = newest.read_bytes()
    for offset in range(0, len(whole), 3):
        sample.flip(newest, offset, bits=0x15)
        with pytest.raises(UserError):
            run.read_checkpoint()
        newest.write_bytes(whole)


@pytest.mark.parametrize("share", [0, 0.001, 0.1, 0.5, 0.9, 0.999])
def test_a_truncated_checkpoint_makes_the_previous_one_the_newest(run, newest, share):
    content = newest.read_bytes()
    newest.write_bytes(content[: int(share * len(content))])
    assert run.read_checkpoint().state["epochs"] == 3
    newest.with_name("previous.safetensors").write_bytes(b"")
    with pytest.raises(UserError, match=r"newest\.safetensors .*; .*previous\.safetensors cannot be read"):
        run.read_checkpoint()


def test_another_programs_safetensors_are_no_checkpoint(run, newest, sample):
    safetensors.numpy.save_file(sample.tensors(), newest)
    assert run.read_checkpoint().state["epochs"] == 3


def test_a_checkpoint_of_a_newer_schema_is_refused_by_its_number(run, sample):
    run.write_checkpoint(sample.tensors(), {"schema_version": 2})
    with pytest.raises(UserError, match="has schema 2, this reslab reads up to 1: upgrade reslab"):
        run.read_checkpoint()


@pytest.mark.parametrize("step", ["open", "write", "fsync", "replace"])
def test_a_checkpoint_that_cannot_be_written_leaves_one_to_go_on_from(run, newest, monkeypatch, step, sample):
    with monkeypatch.context() as broken:
        sample.break_step(broken, step, OSError(errno.ENOSPC, "No space left on device"))
        with pytest.raises(Failure, match="the disk is full"):
            run.write_checkpoint(sample.tensors(2), STATE | {"epochs": 5})
    assert run.read_checkpoint().state["epochs"] == 4
    assert set(sample.listing(newest.parent)) <= {"newest.safetensors", "previous.safetensors"}
