"""Words on long work: after some seconds, and not before."""

import time

import pytest

from reslab.data import progress


def test_work_that_cannot_be_counted_says_that_it_goes_on(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with progress.waiting("thinking"):
        pass
    assert capsys.readouterr().err == ""
    monkeypatch.setattr(progress, "PATIENCE", 0.01)
    with progress.waiting("thinking"):
        time.sleep(0.2)
    assert capsys.readouterr().err == "reslab: thinking: 0 s so far\n"
