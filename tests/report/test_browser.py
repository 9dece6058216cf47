"""The report and the dashboard in a real browser: headless Chromium, spoken to over its debugging pipe."""

import contextlib
import fcntl
import itertools
import json
import math
import os
import re
import select
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fastapi import testclient

from reslab.data.pictures import FORMATS
from reslab.report import interactive, write_report
from reslab.report.interactive import PLOTLY
from reslab.report.printing import print_page
from reslab.serving.app import Access
from reslab.serving.dashboard import Listed, dashboard_app
from reslab.serving.pages import render

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
        actions: list[Any] = [(os.POSIX_SPAWN_DUP2, far[0], 3), (os.POSIX_SPAWN_DUP2, near[1], 4)]
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


ANGLES = """[...document.querySelectorAll('.chart[data-split=test] .xtick text')].map(
    text => /rotate[(](-?[0-9]+)/.exec(text.getAttribute('transform') || '')?.[1] || '0')"""


@pytest.mark.usefixtures("undrawn")
def test_names_under_a_matrix_are_turned_only_where_they_do_not_fit(lean, make_run, browser, monkeypatch):
    monkeypatch.setattr(interactive, "PLOTLY", PLOTLY)  # only the pictures stay undrawn
    browser.open(lean.path / "report.html", width=1200)
    assert set(browser.evaluate(ANGLES)) == {"-45"}
    browser.open(write_report(make_run(classes=tuple("0123456"))), width=400)
    assert set(browser.evaluate(ANGLES)) == {"0"}


def change_data(page: Path, out: Path, change: Callable[[dict[str, Any]], None]) -> Path:
    """Write a page with other data."""

    def replace(found: re.Match[str]) -> str:
        data = json.loads(found[1])
        change(data)
        return found[0].replace(found[1], json.dumps(data).replace("<", r"\u003c"))

    html = page.read_text(encoding="utf-8")
    out.write_text(re.sub('id="data">(.*?)</script>', replace, html, count=1), encoding="utf-8")
    return out


def test_a_matrix_of_many_classes_is_drawn(lean, tmp_path, browser):
    def enlarge(data: dict[str, Any]) -> None:
        data["classes"] = [str(number) for number in range(400)]
        data["splits"]["test"]["matrix"] = np.eye(400, dtype=int).tolist()

    browser.open(change_data(lean.path / "report.html", tmp_path / "many.html", enlarge), width=1200)
    assert browser.complaints() == []
    assert browser.evaluate("document.querySelectorAll('.chart[data-split=test] .heatmaplayer image').length") == 1


def test_charts_follow_the_width_of_their_boxes(rich, browser):
    browser.open(rich.path / "report.html", width=420)
    wide = "[...document.querySelectorAll('.stage')].filter(box => box.scrollWidth > box.clientWidth).length"
    assert browser.evaluate(wide) == 0
    browser.evaluate("document.body.style.width = '400px'")  # as by a scroll bar: the window does not change
    browser.evaluate("new Promise(done => setTimeout(done, 300))")
    assert browser.evaluate(wide) == 0


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


# ---- the page answers


def press(browser, key, *, code=0, text=""):
    for kind in ("rawKeyDown", "char", "keyUp") if text else ("rawKeyDown", "keyUp"):
        browser.ask("Input.dispatchKeyEvent", type=kind, key=key, text=text, windowsVirtualKeyCode=code)


def focus(browser, selector):
    browser.evaluate(f"document.querySelector({selector!r}).focus()")


def test_a_cell_opened_by_a_click_shows_its_images_with_their_probabilities(rich, browser):
    logits, labels = rich.read_predictions("test")
    predicted = logits.argmax(1)
    i, j = 0, 1  # ants taken for bees
    browser.open(rich.path / "report.html", width=1200)
    place = browser.evaluate("""(() => {
        const div = document.querySelector('.chart[data-split=test]');
        div.scrollIntoView({block: 'center'});
        const box = div.querySelector('.nsewdrag').getBoundingClientRect();
        return [box.left + box.width * 1.5 / 3, box.top + box.height * 0.5 / 3];
    })()""")
    browser.evaluate("new Promise(done => setTimeout(done, 200))")
    for kind, buttons in (("mouseMoved", 0), ("mousePressed", 1), ("mouseReleased", 0)):
        where = {"x": place[0], "y": place[1], "button": "none" if kind == "mouseMoved" else "left"}
        browser.ask("Input.dispatchMouseEvent", type=kind, **where, buttons=buttons, clickCount=1)
        browser.evaluate("new Promise(done => requestAnimationFrame(() => setTimeout(done, 100)))")
    panel = browser.evaluate("document.getElementById('cell-test').innerText")
    assert "ant, taken for bee" in panel
    kept = rich.path / "gallery-test.npz"
    with np.load(kept) as file:
        indices = [index for index in file["indices"] if labels[index] == i and predicted[index] == j]
        pixels = dict(zip(file["indices"].tolist(), file["images"], strict=True))
    probabilities = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    indices.sort(key=lambda index: -round(float(probabilities[index].max()), 4))
    assert 0 < len(indices) <= 24
    names = browser.evaluate("[...document.querySelectorAll('#cell-test canvas')].map(c => c.ariaLabel)")
    assert names == [f"image {index}, ant" for index in indices]
    said = browser.evaluate("[...document.querySelectorAll('#cell-test li')].map(l => l.innerText)")
    for words, index in zip(said, indices, strict=True):
        assert f"bee {100 * round(float(probabilities[index, j]), 4):.2f}" in words.replace("\u00a0", " ")
    drawn = browser.evaluate("""new Promise(done => requestAnimationFrame(() => { const c = document.querySelector(
        '#cell-test canvas'); done([...c.getContext('2d').getImageData(0, 0, c.width, c.height).data]); }))""")
    np.testing.assert_array_equal(np.array(drawn).reshape(8, 8, 4)[..., :3], pixels[indices[0]].transpose(1, 2, 0))


def test_a_cell_opens_by_the_keyboard(rich, browser):
    browser.open(rich.path / "report.html", width=380)
    focus(browser, ".chart[data-split=train]")
    for key in ("ArrowRight", "ArrowDown"):
        press(browser, key)
    said = browser.evaluate("document.querySelector('.chart[data-split=train]').closest('figure').innerText")
    assert "bee" in said
    press(browser, "Enter", code=13, text="\r")
    assert browser.evaluate("document.querySelectorAll('#cell-train canvas').length") > 0
    assert browser.evaluate(OVERFLOWING) == 0
    assert browser.complaints() == []


def test_the_classes_are_sorted_by_the_keyboard(rich, browser):
    browser.open(rich.path / "report.html", width=900)
    column = "[...document.querySelectorAll('#classes tbody tr')].map(row => parseFloat(row.cells[3].textContent))"
    before = browser.evaluate(column)
    focus(browser, "#classes th:nth-child(4) button")
    press(browser, "Enter", code=13, text="\r")
    assert browser.evaluate(column) == sorted(before, reverse=True)
    press(browser, "Enter", code=13, text="\r")
    assert browser.evaluate(column) == sorted(before)
    assert browser.evaluate("document.querySelector('#classes th:nth-child(4)').ariaSort") == "ascending"


def test_published_networks_are_sorted_by_what_their_figures_mean(rich, browser):
    """By hours and minutes, thousands and millions, not by the digits before them."""
    browser.open(rich.path / "report.html", width=900)
    for column in (2, 5):
        focus(browser, f"table.sortable th:nth-child({column}) button")
        press(browser, "Enter", code=13, text="\r")
        cells = f"[...document.querySelector('table.sortable').tBodies[0].rows].map(row => row.cells[{column - 1}])"
        orders = browser.evaluate(f"{cells}.map(cell => Number(cell.dataset.order))")
        assert len(orders) > 10
        assert orders == sorted(orders, reverse=True)


@pytest.mark.parametrize(("value", "parameters"), [(0.99, 1e9), (0.5, 1e3)])
def test_the_run_and_its_interval_lie_inside_the_chart_of_networks(value, parameters, rich, tmp_path, browser):
    def move(data: dict[str, Any]) -> None:
        field = data["field"]
        field |= {"low": value - 0.05, "high": value + 0.01}
        field["accuracy"][-1], field["parameters"][-1] = value, parameters

    browser.open(change_data(rich.path / "report.html", tmp_path / "moved.html", move), width=1200)
    layout = "document.querySelector('[data-chart=field]')._fullLayout"
    bottom, top = browser.evaluate(f"{layout}.yaxis.range")
    left, right = browser.evaluate(f"{layout}.xaxis.range")
    assert bottom < value - 0.05 < value + 0.01 < top
    assert left < math.log10(parameters) < right


def test_the_cursor_of_the_curves_shows_all_series(rich, browser):
    browser.open(rich.path / "report.html", width=900)
    focus(browser, "[data-chart=curves]")
    press(browser, "End")
    browser.evaluate("new Promise(done => setTimeout(done, 300))")
    said = browser.evaluate("document.querySelector('[data-chart=curves]').closest('figure').innerText")
    last = rich.log[-1]
    for words in (
        "Epoch 6",
        f"training: accuracy (%) {100 * last.train_accuracy:.4g}",
        "validation: loss",
        "learning rate",
    ):
        assert words in said, said
    shown = browser.evaluate("document.querySelector('[data-chart=curves] .hoverlayer').textContent")
    for words in ("training: accuracy", "validation: accuracy", "training: loss", "learning rate"):
        assert words in shown, shown


def test_a_point_of_the_features_shows_its_image(rich, browser):
    browser.open(rich.path / "report.html", width=900)
    focus(browser, "[data-chart=features]")
    press(browser, "ArrowRight")
    browser.evaluate("new Promise(done => setTimeout(done, 300))")
    assert browser.evaluate("document.querySelectorAll('.peek:not([hidden]) canvas').length") == 1
    labels = rich.read_predictions("test").labels
    first = next(index for index in range(0, 180, 3) if labels[index] == 0)
    assert f"image {first}" in browser.evaluate("document.querySelector('.peek').innerText")


def test_the_printed_page_has_pictures_instead_of_charts(rich, browser):
    browser.open(rich.path / "report.html", width=900)
    shown = "[...document.querySelectorAll('{}')].filter(e => e.getClientRects().length).length"
    assert browser.evaluate(shown.format(".chart")) == 6
    assert browser.evaluate(shown.format(".still")) == 0
    browser.ask("Emulation.setEmulatedMedia", media="print")
    assert browser.evaluate(shown.format(".chart")) == 0
    assert browser.evaluate(shown.format(".still")) == 5
    browser.ask("Emulation.setEmulatedMedia", media="")


def test_the_report_is_printed_into_a_pdf(lean):
    path = print_page(lean.path / "report.html")
    assert path == lean.path / "report.pdf"
    assert path.read_bytes().startswith(b"%PDF-")
    assert path.stat().st_size > 50_000


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


# ---- the dashboard's curves

LOSSES = (4.0, 2.0, 1.0, 0.1)
EPOCHS = [
    {"epoch": place + 1, "seconds": 90.0 * (place + 1), "train_loss": loss, "train_accuracy": 1 - loss / 5}
    | {"validation_loss": None, "validation_accuracy": None}
    for place, loss in enumerate(LOSSES)
]
LISTED = Listed(
    name="mine", state="evaluated", epochs=4, num_epochs=4, seconds=900.0, recipe="digits", data="digits"
).model_dump()
SHOWN = """(() => {
    const [, loss] = document.querySelectorAll("figure"), texts = [...loss.querySelectorAll("text")];
    const numbers = [...loss.querySelectorAll("path")].map(path => [path.getAttribute("class"),
        path.getAttribute("d").slice(1).split("L").map(point => point.split(",").map(Number))]);
    return {titles: [...document.querySelectorAll("figcaption")].map(each => each.textContent), marks:
        texts.map(each => each.textContent), curves: Object.fromEntries(numbers)};
})()"""
SET = "(() => {{ const input = document.getElementById({!r}); {}; input.dispatchEvent(new Event('input')); }})()"


def open_stubbed(browser: Browser, path: Path, page: str, answers: dict[str, Any], *, before: str = "") -> None:
    """Open a page whose requests get these answers; `before` is done with each `path` first."""
    given = f"({json.dumps(answers)})[path.split('?')[0]]"
    stub = f"<script>window.fetch = async (path) => {{ {before}; return {{ok: true, json: async () => {given}}}; }};"
    path.write_text(re.sub("<script", lambda _: f"{stub}</script><script", page, count=1))
    browser.open(path, width=1200)


@pytest.fixture
def curves(browser, tmp_path):
    """Open the dashboard with one run whose answers are known; give what its chart of losses shows."""
    answers = {"/v1/runs": {"folder": "runs", "runs": [LISTED]}, "/v1/log": EPOCHS}
    open_stubbed(browser, tmp_path / "page.html", render("dashboard").html, answers)

    def shown(name: str = "", setting: str = "") -> dict[str, Any]:
        if name:
            browser.evaluate(SET.format(name, setting))
        assert browser.complaints() == []
        return browser.evaluate(SHOWN)

    return shown


def test_curves_have_linear_axes_by_epochs(curves):
    found = curves()
    assert found["titles"] == ["Accuracy (%)", "Loss (nats)"]
    assert found["marks"] == ["0", "1", "2", "3", "4", "1", "2", "3", "4"]
    (x, y), (end, bottom) = found["curves"]["train"][0], found["curves"]["train"][-1]
    steps = [after[0] - before[0] for before, after in itertools.pairwise(found["curves"]["train"])]
    assert steps == pytest.approx([(end - x) / 3] * 3, abs=0.2)
    heights = [(bottom - each[1]) / (bottom - y) for each in found["curves"]["train"]]
    assert heights == pytest.approx([(loss - 0.1) / 3.9 for loss in LOSSES], abs=0.01)


def test_a_logarithmic_axis_spreads_what_is_small_and_turns_accuracy_into_error(curves):
    found = curves("logarithmic", "input.checked = true")
    assert found["titles"] == ["Error (%)", "Loss (nats)"]
    assert found["marks"] == ["0.1", "0.2", "0.5", "1", "2", "5", "1", "2", "3", "4"]
    heights = [each[1] for each in found["curves"]["train"]]
    drops = [after - before for before, after in itertools.pairwise(heights)]
    assert drops == pytest.approx([drops[0], drops[0], drops[0] * math.log(10) / math.log(2)], abs=0.3)


def test_a_time_axis_places_epochs_by_when_they_ended(curves):
    found = curves("timed", "input.checked = true")
    assert found["marks"][-3:] == ["5 min", "10 min", "15 min"]
    times = [each[0] for each in found["curves"]["train"]]
    assert [(at - times[0]) / (times[-1] - times[0]) for at in times] == pytest.approx([0, 2 / 9, 5 / 9, 1], abs=0.01)


def test_smoothing_shows_a_mean_over_what_was_measured(curves):
    plain = curves()["curves"]["train"]
    found = curves("smoothing", "input.value = 0.5")["curves"]
    assert found["raw"] == plain
    (_, high), (_, low) = plain[0], plain[-1]
    value = lambda y: 0.1 + 3.9 * (low - y) / (low - high)  # noqa: E731
    means = [4, (2 + 2) / 1.5, (1 + 1 + 1) / 1.75, (0.1 + 0.5 + 0.5 + 0.5) / 1.875]
    assert [value(y) for _, y in found["train"]] == pytest.approx(means, abs=0.03)


def test_the_page_of_the_api_shows_every_request(browser, tmp_path):
    """Also one whose answer openapi.json does not describe."""
    with testclient.TestClient(dashboard_app(tmp_path, access=Access()), base_url="http://localhost") as client:
        page, api = client.get("/docs").text, client.get("/openapi.json").json()
    del api["paths"]["/v1/report"]["get"]["responses"]["200"]["content"]
    open_stubbed(browser, tmp_path / "page.html", page, {"/openapi.json": api})
    shown = browser.evaluate("[...document.querySelectorAll('#operations h2 code')].map((each) => each.textContent)")
    assert browser.complaints() == []
    assert shown == list(api["paths"])


FIGURE = {"value": 0.9, "low": 0.8, "high": 1.0}


def test_a_comparison_says_on_how_many_images_it_is(browser, tmp_path):
    listed = [LISTED | {"name": name, "test": FIGURE} for name in ("mine", "yours")]
    row = {"accuracy": FIGURE, "macro_f1": FIGURE, "log_loss": FIGURE}
    mcnemar = {"only_first": 3, "only_second": 1, "p_value": 0.625}
    pair = {"first": "mine", "second": "yours", "mcnemar": mcnemar, "reason": None, "num_shared": 12}
    answers = {
        "/v1/runs": {"folder": "runs", "runs": listed},
        "/v1/log": EPOCHS,
        "/v1/compare": {"rows": [row, row], "pairs": [pair, pair | {"num_shared": None}]},
        "/v1/differences": {},
    }
    open_stubbed(browser, tmp_path / "page.html", render("dashboard").html, answers)
    notes = browser.evaluate("[...document.querySelectorAll('#beside .note')].map((each) => each.textContent)")
    assert browser.complaints() == []
    assert [note.partition(":")[0] for note in notes] == [
        "mine against yours, on the 12 images that both have",
        "mine against yours",
    ]


SERVED = {
    "name": "small",
    "classes": ["1", "7"],
    "network": "plain",
    "calibration": "",
    "neighbours": "",
    "resize": "pad",
}
ANSWER = {"run": "small", "classes": [{"name": "7", "probability": 0.9, "evidence": None}], "nearest": []}


@pytest.fixture
def page_of_a_run(browser, tmp_path):
    """Open the page that classifies pictures; the first request for the run's description fails."""
    answers = {
        "/v1/model": {"runs": [SERVED], "max_bytes": 2**20, "max_pixels": 10**6},
        "/v1/examples": [],
        "/v1/predict": {"pictures": [{"name": "it", "answers": [ANSWER | {"answered": True}]}]},
    }
    once = "if (path === '/v1/model' && !window.asked) { window.asked = true; throw new TypeError('down'); }"
    open_stubbed(browser, tmp_path / "page.html", render("predict").html, answers, before=once)
    return browser


def test_a_picture_is_answered_although_the_description_of_the_run_came_late(page_of_a_run):
    shown = "[...document.querySelectorAll('#results h3, #results .bars button')].map((each) => each.textContent)"
    found = page_of_a_run.evaluate(f"classify(new File(['x'], 'a.png', {{type: 'image/png'}})).then(() => {shown})")
    assert found == ["smallnot calibrated", "790.0 %"]
    assert page_of_a_run.complaints() == []


def test_the_page_takes_what_the_server_can_read(page_of_a_run):
    """Also formats of which the browser knows no type."""
    files = "[['a.heic', ''], ['b.JP2', ''], ['c.png', 'image/png'], ['d.txt', 'text/plain'], ['folder', '']]"
    page_of_a_run.evaluate(f"take({files}.map(([name, type]) => new File(['x'], name, {{type}})))")
    taken = page_of_a_run.evaluate("[...document.querySelectorAll('#results h2')].map((each) => each.textContent)")
    assert sorted(taken) == ["a.heic", "b.JP2", "c.png"]
    told = page_of_a_run.evaluate("document.getElementById('problem').textContent")
    assert all(re.sub(r"(?<=JPEG)2", " 2", name) in told.replace("WebP", "WEBP") for name in FORMATS)
