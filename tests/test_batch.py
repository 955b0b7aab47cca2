"""send_many and recv_many: errors half-way, deadlines, signals, hostile arguments, the audit."""

from __future__ import annotations

import array
import contextlib
import errno
import gc
import itertools
import select
import signal
import statistics
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import tracesock as socket
from tracesock import audit
from tracesock.testing import InMemoryRecorder

UDP_SEGMENT = 103
UDP_GRO = 104

Sockets = tuple[Any, Any]


@pytest.fixture
def udp() -> Iterator[Sockets]:
    """A sender, and a receiver with a timeout and room."""
    with (
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as receiver,
    ):
        for each in (sender, receiver):
            each.bind(("127.0.0.1", 0))
            each.settimeout(20)
            each.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 21)
        yield sender, receiver


@pytest.fixture
def unix(tmp_path: Path) -> Iterator[Sockets]:
    """A sender, and a receiver that queues few (net.unix.max_dgram_qlen)."""
    with (
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender,
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver,
    ):
        receiver.bind(str(tmp_path / "receiver"))
        sender.bind(str(tmp_path / "sender"))
        sender.connect(str(tmp_path / "receiver"))
        yield sender, receiver


def queue_length() -> int:
    """How many datagrams a Unix socket holds before a sender waits."""
    return int(Path("/proc/sys/net/unix/max_dgram_qlen").read_text()) + 1


def received(receiver: Any, count: int, size: int = 65535) -> list[Any]:
    """Exactly `count` messages."""
    messages: list[Any] = []
    while len(messages) < count:
        messages += receiver.recv_many(count - len(messages), size)
    return messages


# --- what arrives ---------------------------------------------------------------------------------


def test_messages_to_one_address(udp: Sockets) -> None:
    sender, receiver = udp
    messages = [b"%d" % number for number in range(200)]
    assert sender.send_many(messages, receiver.getsockname()) == 200
    assert received(receiver, 200) == [(each, sender.getsockname()) for each in messages]


def test_each_message_may_name_its_own_address(udp: Sockets) -> None:
    sender, receiver = udp
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
        other.bind(("127.0.0.1", 0))
        other.settimeout(20)
        to, elsewhere = receiver.getsockname(), other.getsockname()
        prepared = socket.Address(socket.AF_INET, elsewhere)
        batch = [(b"a", to), b"b", (b"c", prepared), (b"d", None), (b"e", ("127.0.0.1", to[1]))]
        assert sender.send_many(batch, elsewhere) == 5
        assert [data for data, _ in received(receiver, 2)] == [b"a", b"e"]
        assert [data for data, _ in received(other, 3)] == [b"b", b"c", b"d"]


def test_a_connected_socket_needs_no_address(udp: Sockets) -> None:
    sender, receiver = udp
    sender.connect(receiver.getsockname())
    assert sender.send_many((b"1", b"2")) == 2
    assert [data for data, _ in received(receiver, 2)] == [b"1", b"2"]
    receiver.connect(sender.getsockname())


def test_what_was_received_can_be_sent_back(udp: Sockets) -> None:
    sender, receiver = udp
    sender.send_many([b"x", b"y" * 500, b""], receiver.getsockname())
    assert receiver.send_many(received(receiver, 3)) == 3
    assert [data for data, _ in received(sender, 3)] == [b"x", b"y" * 500, b""]


@pytest.mark.parametrize(
    "sizes",
    [
        [64] * 64,
        [64] * 65,
        [64] * 1000,
        [64] * 10 + [7],
        [64] * 10 + [7] + [64] * 10,
        [7, 64, 64, 63, 64],
        [0] * 5,
        [64, 0, 64, 0, 0, 64],
        [1400] * 60,
        [20000] * 10,
        [65507] * 3,
        [1] * 1500,
        list(range(150)),
    ],
    ids=lambda sizes: f"{len(sizes)} of {sizes[0]} to {sizes[-1]}",
)
@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_INET6])
def test_boundaries_survive_segmentation(family: int, sizes: list[int]) -> None:
    with (
        socket.socket(family, socket.SOCK_DGRAM) as sender,
        socket.socket(family, socket.SOCK_DGRAM) as receiver,
    ):
        receiver.bind(("127.0.0.1" if family == socket.AF_INET else "::1", 0))
        receiver.settimeout(20)
        receiver.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 21)
        messages = [bytes([number % 251]) * size for number, size in enumerate(sizes)]
        got: list[bytes] = []
        while len(got) < len(messages):  # in pieces that fit into any receive buffer
            part = messages[len(got) : len(got) + 60]
            assert sender.send_many(part, receiver.getsockname()) == len(part)
            got += [data for data, _ in received(receiver, len(part))]
        assert got == messages


def test_segments_that_the_path_cannot_carry_are_sent_one_by_one(udp: Sockets) -> None:
    """Segmentation refuses what would need fragments; checksums that are off refuse it as well."""
    sender, receiver = udp
    so_no_check = 11
    sender.setsockopt(socket.SOL_SOCKET, so_no_check, 1)
    messages = [b"m" * 100] * 50
    assert sender.send_many(messages, receiver.getsockname()) == 50
    assert [data for data, _ in received(receiver, 50)] == messages


def test_coalesced_datagrams_come_apart_again(udp: Sockets) -> None:
    sender, receiver = udp
    try:
        receiver.setsockopt(socket.IPPROTO_UDP, UDP_GRO, 1)
    except OSError as error:
        pytest.skip(f"this kernel has no UDP_GRO: {error}")
    messages = [bytes([number]) * 100 for number in range(130)] + [b"short"]
    assert sender.send_many(messages, receiver.getsockname()) == 131
    # bufsize is one datagram's, and count is no more than a hint for what came as one.
    got: list[Any] = []
    while len(got) < 131:
        got += receiver.recv_many(4, 100)
    assert got == [(each, sender.getsockname()) for each in messages]
    # What is longer than bufsize is cut, each by itself.
    sender.send_many([b"0123456789"] * 3, receiver.getsockname())
    cut: list[Any] = []
    while len(cut) < 3:
        cut += receiver.recv_many(10, 4)
    assert [data for data, _ in cut] == [b"0123"] * 3


def test_recv_many_takes_what_is_there_and_no_more(udp: Sockets) -> None:
    sender, receiver = udp
    sender.send_many([b"1", b"2", b"3"], receiver.getsockname())
    assert len(receiver.recv_many(2, 10)) == 2
    begun = time.monotonic()
    assert [data for data, _ in receiver.recv_many(1000, 10)] == [b"3"]
    assert time.monotonic() - begun < 15  # of a timeout of 20
    assert receiver.recv_many(0, 10) == []


def test_recv_many_cuts_as_recvfrom_does(udp: Sockets) -> None:
    sender, receiver = udp
    for flags in (0, socket.MSG_TRUNC):
        sender.send_many([b"0123456789"] * 2, receiver.getsockname())
        first = receiver.recvfrom(4, flags)[0]
        assert [data for data, _ in receiver.recv_many(5, 4, flags)] == [first] == [b"0123"]
    sender.send_many([b"x"], receiver.getsockname())
    assert receiver.recv_many(3, 0) == [(b"", sender.getsockname())]


def test_peeking_leaves_what_it_saw(udp: Sockets) -> None:
    sender, receiver = udp
    sender.send_many([b"1", b"2"], receiver.getsockname())
    assert [data for data, _ in receiver.recv_many(9, 10, socket.MSG_PEEK)] == [b"1"]
    assert [data for data, _ in received(receiver, 2)] == [b"1", b"2"]


def test_a_sequence_of_packets_and_its_end() -> None:
    left, right = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with right:
        with left:
            left.settimeout(20)
            right.settimeout(20)
            assert left.send_many([b"1", b"", b"22"]) == 3
            # An empty one may be the end: what comes after it is for the next call.
            assert [data for data, _ in right.recv_many(9, 10)] == [b"1", b""]
            assert [data for data, _ in right.recv_many(9, 10)] == [b"22"]
        assert [data for data, _ in right.recv_many(9, 10)] == [b""]
        with pytest.raises(BrokenPipeError):
            right.send_many([b"x"])


def test_keywords(udp: Sockets) -> None:
    sender, receiver = udp
    assert sender.send_many(messages=[b"x"], address=receiver.getsockname(), flags=0) == 1
    assert receiver.recv_many(count=1, bufsize=1, flags=0)[0][0] == b"x"


# --- partial results ------------------------------------------------------------------------------


def test_what_fits_is_sent_and_counted(unix: Sockets) -> None:
    sender, receiver = unix
    most = queue_length()
    messages = [b"%d" % number for number in range(3 * most)]
    sender.setblocking(False)
    sent = sender.send_many(messages)
    assert 0 < sent <= most
    with pytest.raises(BlockingIOError):
        sender.send_many(messages[sent:])
    assert [data for data, _ in received(receiver, sent)] == messages[:sent]
    receiver.setblocking(False)
    with pytest.raises(BlockingIOError):
        receiver.recv_many(1, 10)


def test_a_deadline_ends_a_batch_and_what_was_sent_is_counted(unix: Sockets) -> None:
    sender, receiver = unix
    messages = [b"%d" % number for number in range(3 * queue_length())]
    sender.settimeout(0.2)
    begun = time.monotonic()
    sent = sender.send_many(messages)
    assert 0 < sent < len(messages) and time.monotonic() - begun >= 0.19
    with pytest.raises(TimeoutError, match="timed out"):
        sender.send_many(messages[sent:])
    assert [data for data, _ in received(receiver, sent)] == messages[:sent]
    receiver.settimeout(0.05)
    with pytest.raises(TimeoutError, match="timed out"):
        receiver.recv_many(5, 10)


@pytest.mark.parametrize("timeout", [None, 30.0])
def test_a_batch_waits_for_a_slow_receiver(unix: Sockets, timeout: float | None) -> None:
    sender, receiver = unix
    sender.settimeout(timeout)
    messages = [b"%d" % number for number in range(20 * queue_length())]
    got: list[Any] = []
    reader = threading.Thread(target=lambda: got.extend(received(receiver, len(messages))))
    reader.start()
    assert sender.send_many(messages) == len(messages)
    reader.join(30)
    assert [data for data, _ in got] == messages


def test_an_error_in_the_middle_is_the_next_calls(udp: Sockets) -> None:
    sender, receiver = udp
    to = receiver.getsockname()
    messages = [b"1", b"2", bytes(70000), b"4"]
    assert sender.send_many(messages, to) == 2
    with pytest.raises(OSError) as caught:
        sender.send_many(messages[2:], to)
    assert caught.value.errno == errno.EMSGSIZE
    assert sender.send_many(messages[3:], to) == 1
    assert [data for data, _ in received(receiver, 3)] == [b"1", b"2", b"4"]


def test_a_refused_connection_is_an_error(udp: Sockets) -> None:
    sender, _ = udp
    sender.connect(("127.0.0.1", 1))  # a port that the kernel gives to nobody
    deadline = time.monotonic() + 20
    with pytest.raises(ConnectionRefusedError):
        while time.monotonic() < deadline:
            sender.send_many([b"x"] * 3)


@pytest.mark.parametrize("raises", [False, True])
def test_signals_while_waiting(unix: Sockets, raises: bool) -> None:
    sender, receiver = unix
    messages = [b"x"] * (3 * queue_length())
    handled: list[int] = []

    def handler(number: int, _: Any) -> None:
        handled.append(number)
        if raises:
            raise RuntimeError("from the handler")
        with contextlib.suppress(BlockingIOError):  # the sender has not begun, or has ended
            receiver.recv_many(queue_length() // 2, 10)

    receiver.setblocking(False)
    before = signal.signal(signal.SIGALRM, handler)
    try:
        if raises:
            with pytest.raises(RuntimeError, match="from the handler"):
                # Once: it comes when a part has gone, and is not to wait for the next one.
                signal.setitimer(signal.ITIMER_REAL, 0.1)
                sender.send_many(messages)
        else:
            signal.setitimer(signal.ITIMER_REAL, 0.1, 0.1)
            assert sender.send_many(messages) == len(messages)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert handled


def test_a_signal_handler_may_raise_out_of_a_receive(udp: Sockets) -> None:
    _, receiver = udp

    def handler(*_: Any) -> None:
        raise RuntimeError("from the handler")

    before = signal.signal(signal.SIGALRM, handler)
    try:
        with pytest.raises(RuntimeError, match="from the handler"):
            signal.setitimer(signal.ITIMER_REAL, 0.1)
            receiver.recv_many(4, 100)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def test_close_from_another_thread_ends_a_batch(unix: Sockets) -> None:
    sender, receiver = unix
    sender.settimeout(30)
    outcome: list[Any] = []

    def send() -> None:
        try:
            outcome.append(sender.send_many([b"x"] * (3 * queue_length())))
        except OSError as error:
            outcome.append(error)

    thread = threading.Thread(target=send)
    thread.start()
    assert select.select([receiver], [], [], 30)[0]  # it has begun
    time.sleep(0.2)
    sender.close()
    received(receiver, 1)  # which wakes the sender up
    thread.join(40)
    assert not thread.is_alive()
    # Those that had gone, or the error where it counts them anew.
    assert len(outcome) == 1 and (isinstance(outcome[0], int) or outcome[0].errno == errno.EBADF)


# --- arguments ------------------------------------------------------------------------------------


def test_errors_name_what_was_wrong(udp: Sockets) -> None:
    sender, receiver = udp
    to = receiver.getsockname()
    wrong: list[tuple[type[BaseException], str, Callable[[], Any]]] = [
        (TypeError, "an iterable", lambda: sender.send_many(5, to)),
        (
            TypeError,
            "a bytes-like object or a pair .* not 'int'",
            lambda: sender.send_many(b"1", to),
        ),
        (TypeError, "not 'str'", lambda: sender.send_many([b"1", "2"], to)),
        (TypeError, "not 'NoneType'", lambda: sender.send_many([(None, to)])),
        (TypeError, "not a tuple of 3", lambda: sender.send_many([(b"1", to, 0)])),
        (TypeError, r"send_many\(\): AF_INET address", lambda: sender.send_many([(b"1", 5)])),
        (
            OverflowError,
            "port must be 0-65535",
            lambda: sender.send_many([b"1"], ("127.0.0.1", -1)),
        ),
        (TypeError, "missing|required argument", lambda: sender.send_many()),
        (ValueError, "negative count", lambda: receiver.recv_many(-1, 1)),
        (ValueError, "negative buffersize", lambda: receiver.recv_many(1, -1)),
        (OverflowError, "count times bufsize", lambda: receiver.recv_many(1000, sys.maxsize)),
        (TypeError, "bufsize|argument", lambda: receiver.recv_many(1)),
        (TypeError, "'float' object", lambda: receiver.recv_many(1.5, 1)),
        (OSError, "Destination address required", lambda: sender.send_many([b"1"])),
    ]
    for kind, text, call in wrong:
        with pytest.raises(kind, match=text):
            call()
    with pytest.raises(MemoryError):
        receiver.recv_many(1, sys.maxsize)
    # Nothing of a batch with a wrong argument was sent.
    receiver.setblocking(False)
    with pytest.raises(BlockingIOError):
        receiver.recv_many(1, 10)
    assert sender.send_many([], to) == 0
    assert sender.send_many(iter(()), to) == 0


def test_streams_and_closed_sockets_are_refused() -> None:
    left, right = socket.socketpair()
    with left, right:
        for call in (lambda: left.send_many([b"x"]), lambda: left.recv_many(1, 1)):
            with pytest.raises(ValueError, match="is for datagrams"):
                call()
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.close()
    for call in (lambda: sock.send_many([b"x"], ("127.0.0.1", 9)), lambda: sock.recv_many(1, 1)):
        with pytest.raises(OSError) as caught:
            call()
        assert caught.value.errno == errno.EBADF


def test_every_kind_of_buffer(udp: Sockets) -> None:
    sender, receiver = udp
    buffers = [bytearray(b"ab"), memoryview(b"abcd")[1:3], array.array("H", [0x6261]), b"ab"]
    assert sender.send_many(buffers, receiver.getsockname()) == 4
    assert [data for data, _ in received(receiver, 4)] == [b"ab", b"bc", b"ab", b"ab"]
    with pytest.raises(BufferError):
        sender.send_many([memoryview(b"abcdef")[::2]], receiver.getsockname())


def test_arguments_that_change_what_is_read(udp: Sockets) -> None:
    sender, receiver = udp
    host, port = receiver.getsockname()
    messages: list[Any] = []
    victim = bytearray(b"kept")

    class Port:
        def __index__(self) -> int:
            messages.clear()
            # Its buffer is exported: it cannot be resized under the call.
            with pytest.raises(BufferError):
                victim.extend(bytes(1 << 20))
            return int(port)

    messages += [(victim, (host, port)), (b"second", (host, Port())), (b"third", (host, port))]
    assert sender.send_many(messages) == 3
    assert [data for data, _ in received(receiver, 3)] == [b"kept", b"second", b"third"]
    victim.extend(b"released")

    def endless() -> Iterator[bytes]:
        yield b"x"
        raise RuntimeError("from the iterator")

    with pytest.raises(RuntimeError, match="from the iterator"):
        sender.send_many(endless(), (host, port))


def test_a_failed_batch_gives_its_buffers_back(udp: Sockets) -> None:
    sender, receiver = udp
    data = bytearray(b"x")
    for messages in ([data, "wrong"], [data, (data, 5)], [(data, receiver.getsockname()), data]):
        with pytest.raises((TypeError, OSError)):
            if sender.send_many(messages) == 1:
                sender.send_many(messages[1:])
        data.append(0)


def test_batches_leak_nothing(udp: Sockets) -> None:
    sender, receiver = udp
    to = receiver.getsockname()

    def use() -> None:
        sender.send_many([b"x", (bytearray(b"yy"), to), (b"z" * 50, to)], to)
        received(receiver, 3)
        try:
            sender.send_many([b"x", 5], to)
        except TypeError:
            pass

    use()
    blocks = []
    for _ in range(6):
        for _ in range(200):
            use()
        gc.collect()
        blocks.append(sys.getallocatedblocks())
    # What leaks grows in each round; another thread of this process in one or the other.
    assert statistics.median(b - a for a, b in itertools.pairwise(blocks)) < 20, blocks


def test_threads_share_a_socket(udp: Sockets) -> None:
    sender, receiver = udp
    to = receiver.getsockname()
    got: list[bytes] = []
    lock = threading.Lock()
    sent = threading.Event()
    receiver.settimeout(0.5)

    def send(number: int) -> None:
        for turn in range(20):
            assert sender.send_many([b"%d %d %d" % (number, turn, i) for i in range(20)], to) == 20

    def receive() -> None:
        while True:
            last = sent.is_set()
            try:
                part = receiver.recv_many(16, 100)
            except TimeoutError:
                if last:
                    return
                continue
            with lock:
                got.extend(data for data, _ in part)

    readers = [threading.Thread(target=receive) for _ in range(3)]
    writers = [threading.Thread(target=send, args=(number,)) for number in range(3)]
    for thread in readers + writers:
        thread.start()
    for thread in writers:
        thread.join(60)
    sent.set()
    for thread in readers:
        thread.join(60)
    # The kernel may drop what does not fit, and never changes or repeats one.
    expected = {b"%d %d %d" % (n, t, i) for n in range(3) for t in range(20) for i in range(20)}
    assert len(got) == len(set(got)) and set(got) <= expected and len(got) > 300


# --- audit, policy, telemetry ---------------------------------------------------------------------

POLICY = """
mode = "enforce"
default = "allow"

[[rule]]
id = "not-there"
action = "deny"
cidr = ["127.0.0.9"]
"""


def _program(text: str) -> None:
    told = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(text)], capture_output=True, text=True, timeout=60
    )
    assert told.returncode == 0, told.stderr


def test_a_hook_hears_of_each_destination_before_anything_is_sent() -> None:
    _program(
        """
        import sys
        import tracesock as socket

        told, refuse = [], []

        def hook(event, arguments):
            if event in ("socket.sendto", "socket.sendmsg"):
                told.append((event, arguments))
                if refuse and arguments[1][1] == refuse[0]:
                    raise ZeroDivisionError("refused")

        sys.addaudithook(hook)
        receiver = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        receiver.bind(("127.0.0.1", 0))
        to = receiver.getsockname()
        sender = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        assert sender.send_many([b"1", b"2", (b"3", ("127.0.0.1", 9))], to) == 3
        assert told == [
            ("socket.sendto", (sender, to)),
            ("socket.sendto", (sender, to)),
            ("socket.sendto", (sender, ("127.0.0.1", 9))),
        ], told
        receiver.recv_many(2, 10)
        refuse.append(9)
        data = bytearray(b"1")
        try:
            sender.send_many([data, (b"2", ("127.0.0.1", 9))], to)
        except ZeroDivisionError:
            data.append(0)
        else:
            raise SystemExit("a hook's refusal was not raised")
        receiver.setblocking(False)
        try:
            receiver.recv_many(1, 10)
        except BlockingIOError:
            pass
        else:
            raise SystemExit("part of a refused batch was sent")
        # A connected socket names no destination: as with send(), no event is raised.
        del told[:], refuse[:]
        sender.connect(to)
        assert sender.send_many([b"1", b"2"]) == 2 and told == []
        """
    )


@pytest.fixture
def policy() -> Iterator[None]:
    from tracesock.audit.policy import parse_policy

    audit.use_policy(parse_policy(POLICY.encode()))
    yield
    audit.clear_policy()


def test_a_policy_judges_each_destination(udp: Sockets, policy: None) -> None:
    sender, receiver = udp
    to = receiver.getsockname()
    denied = ("127.0.0.9", to[1])
    for address in (denied, socket.Address(socket.AF_INET, denied)):
        with pytest.raises(PermissionError, match="denied by policy: rule 'not-there'"):
            sender.send_many([b"1", b"2"], address)
        batch = [(b"1", to), (b"2", to), (b"3", address), (b"4", to)]
        assert sender.send_many(batch) == 2
        with pytest.raises(PermissionError, match="denied by policy"):
            sender.send_many(batch[2:])
        assert sender.send_many(batch[3:]) == 1
        assert [data for data, _ in received(receiver, 3)] == [b"1", b"2", b"4"]


def test_a_policy_judges_a_connected_peer(udp: Sockets) -> None:
    from tracesock.audit.policy import parse_policy

    sender, receiver = udp
    sender.connect(("127.0.0.9", receiver.getsockname()[1]))
    audit.use_policy(parse_policy(POLICY.encode()))
    try:
        with pytest.raises(PermissionError, match="denied by policy"):
            sender.send_many([b"1", b"2"])
    finally:
        audit.clear_policy()


def test_each_message_has_a_record(udp: Sockets, policy: None, tmp_path: Path) -> None:
    import json

    sender, receiver = udp
    to = receiver.getsockname()
    audit.open_log(tmp_path / "log.jsonl")
    try:
        batch = [(b"1", to), (b"2", to), (b"3", ("127.0.0.9", 1)), (b"4", to)]
        assert sender.send_many(batch) == 2
        with pytest.raises(OSError) as caught:
            sender.send_many([bytes(70000)], to)
        assert caught.value.errno == errno.EMSGSIZE
        assert audit.flush(30)
        lines = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    finally:
        assert audit.close(30)
    records = [line for line in lines if line["event"] == "tracesock.sendto"]
    assert [(each["action"], each["outcome"]) for each in records] == [
        ("allow", "success"),
        ("allow", "success"),
        ("deny", "denied"),
        ("allow", "error"),
    ]
    assert [data for data, _ in received(receiver, 2)] == [b"1", b"2"]


def test_each_message_is_a_span_and_counted(udp: Sockets) -> None:
    sender, receiver = udp
    to = receiver.getsockname()
    with InMemoryRecorder() as recorder:
        with recorder.tracer().start_as_current_span("parent"):
            assert sender.send_many([b"a" * 10, b"b" * 20, (b"c" * 30, to)], to) == 3
        received(receiver, 3)
        spans = recorder.spans("socket send")
        assert [each.attributes["tracesock.send.size"] for each in spans] == [10, 20, 30]
        assert {each.attributes["network.peer.port"] for each in spans} == {to[1]}
        assert all(each.parent_id is not None and each.error is None for each in spans)
        raw = [each.raw for each in spans]
        assert all(each.start_time <= each.end_time for each in raw)
        assert raw[0].end_time <= raw[1].end_time <= raw[2].end_time
        sent = recorder.total("tracesock.io", {"network.io.direction": "transmit"})
        assert sent == 60
        assert recorder.total("tracesock.io", {"network.io.direction": "receive"}) == 60


def test_a_failed_batch_is_one_failed_span(udp: Sockets) -> None:
    sender, receiver = udp
    with InMemoryRecorder() as recorder:
        with (
            recorder.tracer().start_as_current_span("parent"),
            pytest.raises(OSError, match="too long"),
        ):
            sender.send_many([bytes(70000), b"x"], receiver.getsockname())
        (span,) = recorder.spans("socket send")
        assert span.error == "message_too_long"


def test_nothing_is_told_of_a_batch_that_would_wait(unix: Sockets) -> None:
    sender, _ = unix
    sender.setblocking(False)
    with InMemoryRecorder() as recorder, recorder.tracer().start_as_current_span("parent"):
        sent = sender.send_many([b"x"] * 100)
        with pytest.raises(BlockingIOError):
            sender.send_many([b"x"] * 100)
        assert len(recorder.spans("socket send")) == sent
