"""Download an archive: several mirrors in turn, resumed where a connection drops, kept only if its SHA-256 is right.

pooch, which scikit-learn's world uses for this, neither resumes nor goes on to another mirror; both would have to be
written as a downloader of its own around `requests`, which is what stands here.
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
Advance = Callable[[int], None]  # is told how many bytes of the file there are


class _MirrorFailedError(Exception):
    """One mirror does not serve the file; says why in a few words."""


def fetch(
    archive: Archive, data_dir: Path, *, timeout: tuple[float, float] = (CONNECT_SECONDS, SILENCE_SECONDS)
) -> None:
    """Download `archive` into `data_dir`; `timeout` is for a connection and for silence on it, in seconds.

    What arrived before a failure stays in a .part file and is not asked for again.
    Raises: Failure where no mirror has it, with what to do by hand.
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
    """Complete `part` from one mirror, going on after each drop as long as every connection brings something."""
    inherited = _size(part)
    while (before := _size(part)) < archive.num_bytes:
        reason = "the connection dropped"
        try:
            _receive(url, archive, part, timeout, advance)
        except (Failure, _MirrorFailedError):
            raise
        except Exception as error:  # of a broken answer requests raises nearly anything
            reason = _describe(error)
        if _size(part) <= before:
            raise _MirrorFailedError(reason)
    problem = complain(part, archive)
    if problem is None:
        return
    part.unlink()
    if not inherited:
        raise _MirrorFailedError(f"it serves another file, {problem}")
    # The fault may lie in what an earlier attempt or another mirror had left: once more from the first byte.
    _try_mirror(url, archive, part, timeout, advance)


def _receive(url: str, archive: Archive, part: Path, timeout: tuple[float, float], advance: Advance) -> None:
    """Append to `part` what one connection brings."""
    have = _size(part)
    # Uncompressed, as stored: otherwise the places in the file would not be those on the wire.
    headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={have}-"} if have else {})
    with requests.get(url, headers=headers, stream=True, timeout=timeout) as response:
        if response.status_code == requests.codes.ok:
            have = 0  # also from a server that does not resume
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
    """Show the download on stderr where that is a terminal."""
    console = Console(stderr=True)
    columns = ("{task.description}", BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal, transient=True) as progress:
        task = progress.add_task(archive.name, total=archive.num_bytes)
        yield lambda have: progress.update(task, completed=have)
