"""Trials of attack.py against `reslab serve`: hostile requests, neighbours, a burst, a soak, and the end."""

import asyncio
import os
import re
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import attack_requests as hostile
from attack_found import Found
from serving import burst, load, make_request, milliseconds, write_weights

MAX_MEGABYTES = 500  # beside what the server takes when it is idle
MAX_HEALTH_SECONDS, MAX_P99_SECONDS = 1.0, 2.0
PATIENCE = 60.0  # seconds until an answer is missed
SOAK, GROWTH_MEGABYTES = 20_000, 30
IN_FLIGHT, ENDS = 100, 3


class Server:
    """`reslab serve` of a fresh network on a free port of this machine."""

    def __init__(self, folder: Path) -> None:
        weights = write_weights(folder, name="preact_resnet20")
        command = [sys.executable, "-P", "-m", "reslab", "serve", str(weights), "--port", "0", "--neighbours", "0"]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        found = re.search(r"http://127\.0\.0\.1:(\d+)", line)
        assert found, line
        self.port = int(found[1])

    def ask(self, request: bytes, *, seconds: float = PATIENCE) -> int:
        """Send a request; the status of the answer, 0 where the connection is closed without. Raises: TimeoutError."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=seconds) as connection:
            # The server may answer, and close, before all is sent.
            threading.Thread(target=_send, args=(connection, request)).start()
            return _status(_receive(connection))

    def megabytes(self) -> float:
        """Count the memory of the server and of its children."""
        return sum(map(_resident, [self.process.pid, *_children(self.process.pid)])) / 1e6


def _send(connection: socket.socket, request: bytes) -> None:
    with suppress(OSError):
        connection.sendall(request)


def _receive(connection: socket.socket) -> bytes:
    """Receive until the server closes; the beginning of it."""
    answer = b""
    with suppress(ConnectionError):
        while part := connection.recv(1 << 16):
            answer = (answer + part)[:64]
    return answer


def _status(answer: bytes) -> int:
    found = re.match(rb"HTTP/1\.1 (\d{3}) ", answer)
    return int(found[1]) if found else 0


def _resident(pid: int) -> int:
    with suppress(OSError):
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    return 0


def _children(pid: int) -> list[int]:
    found: list[int] = []
    for path in Path(f"/proc/{pid}/task").glob("*/children"):
        with suppress(OSError):
            found += map(int, path.read_text().split())
    return found


@contextmanager
def serving(folder: Path) -> Iterator[Server]:
    server = Server(folder)
    try:
        for _ in range(20):  # so that everything that starts late has started
            server.ask(hostile.post(hostile.form(*[hostile.small_picture()] * 8)))
        yield server
    finally:
        with suppress(ProcessLookupError):
            server.process.kill()
        server.process.wait()


class Watch:
    """Asks for /healthz and adds up memory all the time; `reset` begins anew."""

    def __init__(self, server: Server) -> None:
        self.server, self.megabytes, self.seconds, self._is_done = server, 0.0, 0.0, threading.Event()
        self._threads = [threading.Thread(target=self._repeat, args=(look,)) for look in (self._weigh, self._probe)]

    def __enter__(self) -> "Watch":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._is_done.set()
        for thread in self._threads:
            thread.join()

    def reset(self) -> None:
        self.megabytes = self.seconds = 0.0

    def _repeat(self, look: Callable[[], None]) -> None:
        while not self._is_done.wait(0.02):
            look()

    def _weigh(self) -> None:
        self.megabytes = max(self.megabytes, self.server.megabytes())

    def _probe(self) -> None:
        began = time.perf_counter()
        with suppress(OSError):
            self.server.ask(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        self.seconds = max(self.seconds, time.perf_counter() - began)


# ---- trials


def attack_by_requests(folder: Path) -> Found:
    """Send every hostile request, one after another; memory and /healthz are watched."""
    found, slowest, largest = Found(), ("", 0.0), ("", 0.0)
    with serving(folder) as server, Watch(server) as watch:
        time.sleep(2)
        idle, alone = server.megabytes(), watch.seconds
        for kind, name, request in _hostile_requests():
            watch.reset()
            began = time.perf_counter()
            try:
                status = server.ask(request)
            except TimeoutError:
                status = -1
            taken = time.perf_counter() - began
            time.sleep(0.1)
            found.counts[kind] += 1
            what = f"{kind}, {name}"
            slowest = max(slowest, (what, watch.seconds), key=lambda each: each[1])
            largest = max(largest, (what, watch.megabytes - idle), key=lambda each: each[1])
            print(f"{what}: {status} in {taken:.2f} s, /healthz {watch.seconds:.2f} s, {watch.megabytes - idle:.0f} MB")
            expected = (403,) if kind == "foreign pages" else (0, 200, 400, 404, 408, 413, 422, 503)
            if status not in expected:
                found.defects.append(f"{what}: status {status}")
            if watch.seconds > MAX_HEALTH_SECONDS:
                found.defects.append(f"{what}: /healthz took {watch.seconds:.2f} s")
            if watch.megabytes - idle > MAX_MEGABYTES:
                found.defects.append(f"{what}: {watch.megabytes - idle:.0f} MB")
        if server.ask(hostile.post(hostile.form(hostile.small_picture()))) != 200:
            found.defects.append("a sound request after all of them is not answered")
    found.figures = {
        "idle_megabytes": round(idle),
        "peak_megabytes_above": round(largest[1]),
        "peak_at": largest[0],
        "healthz_seconds_alone": round(alone, 3),
        "longest_healthz_seconds": round(slowest[1], 3),
        "longest_at": slowest[0],
    }
    return found


def _hostile_requests() -> Iterator[tuple[str, str, bytes]]:
    """Give kind, name and bytes of each."""
    for name, body in hostile.bodies_in_json():
        yield "JSON", name, hostile.post(body, hostile.JSON)
    for name, body, kind in hostile.bodies_of_forms():
        yield "forms", name, hostile.post(body, kind)
    for name, request in hostile.heads():
        yield "heads and chunks", name, request
    for name, files in hostile.pictures():
        yield "pictures", name, hostile.post(hostile.form(*files))
        if sum(map(len, files)) * 4 / 3 < hostile.MOST:
            yield "pictures in JSON", name, hostile.post(hostile.json_of(*files), hostile.JSON)
    small = hostile.small_picture()
    for name, query in hostile.questions():
        yield "questions", name, hostile.post(hostile.form(*[small] * 64), path=hostile.PATH + query)
    for name, headers in hostile.foreign():
        yield "foreign pages", name, hostile.post(hostile.form(small), headers=headers)


def attack_beside_a_neighbour(folder: Path, *, seconds: float = 15.0) -> Found:
    """Let a small client ask all the time while a neighbour sends large or slow pictures, and leaves or waits."""
    large = hostile.large_picture()
    requests = {
        "nobody": b"",
        "64 large pictures": hostile.post(hostile.form(*[large] * min(64, hostile.MOST // (len(large) + 100)))),
        "4 large pictures": hostile.post(hostile.form(*[large] * 4)),
        "64 middling pictures": hostile.post(hostile.form(*[hostile.large_picture(side=1400)] * 64)),
        "JPEGs of many scans": hostile.post(hostile.form(*[hostile.many_scans()[: hostile.MOST // 8]] * 7)),
        "evidence for 64 pictures": hostile.post(
            hostile.form(*[hostile.small_picture()] * 64), path=hostile.PATH + "?heat=true&top=10"
        ),
    }
    found, small = Found(), hostile.post(hostile.form(hostile.small_picture()))
    with serving(folder) as server:
        for name, request in requests.items():
            until = time.monotonic() + seconds
            neighbour = threading.Thread(target=_press, args=(server, request, until, found.counts, name))
            if request:
                neighbour.start()
            taken = []
            while time.monotonic() < until:
                began = time.perf_counter()
                status = server.ask(small)
                taken.append(time.perf_counter() - began)
                found.counts["small requests beside them"] += 1
                if status != 200:
                    found.defects.append(f"beside {name}: status {status}")
            if request:
                neighbour.join()
            figures = milliseconds(taken)
            found.figures[f"beside {name}"] = {**figures, "longest_ms": round(1000 * max(taken), 1)}
            if figures["p99_ms"] > 1000 * MAX_P99_SECONDS:
                found.defects.append(f"beside {name}: p99 {figures['p99_ms'] / 1000:.2f} s")
    return found


def _press(server: Server, request: bytes, until: float, counts: Counter[str], name: str) -> None:
    """Ask again and again; every second time, leave after a second."""
    number = 0
    while time.monotonic() < until:
        number += 1
        with suppress(TimeoutError):
            server.ask(request, seconds=1.0 if number % 2 else max(1.0, until - time.monotonic()))
        counts[f"requests of {name}"] += 1


def attack_by_a_burst(folder: Path) -> Found:
    """Let 1,000 clients connect and ask at the same moment."""
    with serving(folder) as server:
        figures = asyncio.run(burst(server.port, make_request()))
    num = figures.pop("clients")
    found = Found(Counter({"clients at once": num}), figures)
    if figures["answers"] != {"200": num}:
        found.defects.append(f"answers: {figures['answers']}")
    return found


def attack_by_a_soak(folder: Path) -> Found:
    """Ask 20,000 times, and see whether memory grows after the first tenth."""
    request = make_request()
    with serving(folder) as server, Watch(server) as watch:
        asyncio.run(load(server.port, request, num=SOAK // 10))
        before = server.megabytes()
        taken = asyncio.run(load(server.port, request, num=SOAK - SOAK // 10))
        after, longest = server.megabytes(), watch.seconds
    found = Found(Counter({"requests": SOAK}))
    found.figures = {
        "megabytes_after_a_tenth": round(before),
        "megabytes_at_the_end": round(after),
        "longest_healthz_seconds": round(longest, 3),
        **milliseconds(taken),
    }
    if after - before > GROWTH_MEGABYTES:
        found.defects.append(f"memory grew from {before:.0f} to {after:.0f} MB")
    return found


def attack_by_ending(folder: Path) -> Found:
    """End servers while they answer; every request that they have read is answered."""
    found, codes = Found(), Counter[int]()
    request = hostile.post(hostile.form(*[hostile.small_picture()] * 4))
    for number in range(ENDS):
        (part := folder / str(number)).mkdir()
        with serving(part) as server, ExitStack() as stack:
            clients = [
                stack.enter_context(socket.create_connection(("127.0.0.1", server.port), timeout=PATIENCE))
                for _ in range(IN_FLIGHT)
            ]
            for client in clients:
                client.sendall(request)
            while has_unread(server.port):
                time.sleep(0.01)
            server.process.terminate()
            statuses = Counter(_status(_receive(client)) for client in clients)
            codes[server.process.wait(PATIENCE)] += 1
        found.counts["requests in flight"] += IN_FLIGHT
        if statuses != {200: IN_FLIGHT}:
            found.defects.append(f"answers: {dict(statuses)}")
    found.figures["exit_codes"] = {str(code): count for code, count in codes.items()}
    return found


def has_unread(port: int) -> bool:
    """Tell whether a request waits in the system until the server takes it."""
    lines = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return any(int(line[1].split(":")[1], 16) == port and not line[4].endswith(":00000000") for line in lines)


TRIALS: Mapping[str, Callable[[Path], Found]] = {
    "hostile requests": attack_by_requests,
    "neighbours": attack_beside_a_neighbour,
    "burst": attack_by_a_burst,
    "soak": attack_by_a_soak,
    "ends": attack_by_ending,
}
