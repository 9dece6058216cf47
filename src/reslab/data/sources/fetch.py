"""Download an archive: try several mirrors, resume after dropped connections, keep it only if its SHA-256 is right.

pooch, the usual tool for this, neither resumes nor tries another mirror. Both would need a custom downloader around
`requests`, which is what this module is.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import requests
import urllib3
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TimeRemainingColumn, TransferSpeedColumn

from reslab.data.sources.archive import Archive, complain
from reslab.errors import Failure
from reslab.runs.files import make_folder, writing

CONNECT_SECONDS, SILENCE_SECONDS = 10.0, 30.0
CHUNK_BYTES = 1 << 14
Advance = Callable[[int], None]  # called with the number of bytes received so far


class _MirrorFailedError(Exception):
    """A mirror does not serve the file; the message says why in a few words."""


def fetch(
    archive: Archive, data_dir: Path, *, timeout: tuple[float, float] = (CONNECT_SECONDS, SILENCE_SECONDS)
) -> None:
    """Download `archive` into `data_dir`; `timeout` is for a connection and for silence on it, in seconds.

    Data received before a failure stays in a .part file and is not requested again.
    Raises: Failure if no mirror has it, with instructions for downloading by hand.
    """
    make_folder(data_dir)
    part = data_dir / f"{archive.name}.part"
    reasons = []
    with _progress_bar(archive) as advance:
        for url in archive.urls:
            try:
                _try_mirror(url, archive, part, timeout, advance)
            except _MirrorFailedError as error:
                reasons.append(f"{urlsplit(url).netloc}: {error}")
            else:
                writing(part, lambda: part.replace(data_dir / archive.name))
                return
    raise Failure(
        f"{archive.name} ({archive.num_bytes / 1e6:.1f} MB) is not in {data_dir} and could not be downloaded "
        f"({'; '.join(reasons)}): try again later, or get it from {archive.urls[0]} by other means and put it there"
    )


def _try_mirror(url: str, archive: Archive, part: Path, timeout: tuple[float, float], advance: Advance) -> None:
    """Complete `part` from one mirror, reconnecting after each drop as long as every connection adds data."""
    inherited = _size(part)
    while (before := _size(part)) < archive.num_bytes:
        reason = "the connection dropped"
        try:
            _receive(url, archive, part, timeout, advance)
        except (Failure, _MirrorFailedError):
            raise
        except Exception as error:  # requests raises nearly anything for a broken response
            reason = _describe(error)
        if _size(part) <= before:
            raise _MirrorFailedError(reason)
    problem = complain(part, archive)
    if problem is None:
        return
    part.unlink()
    if not inherited:
        raise _MirrorFailedError(f"it serves another file, {problem}")
    # An earlier attempt or another mirror may have left bad data: try once more from the first byte.
    _try_mirror(url, archive, part, timeout, advance)


def _receive(url: str, archive: Archive, part: Path, timeout: tuple[float, float], advance: Advance) -> None:
    """Append the data of one connection to `part`."""
    have = _size(part)
    # Without compression, so that offsets in the file equal those in the transfer.
    headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={have}-"} if have else {})
    with requests.get(url, headers=headers, stream=True, timeout=timeout) as response:
        if response.status_code == requests.codes.ok:
            have = 0  # also if the server does not resume
        elif response.status_code != requests.codes.partial_content:
            raise _MirrorFailedError(f"HTTP {response.status_code}")
        offered = response.headers.get("Content-Length", "no")
        if offered != str(archive.num_bytes - have):
            raise _MirrorFailedError(f"it serves another file, {offered} bytes instead of {archive.num_bytes - have}")
        writing(part, lambda: _save(response, part, have, advance))


def _save(response: requests.Response, part: Path, have: int, advance: Advance) -> None:
    with part.open("ab" if have else "wb") as file:
        for chunk in response.raw.stream(CHUNK_BYTES, decode_content=False):
            file.write(chunk)
            have += len(chunk)
            advance(have)


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _describe(error: Exception) -> str:
    match error:
        case requests.exceptions.SSLError():
            return "no secure connection"
        case requests.Timeout() | urllib3.exceptions.TimeoutError():
            return "no answer in time"
        case requests.ConnectionError():
            return "no connection"
        case _:
            return "the connection dropped"


@contextmanager
def _progress_bar(archive: Archive) -> Iterator[Advance]:
    """Show the download on stderr if that is a terminal."""
    console = Console(stderr=True)
    columns = ("{task.description}", BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal, transient=True) as progress:
        task = progress.add_task(archive.name, total=archive.num_bytes)
        yield lambda have: progress.update(task, completed=have)
