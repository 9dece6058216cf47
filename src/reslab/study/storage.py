"""The folders of runs on storage that every worker reaches: any address that reslab opens, such as s3://bucket/study.

Files go up in the order in which they were written, each whole or not at all, so that what lies there at any moment is
what lay here at some moment: whoever fetches it goes on from the newest checkpoint.
"""

from pathlib import Path
from typing import Any

from reslab.data.addresses import open_address
from reslab.errors import Failure, UserError, extra
from reslab.runs import make_folder, write_bytes

PART = ".part"
READ_LAST = "evaluation.json"  # with it a run is done


class Storage:
    """A folder of run folders at `url`. Raises: UserError where nothing that is installed can reach it."""

    def __init__(self, url: str) -> None:
        try:
            with extra("ray"):
                self.files, self.root = open_address(url)
        except UserError as error:
            raise UserError(f"--storage {error}") from None
        self.url = url
        self.known: dict[Path, tuple[int, int]] = {}  # what has gone up, as it was then

    def has(self, name: str) -> bool:
        """Say whether the run `name` has begun there."""
        return bool(self._ask(lambda: self.files.exists(f"{self.root}/{name}/recipe.json")))

    def fetch(self, name: str, *, into: Path) -> None:
        """Copy the run `name` into the folder `into`, if there is one; files here give way to those there."""

        def copy() -> None:
            found = self.files.find(f"{self.root}/{name}") if self.files.exists(f"{self.root}/{name}") else []
            for path in sorted(found, key=lambda path: path.endswith(READ_LAST)):
                place = into / path.rpartition(f"/{name}/")[2]
                if not place.resolve().is_relative_to(into.resolve()):
                    raise Failure(f"{self.url} holds {path!r}, which would be written outside of {into}")
                if not path.endswith(PART):
                    make_folder(place.parent)
                    write_bytes(place, self.files.cat_file(path))
                    self.known[place] = _stamp(place)

        self._ask(copy)

    def keep(self, folder: Path) -> None:
        """Copy a run folder there: what is new or has changed since this was last asked. Raises: Failure."""
        changed = [path for path in folder.rglob("*") if _is_content(path) and self.known.get(path) != _stamp(path)]
        # The environment is written again later on, but a recipe is never there without one.
        for path in sorted(changed, key=lambda path: (path.name != "environment.json", *_stamp(path))):
            stamp, content = _stamp(path), path.read_bytes()
            self._ask(
                lambda path=path, content=content: self._put(f"{folder.name}/{path.relative_to(folder)}", content)
            )
            self.known[path] = stamp

    def _put(self, name: str, content: bytes) -> None:
        place = f"{self.root}/{name}"
        self.files.makedirs(place.rpartition("/")[0], exist_ok=True)
        self.files.pipe_file(place + PART, content)
        self.files.mv(place + PART, place)

    def _ask(self, action: Any) -> Any:
        try:
            return action()
        except OSError as error:
            raise Failure(f"{self.url} cannot be reached: {error}") from None


def _is_content(path: Path) -> bool:
    return path.is_file() and not path.name.startswith(".")


def _stamp(path: Path) -> tuple[int, int]:
    status = path.stat()
    return status.st_mtime_ns, status.st_size
