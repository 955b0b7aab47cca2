"""TLS on tracesock sockets: as on stock, and told to an observer."""

from __future__ import annotations

import os
import pathlib
import shutil
import subprocess
import sys

import pytest
from support import PROJECT, python

PYENV = pathlib.Path(os.environ.get("PYENV_ROOT", pathlib.Path.home() / ".pyenv")) / "versions"

# A TLS client and server in one process; what happened is printed, errors with their text.
TLS = """
import os, socket, ssl, sys, tempfile, threading

CERTIFICATE = sys.argv[1]
server_context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
server_context.load_cert_chain(CERTIFICATE)
server_context.set_alpn_protocols(["demo/1"])
client_context = ssl.create_default_context(cafile=CERTIFICATE)
client_context.set_alpn_protocols(["demo/1"])
listener = socket.create_server(("127.0.0.1", 0))
address = listener.getsockname()

def serve(handle, context=server_context):
    def run():
        connection, _ = listener.accept()
        try:
            with context.wrap_socket(connection, server_side=True) as tls:
                handle(tls)
        except OSError:
            pass  # the client's side prints what went wrong
    thread = threading.Thread(target=run)
    thread.start()
    return thread

def connect(context=client_context, name="localhost", **more):
    return context.wrap_socket(socket.create_connection(address), server_hostname=name, **more)

def echo(tls):
    while data := tls.recv(65536):
        tls.sendall(data)
"""

BEHAVIOUR = """
def trial(call):
    try:
        print(call.__name__, call())
    except Exception as error:
        print(call.__name__, type(error).__name__, getattr(error, "reason", None) or error)

@trial
def moves_data():
    thread = serve(echo)
    with connect() as tls:
        tls.sendall(b"x" * 200_000)
        got = 0
        while got < 200_000:
            got += len(tls.recv(65536))
        facts = isinstance(tls, socket.socket), tls.version(), tls.selected_alpn_protocol()
        assert repr(tls).startswith("<ssl.SSLSocket fd="), repr(tls)
    thread.join()
    return got, facts

@trial
def refuses_a_wrong_name():
    thread = serve(echo)
    try:
        connect(name="example.org")
    finally:
        thread.join()

@trial
def times_out():
    thread = serve(lambda tls: tls.recv(1))
    with connect() as tls:
        tls.settimeout(0.05)
        try:
            tls.recv(1)
        finally:
            tls.settimeout(None)
            tls.sendall(b".")
            thread.join()

@trial
def does_not_block():
    thread = serve(echo)
    with connect() as tls:
        tls.setblocking(False)
        try:
            tls.recv(1)
        except ssl.SSLWantReadError as error:
            facts = error.args, tls.gettimeout(), tls.getblocking()
        tls.setblocking(True)
    thread.join()
    return facts

@trial
def shakes_hands_without_blocking():
    import select
    thread = serve(echo)
    tls = connect(do_handshake_on_connect=False)
    tls.setblocking(False)
    while True:
        try:
            tls.do_handshake()
            break
        except ssl.SSLWantReadError:
            select.select([tls], [], [])
    tls.setblocking(True)
    cipher = tls.cipher() is not None
    tls.close()
    thread.join()
    return cipher

@trial
def connects_after_wrapping():
    thread = serve(echo)
    with client_context.wrap_socket(socket.socket(), server_hostname="localhost") as tls:
        tls.connect(address)
        tls.sendall(b"late")
        got = tls.recv(4)
    thread.join()
    return got

@trial
def unwraps():
    def plain(tls):
        raw = tls.unwrap()
        raw.sendall(b"plain " + raw.recv(16))
        raw.close()
    thread = serve(plain)
    raw = connect().unwrap()
    raw.sendall(b"again")
    got = raw.recv(16), raw.fileno() > 0, type(raw).__name__
    raw.close()
    thread.join()
    return got

@trial
def sends_a_file():
    thread = serve(echo)
    with tempfile.TemporaryFile() as file, connect() as tls:
        file.write(b"f" * 50_000)
        file.seek(0)
        sent = tls.sendfile(file)
        got = 0
        while got < sent:
            got += len(tls.recv(65536))
    thread.join()
    return sent, got

@trial
def calls_back_for_the_name():
    names = []
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(CERTIFICATE)
    context.sni_callback = lambda tls, name, own: names.append((type(tls).__name__, name))
    thread = serve(echo, context)
    connect().close()
    thread.join()
    return names

@trial
def resumes_a_session():
    def hello(tls):
        tls.sendall(b"hello")
        tls.recv(1)
    thread = serve(hello)
    with connect() as tls:
        tls.recv(5)
        session = tls.session
        tls.sendall(b".")
    thread.join()
    thread = serve(hello)
    with connect(session=session) as tls:
        tls.recv(5)
        resumed = tls.session_reused
        tls.sendall(b".")
    thread.join()
    return resumed

@trial
def works_in_memory():
    into, out_of = ssl.MemoryBIO(), ssl.MemoryBIO()
    tls = client_context.wrap_bio(into, out_of, server_hostname="localhost")
    try:
        tls.do_handshake()
    except ssl.SSLWantReadError:
        return out_of.pending > 100

@trial
def makes_a_stream():
    thread = serve(echo)
    with connect() as tls, tls.makefile("rwb") as stream:
        stream.write(b"one\\ntwo\\n")
        stream.flush()
        lines = stream.readline(), stream.readline()
    thread.join()
    return lines, tls.fileno()

@trial
def cannot_do_everything():
    thread = serve(echo)
    with connect() as tls:
        found = []
        for call in (
            lambda: tls.sendto(b"", address),
            lambda: tls.recvfrom(1),
            lambda: tls.sendmsg([b""]),
            lambda: tls.dup(),
            lambda: tls.send(b"", 1),
            lambda: ssl.SSLSocket(),
        ):
            try:
                call()
            except Exception as error:
                found.append((type(error).__name__, str(error)))
    thread.join()
    return found

listener.close()
"""


@pytest.fixture(scope="module")
def on_stock(certificate: str) -> str:
    out = python(TLS + BEHAVIOUR, certificate, options=("-W", "error"))
    assert len(out.splitlines()) == 13
    return out


@pytest.mark.parametrize("imported", ["before", "after"])
def test_behaves_as_on_stock(imported: str, certificate: str, on_stock: str) -> None:
    first = "import ssl\n" if imported == "before" else ""
    install = first + "import tracesock; tracesock.install()\n"
    check = "assert issubclass(ssl.SSLSocket, tracesock.socket)\n"
    out = python(install + TLS + check + BEHAVIOUR, certificate, options=("-W", "error"))
    assert out == on_stock


def _others() -> list[str]:
    """Other interpreters for which the extension of these sources was built beside them."""
    found = {}
    sources = [PROJECT / "CMakeLists.txt", *(PROJECT / "ext").rglob("*.[ch]pp")]
    newest = max(path.stat().st_mtime for path in sources)
    for path in (PROJECT / "tracesock").glob("_native.cpython-3*.so"):
        minor = path.name.split("-")[1][1:]
        if minor == str(sys.version_info.minor) or path.stat().st_mtime < newest:
            continue
        places = [shutil.which(f"python3.{minor}"), *PYENV.glob(f"3.{minor}.*/bin/python3")]
        found[minor] = next((str(place) for place in places if _runs(place)), None)
    return sorted(path for path in found.values() if path)


def _runs(place: object) -> bool:
    # A shim of pyenv is there for versions that are not.
    words = [str(place), "-c", "import ssl"]
    return place is not None and subprocess.run(words, capture_output=True).returncode == 0


@pytest.mark.parametrize("interpreter", _others() or [None])
def test_behaves_as_on_stock_in_another_python(certificate: str, interpreter: str | None) -> None:
    if interpreter is None:
        pytest.skip(
            "no extension of these sources for another Python: make native PYTHON=python3.13"
        )
    install = "import tracesock; tracesock.install()\n"
    check = "assert issubclass(ssl.SSLSocket, tracesock.socket)\n"
    options = ("-W", "error")
    stock = python(TLS + BEHAVIOUR, certificate, options=options, interpreter=interpreter)
    assert len(stock.splitlines()) == 13
    out = python(
        install + TLS + check + BEHAVIOUR, certificate, options=options, interpreter=interpreter
    )
    assert out == stock


def test_behaves_as_on_stock_while_observed(certificate: str, on_stock: str) -> None:
    observed = """
from unittest.mock import Mock
import tracesock.dropin
tracesock.install()
tracesock.dropin.set_observer(Mock())
"""
    out = python(observed + TLS + BEHAVIOUR, certificate, options=("-W", "error"))
    assert out == on_stock


def test_a_tracesock_socket_in_stock_tls(certificate: str) -> None:
    """Without install(), ssl's own class takes the descriptor over."""
    swapped = TLS.replace("import os, socket,", "import tracesock as socket, os,")
    check = """
import socket as stock
thread = serve(echo)
with connect() as tls:
    assert tls.__class__.__mro__[1] is stock.socket is not socket.socket
    tls.sendall(b"mixed")
    assert tls.recv(5) == b"mixed"
thread.join()
listener.close()
"""
    python(swapped + check, certificate, options=("-W", "error"))


def test_subclasses_made_before_install_go_on(certificate: str) -> None:
    python(
        """
import ssl
class Mine(ssl.SSLSocket):
    pass
import warnings, tracesock
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    tracesock.install()
assert "Mine" in str(caught[0].message)
"""
        + TLS
        + """
client_context.sslsocket_class = Mine
thread = serve(echo)
with connect() as tls:
    assert type(tls) is Mine and not isinstance(tls, tracesock.socket)
    tls.sendall(b"mine")
    assert tls.recv(4) == b"mine"
thread.join()
listener.close()
""",
        certificate,
    )


@pytest.mark.parametrize("imported", ["before", "after"])
def test_subclasses_made_while_installed_go_on(certificate: str, imported: str) -> None:
    python(
        ("import ssl\n" if imported == "before" else "")
        + "import tracesock; tracesock.install()"
        + TLS
        + """
class Mine(ssl.SSLSocket):
    pass

client_context.sslsocket_class = Mine
for change in (tracesock.install, tracesock.uninstall, tracesock.install, tracesock.uninstall):
    change()
    thread = serve(echo)
    with connect() as tls:
        assert type(tls) is Mine and isinstance(tls, tracesock.socket)
        tls.sendall(b"mine")
        assert tls.recv(4) == b"mine"
    thread.join()
listener.close()
""",
        certificate,
        options=("-W", "ignore"),
    )


OBSERVER = """
import tracesock
tracesock.install()
import tracesock.dropin

class Observer:
    def __init__(self):
        self.told = []
    def handshake_started(self, tls):
        self.told.append(("handshake", type(tls).__name__, tls.server_side))
        return len(self.told)
    def handshake_ended(self, tls, token, error):
        self.told.append(("done", type(tls).__name__, type(error).__name__))
    def send_started(self, tls, call, size):
        self.told.append((call, size))
        return call
    def send_ended(self, tls, token, size, error):
        self.told.append((token + " ended", size, type(error).__name__))
    def received(self, tls, size):
        self.told.append(("received", size))
    def internal(self, sock):
        self.told.append(("internal", sock.family.name))

observer = Observer()
"""


def test_an_observer_is_told_of_tls(certificate: str) -> None:
    python(
        OBSERVER
        + TLS
        + """
names = "do_handshake", "send", "sendall", "read"
originals = {name: vars(ssl.SSLSocket)[name] for name in names}
tracesock.dropin.set_observer(observer)
assert ssl.SSLSocket.send is not originals["send"]
def answer(tls):
    left = 70_000
    while left:
        left -= len(tls.recv(min(left, 10_000)))
    tls.send(b"pong")
    tls.recv(1)
thread = serve(answer)
with connect() as tls:
    tls.sendall(b"x" * 70_000)
    buffer = bytearray(10)
    assert tls.recv_into(buffer) == 4
    tls.sendall(b".")
thread.join()
told = observer.told
assert ("handshake", "SSLSocket", True) in told and ("handshake", "SSLSocket", False) in told
assert told.count(("done", "SSLSocket", "NoneType")) == 2, told
assert told.count(("sendall", 70_000)) == 1
assert told.count(("sendall ended", 70_000, "NoneType")) == 1
assert not [entry for entry in told if entry[0] == "send" and entry[1] > 4], told
assert ("send", 4) in told and ("send ended", 4, "NoneType") in told
assert ("received", 4) in told and ("received", 10_000) in told

del told[:]
thread = serve(answer)
try:
    connect(name="example.org")
except ssl.SSLCertVerificationError:
    pass
thread.join()
assert ("done", "SSLSocket", "SSLCertVerificationError") in told, told

tracesock.dropin.set_observer(None)
assert {name: vars(ssl.SSLSocket)[name] for name in originals} == originals
tracesock.dropin.set_observer(observer)
tracesock.uninstall()
assert ssl.SSLSocket.send.__code__ is originals["send"].__code__
listener.close()
""",
        certificate,
        options=("-W", "ignore"),
    )


def test_a_handshake_in_steps_is_told_once(certificate: str) -> None:
    python(
        OBSERVER
        + TLS
        + """
tracesock.dropin.set_observer(observer)
client_in, client_out, server_in, server_out = (ssl.MemoryBIO() for _ in range(4))
client = client_context.wrap_bio(client_in, client_out, server_hostname="localhost")
server = server_context.wrap_bio(server_in, server_out, server_side=True)
left = {client, server}
while left:
    for tls in list(left):
        try:
            tls.do_handshake()
            left.discard(tls)
        except ssl.SSLWantReadError:
            pass
        server_in.write(client_out.read())
        client_in.write(server_out.read())
told = [entry for entry in observer.told if entry[0] in ("handshake", "done")]
assert sorted(told) == sorted([
    ("handshake", "SSLObject", False), ("handshake", "SSLObject", True),
    ("done", "SSLObject", "NoneType"), ("done", "SSLObject", "NoneType"),
]), told
del observer.told[:]
# What goes through memory is sent and received by a socket, which tells of it.
client.write(b"four")
server_in.write(client_out.read())
assert server.read(10) == b"four"
assert not observer.told
assert not [name for name in vars(client) if "tracesock" in name]
listener.close()
""",
        certificate,
    )


def test_an_observer_that_fails_is_left_out(certificate: str) -> None:
    out = python(
        """
import logging, sys
logging.basicConfig(stream=sys.stdout, format="%(message)s")
"""
        + OBSERVER
        + TLS
        + """
original = ssl.SSLSocket.send
class Broken(Observer):
    def handshake_started(self, tls):
        raise RuntimeError("no")
tracesock.dropin.set_observer(Broken())
thread = serve(echo)
with connect() as tls:
    tls.sendall(b"fine")
    assert tls.recv(4) == b"fine"
thread.join()
assert ssl.SSLSocket.send is original
listener.close()
""",
        certificate,
    )
    assert out.count("the observer's handshake_started() failed") == 1, out


def test_an_observer_is_told_of_asyncios_set_ups() -> None:
    python(
        OBSERVER
        + """
import asyncio, socket
told = observer.told
observer.setup_started = lambda loop, host, port: told.append((host, port)) or (host, port)
observer.setup_ended = lambda token, transport, error: told.append(
    (token, transport is not None, type(error).__name__))
tracesock.dropin.set_observer(observer)

async def main():
    assert told == [("internal", "AF_UNIX")] * 2, told
    del told[:]
    server = await asyncio.start_server(lambda reader, writer: writer.close(), "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    reader, writer = await asyncio.open_connection("127.0.0.1", port, happy_eyeballs_delay=0.01)
    await reader.read()
    writer.close()
    assert told == [("127.0.0.1", port), (("127.0.0.1", port), True, "NoneType")], told
    del told[:]
    nobody = socket.socket()  # it does not listen, and nobody else gets its port
    nobody.bind(("127.0.0.1", 0))
    refused = nobody.getsockname()[1]
    try:
        await asyncio.open_connection("127.0.0.1", refused)
    except ConnectionRefusedError:
        pass
    nobody.close()
    assert told[1:] == [(("127.0.0.1", refused), False, "ConnectionRefusedError")], told
    del told[:]
    asleep = asyncio.Event()
    async def never(*args, **kwargs):
        asleep.set()
        await asyncio.sleep(60)
    asyncio.get_running_loop().getaddrinfo = never
    task = asyncio.create_task(asyncio.open_connection("name.invalid", 1))
    await asleep.wait()
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert told[1:] == [(("name.invalid", 1), False, "CancelledError")], told
    del told[:]
    left, right = socket.socketpair()
    _, writer = await asyncio.open_connection(sock=left)
    writer.close()
    right.close()
    assert not told, told
    server.close()

asyncio.run(main())
""",
        options=("-W", "ignore"),
    )
