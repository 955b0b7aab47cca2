"""install() and uninstall(): what they change, what they warn of, and that nothing stays."""

from __future__ import annotations

import os
import pathlib

import pytest
from support import AUTOLOAD, PROJECT, python

IMPORTS = "import ssl, asyncio, selectors, multiprocessing.reduction, socketserver, http.client\n"

# What install() may touch, as text that a later line compares.
SNAPSHOT = """
import sys, copyreg

def snapshot():
    found = {"meta_path": list(sys.meta_path), "path_hooks": list(sys.path_hooks)}
    for name, module in list(sys.modules.items()):
        if name.partition(".")[0] not in sys.stdlib_module_names or name == "__main__":
            continue
        found[name] = dict(vars(module))
        for value in list(vars(module).values()):
            if isinstance(value, type) and value.__module__ == name:
                found[name, value.__qualname__] = dict(vars(value))
    reduction = sys.modules.get("multiprocessing.reduction")
    if reduction is not None:
        found["reducers"] = dict(reduction.ForkingPickler._extra_reducers)
    found["copyreg"] = dict(copyreg.dispatch_table)
    return found

def differing(before, after):
    return [
        (place, name)
        for place, names in before.items()
        for name in names
        if not isinstance(names, dict) or name not in after[place]
        or after[place][name] is not names[name]
        if isinstance(names, dict) or names != after[place]
    ] + [
        (place, name)
        for place, names in before.items() if isinstance(names, dict)
        for name in after[place] if name not in names
    ]
"""


CHANGES = """
import tracesock.instrumentation
from opentelemetry.sdk.trace import TracerProvider

def observed():
    tracesock.instrument(TracerProvider())
    tracesock.uninstrument()

def installed_while_observed():
    tracesock.instrument(TracerProvider())
    tracesock.install()
    assert ssl.SSLSocket.send.__wrapped__ and asyncio.BaseEventLoop.create_connection.__wrapped__
    tracesock.uninstall()
    tracesock.uninstrument()

def observed_while_installed():
    tracesock.install()
    tracesock.instrument(TracerProvider())
    assert ssl.SSLSocket.send.__wrapped__ and asyncio.BaseEventLoop.create_connection.__wrapped__
    tracesock.uninstrument()
    assert not hasattr(ssl.SSLSocket.send, "__wrapped__")
    tracesock.uninstall()

def observed_for_longer():
    tracesock.install()
    tracesock.instrument(TracerProvider())
    tracesock.uninstall()
    assert not hasattr(ssl.SSLSocket.send, "__wrapped__")
    tracesock.uninstrument()

def used():
    tracesock.install()
    async def main():
        server = await asyncio.start_server(lambda reader, writer: writer.close(), "127.0.0.1", 0)
        reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
        await reader.read()
        writer.close()
        server.close()
    asyncio.run(main())
    tracesock.uninstall()
"""


def test_every_way_leads_back() -> None:
    python(
        IMPORTS
        + CHANGES
        + SNAPSHOT
        + """
changes = observed, installed_while_observed, observed_while_installed, observed_for_longer, used
for change in changes:
    change()  # what it imports is not what is compared
before = snapshot()
for change in changes:
    change()
    assert not differing(before, snapshot()), (change, differing(before, snapshot()))
""",
        options=("-W", "ignore"),
    )


@pytest.mark.parametrize("imported", ["before", "after"])
def test_names_classes_and_the_way_back(imported: str) -> None:
    python(
        (IMPORTS if imported == "before" else "")
        + SNAPSHOT
        + """
import socket, tracesock
import tracesock.dropin
import warnings, linecache, tokenize  # what telling a warning imports
before = snapshot()
stock = dict(vars(socket))
tracesock.install()
"""
        + IMPORTS
        + """
assert socket.socket is tracesock.socket and socket.getaddrinfo is tracesock.getaddrinfo
assert set(tracesock.__all__) <= set(vars(socket)) and socket.__all__ == tracesock.__all__
assert socket.AddressFamily is stock["AddressFamily"] and socket.gaierror is stock["gaierror"]
assert ssl.socket is tracesock.socket and ssl.create_connection is tracesock.create_connection
assert ssl.SSLSocket.__mro__[:2] == (ssl.SSLSocket, tracesock.socket)
assert ssl.SSLContext.sslsocket_class is ssl.SSLSocket
assert type(ssl.__spec__.loader).__name__ == "SourceFileLoader", ssl.__spec__
assert tracesock.socket in multiprocessing.reduction.ForkingPickler._extra_reducers
installed = snapshot()
tracesock.install()
assert not differing(installed, snapshot())
tracesock.uninstall()
assert not differing(before, snapshot()), differing(before, snapshot())
assert ssl.SSLSocket.__mro__ == (ssl.SSLSocket, *stock["socket"].__mro__)
assert ssl.SSLContext.sslsocket_class is ssl.SSLSocket and ssl.socket is stock["socket"]
assert tracesock.socket not in multiprocessing.reduction.ForkingPickler._extra_reducers
tracesock.uninstall()
assert not differing(before, snapshot())
tracesock.install()
assert ssl.SSLSocket.__mro__[1] is tracesock.socket
tracesock.uninstall()
assert not differing(before, snapshot())
"""
    )


def test_the_snapshot_sees_a_change() -> None:
    python(
        SNAPSHOT
        + """
import ssl
before = snapshot()
ssl.something = 1
assert differing(before, snapshot()) == [("ssl", "something")]
del ssl.something
ssl.SSLContext.wrap_socket = kept = lambda self: 0
assert differing(before, snapshot()) == [(("ssl", "SSLContext"), "wrap_socket")]
"""
    )


def test_threads() -> None:
    python(
        IMPORTS
        + SNAPSHOT
        + """
import socket, threading, tracesock, tracesock.dropin
before = snapshot()
for action, expected in ((tracesock.install, tracesock.socket), (tracesock.uninstall, None)) * 5:
    gate = threading.Barrier(8)
    failures = []
    def run():
        gate.wait()
        try:
            action()
        except BaseException as error:
            failures.append(error)
    threads = [threading.Thread(target=run) for _ in range(8)]
    for thread in threads: thread.start()
    for thread in threads: thread.join()
    assert not failures, failures
    assert (socket.socket is tracesock.socket) == (expected is not None)
assert not differing(before, snapshot()), differing(before, snapshot())
"""
    )


def test_threads_that_want_different_things() -> None:
    python(
        IMPORTS
        + SNAPSHOT
        + """
import random, threading, tracesock.dropin, warnings
before = snapshot()
failures = []
class Nobody:
    def __getattr__(self, name):
        return lambda *arguments: None
def run(number):
    choice = random.Random(number)
    try:
        for _ in range(40):
            choice.choice([
                tracesock.install, tracesock.uninstall, tracesock.uninstall,
                lambda: tracesock.dropin.set_observer(Nobody()),
                lambda: tracesock.dropin.set_observer(None),
                lambda: [end.close() for end in sys.modules["socket"].socketpair()],
                lambda: ssl.create_default_context(),
            ])()
    except BaseException as error:
        failures.append(error)
threads = [threading.Thread(target=run, args=(number,)) for number in range(6)]
for thread in threads: thread.start()
for thread in threads: thread.join()
assert not failures, failures
tracesock.uninstall()
tracesock.dropin.set_observer(None)
assert not differing(before, snapshot()), differing(before, snapshot())
""",
        options=("-W", "ignore"),
    )


def test_an_import_in_another_thread_while_installing() -> None:
    python(
        """
import threading, time, sys, tracesock, tracesock.dropin

class Slow:
    # ssl takes its time: install() comes in the middle of its import.
    def find_spec(self, name, path=None, target=None):
        if name == "ssl":
            begun.set()
            time.sleep(0.3)

begun = threading.Event()
sys.meta_path.insert(0, Slow())
def load():
    import ssl
thread = threading.Thread(target=load)
thread.start()
begun.wait()
tracesock.install()
thread.join()
import ssl
assert ssl.SSLSocket.__mro__[1] is tracesock.socket, ssl.SSLSocket.__mro__
"""
    )


def test_warnings_name_the_modules(tmp_path: pathlib.Path) -> None:
    for name, source in {
        "early_class": "from socket import socket",
        "early_tls": "from ssl import SSLSocket as Kept",
        "early_lookup": "from socket import getaddrinfo",
        "early_subclass": "import socket\nclass Mine(socket.socket): pass\n"
        "def make():\n    class Local(socket.socket): pass\n    return Local\n"
        "kept = [make() for _ in range(9)]",
        "harmless": "import socket, ssl\nfrom socket import AF_INET, gethostname, timeout",
    }.items():
        (tmp_path / f"{name}.py").write_text(source)
    python(
        f"""
import sys, warnings
sys.path.insert(0, {str(tmp_path)!r})
import early_class, early_tls, early_lookup, early_subclass, harmless
import tracesock
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    tracesock.install()
    tracesock.install()
texts = [str(warning.message) for warning in caught]
assert len(texts) == 4, texts
for name, what in (
    ("early_class", "socket,"),
    ("early_tls", "SSLSocket,"),
    ("early_lookup", "getaddrinfo,"),
    ("early_subclass", "Mine"),
):
    (text,) = [text for text in texts if repr(name) in text]
    assert what in text and text.count("Local") == (name == "early_subclass"), text
assert {{warning.category.__name__ for warning in caught}} == {{"EarlyImportWarning"}}
assert caught[0].filename == "<string>", caught[0].filename
assert early_class.socket is not tracesock.socket
early_class.socket().close()
""",
        options=(),
    )


def test_nothing_to_warn_of() -> None:
    python(
        "import " + "ssl, http.client, asyncio, tracesock\ntracesock.install()",
        options=("-W", "error"),
    )


def test_what_another_put_there_stays() -> None:
    python(
        """
import socket, tracesock
tracesock.install()
theirs = socket.getaddrinfo = lambda *args, **kwargs: []
tracesock.uninstall()
assert socket.getaddrinfo is theirs
assert socket.socket is not tracesock.socket
"""
    )


def test_what_another_put_there_before_stays() -> None:
    python(
        SNAPSHOT
        + """
import socket, ssl, asyncio, encodings.idna, warnings, linecache, tokenize, types
import tracesock, tracesock.dropin

def caught(call):
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        call()
    return [str(each.message) for each in found]

kept = socket.getaddrinfo
shop = types.ModuleType("shop")
exec("def numbers_only(*arguments, **names): return []", vars(shop))
socket.getaddrinfo = shop.numbers_only
before = snapshot()
(text,) = caught(tracesock.install)
assert "'shop'" in text and "its own getaddrinfo" in text, text
assert socket.getaddrinfo is shop.numbers_only and socket.socket is tracesock.socket
tracesock.uninstall()
assert not differing(before, snapshot()), differing(before, snapshot())
socket.getaddrinfo = kept

# A proxy's class, as PySocks has it: connections must not go past the proxy.
class Proxied(socket.socket):
    def connect(self, address):
        asked.append(address)
        super().connect(real)

asked = []
socket.socket = Proxied
before = snapshot()
text, *_ = caught(tracesock.install)
assert "its own socket" in text, text
with socket.create_server(("127.0.0.1", 0)) as server:
    real = server.getsockname()
    with socket.create_connection(("192.0.2.1", 9)) as client:
        accepted, _ = server.accept()
        assert asked == [("192.0.2.1", 9)]
        assert type(client) is type(server) is type(accepted) is Proxied
        client.sendall(b"x")
        assert accepted.recv(9) == b"x"
        accepted.close()
tracesock.uninstall()
assert not differing(before, snapshot()), differing(before, snapshot())
"""
    )


# A server and clients that depend on each other: they end only where both wait as gevent does.
GEVENT = """
import http.client, http.server, socket, ssl, sys, threading
import gevent

def get(port, context):
    client = http.client.HTTPSConnection("localhost", port, context=context, timeout=30)
    client.request("GET", "/")
    answer = client.getresponse().read()
    client.close()
    return answer

class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        one, two = socket.socketpair()
        gevent.spawn(two.sendall, b"woken")
        answer = one.recv(5)
        one.close(); two.close()
        self.send_response(200)
        self.end_headers()
        self.wfile.write(answer)
    def log_message(self, *arguments):
        pass

def main(certificate):
    theirs = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    theirs.load_cert_chain(certificate)
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.socket = theirs.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    context = ssl.create_default_context(cafile=certificate)
    clients = [gevent.spawn(get, server.server_port, context) for _ in range(4)]
    assert not [each for each in clients if each not in gevent.joinall(clients, timeout=60)]
    assert [each.value for each in clients] == [b"woken"] * 4, [each.exception for each in clients]
    server.shutdown()
    thread.join()
    server.server_close()
"""


@pytest.mark.parametrize("how", ["install, patch", "patch, install", "patch, uninstall", "run"])
def test_gevent(certificate: str, how: str) -> None:
    pytest.importorskip("gevent", reason="gevent is missing: pip install 'tracesock[dev]'")
    patch = "import gevent.monkey; gevent.monkey.patch_all()\n"
    steps = {
        "install, patch": "import tracesock; tracesock.install()\n" + patch,
        "patch, install": patch
        + """
import tracesock, tracesock.dropin, warnings
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    tracesock.install()
(warning,) = caught
assert "socket.socket is gevent._socket3.socket" in str(warning.message), warning
assert "changes nothing" in str(warning.message) and not tracesock.dropin.installed()
""",
        "patch, uninstall": "import tracesock; tracesock.install()\n"
        + patch
        + "tracesock.uninstall()\n",
        "run": patch,
    }
    started = {"PYTHONPATH": f"{AUTOLOAD}{os.pathsep}{PROJECT}"} if how == "run" else {}
    python(
        steps[how] + GEVENT + "main(sys.argv[1])",
        certificate,
        options=("-W", "ignore::RuntimeWarning"),
        **started,
    )


def test_patched_names_are_the_ones_used() -> None:
    python(
        """
import socket, tracesock
tracesock.install()
def look_up(host, port, *rest):
    return [(socket.AF_INET, socket.SOCK_STREAM, 0, "", ("127.0.0.1", port))]
socket.getaddrinfo = look_up
made = []
class Spy(socket.socket):
    def __init__(self, *args, **kwargs):
        made.append(self)
        super().__init__(*args, **kwargs)
socket.socket = Spy
with socket.create_server(("127.0.0.1", 0)) as server:
    with socket.create_connection(("nowhere.invalid", server.getsockname()[1])) as client:
        connection, _ = server.accept()
        assert all(type(each) is Spy for each in (server, client, connection))
        connection.close()
assert len(made) == 3
"""
    )


def test_the_default_timeout_is_one() -> None:
    python(
        """
import socket
stock = socket.socket
socket.setdefaulttimeout(3.0)
import tracesock
tracesock.install()
assert socket.getdefaulttimeout() == 3.0 == socket.socket().gettimeout()
socket.setdefaulttimeout(5.0)
assert stock().gettimeout() == 5.0 == socket.socket().gettimeout()
try:
    socket.setdefaulttimeout(-1)
except ValueError:
    assert socket.getdefaulttimeout() == 5.0
else:
    raise AssertionError("a negative timeout was taken")
tracesock.uninstall()
assert socket.getdefaulttimeout() == 5.0 == socket.socket().gettimeout()
assert tracesock.getdefaulttimeout() is None
""",
        options=("-W", "ignore"),
    )


def test_sockets_outlive_uninstall() -> None:
    python(
        """
import socket, tracesock
tracesock.install()
one, two = socket.socketpair()
stream = one.makefile("rwb")
tracesock.uninstall()
two.sendall(b"line\\n")
assert stream.readline() == b"line\\n"
assert type(one.dup()) is tracesock.socket
""",
        options=("-W", "ignore"),
    )


@pytest.mark.parametrize("debug", [False, True])
def test_asyncio_looks_up_in_the_callers_context(debug: bool) -> None:
    out = python(
        f"""
import asyncio, contextvars, socket
if {debug}:
    import logging; logging.disable()
request = contextvars.ContextVar("request", default="none")
real = socket.getaddrinfo, socket.getnameinfo

def spy(original):
    def look_up(*args):
        print(original.__name__, request.get())
        return original(*args)
    return look_up

async def main():
    request.set("mine")
    loop = asyncio.get_running_loop()
    await loop.getaddrinfo("127.0.0.1", 80)
    await loop.getnameinfo(("127.0.0.1", 80), socket.NI_NUMERICHOST)
    await loop.run_in_executor(None, lambda: print("other", request.get()))

import tracesock
tracesock.install()
for name in ("getaddrinfo", "getnameinfo"):
    setattr(socket, name, spy(getattr(socket, name)))
asyncio.run(main(), debug={debug})
tracesock.uninstall()
asyncio.run(main(), debug={debug})
""",
        PYTHON_THREAD_INHERIT_CONTEXT="0",  # the default, but for free-threaded Pythons
    )
    carried = ["getaddrinfo mine", "getnameinfo mine", "other none"]
    assert out.splitlines() == [*carried, "getaddrinfo none", "getnameinfo none", "other none"]


def test_multiprocessing_sends_sockets() -> None:
    python(
        """
import threading, tracesock
tracesock.install()
import multiprocessing, pickle, socket

def main():
    one, two = multiprocessing.Pipe()
    left, right = socket.socketpair()
    threading.Thread(target=one.send, args=(left,)).start()
    got = two.recv()
    assert type(got) is tracesock.socket and got.fileno() != left.fileno()
    got.sendall(b"sent")
    assert right.recv(4) == b"sent"
    try:
        pickle.dumps(left)
    except TypeError as error:
        assert "cannot pickle 'socket' object" in str(error)
    else:
        raise AssertionError("a socket was pickled")
main()
""",
        options=("-W", "ignore"),
    )


TAKEN = """
import socket, warnings
warnings.simplefilter("ignore")

def wrap(method):
    def call(*args):
        return method(*args)
    return call

class Closures:
    send, recv, accept, fileno = (
        staticmethod(wrap(getattr(socket.socket, name)))
        for name in ("send", "recv", "accept", "fileno")
    )
    close = staticmethod(wrap(socket.socket.close))
    gettimeout = staticmethod(wrap(socket.socket.gettimeout))

class Attributes:
    send, recv = socket.socket.send, socket.socket.recv
    accept, fileno, close = socket.socket.accept, socket.socket.fileno, socket.socket.close
    gettimeout = socket.socket.gettimeout

def use(methods):
    one, two = socket.socketpair()
    two.settimeout(5)
    assert methods.send(one, b"taken") == 5 and methods.recv(two, 9) == b"taken"
    assert methods.fileno(one) == one.fileno() and methods.gettimeout(two) == 5
    two.settimeout(7)
    assert methods.gettimeout(two) == 7
    methods.close(one)
    assert one.fileno() == -1 and two.recv(1) == b""
    two.close()
    with socket.create_server(("127.0.0.1", 0)) as server:
        with socket.create_connection(server.getsockname()) as client:
            accepted, _ = methods.accept(server)
            assert type(accepted) is socket.socket
            methods.send(accepted, b"x")
            assert methods.recv(client, 9) == b"x"
            accepted.close()
    kept = socket.socket(fileno=socket.socket().detach())
    kept.close()
"""


def test_methods_taken_before_work_on_what_is_made_after() -> None:
    python(
        TAKEN
        + """
use(Closures); use(Attributes)
import tracesock
tracesock.install()
assert socket.socket is tracesock.socket
use(Closures); use(Attributes)
tracesock.uninstall()
use(Closures); use(Attributes)
""",
        options=("-W", "error::ResourceWarning"),
    )


def test_methods_taken_in_between_work_afterwards() -> None:
    python(
        "import tracesock; tracesock.install()\n"
        + TAKEN
        + """
class Statics:
    send, recv = staticmethod(socket.socket.send), staticmethod(socket.socket.recv)
    accept, fileno = staticmethod(socket.socket.accept), staticmethod(socket.socket.fileno)
    close = staticmethod(socket.socket.close)
    gettimeout = staticmethod(socket.socket.gettimeout)

send, recv, accept, fileno = Attributes.send, Attributes.recv, Attributes.accept, Attributes.fileno
close, gettimeout = socket.socket.close, socket.socket.gettimeout
kinds = Closures, Attributes, Statics, __import__("sys").modules[__name__]
for kind in kinds: use(kind)
one, two = socket.socketpair()
tracesock.uninstall()
assert socket.socket is not tracesock.socket
for kind in kinds: use(kind)
for kind in kinds:
    kind.send(one, b"ours")
    assert kind.recv(two, 9) == b"ours" and kind.fileno(one) == one.fileno()
tracesock.install()
for kind in kinds: use(kind)
tracesock.uninstall()
for kind in kinds:
    use(kind)
    kind.send(one, b"ours")
    assert kind.recv(two, 9) == b"ours" and kind.fileno(one) == one.fileno()
one.close(); two.close()
""",
        options=("-W", "error::ResourceWarning"),
    )


def test_methods_taken_before_work_on_sockets_of_both_kinds() -> None:
    python(
        TAKEN
        + """
def cells():
    return [each.__func__.__closure__[0].cell_contents
            for each in vars(Closures).values() if isinstance(each, staticmethod)]

taken = cells()
earlier = socket.socketpair()
import tracesock
tracesock.install()
between = socket.socketpair()

def use_both():
    for one, two in (earlier, between):
        assert Closures.send(one, b"both") == 4 and Closures.recv(two, 9) == b"both"
        assert Closures.fileno(two) == two.fileno() and Closures.gettimeout(one) is None

use(Closures); use_both()
tracesock.uninstall()
use(Closures); use_both()
for sock in between:
    Closures.close(sock)
    assert sock.fileno() == -1
del sock, between
tracesock.install()
tracesock.uninstall()
assert cells() == taken
for sock in earlier:
    Closures.close(sock)
""",
        options=("-W", "error::ResourceWarning"),
    )


def test_a_wrapped_method_is_the_one_of_the_socket_it_is_called_on() -> None:
    # Who wraps a method of the class keeps the one before, for that class's sockets.
    python(
        """
import socket, tracesock
calls = []

def wrap(cls):
    original = cls.send
    def send(self, data):
        calls.append(data)
        return original(self, data)
    cls.send = send

stock = socket.socket
wrap(stock)
earlier = socket.socketpair()
tracesock.install()
assert earlier[0].send(b"stock") == 5 and calls.pop() == b"stock"
wrap(socket.socket)
between = socket.socketpair()
assert between[0].send(b"ours") == 4 and calls.pop() == b"ours"
tracesock.uninstall()
later = tracesock.socketpair()
assert later[0].send(b"later") == 5 and calls.pop() == b"later", calls
assert between[0].send(b"ours") == 4 and earlier[0].send(b"stock") == 5
again = socket.socketpair()
assert again[0].send(b"again") == 5 and calls == [b"ours", b"stock", b"again"]
""",
        options=("-W", "ignore"),
    )


def test_a_fork_waits_for_an_install_in_another_thread() -> None:
    python(
        IMPORTS
        + SNAPSHOT
        + """
import os, socket, threading, traceback, tracesock, tracesock.dropin
stop = threading.Event()
before = snapshot()

def flip():
    while not stop.is_set():
        tracesock.install()
        tracesock.uninstall()

def child():
    tracesock.install()
    assert socket.socket is tracesock.socket and ssl.SSLSocket.__mro__[1] is tracesock.socket
    one, two = socket.socketpair()
    one.send(b"x")
    assert two.recv(1) == b"x"
    one.close(); two.close()
    tracesock.uninstall()
    changed = [each for each in differing(before, snapshot()) if each[0] != "threading"]
    assert not changed, changed

threads = [threading.Thread(target=flip) for _ in range(2)]
for thread in threads: thread.start()
ended = []
for _ in range(40):
    pid = os.fork()
    if not pid:
        try:
            child()
        except BaseException:
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    ended.append(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
stop.set()
for thread in threads: thread.join()
assert not any(ended), ended
""",
        options=("-W", "ignore"),
    )


def test_without_taken_methods_the_shell_stays_empty() -> None:
    python(
        """
import _socket, socket, tracesock
tracesock.install()
with socket.socket() as sock:
    assert _socket.socket.fileno(sock) == -1 != sock.fileno()
"""
    )
