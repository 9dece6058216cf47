import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from reslab.data.sources.archive import Archive
from reslab.data.sources.fetch import fetch
from reslab.errors import Failure

CONTENT = np.random.default_rng(0).bytes(200_000)
HALF = len(CONTENT) // 2
NAME = "set.tar.gz"


@dataclass
class Mirror:
    """A local server's behaviour, and the Range header of every request it has had."""

    content: bytes = CONTENT
    status: int = 200
    drop_after: list[int] = field(default_factory=list)  # for each connection in turn, bytes sent before it is cut
    resumes: bool = True
    piece: int = 1 << 16
    pause: float = 0.0  # seconds before each piece
    requests: list[str | None] = field(default_factory=list)
    url: str = ""


class Handler(BaseHTTPRequestHandler):
    mirror: Mirror

    def do_GET(self) -> None:
        mirror, asked = self.mirror, self.headers["Range"]
        mirror.requests.append(asked)
        start = int(asked.removeprefix("bytes=").removesuffix("-")) if asked and mirror.resumes else 0
        body = mirror.content[start:]
        if mirror.status != 200:
            self.send_error(mirror.status)
            return
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(body)))
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(mirror.content) - 1}/{len(mirror.content)}")
        self.end_headers()
        self.send_in_pieces(body[: mirror.drop_after.pop(0)] if mirror.drop_after else body)

    def send_in_pieces(self, body: bytes) -> None:
        for begin in range(0, len(body), self.mirror.piece):
            time.sleep(self.mirror.pause)
            try:
                self.wfile.write(body[begin : begin + self.mirror.piece])
            except OSError:  # the client has gone
                return

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def serve(monkeypatch: pytest.MonkeyPatch) -> Iterator[object]:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    servers = []

    def start(mirror: Mirror) -> Mirror:
        server = ThreadingHTTPServer(("127.0.0.1", 0), type("Bound", (Handler,), {"mirror": mirror}))
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        servers.append(server)
        mirror.url = f"http://127.0.0.1:{server.server_port}/{NAME}"
        return mirror

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


@pytest.fixture
def archive(build: SimpleNamespace) -> Archive:
    described: Archive = build.expect(build.archive(NAME, "set", {}), CONTENT)
    return described


def fetch_from(archive: Archive, folder: Path, *mirrors: Mirror) -> bytes:
    """Fetch with short timeouts, and see that nothing but the file is left."""
    fetch(replace(archive, urls=tuple(mirror.url for mirror in mirrors)), folder, timeout=(2.0, 0.5))
    assert [path.name for path in folder.iterdir()] == [NAME]
    return (folder / NAME).read_bytes()


def test_a_file_is_downloaded_into_a_new_folder(archive: Archive, tmp_path: Path, serve, capsys) -> None:  # type: ignore[no-untyped-def]
    mirror = serve(Mirror())
    assert fetch_from(archive, tmp_path / "new" / "folder", mirror) == CONTENT
    assert mirror.requests == [None]
    assert capsys.readouterr() == ("", "")  # the bar is for terminals


def test_a_slow_mirror_is_waited_for(archive: Archive, tmp_path: Path, serve) -> None:  # type: ignore[no-untyped-def]
    # Longer in all than the silence that is borne, but never silent for so long.
    mirror = serve(Mirror(piece=20_000, pause=0.08))
    assert fetch_from(archive, tmp_path, mirror) == CONTENT
    assert mirror.requests == [None]


def test_a_silent_mirror_is_given_up(archive: Archive, tmp_path: Path, serve) -> None:  # type: ignore[no-untyped-def]
    silent, good = serve(Mirror(pause=1.0)), serve(Mirror())
    assert fetch_from(archive, tmp_path, silent, good) == CONTENT
    assert len(silent.requests) == 1


def test_a_dropped_connection_is_resumed_where_it_broke(archive: Archive, tmp_path: Path, serve) -> None:  # type: ignore[no-untyped-def]
    mirror = serve(Mirror(drop_after=[HALF]))
    assert fetch_from(archive, tmp_path, mirror) == CONTENT
    first, second = mirror.requests
    assert first is None
    # What had come by then is not asked for again, save the last piece that was not yet whole.
    start = int(second.removeprefix("bytes=").removesuffix("-"))
    assert HALF - (1 << 14) < start <= HALF


def test_many_drops_are_survived_as_long_as_each_connection_brings_something(archive, tmp_path, serve) -> None:  # type: ignore[no-untyped-def]
    mirror = serve(Mirror(drop_after=[40_000] * 4))
    assert fetch_from(archive, tmp_path, mirror) == CONTENT
    assert len(mirror.requests) >= 5


def test_the_next_mirror_goes_on_where_the_first_gave_up(archive: Archive, tmp_path: Path, serve) -> None:  # type: ignore[no-untyped-def]
    first, second = serve(Mirror(drop_after=[HALF, 0])), serve(Mirror())
    assert fetch_from(archive, tmp_path, first, second) == CONTENT
    assert second.requests == first.requests[1:]
    assert second.requests[0] is not None


def test_a_later_call_goes_on_where_an_earlier_one_failed(archive: Archive, tmp_path: Path, serve) -> None:  # type: ignore[no-untyped-def]
    (tmp_path / f"{NAME}.part").write_bytes(CONTENT[:1234])
    mirror = serve(Mirror())
    assert fetch_from(archive, tmp_path, mirror) == CONTENT
    assert mirror.requests == ["bytes=1234-"]


def test_a_mirror_that_cannot_resume_starts_again(archive: Archive, tmp_path: Path, serve) -> None:  # type: ignore[no-untyped-def]
    mirror = serve(Mirror(drop_after=[HALF], resumes=False))
    assert fetch_from(archive, tmp_path, mirror) == CONTENT
    assert len(mirror.requests) == 2


@pytest.mark.parametrize("left", [b"x" * 1234, b"x" * len(CONTENT), b"x" * (len(CONTENT) + 1)])
def test_wrong_remains_are_thrown_away_without_blaming_the_mirror(archive, tmp_path, serve, left: bytes) -> None:  # type: ignore[no-untyped-def]
    (tmp_path / f"{NAME}.part").write_bytes(left)
    mirror = serve(Mirror())
    assert fetch_from(archive, tmp_path, mirror) == CONTENT
    assert mirror.requests[-1] is None


@pytest.mark.parametrize(
    "bad",
    [
        Mirror(content=CONTENT[:-1] + bytes([CONTENT[-1] ^ 1])),
        Mirror(content=CONTENT + b"more"),
        Mirror(content=b"<html>please log in</html>"),
        Mirror(status=404),
        Mirror(status=503),
        Mirror(drop_after=[0] * 9),
        Mirror(content=CONTENT[:-1] + bytes([CONTENT[-1] ^ 1]), drop_after=[HALF]),
    ],
    ids=["altered", "longer", "a page", "not found", "busy", "always drops", "altered and drops"],
)
def test_a_bad_mirror_is_refused_and_the_next_one_asked(archive, tmp_path, serve, bad: Mirror) -> None:  # type: ignore[no-untyped-def]
    bad, good = serve(replace(bad, requests=[])), serve(Mirror())
    assert fetch_from(archive, tmp_path, bad, good) == CONTENT
    assert len(bad.requests) >= 1
    assert len(good.requests) == 1


def test_a_file_of_another_size_is_refused_before_it_is_received(archive: Archive, tmp_path: Path, serve) -> None:  # type: ignore[no-untyped-def]
    huge = serve(Mirror(content=bytes(5_000_000), piece=100_000, pause=0.1))
    begin = time.monotonic()
    with pytest.raises(Failure, match="it serves another file, 5000000 bytes instead of 200000"):
        fetch_from(archive, tmp_path, huge)
    assert time.monotonic() - begin < 2
    assert not list(tmp_path.iterdir())


def test_where_all_fail_one_sentence_names_file_size_reasons_and_place(archive, tmp_path, serve) -> None:  # type: ignore[no-untyped-def]
    absent = Mirror(url=f"http://127.0.0.1:9/{NAME}")  # nothing listens there
    missing = serve(Mirror(status=404))
    altered = serve(Mirror(content=bytes(len(CONTENT))))
    with pytest.raises(Failure) as caught:
        fetch_from(archive, tmp_path, absent, missing, altered)
    message = str(caught.value)
    assert message.startswith(
        f"{NAME} (0.2 MB) is not in {tmp_path} and could not be downloaded (127.0.0.1:9: no connection; "
    )
    assert "HTTP 404; " in message
    assert "it serves another file, SHA-256 " in message
    assert message.endswith(f"get it from {absent.url} by other means and put it there")
    assert not list(tmp_path.iterdir())


def test_what_has_arrived_is_kept_after_a_failure(archive: Archive, tmp_path: Path, serve) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(Failure, match="the connection dropped"):
        fetch_from(archive, tmp_path, serve(Mirror(drop_after=[HALF, 0])))
    kept = (tmp_path / f"{NAME}.part").read_bytes()
    assert kept
    assert CONTENT.startswith(kept)


def test_a_folder_that_cannot_be_written_is_a_failure(archive: Archive, tmp_path: Path, serve) -> None:  # type: ignore[no-untyped-def]
    (tmp_path / "file").write_bytes(b"in the way")
    with pytest.raises(Failure, match="cannot be written"):
        fetch_from(archive, tmp_path / "file", serve(Mirror()))
