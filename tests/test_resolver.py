"""Look-ups: getaddrinfo, getnameinfo, gethostby*, getserv*, the host name. No name leaves the
machine: numeric forms, localhost and what /etc/hosts holds, and errors that the resolver finds
without asking."""

from __future__ import annotations

import gc
import os
import shutil
import socket as stock
import subprocess
import sys
import tempfile
import textwrap
import threading
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

import tracesock as socket
from tests.differential import generated, raises, same
from tracesock import _native

LOOKUPS: dict[str, tuple[Any, ...]] = {
    "getaddrinfo": ("127.0.0.1", 80),
    "getnameinfo": (("127.0.0.1", 80), stock.NI_NUMERICHOST | stock.NI_NUMERICSERV),
    "gethostbyname": ("127.0.0.1",),
    "gethostbyname_ex": ("localhost",),
    "gethostbyaddr": ("127.0.0.1",),
    "gethostname": (),
    "getservbyname": ("http", "tcp"),
    "getservbyport": (80, "tcp"),
}


class Index:
    def __init__(self, value: int) -> None:
        self.value = value

    def __index__(self) -> int:
        return self.value


class Refused(Exception):
    pass


_hook: Callable[[str, tuple[Any, ...]], None] | None = None


def _dispatch(event: str, arguments: tuple[Any, ...]) -> None:
    if _hook is not None and event.startswith("socket."):
        _hook(event, arguments)


@contextmanager
def audited(hook: Callable[[str, tuple[Any, ...]], None]) -> Iterator[None]:
    """An audit hook for the block only."""
    global _hook
    if not hasattr(audited, "added"):
        sys.addaudithook(_dispatch)
        audited.added = True  # type: ignore[attr-defined]
    _hook = hook
    try:
        yield
    finally:
        _hook = None


def in_namespaces(*script: str, hosts: str | bytes = "", resolv: str = "") -> str:
    """Runs a script, with tracesock as `socket`, in user, mount, network and UTS namespaces of its
    own, where only loopback is up and these are /etc/hosts and /etc/resolv.conf."""
    unshare = ["unshare", "--map-root-user", "--mount", "--net", "--uts"]
    if shutil.which("unshare") is None or shutil.which("mount") is None:
        pytest.skip("needs unshare(1) and mount(8)")
    if subprocess.run([*unshare, "true"], capture_output=True).returncode != 0:
        pytest.skip("needs the right to make user, mount and network namespaces")
    prologue = """
        import fcntl, struct, sys
        import tracesock as socket
        with __import__("socket").socket() as any_socket:
            fcntl.ioctl(any_socket, 0x8914, struct.pack("16sh14x", b"lo", 1))  # SIOCSIFFLAGS: up
        """
    text = "\n".join(textwrap.dedent(part) for part in (prologue, *script))
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    environment.pop("RES_OPTIONS", None)  # the file's
    with tempfile.TemporaryDirectory() as directory:
        mounts = []
        for name, content in (("hosts", hosts), ("resolv.conf", resolv)):
            path = os.path.join(directory, name)
            with open(path, "wb") as file:
                file.write(content if isinstance(content, bytes) else content.encode())
            mounts.append(f"mount --bind {path} /etc/{name} && ")
        done = subprocess.run(
            [*unshare, "sh", "-c", "".join(mounts) + 'exec "$0" -X utf8 -c "$1"']
            + [sys.executable, text],
            capture_output=True,
            text=True,
            timeout=60,
            env=environment,
        )
    assert done.stderr == ""
    return done.stdout


# --- arguments -----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [*LOOKUPS, "sethostname"])
@pytest.mark.parametrize(
    "arguments",
    [
        "",
        "x=1",
        "1, x=2",
        "None",
        "1.5",
        "1, 2, 3, 4, 5, 6, 7",
        "[]",
        "object()",
        "'a', 1.5",
        "(1,)",
    ],
)
def test_wrong_arguments(name: str, arguments: str) -> None:
    same(f"socket.{name}({arguments})")


@pytest.mark.parametrize(
    "call",
    [
        "getaddrinfo()",
        "getaddrinfo('127.0.0.1')",
        "getaddrinfo('127.0.0.1', 80, x=1)",
        "getaddrinfo('127.0.0.1', 80, 0, 0, 0, 0, 0)",
        "getaddrinfo(port=80, host='127.0.0.1', flags=4, type=1)",
        "getaddrinfo('127.0.0.1', 80, 'inet')",
        "getaddrinfo('127.0.0.1', 80, 2**40)",
        "getaddrinfo('127.0.0.1', 80, type=1.5)",
        "getaddrinfo('127.0.0.1', 80, proto=None)",
    ],
)
def test_getaddrinfo_keywords(call: str) -> None:
    same(f"socket.{call}")


@pytest.mark.parametrize("name", [*LOOKUPS, "sethostname", "getfqdn"])
def test_is_our_own(name: str) -> None:
    assert getattr(socket, name) is not getattr(stock, name)
    assert getattr(socket, name).__name__ == name
    assert getattr(socket, name).__doc__


# --- getaddrinfo ---------------------------------------------------------------------------------

HOSTS = [
    "None",
    "''",
    "b''",
    "'127.0.0.1'",
    "b'127.0.0.1'",
    "'127.1'",
    "'0x7f.1'",
    "'::1'",
    "'::ffff:127.0.0.1'",
    "'fe80::1%lo'",
    "'fe80::1%999'",
    "'localhost'",
    "'LOCALHOST'",
    "'\\uff4cocalhost'",
    "'255.255.255.255'",
    "'<broadcast>'",
    "'1.2.3.4.5'",
    "' 127.0.0.1'",
    "'a..b'",
    "'.a'",
    "'..'",
    "'a' * 63 + '.invalid'",
    "'a' * 64",
    "'é' * 64",
    "'é' * 1024",
    "'\\udcff'",
    "b'\\xff'",
    "bytearray(b'127.0.0.1')",
    "memoryview(b'127.0.0.1')",
    "1",
    "type('S', (str,), {})('127.0.0.1')",
    "type('B', (bytes,), {})(b'127.0.0.1')",
]


@pytest.mark.parametrize("host", HOSTS)
def test_getaddrinfo_hosts(host: str) -> None:
    same(f"socket.getaddrinfo({host}, 80)")
    same(f"socket.getaddrinfo({host}, 80, socket.AF_INET6, socket.SOCK_STREAM)")
    same(f"socket.getaddrinfo({host}, None, flags=socket.AI_NUMERICHOST | socket.AI_CANONNAME)")


@pytest.mark.parametrize(
    "port",
    ["0", "80", "65535", "65536", "70000", "2**32", "-1", "2**63 - 1", "-2**63", "2**63", "-2**70"]
    + ["None", "''", "b''", "'80'", "b'80'", "'http'", "b'http'", "'HTTP'", "' 80'", "'80x'"]
    + ["'no such'", "'\\udcff'", "b'\\xff'", "'é'", "1.5", "[]", "bytearray(b'80')", "object()"],
)
def test_getaddrinfo_ports(port: str) -> None:
    same(f"socket.getaddrinfo('127.0.0.1', {port})")
    same(f"socket.getaddrinfo(None, {port}, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)")


@pytest.mark.parametrize("port", [True, Index(80), stock.SOCK_DGRAM])
def test_getaddrinfo_port_by_index(port: Any) -> None:
    """3.14 takes any integer; so do we, on every version."""
    got = socket.getaddrinfo("127.0.0.1", port, type=socket.SOCK_STREAM)
    assert [entry[4] for entry in got] == [("127.0.0.1", port.__index__())]


def test_getaddrinfo_results() -> None:
    got = socket.getaddrinfo("::1", 80, type=socket.SOCK_STREAM)
    assert got == [(socket.AF_INET6, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", ("::1", 80, 0, 0))]
    family, kind, *_ = got[0]
    assert type(family) is stock.AddressFamily
    assert type(kind) is stock.SocketKind


@pytest.mark.parametrize("host", ["127.0.0.1\0.example", b"127.0.0.1\0.example", "é\0", "\0"])
def test_getaddrinfo_refuses_nul_in_host(host: str | bytes) -> None:
    seen: list[str] = []
    with (
        audited(lambda event, _: seen.append(event)),
        pytest.raises(ValueError, match=r"embedded null (character|byte)"),
    ):
        socket.getaddrinfo(host, 80)
    assert seen == []  # nothing was asked, so there is nothing to audit


@pytest.mark.parametrize("port", ["80\0x", b"80\0x", "\0"])
def test_getaddrinfo_refuses_nul_in_port(port: str | bytes) -> None:
    with pytest.raises(ValueError, match=r"embedded null (character|byte)"):
        socket.getaddrinfo("127.0.0.1", port)


@pytest.mark.parametrize(
    "name", ["getaddrinfo", "gethostbyname", "gethostbyname_ex", "gethostbyaddr"]
)
def test_long_host_is_not_encoded(name: str) -> None:
    """The IDNA encoder would need hours for these."""
    rest = (80,) if name == "getaddrinfo" else ()
    for host in ("é" * 10_000_000, "é." * 5_000_000, "é" * 1025):
        with pytest.raises(UnicodeError, match="too long") as caught:
            getattr(socket, name)(host, *rest)
        if sys.version_info >= (3, 13):
            assert isinstance(caught.value, UnicodeEncodeError)
            assert caught.value.encoding == "idna"


def test_long_host_has_stock_text() -> None:
    raises("socket.getaddrinfo('é' * 1025, 80)")
    raises("socket.gethostbyname('é' * 1025)")
    # ASCII never reaches the slow part, and is left to the encoder and the resolver.
    raises("socket.getaddrinfo('a.' * 20000, 80)")
    raises("socket.getaddrinfo('a' * 100000, 80)")


hosts = st.one_of(
    st.ip_addresses().map(str),
    st.ip_addresses(v=4).map(str).map(str.encode),
    st.lists(st.integers(0, 2**32).map(str), min_size=1, max_size=4).map(".".join),
    st.lists(st.integers(0, 2**16).map(hex), min_size=1, max_size=4).map(".".join),
    st.sampled_from([None, "", "localhost", "::1%lo", "::1%1", "fe80::%lo", "0", "1 2", "[::1]"]),
)
ports = st.one_of(
    st.integers(-2, 2**17),
    st.integers(0, 2**17).map(str),
    st.integers(0, 2**17).map(lambda port: str(port).encode()),
    st.sampled_from([None, "", "http", "domain", "nothing", 1.5]),
)
families = st.sampled_from([0, 0, stock.AF_INET, stock.AF_INET6, stock.AF_UNIX, 9999, -1])
types = st.sampled_from([0, 0, stock.SOCK_STREAM, stock.SOCK_DGRAM, stock.SOCK_RAW, 77, -1])
protocols = st.sampled_from([0, 0, 6, 17, 1, 255, -1])
flags = st.sampled_from(
    [0, 0, stock.AI_PASSIVE, stock.AI_NUMERICHOST, stock.AI_NUMERICSERV, stock.AI_CANONNAME]
    + [stock.AI_ADDRCONFIG, stock.AI_V4MAPPED | stock.AI_ALL, 0x40000, -1]
).map(int)


@generated
@given(hosts, ports, families, types, protocols, flags)
def test_getaddrinfo(host: Any, port: Any, family: int, kind: int, proto: int, flag: int) -> None:
    # Always numeric: no generated text is looked up on a network.
    numeric = flag | stock.AI_NUMERICHOST if host not in (None, "localhost") else flag
    same(lambda module: module.getaddrinfo(host, port, family, kind, proto, numeric))


# --- getnameinfo ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "arguments",
    [
        "('127.0.0.1', 80), 0",
        "('127.0.0.1', 80), socket.NI_NUMERICHOST",
        "('127.0.0.1', 80), socket.NI_NUMERICSERV | socket.NI_DGRAM",
        "('127.0.0.1', 53), socket.NI_DGRAM",
        "('127.0.0.1', 0), 0",
        "('::1', 80, 0, 0), 3",
        "('::1', 80), 3",
        "('fe80::1', 80, 0, 1), 3",
        "('fe80::1%lo', 80), 3",
        "('fe80::1%lo', 80, 0, 1), 3",
        "('ff02::1', 80, 0xfffff, 1), 3",
        "('::1', 80, 0x100000, 0), 3",
        "('::1', 80, -1, 0), 3",
        "('::1', 80, 0, 2**33 + 1), 3",
        "('127.0.0.1', 80, 0), 3",
        "('127.0.0.1', 80, 0, 0), 3",
        "('127.0.0.1', 70000), 3",
        "('127.0.0.1', -1), 3",
        "('127.0.0.1', 2**31), 3",
        "('127.0.0.1', '80'), 3",
        "('127.0.0.1', 80), 2**31",
        "('127.0.0.1', 80), '3'",
        "('localhost', 80), 3",
        "('', 80), 3",
        "(b'127.0.0.1', 80), 3",
        "(None, 80), 3",
        "('127.0.0.1\\0', 80), 3",
        "('127.0.0.1',), 3",
        "('127.0.0.1', 80, 0, 0, 0), 3",
        "(), 3",
        "['127.0.0.1', 80], 3",
        "'127.0.0.1', 3",
        "('192.0.2.1', 80), socket.NI_NUMERICHOST | socket.NI_NAMEREQD",
        "('\\udcff', 80), 3",
    ],
)
def test_getnameinfo_forms(arguments: str) -> None:
    same(f"socket.getnameinfo({arguments})")


@generated
@given(
    st.one_of(st.ip_addresses().map(str), st.sampled_from(["", "1.2", "::1%lo", "x"])),
    st.integers(-2, 2**17),
    st.lists(st.integers(-1, 2**21), max_size=3),
    st.sampled_from([0, stock.NI_DGRAM, stock.NI_NUMERICSERV, stock.NI_NOFQDN, 1 << 20]),
)
@example("fe80::1", 80, [0, 1], 2)
def test_getnameinfo(host: str, port: int, rest: list[int], flag: int) -> None:
    numeric = flag | stock.NI_NUMERICHOST
    same(lambda module: module.getnameinfo((host, port, *rest), numeric))


# --- gethostby*, getfqdn -------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["gethostbyname", "gethostbyname_ex", "gethostbyaddr"])
@pytest.mark.parametrize(
    "host",
    [
        "''",
        "'127.0.0.1'",
        "b'127.0.0.1'",
        "bytearray(b'127.0.0.1')",
        "'127.1'",
        "'localhost'",
        "'LocalHost'",
        "'\\uff4cocalhost'",
        "socket.gethostname()",
        "'::1'",
        "'::ffff:127.0.0.1'",
        "'fe80::1%lo'",
        "'fe80::1%none'",
        "'255.255.255.255'",
        "'<broadcast>'",
        "'127.0.0.1\\0'",
        "b'127.0.0.1\\0'",
        "bytearray(b'a\\0')",
        "'a..b'",
        "'a' * 64",
        "'é' * 100",
        "'\\udcff'",
        "b'\\xff'",
        "memoryview(b'127.0.0.1')",
        "None",
        "1",
    ],
)
def test_gethostby(name: str, host: str) -> None:
    same(f"socket.{name}({host})")


@generated
@given(
    st.sampled_from(["gethostbyname", "gethostbyname_ex"]),
    st.lists(st.integers(0, 2**9).map(str), min_size=4, max_size=4).map(".".join),
)
def test_gethostbyname_numeric(name: str, host: str) -> None:
    if any(int(part) > 255 for part in host.split(".")):
        host = "0" + host  # a leading zero: octal, or nothing that any resolver is asked for
        same(lambda module: module.inet_pton(module.AF_INET, host))
    else:
        same(lambda module: getattr(module, name)(host))


@pytest.mark.parametrize(
    "name", ["''", "'localhost'", "' localhost '", "'0.0.0.0'", "'127.0.0.1'", "'no..such'", "None"]
)
def test_getfqdn(name: str) -> None:
    same(f"socket.getfqdn({name})")
    if name == "''":
        same("socket.getfqdn()")
        assert socket.getfqdn("::") == socket.getfqdn()


def test_getfqdn_takes_the_first_name_with_a_dot(monkeypatch: pytest.MonkeyPatch) -> None:
    from tracesock import _functions

    answer: list[Any] = [("host", ["alias", "host.example", "other.example"], ["192.0.2.1"])]
    monkeypatch.setattr(_functions.public, "gethostbyaddr", lambda name: answer[0])
    assert socket.getfqdn("192.0.2.1") == "host.example"
    answer[0] = ("host", ["alias"], ["192.0.2.1"])
    assert socket.getfqdn("192.0.2.1") == "host"


def test_herror_is_the_standard_one() -> None:
    with pytest.raises(stock.herror) as caught:
        socket.gethostbyname_ex("<broadcast>")
    assert type(caught.value) is stock.herror
    with pytest.raises(stock.gaierror) as failed:
        socket.gethostbyname("::1")
    assert type(failed.value) is stock.gaierror
    assert failed.value.errno == stock.EAI_ADDRFAMILY


# --- services and the host name ------------------------------------------------------------------


@pytest.mark.parametrize(
    "arguments",
    ["'http'", "'http', 'tcp'", "'domain', 'udp'", "'HTTP'", "'no such'", "'http', 'no such'", "''"]
    + ["'http\\0'", "'http', 'tcp\\0'", "'http', None", "'\\udcff'", "b'http'", "'é'"],
)
def test_getservbyname(arguments: str) -> None:
    same(f"socket.getservbyname({arguments})")


@pytest.mark.parametrize(
    "arguments",
    ["80", "80, 'tcp'", "53, 'udp'", "0", "65535", "65536", "-1", "2**40", "80, 'no such'", "True"]
    + ["80, None", "'80'", "80.0", "80, b'tcp'", "80, '\\udcff'"],
)
def test_getservbyport(arguments: str) -> None:
    same(f"socket.getservbyport({arguments})")


def test_hostname() -> None:
    assert same("socket.gethostname()") == os.uname().nodename


@pytest.mark.parametrize(
    "name", ["'a\\0b'", "b'x' * 65", "'x' * 65", "1", "bytearray(b'a')", "None"]
)
def test_sethostname_errors(name: str) -> None:
    raises(f"socket.sethostname({name})")


def test_sethostname_in_a_namespace() -> None:
    """Sets a name for real, in a host name namespace of a child's own."""
    output = in_namespaces(
        """
        for name in ("first", b"second", "th\\u00efrd"):
            socket.sethostname(name)
            print(ascii(socket.gethostname()))
        """
    )
    assert output == "'first'\n'second'\n'th\\xefrd'\n"


# --- the audit event between reading and doing ---------------------------------------------------


@pytest.mark.parametrize("name", LOOKUPS)
def test_event_has_the_callers_own_objects(name: str) -> None:
    arguments = LOOKUPS[name]
    seen: list[tuple[str, tuple[Any, ...]]] = []
    with audited(lambda event, values: seen.append((event, values))):
        getattr(socket, name)(*arguments)
    event = "gethostbyname" if name == "gethostbyname_ex" else name
    documented = {
        "getaddrinfo": (*arguments, 0, 0, 0),
        "getnameinfo": arguments[:1],
    }.get(name, arguments)
    assert seen == [(f"socket.{event}", documented)]
    if name in ("getaddrinfo", "getnameinfo", "gethostbyname"):
        assert seen[0][1][0] is arguments[0]


@pytest.mark.parametrize("name", LOOKUPS)
def test_refused_look_up_does_nothing_and_leaves_nothing(name: str) -> None:
    def refuse(event: str, arguments: tuple[Any, ...]) -> None:
        raise Refused(event)

    host = bytearray(b"127.0.0.1")
    arguments = (host,) if name.startswith("gethostby") else LOOKUPS[name]
    gc.collect()
    before = [sys.getrefcount(argument) for argument in arguments]
    lookups = sum(type(each) is _native.Lookup for each in gc.get_objects())
    with audited(refuse):
        for _ in range(100):
            with pytest.raises(Refused, match=r"^socket\."):
                getattr(socket, name)(*arguments)
    host.append(0)  # BufferError while exported
    assert [sys.getrefcount(argument) for argument in arguments] == before
    gc.collect()
    assert sum(type(each) is _native.Lookup for each in gc.get_objects()) == lookups


# getaddrinfo is a Python function in stock as well, whose parameters the traceback keeps.
@pytest.mark.parametrize("name", sorted({*LOOKUPS} - {"getaddrinfo", "gethostname"}))
def test_wrong_arguments_are_not_kept_by_the_traceback(name: str) -> None:
    class Argument:
        pass

    argument = Argument()
    gone = weakref.ref(argument)
    with pytest.raises(TypeError) as caught:
        getattr(socket, name)(argument, argument)
    assert caught.value.__traceback__ is not None
    del argument
    assert gone() is None


def test_refused_sethostname_sets_nothing() -> None:
    before = socket.gethostname()
    seen: list[tuple[Any, ...]] = []

    def refuse(event: str, arguments: tuple[Any, ...]) -> None:
        if event == "socket.sethostname":
            seen.append(arguments)
            raise Refused(event)

    with audited(refuse), pytest.raises(Refused):
        socket.sethostname("never-set")
    assert seen == [(b"never-set",)]
    assert socket.gethostname() == before


def test_hook_cannot_change_what_is_looked_up() -> None:
    """A bytearray that a hook rewrites: what was audited is what is asked for."""
    host = bytearray(b"127.0.0.1")

    def rewrite(event: str, arguments: tuple[Any, ...]) -> None:
        host[:] = b"127.0.0.2"

    with audited(rewrite):
        assert socket.gethostbyname(host) == "127.0.0.1"


# --- the prepared look-up ------------------------------------------------------------------------


@pytest.mark.parametrize("name", LOOKUPS)
def test_lookup_describes_itself(name: str) -> None:
    lookup = getattr(_native, name)(*LOOKUPS[name])
    assert type(lookup) is _native.Lookup
    with pytest.raises(AttributeError):
        lookup.arguments = None


def test_lookup_cannot_be_made_or_changed() -> None:
    with pytest.raises(TypeError, match="cannot create"):
        _native.Lookup()
    with pytest.raises(TypeError, match=r"not safe|cannot create"):
        object.__new__(_native.Lookup)
    with pytest.raises(TypeError, match="immutable type"):
        _native.Lookup.run = None
    with pytest.raises(TypeError, match="not an acceptable base type"):
        type("Derived", (_native.Lookup,), {})


@pytest.mark.parametrize("name", LOOKUPS)
def test_lookup_runs_from_several_threads(name: str) -> None:
    lookup = getattr(_native, name)(*LOOKUPS[name])
    expected = lookup.run()
    wrong: list[Any] = []

    def run() -> None:
        for _ in range(20):
            if (got := lookup.run()) != expected:
                wrong.append(got)

    threads = [threading.Thread(target=run) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_lookup_keeps_its_arguments_alive_and_no_longer() -> None:
    class Host(str):
        pass

    host = Host("127.0.0.1")
    gone = weakref.ref(host)
    lookup = _native.getaddrinfo(host, 80)
    assert lookup.arguments[0] is host
    del host
    assert gone() is not None
    assert lookup.run()
    del lookup
    assert gone() is None


# --- a network of the test's own -----------------------------------------------------------------

NAME_SERVER = """
    import socket as stock, struct, threading

    def read_name(query, at=12):
        labels = []
        while query[at]:
            labels.append(query[at + 1 : at + 1 + query[at]].decode())
            at += 1 + query[at]
        return ".".join(labels), at + 1

    def encode(name):
        return b"".join(bytes([len(each)]) + each.encode() for each in name.split(".")) + b"\\0"

    def serve(records):
        # (name, type): a list of (type, data). What is not there does not exist.
        server = stock.socket(stock.AF_INET, stock.SOCK_DGRAM)
        server.bind(("127.0.0.1", 53))

        def answer():
            while True:
                query, client = server.recvfrom(512)
                name, end = read_name(query)
                (kind,) = struct.unpack_from(">H", query, end)
                found = records.get((name.lower(), kind))
                flags = 0x8180 if found is not None else 0x8183
                header = query[:2] + struct.pack(">HHHHH", flags, 1, len(found or ()), 0, 0)
                body = b"".join(
                    b"\\xc0\\x0c" + struct.pack(">HHIH", each, 1, 60, len(data)) + data
                    for each, data in found or ()
                )
                server.sendto(header + query[12 : end + 4] + body, client)

        threading.Thread(target=answer, daemon=True).start()
"""


def test_look_up_gives_up_the_lock() -> None:
    """The name server is a thread of the same process: it answers only if others may run."""
    output = in_namespaces(
        NAME_SERVER,
        """
        serve({
            ("held.test", 1): [(1, bytes([192, 0, 2, 7])), (1, bytes([192, 0, 2, 8]))],
            ("held.test", 28): [(28, bytes(15) + b"\\7")],
            ("7.2.0.192.in-addr.arpa", 12): [(12, encode("held.test"))],
            ("xn--bcher-kva.test", 1): [(1, bytes([192, 0, 2, 9]))],
        })
        print(socket.gethostbyname("held.test") in ("192.0.2.7", "192.0.2.8"))
        name, aliases, addresses = socket.gethostbyname_ex("held.test")
        print(name, aliases, sorted(addresses))
        print(socket.gethostbyaddr("192.0.2.7"))
        print(socket.getnameinfo(("192.0.2.7", 80), socket.NI_NUMERICSERV))
        got = socket.getaddrinfo("held.test", 80, type=socket.SOCK_STREAM)
        print(sorted({entry[4][0] for entry in got}))
        print(socket.gethostbyname("b\\u00fccher.test"))
        for call, host in (
            (socket.gethostbyname, "none.test"),
            (socket.gethostbyname_ex, "none.test"),
            (socket.gethostbyaddr, "192.0.2.77"),
        ):
            try:
                call(host)
            except OSError as error:
                print(type(error).__name__, error.errno)
        """,
        resolv="nameserver 127.0.0.1\noptions timeout:20 attempts:1\n",
    )
    assert output.splitlines() == [
        "True",
        "held.test [] ['192.0.2.7', '192.0.2.8']",
        "('held.test', [], ['192.0.2.7'])",
        "('held.test', '80')",
        "['192.0.2.7', '192.0.2.8', '::7']",
        "192.0.2.9",
        f"gaierror {stock.EAI_NONAME}",
        f"gaierror {stock.EAI_NONAME}",
        "herror 1",
    ]


def test_silent_name_server() -> None:
    output = in_namespaces(
        """
        for call in ("getaddrinfo('a.test', 1)", "gethostbyname('a.test')",
                     "gethostbyaddr('192.0.2.1')", "getnameinfo(('192.0.2.1', 1), 8)"):
            try:
                eval("socket." + call)
            except OSError as error:
                print(type(error).__name__, error.errno)
        """,
        resolv="nameserver 127.0.0.1\noptions timeout:1 attempts:1\n",
    )
    assert output.splitlines() == ["gaierror -3", "gaierror -3", "herror 2", "gaierror -3"]


def test_host_with_more_names_than_any_fixed_buffer() -> None:
    names = [f"alias-number-{number}.test" for number in range(1000)]
    output = in_namespaces(
        """
        for got in (socket.gethostbyname_ex("many.test"), socket.gethostbyaddr("192.0.2.1")):
            print(got[0], len(got[1]), got[1][-1], got[2])
        print(socket.getfqdn("many.test"))
        """,
        hosts=f"192.0.2.1 many.test {' '.join(names)}\n",
    )
    assert output == "many.test 1000 alias-number-999.test ['192.0.2.1']\n" * 2 + "many.test\n"


def test_name_that_is_not_utf_8() -> None:
    output = in_namespaces(
        """
        for call in (socket.gethostbyaddr, socket.gethostbyname_ex):
            try:
                call("192.0.2.1" if call is socket.gethostbyaddr else b"b\\xfccher")
            except UnicodeDecodeError as error:
                print(error.object)
        """,
        hosts=b"192.0.2.1 b\xfccher\n",
    )
    assert output == "b'b\\xfccher'\n" * 2


def test_a_function_that_outlives_its_module() -> None:
    """As when the interpreter ends, which clears the one before it frees the other."""
    program = """
        import gc, tracesock
        function = tracesock.getnameinfo
        vars(function.__self__).clear()
        gc.collect()
        print(function.__name__, function.__doc__ == tracesock.getnameinfo.__doc__)
        """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)],
        env={**os.environ, "MALLOC_PERTURB_": "165"},  # glibc: what is freed is overwritten
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "getnameinfo True\n", "")
