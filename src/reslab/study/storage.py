"""Run folders on storage that every worker can reach: any address that reslab opens, such as s3://bucket/study.

Files are uploaded in the order in which they were written, each whole or not at all, so that the storage always holds a
state that the folder once had: a run that is fetched resumes from its newest checkpoint.
"""

from pathlib import Path
from typing import Any

from reslab.data.addresses import open_address
from reslab.errors import Failure, UserError, extra
from reslab.runs import make_folder, write_bytes

PART = ".part"
READ_LAST = "evaluation.json"  # a run that has it is done


class Storage:
    """A folder of run folders at `url`. Raises: UserError if no installed package can reach it."""

    def __init__(self, url: str) -> None:
        try:
            with extra("ray"):
                self.files, self.root = open_address(url)
        except UserError as error:
            raise UserError(f"--storage {error}") from None
        self.url = url
        self.known: dict[Path, tuple[int, int]] = {}  # uploaded files, as they were then

    def has(self, name: str, *, file: str = "recipe.json") -> bool:
        """Tell whether the run `name` has that file there; its recipe if it has begun."""
        return bool(self._ask(lambda: self.files.exists(f"{self.root}/{name}/{file}")))

    def fetch(self, name: str, *, into: Path) -> None:
        """Download the run `name` into the folder `into`, if there is one; files here are overwritten."""

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
        """Upload the files of a run folder that are new or have changed since the last call. Raises: Failure."""
        changed = [path for path in folder.rglob("*") if _is_content(path) and self.known.get(path) != _stamp(path)]
        # The environment is rewritten later on, but a recipe must never be there without one.
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
