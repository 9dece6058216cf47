"""File addresses: the protocols that reslab opens, and which of them leave this machine.

fsspec knows many more. Some of those read or run whatever a file tells them to (`reference`), and "::" chains them; so
a protocol that is not listed is refused by name.
"""

import re
from typing import TYPE_CHECKING

from reslab.errors import UserError, naming_problem

if TYPE_CHECKING:
    from fsspec import AbstractFileSystem

LOCAL = ("file", "local", "memory")
REMOTE = ("s3", "gs", "az", "abfs", "http", "https", "ssh", "sftp")
SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+):(//)?")  # at least two letters: a single one is a Windows drive
SERVER = re.compile(r"([\\/]{2}){1,2}[^\\/]")  # on Windows


def open_address(url: str) -> tuple["AbstractFileSystem", str]:
    """Return the file system of a path or an address, and the path in it, without connecting if fsspec allows.

    Raises: UserError if its protocol is not allowed or a package for it is not installed.
    """
    check_address(url)
    from fsspec.core import url_to_fs

    with naming_problem(f"{url} cannot be opened"):  # each kind of storage has its own errors
        system, root = url_to_fs(url)
    return system, root


def check_address(url: str) -> None:
    """Raises: UserError if the protocol of an address is not allowed, or the address is a chain of several."""
    found = SCHEME.match(url)
    allowed = ", ".join(f"{name}://" for name in (*LOCAL, *REMOTE))
    if found and (found[1] not in LOCAL + REMOTE or not found[2]):
        raise UserError(f"{url}: reslab does not open {found[1]}: addresses; write a path, or one of {allowed}")
    rest = url[found.end() :] if found else url
    if "::" in rest or "://" in rest:
        raise UserError(
            f"{url} is a chain of addresses: write a path, or one address that begins with one of {allowed}"
        )


def is_remote(url: str) -> bool:
    """Return whether opening it contacts another machine, as Windows paths that begin with two slashes do."""
    found = SCHEME.match(url)
    path = re.sub("^(file|local):", "", url)
    return (found is not None and found[1] not in LOCAL) or SERVER.match(path) is not None
