"""The benchmark that feeds hostile input, whose readers the tests here share."""

import importlib
import socket
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture(scope="module")
def fuzz() -> Iterator[ModuleType]:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(BENCHMARKS)
        patch.setattr("socket.getaddrinfo", socket.getaddrinfo)
        patch.setenv("NO_PROXY", "*")
        module = importlib.import_module("fuzz")
        module.stay_here()
        yield module
