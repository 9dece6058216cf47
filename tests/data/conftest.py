"""A CIFAR set of one batch."""

from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace

import pytest

from reslab.data.sources.catalog import OFFICIAL, Cifar


@pytest.fixture
def as_cifar10(build: SimpleNamespace) -> Callable[[bytes], Cifar]:
    """Make a set whose single training batch is `content`, whatever that is."""

    def make(content: bytes) -> Cifar:
        archive = build.archive("tiny.tar.gz", "tiny", {"batch": content})
        return replace(OFFICIAL["cifar10"], archive=archive, train=("batch",), test=())

    return make
