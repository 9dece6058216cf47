"""The page in a real browser: headless Chromium, spoken to over its debugging pipe."""

import contextlib
import fcntl
import json
import os
import select
import shutil
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
FLAGS = [
    "--headless",
    "--remote-debugging-pipe",
    "--no-sandbox",
    "--no-first-run",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-extensions",
    "--disable-sync",
]
DEADLINE = 60  # seconds for any one answer; a healthy browser needs less than one
COMPLAINTS = {"Runtime.exceptionThrown", "Runtime.consoleAPICalled", "Log.entryAdded"}

pytestmark = pytest.mark.skipif(
    CHROMIUM is None, reason="no browser: install chromium to open the report in one (all other tests do without)"
)


class Browser:
    """One page of a headless Chromium. Messages are JSON, each ended by a zero byte, on its descriptors 3 and 4."""

    def __init__(self, profile: Path) -> None:
        near, far = _pipe(), _pipe()
        self._read, self._write = near[0], far[1]
        actions = [(os.POSIX_SPAWN_DUP2, far[0], 3), (os.POSIX_SPAWN_DUP2, near[1], 4)]
        actions += [(os.POSIX_SPAWN_OPEN, 2, str(profile / "stderr"), os.O_WRONLY | os.O_CREAT, 0o600)]
        arguments = [str(CHROMIUM), *FLAGS, f"--user-data-dir={profile}", "about:blank"]
        self._process = os.posix_spawn(str(CHROMIUM), arguments, os.environ, file_actions=actions, setpgroup=0)
        os.close(far[0])
        os.close(near[1])
        self._buffer, self._number, self._session = b"", 0, None
        self.events: list[dict[str, Any]] = []
        target = next(t for t in self.ask("Target.getTargets")["targetInfos"] if t["type"] == "page")
        self._session = self.ask("Target.attachToTarget", targetId=target["targetId"], flatten=True)["sessionId"]
        for domain in ("Page", "Network", "Runtime", "Log"):
            self.ask(f"{domain}.enable")

    def ask(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Send a command and wait for its answer; events on the way are kept."""
        self._number += 1
        message = {"id": self._number, "method": method, "params": parameters}
        session = {"sessionId": self._session} if self._session else {}
        os.write(self._write, json.dumps(message | session).encode() + b"\0")
        while True:
            answer = self._receive()
            if answer.get("id") == self._number:
                assert "error" not in answer, f"{method}: {answer}"
                return answer["result"]
            self.events.append(answer)

    def _receive(self) -> dict[str, Any]:
        while b"\0" not in self._buffer:
            ready, _, _ = select.select([self._read], [], [], DEADLINE)
            assert ready, f"the browser said nothing for {DEADLINE} s"
            content = os.read(self._read, 1 << 20)
            assert content, "the browser ended"
            self._buffer += content
        message, _, self._buffer = self._buffer.partition(b"\0")
        return json.loads(message)

    def open(self, page: Path, *, width: int, dark: bool = False) -> None:
        """Load a page in a window of a width and wait until everything in it has arrived."""
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.ask("Emulation.setEmulatedMedia", features=[scheme])
        self.ask("Emulation.setDeviceMetricsOverride", width=width, height=800, deviceScaleFactor=1, mobile=False)
        self.events.clear()
        self.ask("Page.navigate", url=page.as_uri())
        while not any(event.get("method") == "Page.loadEventFired" for event in self.events):
            self.events.append(self._receive())
        # A whole turn of the page's clock: whatever the load has set off has begun by now.
        self.evaluate("new Promise(done => requestAnimationFrame(() => setTimeout(done, 50)))")

    def evaluate(self, expression: str) -> Any:
        """Give the value of an expression in the page."""
        answer = self.ask("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        return answer["result"].get("value")

    def complaints(self) -> list[Any]:
        """List what stands in the console: messages, exceptions, refused or failed loads."""
        return [event["params"] for event in self.events if event.get("method") in COMPLAINTS]

    def requests(self) -> list[str]:
        """List the addresses that were asked for, embedded ones left out."""
        asked = [event for event in self.events if event.get("method") == "Network.requestWillBeSent"]
        urls = [event["params"]["request"]["url"] for event in asked]
        return [url for url in urls if not url.startswith("data:")]

    def close(self) -> None:
        os.close(self._write)  # which ends the browser
        os.close(self._read)
        deadline = time.monotonic() + 5
        while os.waitpid(self._process, os.WNOHANG) == (0, 0):
            if time.monotonic() > deadline:
                os.killpg(self._process, signal.SIGKILL)
            time.sleep(0.02)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process, signal.SIGKILL)  # its helpers, where one is left


def _pipe() -> tuple[int, int]:
    """Make a pipe whose ends lie above the descriptors that the browser wants."""
    ends = os.pipe()
    high = tuple(fcntl.fcntl(end, fcntl.F_DUPFD_CLOEXEC, 10) for end in ends)
    for end in ends:
        os.close(end)
    return high[0], high[1]


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    started = Browser(tmp_path_factory.mktemp("browser"))
    yield started
    started.close()


SIZES = "[document.documentElement.scrollWidth, document.documentElement.clientWidth, innerWidth]"
BROKEN_IMAGES = "[...document.images].filter(image => !image.complete || !image.naturalWidth).length"
OVERFLOWING = """[...document.querySelectorAll('main *, header *')].filter(
    element => !element.closest('.scroll, .card') && element.getBoundingClientRect().right > innerWidth).length"""


@pytest.mark.parametrize("width", [380, 1200])
@pytest.mark.parametrize("which", ["rich", "lean", "taught"])
def test_page_opens_without_a_complaint_or_a_request(which, width, browser, request):
    page = request.getfixturevalue(which).path / "report.html"
    browser.open(page, width=width)
    assert browser.complaints() == []
    assert browser.requests() == [page.as_uri()]
    assert browser.evaluate(BROKEN_IMAGES) == 0
    assert browser.evaluate("document.images.length") > 20


@pytest.mark.parametrize("which", ["rich", "lean", "taught"])
def test_page_does_not_scroll_sideways_on_a_phone(which, browser, request):
    browser.open(request.getfixturevalue(which).path / "report.html", width=380)
    scroll_width, client_width, window = browser.evaluate(SIZES)
    assert window == 380
    assert scroll_width <= client_width
    assert browser.evaluate(OVERFLOWING) == 0
    # Wide tables do scroll, inside their boxes: what is measured here is not empty.
    assert browser.evaluate("[...document.querySelectorAll('.scroll')].some(box => box.scrollWidth > box.clientWidth)")


def test_dark_page_is_dark_and_figures_keep_their_white_card(rich, browser):
    colors = []
    for dark in (False, True):
        browser.open(rich.path / "report.html", width=900, dark=dark)
        assert browser.complaints() == []
        colors.append(browser.evaluate("getComputedStyle(document.body).backgroundColor"))
        assert browser.evaluate("getComputedStyle(document.querySelector('.card')).backgroundColor") == (
            "rgb(255, 255, 255)"
        )
    assert [sum(map(int, color[4:-1].split(","))) > 384 for color in colors] == [True, False]


def test_browser_notices_what_it_is_asked_to_notice(tmp_path, browser):
    page = tmp_path / "bad.html"
    page.write_text(
        '<link rel="icon" href="data:,"><img src="https://example.invalid/x.png"><div style="width: 2000px">wide</div>'
        '<script>console.error("one"); missing()</script>'
    )
    browser.open(page, width=380)
    assert "https://example.invalid/x.png" in browser.requests()
    methods = {event["method"] for event in browser.events} & COMPLAINTS
    assert methods == COMPLAINTS  # console.error, the exception, the failed load
    scroll_width, client_width, _ = browser.evaluate(SIZES)
    assert scroll_width > client_width
