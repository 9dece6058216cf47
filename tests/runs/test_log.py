import errno

import pytest

from reslab.errors import Failure, UserError


def test_the_log_grows_by_a_line_an_epoch(run, sample):
    assert run.log == []
    for number in (1, 2, 3):
        run.append_log(sample.epoch(number))
        assert run.log == [sample.epoch(each) for each in range(1, number + 1)]
    assert (run.path / "log.jsonl").read_bytes().count(b"\n") == 3


def write_log(run, epochs, tail=b""):
    for epoch in epochs:
        run.append_log(epoch)
    with (run.path / "log.jsonl").open("ab") as file:
        file.write(tail)


@pytest.mark.parametrize("share", [0, 0.01, 0.5, 1])
def test_a_line_cut_short_by_a_crash_is_left_out(run, share, sample):
    line = sample.epoch(3).model_dump_json().encode()
    write_log(run, [sample.epoch(1), sample.epoch(2)], line[: int(share * len(line))])
    assert run.log == [sample.epoch(1), sample.epoch(2)]


@pytest.mark.parametrize("tail", [b"", b'{"epoch": 4, "upd'])
@pytest.mark.parametrize("num_epochs", [0, 1, 3, 4, 5])
def test_cut_log_keeps_the_first_lines_and_the_log_can_go_on(run, num_epochs, tail, sample):
    write_log(run, map(sample.epoch, (1, 2, 3)), tail)
    run.cut_log(num_epochs)
    kept = [sample.epoch(number) for number in range(1, min(num_epochs, 3) + 1)]
    assert run.log == kept
    run.append_log(sample.epoch(9))
    assert run.log == [*kept, sample.epoch(9)]


@pytest.mark.parametrize(("num_epochs", "is_evaluated"), [(1, False), (2, True), (3, True)])
def test_an_evaluation_goes_with_the_epochs_that_it_followed(run, num_epochs, is_evaluated, sample):
    """Where they are trained again, since the weights are gone, its figures would stand beside another log."""
    write_log(run, [sample.epoch(1), sample.epoch(2)])
    run.write_evaluation(sample.evaluation)
    run.cut_log(num_epochs)
    assert run.is_evaluated is is_evaluated


def test_cut_log_needs_no_log(run):
    run.cut_log(2)
    assert run.log == []


def test_a_damaged_line_of_the_log_is_named(run, sample):
    write_log(run, [sample.epoch(1)], b"{}\n" + sample.epoch(3).model_dump_json().encode() + b"\n")
    with pytest.raises(UserError, match=r"log\.jsonl:2 is damaged: epoch is missing"):
        _ = run.log


def test_a_full_disk_is_a_failure_for_the_log_too(run, monkeypatch, sample):
    write_log(run, map(sample.epoch, (1, 2)))
    with monkeypatch.context() as broken:
        sample.break_step(broken, "write", OSError(errno.ENOSPC, "No space left on device"))
        with pytest.raises(Failure, match=r"log\.jsonl cannot be written: the disk is full"):
            run.append_log(sample.epoch(3))
    assert run.log == [sample.epoch(1), sample.epoch(2)]
