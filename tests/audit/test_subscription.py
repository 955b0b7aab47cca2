"""Subscriptions: who is told what, and that it ends."""

from __future__ import annotations

import gc
import socket as stock
import sys
import threading
import weakref
from collections.abc import Callable
from typing import Any

import pytest

import tracesock as socket
from tracesock import _native, audit


class Seen:
    """A callback that remembers."""

    def __init__(self) -> None:
        self.events: list[tuple[str, tuple[Any, ...]]] = []

    def __call__(self, event: str, args: tuple[Any, ...]) -> None:
        self.events.append((event, args))

    @property
    def names(self) -> list[str]:
        return [event for event, _ in self.events]


def test_every_event_of_everybody_until_it_ends() -> None:
    seen = Seen()
    subscription = audit.subscribe(seen)
    for module in (socket, stock):
        with module.socket(module.AF_INET, module.SOCK_DGRAM) as sock:
            sock.bind(("127.0.0.1", 0))
            module.getaddrinfo("127.0.0.1", 1)
    expected = ["socket.__new__", "socket.bind", "socket.getaddrinfo"] * 2
    assert seen.names == expected
    assert type(seen.events[0][1][0]) is socket.socket
    assert type(seen.events[3][1][0]) is stock.socket
    subscription.unsubscribe()
    subscription.unsubscribe()
    with socket.socket():
        stock.gethostname()
    assert seen.names == expected


def test_only_what_was_asked_for() -> None:
    seen = Seen()
    with audit.subscribe(seen, events=["socket.bind", "socket.gethost*"]):
        with socket.socket(type=socket.SOCK_DGRAM) as sock:
            sock.bind(("127.0.0.1", 0))
        socket.gethostname()
        sys.audit("socket.future", 1)
        sys.audit("other.socket.bind", 1)
    assert seen.names == ["socket.bind", "socket.gethostname"]
    with audit.subscribe(seen, events="socket.*"):
        sys.audit("socket.future", 1)
    assert seen.names[-1] == "socket.future"


@pytest.mark.parametrize("bad", ["socket.nosuch", "connect", "", "socket"])
def test_an_unknown_event(bad: str) -> None:
    with pytest.raises(ValueError, match="no event is called"):
        audit.subscribe(print, events=bad)


@pytest.mark.parametrize("bad", ["300.1.2.3/8", "a..b", "", "10.0.0.0/33", "ho st"])
def test_an_unknown_peer(bad: str) -> None:
    with pytest.raises(ValueError, match=r"host name|prefix|address"):
        audit.subscribe(print, peers=bad)


def test_a_callback_must_be_callable() -> None:
    with pytest.raises(TypeError, match="callable"):
        audit.subscribe("print")  # type: ignore[arg-type]


def send_to(*addresses: Any) -> None:
    with socket.socket(type=socket.SOCK_DGRAM) as sock:
        for address in addresses:
            sock.sendto(b"x", address)


def test_peers_by_what_they_denote() -> None:
    seen = Seen()
    with audit.subscribe(seen, peers=["127.0.0.0/30", "::1"]):
        send_to(("127.0.0.1", 9), ("127.1", 9), ("0x7f000002", 9), ("127.0.0.9", 9))
        send_to(("0.0.0.0", 9))
        with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as sock:
            for host in ("::1", "::ffff:127.0.0.3", "::", "::ffff:127.0.0.7"):
                sock.sendto(b"x", (host, 9))
        socket.gethostname()  # about nobody
    hosts = [args[1][0] for _, args in seen.events]
    assert hosts == [
        "127.0.0.1", "127.1", "0x7f000002", "0.0.0.0", "::1", "::ffff:127.0.0.3", "::",
    ]  # fmt: skip


def test_peers_by_name() -> None:
    seen = Seen()
    with audit.subscribe(seen, peers="localhost"):
        with pytest.raises(OSError):
            socket.create_connection(("LOCALHOST", 9))
        send_to(("localhost", 9), ("127.99.0.1", 9))
    # Also by the address that a look-up of the name has returned.
    assert "socket.getaddrinfo" in seen.names
    connects = [args[1][0] for event, args in seen.events if event == "socket.connect"]
    assert "127.0.0.1" in connects
    assert seen.events[-1][1][1] == ("localhost", 9)


def test_a_callback_that_raises_stops_the_call() -> None:
    class Veto(Exception):
        pass

    def veto(event: str, args: tuple[Any, ...]) -> None:
        raise Veto(event)

    with stock.socket(stock.AF_INET, stock.SOCK_DGRAM) as receiver:
        receiver.bind(("127.0.0.1", 0))
        receiver.settimeout(30)
        to = receiver.getsockname()
        with socket.socket(type=socket.SOCK_DGRAM) as sock:
            with audit.subscribe(veto, events="socket.sendto"), pytest.raises(Veto):
                sock.sendto(b"no", to)
            data = bytearray(b"no")
            with audit.subscribe(veto, events="socket.sendmsg"), pytest.raises(Veto):
                sock.sendmsg([data], [], 0, to)
            data.append(1)  # nothing of it is exported
            sock.sendto(b"yes", to)
        assert receiver.recv(10) == b"yes"


def test_what_the_callback_does_is_not_delivered() -> None:
    seen = Seen()

    def busy(event: str, args: tuple[Any, ...]) -> None:
        seen(event, args)
        socket.gethostname()
        stock.gethostname()

    with audit.subscribe(busy):
        socket.gethostname()
    assert seen.names == ["socket.gethostname"]


def test_a_callback_may_end_its_own_and_others_subscriptions() -> None:
    seen = Seen()
    subscriptions: list[audit.Subscription] = []

    def once(event: str, args: tuple[Any, ...]) -> None:
        seen(event, args)
        for subscription in subscriptions:
            subscription.unsubscribe()

    subscriptions += [audit.subscribe(once), audit.subscribe(seen)]
    socket.gethostname()
    socket.gethostname()
    assert len(seen.events) == 2  # both were due when the event was raised


def test_nothing_holds_an_ended_callback() -> None:
    seen = Seen()
    alive = weakref.ref(seen)
    subscription = audit.subscribe(seen)
    subscription.unsubscribe()
    del seen, subscription
    # Given up when the last reader may have left: at the next change at the latest.
    audit.subscribe(print, events="socket.sethostname").unsubscribe()
    gc.collect()
    assert alive() is None
    assert _native.audit.subscriptions() == 0


def test_subscribing_under_fire() -> None:
    stop = threading.Event()
    failures: list[BaseException] = []

    def call() -> None:
        try:
            while not stop.is_set():
                socket.gethostname()
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=call) for _ in range(2)]
    for thread in threads:
        thread.start()
    seen = Seen()
    for _ in range(200):
        with audit.subscribe(seen), audit.subscribe(lambda event, args: None):
            socket.gethostname()
    stop.set()
    for thread in threads:
        thread.join()
    assert not failures
    assert len(seen.events) >= 200


REFUSING = """
import sys

def hook(event, args):
    if event == "sys.addaudithook":
        raise RuntimeError("no further hooks")

sys.addaudithook(hook)
from tracesock import audit
try:
    audit.subscribe(print)
except RuntimeError as error:
    print("refused:", error)
else:
    print("subscribed")
"""


def test_a_hook_that_keeps_others_out_is_noticed(run: Callable[..., Any]) -> None:
    done = run(REFUSING)
    assert done.stdout.startswith("refused: an earlier audit hook refuses"), done.stderr


# --- records --------------------------------------------------------------------------------------


def wait_for(seen: Seen, count: int) -> None:
    for _ in range(6000):
        if len(seen.events) >= count:
            return
        threading.Event().wait(0.01)
    raise AssertionError(seen.events)


@pytest.mark.parametrize("first", ["hook", "subscription", "policy"])
def test_every_other_hook_is_told(run: Callable[..., Any], first: str) -> None:
    """Where this extension's hook is the only one, an event that nobody wants is not raised."""
    code = """
        import sys
        import tracesock as socket
        from tracesock import audit
        from tracesock.audit.policy import parse_policy

        heard = []

        def hook(event, args):
            if event in ("socket.connect", "socket.sendto", "socket.sendmsg"):
                heard.append((event, args[1]))

        if sys.argv[1] == "hook":
            sys.addaudithook(hook)
        if sys.argv[1] == "policy":
            audit.use_policy(parse_policy(b'default = "allow"'))
        else:
            audit.subscribe(print, events="socket.bind")
        prepared = socket.Address(socket.AF_INET, ("127.0.0.1", 9))
        for round in range(2):
            with socket.socket(type=socket.SOCK_DGRAM) as sock:
                sock.sendto(b"x", ("127.0.0.1", 9))
                sock.sendto(b"x", prepared)
                sock.sendmsg([b"x"], [], 0, ("127.0.0.1", 9))
                sock.connect_ex(("127.0.0.1", 9))
            if round == 0 and sys.argv[1] != "hook":
                assert not heard
                sys.addaudithook(hook)
        names = ["socket.sendto", "socket.sendto", "socket.sendmsg", "socket.connect"]
        rounds = 2 if sys.argv[1] == "hook" else 1
        assert heard == [(name, ("127.0.0.1", 9)) for name in names] * rounds, heard
    """
    done = run(code, first)
    assert done.returncode == 0, done.stderr


def test_records_of_outcomes(quiet: None) -> None:
    seen = Seen()
    events = ["tracesock.connect", "tracesock.accept", "tracesock.close", "tracesock.listen"]
    with audit.subscribe(seen, events=events):
        with socket.create_server(("127.0.0.1", 0)) as listener:
            to = listener.getsockname()
            with socket.create_connection(to) as client:
                server, _ = listener.accept()
                client.sendall(b"12345")
                assert server.recv(10) == b"12345"
                server.close()
        # Not the port of before, which another socket could have got.
        with stock.socket() as nobody, socket.socket() as sock:
            nobody.bind(("127.0.0.1", 0))
            with pytest.raises(ConnectionRefusedError):
                sock.connect(nobody.getsockname())
        wait_for(seen, 6)
    assert seen.names == [
        "tracesock.listen", "tracesock.connect", "tracesock.accept", "tracesock.close",
        "tracesock.close", "tracesock.connect",
    ]  # fmt: skip
    records = [args[0] for _, args in seen.events]
    assert [record.outcome for record in records] == ["success"] * 5 + ["error"]
    assert str(records[1].peer) == f"127.0.0.1:{to[1]}"
    assert records[2].direction == "ingress" and records[2].local.port == to[1]
    assert records[3].received == 5 and records[4].sent == 5
    assert records[5].as_dict()["error"] == "ECONNREFUSED"


def test_records_of_some_peers(quiet: None) -> None:
    seen = Seen()
    with audit.subscribe(seen, events="tracesock.sendto", peers=["127.0.0.2", "*.example"]):
        send_to(("127.0.0.1", 9), ("127.0.0.2", 9), ("127.0.0.3", 9))
        wait_for(seen, 1)
    assert [args[0].peer.address for _, args in seen.events] == ["127.0.0.2"]


def test_a_failing_subscriber_of_records_is_told_to_the_log(
    quiet: None, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(event: str, args: tuple[Any, ...]) -> None:
        raise ValueError("of the subscriber")

    with audit.subscribe(fail, events="tracesock.sendto"):
        send_to(("127.0.0.1", 9))
    assert "of the subscriber" in caplog.text
