"""A run in the processes that do not write it, because the first process does."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path

from reslab.recipe.recipe import Recipe
from reslab.records import Candidates, Environment, Epoch, PriorChoice
from reslab.runs.files import Arrays
from reslab.runs.folder import Run


class Follower(Run):
    """Knows its recipe; discards everything that training writes."""

    def __init__(self, path: Path | str, recipe: Recipe) -> None:
        super().__init__(path)
        self._recipe = recipe

    @property
    def recipe(self) -> Recipe:
        return self._recipe

    def locked(self) -> AbstractContextManager[None]:
        return nullcontext()

    @contextmanager
    def beginning(self) -> Iterator[None]:
        yield

    def write_recipe(self, recipe: Recipe) -> None:
        pass

    def write_environment(self, environment: Environment) -> None:
        pass

    def write_digests(self, split: str, digests: object) -> None:
        pass

    def write_base_digests(self, base: Run) -> None:
        pass

    def append_log(self, epoch: Epoch) -> None:
        pass

    def cut_log(self, num_epochs: int) -> None:
        pass

    def write_checkpoint(self, tensors: Arrays, state: object) -> None:
        pass

    def write_weights(self, content: bytes) -> None:
        pass

    def write_base(self, content: bytes) -> None:
        pass

    def write_base_recipe(self, recipe: Recipe) -> None:
        pass

    def write_memory(self, content: bytes) -> None:
        pass

    def write_base_memory(self, content: bytes) -> None:
        pass

    def write_prior(self, prior: PriorChoice) -> None:
        pass

    def write_candidates(self, candidates: Candidates) -> None:
        pass
