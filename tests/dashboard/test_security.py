"""Host, Origin, token, headers: who is answered, and who is not."""

from __future__ import annotations

import base64
import contextlib
import http.client
import os
import re
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tracesock.dashboard import live, protocol
from tracesock.dashboard.otlp import PROTOBUF
from tracesock.dashboard.security import Access, is_loopback
from tracesock.dashboard.server import Dashboard, PortInUse, Settings

from .make import Metrics, Spans, decision, log_request, snapshot
from .serving import Served, wait_until

TOKEN = "a-token-of-enough-length"
POST = "POST /v1/traces HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/x-protobuf"


def handshake(port: int, headers: dict[str, str]) -> int:
    """The status that a web socket's opening handshake is answered with."""
    lines = ["GET /live HTTP/1.1", "Upgrade: websocket", "Connection: Upgrade"]
    lines += [f"Sec-WebSocket-Key: {base64.b64encode(os.urandom(16)).decode()}"]
    lines += ["Sec-WebSocket-Version: 13"] + [f"{k}: {v}" for k, v in headers.items()]
    with socket.create_connection(("127.0.0.1", port), timeout=100) as sock:
        sock.sendall("\r\n".join([*lines, "", ""]).encode())
        answer = sock.recv(100)
    return int(answer.split()[1])


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "127.0.0.1.evil.example",
        "localhost.evil.example:80",
        "evil.example@127.0.0.1",
        "169.254.169.254",
        "192.0.2.1",
        "0.0.0.0",
        "127.0.0.1/x",
        "[::ffff:8.8.8.8]",
        "localhost:notaport",
    ],
)
@pytest.mark.parametrize("path", ["/", "/static/app.js", "/api/connections", "/v1/traces"])
def test_a_foreign_host_is_refused(served: Served, host: str, path: str) -> None:
    status, headers, text = served.get(path, host=host)
    assert status == 421
    assert "does not answer to that host name" in text
    assert "content-security-policy" in headers


def test_own_names_are_answered(served: Served) -> None:
    for host in (
        f"127.0.0.1:{served.port}",
        "127.0.0.1",
        "localhost",
        f"LOCALHOST:{served.port}",
        "127.8.9.10",
        "[::1]:80",
    ):
        assert served.get("/", host=host)[0] == 200, host


def test_no_host_or_two_are_400(served: Served) -> None:
    for lines in ("", "Host: localhost\r\nHost: evil.example\r\n"):
        with socket.create_connection(("127.0.0.1", served.port), timeout=100) as sock:
            sock.sendall(f"GET / HTTP/1.1\r\n{lines}Connection: close\r\n\r\n".encode())
            assert sock.recv(100).split()[1] == b"400"


@pytest.mark.parametrize(
    "origin",
    ["http://evil.example", "null", "https://127.0.0.1", "http://127.0.0.1:1", "file://", ""],
)
def test_a_foreign_origin_is_refused(served: Served, origin: str) -> None:
    assert served.get("/", origin=origin)[0] == 403
    headers = {"content-type": PROTOBUF, "origin": origin}
    assert served.request("POST", "/v1/traces", b"", headers)[0] == 403
    assert handshake(served.port, {"Host": f"127.0.0.1:{served.port}", "Origin": origin}) == 403


def test_the_own_origin_is_answered(served: Served) -> None:
    host = f"127.0.0.1:{served.port}"
    assert served.get("/", origin=f"http://{host}")[0] == 200
    assert handshake(served.port, {"Host": host, "Origin": f"http://{host}"}) == 101


def test_the_web_socket_checks_host_and_needs_an_origin(served: Served) -> None:
    host = f"127.0.0.1:{served.port}"
    assert handshake(served.port, {"Host": host}) == 403
    assert handshake(served.port, {"Host": "evil.example", "Origin": "http://evil.example"}) == 403
    cross = {"Host": host, "Origin": f"http://{host}", "Sec-Fetch-Site": "cross-site"}
    assert handshake(served.port, cross) == 403


def test_pages_of_other_sites_get_nothing_but_a_visit(served: Served) -> None:
    def get(site: str, mode: str) -> int:
        return served.get("/", sec_fetch_site=site, sec_fetch_mode=mode)[0]

    assert get("cross-site", "no-cors") == 403
    assert get("same-site", "cors") == 403
    assert get("cross-site", "navigate") == 200
    assert get("none", "navigate") == 200
    assert get("same-origin", "cors") == 200


def test_headers_of_every_answer(served: Served) -> None:
    for path in ("/", "/nothing", "/static/app.css", "/api/status", "/v1/traces"):
        _, headers, _ = served.get(path)
        policy = headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "frame-ancestors 'none'" in policy
        assert "unsafe" not in policy
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["cross-origin-resource-policy"] == "same-origin"
        assert "server" not in headers
    assert served.get("/")[1]["cache-control"] == "no-store"


def test_pages_hold_nothing_inline_and_nothing_foreign(served: Served) -> None:
    served.post("traces", Spans().connect("h.example", 1, error="timed_out").body)
    served.post("logs", log_request("tracesock.connections.snapshot", [snapshot("a")]))
    for path in ("/", "/traces", "/peers", "/dns", "/audit", "/health", "/nothing"):
        page = served.get(path)[2]
        assert not re.search(r"<style|<script(?![^>]* src=)|\bstyle=|\bon\w+=", page), path
        for address in re.findall(r'(?:src|href|action)="([^"]+)"', page):
            assert address.startswith(("/", "#")), address
            assert not address.startswith("//"), address


HOSTILE = "<img src=x onerror=alert(1)>\"'&\u202e\x1b[31m"


def test_hostile_names_are_text_everywhere(served: Served) -> None:
    made = Spans(service=HOSTILE).add(
        f"socket connect {HOSTILE}",
        span=1,
        error=HOSTILE,
        server__address=HOSTILE,
        **{HOSTILE: HOSTILE},
    )
    made.lookup(HOSTILE, span=2, parent=1, dns__answers=[HOSTILE], error=HOSTILE)
    served.post("traces", made.body)
    record = snapshot(HOSTILE, server__address=HOSTILE, code__stacktrace=HOSTILE)
    record["tracesock.connection.state"] = HOSTILE
    served.post("logs", log_request("tracesock.connections.snapshot", [record], HOSTILE))
    served.post(
        "logs",
        log_request(
            "tracesock.audit.decision",
            [
                {
                    "tracesock.audit.action": "deny",
                    "tracesock.audit.rule": HOSTILE,
                    "tracesock.audit.event": HOSTILE,
                    "tracesock.audit.outcome": HOSTILE,
                    "tracesock.audit.chain.id": HOSTILE,
                    "tracesock.audit.sequence": 1,
                    "server.address": HOSTILE,
                }
            ],
        ),
    )
    served.post(
        "logs",
        log_request(
            "tracesock.leak",
            [
                {
                    "tracesock.connection.id": HOSTILE,
                    "tracesock.leak.kind": HOSTILE,
                    "code.stacktrace": HOSTILE,
                }
            ],
        ),
    )
    trace = f"/traces/{(1).to_bytes(16, 'big').hex()}"
    seen = 0
    for path in (
        "/",
        f"/?q={HOSTILE.encode().hex()}",
        "/traces",
        trace,
        f"{trace}?span={(1).to_bytes(8, 'big').hex()}",
        "/peers?range=all",
        "/dns?range=all",
        "/audit",
        "/health",
        "/traces?q=%3Cimg+src%3Dx%3E&range=%3Cimg+src%3Dx%3E",
    ):
        status, _, page = served.get(path)
        assert status == 200, path
        assert "<img" not in page, path
        assert "\u202e" not in page, path
        assert "\x1b" not in page, path
        seen += page.count("&lt;img src=x")
    assert seen > 20


# -- a token -------------------------------------------------------------------------------------


def test_beyond_loopback_a_token_is_needed(tmp_path: Path) -> None:
    for host in ("0.0.0.0", "::", "192.0.2.5", "example.org"):
        assert not is_loopback(host)
        with pytest.raises(ValueError, match="a token is needed"):
            Access(host)
    for host in ("127.0.0.1", "127.9.9.9", "::1", "[::1]", "localhost", "LocalHost"):
        assert is_loopback(host)
        Access(host)
    with pytest.raises(ValueError, match="a token is needed"):
        Dashboard(Settings(tmp_path / "s.sqlite3", host="0.0.0.0", port=0, otlp_port=None))
    with pytest.raises(ValueError, match="at least 16"):
        Access("0.0.0.0", "short")


def test_the_token_guards_everything(start: Callable[..., Served]) -> None:
    served = start(token=TOKEN)
    for path in ("/", "/static/app.js", "/api/connections", "/traces/" + "0" * 32):
        status, headers, text = served.get(path)
        assert status == 401, path
        assert "Bearer" in headers["www-authenticate"]
        assert TOKEN not in text
    assert served.post("traces", b"")[0] == 401
    host = {"Host": "127.0.0.1", "Origin": "http://127.0.0.1"}
    assert handshake(served.port, host) == 403
    assert handshake(served.port, {**host, "Authorization": f"Bearer {TOKEN}"}) == 101
    assert served.get("/", authorization=f"Bearer {TOKEN}")[0] == 200
    assert served.get("/", authorization=f"Bearer {TOKEN}x")[0] == 401
    assert served.get("/", authorization=f"Basic {TOKEN}")[0] == 401
    assert served.post("traces", b"", authorization=f"Bearer {TOKEN}")[0] == 200


def test_the_address_with_the_token_leaves_a_cookie(start: Callable[..., Served]) -> None:
    served = start(token=TOKEN)
    status, headers, _ = served.get(f"/traces?service=a&token={TOKEN}")
    assert (status, headers["location"]) == (303, "/traces?service=a")
    cookie = headers["set-cookie"]
    assert "HttpOnly" in cookie
    assert "SameSite=Strict" in cookie
    name_value = cookie.partition(";")[0]
    assert served.get("/traces", cookie=name_value)[0] == 200
    assert served.get("/traces", cookie=name_value + "x")[0] == 401
    assert served.get("/traces", cookie="\x01=;;;")[0] == 401
    assert served.get("/?token=wrong")[0] == 401
    # Two slashes at the front would be another host.
    assert served.get(f"//evil.example/?token={TOKEN}")[1]["location"] == "/evil.example/"


def test_every_interface_is_asked_by_address_or_known_name(tmp_path: Path) -> None:
    access = Access("0.0.0.0", TOKEN, frozenset({"dash.internal"}))
    for host in ("192.0.2.7:8318", "dash.internal", "localhost", "[2001:db8::1]"):
        assert access.knows_host(host), host
    for host in ("evil.example", "dash.internal.evil.example", "", "a b", "[::1"):
        assert not access.knows_host(host), host
    one = Access("192.0.2.7", TOKEN)
    assert one.knows_host("192.0.2.7:1")
    assert not one.knows_host("192.0.2.8")


def test_a_dashboard_beyond_loopback_answers_with_its_token(start: Callable[..., Served]) -> None:
    served = start(host="0.0.0.0", token=TOKEN)
    assert served.get("/")[0] == 401
    assert served.get("/", authorization=f"Bearer {TOKEN}")[0] == 200
    assert served.get("/", host="evil.example", authorization=f"Bearer {TOKEN}")[0] == 421


# -- the rest ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "path",
    [
        "/static/../server.py",
        "/static/..%2fserver.py",
        "/static/.",
        "/static/app.py",
        "/static/%2e%2e",
        "/static/app.js%00.css",
    ],
)
def test_only_static_files_are_served(served: Served, path: str) -> None:
    assert served.get(path)[0] == 404


class Page:
    """A web socket, opened as a page opens it."""

    def __init__(self, port: int, receive_buffer: int | None = None) -> None:
        from wsproto import ConnectionType, WSConnection
        from wsproto.events import AcceptConnection, Request
        from wsproto.extensions import Extension

        extensions: list[Extension] = []
        host = f"127.0.0.1:{port}"
        self._ws = WSConnection(ConnectionType.CLIENT)
        self.sock = socket.socket()
        self.sock.settimeout(60)
        if receive_buffer is not None:
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        self.sock.connect(("127.0.0.1", port))
        origin = [(b"Origin", f"http://{host}".encode())]
        request = Request(host=host, target="/live", extra_headers=origin, extensions=extensions)
        self.sock.sendall(self._ws.send(request))
        assert isinstance(self.next(), AcceptConnection)

    def say(self, text: str) -> None:
        from wsproto.events import TextMessage

        self.sock.sendall(self._ws.send(TextMessage(data=text)))

    def next(self) -> Any:
        """What comes next; None when the connection has ended."""
        while True:
            for event in self._ws.events():
                return event
            data = self.sock.recv(65536)
            if not data:
                return None
            self._ws.receive_data(data)

    def __enter__(self) -> Page:
        return self

    def __exit__(self, *_: object) -> None:
        self.sock.close()


def test_a_message_that_is_too_long_or_wrong_ends_the_web_socket(served: Served) -> None:
    from wsproto.events import CloseConnection, TextMessage

    def talk(text: str) -> int | None:
        with Page(served.port) as page:
            page.say(text)
            event = page.next()
            if isinstance(event, CloseConnection):
                return int(event.code)
            assert event is None or isinstance(event, TextMessage)
            return 1006 if event is None else None

    assert talk('{"url": "/"}') is None
    assert talk("[" * 10_000) == 1003
    assert talk("3") == 1003
    assert talk('{"url": 3}') == 1003
    assert talk('{"url": "/' + "x" * 9000 + '"}') == 1003
    assert talk('{"url": "/' + "x" * 40_000 + '"}') in (1009, 1006)
    assert talk('{"url": "/no such page"}') is None
    assert served.get("/")[0] == 200


def test_a_port_that_is_taken_is_named(served: Served, tmp_path: Path) -> None:
    with pytest.raises(PortInUse, match=f"port {served.port} on 127.0.0.1 is in use"):
        Dashboard(Settings(tmp_path / "x.sqlite3", port=served.port, otlp_port=None))
    # The second port is only taken where it is free.
    other = Dashboard(Settings(tmp_path / "x.sqlite3", port=0, otlp_port=served.port))
    assert other.otlp_port is None
    other.store.close()
    for sock in other.sockets:
        sock.close()


def test_a_request_line_of_another_kind(served: Served) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", served.port, timeout=100)
    connection.request("DELETE", "/traces")
    assert connection.getresponse().status == 405
    connection.close()


@pytest.mark.parametrize("value", [float("inf"), float("-inf"), float("nan"), 1e308, -1e308, -1.0])
def test_no_number_breaks_a_page(served: Served, value: float) -> None:
    made = Spans().add(
        "socket send 192.0.2.1:443",
        trace=1,
        span=1,
        tracesock__send__stall__duration=value,
        tracesock__tcp__retransmits=value,
        tracesock__send__size=value,
        network__peer__address="192.0.2.1",
        network__peer__port=value,
    )
    assert served.post("traces", made.body)[0] == 200
    shown = {
        key: value
        for key, each in snapshot("1").items()
        if isinstance(each, (int, float)) and not isinstance(each, bool)
    }
    for event in ("tracesock.connections.snapshot", "tracesock.leak"):
        record = {**snapshot("1"), **shown, "tracesock.leak.kind": "close_wait"}
        assert served.post("logs", log_request(event, [record]))[0] == 200
    record = {**decision(1), "tracesock.audit.duration": value, "tracesock.audit.sequence": value}
    assert served.post("logs", log_request("tracesock.audit.decision", [record]))[0] == 200
    metrics = Metrics()
    for name in (
        "process.unix.file_descriptor.count",
        "tracesock.descriptor.limit",
        "tracesock.ephemeral_port.limit",
        "tracesock.listen.queue.length",
        "tracesock.listen.queue.limit",
        "tracesock.connection.count",
    ):
        metrics.gauge(name, value)
    metrics.histogram("tracesock.connect.duration", [0.1, value], [1, 2, 3])
    assert served.post("metrics", metrics.body)[0] in (200, 400)
    for path in ("/", "/traces", f"/traces/{1:032x}?span={1:016x}", "/peers", "/dns", "/audit"):
        assert served.get(path)[0] == 200, path
    assert served.get("/health")[0] == 200
    assert served.get("/api/connections")[0] == 200
    for name in ("otlp", "perfetto"):
        assert served.get(f"/traces/{1:032x}/{name}.json")[0] == 200


# -- time ------------------------------------------------------------------------------------------


def test_who_never_says_what_he_wants_shuts_nobody_out(
    start: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(protocol, "HEAD_TIMEOUT", 1.0)
    served: Served = start()
    # Silent ones, ones with half a head, and ones that come back with half a second request.
    waiting = contextlib.ExitStack()
    socks = []
    for i in range(600):
        socks.append(waiting.enter_context(socket.create_connection(("127.0.0.1", served.port))))
        if i % 3:
            socks[-1].sendall(b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n")
    ask = b"GET /favicon.ico HTTP/1.1\r\nHost: 127.0.0.1\r\n"

    def answers() -> bool:
        try:
            return served.get("/api/status")[0] == 200
        except OSError:
            return False

    with waiting:
        assert wait_until(answers, 60)
        again = waiting.enter_context(socket.create_connection(("127.0.0.1", served.port), 60))
        again.sendall(ask + b"\r\n")
        assert again.recv(65536).startswith(b"HTTP/1.1 200")
        again.sendall(ask)
        with contextlib.suppress(ConnectionResetError):
            while again.recv(65536):
                pass
        # One that was one too many has been told so before.
        for sock in socks:
            sock.settimeout(60)
            with contextlib.suppress(ConnectionResetError):
                while sock.recv(65536):
                    pass


def test_a_request_that_is_slow_and_a_page_that_stays_open_are_no_waiting(
    start: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(protocol, "HEAD_TIMEOUT", 1.0)
    served: Served = start()
    body = Spans().add("slowly", trace=1).body
    with socket.create_connection(("127.0.0.1", served.port), 30) as sock:
        sock.sendall(f"{POST}\r\nContent-Length: {len(body)}\r\n\r\n".encode())
        time.sleep(2)
        sock.sendall(body)
        assert sock.recv(65536).startswith(b"HTTP/1.1 200")
        # Kept alive, and quiet between two requests.
        time.sleep(2)
        sock.sendall(b"GET /api/status HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
        assert sock.recv(65536).startswith(b"HTTP/1.1 200")


def connections(served: Served) -> int:
    """The connections that the server holds."""
    server = served.dashboard._server
    assert server is not None
    return len(server.server_state.connections)


def test_who_never_reads_his_answers_is_ended(start: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(protocol, "STALL_TIMEOUT", 1.0)
    served: Served = start()
    request = b"GET /static/app.css HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"
    with socket.socket() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        sock.connect(("127.0.0.1", served.port))
        assert wait_until(lambda: connections(served) == 1)
        sock.sendall(request * 200)
        assert wait_until(lambda: connections(served) == 0, 30)
        sock.settimeout(60)
        received = 0
        with contextlib.suppress(ConnectionResetError):
            while data := sock.recv(1 << 20):
                received += len(data)
    answer = len(served.get("/static/app.css")[2])
    assert received < 200 * answer


def test_who_reads_slowly_gets_it_all(start: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(protocol, "STALL_TIMEOUT", 2.0)
    served: Served = start()
    answer = len(served.get("/static/app.css")[2])
    ask = b"GET /static/app.css HTTP/1.1\r\nHost: 127.0.0.1\r\n"
    with socket.socket() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        sock.connect(("127.0.0.1", served.port))
        sock.settimeout(60)
        count = 4_000_000 // answer
        sock.sendall(b"".join([ask + b"\r\n"] * (count - 1) + [ask + b"Connection: close\r\n\r\n"]))
        received, began = 0, time.monotonic()
        while data := sock.recv(1 << 16):
            received += len(data)
            # Half a megabyte a second: several times STALL_TIMEOUT for it all.
            time.sleep(max(0.0, began + received / 500_000 - time.monotonic()))
    assert received > count * answer


def test_a_body_that_goes_on_after_its_answer_is_ended(
    start: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(protocol, "BODY_TIMEOUT", 1.0)
    served: Served = start()
    head = b"POST /nothing HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 100000\r\n\r\n"

    def refused(sock: socket.socket) -> bytes:
        sock.sendall(head)
        answer = b""
        while not answer.endswith(b"</html>"):
            data = sock.recv(65536)
            assert data, answer
            answer += data
        return answer

    with socket.create_connection(("127.0.0.1", served.port), 60) as sock:
        assert refused(sock).startswith(b"HTTP/1.1 404")
        ended = time.monotonic() + 60
        with pytest.raises((ConnectionResetError, BrokenPipeError)):
            while time.monotonic() < ended:
                sock.sendall(b"x")
                time.sleep(0.05)
    # One that sends the rest in time may ask again.
    with socket.create_connection(("127.0.0.1", served.port), 60) as sock:
        assert refused(sock).startswith(b"HTTP/1.1 404")
        sock.sendall(b"x" * 100_000)
        time.sleep(2)
        sock.sendall(b"GET /favicon.ico HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
        assert sock.recv(65536).startswith(b"HTTP/1.1 200")


def test_too_many_connections_end_the_one_that_waited_longest(
    start: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(protocol, "MAX_CONNECTIONS", 20)
    served: Served = start()
    body = Spans().add("in time", trace=1).body
    with contextlib.ExitStack() as stack:
        busy = stack.enter_context(socket.create_connection(("127.0.0.1", served.port), 60))
        busy.sendall(f"{POST}\r\nContent-Length: {len(body)}\r\n\r\n".encode())
        page = stack.enter_context(Page(served.port))
        page.say('{"url": "/"}')
        assert page.next() is not None
        silent = []
        for _ in range(60):
            silent.append(
                stack.enter_context(socket.create_connection(("127.0.0.1", served.port), 60))
            )
        assert served.get("/api/status")[0] == 200
        assert wait_until(lambda: connections(served) <= 21)
        with contextlib.suppress(ConnectionResetError):
            assert silent[0].recv(100) == b""
        busy.sendall(body)
        assert busy.recv(65536).startswith(b"HTTP/1.1 200")
        page.say('{"url": "/traces"}')
        while (event := page.next()) is not None and '"/traces"' not in getattr(event, "data", ""):
            pass
        assert event is not None


def test_a_web_socket_that_names_no_page_is_ended(
    start: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from wsproto.events import CloseConnection

    monkeypatch.setattr(live, "FIRST_MESSAGE_TIMEOUT", 0.5)
    with Page(start().port) as page:
        event = page.next()
        assert isinstance(event, CloseConnection) and event.code == 1008


def test_a_web_socket_that_reads_nothing_is_ended(
    start: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(protocol, "STALL_TIMEOUT", 1.0)
    served: Served = start()
    for trace in range(60):
        served.post("traces", Spans().connect("db.example", 5432, trace=trace + 1).body)
    with Page(served.port, receive_buffer=4096) as page:
        asked = 0

        def ended() -> bool:
            nonlocal asked
            asked += 1
            with contextlib.suppress(OSError):
                page.say(f'{{"url": "/traces?q={"" if asked % 2 else "db"}"}}')
            time.sleep(0.02)
            return served.dashboard.live._open == 0

        page.sock.settimeout(1)
        assert wait_until(ended, 60)
        assert wait_until(lambda: connections(served) == 0)
