"""A policy in force: what it stops, before any packet, and what it does not touch."""

from __future__ import annotations

import _socket
import asyncio
import contextlib
import gc
import os
import select
import shutil
import socket as stock
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import tracesock as socket
from tracesock import _native, audit

from .conftest import child_environment

Enforce = Callable[[str], audit.Policy]

DENY = """
    default = "allow"
    [[rule]]
    id = "no-loop"
    action = "deny"
    cidr = "127.0.0.0/8"
    port = {port}
"""


@pytest.fixture
def server() -> Iterator[Any]:
    """A listener of the standard library's, on IPv4 and IPv6 loopback at one port."""
    with stock.socket(stock.AF_INET6) as sock:
        sock.setsockopt(stock.IPPROTO_IPV6, stock.IPV6_V6ONLY, 0)
        sock.bind(("::", 0))
        sock.listen()
        yield sock


@pytest.fixture
def receiver() -> Iterator[Any]:
    with stock.socket(stock.AF_INET, stock.SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.1", 0))
        yield sock


def port_of(sock: Any) -> int:
    return int(sock.getsockname()[1])


def untouched(sock: Any) -> bool:
    """Whether nothing has come in. Loopback delivers before the sender's call returns."""
    return not select.select([sock], [], [], 0)[0]


def touched(sock: Any) -> bool:
    """Whether something comes in."""
    return bool(select.select([sock], [], [], 30)[0])


def denied(rule: str = "no-loop") -> Any:
    return pytest.raises(PermissionError, match=f"rule '{rule}'")


@pytest.mark.parametrize(
    "host",
    [
        *("127.0.0.1", "127.1", "0x7f.1", "0177.0.0.1", "2130706433", "0x7f000001", "127.0.1"),
        *("127.9.8.7", "localhost", "0.0.0.0", "0", b"127.0.0.1"),
    ],
)
def test_connect_by_every_spelling(enforce: Enforce, server: Any, host: Any) -> None:
    enforce(DENY.format(port=port_of(server)))
    for connect in (socket.socket.connect, socket.socket.connect_ex):
        with socket.socket() as sock, denied() as caught:
            connect(sock, (host, port_of(server)))
        assert caught.value.rule == "no-loop"  # type: ignore[attr-defined]
        assert caught.value.errno == 1
    assert untouched(server)


@pytest.mark.parametrize("host", ["::ffff:127.0.0.1", "::ffff:7f00:1", "::ffff:0.0.0.0"])
def test_mapped_addresses(enforce: Enforce, server: Any, host: str) -> None:
    enforce(DENY.format(port=port_of(server)))
    for connect in (socket.socket.connect, socket.socket.connect_ex):
        with socket.socket(socket.AF_INET6) as sock, denied():
            connect(sock, (host, port_of(server)))
    assert untouched(server)


def test_another_port_passes(enforce: Enforce, server: Any) -> None:
    enforce(DENY.format(port=1))
    socket.create_connection(("127.0.0.1", port_of(server))).close()
    assert touched(server)


def test_create_connection_and_urllib(
    enforce: Enforce, server: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    enforce(DENY.format(port=port_of(server)))
    with denied():
        socket.create_connection(("localhost", port_of(server)))
    monkeypatch.setattr("http.client.socket", socket)
    with pytest.raises(urllib.error.URLError) as caught:
        urllib.request.urlopen(f"http://127.0.0.1:{port_of(server)}/", timeout=5)
    assert isinstance(caught.value.reason, PermissionError)
    assert "no-loop" in str(caught.value.reason)
    assert untouched(server)


def test_datagrams(enforce: Enforce, receiver: Any) -> None:
    to = receiver.getsockname()
    enforce(DENY.format(port=to[1]))
    with socket.socket(type=socket.SOCK_DGRAM) as sock:
        for send in (
            lambda: sock.sendto(b"x", to),
            lambda: sock.sendto(b"x", 0, to),
            lambda: sock.sendto(bytearray(b"x"), to),
            lambda: sock.sendmsg([b"x"], [], 0, to),
            lambda: sock.connect(to),
            lambda: sock.connect_ex(to),
        ):
            with denied():
                send()
    with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as sock, denied():
        sock.sendto(b"x", ("::ffff:127.0.0.1", to[1]))
    assert untouched(receiver)


def test_a_socket_that_was_connected_before_the_policy(enforce: Enforce, receiver: Any) -> None:
    to = receiver.getsockname()
    with socket.socket(type=socket.SOCK_DGRAM) as sock:
        sock.connect(to)
        sock.send(b"before")
        assert receiver.recv(10) == b"before"
        enforce(DENY.format(port=to[1]))
        for send in (
            lambda: sock.send(b"x"),
            lambda: sock.sendall(b"x"),
            lambda: sock.sendmsg([b"x"]),
            lambda: sock.send(b"x", socket.MSG_DONTWAIT),
        ):
            with denied():
                send()
        # Leave for another peer is no leave for this one.
        assert sock.sendto(b"y", ("127.0.0.1", 9)) == 1
        with denied():
            sock.send(b"x")
        with open(__file__, "rb") as file, denied():
            _native.Socket._sendfile(sock, file.fileno(), 0, 10)
        assert untouched(receiver)
        audit.clear_policy()
        sock.send(b"after")
        assert receiver.recv(10) == b"after"


def test_an_adopted_datagram_socket_whatever_it_says_it_is(enforce: Enforce, receiver: Any) -> None:
    to = receiver.getsockname()
    enforce(DENY.format(port=to[1]))
    theirs = stock.socket(type=stock.SOCK_DGRAM)
    theirs.connect(to)
    fd = theirs.detach()
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM, 0, fd) as sock, denied():
        sock.send(b"x")
    assert untouched(receiver)


def test_an_established_stream_goes_on(enforce: Enforce, server: Any) -> None:
    with socket.create_connection(("127.0.0.1", port_of(server))) as sock:
        peer, _ = server.accept()
        enforce(DENY.format(port=port_of(server)))
        sock.sendall(b"still")
        assert peer.recv(10) == b"still"
        peer.close()


def test_tcp_fast_open(enforce: Enforce, server: Any) -> None:
    enforce(DENY.format(port=port_of(server)))
    to = ("127.0.0.1", port_of(server))
    with socket.socket() as sock:
        with denied():
            sock.sendto(b"x", socket.MSG_FASTOPEN, to)
        with denied():
            sock.sendmsg([b"x"], [], socket.MSG_FASTOPEN, to)
    assert untouched(server)


def test_the_native_type_directly(enforce: Enforce, server: Any, receiver: Any) -> None:
    enforce(DENY.format(port=port_of(server)))
    to = ("127.0.0.1", port_of(server))
    native = _native.Socket
    with socket.socket() as sock:
        for call in (native.connect, native.connect_ex):
            with denied():
                call(sock, to)
            with denied():
                call(sock, socket.Address(socket.AF_INET, to))
    bare = native(socket.AF_INET, socket.SOCK_STREAM, 0)
    with denied():
        bare.connect(to)
    bare.close()
    enforce(DENY.format(port=port_of(receiver)))
    bare = native(socket.AF_INET, socket.SOCK_DGRAM, 0)
    with denied():
        bare.sendto(b"x", receiver.getsockname())
    with denied():
        bare.sendmsg([b"x"], [], 0, receiver.getsockname())
    bare.close()
    assert untouched(server) and untouched(receiver)


def test_subclasses(enforce: Enforce, server: Any) -> None:
    class Sub(socket.socket):
        pass

    enforce(DENY.format(port=port_of(server)))
    with Sub() as sock, denied():
        sock.connect(("127.0.0.1", port_of(server)))
    assert untouched(server)


def base_calls(sock: Any, to: tuple[str, int]) -> Iterator[Callable[[], object]]:
    """The calls of CPython's own type with a peer."""
    base = _socket.socket
    yield lambda: base.connect(sock, to)
    yield lambda: base.connect_ex(sock, to)
    yield lambda: base.sendto(sock, b"x", to)
    yield lambda: base.sendto(sock, b"x", socket.MSG_FASTOPEN, to)
    yield lambda: base.sendmsg(sock, [b"x"], [], 0, to)


@pytest.mark.parametrize("host", ["127.0.0.1", "127.1", "localhost", b"localhost", "2130706433"])
def test_the_base_type_directly(enforce: Enforce, server: Any, receiver: Any, host: Any) -> None:
    """An instance of a subclass has a base with the descriptor in it, for `ssl` to read."""

    class Sub(socket.socket):
        pass

    enforce(DENY.format(port=port_of(server)))
    with Sub() as sock:
        for call in base_calls(sock, (host, port_of(server))):
            with denied():
                call()
    with socket.socket() as sock:
        _socket.socket.__init__(sock)  # fills the base of an exact instance as well
        for call in base_calls(sock, (host, port_of(server))):
            with denied():
                call()
        _socket.socket.close(sock)
    enforce(DENY.format(port=port_of(receiver)))
    with Sub(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        for call in base_calls(sock, (host, port_of(receiver))):
            with denied():
                call()
        # The peer that it has already.
        audit.clear_policy()
        sock.connect(receiver.getsockname())
        enforce(DENY.format(port=port_of(receiver)))
        with denied():
            _socket.socket.sendmsg(sock, [b"x"])
    assert untouched(server) and untouched(receiver)


def test_the_base_type_from_a_hook(enforce: Enforce, server: Any) -> None:
    """A subscriber that is told of an allowed call cannot make another one of its kind."""

    class Sub(socket.socket):
        pass

    outcomes: list[object] = []
    enforce(DENY.format(port=port_of(server)))

    def told(event: str, args: tuple[Any, ...]) -> None:
        with Sub() as inner:
            try:
                _socket.socket.connect(inner, ("127.0.0.1", port_of(server)))
            except PermissionError as error:
                outcomes.append(error.rule)  # type: ignore[attr-defined]
            try:
                # The very objects of the event.
                _socket.socket.connect(args[0], args[1])
            except OSError as error:
                outcomes.append(type(error))

    with audit.subscribe(told, events="socket.connect"), Sub() as sock, denied():
        sock.connect(("127.0.0.1", port_of(server)))
    assert outcomes == ["no-loop", PermissionError]
    assert untouched(server)


def test_stock_sockets_are_not_tracesocks(enforce: Enforce, server: Any) -> None:
    """But where the whole process is on tracesock: see test_run.py."""
    enforce(DENY.format(port=port_of(server)))
    with stock.create_connection(("127.0.0.1", port_of(server))):
        assert touched(server)


def test_a_hook_that_refuses_ours(run: Any) -> None:
    """Then the base type's calls could not be judged: no policy without them."""
    done = run(
        """
        import sys
        def refuse(event, args):
            if event == "sys.addaudithook":
                raise RuntimeError("no more hooks")
        sys.addaudithook(refuse)
        import tracesock
        from tracesock import audit
        from tracesock.audit.policy import parse_policy
        try:
            audit.use_policy(parse_policy(b'default = "deny"'))
        except RuntimeError as error:
            print(error)
        assert audit.current_policy() is None
        """
    )
    assert "an earlier audit hook refuses further hooks" in done.stdout, done.stderr


def test_asyncio(enforce: Enforce, server: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    enforce(DENY.format(port=port_of(server)))

    async def connect() -> None:
        loop = asyncio.get_running_loop()
        with socket.socket() as sock:
            sock.setblocking(False)
            await loop.sock_connect(sock, ("127.0.0.1", port_of(server)))

    with denied():
        asyncio.run(connect())
    assert untouched(server)


def test_the_socket_is_as_it_was(enforce: Enforce, server: Any) -> None:
    enforce(DENY.format(port=port_of(server)))
    other = stock.create_server(("127.0.0.1", 0))
    with socket.socket() as sock:
        with denied():
            sock.connect(("127.0.0.1", port_of(server)))
        sock.connect(other.getsockname())  # not connected, not closed, not bound
    other.close()


def test_the_event_comes_first_and_has_the_callers_address(enforce: Enforce, server: Any) -> None:
    enforce(DENY.format(port=port_of(server)))
    seen: list[Any] = []
    watching = audit.subscribe(lambda event, args: seen.append(args[1]), events="socket.connect")
    with watching, socket.socket() as sock, denied():
        sock.connect(("127.1", port_of(server)))
    assert seen == [("127.1", port_of(server))]


# --- families and addresses that are not the internet ---------------------------------------------


def test_unix_sockets_by_their_family(enforce: Enforce, tmp_path: Any) -> None:
    path = str(tmp_path / "s")
    with stock.socket(stock.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen()
        enforce('default = "deny"')
        with socket.socket(socket.AF_UNIX) as sock, denied("default"):
            sock.connect(path)
        enforce('default = "deny"\n[[rule]]\nid = "u"\naction = "allow"\nfamily = "unix"')
        with socket.socket(socket.AF_UNIX) as sock:
            sock.connect(path)
    with socket.socket() as sock, denied("default"):
        sock.connect(("127.0.0.1", 9))
    one, other = socket.socketpair()  # nobody is connected to
    one.sendall(b"x")
    assert other.recv(1) == b"x"
    one.close()
    other.close()


def test_a_bound_socket_and_the_unspecified_address(enforce: Enforce) -> None:
    """0.0.0.0 is the own address: the one that the socket is bound to."""
    with stock.create_server(("127.0.0.9", 0)) as listener:
        to = ("0.0.0.0", port_of(listener))
        enforce('default = "allow"\n[[rule]]\nid = "nine"\naction = "deny"\ncidr = "127.0.0.9"\n')
        with socket.socket() as sock:
            sock.bind(("127.0.0.9", 0))
            with denied("nine"):
                sock.connect(to)
        assert untouched(listener)


# --- modes, defaults, host names ------------------------------------------------------------------


def test_report_lets_pass_and_counts(enforce: Enforce, server: Any) -> None:
    before = {(rule, action): n for rule, action, n in audit.decisions()}
    enforce('mode = "report"\n' + DENY.format(port=port_of(server)).replace("no-loop", "told"))
    socket.create_connection(("127.0.0.1", port_of(server))).close()
    after = {(rule, action): n for rule, action, n in audit.decisions()}
    assert after["told", "would_deny"] - before.get(("told", "would_deny"), 0) == 1


def test_counts_survive_a_reload(enforce: Enforce, server: Any) -> None:
    text = DENY.format(port=port_of(server)).replace("no-loop", "counted")
    for _ in range(3):
        enforce(text)
        with socket.socket() as sock, denied("counted"):
            sock.connect(("127.0.0.1", port_of(server)))
    assert ("counted", "deny", 3) in audit.decisions()


def test_a_host_rule_is_what_the_own_look_up_returned(enforce: Enforce, server: Any) -> None:
    enforce(
        f"""
        default = "deny"
        [[rule]]
        id = "by-name"
        action = "allow"
        host = ["LocalHost."]
        port = {port_of(server)}
        """
    )
    address = ("127.0.0.1", port_of(server))
    # An address that nobody has looked up by that name is not the name's.
    with socket.socket() as sock, denied("default"):
        sock.connect(("127.8.8.8", port_of(server)))
    socket.create_connection(("localhost", port_of(server))).close()
    with socket.socket() as sock:
        sock.connect(address)  # the look-up above has named it
    with socket.socket() as sock:
        sock.connect(("localhost", port_of(server)))
    assert any(rule == "by-name" for rule, _, _ in audit.decisions())


REBINDING = """
import os, subprocess, sys, threading
import socket as stock
import tracesock as socket
from tracesock import audit

# A name server whose answers alternate: the allowed address, then the denied one.
queries = []
server = stock.socket(type=stock.SOCK_DGRAM)
server.bind(("127.0.0.1", 53))

def serve():
    while True:
        data, client = server.recvfrom(512)
        asked = question(data)
        kind = int.from_bytes(asked[-4:-2], "big")
        answers = b""
        if kind == 1:
            queries.append(client)
            last = b"\\x01" if len(queries) % 2 else b"\\x42"
            answers = b"\\xc0\\x0c\\0\\1\\0\\1\\0\\0\\0\\0\\0\\4\\x7f\\0\\0" + last
        head = data[:2] + b"\\x81\\x80\\0\\1\\0" + (b"\\1" if answers else b"\\0") + b"\\0\\0\\0\\0"
        server.sendto(head + asked + answers, client)

def question(data):
    end = 12
    while data[end]:
        end += data[end] + 1
    return data[12 : end + 5]

threading.Thread(target=serve, daemon=True).start()
listener = stock.socket()
listener.bind(("0.0.0.0", 8443))
listener.listen()
audit.load_policy(sys.argv[1])
outcomes = []
for turn in range(6):
    before = len(queries)
    with socket.socket() as sock:
        try:
            sock.connect(("flip.test", 8443))
        except PermissionError as error:
            outcomes.append(error.rule)
        else:
            outcomes.append(sock.getpeername()[0])
    assert len(queries) - before == 1, queries
print(outcomes)
"""


@pytest.mark.skipif(
    os.geteuid() != 0 or not shutil.which("unshare") or not shutil.which("ip"),
    reason="needs root, unshare(1) and ip(8), for a network namespace with its own name server",
)
def test_a_name_server_that_changes_its_answers(tmp_path: Any) -> None:
    """The look-up whose answer is judged is the one whose answer is connected to."""
    (tmp_path / "resolv").write_text("nameserver 127.0.0.1\n")
    (tmp_path / "nss").write_text("hosts: dns\n")
    (tmp_path / "p.toml").write_text(
        'default = "allow"\n[[rule]]\nid = "sixty-six"\naction = "deny"\ncidr = "127.0.0.66"\n'
    )
    script = (
        "ip link set lo up && mount --bind resolv /etc/resolv.conf &&"
        ' mount --bind nss /etc/nsswitch.conf && exec "$0" -c "$1" p.toml'
    )
    done = subprocess.run(
        ["unshare", "-n", "-m", "sh", "-c", script, sys.executable, REBINDING],
        cwd=tmp_path,
        # One query each, however long its answer takes.
        env=child_environment(RES_OPTIONS="timeout:30 attempts:1"),
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.stdout.strip() == str(["127.0.0.1", "sixty-six"] * 3), done.stderr


def test_no_look_up_but_the_callers(enforce: Enforce, server: Any) -> None:
    """The bytes that were judged are the bytes that the kernel gets: one look-up, not two."""
    enforce(DENY.format(port=port_of(server)))
    looked_up: list[str] = []
    watching = audit.subscribe(lambda event, _: looked_up.append(event), "socket.getaddrinfo")
    with watching, socket.socket() as sock, denied():
        sock.connect(("localhost", port_of(server)))
    assert looked_up == []
    assert untouched(server)


# --- ingress --------------------------------------------------------------------------------------

INGRESS = """
    default = "allow"
    [[rule]]
    id = "not-two"
    action = "deny"
    direction = "ingress"
    cidr = "127.0.0.2"
    port = {port}
"""


def test_a_denied_connection_is_closed_and_accept_goes_on(enforce: Enforce) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        enforce(INGRESS.format(port=port))
        refused = stock.create_connection(("127.0.0.1", port), source_address=("127.0.0.2", 0))
        welcome = stock.create_connection(("127.0.0.1", port), source_address=("127.0.0.3", 0))
        connection, peer = listener.accept()
        assert peer[0] == "127.0.0.3"
        refused.settimeout(10)
        with contextlib.suppress(ConnectionResetError):
            assert refused.recv(1) == b""
        for each in (connection, refused, welcome):
            each.close()


@pytest.mark.parametrize("timeout", [0, 0.2])
def test_when_there_is_nobody_else(enforce: Enforce, timeout: float) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        listener.settimeout(timeout)
        enforce(INGRESS.format(port=port))
        with stock.create_connection(("127.0.0.1", port), source_address=("127.0.0.2", 0)):
            assert touched(listener)
            expected = BlockingIOError if timeout == 0 else TimeoutError
            with pytest.raises(expected):
                listener.accept()


def test_a_policy_that_comes_while_accept_waits(enforce: Enforce) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        got: list[str] = []

        def accept() -> None:
            connection, peer = listener.accept()
            got.append(peer[0])
            connection.close()

        thread = threading.Thread(target=accept)
        thread.start()
        enforce(INGRESS.format(port=port))
        one = stock.create_connection(("127.0.0.1", port), source_address=("127.0.0.2", 0))
        other = stock.create_connection(("127.0.0.1", port), source_address=("127.0.0.4", 0))
        thread.join(30)
        assert got == ["127.0.0.4"]
        one.close()
        other.close()


def test_an_egress_policy_leaves_accept_alone(enforce: Enforce) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        enforce('default = "deny"')
        with stock.create_connection(listener.getsockname()):
            listener.accept()[0].close()


def test_no_descriptor_is_left(enforce: Enforce, server: Any) -> None:
    enforce(INGRESS.format(port=1) + DENY.format(port=port_of(server)).split("\n", 2)[2])
    gc.collect()  # what earlier tests have left goes now
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(50):
        with socket.socket() as sock, denied():
            sock.connect(("127.0.0.1", port_of(server)))
    with socket.create_server(("127.0.0.1", 0)) as listener:
        enforce(INGRESS.format(port=listener.getsockname()[1]))
        listener.settimeout(0)
        for _ in range(20):
            client = stock.create_connection(
                listener.getsockname(), source_address=("127.0.0.2", 0)
            )
            assert touched(listener)
            with client, pytest.raises(BlockingIOError):
                listener.accept()
    assert len(os.listdir("/proc/self/fd")) == before
