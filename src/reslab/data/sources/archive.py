"""Official archives: their files, verification and safe unpacking.

An archive cannot decide where its files go: only the members listed here are extracted, under the names listed here,
and only with exactly the size and SHA-256 listed here.
"""

import hashlib
import tarfile
from dataclasses import dataclass
from pathlib import Path

from reslab.errors import UserError, naming_problem
from reslab.runs.files import make_folder, read_bytes, write_bytes


@dataclass(frozen=True)
class Member:
    """A file of an archive, with its size in bytes and its SHA-256 in hex."""

    name: str
    num_bytes: int
    sha256: str


@dataclass(frozen=True)
class Archive:
    """A .tar.gz and its URLs; its members are in `folder`, both inside it and on disk."""

    name: str
    urls: tuple[str, ...]
    num_bytes: int
    sha256: str
    folder: str
    members: tuple[Member, ...]

    def member(self, name: str) -> Member:
        return next(member for member in self.members if member.name == name)


def complain(path: Path, expected: Archive | Member) -> str | None:
    """Describe how a file differs from `expected`; None if it does not. Raises: UserError if it cannot be read."""
    try:
        with path.open("rb") as file:
            return _compare(path.stat().st_size, hashlib.file_digest(file, "sha256").hexdigest(), expected)
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from None


def _compare(num_bytes: int, sha256: str, expected: Archive | Member) -> str | None:
    if num_bytes != expected.num_bytes:
        return f"{num_bytes:,} bytes instead of {expected.num_bytes:,}"
    return None if sha256 == expected.sha256 else f"SHA-256 {sha256[:12]}… instead of {expected.sha256[:12]}…"


def read_checked(path: Path, member: Member) -> bytes:
    """Read and verify a file. Raises: UserError if it is not the expected one."""
    content = read_bytes(path)
    if problem := _compare(len(content), hashlib.sha256(content).hexdigest(), member):
        raise UserError(f"{path} is damaged ({problem}): delete it, and it is taken from the official archive again")
    return content


def unpack(archive: Archive, data_dir: Path) -> None:
    """Extract the missing members from the archive in `data_dir` to their folder.

    Raises: UserError if the archive is not the official one; Failure if a file cannot be written.
    """
    packed = data_dir / archive.name
    if problem := complain(packed, archive):
        raise UserError(f"{packed} is damaged ({problem}): delete it, and it is downloaded again")
    folder = data_dir / archive.folder
    missing = {f"{archive.folder}/{each.name}": each for each in archive.members if not (folder / each.name).exists()}
    make_folder(folder)
    with naming_problem(f"{packed} cannot be unpacked"), tarfile.open(packed, "r|gz") as tar:
        while missing and (info := tar.next()):
            if member := missing.pop(info.name, None):
                _unpack_member(tar, info, member, folder / member.name)
    if missing:
        raise UserError(f"{packed} does not hold {', '.join(missing)}")


def _unpack_member(tar: tarfile.TarFile, info: tarfile.TarInfo, member: Member, path: Path) -> None:
    """Extract one member if it is the official one."""
    file = tar.extractfile(info) if info.isreg() else None
    content = file.read(member.num_bytes) if file else b""
    if problem := _compare(info.size, hashlib.sha256(content).hexdigest(), member):
        raise UserError(f"{info.name} in the archive is not the official file ({problem}): it was not written")
    write_bytes(path, content)
