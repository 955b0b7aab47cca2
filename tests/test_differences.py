"""Each deliberate difference from CPython's `socket`, by the name that it has in
docs/reference/differences.md."""

from __future__ import annotations

import _socket
import ast
import contextlib
import copy
import gc
import json
import os
import pickle
import re
import shutil
import socket as stock
import subprocess
import sys
import textwrap
import threading
import time
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import tracesock as socket
from tests.behaviours import await_call
from tests.differential import HOST_NOT_FOUND, leave_h_errno
from tracesock import _native

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "reference" / "differences.md"
NAMES = Path(__file__).parent / "data" / "socket_constants_linux_3.14.json"


def open_descriptors() -> set[str]:
    return set(os.listdir("/proc/self/fd"))


def of_this_test() -> set[str]:
    """Descriptors that are open before a test: none that garbage of earlier ones would close."""
    gc.collect()
    return open_descriptors()


class Refusal(BaseException):
    """What the hook below raises: no OSError, and no Exception."""


class _Hook:
    """Refuses one audit event in this thread, from its `allowed`th on. It cannot be removed."""

    event: str | None = None
    allowed = 0
    thread = 0

    def __call__(self, event: str, _: tuple[Any, ...]) -> None:
        if event == self.event and threading.get_ident() == self.thread:
            if self.allowed == 0:
                raise Refusal(event)
            self.allowed -= 1


_hook = _Hook()


@pytest.fixture(scope="module", autouse=True)
def added_hook() -> None:
    sys.addaudithook(_hook)


@contextlib.contextmanager
def refused(event: str, allowed: int = 0) -> Iterator[list[BaseException]]:
    """The block must be ended by the refusal of this event: put into the list that is yielded,
    with the frames that it went through."""
    kept: list[BaseException] = []
    _hook.allowed, _hook.thread, _hook.event = allowed, threading.get_ident(), event
    try:
        yield kept
    except Refusal as refusal:
        kept.append(refusal)
    finally:
        _hook.event = None
    assert [str(refusal) for refusal in kept] == [event]


def run(program: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """A Python program in a process of its own; it must succeed."""
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={**os.environ, **environment},
        timeout=100,
    )
    assert done.returncode == 0, done.stderr
    return done


# --- the page ---------------------------------------------------------------------------------


def test_page_and_tests_list_the_same_differences() -> None:
    page = PAGE.read_text(encoding="utf-8")
    entries = re.findall(r"^### ", page, re.MULTILINE)
    told = re.findall(r"^Test: `(test_\w+)`$", page, re.MULTILINE)
    here = [
        node.name
        for node in ast.parse(Path(__file__).read_text(encoding="utf-8")).body
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")
    ]
    here.remove("test_page_and_tests_list_the_same_differences")
    assert len(told) == len(set(told)) == len(entries)
    assert told == here
    for entry in re.split(r"^### ", page, flags=re.MULTILINE)[1:]:
        assert "\nReason: " in entry, f"no reason: {entry.splitlines()[0]}"


# --- results and arguments --------------------------------------------------------------------


def test_msg_trunc_returns_only_what_the_kernel_wrote() -> None:
    flag = socket.MSG_TRUNC
    sender, receiver = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    with sender, receiver:
        calls: list[Callable[[], Any]] = [
            lambda: receiver.recv(3, flag),
            lambda: receiver.recvfrom(3, flag)[0],
            lambda: receiver.recvmsg(3, 0, flag)[0],
        ]
        for call in calls:
            sender.send(b"0123456789")
            assert call() == b"012"
        buffer = bytearray(3)
        for count in (
            lambda: receiver.recv_into(buffer, 0, flag),
            lambda: receiver.recvfrom_into(buffer, 0, flag)[0],
            lambda: receiver.recvmsg_into([buffer], 0, flag)[0],
        ):
            sender.send(b"0123456789")
            assert count() == 10
            assert buffer == b"012"
        # Beyond what is received on the stack first.
        sender.send(b"x" * 20000)
        assert receiver.recv(10000, flag) == b"x" * 10000

    with (
        socket.create_server(("127.0.0.1", 0)) as server,
        socket.create_connection(server.getsockname()) as client,
    ):
        accepted, _ = server.accept()
        with accepted:
            client.sendall(b"0123456789")
            assert accepted.recv(2, flag) == b""
            assert accepted.recvfrom(2, flag) == (b"", None)
            assert accepted.recvmsg(2, 0, flag)[0] == b""
            buffer[:] = b"..."
            assert accepted.recv_into(buffer, 2, flag) == 2
            assert buffer == b"..."
            assert accepted.recv(10) == b"89"  # each of them discarded two
            client.sendall(b"x" * 20000)
            client.shutdown(socket.SHUT_WR)
            assert accepted.recv(10000, flag | socket.MSG_WAITALL) == b""


def test_a_nul_in_the_host_or_port_of_getaddrinfo_is_an_error() -> None:
    for host, port in (
        ("localhost\0.example", 80),
        ("\0", 80),
        ("bücher\0.example", 80),
        ("127.0.0.1", "80\0x"),
        ("127.0.0.1", "\0"),
    ):
        with pytest.raises(ValueError, match=r"^embedded null character$"):
            socket.getaddrinfo(host, port)
    for raw_host, raw_port in ((b"127.0.0.1\0x", 80), (b"127.0.0.1", b"80\0x")):
        with pytest.raises(ValueError, match=r"^embedded null byte$"):
            socket.getaddrinfo(raw_host, raw_port)
    with pytest.raises(ValueError, match=r"^embedded null character$"):
        socket.create_connection(("localhost\0.example", 80))


def test_a_malformed_isotp_or_j1939_address_is_a_type_error() -> None:
    for protocol in (socket.CAN_ISOTP, socket.CAN_J1939):
        for address in ("vcan0", ["vcan0", 1, 2], None, 5):
            expected = f"bind(): AF_CAN address must be tuple, not {type(address).__name__}"
            with pytest.raises(TypeError, match=f"^{re.escape(expected)}$"):
                _native.encode_address(socket.AF_CAN, protocol, address, "bind")


def test_long_host_names_are_refused_before_idna(monkeypatch: pytest.MonkeyPatch) -> None:
    import encodings.idna

    encoded = []
    original = encodings.idna.nameprep
    monkeypatch.setattr(
        encodings.idna, "nameprep", lambda label: encoded.append(label) or original(label)
    )
    one_label, labels = "é" * 1025, "é." * 513
    with socket.socket() as sock:
        for host, text in ((one_label, "label"), (labels, "host name too long")):
            for look_up in (
                lambda host=host: socket.getaddrinfo(host, 80),
                lambda host=host: socket.gethostbyname(host),
                lambda host=host: socket.gethostbyname_ex(host),
                lambda host=host: socket.gethostbyaddr(host),
                lambda host=host: socket.getfqdn(host),
                lambda host=host: socket.create_connection((host, 80)),
            ):
                with pytest.raises(UnicodeError, match=text):
                    look_up()
            with pytest.raises(TypeError, match=r"^encoding of hostname failed$"):
                sock.connect((host, 80))
            with pytest.raises(TypeError, match=r"^encoding of hostname failed$"):
                socket.Address(socket.AF_INET, (host, 80))
    assert encoded == []
    # At the limit the codec decides.
    with pytest.raises(UnicodeError, match="label"):
        socket.getaddrinfo("é" * 1024, 80)
    assert encoded


def test_packet_addresses_keep_long_hardware_addresses() -> None:
    hardware = bytes(range(20))
    protocol, interface, kind, packet = 0x0800, 0, 32, 0
    # struct sockaddr_ll, packet(7), with what InfiniBand has
    kernel = (
        socket.AF_PACKET.to_bytes(2, sys.byteorder)
        + protocol.to_bytes(2, "big")
        + interface.to_bytes(4, sys.byteorder)
        + kind.to_bytes(2, sys.byteorder)
        + bytes([packet, len(hardware)])
        + hardware
    )
    assert _native.decode_address(0, kernel) == ("", protocol, packet, kind, hardware)
    # Of a length that is more than the kernel wrote, what it wrote.
    assert _native.decode_address(0, kernel[:20])[4] == hardware[:8]
    with pytest.raises(ValueError, match=r"^Hardware address must be 8 bytes or less$"):
        _native.encode_address(socket.AF_PACKET, 0, ("lo", 0, 0, 0, hardware))


def test_divert_addresses_can_be_read(tmp_path: Path) -> None:
    compiler = shutil.which("c++")
    if compiler is None:
        pytest.skip("no C++ compiler here to compile FreeBSD's row with (Debian: apt install g++)")
    (tmp_path / "config.hpp").write_text(
        re.sub(
            r"#cmakedefine01 (\w+)", r"#define \1 1", (ROOT / "ext" / "config.hpp.in").read_text()
        )
        .replace("SYS_KERN_CONTROL_H 1", "SYS_KERN_CONTROL_H 0")
        .replace("NET_IF_DL_H 1", "NET_IF_DL_H 0")
    )
    (tmp_path / "main.cpp").write_text(
        textwrap.dedent("""\
            #include "families/family.hpp"
            namespace tracesock {
            extern const Family divert_family;
            extern const Family inet_family;
            }
            using namespace tracesock;
            int main() {
                const bool readable = divert_family.family == 44 &&
                                      divert_family.largest == sizeof(sockaddr_in) &&
                                      divert_family.decode == inet_family.decode;
                return readable ? 0 : 1;
            }
            """)
    )
    families = ROOT / "ext" / "families"
    program = tmp_path / "main"
    sources = [tmp_path / "main.cpp", families / "divert.cpp", families / "inet.cpp"]
    subprocess.run(
        [compiler, "-std=c++20", f"-I{ROOT / 'ext'}", f"-I{tmp_path}", *map(str, sources)]
        + ["-o", str(program)],
        check=True,
        timeout=100,
    )
    assert subprocess.run([program], check=False).returncode == 0


def test_somaxconn_and_ni_maxhost_do_not_depend_on_the_c_library() -> None:
    assert (socket.SOMAXCONN, socket.NI_MAXHOST) == (4096, 1025)


def test_the_number_of_a_herror_is_this_look_ups() -> None:
    def number(module: Any, left: int) -> int | None:
        leave_h_errno(left)
        with pytest.raises(stock.herror) as caught:
            module.gethostbyname_ex("<broadcast>")  # resolved, but no name for the name server
        return caught.value.errno

    assert [number(stock, left) for left in (0, 3)] == [0, 3]
    assert [number(socket, left) for left in (0, 3)] == [HOST_NOT_FOUND, HOST_NOT_FOUND]


def test_every_name_of_3_14_on_every_version() -> None:
    lacking = 0
    for kind, names in json.loads(NAMES.read_text(encoding="utf-8")).items():
        if kind == "about":
            continue
        for name, number in names.items():
            value = getattr(socket, name)
            assert value == number, name
            lacks = not hasattr(stock, name)
            lacking += lacks
            if kind in ("int", "str"):
                assert type(value).__name__ == kind
                continue
            enumeration = getattr(stock, kind)
            assert type(value) is enumeration
            assert value.name == name or not lacks
            assert pickle.loads(pickle.dumps(value)) == copy.copy(value) == value
            if lacks:
                assert name not in enumeration.__members__
                assert f"{kind}.{name}" in repr(value)
    if sys.version_info < (3, 14):
        assert lacking > 0, "this standard library has every name: nothing was tested"


class Index:
    def __init__(self, value: int) -> None:
        self.value = value

    def __index__(self) -> int:
        return self.value


def test_arguments_that_3_14_takes_are_taken_on_every_version() -> None:
    assert socket.getaddrinfo("127.0.0.1", Index(80)) == socket.getaddrinfo("127.0.0.1", 80)
    assert socket.htonl(Index(1)) == socket.ntohl(Index(1)) == socket.htonl(1)
    number, name = socket.if_nameindex()[0]
    assert socket.if_indextoname(Index(number)) == name
    device = "00:11:22:33:44:55"
    for protocol, address, read in (
        (socket.BTPROTO_L2CAP, (device, 1, 4, 1), (device, 1, 4, 1)),
        (socket.BTPROTO_HCI, (0, 1), (0, 1)),
        (socket.BTPROTO_HCI, 0, 0),
        (socket.BTPROTO_SCO, device, device),
        (socket.BTPROTO_SCO, device.encode(), device),
    ):
        kernel = _native.encode_address(socket.AF_BLUETOOTH, protocol, address)
        assert _native.decode_address(protocol, kernel) == read
    name = f"\0reuse-port-{os.getpid()}"
    with socket.create_server(name, family=socket.AF_UNIX, reuse_port=True) as server:
        assert server.getsockname() == name.encode()


def test_a_timeout_of_more_than_24_days_is_waited_for() -> None:
    left, right = socket.socketpair()
    with left, right:
        left.settimeout(4294967.296 + 0.05)  # modulo 2**32 milliseconds: 0.05 s
        got: list[bytes] = []
        thread = threading.Thread(target=lambda: got.append(left.recv(10)))
        thread.start()
        time.sleep(0.5)
        right.send(b"late")
        thread.join()
    assert got == [b"late"]


def test_an_address_is_taken_wherever_an_address_is() -> None:
    with (
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as receiver,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender,
        socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as other,
    ):
        receiver.bind(socket.Address(socket.AF_INET, ("localhost", 0)))
        port = receiver.getsockname()[1]
        address = socket.Address(socket.AF_INET, ("localhost", port))
        assert address.address == ("127.0.0.1", port)
        assert address == socket.Address(socket.AF_INET, ("127.0.0.1", port))
        sender.sendto(b"1", address)
        sender.sendto(b"2", 0, address)
        sender.sendmsg([b"3"], [], 0, address)
        sender.connect(address)
        assert sender.connect_ex(address) == 0
        sender.send(b"4")
        assert [receiver.recv(10) for _ in range(4)] == [b"1", b"2", b"3", b"4"]
        for call in (other.bind, other.connect, other.connect_ex, lambda a: other.sendto(b"", a)):
            with pytest.raises(TypeError, match=r"Address of family 2 on a socket of family 10$"):
                call(address)


def test_keyword_arguments_of_a_kept_method() -> None:
    with socket.socket() as sock:
        for name in ("send", "sendall", "sendto", "recv", "recvfrom"):
            kept = getattr(sock, name)
            expected = rf"^socket\.{name}\(\) takes no keyword arguments$"
            with pytest.raises(TypeError, match=expected):
                kept(x=1)
            with pytest.raises(TypeError, match=expected):
                eval(f"sock.{name}(x=1)", {"sock": sock})


# --- safety -----------------------------------------------------------------------------------


def test_lists_that_change_while_they_are_read() -> None:
    # In a process of its own: where it fails, it crashes.
    run("""
        import gc, sys
        import tracesock as socket
        left, right = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)

        items = []
        class Index:
            def __index__(self):
                items.clear()
                gc.collect()
                return 1
        items.extend((Index(), 1, bytes(100)) for _ in range(50))
        try:
            left.sendmsg([b"data"], items)
        except OSError:
            pass  # the kernel finds no descriptors in the zeros that it is given
        assert items == []

        if sys.version_info >= (3, 12):  # before, no Python code runs when a buffer is exported
            storage = [bytearray(4) for _ in range(3)]
            class Exporter:
                def __init__(self, number):
                    self.number = number
                def __buffer__(self, flags):
                    items.clear()
                    gc.collect()
                    return memoryview(storage[self.number])
            items.extend(map(Exporter, range(3)))
            left.send(b"0123456789")
            assert right.recvmsg_into(items)[0] == 10
            assert b"".join(storage) == b"0123456789\\0\\0"
            items.extend(map(Exporter, range(3)))
            assert left.sendmsg(items) == 12
            assert right.recv(100) == b"0123456789\\0\\0"
        """)


def test_a_hook_that_refuses_leaves_nothing_behind() -> None:
    data = bytearray(10)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        for count, (event, call) in enumerate(
            (
                ("socket.sendto", lambda: sock.sendto(data, ("127.0.0.1", 9))),
                ("socket.sendto", lambda: sock.sendto(data, 0, ("127.0.0.1", 9))),
                ("socket.sendmsg", lambda: sock.sendmsg([data], [], 0, ("127.0.0.1", 9))),
                ("socket.sendmsg", lambda: sock.sendmsg([data], [(1, 1, data)])),
            )
        ):
            with refused(event):
                call()
            data.append(0)  # BufferError while it is exported
            assert len(data) == 11 + count

    def look_up(times: int) -> int:
        for _ in range(times):
            with refused("socket.getaddrinfo"):
                socket.getaddrinfo("bücher.example", 80)
        gc.collect()
        return tracemalloc.get_traced_memory()[0]

    tracemalloc.start()
    try:
        before = look_up(20)
        # An encoded host that leaked each time would be at least 46 bytes of its own.
        assert look_up(1000) - before < 20_000
    finally:
        tracemalloc.stop()


def test_a_socket_that_cannot_be_made_leaves_no_descriptor() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = server.getsockname()
        clients = [socket.create_connection(address)]
        number = server.fileno()
        cases: list[tuple[str, int, Callable[[], object]]] = [
            ("socket.__new__", 0, server.accept),
            ("socket.__new__", 0, server.dup),
            ("socket.__new__", 0, lambda: socket.fromfd(number, 2, 1)),
            ("socket.__new__", 0, socket.socketpair),
            ("socket.__new__", 1, socket.socketpair),
            ("socket.__new__", 0, lambda: socket.create_connection(address)),
            ("socket.connect", 0, lambda: socket.create_connection(address)),
            ("socket.bind", 0, lambda: socket.create_connection(address, None, ("", 0))),
            ("socket.bind", 0, lambda: socket.create_server(("127.0.0.1", 0))),
        ]
        of_this_test()
        for event, allowed, call in cases:
            before = open_descriptors()
            with refused(event, allowed) as kept:
                call()
            # Not for want of references: the frames that hold the sockets are still there.
            assert kept[0].__traceback__ is not None
            assert open_descriptors() == before, (event, call)
        for client in clients:
            client.close()


def closed_while_received(sock: Any, receive: Callable[[Any], object]) -> threading.Thread:
    """Closes `sock` while another thread is inside `receive`; the thread, which still is."""
    thread = threading.Thread(target=receive, args=(sock,))
    number = sock.fileno()
    thread.start()
    # The descriptor has a second owner as soon as the call has begun to wait.
    await_call(thread)
    sock.close()
    assert sock.fileno() == -1
    os.fstat(number)  # OSError where the thread had not begun, or its descriptor is free
    return thread


def test_close_while_another_thread_receives() -> None:
    results: list[Any] = []

    def receive(sock: Any) -> None:
        try:
            results.append(sock.recv(100))
        except OSError as error:
            results.append(error)

    for timeout in (30, None):
        left, right = socket.socketpair()
        left.settimeout(timeout)
        number = left.fileno()
        thread = closed_while_received(left, receive)
        with pytest.raises(OSError, match=r"^\[Errno 9\]"):
            left.recv(1)
        # Whoever asks for a descriptor now gets another, with data that is not the thread's.
        others = [socket.socketpair() for _ in range(3)]
        assert number not in {sock.fileno() for pair in others for sock in pair}
        for one, other in others:
            one.send(b"another's")
            other.send(b"another's")
        right.send(b"mine")
        thread.join()
        with pytest.raises(OSError, match=r"^\[Errno 9\]"):
            os.fstat(number)
        for pair in others:
            for sock in pair:
                assert sock.recv(100) == b"another's"
                sock.close()
        right.close()
    error, data = results
    assert isinstance(error, OSError)
    assert str(error) == "[Errno 9] Bad file descriptor"
    assert data == b"mine"  # it was already waiting in the kernel


def test_a_second_init_closes_the_first_descriptor() -> None:
    before = of_this_test()
    left, right = socket.socketpair()
    left.__init__()  # type: ignore[misc]
    assert (left.family, right.recv(1)) == (socket.AF_INET, b"")
    assert len(open_descriptors()) == len(before) + 2
    left.close()
    right.close()
    assert open_descriptors() == before

    left, right = socket.socketpair()
    thread = threading.Thread(target=lambda: left.recv(1))
    thread.start()
    await_call(thread)
    with pytest.raises(OSError, match=r"^socket is in use by another thread$"):
        left.__init__()  # type: ignore[misc]
    assert left.fileno() == -1
    right.send(b"x")
    thread.join()
    right.close()
    assert open_descriptors() == before


def test_descriptors_of_a_failed_recvmsg_are_closed() -> None:
    pytest.importorskip("_testcapi", reason="CPython's module _testcapi: makes allocations fail")
    done = run("""
        import array, os, _testcapi
        import tracesock as socket
        left, right = socket.socketpair()
        numbers = array.array("i", [0, 1, 2])
        space = socket.CMSG_SPACE(numbers.itemsize * 3)
        buffer = bytearray(10)
        lost = 0
        for call in (lambda: right.recvmsg(10, space), lambda: right.recvmsg_into([buffer], space)):
            call.__call__
            for failing in range(40):
                left.sendmsg([b"data"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, numbers)])
                before = len(os.listdir("/proc/self/fd"))
                result = None
                _testcapi.set_nomemory(failing, failing + 1)
                try:
                    result = call()
                except MemoryError:
                    pass
                _testcapi.remove_mem_hooks()
                if result is None:
                    # It failed before or after the system call.
                    right.setblocking(False)
                    try:
                        result = right.recvmsg(10, space)
                    except BlockingIOError:
                        lost += 1
                    right.setblocking(True)
                if result is not None:
                    got = array.array("i")
                    got.frombytes(result[1][0][2])
                    for number in got:
                        os.close(number)
                assert len(os.listdir("/proc/self/fd")) == before, failing
        print(lost)
        """)
    assert int(done.stdout) > 0, "no call failed after its system call: nothing was tested"


def test_services_and_protocols_are_looked_up_by_many_threads() -> None:
    services = {}
    for name in ("http", "https", "ssh", "smtp", "domain", "ftp", "telnet", "pop3", "imap2"):
        with contextlib.suppress(OSError):
            port = socket.getservbyname(name, "tcp")
            if socket.getservbyport(port, "tcp") == name:  # and not an alias
                services[name] = port
    if len(services) < 4:
        pytest.skip("few services are known here (Debian: apt install netbase)")
    protocols = {name: socket.getprotobyname(name) for name in ("tcp", "udp", "icmp", "ip")}
    wrong: list[Any] = []
    start = threading.Barrier(4)

    def look_up(names: list[str]) -> None:
        start.wait()
        for _ in range(150):
            for name in names:
                port = socket.getservbyname(name, "tcp")
                if port != services[name] or socket.getservbyport(port, "tcp") != name:
                    wrong.append((name, port))
            for name, number in protocols.items():
                if socket.getprotobyname(name) != number:
                    wrong.append(name)

    names = list(services)
    threads = [
        threading.Thread(target=look_up, args=(names[shift:] + names[:shift],))
        for shift in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


# --- types ------------------------------------------------------------------------------------


def test_the_class_is_not_the_standard_librarys() -> None:
    done = run("""
        import _socket, socket
        theirs = socket.socket
        import tracesock
        assert socket.socket is theirs is not tracesock.socket
        with tracesock.socket() as sock:
            assert not isinstance(sock, theirs)
            assert isinstance(sock, _socket.socket)
            assert tracesock.SocketType is _socket.socket
        tracesock.install()
        assert socket.socket is tracesock.socket
        tracesock.uninstall()
        assert socket.socket is theirs
        print("done")
        """)
    assert done.stdout == "done\n"


def test_interpreters_with_a_lock_of_their_own() -> None:
    done = run("""
        import sys
        import sysconfig
        import tracesock
        interpreters = __import__(
            "_interpreters" if sys.version_info >= (3, 13) else "_xxsubinterpreters"
        )
        work = '''
        import tracesock
        assert tracesock.getdefaulttimeout() is None
        tracesock.setdefaulttimeout(3)
        one, two = tracesock.socketpair()
        with one, two:
            assert one.gettimeout() == 3
            one.send(b"x")
            assert two.recv(1) == b"x"
        '''.replace("\\n        ", "\\n")
        own_lock = '''
        try:
            import tracesock
        except ImportError as error:
            assert "subinterpreters" in str(error), error
        else:
            raise AssertionError("imported")
        '''.replace("\\n        ", "\\n")
        free_threaded = bool(sysconfig.get_config_var("Py_GIL_DISABLED"))
        def new(isolated):
            if sys.version_info >= (3, 13):
                return interpreters.create("isolated" if isolated else "legacy")
            return interpreters.create(isolated=isolated)
        for _ in range(3):
            for isolated in (False, True)[: 2 if sys.version_info >= (3, 12) else 1]:
                made = new(isolated)
                # Without a lock, none shares that of the main one.
                alone = isolated or free_threaded
                failed = interpreters.run_string(made, own_lock if alone else work)
                assert not failed, failed
                interpreters.destroy(made)
        assert tracesock.getdefaulttimeout() is None
        # They have ended, and leave the main one what it had: what is bound when it is first named,
        # and objects of bound classes.
        assert tracesock._native.recorder and tracesock._native.audit
        address = tracesock.Address(tracesock.AF_INET, ("127.0.0.1", 80))
        assert address.address == ("127.0.0.1", 80)
        print("done")
        """)
    assert done.stdout == "done\n", done.stderr


def test_the_class_is_pickled_only_where_it_is_installed() -> None:
    for thing in (socket.socket, socket.SocketIO):
        with pytest.raises(pickle.PicklingError, match="not the same object as socket"):
            pickle.dumps(thing)
    for function in (socket.create_connection, socket.gethostbyname, socket.inet_aton):
        assert pickle.loads(pickle.dumps(function)) is function
    done = run("""
        import pickle, tracesock
        tracesock.install()
        assert pickle.loads(pickle.dumps(tracesock.socket)) is tracesock.socket
        assert pickle.loads(pickle.dumps(tracesock.SocketIO)) is tracesock.SocketIO
        print("done")
        """)
    assert done.stdout == "done\n"


def test_methods_of_what_is_no_socket() -> None:
    with pytest.raises(TypeError, match=r"^descriptor 'bind' for '_socket.socket' objects"):
        stock.socket.bind(5, ("127.0.0.1", 0))  # type: ignore[arg-type]
    with pytest.raises(AttributeError):
        socket.socket.bind(5, ("127.0.0.1", 0))  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"missing 1 required positional argument: 'self'$"):
        socket.socket.bind()  # type: ignore[call-arg]
    methods = ("connect", "connect_ex", "send", "sendall", "sendto", "recv", "recvfrom")
    for name in (*methods, "recv_into", "recvfrom_into"):
        with pytest.raises(TypeError, match=rf"^descriptor '{name}' for '_socket.socket' objects"):
            getattr(stock.socket, name)(5)
        with pytest.raises(TypeError, match=rf"^descriptor '{name}' for 'socket' objects"):
            getattr(socket.socket, name)(5)


def test_closed_and_io_refs_are_a_bool_and_an_int() -> None:
    theirs = stock.socket.__new__(stock.socket)
    ours = socket.socket.__new__(socket.socket)
    for name, default, refused in (("_closed", False, 1), ("_io_refs", 0, None)):
        assert not hasattr(theirs, name)
        assert getattr(ours, name) == default
        with pytest.raises(TypeError):
            setattr(ours, name, refused)
        with pytest.raises(TypeError):
            delattr(ours, name)
    with pytest.raises(AttributeError):
        theirs.close()
    ours.close()
    assert ours._closed


def test_methods_of_the_stock_type_find_no_descriptor() -> None:
    class Derived(socket.socket):
        pass

    left, right = socket.socketpair()
    with left, right, Derived() as derived:
        assert _socket.socket.fileno(left) == -1
        for name, argument in (("recv", 1), ("send", b"x"), ("shutdown", 2), ("settimeout", 1)):
            with pytest.raises(OSError, match=r"^\[Errno 9\]"):
                getattr(_socket.socket, name)(left, argument)
        _socket.socket.close(left)
        right.send(b"x")
        assert left.recv(1) == b"x"

        assert _socket.socket.fileno(derived) == derived.fileno() != -1
        derived.settimeout(3)
        assert _socket.socket.gettimeout(derived) == 3.0
        derived.close()
        assert _socket.socket.fileno(derived) == -1
