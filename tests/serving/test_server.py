import asyncio
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from contextlib import suppress

import pytest

from reslab.errors import UserError
from reslab.serving import server
from reslab.serving.app import Access
from reslab.serving.decoding import Decoders
from reslab.serving.guard import Limits
from reslab.serving.server import make_access


def request(content, *, num=1, path="/v1/predict"):
    part = b'--b\r\nContent-Disposition: form-data; name="files"; filename="a.png"\r\n\r\n' + content + b"\r\n"
    body = part * num + b"--b--\r\n"
    head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: multipart/form-data; boundary=b\r\n"
    return head.encode() + f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n".encode() + body


def read_all(connection):
    parts = []
    while part := connection.recv(65536):
        parts.append(part)
    return b"".join(parts)


def ask(port, content):
    with socket.create_connection(("127.0.0.1", port), timeout=30) as connection:
        connection.sendall(request(content))
        return read_all(connection)


def dribble(connection, *, until):
    while time.monotonic() < until:
        connection.sendall(b"x")
        time.sleep(0.1)


def pour(connection):
    line = b"x-filling: " + b"x" * 1000 + b"\r\n"
    for _ in range(100 * server.HEADER_BYTES // len(line)):
        connection.sendall(line)


def test_a_burst_is_answered_whole(make_app, listen, seven):
    port, answers = listen(make_app()), []
    threads = [threading.Thread(target=lambda: answers.append(ask(port, seven))) for _ in range(100)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [answer[:15] for answer in answers] == [b"HTTP/1.1 200 OK"] * 100


def test_slow_clients_are_closed_and_hold_nobody_up(make_app, listen, seven, monkeypatch):
    monkeypatch.setattr(server, "HEADER_SECONDS", 1.0)
    port = listen(make_app(access=Access(limits=Limits(body_seconds=1.0))))
    whole = request(seven)
    silent, in_the_head, in_the_body = (socket.create_connection(("127.0.0.1", port), timeout=20) for _ in range(3))
    began = time.monotonic()
    with silent, in_the_head, in_the_body:
        in_the_head.sendall(whole[:20])
        in_the_body.sendall(whole[:-20])
        assert ask(port, seven).startswith(b"HTTP/1.1 200")
        assert read_all(in_the_body).startswith(b"HTTP/1.1 408")
        with pytest.raises(OSError, match=r"Broken pipe|reset by peer"):
            dribble(in_the_head, until=began + 15)  # a byte now and then buys no time
        assert read_all(silent) == b""
    assert time.monotonic() - began < 15


def test_a_kept_connection_may_be_slow_again_but_not_for_ever(make_app, listen, seven, monkeypatch):
    monkeypatch.setattr(server, "HEADER_SECONDS", 0.5)
    port = listen(make_app())
    with socket.create_connection(("127.0.0.1", port), timeout=20) as connection:
        connection.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
        answer = b""
        while not answer.endswith(b"ok"):  # its head may come alone
            answer += connection.recv(65536)
        time.sleep(0.7)
        connection.sendall(b"GET /healthz HTTP/1.1\r\n")
        began = time.monotonic()
        assert read_all(connection) == b""
        assert 0.2 < time.monotonic() - began < 15


def test_a_head_without_end_is_closed(make_app, listen, seven):
    port = listen(make_app())
    with socket.create_connection(("127.0.0.1", port), timeout=20) as connection:
        connection.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n")
        with pytest.raises(OSError, match=r"Broken pipe|reset by peer"):
            pour(connection)
    assert ask(port, seven).startswith(b"HTTP/1.1 200")


def test_a_head_without_end_is_closed_also_behind_a_request_that_is_being_answered(make_app, listen):
    app, leave = make_app(), threading.Event()

    @app.get("/slow")
    def slow():
        leave.wait(20)

    port = listen(app)
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
            connection.sendall(b"GET /slow HTTP/1.1\r\nHost: localhost\r\n\r\n")
            time.sleep(0.2)
            connection.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n")
            with pytest.raises(OSError, match=r"Broken pipe|reset by peer"):
                pour(connection)
    finally:
        leave.set()


CHUNKED = b"POST /v1/predict HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"


@pytest.mark.parametrize(
    ("sent", "most"),
    [
        (CHUNKED + b"1\r\na\r\n0\r\n" + b"a: b\r\n" * 1_000_000, 0),
        (CHUNKED + b"1;" + b"a" * 4_000_000, 0),
        (CHUNKED + b"1\r\na\r\n" * 1_000_000, 0),
        (b"GET /nothing HTTP/1.1\r\nHost: localhost\r\n\r\n" * 50_000, server.MAX_PIPELINED + 1),
    ],
    ids=["a trailer", "a chunk's extension", "chunks of a byte", "requests"],
)
def test_what_is_no_body_is_bounded(make_app, listen, seven, sent, most):
    port = listen(make_app())
    answers = b""
    with socket.create_connection(("127.0.0.1", port), timeout=30) as connection:
        threading.Thread(target=send_what_is_taken, args=(connection, sent)).start()
        with suppress(ConnectionResetError):
            while part := connection.recv(65536):
                answers += part
    assert answers.count(b"HTTP/1.1 ") <= most
    assert ask(port, seven).startswith(b"HTTP/1.1 200")


def send_what_is_taken(connection, sent):
    with suppress(OSError):
        connection.sendall(sent)


def test_a_body_may_come_in_small_chunks(make_app, listen, seven):
    port = listen(make_app())
    head, _, body = request(seven * 1000).partition(b"\r\n\r\n")  # what follows a PNG's end is not read
    head = head.replace(f"Content-Length: {len(body)}".encode(), b"Transfer-Encoding: chunked")
    chunks = [body[at : at + 16] for at in range(0, len(body), 16)]
    written = b"".join(b"%x\r\n%s\r\n" % (len(chunk), chunk) for chunk in chunks) + b"0\r\n\r\n"
    with socket.create_connection(("127.0.0.1", port), timeout=20) as connection:
        connection.sendall(head + b"\r\n\r\n" + written)
        assert read_all(connection).startswith(b"HTTP/1.1 200")


def test_a_client_that_leaves_leaves_nothing_that_waits(make_app, listen, seven, monkeypatch):
    app, never = make_app(), asyncio.Event()
    monkeypatch.setattr(Decoders, "_start", lambda self, memory: never.wait())  # so that nothing is decoded
    port = listen(app)
    with socket.create_connection(("127.0.0.1", port), timeout=20) as connection:
        connection.sendall(request(seven, num=10))
        wait_for(port, "reslab_waiting_pictures 6.0")  # beside those that are sent together
    wait_for(port, 'reslab_requests_total{path="/v1/predict",status="499"} 1.0')
    wait_for(port, "reslab_waiting_pictures 0.0")


def wait_for(port, line):
    """Wait until Prometheus would read it."""
    deadline = time.monotonic() + 10
    while line.encode() not in get(port, "/metrics"):
        assert time.monotonic() < deadline, get(port, "/metrics")
        time.sleep(0.02)


def get(port, path):
    with socket.create_connection(("127.0.0.1", port), timeout=30) as connection:
        connection.sendall(f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
        return read_all(connection)


def test_requests_may_be_sent_before_the_answers_come(make_app, listen, seven):
    port = listen(make_app())
    first = request(seven).replace(b"Connection: close\r\n", b"")
    with socket.create_connection(("127.0.0.1", port), timeout=30) as connection:
        connection.sendall(first * 2 + request(seven))
        assert read_all(connection).count(b"HTTP/1.1 200 OK") == 3


def test_broken_uploads_do_no_harm(make_app, listen, seven):
    port = listen(make_app())
    whole = request(seven)
    for cut in (10, 200, len(whole) - 5):
        with socket.create_connection(("127.0.0.1", port)) as connection:
            connection.sendall(whole[:cut])  # and gone
    with socket.create_connection(("127.0.0.1", port), timeout=20) as connection:
        connection.sendall(b"\x16\x03\x01 not http at all\r\n\r\n")
        assert read_all(connection).startswith(b"HTTP/1.1 400")
    assert ask(port, seven[: len(seven) // 2]).startswith(b"HTTP/1.1 422")
    assert ask(port, seven).startswith(b"HTTP/1.1 200")


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.8.8", "::1", "localhost"])
def test_this_machine_needs_no_token(host):
    access = make_access(host, token=None)
    assert access.token is None
    assert (f"[{host}]" if ":" in host else host) in access.hosts  # what a request calls the server


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.2", "example.org", ""])
def test_others_need_one(host):
    with pytest.raises(UserError, match="--token"):
        make_access(host, token=None)
    with pytest.raises(UserError, match="can be guessed"):
        make_access(host, token="short")
    assert make_access(host, token="long enough to serve").token == "long enough to serve"


@pytest.mark.parametrize(
    "token", ["секретный-пароль", "naïve but long enough", " a blank before it", "a line\nand more"]
)
def test_a_token_can_be_sent_by_a_browser(token):
    with pytest.raises(UserError, match="a browser cannot send"):
        make_access("127.0.0.1", token=token)


@pytest.mark.parametrize(("token", "status"), [("a secret of length", 401), (None, 413)])
def test_a_client_that_only_sends_hears_why_it_was_refused(make_app, listen, token, status):
    """Closing a connection with unread bytes resets it, and the answer is lost."""
    port = listen(make_app(access=Access(token=token)))
    for _ in range(3):
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
        connection.request("POST", "/v1/predict", body=bytes(40 << 20))
        assert connection.getresponse().status == status
        connection.close()


def test_a_client_that_waits_is_refused_before_it_sends(make_app, listen):
    port = listen(make_app())
    with socket.create_connection(("127.0.0.1", port), timeout=20) as connection:
        head = (
            "POST /v1/predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: 40000000\r\nExpect: 100-continue\r\n\r\n"
        )
        connection.sendall(head.encode())
        assert read_all(connection).startswith(b"HTTP/1.1 413")


def test_the_command_serves_and_ends_when_what_was_asked_is_answered(finished, seven):
    command = [sys.executable, "-m", "reslab", "serve", str(finished.path), "--port", "0", "--neighbours", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        line = process.stdout.readline()
        assert line.startswith("small at http://127.0.0.1:")
        host, port = line.split()[2].rstrip(":").removeprefix("http://").split(":")
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(line.split()[2].rstrip(":") + "/v1/model", timeout=20) as answer:
            assert json.load(answer)["runs"][0]["name"] == "small"
        asked = [socket.create_connection((host, int(port)), timeout=60) for _ in range(20)]
        for connection in asked:
            connection.sendall(request(seven, num=4))
        get(int(port), "/healthz")  # until then those before it are taken
        os.kill(process.pid, signal.SIGINT)
        for connection in asked:
            with connection:
                assert read_all(connection).startswith(b"HTTP/1.1 200")
        rest = process.stdout.read()
    assert (process.returncode, rest) == (0, "")


def test_a_port_that_is_taken_is_named(make_app):
    with (
        socket.create_server(("127.0.0.1", 0)) as taken,
        pytest.raises(UserError, match=r"cannot listen on .* choose another --port"),
    ):
        server.run(make_app(), address=("127.0.0.1", taken.getsockname()[1]), say=print)


def test_an_address_that_is_not_of_this_machine_is_named(make_app):
    with pytest.raises(UserError, match=r"cannot listen on 192.0.2.1:0 \(.*\): choose another --host"):
        server.run(make_app(), address=("192.0.2.1", 0), say=print)
